//! Random clients against servers that are right, and servers that are not.

mod server;

use std::time::Duration;

use loadgen::Error;
use loadgen::chaos::{Chaos, Failure, Life};
use server::{Flaw, Server};

const SEED: u64 = 7;

/// What the first client that was not served well says about a server, and `None` if all were.
fn judge(flaw: Flaw, patience: Duration) -> Option<Failure> {
    const CLIENTS: u64 = 500;
    let server = Server::start(flaw);
    let mut chaos = Chaos::new(server.address, SEED, 32, patience).unwrap();
    chaos
        .run(|tally| tally.begun >= CLIENTS || tally.failed > 0)
        .unwrap();
    let tally = chaos.tally();
    assert_eq!(tally.begun, tally.ended + tally.failed);
    assert_eq!(tally.unaccounted(), 0);
    assert_eq!(tally.failed > 0, chaos.first_failure().is_some());
    chaos.first_failure().cloned()
}

fn judge_patiently(flaw: Flaw) -> Option<Failure> {
    judge(flaw, Duration::from_secs(30))
}

#[test]
fn a_right_server_serves_them_all() {
    if let Some(failure) = judge_patiently(Flaw::None) {
        panic!("{failure}");
    }
}

#[test]
fn a_flaw_in_a_million_bytes_is_noticed() {
    for flaw in [
        Flaw::Corrupt,
        Flaw::Drop,
        Flaw::Reorder,
        Flaw::Repeat,
        Flaw::Close,
    ] {
        // A byte that is missing at the end is waited for.
        let failure = judge(flaw, Duration::from_secs(1));
        assert!(failure.is_some(), "{flaw:?} was not noticed");
    }
}

#[test]
fn who_is_kept_waiting_is_a_failure() {
    let failure = judge(Flaw::Deaf, Duration::from_millis(200)).expect("nobody was served");
    assert!(matches!(failure.error, Error::Timeout { .. }), "{failure}");
    assert!(failure.to_string().contains("of seed 7"), "{failure}");
}

#[test]
fn the_same_seed_tries_the_same_again() {
    let lives = |seed| {
        (0..200)
            .map(|number| Life::of(seed, number))
            .collect::<Vec<_>>()
    };
    assert_eq!(lives(1), lives(1));
    assert_ne!(lives(1), lives(2));
}
