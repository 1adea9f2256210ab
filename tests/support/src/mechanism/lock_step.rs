//! What one echo costs, in system calls.

use std::ops::RangeInclusive;

use super::served_clients;
use crate::{
    Client, Server, Trouble,
    explain::{Lesson, Section},
    pattern, proc_fs,
    syscalls::{Call, Kind, listing},
    tracer::Tracer,
};

/// Messages that are echoed, one at a time.
const ROUNDS: u64 = 100;

/// Bytes of each.
const MESSAGE: usize = 64;

/// A 64-byte echo is one wake-up, one send, `receives` calls that read, and nothing else: no `epoll_ctl` once a client is
/// registered, no `poll`. `read` is where the book explains this milestone's number; of the reader's program, which may
/// drain in its own way, at most two receives are asked.
#[track_caller]
pub fn costs_per_echo(server: &Server, receives: usize, read: Section) {
    Lesson {
        tried: "one client sends 64 bytes and receives them, 100 times; each time the tracer first sees the server \
                asleep in epoll_wait, so every system call belongs to one message",
        usually: "receives: a read that fills its buffer only in part has emptied the socket, and one more only says \
                  EAGAIN; drain either by the one rule or by the other. Wake-ups: EPOLLOUT is armed although everything \
                  was sent. epoll_ctl: an edge-triggered client is registered once, for all that will ever interest",
        read,
    }
    .expect(|| {
        let tracer = Tracer::attach(server)?;
        let clients = served_clients(server, 1)?;
        echoes_in_lock_step(server, &tracer, &clients[0], ROUNDS, receives)
    });
}

/// So many messages of a client, one at a time, each of which costs the server what [`costs_per_echo`] says.
pub(crate) fn echoes_in_lock_step(
    server: &Server,
    tracer: &Tracer,
    client: &Client,
    rounds: u64,
    receives: usize,
) -> Result<(), Trouble> {
    let receives = match server.program().is_foreign() {
        true => 1..=2,
        false => receives..=receives,
    };
    let fd = proc_fs::connection_of(server, client)?;
    // Somebody else's system may take, just then, what that client was owed. Not again and again.
    let mut excuses = rounds;
    let mut round = 0;
    while round < rounds {
        // The wait that is going on now is the one that this message ends.
        let asleep = tracer.wait_until_resting()?;
        client.echo(&pattern(round, MESSAGE))?;
        let asleep_again = tracer.wait_until_resting()?;
        let calls = tracer.between(asleep, asleep_again);
        let mut reported = calls.iter().flat_map(|call| &call.ready);
        match check(&calls, &receives) {
            Ok(()) => round += 1,
            Err(_) if excuses > 0 && reported.any(|ready| ready.fd != Some(fd)) => excuses -= 1,
            Err(what) => {
                return Err(Trouble::Server(format!(
                    "message {} of {rounds} cost {what}:{}",
                    round + 1,
                    listing(&calls)
                )));
            }
        }
    }
    Ok(())
}

/// What is wrong with the calls that one echo made.
fn check(calls: &[Call], receives: &RangeInclusive<usize>) -> Result<(), String> {
    let count = |kind: Kind| calls.iter().filter(|call| call.kind == kind).count();
    // A wait that ends because its time is up has nothing to do with the message.
    let is_wait = |call: &&Call| call.kind == Kind::Wait && call.returned() != Some(0);
    let waits = calls.iter().filter(is_wait).count();
    let wake_ups = calls.iter().filter(|call| call.is_wake_up()).count();
    let counted = [
        (wake_ups, 1..=1, "wake-ups"),
        (waits, 1..=1, "waits"),
        (count(Kind::Receive), receives.clone(), "receives"),
        (count(Kind::Send), 1..=1, "sends"),
        (count(Kind::EpollCtl), 0..=0, "calls of epoll_ctl"),
        (count(Kind::Poll), 0..=0, "calls of poll"),
    ];
    for (seen, allowed, what) in counted {
        if !allowed.contains(&seen) {
            return Err(match (allowed.start(), allowed.end()) {
                (least, most) if least == most => format!("{seen} {what} instead of {least}"),
                (least, most) => format!("{seen} {what} instead of {least} to {most}"),
            });
        }
    }
    Ok(())
}
