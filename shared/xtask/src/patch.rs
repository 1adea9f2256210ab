//! A bug of the museum, as its file says it: `tests/bugs/NAME.patch`.
//!
//! A header, an explanation and a unified diff, with a blank line between them:
//!
//! ```text
//! Bug: reads once per edge
//! Milestone: m4-edge-triggered
//! Check: echoes_megabytes
//! Message: first words the failure must contain
//! Trap: 1
//!
//! One to three sentences.
//!
//! --- a/milestones/m4-edge-triggered/src/main.rs
//! +++ b/milestones/m4-edge-triggered/src/main.rs
//! @@ …
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// One bug of the museum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The file's name without `.patch`: `m4-forgets-to-drain`.
    pub name: String,
    /// The bug in a few words.
    pub bug: String,
    /// The package it is planted in.
    pub milestone: String,
    /// The name of the test of that milestone's contract that must fail.
    pub check: String,
    /// Words the failure must contain.
    pub message: String,
    /// The traps of the book it belongs to; none where it is nobody's trap.
    pub traps: Vec<u32>,
    /// One to three sentences.
    pub explanation: String,
    /// The unified diff, with `a/milestones/…` and `b/milestones/…`; ends with a line feed.
    pub diff: String,
}

impl Patch {
    /// Reads the text of the file `name.patch`.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let (header, rest) = text
            .split_once("\n\n")
            .context("no blank line after the header")?;
        let mut fields = Fields::default();
        for line in header.lines() {
            let (key, value) = line
                .split_once(": ")
                .with_context(|| format!("a header line that is not `Key: value`: {line}"))?;
            fields.set(key, value.trim())?;
        }
        let start = if rest.starts_with("--- ") {
            0
        } else {
            rest.find("\n--- ").context("no diff: no line `--- a/…`")? + 1
        };
        let (explanation, diff) = rest.split_at(start);
        ensure!(
            !explanation.trim().is_empty(),
            "no explanation between the header and the diff"
        );
        let patch = Self {
            name: name.to_owned(),
            bug: need(fields.bug, "Bug")?,
            milestone: need(fields.milestone, "Milestone")?,
            check: need(fields.check, "Check")?,
            message: need(fields.message, "Message")?,
            traps: fields.traps,
            explanation: explanation.trim().to_owned(),
            diff: format!("{}\n", diff.trim_end_matches('\n')),
        };
        for path in patch.files() {
            let folder = format!("milestones/{}/", patch.milestone);
            ensure!(
                path.starts_with(&folder),
                "it changes {path}, which is not below {folder}"
            );
        }
        Ok(patch)
    }

    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .context("a file without a name")?;
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(name, &text).with_context(|| path.display().to_string())
    }

    /// Every bug of `tests/bugs` below `root`, in the order of their names; none when there is no such folder.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let folder = root.join("tests/bugs");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "patch") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The files it changes, as the diff names them without `a/` and `b/`.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.diff
            .lines()
            .filter_map(|line| line.strip_prefix("+++ b/"))
            .map(|path| path.split('\t').next().unwrap_or(path))
    }
}

/// A header that is being read.
#[derive(Default)]
struct Fields {
    bug: Option<String>,
    milestone: Option<String>,
    check: Option<String>,
    message: Option<String>,
    traps: Vec<u32>,
}

impl Fields {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let field = match key {
            "Bug" => &mut self.bug,
            "Milestone" => &mut self.milestone,
            "Check" => &mut self.check,
            "Message" => &mut self.message,
            "Trap" => {
                for number in value.split(',') {
                    let number = number.trim();
                    let number = number
                        .parse()
                        .with_context(|| format!("Trap: not a number: {number}"))?;
                    self.traps.push(number);
                }
                return Ok(());
            }
            _ => bail!("an unknown key in the header: {key}"),
        };
        ensure!(field.is_none(), "{key} stands twice in the header");
        *field = Some(value.to_owned());
        Ok(())
    }
}

fn need(field: Option<String>, key: &str) -> Result<String> {
    field
        .filter(|value| !value.is_empty())
        .with_context(|| format!("no `{key}:` in the header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Bug: reads once\nMilestone: m4-edge-triggered\nCheck: echoes_megabytes\nMessage: bytes came back: too few\nTrap: 1, 12\n\nOne sentence.\n\n--- a/milestones/m4-edge-triggered/src/main.rs\n+++ b/milestones/m4-edge-triggered/src/main.rs\n@@ -1 +1 @@\n-a\n+b\n\n";

    #[test]
    fn a_whole_file_is_read() {
        let patch = Patch::parse("m4-x", GOOD).unwrap();
        assert_eq!(patch.bug, "reads once");
        assert_eq!(patch.message, "bytes came back: too few");
        assert_eq!(patch.traps, [1, 12]);
        assert_eq!(patch.explanation, "One sentence.");
        assert!(patch.diff.starts_with("--- a/milestones/"));
        assert!(patch.diff.ends_with("\n+b\n"));
        assert_eq!(
            patch.files().collect::<Vec<_>>(),
            ["milestones/m4-edge-triggered/src/main.rs"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let fails = |text: &str| Patch::parse("x", text).unwrap_err().to_string();
        assert!(fails(&GOOD.replace("Check: ", "Cheque: ")).contains("unknown key"));
        assert!(fails(&GOOD.replace("Check: echoes_megabytes\n", "")).contains("no `Check:`"));
        assert!(fails(&GOOD.replace("One sentence.\n\n", "")).contains("no explanation"));
        assert!(fails(&GOOD.replace("--- a/", "-- a/")).contains("no diff"));
        assert!(fails(&GOOD.replace("Milestone: m4", "Milestone: m5")).contains("not below"));
    }
}
