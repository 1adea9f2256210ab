//! Checks that the book shows what the code does.

use anyhow::{Result, bail};

/// Checks that the book shows what the code does
#[derive(clap::Args)]
pub struct Arguments {}

/// Does it.
pub fn run(_arguments: &Arguments) -> Result<()> {
    bail!("not built yet")
}
