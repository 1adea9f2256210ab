//! Links to files: of the book, and of the repository.

use std::path::Path;

use super::Problem;
use super::include::{clean, regex};
use super::pages::{Book, Page, SOURCE};

/// Checks that what a page links to is there. Places within pages are looked at where they are made, in HTML.
pub fn check_files(book: &Book, problems: &mut Vec<Problem>) {
    for page in &book.pages {
        for (offset, to, is_image) in links(page) {
            if let Err(message) = check(book, &to, is_image) {
                let (file, line) = page.expanded.origin(offset);
                problems.push(Problem::at(file, line, message));
            }
        }
    }
}

/// Every link and image of a page, those of its HTML among them: where, where to, and whether it is an image.
fn links(page: &Page) -> Vec<(usize, String, bool)> {
    let markdown = &page.expanded.markdown;
    let mut found: Vec<_> = markdown
        .links
        .iter()
        .map(|link| (link.start, link.to.clone(), link.is_image))
        .collect();
    let attribute = regex(r#"\s(href|src)="([^"]*)""#);
    for span in &markdown.html {
        for link in attribute.captures_iter(&markdown.text[span.clone()]) {
            let start = span.start + link.get(0).map_or(0, |whole| whole.start());
            found.push((start, link[2].to_owned(), &link[1] == "src"));
        }
    }
    found
}

/// Whether a link leads somewhere; or else what to do. All pages are in one folder.
fn check(book: &Book, to: &str, is_image: bool) -> Result<(), String> {
    if let Some((scheme, rest)) = to.split_once(':') {
        return match scheme {
            "http" | "https" => is_address(rest)
                .then_some(())
                .ok_or(format!("not an address: {to}")),
            "mailto" => Ok(()),
            _ => Err(format!("a dead link, {to}: neither a path nor an address")),
        };
    }
    let path = to.split('#').next().unwrap_or(to);
    if path.is_empty() {
        return Ok(());
    }
    if path.starts_with('/') {
        return Err(format!(
            "a link from the root of a site, {to}: make it relative"
        ));
    }
    let target = clean(&Path::new(SOURCE).join(path));
    if book.missing.contains(&target) {
        return Ok(());
    }
    let is_there = book.root.join(&target).exists();
    if !is_there {
        return Err(format!("a dead link, {to}: there is no {target}"));
    }
    let in_book = target.starts_with(&format!("{SOURCE}/"));
    if is_image && !in_book {
        return Err(format!(
            "mdBook copies no image from outside of {SOURCE}, so {to} will not be seen: include it, or move it"
        ));
    }
    if in_book && target.ends_with(".md") && !book.pages.iter().any(|page| page.file == target) {
        return Err(format!(
            "a dead link, {to}: {target} is not in SUMMARY.md, so it becomes no page"
        ));
    }
    Ok(())
}

/// Whether this may stand behind `https:`.
fn is_address(rest: &str) -> bool {
    let form = regex(r"^//[A-Za-z0-9.-]+(:\d+)?(/\S*)?$");
    let host = rest
        .trim_start_matches('/')
        .split(['/', ':'])
        .next()
        .unwrap_or("");
    form.is_match(rest) && (host.contains('.') || host == "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert!(is_address("//www.kegel.com/c10k.html#x"));
        assert!(is_address("//localhost:9000/"));
        assert!(!is_address("/www.kegel.com"));
        assert!(!is_address("//www"));
        assert!(!is_address("//a.b/c d"));
    }
}
