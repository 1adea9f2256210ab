//! The third wall: how often the kernel is asked about one burst.

use super::served_clients;
use crate::{Program, Trouble, Verdict, Wall, pattern, proc_fs, tracer::Tracer};

/// Bytes of the burst: 8 reads of 4,096 bytes.
const BURST: usize = 32_768;

/// Waits that may report one burst: one is enough for a server that drains, and another may come when it has sent.
const ENOUGH: usize = 2;

/// Wall 3: how many waits report one burst that lies in the server's socket when it wakes up?
///
/// The server is stopped while the burst arrives, so that it finds all of it at once, and how fast anybody is does not
/// matter. Held when at most two waits report the connection until everything is back; otherwise [`Wall::AsksAgain`]
/// with their number.
///
/// # Errors
///
/// Whatever is neither.
pub fn one_burst(program: &Program) -> Result<Verdict, Trouble> {
    let server = program.start();
    let tracer = Tracer::attach(&server)?;
    let client = &served_clients(&server, 1)?[0];
    let fd = proc_fs::connection_of(&server, client)?;
    tracer.wait_until_resting()?;

    // ANCHOR: one-burst
    tracer.pause()?;
    let bytes = pattern(1, BURST);
    client.send(&bytes)?;
    client.wait_until_acknowledged()?;
    let mark = tracer.mark();
    tracer.resume()?;
    client.expect(&bytes)?;

    let reports = tracer
        .since(mark)
        .iter()
        .filter(|call| call.reports(fd))
        .count();
    // ANCHOR_END: one-burst
    Ok(match reports {
        0..=ENOUGH => Verdict::Held,
        _ => Verdict::Hit(Wall::AsksAgain { reports }),
    })
}
