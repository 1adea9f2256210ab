//! Where bugs are planted: a copy of the milestones below `target/museum`, with a build of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use super::diff;
use crate::patch::Patch;
use crate::sources::{files_below, without_anchors};

/// A copy of what a milestone is built from, one bug at a time in it.
pub struct Workshop {
    root: PathBuf,
    /// The copy.
    copy: PathBuf,
    /// Where it is built.
    target: PathBuf,
}

/// A file of the copy, and what is to stand in it.
type Source = (PathBuf, String);

impl Workshop {
    /// A copy of the workspace at `root` in `folder`, as it is now. Files that are the same as before are not
    /// written again, so that what was built of them is still good.
    pub fn open(root: &Path, folder: &Path) -> Result<Self> {
        let copy = folder.join("workspace");
        let mut wanted = BTreeSet::new();
        for (path, text) in sources(root)? {
            let path = copy.join(path);
            write_if_changed(&path, &text)?;
            wanted.insert(path);
        }
        for path in files_below(&copy)? {
            let path = copy.join(path);
            // Cargo takes out of it what only the tests of the workspace need.
            if !wanted.contains(&path) && !path.ends_with("Cargo.lock") {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        lock_versions(root, folder)?;
        Ok(Self {
            root: root.to_owned(),
            copy,
            target: folder.join("target"),
        })
    }

    /// The milestone with the bug in it, built; a copy of it in `folder`. With `tests`, its unit tests instead.
    ///
    /// Until this returns the bug is in the copy, and in nothing else.
    pub fn build(&self, patch: &Patch, tests: bool, folder: &Path) -> Result<PathBuf> {
        let mut changed = Vec::new();
        for file in diff::parse(&patch.diff)? {
            let path = self.root.join(file.path);
            let source = fs::read_to_string(&path)
                .with_context(|| format!("it changes {}, which cannot be read", file.path))?;
            changed.push((file.path, source.clone(), file.apply(&source)?));
        }
        for (path, _, with_bug) in &changed {
            fs::write(self.copy.join(path), with_bug)?;
        }
        let built = self.compile(&patch.milestone, tests);
        for (path, source, _) in &changed {
            fs::write(self.copy.join(path), without_anchors(source))?;
        }
        let built = built?;
        fs::create_dir_all(folder)?;
        // Named as it is in the workspace: what it says of itself may hold its name.
        let binary = folder.join(built.file_name().context("a program without a name")?);
        // One of an earlier run may still be running.
        let _ = fs::remove_file(&binary);
        let _no_forks = no_forks();
        fs::copy(&built, &binary)?;
        Ok(binary)
    }

    fn compile(&self, package: &str, tests: bool) -> Result<PathBuf> {
        let mut cargo = cargo();
        cargo.current_dir(&self.copy);
        match tests {
            true => cargo.args(["test", "--no-run", "--bins"]),
            false => cargo.args(["build", "--bins"]),
        };
        cargo
            .args(["--package", package])
            .env("CARGO_TARGET_DIR", &self.target)
            // Nobody looks into these programs with a debugger.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "1");
        let built = executables(&mut cargo)?;
        let built = built.into_iter().find(|built| built.kind == "bin");
        Ok(built.context("nothing was built")?.path)
    }
}

/// While this is held, nobody starts a program. What is started in the middle of a copy would have the copy open
/// for writing, for a moment, and a program that is open for writing cannot be run.
pub fn no_forks() -> MutexGuard<'static, ()> {
    static FORKS: Mutex<()> = Mutex::new(());
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The contracts of these milestones, built as `cargo test` builds them.
pub fn contracts(root: &Path, milestones: &BTreeSet<&str>) -> Result<Vec<(String, PathBuf)>> {
    if milestones.is_empty() {
        return Ok(Vec::new());
    }
    let mut cargo = cargo();
    cargo.current_dir(root).args(["test", "--no-run"]);
    for milestone in milestones {
        let contract = contract_of(milestone);
        cargo.args(["--package", milestone, "--test", &contract]);
    }
    let built = executables(&mut cargo)?.into_iter();
    Ok(built
        .filter(|built| built.kind == "test")
        .map(|built| (built.name, built.path))
        .collect())
}

/// The name of a milestone's contract.
pub fn contract_of(milestone: &str) -> String {
    milestone.replace('-', "_")
}

struct Built {
    name: String,
    kind: String,
    path: PathBuf,
}

/// Runs cargo, and gives the programs that it built.
fn executables(cargo: &mut Command) -> Result<Vec<Built>> {
    let output = cargo
        .args(["--quiet", "--message-format=json"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo")?;
    let mut built = Vec::new();
    let mut errors = String::new();
    for line in output.stdout.split(|&byte| byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else {
            continue;
        };
        if message["message"]["level"] == "error" {
            errors += message["message"]["rendered"].as_str().unwrap_or_default();
        }
        if let Some(path) = message["executable"].as_str() {
            built.push(Built {
                name: message["target"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                kind: message["target"]["kind"][0]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                path: path.into(),
            });
        }
    }
    if !output.status.success() {
        bail!(
            "it does not build:\n{errors}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(built)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What is copied: the milestones and the command line they share, less what only their contracts need.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut all = Vec::new();
    for folder in ["milestones", "shared/cli"] {
        for path in files_below(&root.join(folder))? {
            let path = format!("{folder}/{path}");
            let text = fs::read_to_string(root.join(&path)).with_context(|| path.clone())?;
            let text = match path.ends_with("Cargo.toml") {
                true => without_contract(&text),
                false => without_anchors(&text),
            };
            all.push((path.into(), text));
        }
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let members = manifest.lines().map(|line| match line.split(" = ").next() {
        Some("members") => r#"members = ["milestones/*", "shared/cli"]"#,
        _ => line,
    });
    let manifest: Vec<&str> = members.collect();
    all.push(("Cargo.toml".into(), manifest.join("\n") + "\n"));
    Ok(all)
}

/// A milestone's manifest without its contract and the crates that only the contract needs.
fn without_contract(manifest: &str) -> String {
    const ITS_CRATES: [&str; 3] = ["assert_cmd", "predicates", "support"];
    let mut in_contract = false;
    let mut kept = String::new();
    for line in manifest.split_inclusive('\n') {
        if line.starts_with('[') {
            in_contract = line.trim() == "[[test]]";
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if !in_contract && !ITS_CRATES.contains(&name) {
            kept += line;
        }
    }
    kept
}

fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Keeps the versions that the workspace is built with. Cargo takes out of the copy's lock file what only the
/// contracts need, so it is written anew only when the workspace's has changed.
fn lock_versions(root: &Path, folder: &Path) -> Result<()> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock")?;
    let seen = folder.join("Cargo.lock.seen");
    if fs::read_to_string(&seen).is_ok_and(|before| before == lock) {
        return Ok(());
    }
    fs::create_dir_all(folder.join("workspace"))?;
    fs::write(folder.join("workspace/Cargo.lock"), &lock)?;
    fs::write(seen, lock)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_loses_its_contract_and_nothing_else() {
        let manifest = "[package]\nname = \"m\"\n\n[dependencies]\ncli.workspace = true\n\n[dev-dependencies]\nassert_cmd.workspace = true\nproptest = \"1\"\nsupport.workspace = true\n\n[[test]]\nname = \"m\"\npath = \"x.rs\"\n\n[lints]\nworkspace = true\n";
        assert_eq!(
            without_contract(manifest),
            "[package]\nname = \"m\"\n\n[dependencies]\ncli.workspace = true\n\n[dev-dependencies]\nproptest = \"1\"\n\n[lints]\nworkspace = true\n"
        );
    }

    #[test]
    fn a_contract_is_named_after_its_milestone() {
        assert_eq!(contract_of("m6-10k-tuning"), "m6_10k_tuning");
    }
}
