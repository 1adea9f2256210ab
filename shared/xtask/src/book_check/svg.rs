//! Diagrams: legible at the width of a telephone, in every theme, and once on the page that is printed.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::Problem;
use super::include::{clean, directives, parse, regex};
use super::pages::{Book, SOURCE};
use crate::sources::files_below;

/// The widest drawing: one unit is then about one pixel where a page is narrowest.
const WIDTH: f64 = 420.0;
/// The smallest letters.
const LETTERS: f64 = 13.0;
/// A letter is at least this wide, on average: a little less than it is, so that only what surely does not
/// fit is reported.
const LETTER: f64 = 6.3;
/// And in the monospaced face.
const MONO: f64 = 8.2;

/// Checks every diagram that is drawn for the book, and every SVG that a page includes.
pub fn check(book: &Book, problems: &mut Vec<Problem>) -> Result<()> {
    let mut seen = BTreeMap::new();
    for (page, line, file) in included(book, problems) {
        if let Some(before) = seen.insert(file.clone(), (page.clone(), line)) {
            let message = format!(
                "{file} is also shown in {}:{}, and its ids would stand twice on the page that is printed: show it once and link to it",
                before.0, before.1
            );
            problems.push(Problem::at(&page, line, message));
        }
    }
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut files: Vec<String> = seen.into_keys().collect();
    let drawn = files_below(&book.root.join(SOURCE).join("img"))?;
    for file in drawn.iter().filter(|file| file.ends_with(".svg")) {
        let file = format!("{SOURCE}/img/{file}");
        if !files.contains(&file) {
            let message = "no page shows it: include it ({{#include img/…}}), or take it away";
            problems.push(Problem::of(&file, message));
            files.push(file);
        }
    }
    for file in files {
        let text = fs::read_to_string(book.root.join(&file)).with_context(|| file.clone())?;
        let mut found = shape(&text);
        if file.starts_with(SOURCE) {
            found.extend(drawing(&file, &text));
        }
        for id in all(&text, r#"\sid="([^"]*)""#) {
            if let Some(other) = ids.insert(id.1.clone(), file.clone()) {
                found.push((
                    id.0,
                    format!(
                        "the id `{}` is also in {other}: ids begin with the name of their file",
                        id.1
                    ),
                ));
            }
        }
        problems.extend(
            found
                .into_iter()
                .map(|(line, message)| Problem::at(&file, line, message)),
        );
    }
    Ok(())
}

/// Includes of SVG: page, line, file. They stand on a line of their own, between empty lines.
fn included(book: &Book, problems: &mut Vec<Problem>) -> Vec<(String, usize, String)> {
    let mut found = Vec::new();
    for page in &book.pages {
        let lines: Vec<&str> = page.markdown.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            for directive in directives(line) {
                let path = parse(directive.argument).0;
                if directive.kind != "include" || !path.ends_with(".svg") {
                    continue;
                }
                let file = clean(&std::path::Path::new(SOURCE).join(path));
                if !book.root.join(&file).is_file() {
                    continue;
                }
                let is_empty = |at: Option<usize>| {
                    let line = at.and_then(|at| lines.get(at));
                    line.is_none_or(|line| line.trim().is_empty())
                };
                let alone = line.trim() == &line[directive.span.clone()];
                if !alone || !is_empty(index.checked_sub(1)) || !is_empty(Some(index + 1)) {
                    let message = "a diagram is included on a line of its own, between empty lines";
                    problems.push(Problem::at(&page.file, index + 1, message));
                }
                found.push((page.file.clone(), index + 1, file));
            }
        }
    }
    found
}

/// Every match of a pattern's first group, and its line.
fn all(text: &str, pattern: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for captures in regex(pattern).captures_iter(line) {
            found.push((number, captures[1].to_owned()));
        }
    }
    found
}

/// What every SVG in a page must be.
fn shape(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let last = text.trim_end().lines().count();
    for (number, line) in (1..).zip(text.lines().take(last)) {
        if line.trim().is_empty() {
            found.push((
                number,
                "an empty line: the diagram would end here".to_owned(),
            ));
        }
    }
    let ids = all(text, r#"\sid="([^"]*)""#);
    let mut used = all(text, r"url\(#([^)]*)\)");
    used.extend(all(text, r##"href="#([^"]*)""##));
    for (_, names) in all(text, r#"aria-labelledby="([^"]*)""#) {
        used.extend(names.split(' ').map(|name| (1, name.to_owned())));
    }
    for (line, id) in used {
        if !ids.iter().any(|(_, known)| *known == id) {
            found.push((line, format!("`{id}` is used, and no element has this id")));
        }
    }
    found
}

/// What a diagram that is drawn for the book must be besides.
fn drawing(file: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let name = file
        .rsplit('/')
        .next()
        .unwrap_or(file)
        .trim_end_matches(".svg");
    let start = text.split('>').next().unwrap_or(text);
    if !start.contains("class=\"dg\"") || !start.contains("role=\"img\"") {
        found.push((
            1,
            "it begins with <svg class=\"dg\" viewBox=… role=\"img\" aria-labelledby=…>".to_owned(),
        ));
    }
    if !text.contains(&format!("<title id=\"{name}-title\">")) {
        found.push((
            1,
            format!("no <title id=\"{name}-title\">, which is read to those who cannot see it"),
        ));
    }
    match all(text, r#"viewBox="([^"]*)""#).first() {
        None => found.push((1, "no viewBox".to_owned())),
        Some((line, view)) => {
            let width = view
                .split_whitespace()
                .nth(2)
                .and_then(|it| it.parse().ok());
            if width.is_none_or(|width: f64| width > WIDTH) {
                found.push((*line, format!("viewBox {view}: more than {WIDTH} units wide, its letters are too small on a telephone; draw downwards")));
            }
        }
    }
    for (line, id) in all(text, r#"\sid="([^"]*)""#) {
        if !id.starts_with(&format!("{name}-")) {
            found.push((line, format!("the id `{id}` does not begin with `{name}-`")));
        }
    }
    for (line, size) in all(text, r#"font-size[=:]\s*"?([\d.]+)"#) {
        if size.parse().is_ok_and(|size: f64| size < LETTERS) {
            found.push((
                line,
                format!("letters of {size}: none are smaller than {LETTERS}"),
            ));
        }
    }
    for (line, colour) in all(
        text,
        r#"(?:fill|stroke|stop-color|color)\s*[=:]\s*"?([^";]+)"#,
    ) {
        if !matches!(
            colour.trim(),
            "none" | "currentColor" | "context-stroke" | "context-fill"
        ) {
            found.push((line, format!("the colour `{colour}` is the same in a dark theme: use a class of book/theme/diagrams.css")));
        }
    }
    if text.contains("<style") {
        found.push((
            1,
            "a <style> of its own: use the classes of book/theme/diagrams.css".to_owned(),
        ));
    }
    found.extend(overflowing(text));
    found
}

/// Texts that surely stick out of the drawing.
fn overflowing(text: &str) -> Vec<(usize, String)> {
    let form = regex(r"<text([^>]*)>([^<]*)</text>");
    let attribute = |attributes: &str, name: &str| {
        let form = regex(&format!(r#"\s{name}="([^"]*)""#));
        form.captures(attributes).map(|found| found[1].to_owned())
    };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for captures in form.captures_iter(line) {
            let (attributes, words) = (&captures[1], &captures[2]);
            if attributes.contains("transform=") {
                continue;
            }
            let class = attribute(attributes, "class").unwrap_or_default();
            let has = |name: &str| class.split(' ').any(|class| class == name);
            let Some(x) = attribute(attributes, "x").and_then(|x| x.parse::<f64>().ok()) else {
                continue;
            };
            // An entity is one letter.
            let letters = regex(r"&[^;]+;").replace_all(words, "x").chars().count();
            let letters = f64::from(u32::try_from(letters).unwrap_or(u32::MAX));
            let width = letters * if has("mono") { MONO } else { LETTER };
            let left = if has("middle") {
                x - width / 2.0
            } else if has("end") {
                x - width
            } else {
                x
            };
            if left < -1.0 || left + width > WIDTH + 1.0 {
                found.push((
                    number,
                    format!("`{words}` does not fit: it is about {width:.0} units wide"),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "<svg class=\"dg\" viewBox=\"0 0 420 90\" role=\"img\" aria-labelledby=\"x-title\">\n<title id=\"x-title\">T</title>\n<marker id=\"x-arrow\"/>\n<path marker-end=\"url(#x-arrow)\" fill=\"none\"/>\n<text class=\"middle\" x=\"210\" y=\"9\">some words</text>\n</svg>\n";

    fn messages(text: &str) -> String {
        let mut found = shape(text);
        found.extend(drawing("book/src/img/x.svg", text));
        found
            .iter()
            .map(|(line, message)| format!("{line}: {message}\n"))
            .collect()
    }

    #[test]
    fn a_good_one_passes() {
        assert_eq!(messages(GOOD), "");
    }

    #[test]
    fn each_fault_is_named() {
        let with = |from: &str, to: &str| messages(&GOOD.replace(from, to));
        assert!(with("<title", "\n<title").contains("2: an empty line"));
        assert!(with("url(#x-arrow)", "url(#arrow)").contains("`arrow` is used"));
        assert!(with("420", "760").contains("downwards"));
        assert!(with("x-arrow", "arrow").contains("does not begin with `x-`"));
        assert!(with("y=\"9\"", "font-size=\"12\"").contains("letters of 12"));
        assert!(with("\"none\"", "\"#fff\"").contains("colour `#fff`"));
        assert!(with("x=\"210\"", "x=\"410\"").contains("does not fit"));
        assert!(with("x-title\">T", "y\">T").contains("no <title"));
    }
}
