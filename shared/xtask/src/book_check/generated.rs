//! Generated files: what the code gives now.

use std::path::Path;

use anyhow::Result;

use super::Problem;
use crate::regen::{self, Filter};

/// Makes them anew and compares; without playing anything when it has to be quick.
pub fn check(root: &Path, quick: bool, problems: &mut Vec<Problem>) -> Result<()> {
    let filter = if quick {
        Filter::still()
    } else {
        Filter::default()
    };
    let made = regen::generate(root, &filter)?;
    let mut present = regen::present(root)?;
    for failure in &made.failures {
        let (file, message) = failure.split_once(": ").unwrap_or(("book/scenes", failure));
        problems.push(Problem::of(file, format!("it cannot be played: {message}")));
    }
    for (path, text) in &made.files {
        let file = format!("{}/{path}", regen::FOLDER);
        let old = present.remove(path);
        // System calls have other names elsewhere.
        if path.ends_with(".strace") && !cfg!(target_arch = "x86_64") {
            continue;
        }
        match old {
            Some(old) if old == *text => {}
            Some(old) => {
                let (line, was, is) = first_difference(&old, text);
                let message = format!(
                    "the code now gives `{is}`, and not `{was}`: run `cargo xtask regen`, look at what changed, and commit it"
                );
                problems.push(Problem::at(&file, line, message));
            }
            None => problems.push(Problem::of(
                &file,
                "it is not there: run `cargo xtask regen` and commit it",
            )),
        }
    }
    for path in present.keys().filter(|path| filter.takes(path)) {
        if !made.unknown.iter().any(|prefix| path.starts_with(prefix)) {
            let file = format!("{}/{path}", regen::FOLDER);
            let message = "nothing asks for it any more: `cargo xtask regen` removes it";
            problems.push(Problem::of(&file, message));
        }
    }
    Ok(())
}

/// The first line that differs, and what it was and is. Not a line number of a difference: the next line says more.
fn first_difference<'a>(old: &'a str, new: &'a str) -> (usize, &'a str, &'a str) {
    const END: &str = "(nothing)";
    let (mut old, mut new) = (old.lines(), new.lines());
    let mut line = 0;
    loop {
        line += 1;
        match (old.next(), new.next()) {
            (None, None) => return (line, END, END),
            (was, is) if was == is => {}
            (Some(was), Some(is)) if was.starts_with("@@ ") && is.starts_with("@@ ") => {}
            (was, is) => return (line, was.unwrap_or(END), is.unwrap_or(END)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), (2, "b", "c"));
        assert_eq!(first_difference("a\n", "a\nc\n"), (2, "(nothing)", "c"));
        assert_eq!(
            first_difference("@@ -1 +1 @@\n-a\n", "@@ -1 +2 @@\n-b\n"),
            (2, "-a", "-b")
        );
    }
}
