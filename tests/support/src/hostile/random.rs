//! Clients that do at random what clients do.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use loadgen::chaos::{Chaos, Tally};

use super::withstands;
use crate::{
    Server, Trouble,
    explain::{Lesson, book},
};

/// Where the numbers begin, unless `SEED` in the environment says otherwise.
const SEED: u64 = 20_261_124;

/// How long it goes on at least, unless `HOSTILE_SECONDS` says otherwise: short, because three milestones have to
/// stand it in every test run.
const SECONDS: f64 = 6.0;

/// Clients at a time.
const CLIENTS: usize = 64;

/// How long one of them may be kept waiting: only a failure takes so long, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Random clients, and every byte of theirs accounted for.
#[track_caller]
pub fn survives_random_clients(server: &Server) {
    let seed = number("SEED").unwrap_or(SEED);
    let seconds = number("HOSTILE_SECONDS").unwrap_or(SECONDS);
    println!("SEED={seed} HOSTILE_SECONDS={seconds}");
    Lesson {
        tried: "for some seconds 64 clients at a time do what their seed says: they connect with large or tiny buffers, \
                send, receive, wait, half-close, close, reset, in any order. Every byte that comes back is compared; all \
                that was sent has to come back to those who wait for it. Again and again",
        usually: "one of the rules that the other checks ask for one by one, where two of them meet. `SEED=…` in the \
                  environment sends the same clients again, and `HOSTILE_SECONDS=…` more or fewer of them",
        read: book::M5_BACK_PRESSURE,
    }
    .expect(|| {
        let mut chaos = Chaos::new(server.addr(), seed, CLIENTS, PATIENCE).map_err(ours)?;
        let each = Duration::from_secs_f64(seconds / super::REPETITIONS as f64);
        withstands(server, |witness| {
            let until = Instant::now() + each;
            chaos.run(|tally| Instant::now() >= until || tally.failed > 0).map_err(ours)?;
            witness.is_served()?;
            judge(&chaos)
        })?;
        report(&chaos.tally());
        Ok(())
    });
}

/// Stopped and continued while it has work.
#[track_caller]
pub fn goes_on_when_stopped_under_load(server: &Server) {
    const STOPS: usize = 8;
    let seed = number("SEED").unwrap_or(SEED);
    println!("SEED={seed}");
    Lesson {
        tried: "64 random clients at a time are served, and meanwhile the server is stopped (SIGSTOP) and continued \
                (SIGCONT), eight times. Every byte that comes back is compared. Again and again",
        usually: "a call that a signal interrupted (EINTR) is taken for a failure; or more came at once than one turn of \
                  the loop takes, and the rest is forgotten",
        read: book::M3_CODE,
    }
    .expect(|| {
        let mut chaos = Chaos::new(server.addr(), seed, CLIENTS, PATIENCE).map_err(ours)?;
        let mut random = Rng::with_seed(seed);
        withstands(server, |witness| {
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                let clients = scope.spawn(|| {
                    chaos.run(|tally| over.load(Ordering::Relaxed) || tally.failed > 0).map_err(ours)
                });
                for _ in 0..STOPS {
                    thread::sleep(Duration::from_millis(random.u64(5..40)));
                    server.pause();
                    thread::sleep(Duration::from_millis(random.u64(5..40)));
                    server.resume();
                }
                over.store(true, Ordering::Relaxed);
                clients.join().expect("clients do not panic")
            })?;
            witness.is_served()?;
            judge(&chaos)
        })
    });
}

/// Whether everybody was served, and all bytes are accounted for.
fn judge(chaos: &Chaos) -> Result<(), Trouble> {
    if let Some(failure) = chaos.first_failure() {
        let hint = failure.error.hint().map(|hint| format!("\n  ({hint})"));
        return Err(Trouble::Server(format!(
            "{failure}{}",
            hint.unwrap_or_default()
        )));
    }
    match chaos.tally().unaccounted() {
        0 => Ok(()),
        bytes => Err(Trouble::Server(format!(
            "{bytes} bytes are unaccounted for: {:?}",
            chaos.tally()
        ))),
    }
}

fn report(tally: &Tally) {
    println!(
        "{} clients: {} bytes sent, {} came back, {} given up by those who left",
        tally.ended, tally.sent, tally.verified, tally.given_up
    );
}

/// Trouble on this side.
fn ours(error: loadgen::Error) -> Trouble {
    Trouble::Server(error.to_string())
}

/// A number in the environment.
fn number<N: std::str::FromStr>(name: &str) -> Option<N> {
    env::var(name).ok()?.parse().ok()
}
