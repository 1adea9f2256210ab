//! What a server asks of the kernel: its system calls per message, and its wake-ups for a burst.
//!
//! Counted by the tracer of the contract tests, so the counts are exact and the clock does not matter.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use support::syscalls::{Call, Kind, Outcome};
use support::tracer::Tracer;

use crate::bench::Bench;
use crate::contender::{Contender, Limits};
use crate::figures::Measure;
use crate::machine::Cores;
use crate::scenarios::SIZE;
use crate::server::{Server, Setup};

/// Messages in lock-step: the next is sent when the server is back in its wait.
const MESSAGES: usize = 100;

/// Bytes that a client sends without waiting for any to come back.
pub const BURST: usize = 256 * 1024;

/// How long the client waits for bytes to come back.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(bench: &mut Bench) {
    for contender in bench.contenders() {
        bench.step(&contender, "system calls per message");
        let calls = match contender.limits {
            Limits::Scans => Err(anyhow::anyhow!(
                "never waits: it makes calls all the time, message or not"
            )),
            _ => lock_step(&contender, &bench.cores),
        };
        let calls = calls.map_err(|error| format!("{error:#}"));
        let per_message = |kinds: &[Kind]| match &calls {
            Ok(calls) => {
                let count = calls
                    .iter()
                    .filter(|call| kinds.is_empty() || kinds.contains(&call.kind))
                    .count();
                Ok(count as f64 / MESSAGES as f64)
            }
            Err(reason) => Err(anyhow::anyhow!("{reason}")),
        };
        for (measure, kinds) in [
            (Measure::Syscalls, &[][..]),
            (Measure::Receives, &[Kind::Receive]),
            (Measure::Sends, &[Kind::Send]),
            (Measure::Waits, &[Kind::Wait, Kind::Poll]),
            (Measure::EpollCtl, &[Kind::EpollCtl]),
        ] {
            bench.record(measure, "", &contender, per_message(kinds));
        }
    }
    for _ in 0..bench.plan.few_rounds {
        for contender in bench.contenders() {
            bench.step(&contender, "wake-ups for a burst");
            let wake_ups = match contender.limits {
                Limits::Scans => Err(anyhow::anyhow!("never waits, so nothing wakes it up")),
                Limits::OneClient | Limits::Threads => {
                    Err(anyhow::anyhow!("waits in its reads, not for events"))
                }
                Limits::None => burst(&contender, &bench.cores),
            };
            bench.record(Measure::WakeUps, "", &contender, wake_ups);
        }
    }
}

/// All calls of a server from its rest before the first message to its rest after the last.
fn lock_step(contender: &Contender, cores: &Cores) -> Result<Vec<Call>> {
    let (server, mut client, tracer) = observed(contender, cores)?;
    // Where a server sleeps until the next message: in its wait, or in the read of the one client it serves.
    let rest = match contender.limits {
        Limits::OneClient | Limits::Threads => Kind::Receive,
        Limits::None | Limits::Scans => Kind::Wait,
    };
    let is_resting = |call: &Call| call.kind == rest && call.outcome == Outcome::InProgress;
    let mut message = [0x2a; SIZE as usize];
    let mut echo = || -> Result<()> {
        let mark = tracer.mark();
        client.write_all(&message)?;
        client.read_exact(&mut message)?;
        let settled = tracer.wait_for(
            "the server had answered and was waiting again",
            mark,
            |calls| {
                let answered = calls.iter().rposition(|call| call.kind == Kind::Send);
                answered.is_some_and(|answer| calls[answer..].iter().any(is_resting))
            },
        );
        settled
            .map(drop)
            .map_err(|trouble| anyhow::anyhow!("{trouble}"))
    };
    // Attaching has interrupted the wait; after this one, it is undisturbed.
    echo()?;
    let mark = tracer.mark();
    for _ in 0..MESSAGES {
        echo()?;
    }
    let calls = tracer.since(mark);
    drop(server);
    Ok(calls)
}

/// Waits that reported something while [`BURST`] bytes went to the server and came back.
fn burst(contender: &Contender, cores: &Cores) -> Result<f64> {
    let (server, mut client, tracer) = observed(contender, cores)?;
    let mark = tracer.mark();
    let mut sender = client.try_clone()?;
    // Reading has to begin before all is sent, or a server without an outbox and its client would wait for each other.
    let sending = thread::spawn(move || sender.write_all(&[0x2a; BURST]));
    let mut received = vec![0; BURST];
    client
        .read_exact(&mut received)
        .context("the burst did not come back")?;
    match sending.join() {
        Ok(sent) => sent?,
        Err(_) => bail!("the sending thread panicked"),
    }
    let wake_ups = tracer
        .since(mark)
        .iter()
        .filter(|call| call.is_wake_up())
        .count();
    drop(server);
    Ok(wake_ups as f64)
}

/// A server under the tracer, with one client that has echoed a message.
fn observed(contender: &Contender, cores: &Cores) -> Result<(Server, TcpStream, Tracer)> {
    let server = Server::start(contender, cores, &Setup::default())?;
    let mut client = TcpStream::connect(server.addr())?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut message = [0x2a; SIZE as usize];
    client.write_all(&message)?;
    client.read_exact(&mut message)?;
    let tracer = Tracer::attach_to(server.pid()).map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    Ok((server, client, tracer))
}
