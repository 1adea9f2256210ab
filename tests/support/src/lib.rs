//! What the contract tests are made of: start a server ([`Program`], [`Server`]), drive clients
//! ([`Client`]), and say what went wrong in words that help ([`Trouble`], [`Lesson`]).
//!
//! A check is a function that takes a running server. [`behaviour`] holds those about the bytes,
//! [`mechanism`] those about what the server did to get there, as [`proc_fs`] and a [`tracer`] see
//! it, [`hostile`] those with clients that mean no good, [`command_line`] those about arguments, messages and exit codes, [`walls`] what each
//! milestone cannot do and the next one can. Which milestone must pass which check stands in the
//! files `tests/mN_*.rs`, and nowhere else.

use std::{
    io::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

pub mod behaviour;
pub mod chat;
pub mod client;
mod clock;
pub mod command_line;
pub mod descriptors;
pub mod explain;
pub mod foreign;
pub mod hostile;
pub mod http;
pub mod mechanism;
pub mod proc_fs;
mod pulse;
pub mod server;
mod sock_diag;
pub mod syscalls;
pub mod tracer;
pub mod walls;

pub use client::{Client, ClientOptions, pattern};
pub use explain::{Lesson, Section, Trouble};
pub use server::{Program, Protocol, Server, Setup, StandardOutput};
pub use walls::{Verdict, Wall};

/// How long a check waits for what a right server does at once. Only a failure takes this long, so
/// it is generous: no verdict may depend on the speed of the machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` holds.
///
/// # Errors
///
/// [`Trouble::Never`] with `what`, when it does not hold `within` that time.
pub fn wait_until(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), Trouble> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_micros(50);
    loop {
        let began = Instant::now();
        if condition() {
            return Ok(());
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(Trouble::Never {
                what: what.to_owned(),
                within,
            });
        }
        // A look that takes long is not repeated all the time: others need the processor.
        thread::sleep(pause.max(now - began));
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Waits until no other test of this process holds thousands of descriptors, and keeps the others
/// waiting until it is dropped: all tests of a process share one limit.
pub fn alone_with_many_descriptors() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed while it was alone has left nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a test for each check of a list, named after the check: for contracts that more than one milestone keeps.
///
/// The first word says what the checks are given, of the program that `$program()` gives: a running server, or the program
/// itself, to start as they need it; or that they are walls at which an earlier milestone ended (in
/// this way), and this one must not.
#[macro_export]
macro_rules! tests {
    (server of $program:path: $($module:ident::$check:ident($($argument:expr),*);)*) => {
        $(
            #[test]
            fn $check() {
                let program = $program();
                if program.can_be_started() {
                    $crate::$module::$check(&program.start() $(, $argument)*);
                }
            }
        )*
    };
    (program $program:path: $($module:ident::$check:ident($($argument:expr),*);)*) => {
        $(
            #[test]
            fn $check() {
                let program = $program();
                if program.can_be_started() {
                    $crate::$module::$check(&program $(, $argument)*);
                }
            }
        )*
    };
    (wall before $program:path: $($module:ident::$wall:ident($climbed:ident);)*) => {
        $(
            #[test]
            fn $wall() {
                $crate::walls::must_hold(
                    &$program(),
                    $crate::Wall::$climbed,
                    $crate::$module::$wall,
                );
            }
        )*
    };
}

/// Says on the real standard error why this test does not judge: the test harness hides what
/// `eprintln!` writes in a test that passes, and a reader must not take a skipped check for a
/// passed one.
pub fn skipped(reason: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = std::io::stderr().write_all(format!("skipped: {test}: {reason}\n").as_bytes());
}
