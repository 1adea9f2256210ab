//! What changed from one milestone to the next.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use similar::TextDiff;

use super::Files;
use crate::sources::{self, files_below};

/// The first pair of neighbours of which every file is also shown alone: until then there is only one.
const SPLIT_FROM: u32 = 4;

/// `diffs/m3-m4.diff` and its like, and from m4-m5 on `diffs/m4-m5/connection.rs.diff` as well.
pub fn all(root: &Path) -> Result<Files> {
    let milestones = sources::milestones(root)?;
    let mut files = Files::new();
    for pair in milestones.windows(2) {
        let [old, new] = pair else { continue };
        let (before, after) = (read(root, &old.package)?, read(root, &new.package)?);
        let name = format!("m{}-m{}", old.number, new.number);
        let mut whole = String::new();
        for change in between(&before, &after) {
            let from = |path: &str| format!("a/milestones/{}/src/{path}", old.package);
            let to = |path: &str| format!("b/milestones/{}/src/{path}", new.package);
            let text = change.show(from, to);
            if old.number >= SPLIT_FROM {
                let file = change.name().replace('/', "-");
                files.insert(format!("diffs/{name}/{file}.diff"), text.clone());
            }
            whole.push_str(&text);
        }
        files.insert(format!("diffs/{name}.diff"), whole);
    }
    Ok(files)
}

/// A milestone's sources by their paths below `src`, without the lines that mark listings.
fn read(root: &Path, package: &str) -> Result<BTreeMap<String, String>> {
    let folder = root.join("milestones").join(package).join("src");
    let mut files = BTreeMap::new();
    for path in files_below(&folder)? {
        let file = folder.join(&path);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        files.insert(path, sources::without_anchors(&text));
    }
    Ok(files)
}

/// One file that is not as it was: paths below `src`, and texts.
struct Change<'a> {
    old: Option<(&'a str, &'a str)>,
    new: Option<(&'a str, &'a str)>,
}

/// Pairs the files of two milestones: by path, then, for files that moved, by name.
fn between<'a>(
    old: &'a BTreeMap<String, String>,
    new: &'a BTreeMap<String, String>,
) -> Vec<Change<'a>> {
    let mut gone: BTreeMap<&str, &str> = old
        .iter()
        .filter(|(path, _)| !new.contains_key(*path))
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let mut changes = Vec::new();
    for (path, text) in new {
        let new = Some((path.as_str(), text.as_str()));
        let old = match old.get(path) {
            Some(old) if old == text => continue,
            Some(old) => Some((path.as_str(), old.as_str())),
            None => {
                let moved = gone.keys().find(|from| file_name(from) == file_name(path));
                moved.copied().and_then(|from| gone.remove_entry(from))
            }
        };
        changes.push(Change { old, new });
    }
    changes.extend(gone.into_iter().map(|old| Change {
        old: Some(old),
        new: None,
    }));
    changes
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Change<'_> {
    /// The path it goes by.
    fn name(&self) -> &str {
        self.new.or(self.old).map_or("", |(path, _)| path)
    }

    fn show(&self, from: impl Fn(&str) -> String, to: impl Fn(&str) -> String) -> String {
        match (self.old, self.new) {
            // Git's words for a file that only moved.
            (Some((old, before)), Some((new, after))) if before == after => {
                let [old, new] = [&from(old)[2..], &to(new)[2..]].map(str::to_owned);
                format!("rename from {old}\nrename to {new}\n")
            }
            (old, new) => {
                let name = |side: Option<String>| side.unwrap_or("/dev/null".to_owned());
                let before = name(old.map(|(path, _)| from(path)));
                let after = name(new.map(|(path, _)| to(path)));
                let text = |side: Option<(&str, &str)>| side.map_or(String::new(), |s| s.1.into());
                unified(&before, &after, &text(old), &text(new))
            }
        }
    }
}

/// A unified diff with three lines of context.
pub fn unified(from: &str, to: &str, old: &str, new: &str) -> String {
    TextDiff::from_lines(old, new)
        .unified_diff()
        .context_radius(3)
        .header(from, to)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        files.iter().map(own).collect()
    }

    fn shown(old: &[(&str, &str)], new: &[(&str, &str)]) -> Vec<String> {
        let (old, new) = (sources(old), sources(new));
        let changes = between(&old, &new);
        let show = |change: &Change<'_>| {
            change.show(|path| format!("a/{path}"), |path| format!("b/{path}"))
        };
        changes.iter().map(show).collect()
    }

    #[test]
    fn a_changed_line_is_shown_with_its_neighbours() {
        let texts = shown(
            &[("x.rs", "1\n2\n3\n4\n5\n")],
            &[("x.rs", "1\n2\n3\n4\nfive\n")],
        );
        assert_eq!(
            texts,
            ["--- a/x.rs\n+++ b/x.rs\n@@ -2,4 +2,4 @@\n 2\n 3\n 4\n-5\n+five\n"]
        );
    }

    #[test]
    fn new_gone_and_moved_files() {
        let texts = shown(
            &[("gone.rs", "g\n"), ("same.rs", "s\n"), ("m.rs", "m\n")],
            &[("new.rs", "n\n"), ("same.rs", "s\n"), ("sub/m.rs", "m\n")],
        );
        assert_eq!(
            texts,
            [
                "--- /dev/null\n+++ b/new.rs\n@@ -0,0 +1 @@\n+n\n",
                "rename from m.rs\nrename to sub/m.rs\n",
                "--- a/gone.rs\n+++ /dev/null\n@@ -1 +0,0 @@\n-g\n",
            ]
        );
    }
}
