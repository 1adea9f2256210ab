//! m6's own structures with as many entries as a server with a million connections would have.

use std::time::Duration;

use nix::time::ClockId;

use crate::bench::Bench;
use crate::contender::Contender;
use crate::figures::Measure;

/// What is tried, in the order in which it is shown.
pub const STRUCTURES: [&str; 5] = [
    "connection table, look-up",
    "connection table, leave and join",
    "idle list",
    "ready list",
    "outbox",
];

/// With how many entries.
pub const ENTRIES: [u32; 3] = [1_000, 100_000, 1_000_000];

/// Operations in one sample, at least.
const OPERATIONS: usize = 1_000_000;

/// Those that are active, spread over all entries; the others are idle.
const ACTIVE: usize = 100;

/// Only the active ones are visited: what a server with many idle connections does.
pub fn active(structure: &str, entries: u32) -> String {
    format!("{structure}, {ACTIVE} of {entries}")
}

/// All are visited, in a random order: entries that do not fit in the processor's caches are waited for.
pub fn all(structure: &str, entries: u32) -> String {
    format!("{structure}, all of {entries}")
}

pub fn run(bench: &mut Bench) {
    let Some(m6) = bench
        .contenders()
        .into_iter()
        .find(|contender| contender.name == "m6")
    else {
        return;
    };
    for _ in 0..bench.plan.few_rounds {
        for entries in ENTRIES {
            let [table, replaced, idle, ready, outbox] = STRUCTURES;
            try_out(bench, &m6, table, entries, m6_structures::look_up);
            try_out(bench, &m6, replaced, entries, m6_structures::replace);
            try_out(bench, &m6, idle, entries, m6_structures::touch);
            try_out(bench, &m6, ready, entries, m6_structures::take_turn);
            try_out(bench, &m6, outbox, entries, m6_structures::look_into_outbox);
        }
    }
}

fn try_out<O: FnMut(u32)>(
    bench: &mut Bench,
    contender: &Contender,
    structure: &str,
    entries: u32,
    make: impl Fn(u32) -> O,
) {
    bench.step(contender, structure);
    let shuffled = m6_structures::shuffled(entries);
    let some = shuffled[..ACTIVE].to_vec();
    let orders = [
        (active(structure, entries), some),
        (all(structure, entries), shuffled),
    ];
    for (scenario, order) in orders {
        let nanoseconds = per_operation(&order, make(entries));
        bench.record(Measure::Operation, &scenario, contender, Ok(nanoseconds));
    }
}

/// Nanoseconds of this thread's CPU time per operation, so that it does not count when others take the core; the first
/// visit of all slots does not count either.
fn per_operation(order: &[u32], mut operation: impl FnMut(u32)) -> f64 {
    let visits = OPERATIONS.div_ceil(order.len());
    let mut visit = || order.iter().for_each(|&slot| operation(slot));
    visit();
    let began = cpu_time();
    (0..visits).for_each(|_| visit());
    let took = cpu_time() - began;
    took.as_nanos() as f64 / (visits * order.len()) as f64
}

fn cpu_time() -> Duration {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID.now();
    clock.expect("every thread has that clock").into()
}
