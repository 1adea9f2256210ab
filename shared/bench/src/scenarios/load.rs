//! Servers under load: what a message costs them, how many they echo, how long a client waits.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use loadgen::{Options, Plan, Progress};

use crate::bench::Bench;
use crate::contender::{Contender, Limits};
use crate::figures::{Measure, Results};
use crate::scenarios::{SIZE, at_once, gather};
use crate::server::{Server, Setup};

/// How long connecting may take, and how long an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that echo, and nobody else.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What `bench.json` calls it.
    pub name: &'static str,
    /// What people read.
    pub title: &'static str,
    connections: usize,
    /// Messages in flight on each.
    depth: usize,
}

pub const ONE: Load = Load {
    name: "1",
    title: "1 connection",
    connections: 1,
    depth: 1,
};
pub const HUNDRED: Load = Load {
    name: "100",
    title: "100 connections",
    connections: 100,
    depth: 1,
};
pub const THOUSAND: Load = Load {
    name: "1000",
    title: "1,000 connections",
    connections: 1_000,
    depth: 1,
};
pub const THOUSAND_DEEP: Load = Load {
    name: "1000x16",
    title: "1,000 × 16 in flight",
    connections: 1_000,
    depth: 16,
};

/// In the order of the tables.
pub const LOADS: [Load; 4] = [ONE, HUNDRED, THOUSAND, THOUSAND_DEEP];

/// As many idle connections as there are to be at last, where the descriptor limit allows it.
pub const MOST_IDLE: u64 = 18_000;

/// Idle connections beyond which a server that scans them all takes too long to be filled for a quick run.
const SCANNED_QUICKLY: u64 = 2_000;

/// Idle connections beyond which a server with as many threads dies of vm.max_map_count, as "connections held" shows.
const THREADS: u64 = 12_000;

/// Descriptors that a process needs beside those of the idle and the active connections.
const SPARE: u64 = 300;

/// What `bench.json` calls 100 active connections beside `idle` silent ones.
pub fn beside(idle: u64) -> String {
    format!("100 beside {idle}")
}

/// The numbers of idle connections that were tried, growing.
pub fn idle_tried(results: &Results) -> Vec<u64> {
    let of_load = |figure: &&crate::figures::Figure| figure.measure == Measure::CpuPerMessage;
    let scenarios = results
        .figures
        .iter()
        .filter(of_load)
        .filter_map(|figure| figure.scenario.strip_prefix("100 beside "));
    let mut tried: Vec<u64> = scenarios.filter_map(|idle| idle.parse().ok()).collect();
    tried.sort_unstable();
    tried.dedup();
    tried
}

/// All loads, round by round: within a round, every server takes its turn under one load before the next load comes, so
/// that two servers are compared within seconds of each other.
pub fn run(bench: &mut Bench) {
    for _ in 0..bench.plan.rounds {
        for load in LOADS {
            for contender in bench.contenders() {
                bench.step(&contender, load.title);
                if bench.has_failed(Measure::CpuPerMessage, load.name, &contender) {
                    continue;
                }
                let sample = match contender.limits {
                    Limits::OneClient if load.connections > 1 => {
                        Err(anyhow::anyhow!("serves one client at a time"))
                    }
                    _ => one_load(bench, &contender, load),
                };
                record(bench, load.name, &contender, sample);
            }
        }
    }
}

fn one_load(bench: &Bench, contender: &Contender, load: Load) -> Result<Sample> {
    let mut server = Server::start(contender, &bench.cores, &Setup::default())?;
    measure(bench, &server, load, 0).map_err(|error| server.explain(error, contender.name))
}

/// 100 active connections beside more and more idle ones, all of them at one and the same process.
pub fn run_beside_idle(bench: &mut Bench) {
    let most = bench
        .descriptors
        .saturating_sub(HUNDRED.connections as u64 + SPARE);
    let steps: Vec<u64> = bench.plan.idle.iter().map(|&idle| idle.min(most)).collect();
    for round in 0..bench.plan.few_rounds {
        for contender in bench.contenders() {
            bench.step(&contender, "beside idle connections");
            if bench.has_failed(Measure::CpuPerMessage, &beside(0), &contender) {
                continue;
            }
            if contender.limits == Limits::OneClient {
                record(
                    bench,
                    &beside(0),
                    &contender,
                    Err(anyhow::anyhow!("serves one client at a time")),
                );
                continue;
            }
            if contender.limits == Limits::Scans && round > 0 {
                // Filling it takes as long as all others together, and its line is steep enough to be seen at once.
                continue;
            }
            let within_reach = |idle: &u64| match contender.limits {
                Limits::Scans => bench.plan.slow || *idle <= SCANNED_QUICKLY,
                Limits::Threads => *idle <= THREADS,
                _ => true,
            };
            let steps: Vec<u64> = steps.iter().copied().filter(within_reach).collect();
            if let Err((idle, error)) = beside_idle(bench, &contender, &steps) {
                record(bench, &beside(idle), &contender, Err(error));
            }
        }
    }
}

/// On failure, says beside how many idle connections it was.
fn beside_idle(
    bench: &mut Bench,
    contender: &Contender,
    steps: &[u64],
) -> Result<(), (u64, anyhow::Error)> {
    let mut server =
        Server::start(contender, &bench.cores, &Setup::default()).map_err(|error| (0, error))?;
    // Open for as long as this takes.
    let mut idle = Vec::new();
    let mut connected = 0;
    for &step in steps {
        // Numbered apart from the others, so that all have ports and bytes of their own.
        let options = Options {
            deadline: PATIENCE,
            first: connected as usize,
            ..Options::default()
        };
        let more = gather(
            &server,
            (step - connected) as usize,
            at_once(contender),
            &options,
        );
        let more = more.map_err(|error| (step, server.explain(error.into(), contender.name)))?;
        idle.extend(more);
        connected = step;
        let sample = measure(bench, &server, HUNDRED, connected as usize);
        let sample = sample.map_err(|error| (step, server.explain(error, contender.name)))?;
        record(bench, &beside(step), contender, Ok(sample));
    }
    Ok(())
}

/// What one window showed.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu_us: f64,
    per_second: f64,
    p99_us: f64,
    busy: f64,
}

fn measure(bench: &Bench, server: &Server, load: Load, first: usize) -> Result<Sample> {
    let mut plan = Plan::new(server.addr());
    plan.connections = load.connections;
    plan.depth = load.depth;
    plan.size = SIZE as usize;
    plan.warmup = bench.plan.warm_up;
    plan.duration = bench.plan.window;
    plan.options = Options {
        deadline: PATIENCE,
        first,
        ..Options::default()
    };

    // The server's CPU clock when the window begins and when it ends, with the moment of each look: the look may come a
    // little late, so it is the rates of the two that are compared.
    let look = || server.cpu_time().map(|cpu| (Instant::now(), cpu));
    let (mut begin, mut end) = (None, None);
    let report = loadgen::run(&plan, &AtomicBool::new(false), |progress| match progress {
        Progress::Running { elapsed, .. } if elapsed >= plan.warmup && begin.is_none() => {
            begin = look().ok()
        }
        Progress::Settling => end = look().ok(),
        _ => {}
    })?;
    if let Some(failure) = report.failure {
        bail!("{}", failure.what);
    }
    if report.messages == 0 {
        bail!("no message came back");
    }
    let ((began, cpu_before), (ended, cpu_after)) = begin
        .zip(end)
        .context("the server's CPU time cannot be read")?;
    let busy = cpu_after.saturating_sub(cpu_before).as_secs_f64() / (ended - began).as_secs_f64();
    Ok(Sample {
        cpu_us: busy / report.messages_per_second * 1e6,
        per_second: report.messages_per_second,
        p99_us: report.latency.map_or(0.0, |latency| latency.p99_us),
        busy,
    })
}

fn record(bench: &mut Bench, scenario: &str, contender: &Contender, sample: Result<Sample>) {
    let sample = sample.map_err(|error| format!("{error:#}"));
    let mut keep = |measure, value: fn(&Sample) -> f64| {
        let seen = sample
            .as_ref()
            .map(value)
            .map_err(|reason| anyhow::anyhow!("{reason}"));
        bench.record(measure, scenario, contender, seen);
    };
    keep(Measure::CpuPerMessage, |sample| sample.cpu_us);
    keep(Measure::Throughput, |sample| sample.per_second);
    keep(Measure::LatencyP99, |sample| sample.p99_us);
    keep(Measure::ServerBusy, |sample| sample.busy);
}
