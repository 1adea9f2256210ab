//! Checks that the book shows what the code does, and that nothing in it is broken.
//!
//! mdBook is silent about most of what can go wrong: an anchor that is missing gives an empty listing, a file
//! that is missing leaves its `{{#include}}` on the page. And no tool knows that a figure was true last year.

mod chapters;
mod fences;
mod figures;
mod generated;
mod html;
mod include;
mod links;
mod markdown;
mod pages;
mod svg;

use std::fmt;

use anyhow::{Result, bail};

use crate::{book, sources};
use pages::Book;

/// Checks that the book shows what the code does
#[derive(clap::Args)]
pub struct Arguments {
    /// Do not play the scenes: only what can be seen without running anything
    #[arg(long)]
    quick: bool,
    /// Only print how many words, exercises and diagrams each chapter has
    #[arg(long)]
    counts: bool,
    /// Only print every figure of the text and where it comes from
    #[arg(long)]
    figures: bool,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Relative to the top folder.
    file: String,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    /// What it is, and what to do.
    message: String,
}

impl Problem {
    /// A problem of a line.
    fn at(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            message: message.into(),
        }
    }

    /// A problem of a file.
    fn of(file: &str, message: impl Into<String>) -> Self {
        Self::at(file, 0, message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let root = sources::root();
    let mut problems = Vec::new();
    let book = Book::read(&root, &mut problems)?;
    if arguments.counts {
        print!("{}", chapters::counts(&book));
        return Ok(());
    }
    let claims = figures::check(&book, &mut problems)?;
    if arguments.figures {
        for claim in claims {
            println!("{claim}");
        }
        return Ok(());
    }
    fences::check(&book, &mut problems);
    links::check_files(&book, &mut problems);
    chapters::check(&book, &mut problems)?;
    svg::check(&book, &mut problems)?;
    generated::check(&root, arguments.quick, &mut problems)?;
    match book::build(&root) {
        Ok(pages) => html::check(&book, &pages, &mut problems)?,
        Err(error) => problems.push(Problem::of(
            "book",
            format!("it cannot be built: {error:#}"),
        )),
    }

    problems.sort();
    problems.dedup();
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => {
            println!(
                "the book agrees with the code: {} pages, {} figures",
                book.pages.len(),
                claims.len()
            );
            Ok(())
        }
        1 => bail!("one problem in the book"),
        many => bail!("{many} problems in the book"),
    }
}
