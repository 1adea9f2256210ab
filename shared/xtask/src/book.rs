//! Builds the book, with mdBook found or installed below target.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::sources;

/// What is installed where no mdBook is there.
const VERSION: &str = "0.5.4";
/// What a found mdBook must begin with: the book uses what came with it.
const SERIES: &str = "0.5.";

/// Builds the book, with mdBook found or installed below target
#[derive(clap::Args)]
pub struct Arguments {
    /// Show it at http://localhost:3000 and build again whenever a file changes
    #[arg(long)]
    serve: bool,
    /// Open it in a browser
    #[arg(long)]
    open: bool,
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let root = sources::root();
    let mdbook = mdbook(&root)?;
    let mut command = Command::new(mdbook);
    command.arg(if arguments.serve { "serve" } else { "build" });
    command.arg(root.join("book"));
    if arguments.open {
        command.arg("--open");
    }
    let status = command.status().context("mdbook")?;
    ensure!(status.success(), "mdbook failed");
    if !arguments.serve {
        println!("built: book/book/index.html");
    }
    Ok(())
}

/// Builds the book; gives the folder of its pages.
pub fn build(root: &Path) -> Result<PathBuf> {
    let output = Command::new(mdbook(root)?)
        .arg("build")
        .arg(root.join("book"))
        .stdin(Stdio::null())
        .output()
        .context("mdbook")?;
    ensure!(
        output.status.success(),
        "mdbook: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(root.join("book/book"))
}

/// mdBook: the one on PATH if it is of the right series, or our own, which is installed first if need be.
fn mdbook(root: &Path) -> Result<PathBuf> {
    let own = root.join("target/mdbook");
    let ours = own.join("bin/mdbook");
    for candidate in [PathBuf::from("mdbook"), ours.clone()] {
        if is_right(&candidate) {
            return Ok(candidate);
        }
    }
    eprintln!("xtask: no mdBook {SERIES}x on PATH: installing {VERSION} below target/mdbook");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args([
            "install",
            "mdbook",
            "--version",
            VERSION,
            "--locked",
            "--root",
        ])
        .arg(&own)
        // Not the folder of whatever build this is part of.
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("cargo install mdbook")?;
    ensure!(
        status.success() && is_right(&ours),
        "mdBook {VERSION} could not be installed"
    );
    Ok(ours)
}

fn is_right(mdbook: &Path) -> bool {
    let output = Command::new(mdbook)
        .arg("--version")
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| {
        let version = String::from_utf8_lossy(&output.stdout);
        version
            .trim()
            .trim_start_matches("mdbook v")
            .starts_with(SERIES)
    })
}
