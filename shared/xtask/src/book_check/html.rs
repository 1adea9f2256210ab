//! The pages as they are made: what mdBook does not say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Problem;
use super::include::{clean, directives, regex};
use super::pages::{Book, Page};

/// The page with all of the book, to be printed.
const PRINT: &str = "print.html";
/// What the server of a site shows for pages that are not there: its links are from the site's root.
const NOT_FOUND: &str = "404.html";

/// Checks every page in a folder.
pub fn check(book: &Book, folder: &Path, problems: &mut Vec<Problem>) -> Result<()> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".html") && name != NOT_FOUND {
            let text = fs::read_to_string(folder.join(&name)).with_context(|| name.clone())?;
            pages.insert(name, Html::new(text));
        }
    }
    let known: BTreeSet<String> = problems
        .iter()
        .filter_map(|it| directive_at(book, it))
        .collect();
    let mut reported = 0;
    // The page that is printed comes last: what is wrong there alone is mdBook's doing.
    let print = pages.get_key_value(PRINT);
    for (name, html) in pages.iter().filter(|(name, _)| *name != PRINT).chain(print) {
        if name == PRINT && reported > 0 {
            continue;
        }
        // The first page is also there as index.html, and would be reported twice.
        if name == "index.html" && !book.pages.iter().any(|page| page.name == "index") {
            continue;
        }
        let page = book
            .pages
            .iter()
            .find(|page| format!("{}.html", page.name) == *name);
        let mut report = |needle: &str, message: String| {
            reported += 1;
            problems.push(place(name, page, needle, message));
        };
        // One whose file is missing was reported where it stands.
        for raw in html.raw_directives() {
            if name != PRINT && !known.contains(&raw) {
                report(
                    &raw,
                    format!("`{raw}` is on the page as it is written: mdBook could not include it"),
                );
            }
        }
        for id in &html.twice {
            report(id, format!("the id `{id}` is there twice on {name}"));
        }
        for to in &html.links {
            if let Some(message) = dead(folder, &pages, name, to) {
                let (path, fragment) = to.split_once('#').unwrap_or((to, ""));
                let needle = match page {
                    Some(_) if path.is_empty() => format!("(#{fragment})"),
                    Some(_) => format!("{}#{fragment}", path.replace(".html", ".md")),
                    None => String::new(),
                };
                report(&needle, message);
            }
        }
    }
    printed(book, &pages, problems);
    Ok(())
}

/// Everything is on the page that is printed.
fn printed(book: &Book, pages: &BTreeMap<String, Html>, problems: &mut Vec<Problem>) {
    let file = format!("book/book/{PRINT}");
    let Some(print) = pages.get(PRINT) else {
        problems.push(Problem::of(
            &file,
            "there is no page to print: see [output.html.print] in book/book.toml",
        ));
        return;
    };
    for page in &book.pages {
        let lone = pages.get(&format!("{}.html", page.name));
        let headings = lone.map_or(0, |lone| lone.headings());
        if headings == 0 {
            problems.push(Problem::of(&page.file, "a page without a heading"));
        }
    }
    let alone: usize = book
        .pages
        .iter()
        .filter_map(|page| pages.get(&format!("{}.html", page.name)))
        .map(|html| html.headings())
        .sum();
    if print.headings() < alone {
        let message = format!(
            "{} headings, and {alone} on the pages: a part of the book is missing",
            print.headings()
        );
        problems.push(Problem::of(&file, message));
    }
}

/// The place in the page's source that has this, if it can be found.
fn place(name: &str, page: Option<&Page>, needle: &str, message: String) -> Problem {
    let Some(page) = page else {
        return Problem::of(&format!("book/book/{name}"), message);
    };
    let found = page
        .expanded
        .lines
        .iter()
        .find(|line| !needle.is_empty() && line.text.contains(needle));
    match found {
        Some(line) => Problem::at(&line.file, line.line, message),
        None => Problem::of(&page.file, message),
    }
}

/// The directive in a line that has a problem already.
fn directive_at(book: &Book, problem: &Problem) -> Option<String> {
    let page = book.pages.iter().find(|page| page.file == problem.file)?;
    let line = page
        .markdown
        .text
        .lines()
        .nth(problem.line.checked_sub(1)?)?;
    let span = directives(line).first()?.span.clone();
    Some(line[span].to_owned())
}

/// What is wrong with a link, as far as the text of the pages does not show it.
fn dead(folder: &Path, pages: &BTreeMap<String, Html>, from: &str, to: &str) -> Option<String> {
    let (path, fragment) = to.split_once('#').unwrap_or((to, ""));
    let path = path.split('?').next().unwrap_or(path);
    if to.contains(':') {
        return None;
    }
    let target = if path.is_empty() {
        from.to_owned()
    } else {
        clean(Path::new(path))
    };
    match pages.get(&target) {
        Some(_) if fragment.is_empty() => None,
        Some(html) if html.ids.contains(fragment) => None,
        Some(_) => Some(format!(
            "a dead link, {to}: {target} has no place called `{fragment}`; ids are headings in lower case with `-` for blanks"
        )),
        // What is outside, and pages that are not there, were looked for before.
        None if target.starts_with("..") || target.ends_with(".html") => None,
        None if folder.join(&target).exists() => None,
        None => Some(format!(
            "a dead link, {to}: mdBook has not written {target}"
        )),
    }
}

/// A page.
struct Html {
    text: String,
    ids: BTreeSet<String>,
    /// Ids that more than one element has.
    twice: BTreeSet<String>,
    links: BTreeSet<String>,
}

impl Html {
    fn new(text: String) -> Self {
        let mut html = Self {
            ids: BTreeSet::new(),
            twice: BTreeSet::new(),
            links: BTreeSet::new(),
            text,
        };
        let attribute = regex(r#"<[a-zA-Z][^>]*>"#);
        let id = regex(r#"\sid="([^"]*)""#);
        let link = regex(r#"\s(?:href|src)="([^"]*)""#);
        for tag in attribute.find_iter(&html.text) {
            for found in id.captures_iter(tag.as_str()) {
                if !html.ids.insert(found[1].to_owned()) {
                    html.twice.insert(found[1].to_owned());
                }
            }
            for found in link.captures_iter(tag.as_str()) {
                html.links.insert(found[1].to_owned());
            }
        }
        html
    }

    /// Directives that a reader sees.
    fn raw_directives(&self) -> BTreeSet<String> {
        let form = regex(r"\{\{#[^}]*(?:\}\})?");
        form.find_iter(&self.text)
            .map(|it| it.as_str().to_owned())
            .collect()
    }

    fn headings(&self) -> usize {
        regex(r#"<h[1-6] id="[^"]*"><a class="header""#)
            .find_iter(&self.text)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> BTreeMap<String, Html> {
        let a = "<h1 id=\"t\"><a class=\"header\" href=\"#t\">T</a></h1><p id='x'><a href=\"b.html#u\">";
        let b = "<h1 id=\"u\">{{#include x}}</h1><p id=\"u\">";
        [("a.html", a), ("b.html", b)]
            .map(|(name, text)| (name.to_owned(), Html::new(text.to_owned())))
            .into()
    }

    #[test]
    fn what_a_page_has() {
        let pages = pages();
        assert_eq!(pages["a.html"].headings(), 1);
        assert!(pages["a.html"].links.contains("b.html#u"));
        assert!(pages["b.html"].raw_directives().contains("{{#include x}}"));
        assert!(pages["b.html"].twice.contains("u"));
    }

    #[test]
    fn places_within_pages() {
        let pages = pages();
        let dead = |to| dead(Path::new("/nowhere"), &pages, "a.html", to).unwrap_or_default();
        assert_eq!(dead("b.html#u"), "");
        assert_eq!(dead("#t"), "");
        assert_eq!(dead("../../x.rs"), "");
        assert_eq!(dead("https://a.b/#c"), "");
        assert!(dead("b.html#v").contains("no place called `v`"));
        assert!(dead("img/x.png").contains("not written"));
    }
}
