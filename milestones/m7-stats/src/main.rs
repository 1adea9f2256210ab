//! Milestone 7: a server that can be looked at while it runs, and stopped without losing a byte.
//!
//! [`stats`] counts and reports, [`signals`] turns signals into events, and [`drain`] is how the server
//! ends: asked to stop, it first sends what it still owes.

mod connection;
mod connections;
mod drain;
mod event_loop;
mod idle;
mod limits;
mod listener;
mod outbox;
mod signals;
mod stats;
mod token;

use std::process::ExitCode;

use cli::{Failure, OrFail};

use event_loop::EventLoop;
use listener::Listener;
use signals::Signals;

const PROGRAM: cli::Program = cli::program!("epoll echo server", "edge-triggered");

fn main() -> ExitCode {
    PROGRAM.run(serve)
}

/// Listens, and serves until it is asked to stop or something fails that is not one client's affair.
fn serve(options: cli::StatsOptions) -> Result<(), Failure> {
    let signals = Signals::new().or_fail("read signals from a descriptor")?;
    let cli::StatsOptions {
        tuning: options,
        stats,
    } = options;
    let limit = limits::raise_descriptor_limit()?;
    limits::check_backlog(options.backlog);
    let address = options.address();
    let listener =
        Listener::new(address, options.backlog).map_err(|errno| Failure::listen(address, errno))?;
    let max_connections = limits::max_connections(options.max_connections, limit)?;
    PROGRAM.announce(&listener)?;
    let idle_timeout = options.idle_timeout();
    EventLoop::new(listener, max_connections, idle_timeout, signals, stats)?.run()
}
