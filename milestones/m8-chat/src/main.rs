//! Milestone 8: chat. What one client says is sent to all others, and none of them can hold it up.
//!
//! [`lines`] makes lines of bytes, the [`room`] decides who is told what, [`outbox`] shares one copy of a
//! message among all who are owed it, and [`fan_out`] has them sent, a bounded number a turn.

mod connection;
mod connections;
mod drain;
mod event_loop;
mod fan_out;
mod idle;
mod limits;
mod lines;
mod listener;
mod outbox;
mod room;
mod signals;
mod stats;
mod token;

use std::process::ExitCode;

use cli::{Failure, OrFail};

use event_loop::EventLoop;
use listener::Listener;
use signals::Signals;

const PROGRAM: cli::Program = cli::program!("epoll chat server", "edge-triggered");

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
