//! `{{#include …}}`, as mdBook understands it, but not in silence.

use std::fs;
use std::path::{Component, Path, PathBuf};

use regex_lite::Regex;

use super::Problem;
use crate::sources;

/// mdBook gives up at this depth as well.
const DEPTH: usize = 10;

/// One directive in a text.
#[derive(Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// Where it stands in its line.
    pub span: std::ops::Range<usize>,
    /// `include`, `title` …
    pub kind: &'a str,
    /// What is behind it.
    pub argument: &'a str,
}

/// Every directive of a line but those escaped with a backslash.
pub fn directives(line: &str) -> Vec<Directive<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = line[from..].find("{{#") {
        let start = from + at;
        let inner = start + "{{#".len();
        let Some(length) = line[inner..].find("}}") else {
            break;
        };
        from = inner + length + "}}".len();
        if line[..start].ends_with('\\') {
            continue;
        }
        let text = line[inner..inner + length].trim();
        let (kind, argument) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        found.push(Directive {
            span: start..from,
            kind,
            argument: argument.trim(),
        });
    }
    found
}

/// Which part of a file is included.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// All of it.
    Whole,
    /// What stands between `ANCHOR: name` and `ANCHOR_END: name`.
    Anchor(&'a str),
    /// Lines, from and to, from 1.
    Lines(usize, usize),
}

/// Splits `path`, `path:anchor`, `path:2:10`, `path::10`, `path:2:`, `path:2`.
pub fn parse(argument: &str) -> (&str, Part<'_>) {
    let mut parts = argument.splitn(3, ':');
    let path = parts.next().unwrap_or("");
    let part = match (parts.next(), parts.next()) {
        (None, _) | (Some(""), None) => Part::Whole,
        (Some(first), second) => match (first.parse::<usize>(), second) {
            (Ok(line), None) => Part::Lines(line, line),
            (Ok(line), Some(end)) => Part::Lines(line, end.parse().unwrap_or(usize::MAX)),
            (Err(_), second) if first.is_empty() => {
                let end = second.and_then(|end| end.parse().ok());
                Part::Lines(1, end.unwrap_or(usize::MAX))
            }
            (Err(_), _) => Part::Anchor(first),
        },
    };
    (path, part)
}

/// Takes the part out of the file's text, or says what is wrong with that, and what to do.
pub fn take(path: &str, text: &str, part: &Part<'_>) -> Result<Vec<String>, String> {
    let lines = match part {
        Part::Anchor(name) => between_anchors(path, text, name)?,
        Part::Whole => text.lines().collect(),
        Part::Lines(from, to) => {
            if !path.starts_with("book/generated/") {
                return Err(format!(
                    "lines {from} to {to} of {path} are other lines tomorrow: mark them with `ANCHOR: name` there and include `{path}:name`"
                ));
            }
            let count = text.lines().count();
            if *from == 0 || *from > count || from > to {
                return Err(format!(
                    "{path} has {count} lines, and no lines {from} to {to}"
                ));
            }
            let all = text.lines().skip(from - 1);
            all.take(to.saturating_sub(from - 1)).collect()
        }
    };
    if lines.iter().all(|line| line.trim().is_empty()) {
        return Err(match part {
            Part::Anchor(name) => format!(
                "nothing stands between `ANCHOR: {name}` and `ANCHOR_END: {name}` in {path}: move the marks around what is meant"
            ),
            _ => format!("{path} is empty"),
        });
    }
    if let Some(line) = lines.iter().position(|line| sources::is_anchor(line)) {
        return Err(format!(
            "this would show line {} of what is included from {path}, which only marks a listing: include by an anchor",
            line + 1
        ));
    }
    Ok(lines.into_iter().map(str::to_owned).collect())
}

fn between_anchors<'a>(path: &str, text: &'a str, name: &str) -> Result<Vec<&'a str>, String> {
    let begins = |line: &&str| sources::anchor(line) == Some(("ANCHOR", name));
    match text.lines().filter(begins).count() {
        0 => {
            return Err(format!(
                "{path} has no anchor `{name}`: its anchors are {}",
                anchors(text)
            ));
        }
        1 => {}
        many => {
            return Err(format!(
                "{path} has {many} anchors `{name}`, and only the first would be shown: give the others another name"
            ));
        }
    }
    let after: Vec<&str> = text
        .lines()
        .skip_while(|line| !begins(line))
        .skip(1)
        .collect();
    let ends = |line: &&str| sources::anchor(line) == Some(("ANCHOR_END", name));
    let Some(end) = after.iter().position(ends) else {
        return Err(format!(
            "{path} has no `ANCHOR_END: {name}`: without it everything to the end of the file would be shown"
        ));
    };
    // Marks of other listings inside this one are not shown.
    let inside = after[..end].iter().copied();
    Ok(inside.filter(|line| !sources::is_anchor(line)).collect())
}

fn anchors(text: &str) -> String {
    let names: Vec<&str> = text
        .lines()
        .filter_map(sources::anchor)
        .filter(|(kind, _)| *kind == "ANCHOR")
        .map(|(_, name)| name)
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// A line of a page, and where it was written.
#[derive(Clone, Debug)]
pub struct Line {
    /// The file, relative to the top folder: of what is included from other than Markdown, the page.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// A page with everything that it includes, and what was wrong on the way.
pub fn expand(root: &Path, file: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Line> {
    expand_to(root, file, text, problems, 0)
}

fn expand_to(
    root: &Path,
    file: &str,
    text: &str,
    problems: &mut Vec<Problem>,
    depth: usize,
) -> Vec<Line> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let push = |lines: &mut Vec<Line>, text: String| {
            lines.push(Line {
                file: file.to_owned(),
                line: number,
                text,
            });
        };
        let found = directives(line);
        if found.is_empty() {
            push(&mut lines, line.to_owned());
            continue;
        }
        let mut shown = String::new();
        let mut from = 0;
        for directive in &found {
            shown.push_str(&line[from..directive.span.start]);
            from = directive.span.end;
            if directive.kind == "title" {
                continue;
            }
            if directive.kind != "include" {
                let message = format!(
                    "`{{{{#{}}}}}` is not used in this book: use `{{{{#include FILE:ANCHOR}}}}`",
                    directive.kind
                );
                problems.push(Problem::at(file, number, message));
                continue;
            }
            let (path, part) = parse(directive.argument);
            let path = clean(&folder.join(path));
            let Ok(included) = fs::read_to_string(root.join(&path)) else {
                problems.push(Problem::at(file, number, missing(&path)));
                continue;
            };
            let taken = match take(&path, &included, &part) {
                Ok(taken) => taken,
                Err(message) => {
                    problems.push(Problem::at(file, number, message));
                    continue;
                }
            };
            let alone = line.trim().len() == directive.span.len();
            if path.ends_with(".md") && alone && depth < DEPTH {
                let inner = taken.join("\n");
                lines.extend(expand_to(root, &path, &inner, problems, depth + 1));
            } else {
                shown.push_str(&taken.join("\n"));
            }
        }
        shown.push_str(&line[from..]);
        // Nothing could be included: it is reported, and no more is to be seen.
        if !shown.trim().is_empty() {
            for text in shown.split('\n') {
                push(&mut lines, text.to_owned());
            }
        }
    }
    lines
}

fn missing(path: &str) -> String {
    if path.starts_with("book/generated/bugs/") && path.ends_with(".txt") {
        format!("there is no {path}: `cargo xtask bugs --record` writes it")
    } else if path.starts_with("book/generated/") {
        format!(
            "there is no {path}: `cargo xtask regen` writes it, if a scene, a patch or a milestone asks for it"
        )
    } else {
        format!("there is no {path}")
    }
}

/// A path without `..` and `.`, with `/` between its parts.
pub fn clean(path: &Path) -> String {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                if parts.file_name().is_some() {
                    parts.pop();
                } else {
                    parts.push("..");
                }
            }
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    parts.to_string_lossy().into_owned()
}

/// A regular expression that is known to be one.
#[expect(clippy::expect_used, reason = "a constant that a test compiles")]
pub fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid regular expression")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "a\n// ANCHOR: one\nb\n    // ANCHOR: inner\nc\n    // ANCHOR_END: inner\n// ANCHOR_END: one\n// ANCHOR: void\n\n// ANCHOR_END: void\n// ANCHOR: open\nd\n";

    #[test]
    fn directives_are_found_unless_escaped() {
        let line = r"x {{#include a.rs:b}} \{{#include no}} {{ #nor }} {{#title T}}";
        let found = directives(line);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].argument), ("include", "a.rs:b"));
        assert_eq!(&line[found[0].span.clone()], "{{#include a.rs:b}}");
        assert_eq!((found[1].kind, found[1].argument), ("title", "T"));
    }

    #[test]
    fn the_forms_of_an_include() {
        assert_eq!(parse("a.rs"), ("a.rs", Part::Whole));
        assert_eq!(parse("a.rs:x-y"), ("a.rs", Part::Anchor("x-y")));
        assert_eq!(parse("a.rs:2:5"), ("a.rs", Part::Lines(2, 5)));
        assert_eq!(parse("a.rs:2"), ("a.rs", Part::Lines(2, 2)));
        assert_eq!(parse("a.rs:2:"), ("a.rs", Part::Lines(2, usize::MAX)));
        assert_eq!(parse("a.rs::5"), ("a.rs", Part::Lines(1, 5)));
    }

    #[test]
    fn an_anchor_is_taken_without_the_marks_inside_it() {
        let taken = |name| take("x.rs", SOURCE, &Part::Anchor(name));
        assert_eq!(taken("one").unwrap(), ["b", "c"]);
        assert!(
            taken("two")
                .unwrap_err()
                .contains("its anchors are one, inner")
        );
        assert!(
            taken("void")
                .unwrap_err()
                .contains("nothing stands between")
        );
        assert!(taken("open").unwrap_err().contains("no `ANCHOR_END: open`"));
        let twice = format!("{SOURCE}// ANCHOR: one\nx\n// ANCHOR_END: one\n");
        let error = take("x.rs", &twice, &Part::Anchor("one")).unwrap_err();
        assert!(error.contains("2 anchors"));
    }

    #[test]
    fn marks_are_never_shown_and_lines_are_for_generated_files() {
        assert!(
            take("x.rs", SOURCE, &Part::Whole)
                .unwrap_err()
                .contains("marks a listing")
        );
        assert!(take("x.rs", "a\nb\n", &Part::Lines(1, 1)).is_err());
        let generated = "book/generated/x";
        assert_eq!(
            take(generated, "a\nb\nc\n", &Part::Lines(2, 3)).unwrap(),
            ["b", "c"]
        );
        assert!(take(generated, "a\n", &Part::Lines(2, 3)).is_err());
    }

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean(Path::new("book/src/../../tests/./a")), "tests/a");
        assert_eq!(clean(Path::new("a/../../../b")), "../../b");
    }
}
