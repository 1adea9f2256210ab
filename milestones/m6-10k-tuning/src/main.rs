//! Milestone 6: ten thousand connections, on as few descriptors, bytes and system calls as they need.
//!
//! [`limits`] has what the system allows, [`listener`] what happens when it allows no more, [`outbox`]
//! and [`connection`] where the memory and one system call in three went, [`idle`] who has been silent
//! too long. The [`event_loop`] is still the one of milestone 5.

mod connection;
mod connections;
mod event_loop;
mod idle;
mod limits;
mod listener;
mod outbox;
mod token;

use std::process::ExitCode;

use cli::Failure;

use event_loop::EventLoop;
use listener::Listener;

const PROGRAM: cli::Program = cli::program!("epoll echo server", "edge-triggered");

fn main() -> ExitCode {
    PROGRAM.run(serve)
}

/// Listens, and serves until something fails that is not one client's affair.
fn serve(options: cli::TuningOptions) -> Result<(), Failure> {
    let limit = limits::raise_descriptor_limit()?;
    limits::check_backlog(options.backlog);
    let address = options.address();
    let listener =
        Listener::new(address, options.backlog).map_err(|errno| Failure::listen(address, errno))?;
    let max_connections = limits::max_connections(options.max_connections, limit)?;
    PROGRAM.announce(&listener)?;
    let idle_timeout = options.idle_timeout();
    EventLoop::new(listener, max_connections, idle_timeout)?.run()
}
