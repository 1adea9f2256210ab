//! Random clients and load for minutes, with memory and descriptors watched.

use anyhow::{Result, bail};

/// Random clients and load for minutes, with memory and descriptors watched
#[derive(clap::Args)]
pub struct Arguments {}

/// Does it.
pub fn run(_arguments: &Arguments) -> Result<()> {
    bail!("not built yet")
}
