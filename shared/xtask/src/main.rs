//! The repository's own chores, as `cargo xtask`.

mod book;
mod book_check;
mod bugs;
mod patch;
mod regen;
mod soak;
mod sources;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The repository's own chores
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    Regen(regen::Arguments),
    Book(book::Arguments),
    BookCheck(book_check::Arguments),
    Bugs(bugs::Arguments),
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Regen(arguments) => regen::run(&arguments),
        Chore::Book(arguments) => book::run(&arguments),
        Chore::BookCheck(arguments) => book_check::run(&arguments),
        Chore::Bugs(arguments) => bugs::run(&arguments),
        Chore::Soak(arguments) => soak::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
