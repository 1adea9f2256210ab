//! The command line, exit codes, banner and messages that every milestone shares.
//!
//! All of it would be noise in the difference between two milestones, so it lives here and no chapter
//! teaches it. A milestone's `main` is one line:
//!
//! ```ignore
//! const PROGRAM: cli::Program = cli::program!("epoll echo server", "edge-triggered");
//!
//! fn main() -> std::process::ExitCode {
//!     PROGRAM.run(|options: cli::Options| {
//!         println!("would listen on {}", options.address());
//!         Ok(())
//!     })
//! }
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!(
    "these servers are built on epoll, which only Linux has: see \"Not on Linux?\" in README.md"
);

mod failure;
mod options;
mod program;

pub use failure::{Failure, OrFail};
pub use options::{Options, Protocol, ProtocolOptions, StatsOptions, TuningOptions};
pub use program::Program;

/// What [`program!`] and the generic bounds of [`Program::run`] need of clap.
pub use clap;
