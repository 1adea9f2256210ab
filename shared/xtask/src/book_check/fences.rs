//! Code blocks: included, or on a short list.

use super::Problem;
use super::include::{Line, directives};
use super::markdown::Code;
use super::pages::{Book, Page};

/// Most lines of a text block that may be typed by hand, in an exercise's answer.
const SHORT: usize = 3;

/// Checks every page.
pub fn check(book: &Book, problems: &mut Vec<Problem>) {
    for page in &book.pages {
        for code in &page.markdown.code {
            let line = page.markdown.line(code.span.start);
            if let Err(message) = is_allowed(code) {
                problems.push(Problem::at(&page.file, line, message));
            }
        }
        included(page, problems);
        details(page, problems);
    }
}

/// Whether a block is included, or may be typed by hand; or else what to do.
fn is_allowed(code: &Code) -> Result<(), String> {
    let Some(info) = &code.info else {
        return Err(
            "four blanks make this a code block: include it by an anchor between ``` lines, or take the blanks away"
                .to_owned(),
        );
    };
    let language = info.split([',', ' ']).next().unwrap_or("");
    if language == "rust" && info != "rust,ignore" {
        return Err("mdBook would offer to run this: write ```rust,ignore".to_owned());
    }
    let typed: Vec<&str> = code
        .content
        .lines()
        .filter(|line| !line.trim().is_empty() && !is_include(line))
        .collect();
    if typed.is_empty() {
        return if code.content.trim().is_empty() {
            Err("an empty code block".to_owned())
        } else {
            Ok(())
        };
    }
    match language {
        "console" => match typed.iter().find(|line| !line.starts_with("$ ")) {
            None => Ok(()),
            Some(line) => Err(format!(
                "output typed by hand (`{line}`): play it in a scene of book/scenes, run `cargo xtask regen` and include what it writes; only command lines, which begin with `$ `, may be typed"
            )),
        },
        "text" if code.section == "Exercises" && typed.len() <= SHORT => Ok(()),
        _ => Err(format!(
            "code typed by hand (`{}`): include it by an anchor from a file that is compiled or generated ({{{{#include FILE:ANCHOR}}}}), or use `inline code`",
            typed[0].trim()
        )),
    }
}

fn is_include(line: &str) -> bool {
    let line = line.trim();
    match directives(line).as_slice() {
        [one] => one.kind == "include" && one.span == (0..line.len()),
        _ => false,
    }
}

/// What is included must not end the block that it stands in.
fn included(page: &Page, problems: &mut Vec<Problem>) {
    for code in &page.markdown.code {
        let first = page.markdown.line(code.span.start);
        let count = page.markdown.text[code.span.clone()].lines().count();
        let lines = || {
            page.markdown
                .text
                .lines()
                .enumerate()
                .skip(first)
                .take(count.saturating_sub(2))
        };
        for (index, line) in lines() {
            if !is_include(line) {
                continue;
            }
            let number = index + 1;
            let shown: Vec<&Line> = page
                .expanded
                .lines
                .iter()
                .filter(|shown| shown.file == page.file && shown.line == number)
                .collect();
            if line.starts_with([' ', '\t']) && shown.len() > 1 {
                problems.push(Problem::at(
                    &page.file,
                    number,
                    "an include that is indented: only its first line would be, and the list would end in the middle of it; move it out of the list",
                ));
            }
            if shown
                .iter()
                .any(|shown| shown.text.trim_start().starts_with("```"))
            {
                problems.push(Problem::at(
                    &page.file,
                    number,
                    "what is included contains a line of ```, which ends the block: use more backticks around it",
                ));
            }
        }
    }
}

/// Markdown inside `<details>` is only seen behind an empty line.
fn details(page: &Page, problems: &mut Vec<Problem>) {
    let lines: Vec<&str> = page.markdown.text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let next_is_empty = lines
            .get(index + 1)
            .is_none_or(|next| next.trim().is_empty());
        if line.trim_end().ends_with("</summary>") && !next_is_empty {
            problems.push(Problem::at(
                &page.file,
                index + 1,
                "an empty line is missing behind </summary>: without it what follows is not read as Markdown",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book_check::markdown::Markdown;

    fn verdict(text: &str) -> String {
        let markdown = Markdown::new(text.to_owned());
        let mut verdicts = markdown.code.iter().map(is_allowed);
        verdicts.next().unwrap().err().unwrap_or_default()
    }

    #[test]
    fn what_is_included_is_allowed() {
        assert_eq!(verdict("```rust,ignore\n{{#include ../a.rs:b}}\n```\n"), "");
        assert_eq!(
            verdict("```console\n$ ls\n{{#include ../a.txt}}\n```\n"),
            ""
        );
    }

    #[test]
    fn what_is_typed_is_not_but_for_commands() {
        assert_eq!(verdict("```console\n$ ls -l\n$ pwd\n```\n"), "");
        assert!(verdict("```console\n$ ls\ntotal 0\n```\n").contains("total 0"));
        assert!(verdict("```rust,ignore\nfn a() {}\n```\n").contains("fn a() {}"));
        assert!(verdict("```rust\n{{#include ../a.rs:b}}\n```\n").contains("rust,ignore"));
        assert!(verdict("a\n\n    fn a() {}\n").contains("four blanks"));
        assert!(verdict("```text\n{{#include a}} x\n```\n").contains("by hand"));
    }

    #[test]
    fn an_answer_may_show_three_lines() {
        let answer = "## Exercises\n\n```text\n1\n2\n3\n```\n";
        assert_eq!(verdict(answer), "");
        assert!(verdict(&answer.replace("Exercises", "Recap")).contains("by hand"));
        assert!(verdict(&answer.replace("3\n", "3\n4\n")).contains("by hand"));
    }
}
