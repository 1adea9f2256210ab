//! `--hold`: open connections and keep them.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use loadgen::process::{self, Memory};
use loadgen::{Crowd, units};
use serde::Serialize;

use crate::args::Args;
use crate::output::{Problem, say, write_json};

/// The result, for `--json`.
#[derive(Serialize)]
struct Held {
    target: String,
    connections: usize,
    opened_seconds: f64,
    held_seconds: f64,
    server: Option<Costs>,
}

/// What the server needs for them.
#[derive(Serialize)]
struct Costs {
    threads: u64,
    resident_bytes: u64,
    anonymous_bytes: u64,
    /// Anonymous memory gained since before the first connection, in bytes per connection. Right for
    /// a server that was just started; one that held as many before kept its memory.
    bytes_per_connection: f64,
}

/// Opens the connections, has each of them echo once, keeps them, and has each of them echo again: at
/// both ends it is certain that the server serves every one.
pub fn hold(args: &Args, target: SocketAddr, stop: &AtomicBool) -> Result<ExitCode, Problem> {
    let tell = |text: String| {
        if !args.json_to_stdout() {
            say(&text);
        }
    };
    let message = args.size as u64;
    let before = args.server_pid.map(memory).transpose()?;

    let began = Instant::now();
    let mut crowd = Crowd::connect(target, args.connections, args.options())?;
    crowd.echo(message)?;
    let opened = began.elapsed().as_secs_f64();
    let until = match args.duration {
        Some(duration) => format!("for {}", units::duration(duration)),
        None => "until Ctrl-C".into(),
    };
    tell(format!(
        "Holding {} connections to {target} {until}\n",
        crowd.len()
    ));
    tell(format!(
        "  opened in {}, each has echoed {message} bytes\n",
        units::time(opened * 1e6)
    ));

    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let left = args.duration.map_or(Duration::MAX, |duration| {
            duration.saturating_sub(began.elapsed())
        });
        if left.is_zero() {
            break;
        }
        crowd.watch(left.min(Duration::from_millis(100)))?;
    }
    let held = began.elapsed().as_secs_f64();
    let server = match (args.server_pid, before) {
        (Some(pid), Some(before)) => Some(costs(pid, before, crowd.len())?),
        _ => None,
    };
    crowd.echo(message)?;

    tell(format!(
        "  held for {}, each has echoed {message} bytes again, none lost\n",
        units::time(held * 1e6)
    ));
    if let Some(costs) = &server {
        tell(format!(
            "  Server: {} thread{}, {} resident ({} anonymous), {:.0} bytes per connection\n",
            costs.threads,
            if costs.threads == 1 { "" } else { "s" },
            units::bytes(costs.resident_bytes as f64),
            units::bytes(costs.anonymous_bytes as f64),
            costs.bytes_per_connection,
        ));
    }
    let connections = crowd.len();
    let result = Held {
        target: target.to_string(),
        connections,
        opened_seconds: opened,
        held_seconds: held,
        server,
    };
    write_json(args, &result)?;
    Ok(ExitCode::SUCCESS)
}

fn memory(pid: u32) -> Result<Memory, Problem> {
    process::memory(pid).map_err(|_| loadgen::Error::NoServerProcess { pid }.into())
}

fn costs(pid: u32, before: Memory, connections: usize) -> Result<Costs, Problem> {
    let after = memory(pid)?;
    let usage = process::usage(pid).map_err(|_| loadgen::Error::NoServerProcess { pid })?;
    Ok(Costs {
        threads: usage.threads,
        resident_bytes: after.resident,
        anonymous_bytes: after.anonymous,
        bytes_per_connection: (after.anonymous as f64 - before.anonymous as f64)
            / connections as f64,
    })
}
