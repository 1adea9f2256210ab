//! Builds the book, with mdBook found or installed below target.

use anyhow::{Result, bail};

/// Builds the book, with mdBook found or installed below target
#[derive(clap::Args)]
pub struct Arguments {}

/// Does it.
pub fn run(_arguments: &Arguments) -> Result<()> {
    bail!("not built yet")
}
