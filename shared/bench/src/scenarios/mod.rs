//! What is measured, a file for each way of measuring.

pub mod build;
pub mod held;
pub mod instructions;
pub mod load;
pub mod memory;
pub mod structures;
pub mod traced;
pub mod wrk;

use loadgen::{Crowd, Options};

use crate::contender::{Contender, Limits};
use crate::server::Server;

/// Bytes of a message.
const SIZE: u64 = 64;

/// How many clients may come to a server at the same time and be accepted without delay.
fn at_once(contender: &Contender) -> usize {
    match contender.limits {
        // To accept one takes it a pass over all others. Meanwhile the backlog of 128 would overflow, and whoever does not
        // fit tries again a second later.
        Limits::Scans => 100,
        _ => usize::MAX,
    }
}

/// Opens `connections` to a server, numbered from `options.first` on and `at_once` at a time, and lets each of them echo:
/// then the server has accepted and registered them all.
fn gather(
    server: &Server,
    connections: usize,
    at_once: usize,
    options: &Options,
) -> loadgen::Result<Vec<Crowd>> {
    let mut crowds = Vec::new();
    let mut opened = 0;
    while opened < connections {
        let more = at_once.min(connections - opened);
        let options = Options {
            first: options.first + opened,
            ..options.clone()
        };
        let mut crowd = Crowd::connect(server.addr(), more, options)?;
        crowd.echo(SIZE)?;
        crowds.push(crowd);
        opened += more;
    }
    Ok(crowds)
}
