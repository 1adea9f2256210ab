//! The form of a chapter.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::Problem;
use super::include::regex;
use super::pages::{Book, Page};
use crate::sources::Milestone;

/// A chapter's headings, in order.
const HEADINGS: [&str; 13] = [
    "Promise",
    "The wall",
    "Predict",
    "The idea",
    "The code",
    "Run it",
    "What the kernel saw",
    "Break it",
    "Check yours",
    "What changed",
    "Exercises",
    "Recap",
    "The next wall",
];
/// What an exercise asks for; each chapter has one of each.
const KINDS: [&str; 3] = ["Predict", "Change", "Measure"];
/// Fewest exercises of a chapter.
const EXERCISES: usize = 3;
/// Words of a chapter.
const WORDS: std::ops::RangeInclusive<usize> = 1_200..=2_500;
/// The chapters with several concepts, and the most words of those.
const LONG: ([u32; 2], usize) = ([5, 6], 5_000);

/// Checks every chapter, and that the headings are there to which a failing test points.
pub fn check(book: &Book, problems: &mut Vec<Problem>) -> Result<()> {
    let last = book.milestones.last().map_or(0, |last| last.number);
    for milestone in &book.milestones {
        // One that is not there is the summary's problem.
        if let Some(page) = book.chapter(&milestone.package) {
            let missing = |heading: &str| match heading {
                "What changed" => milestone.number == 1,
                "The next wall" => milestone.number == last,
                _ => false,
            };
            headings(page, missing, problems);
            exercises(page, problems);
            if diagrams(page) == 0 {
                let message =
                    "a chapter without a diagram: draw one in book/src/img and include it";
                problems.push(Problem::of(&page.file, message));
            }
        }
    }
    pointers(book, problems)
}

/// The title is the summary's, and the sections are there, in their order. `may_miss` says which need not be.
fn headings(page: &Page, may_miss: impl Fn(&str) -> bool, problems: &mut Vec<Problem>) {
    let of_level = |level| {
        page.markdown
            .headings
            .iter()
            .filter(move |it| it.level == level)
    };
    let title = of_level(1).next().map_or("", |title| title.text.as_str());
    if title != page.title.replace('`', "") {
        let message = format!(
            "its title is `{title}`, and in SUMMARY.md `{}`: make them one",
            page.title
        );
        problems.push(Problem::at(&page.file, 1, message));
    }
    let mut from = 0;
    for heading in HEADINGS {
        let sections: Vec<_> = of_level(2).collect();
        match sections.iter().position(|it| it.text == heading) {
            Some(at) if at < from => {
                let line = page.markdown.line(sections[at].start);
                let message = format!(
                    "`## {heading}` is not in its place: the order is {}",
                    HEADINGS.join(", ")
                );
                problems.push(Problem::at(&page.file, line, message));
            }
            Some(at) => from = at + 1,
            None if may_miss(heading) => {}
            None => {
                let message = format!(
                    "no `## {heading}`: every chapter has {}",
                    HEADINGS.join(", ")
                );
                problems.push(Problem::of(&page.file, message));
            }
        }
    }
}

/// The text of a section, and the offset at which it begins.
fn section<'a>(page: &'a Page, heading: &str) -> Option<(usize, &'a str)> {
    let headings = &page.markdown.headings;
    let at = headings
        .iter()
        .position(|it| it.level == 2 && it.text == heading)?;
    let start = headings[at].start;
    let end = headings[at + 1..]
        .iter()
        .find(|it| it.level <= 2)
        .map_or(page.markdown.text.len(), |next| next.start);
    Some((start, &page.markdown.text[start..end]))
}

/// How many exercises there are: points of a numbered list, or paragraphs that begin with what they ask for.
fn count_exercises(page: &Page) -> usize {
    let point = regex(&format!(r"^(\d+\. |\*\*({}))", KINDS.join("|")));
    section(page, "Exercises").map_or(0, |(_, text)| {
        text.lines().filter(|line| point.is_match(line)).count()
    })
}

fn exercises(page: &Page, problems: &mut Vec<Problem>) {
    let Some((start, text)) = section(page, "Exercises") else {
        return;
    };
    let line = page.markdown.line(start);
    let count = count_exercises(page);
    if count < EXERCISES {
        let message = format!(
            "{count} exercises: a chapter has at least {EXERCISES}, in a numbered list or each beginning with **Predict.**, **Change.** or **Measure.**"
        );
        problems.push(Problem::at(&page.file, line, message));
    }
    let answers = text.matches("<details>").count();
    if answers < count {
        let message = format!(
            "{count} exercises and {answers} answers: fold one below each (<details><summary>Answer</summary>)"
        );
        problems.push(Problem::at(&page.file, line, message));
    }
    for kind in KINDS {
        if !text.contains(&format!("**{kind}")) {
            let message = format!(
                "no exercise begins with **{kind}.**: there is one to predict, one to change and one to measure"
            );
            problems.push(Problem::at(&page.file, line, message));
        }
    }
}

fn diagrams(page: &Page) -> usize {
    page.markdown.text.matches("{{#include img/").count()
}

/// The headings that `explain.rs` names, to which a failing test points.
fn pointers(book: &Book, problems: &mut Vec<Problem>) -> Result<()> {
    let file = "tests/support/src/explain.rs";
    let text = fs::read_to_string(book.root.join(file)).context(file)?;
    let mut count = 0;
    for (number, chapter, heading) in sections(&text) {
        count += 1;
        let Some(page) = book.chapter(&chapter) else {
            continue;
        };
        if !page.markdown.headings.iter().any(|it| it.text == heading) {
            let message = format!(
                "a failing test sends its reader to the section `{heading}` of {}, which has none: write the heading to the letter, or point elsewhere",
                page.file
            );
            problems.push(Problem::at(file, number, message));
        }
    }
    ensure!(
        count > 0,
        "no section found in {file}: its `sections!` has another form than it had"
    );
    Ok(())
}

/// Lines `NAME = "chapter", "Heading";`.
fn sections(text: &str) -> Vec<(usize, String, String)> {
    let line = regex(r#"^\s*[A-Z0-9_]+ = "([^"]+)", "([^"]+)";"#);
    let found = (1..).zip(text.lines()).filter_map(|(number, text)| {
        let found = line.captures(text)?;
        Some((number, found[1].to_owned(), found[2].to_owned()))
    });
    found.collect()
}

/// How long each page is, as a table.
pub fn counts(book: &Book) -> String {
    let mut table = format!(
        "{:<26} {:>6} {:>10} {:>9} {:>9}\n",
        "page", "words", "exercises", "diagrams", "listings"
    );
    let mut total = 0;
    for page in &book.pages {
        let words = page.markdown.words();
        total += words;
        let milestone = book.milestones.iter().find(|it| it.package == page.name);
        let note = milestone.map_or("", |milestone| range_note(milestone, words));
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "{:<26} {words:>6} {:>10} {:>9} {:>9} {note}",
            page.name,
            count_exercises(page),
            diagrams(page),
            page.markdown.code.len()
        );
    }
    let _ = writeln!(table, "{:<26} {total:>6}", "all");
    table
}

fn range_note(milestone: &Milestone, words: usize) -> &'static str {
    let most = if LONG.0.contains(&milestone.number) {
        LONG.1
    } else {
        *WORDS.end()
    };
    if words < *WORDS.start() {
        "too short"
    } else if words > most {
        "too long"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book_check::markdown::Markdown;
    use crate::book_check::pages::Expanded;

    fn page(text: &str) -> Page {
        Page {
            file: "p.md".to_owned(),
            name: "p".to_owned(),
            title: "T".to_owned(),
            markdown: Markdown::new(text.to_owned()),
            expanded: Expanded {
                lines: Vec::new(),
                markdown: Markdown::new(String::new()),
            },
        }
    }

    fn problems(text: &str) -> String {
        let page = page(text);
        let mut problems = Vec::new();
        headings(&page, |heading| heading == "The next wall", &mut problems);
        exercises(&page, &mut problems);
        problems.iter().map(|it| it.to_string() + "\n").collect()
    }

    fn chapter() -> String {
        let body = HEADINGS[..12].iter().map(|it| format!("## {it}\n\nx\n\n"));
        let exercises = KINDS
            .map(|kind| format!("1. **{kind}.** x\n   <details>x</details>\n"))
            .concat();
        format!("# T\n\n{}", body.collect::<String>())
            .replace("## Exercises\n", &format!("## Exercises\n\n{exercises}"))
    }

    #[test]
    fn a_whole_chapter_passes() {
        assert_eq!(problems(&chapter()), "");
    }

    #[test]
    fn what_is_missing_or_misplaced_is_named() {
        assert!(problems(&chapter().replace("# T", "# U")).contains("SUMMARY.md"));
        assert!(problems(&chapter().replace("## Recap", "## Summary")).contains("no `## Recap`"));
        let swapped = chapter()
            .replace("## Predict", "## X")
            .replace("## Promise", "## Predict");
        assert!(problems(&swapped).contains("no `## Promise`"));
        let swapped = chapter()
            .replace("## The wall", "## X")
            .replace("## Recap", "## The wall\n\n## Recap");
        assert!(problems(&swapped).contains("not in its place"));
        assert!(problems(&chapter().replace("**Measure", "**Guess")).contains("**Measure.**"));
        assert!(problems(&chapter().replacen("<details>", "", 1)).contains("2 answers"));
    }

    #[test]
    fn pointers_of_tests_are_found() {
        let text = "sections! {\n    M1_IDEA = \"m1\", \"The idea\";\n}";
        assert_eq!(
            sections(text),
            [(2, "m1".to_owned(), "The idea".to_owned())]
        );
    }
}
