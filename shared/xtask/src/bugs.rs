//! Runs the bug museum: every bug must be caught by its check.

use anyhow::{Result, bail};

/// Runs the bug museum: every bug must be caught by its check
#[derive(clap::Args)]
pub struct Arguments {}

/// Does it.
pub fn run(_arguments: &Arguments) -> Result<()> {
    bail!("not built yet")
}
