//! Writes what the book shows: differences between milestones, transcripts, traces.
//!
//! Everything below `book/generated/` but the bench's figures is made here from the code as it is, and a
//! second run with no change of code changes no byte. `book-check` makes it anew and compares.

mod build;
mod diffs;
mod museum;
mod normalise;
mod play;
mod scenes;
mod terminal;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::patch::Patch;
use crate::sources::{self, files_below};

/// Writes what the book shows: differences between milestones, transcripts, traces
#[derive(clap::Args)]
pub struct Arguments {
    /// Only what has this in its path below book/generated, like `scenes/m4-edge-triggered/hello`
    /// (may be given more than once); nothing that is no longer asked for is removed then
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Play every scene this often, and say what differs from the first time
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
}

/// Generated files: their paths below `book/generated`, and what is in them.
pub type Files = BTreeMap<String, String>;

/// What was made, and what could not be.
#[derive(Default)]
pub struct Generated {
    /// The files.
    pub files: Files,
    /// Why a file is missing.
    pub failures: Vec<String>,
    /// The paths, or their beginnings, of files that could not be made: they are not stale.
    pub unknown: Vec<String>,
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let root = sources::root();
    let filter = Filter(arguments.only.clone());
    let mut generated = generate(&root, &filter)?;
    for round in 1..arguments.times {
        let again = scenes::play_all(&root, &filter, &mut generated.failures, &mut Vec::new())?;
        for (path, text) in &again {
            if let Some(first) = generated.files.get(path).filter(|first| *first != text) {
                let differ = format!("{path} was different when played again ({round})");
                generated.failures.push(differ);
                print!("{}", diffs::unified(path, path, first, text));
            }
        }
    }
    write(&root, &generated, filter.0.is_empty())?;
    for failure in &generated.failures {
        eprintln!("xtask: {failure}");
    }
    match generated.failures.len() {
        0 => Ok(()),
        1 => bail!("one failure"),
        many => bail!("{many} failures"),
    }
}

/// Which generated files are wanted.
#[derive(Default)]
pub struct Filter(Vec<String>);

impl Filter {
    /// All that is made without playing anything.
    pub fn still() -> Self {
        Self(vec!["diffs/".to_owned(), "bugs/".to_owned()])
    }

    /// Whether this path, or one that begins with it, may be wanted.
    pub fn takes(&self, path: &str) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|part| path.contains(part.as_str()) || part.starts_with(&format!("{path}/")))
    }
}

/// Makes everything that the filter takes.
pub fn generate(root: &Path, filter: &Filter) -> Result<Generated> {
    let mut made = Generated::default();
    made.files.extend(diffs::all(root)?);
    let patches = Patch::all(root)?;
    made.files
        .insert("bugs/museum.md".to_owned(), museum::page(root, &patches)?);
    for patch in patches {
        let path = format!("bugs/{}.diff", patch.name);
        made.files.insert(path, patch.diff);
    }
    made.files.retain(|path, _| filter.takes(path));
    let played = scenes::play_all(root, filter, &mut made.failures, &mut made.unknown)?;
    made.files.extend(played);
    Ok(made)
}

/// The generated files that `regen` answers for and that are there now.
pub fn present(root: &Path) -> Result<Files> {
    let folder = root.join(FOLDER);
    let mut files = Files::new();
    for path in files_below(&folder)? {
        let ours = path.starts_with("diffs/")
            || path.starts_with("scenes/")
            || (path.starts_with("bugs/") && !path.ends_with(".txt"));
        if ours {
            let bytes = fs::read(folder.join(&path)).with_context(|| path.clone())?;
            files.insert(path, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(files)
}

/// Where generated files live.
pub const FOLDER: &str = "book/generated";

/// Writes what differs from what is there, and removes what nothing asks for any more.
fn write(root: &Path, generated: &Generated, remove: bool) -> Result<()> {
    let folder = root.join(FOLDER);
    let mut old = present(root)?;
    let mut same = 0;
    for (path, text) in &generated.files {
        if old.remove(path).as_ref() == Some(text) {
            same += 1;
            continue;
        }
        let to = folder.join(path);
        let parent = to.parent().context("a path without a folder")?;
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        fs::write(&to, text).with_context(|| to.display().to_string())?;
        println!("written: {FOLDER}/{path}");
    }
    for path in old.keys().filter(|_| remove) {
        if generated
            .unknown
            .iter()
            .any(|prefix| path.starts_with(prefix))
        {
            continue;
        }
        let stale = folder.join(path);
        fs::remove_file(&stale).with_context(|| stale.display().to_string())?;
        // Only succeeds for folders with nothing left in them.
        let folders = stale.ancestors().skip(1);
        let _ = folders
            .take(path.matches('/').count())
            .try_for_each(fs::remove_dir);
        println!("removed: {FOLDER}/{path}");
    }
    println!("{same} of {} files unchanged", generated.files.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_parts_of_paths_and_the_folders_on_the_way() {
        let filter = Filter(vec!["scenes/m4/hello".to_owned()]);
        assert!(filter.takes("scenes/m4/hello/server.txt"));
        assert!(filter.takes("scenes/m4"));
        assert!(!filter.takes("scenes/m5"));
        assert!(!filter.takes("scenes/m4/other/server.txt"));
        assert!(Filter::default().takes("anything"));
    }
}
