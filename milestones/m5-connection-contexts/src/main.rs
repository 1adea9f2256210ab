//! Milestone 5: a context for every connection, so that nobody waits for anybody.
//!
//! What a client cannot take now is kept in its outbox and sent when its socket has room again; a client
//! that lets its outbox fill is not read from until it has caught up. Read [`event_loop`] first, then
//! [`connection`].

mod connection;
mod connections;
mod event_loop;
mod listener;
mod outbox;
mod token;

use std::process::ExitCode;

use cli::Failure;

use event_loop::EventLoop;

const PROGRAM: cli::Program = cli::program!("epoll echo server", "edge-triggered");

fn main() -> ExitCode {
    PROGRAM.run(serve)
}

/// Listens, and serves until something fails that is not one client's affair.
fn serve(options: cli::Options) -> Result<(), Failure> {
    let address = options.address();
    let listener = listener::listen(address).map_err(|errno| Failure::listen(address, errno))?;
    PROGRAM.announce(&listener)?;
    EventLoop::new(listener)?.run()
}
