//! What was seen in earlier runs: a bug that was caught is not run again while nothing has changed that could
//! change it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::workshop::contract_of;
use crate::patch::Patch;
use crate::sources::{files_below, without_anchors};

/// What judges a bug, beside the patch and the milestone: when one of these changes, everything is run again.
const JUDGES: [&str; 6] = [
    "tests/support",
    "tests/clock",
    "tests/contracts",
    "shared/cli",
    "shared/loadgen/src",
    // The museum itself.
    "shared/xtask/src/bugs",
];

/// The same, single files.
const FILES: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// What was caught before.
pub struct Memory {
    root: PathBuf,
    folder: PathBuf,
    /// All that no single bug can change.
    judges: u64,
}

impl Memory {
    /// Reads what all bugs have in common. What is remembered lies in `folder`.
    pub fn open(root: &Path, folder: &Path) -> Result<Self> {
        let mut judges = DefaultHasher::new();
        let compiler = Command::new("rustc").arg("-vV").output().context("rustc")?;
        compiler.stdout.hash(&mut judges);
        for judge in JUDGES {
            hash_folder(root, judge, &mut judges)?;
        }
        for file in FILES {
            fs::read(root.join(file)).context(file)?.hash(&mut judges);
        }
        Ok(Self {
            root: root.to_owned(),
            folder: folder.join("caught"),
            judges: judges.finish(),
        })
    }

    /// What the check said when it last caught this very bug in this very milestone.
    pub fn recall(&self, patch: &Patch) -> Result<Option<String>> {
        let remembered = fs::read_to_string(self.file(patch)).unwrap_or_default();
        let message = remembered.strip_prefix(&self.key(patch)?);
        Ok(message.map(str::to_owned))
    }

    /// Remembers it.
    pub fn keep(&self, patch: &Patch, message: &str) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.file(patch), self.key(patch)? + message)?;
        Ok(())
    }

    fn file(&self, patch: &Patch) -> PathBuf {
        self.folder.join(&patch.name)
    }

    fn key(&self, patch: &Patch) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        self.judges.hash(&mut hasher);
        (&patch.milestone, &patch.check, &patch.message, &patch.diff).hash(&mut hasher);
        hash_folder(
            &self.root,
            &format!("milestones/{}", patch.milestone),
            &mut hasher,
        )?;
        let contract = format!("tests/{}.rs", contract_of(&patch.milestone));
        hash_file(&self.root, &contract, &mut hasher)?;
        Ok(format!("{:016x}\n", hasher.finish()))
    }
}

fn hash_folder(root: &Path, folder: &str, hasher: &mut DefaultHasher) -> Result<()> {
    for path in files_below(&root.join(folder))? {
        hash_file(root, &format!("{folder}/{path}"), hasher)?;
    }
    Ok(())
}

fn hash_file(root: &Path, path: &str, hasher: &mut DefaultHasher) -> Result<()> {
    let text = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
    (path, without_anchors(&text)).hash(hasher);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(diff: &str) -> Patch {
        Patch {
            name: "m4-x".to_owned(),
            bug: String::new(),
            milestone: "m4-edge-triggered".to_owned(),
            check: "c".to_owned(),
            message: "m".to_owned(),
            traps: Vec::new(),
            explanation: String::new(),
            diff: diff.to_owned(),
        }
    }

    #[test]
    fn only_the_same_bug_is_remembered() {
        let folder = std::env::temp_dir().join(format!("museum-{}", std::process::id()));
        let memory = Memory::open(&crate::sources::root(), &folder).unwrap();
        let (one, other) = (patch("one"), patch("other"));
        assert_eq!(memory.recall(&one).unwrap(), None);
        memory.keep(&one, "it said\nthis\n").unwrap();
        assert_eq!(
            memory.recall(&one).unwrap().as_deref(),
            Some("it said\nthis\n")
        );
        assert_eq!(memory.recall(&other).unwrap(), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
