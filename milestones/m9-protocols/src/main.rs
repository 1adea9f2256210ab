//! Milestone 9: the finished tool. One reactor, and three protocols that know nothing of it.
//!
//! [`reactor`] has all that the milestones before have built: sockets, readiness, buffers, limits, timers
//! and signals. [`protocol`] has what is said over a connection: echo, chat and HTTP.

mod protocol;
mod reactor;

use std::process::ExitCode;

use cli::{Failure, OrFail, Protocol as Spoken};

use protocol::{Auto, Chat, Echo, Http, Protocol};
use reactor::{Listener, Reactor, Signals, limits};

const PROGRAM: cli::Program = cli::program!("epoll echo server", "edge-triggered");

// ANCHOR: main
fn main() -> ExitCode {
    PROGRAM.run(|options: cli::ProtocolOptions| match options.protocol {
        Spoken::Auto => serve(Auto::default(), PROGRAM, options.stats),
        Spoken::Echo => serve(Echo, PROGRAM, options.stats),
        Spoken::Chat => {
            let program = cli::Program {
                kind: "epoll chat server",
                ..PROGRAM
            };
            serve(Chat::default(), program, options.stats)
        }
        Spoken::Http => serve(Http::default(), PROGRAM, options.stats),
    })
}
// ANCHOR_END: main

/// Listens, and serves until it is asked to stop or something fails that is not one client's affair.
fn serve(
    protocol: impl Protocol,
    program: cli::Program,
    options: cli::StatsOptions,
) -> Result<(), Failure> {
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
    program.announce(&listener)?;
    let idle_timeout = options.idle_timeout();
    Reactor::new(
        protocol,
        listener,
        max_connections,
        idle_timeout,
        signals,
        stats,
    )?
    .run()
}
