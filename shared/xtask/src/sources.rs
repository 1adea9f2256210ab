//! The workspace's files, as the chores read them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The top folder of the workspace.
pub fn root() -> PathBuf {
    // This package is two levels below it.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// A step of the course.
#[derive(Clone, Debug)]
pub struct Milestone {
    /// Its number, from 1.
    pub number: u32,
    /// Its package, which is also the name of its folder and of its chapter: `m4-edge-triggered`.
    pub package: String,
}

/// The milestones below `root`, in order.
pub fn milestones(root: &Path) -> Result<Vec<Milestone>> {
    let folder = root.join("milestones");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let package = entry?.file_name().to_string_lossy().into_owned();
        let number = package
            .strip_prefix('m')
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(number, _)| number.parse().ok());
        if let Some(number) = number {
            found.push(Milestone { number, package });
        }
    }
    found.sort_by_key(|milestone| milestone.number);
    Ok(found)
}

/// The files below a folder, as paths relative to it with `/` between their parts, sorted; none when
/// there is no such folder.
pub fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        if !path.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let entry = entry?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                folders.push(name + "/");
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `source` without the lines that only mark a listing for the book (`// ANCHOR: name`, `// ANCHOR_END: name`):
/// what differences between milestones and the museum's patches are taken from, so that marking a listing
/// changes neither.
pub fn without_anchors(source: &str) -> String {
    source
        .split_inclusive('\n')
        .filter(|line| !is_anchor(line))
        .collect()
}

/// Whether a line only marks where a listing begins or ends.
pub fn is_anchor(line: &str) -> bool {
    anchor(line).is_some()
}

/// What a line that only marks a listing says: `ANCHOR` or `ANCHOR_END`, and the listing's name.
pub fn anchor(line: &str) -> Option<(&str, &str)> {
    let comment = line
        .trim_start()
        .trim_start_matches(['/', '#', '-', ';'])
        .trim_start();
    let (kind, name) = comment.split_once(": ")?;
    matches!(kind, "ANCHOR" | "ANCHOR_END").then_some((kind, name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_mark_listings_go() {
        let source = "// ANCHOR: a\nfn a() {}\n    // ANCHOR_END: a\n// An ANCHOR: not a mark\n# ANCHOR: b\n";
        assert_eq!(
            without_anchors(source),
            "fn a() {}\n// An ANCHOR: not a mark\n"
        );
    }
}
