//! Applies a unified diff to the files it is about.

use anyhow::{Context, Result, ensure};

use crate::sources::without_anchors;

/// What a diff changes in one file.
#[derive(Debug, PartialEq, Eq)]
pub struct FileDiff<'a> {
    /// The file, as the diff names it without `b/`.
    pub path: &'a str,
    hunks: Vec<Hunk<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Hunk<'a> {
    /// Where the hunk begins in the old file, counted from 0, if nothing has moved.
    at: usize,
    /// The lines that must stand there.
    old: Vec<&'a str>,
    /// The lines that take their place.
    new: Vec<&'a str>,
}

/// The parts of a diff, one for each file.
pub fn parse(diff: &str) -> Result<Vec<FileDiff<'_>>> {
    let mut files: Vec<FileDiff<'_>> = Vec::new();
    for line in diff.lines() {
        if let Some(path) = line.strip_prefix("+++ b/") {
            let path = path.split('\t').next().unwrap_or(path);
            files.push(FileDiff {
                path,
                hunks: Vec::new(),
            });
            continue;
        }
        if line.starts_with("--- ") || line.starts_with("diff ") || line.starts_with("index ") {
            continue;
        }
        let file = files.last_mut().context("no line `+++ b/…` before it")?;
        if let Some(place) = line.strip_prefix("@@ -") {
            let first = place.split([',', ' ']).next().unwrap_or_default();
            let first: usize = first
                .parse()
                .with_context(|| format!("no line number in `{line}`"))?;
            file.hunks.push(Hunk {
                at: first.saturating_sub(1),
                old: Vec::new(),
                new: Vec::new(),
            });
            continue;
        }
        let hunk = file.hunks.last_mut().context("no line `@@ …` before it")?;
        match line.split_at_checked(1) {
            // Some editors and mailers take the space of an empty line away.
            None => {
                hunk.old.push("");
                hunk.new.push("");
            }
            Some((" ", rest)) => {
                hunk.old.push(rest);
                hunk.new.push(rest);
            }
            Some(("-", rest)) => hunk.old.push(rest),
            Some(("+", rest)) => hunk.new.push(rest),
            Some(("\\", _)) => {}
            Some(_) => anyhow::bail!("not a line of a diff: `{line}`"),
        }
    }
    for file in &files {
        ensure!(!file.hunks.is_empty(), "no change of {}", file.path);
    }
    Ok(files)
}

impl FileDiff<'_> {
    /// The file with the change in it. Where lines have been added or taken away above, the place is looked
    /// for; the lines themselves must be the same. Lines that only mark a listing do not count, on either side.
    pub fn apply(&self, source: &str) -> Result<String> {
        let source = without_anchors(source);
        let mut lines: Vec<&str> = source.lines().collect();
        let mut moved = 0_isize;
        for hunk in &self.hunks {
            let old = without_marks(&hunk.old);
            let new = without_marks(&hunk.new);
            let expected = hunk.at.saturating_add_signed(moved);
            let found = place(&lines, &old, expected).with_context(|| {
                let first = old.iter().find(|line| !line.trim().is_empty());
                format!(
                    "it no longer applies to {}: {} lines that began, at line {}, with `{}` are not there any more",
                    self.path,
                    old.len(),
                    hunk.at + 1,
                    first.map_or("", |line| line.trim())
                )
            })?;
            lines.splice(found..found + old.len(), new.iter().copied());
            moved = found as isize - hunk.at as isize + new.len() as isize - old.len() as isize;
        }
        let mut text = lines.join("\n");
        text.push('\n');
        Ok(text)
    }
}

fn without_marks<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let lines = lines.iter().copied();
    lines
        .filter(|line| line.is_empty() || !without_anchors(line).is_empty())
        .collect()
}

/// Where `wanted` stands in `lines`, nearest to `expected`.
fn place(lines: &[&str], wanted: &[&str], expected: usize) -> Option<usize> {
    let last = lines.len().checked_sub(wanted.len())?;
    (0..=last)
        .filter(|&at| lines[at..at + wanted.len()] == *wanted)
        .min_by_key(|&at| at.abs_diff(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "one\ntwo\nthree\nfour\nfive\nsix\n";

    const DIFF: &str = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n@@ -5,2 +5,3 @@\n five\n+five and a half\n six\n";

    fn applied(diff: &str, source: &str) -> Result<String> {
        let files = parse(diff)?;
        assert_eq!(files.len(), 1);
        files[0].apply(source)
    }

    #[test]
    fn lines_are_exchanged() {
        let expected = "one\n2\nthree\nfour\nfive\nfive and a half\nsix\n";
        assert_eq!(applied(DIFF, SOURCE).unwrap(), expected);
    }

    #[test]
    fn the_place_may_have_moved_and_marks_of_listings_do_not_count() {
        let source = format!("new\n\n{SOURCE}").replace("two\n", "  // ANCHOR: two\ntwo\n");
        let expected = "new\n\none\n2\nthree\nfour\nfive\nfive and a half\nsix\n";
        assert_eq!(applied(DIFF, &source).unwrap(), expected);
        let diff = DIFF.replace("-two", " // ANCHOR: two\n-two");
        assert_eq!(applied(&diff, &source).unwrap(), expected);
    }

    #[test]
    fn of_several_places_the_nearest_is_meant() {
        let diff = "--- a/f\n+++ b/f\n@@ -4 +4 @@\n-x\n+y\n";
        assert_eq!(
            applied(diff, "x\na\nb\nc\nx\nx\n").unwrap(),
            "x\na\nb\nc\ny\nx\n"
        );
    }

    #[test]
    fn lines_that_are_gone_are_named() {
        let error = applied(DIFF, &SOURCE.replace("five", "5")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no longer applies to f"), "{text}");
        assert!(text.contains("at line 5, with `five`"), "{text}");
    }

    #[test]
    fn each_file_has_its_own_part() {
        let two = format!("{DIFF}{}", DIFF.replace("/f", "/g"));
        let files = parse(&two).unwrap();
        assert_eq!(
            files.iter().map(|file| file.path).collect::<Vec<_>>(),
            ["f", "g"]
        );
        assert!(parse("@@ -1 +1 @@\n").is_err());
        assert!(parse("--- a/f\n+++ b/f\n").is_err());
    }
}
