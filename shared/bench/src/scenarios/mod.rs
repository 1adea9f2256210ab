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

/// Opens `connections` to a server, numbered from `options.first` on, and lets each of them echo once: then the server has
/// accepted and registered them all.
fn gather(
    server: &Server,
    contender: &Contender,
    connections: usize,
    options: &Options,
) -> loadgen::Result<Vec<Crowd>> {
    let at_once = match contender.limits {
        // It accepts one client for each pass over all others, while the backlog overflows.
        Limits::Scans => 100,
        _ => connections.max(1),
    };
    let mut crowds = Vec::new();
    for begin in (0..connections).step_by(at_once) {
        let options = Options { first: options.first + begin, ..options.clone() };
        let mut crowd = Crowd::connect(server.addr(), at_once.min(connections - begin), options)?;
        crowd.echo(SIZE)?;
        crowds.push(crowd);
    }
    Ok(crowds)
}
