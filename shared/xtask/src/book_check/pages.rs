//! The book's pages, as `SUMMARY.md` lists them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Problem;
use super::include::{self, Line};
use super::markdown::Markdown;
use crate::sources::{self, Milestone, files_below};

/// Where the pages are.
pub const SOURCE: &str = "book/src";

/// The whole book.
pub struct Book {
    /// The top folder.
    pub root: PathBuf,
    /// In the order of the summary; those that are there.
    pub pages: Vec<Page>,
    /// Those that are listed and not there, which is reported once.
    pub missing: Vec<String>,
    /// The steps of the course, each with a chapter of its own.
    pub milestones: Vec<Milestone>,
}

/// A page.
pub struct Page {
    /// Relative to the top folder: `book/src/m4-edge-triggered.md`.
    pub file: String,
    /// `m4-edge-triggered`.
    pub name: String,
    /// As the summary calls it.
    pub title: String,
    /// As it is written.
    pub markdown: Markdown,
    /// With all that it includes.
    pub expanded: Expanded,
}

/// A page with all that it includes.
pub struct Expanded {
    /// Where each line was written.
    pub lines: Vec<Line>,
    /// All of it.
    pub markdown: Markdown,
}

impl Expanded {
    /// Where the text at this place was written.
    pub fn origin(&self, offset: usize) -> (&str, usize) {
        let line = self.markdown.line(offset);
        let origin = self.lines.get(line - 1).or(self.lines.last());
        origin.map_or(("", 0), |line| (line.file.as_str(), line.line))
    }
}

impl Book {
    /// Reads everything.
    pub fn read(root: &Path, problems: &mut Vec<Problem>) -> Result<Self> {
        let summary = format!("{SOURCE}/SUMMARY.md");
        let text = fs::read_to_string(root.join(&summary)).with_context(|| summary.clone())?;
        let mut pages = Vec::new();
        let mut missing = Vec::new();
        for (number, title, path) in chapters(&text) {
            let file = format!("{SOURCE}/{path}");
            let Ok(text) = fs::read_to_string(root.join(&file)) else {
                let message =
                    format!("there is no {file}: write it, or take it out of the summary");
                problems.push(Problem::at(&summary, number, message));
                missing.push(file);
                continue;
            };
            let lines = include::expand(root, &file, &text, problems);
            let whole: String = lines.iter().map(|line| line.text.clone() + "\n").collect();
            pages.push(Page {
                name: path.trim_end_matches(".md").to_owned(),
                file,
                title,
                markdown: Markdown::new(text),
                expanded: Expanded {
                    lines,
                    markdown: Markdown::new(whole),
                },
            });
        }
        for file in files_below(&root.join(SOURCE))? {
            let file = format!("{SOURCE}/{file}");
            let known = file == summary || pages.iter().any(|page| page.file == file);
            if file.ends_with(".md") && !known {
                let message = "it is not in SUMMARY.md, so nobody will see it: list it there";
                problems.push(Problem::of(&file, message));
            }
        }
        Ok(Self {
            root: root.to_owned(),
            pages,
            missing,
            milestones: sources::milestones(root)?,
        })
    }

    /// The chapter of a milestone.
    pub fn chapter(&self, package: &str) -> Option<&Page> {
        self.pages.iter().find(|page| page.name == package)
    }
}

/// The lines of a summary that name a page: line, title, path.
fn chapters(summary: &str) -> Vec<(usize, String, String)> {
    let link = include::regex(r"\[([^\]]+)\]\(([^)]+\.md)\)");
    let mut found = Vec::new();
    for (number, line) in (1..).zip(summary.lines()) {
        for chapter in link.captures_iter(line) {
            found.push((number, chapter[1].to_owned(), chapter[2].to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_lists_its_pages() {
        let found = chapters("# S\n\n[P](p.md)\n\n- [A `b`](a/b.md)\n");
        assert_eq!(
            found,
            [
                (3, "P".to_owned(), "p.md".to_owned()),
                (5, "A `b`".to_owned(), "a/b.md".to_owned())
            ]
        );
    }
}
