//! Writes what the book shows: differences between milestones, transcripts, traces.

use anyhow::{Result, bail};

/// Writes what the book shows: differences between milestones, transcripts, traces
#[derive(clap::Args)]
pub struct Arguments {}

/// Does it.
pub fn run(_arguments: &Arguments) -> Result<()> {
    bail!("not built yet")
}
