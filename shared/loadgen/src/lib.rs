//! Thousands of clients from one thread, every byte of theirs verified.
//!
//! Three things are built here from the same parts:
//!
//! - [`Crowd`]: many connections in the hands of a test. It opens them, makes each of them echo,
//!   and says which one got the wrong byte, and where.
//! - [`Chaos`](chaos::Chaos) (feature `chaos`): clients that come, talk and go at random, from a seed.
//! - [`Plan`] and [`Report`] (feature `measure`): how fast a server echoes, and at what cost. The
//!   `loadgen` program (feature `cli`, on by default) is their command line.
//!
//! The parts, each a file: what is sent ([`pattern`]), how connections are opened without running
//! out of descriptors (`limits`) or ports (`dial`), one connection's bytes (`connection`), a thread
//! of a measurement (`worker`) and its schedule (`pace`), what it all came to ([`Report`]), and
//! everything that can go wrong ([`Error`]).

#[cfg(feature = "chaos")]
pub mod chaos;
mod connection;
mod crowd;
mod dial;
mod error;
mod limits;
#[cfg(feature = "measure")]
mod measure;
#[cfg(feature = "measure")]
mod pace;
pub mod pattern;
#[cfg(feature = "measure")]
pub mod process;
#[cfg(feature = "measure")]
mod report;
#[cfg(feature = "measure")]
pub mod units;
#[cfg(feature = "measure")]
mod worker;

pub use crowd::{Crowd, Echoed};
pub use dial::{Close, Options};
pub use error::{Error, Fault, Mismatch, Result};
#[cfg(feature = "measure")]
pub use measure::{Plan, Progress, run};
#[cfg(feature = "measure")]
pub use report::{
    ClientUse, Connecting, Errors, Failure, Latency, Load, Rate, Report, ServerUse, Stalled,
};
