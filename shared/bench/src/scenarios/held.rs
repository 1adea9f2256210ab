//! How many connections a server holds at once: open, and each of them answered while all are open.

use std::time::Duration;

use anyhow::Result;
use loadgen::{Error, Options};

use crate::bench::Bench;
use crate::contender::{Contender, Limits};
use crate::figures::Measure;
use crate::machine::Cores;
use crate::scenarios::{SIZE, at_once, gather};
use crate::server::{Server, Setup};

/// The soft descriptor limit that most shells and service managers start a program with.
pub const USUAL_SOFT_LIMIT: u64 = 1024;

/// The server is started with [`USUAL_SOFT_LIMIT`]; it may raise it itself, up to the hard limit.
pub const USUAL: &str = "soft limit 1,024";
/// Somebody has raised the soft limit to the hard one before (`ulimit -Sn hard`).
pub const RAISED: &str = "limit raised";

/// Descriptors that a process keeps for other things than its clients.
const SPARE: u64 = 64;

/// A little more than the usual limit allows, and little enough for the backlog to take the rest.
const JUST_TOO_MANY: usize = USUAL_SOFT_LIMIT as usize + 64;

pub fn run(bench: &mut Bench) {
    for contender in bench.contenders() {
        let most = (bench.descriptors - SPARE) as usize;
        // Those that come together share an epoll here, which is a descriptor, too.
        let most = most - most / at_once(&contender);
        let scenarios = [(USUAL, Some(USUAL_SOFT_LIMIT)), (RAISED, None)];
        for (scenario, soft_limit) in
            scenarios
                .into_iter()
                .take(if bench.plan.slow { 2 } else { 1 })
        {
            bench.step(&contender, "connections held");
            let tries = match (contender.limits, scenario) {
                // The others wait in the backlog, with an established connection that nobody serves.
                (Limits::OneClient, _) => &[2][..],
                (_, USUAL) => &[JUST_TOO_MANY, most],
                _ => &[most],
            };
            let setup = Setup {
                soft_limit,
                ..Setup::default()
            };
            let held = most_held(&contender, &bench.cores, &setup, tries);
            bench.record(
                Measure::ConnectionsHeld,
                scenario,
                &contender,
                held.map(|held| held as f64),
            );
        }
    }
}

/// The most connections that are all answered, up to the last of `tries`, which are made in turn until one fails.
fn most_held(
    contender: &Contender,
    cores: &Cores,
    setup: &Setup,
    tries: &[usize],
) -> Result<usize> {
    let mut held = 0;
    for &connections in tries {
        match answered(contender, cores, setup, connections)? {
            Answered::All => held = connections,
            Answered::Only(some) => return Ok(some),
            Answered::Fewer(too_many) => return search(contender, cores, setup, held, too_many),
        }
    }
    Ok(held)
}

/// The most that succeeds, between `held`, which does, and `too_many`, which does not.
fn search(
    contender: &Contender,
    cores: &Cores,
    setup: &Setup,
    mut held: usize,
    mut too_many: usize,
) -> Result<usize> {
    while held + 1 < too_many {
        let connections = held.midpoint(too_many);
        match answered(contender, cores, setup, connections)? {
            Answered::All => held = connections,
            Answered::Only(some) => return Ok(some),
            Answered::Fewer(fewer) => too_many = fewer.min(connections),
        }
    }
    Ok(held)
}

/// How many of the open connections got an answer.
enum Answered {
    All,
    /// So many, while the others waited and waited.
    Only(usize),
    /// So many are too many: more is not known, because the server closed one, or did not let all of them connect.
    Fewer(usize),
}

fn answered(
    contender: &Contender,
    cores: &Cores,
    setup: &Setup,
    connections: usize,
) -> Result<Answered> {
    let mut server = Server::start(contender, cores, setup)?;
    // Many times what a server takes that can; one that cannot takes all of it.
    let deadline = Duration::from_millis(2_000 + connections as u64);
    let options = Options {
        deadline,
        ..Options::default()
    };
    let at_once = if connections > JUST_TOO_MANY {
        at_once(contender)
    } else {
        connections
    };
    // Once more for each, when all are open.
    let tried = gather(&server, connections, at_once, &options).and_then(|mut crowds| {
        crowds
            .iter_mut()
            .try_for_each(|crowd| crowd.echo(SIZE).map(drop))
    });
    match tried {
        Ok(()) => Ok(Answered::All),
        Err(error) if server.has_ended() => Err(server.explain(error.into(), contender.name)),
        Err(Error::Timeout { waiting, of, .. }) => Ok(Answered::Only(of - waiting)),
        Err(Error::ConnectTimeout { connected, .. }) => Ok(Answered::Fewer(connected + 1)),
        Err(Error::Broken { .. }) => Ok(Answered::Fewer(connections)),
        Err(other) => Err(other.into()),
    }
}
