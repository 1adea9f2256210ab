//! Random clients and load for minutes, with memory, descriptors, processor time and errors watched.
//!
//! The clients of `loadgen::chaos` come, talk and go; beside them, load comes in slices of some seconds,
//! each on connections of its own. Once a second the server is looked at, and at the end, when all clients
//! have gone, once more: then it has to be what it was before the first one came.

mod picture;
mod verdict;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use loadgen::chaos::{Chaos, Tally};
use loadgen::{Plan, process};
use plot::machine::Run;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use support::{PATIENCE, Program, Server, Setup, wait_until};

use crate::sources::root;

/// Random clients at a time.
const CLIENTS: usize = 100;

/// How long one of them, or a message of the load, may be kept waiting. Only a failure takes this long: a
/// verdict must not depend on what else the machine does.
const WAITS_AT_MOST: Duration = Duration::from_secs(30);

/// How long the load runs before it connects anew.
const SLICE: Duration = Duration::from_secs(10);

/// Messages a second that the load sends, on how many connections, beside how many that say nothing, and
/// how many that never read.
const RATE: f64 = 2_000.0;
const CONNECTIONS: usize = 100;
const SILENT: usize = 300;
const STALLED: usize = 10;

/// Random clients and load for minutes, with memory and descriptors watched
#[derive(clap::Args)]
pub struct Arguments {
    /// How long; Ctrl-C ends it earlier
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = minutes)]
    minutes: f64,

    /// What the random clients do follows from this number [default: another one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Which server
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Milestone::M9)]
    milestone: Milestone,

    /// Where to write soak.svg, soak.json and soak.md [default: target/soak]
    #[arg(long, value_name = "DIR", conflicts_with = "record")]
    output: Option<PathBuf>,

    /// Write them to book/generated, as the figures that the book shows
    #[arg(long)]
    record: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.05..=10_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("a number of minutes, from 0.05 to 10,000".to_owned()),
    }
}

/// The milestones that hostile clients must not hurt.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Milestone {
    #[value(name = "m6-10k-tuning")]
    M6,
    #[value(name = "m7-stats")]
    M7,
    #[value(name = "m9-protocols")]
    M9,
}

impl Milestone {
    fn package(self) -> &'static str {
        match self {
            Self::M6 => "m6-10k-tuning",
            Self::M7 => "m7-stats",
            Self::M9 => "m9-protocols",
        }
    }

    fn binary(self) -> &'static str {
        match self {
            Self::M9 => "epoll_echo_server",
            other => other.package(),
        }
    }
}

/// The server, and what had become of its clients, at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    /// Seconds since the soak began.
    at: f64,
    /// Bytes resident.
    resident: u64,
    /// Bytes of them that no file stands behind.
    anonymous: u64,
    /// Descriptors open.
    descriptors: usize,
    /// Processor time since the sample before, in percent of one core.
    cpu_percent: f64,
    /// Random clients that had come to their end.
    clients: u64,
    /// Messages of the load that had come back.
    messages: u64,
    /// Errors of both so far.
    errors: u64,
}

/// All that was seen.
#[derive(Serialize)]
struct Soak {
    run: Run,
    milestone: &'static str,
    seed: u64,
    /// How long it was, in seconds.
    seconds: f64,
    /// Whether it was ended before its time.
    interrupted: bool,
    /// Of the random clients.
    chaos: Counts,
    /// Messages of the load that came back, and bytes in them.
    messages: u64,
    message_bytes: u64,
    /// The server before the first client came, and after the last had gone.
    before: Rest,
    after: Rest,
    /// What is wrong; nothing, if all is well.
    faults: Vec<String>,
    samples: Vec<Sample>,
}

#[derive(Serialize)]
struct Counts {
    clients: u64,
    bytes_sent: u64,
    bytes_verified: u64,
    /// Out when their client left without waiting for them.
    bytes_given_up: u64,
    /// Of which nobody can say what became of them.
    bytes_unaccounted: u64,
    failures: u64,
}

/// A server without clients.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rest {
    descriptors: usize,
    anonymous: u64,
    /// Processor time that it used in one second, in milliseconds. (None is what is right; the kernel tells
    /// it in steps of a clock tick, usually 10 ms.)
    idle_cpu_ms: u64,
}

/// What the clients report while they run.
#[derive(Default)]
struct Shared {
    chaos: Mutex<Tally>,
    load: Mutex<Load>,
}

#[derive(Clone, Default)]
struct Load {
    messages: u64,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let package = arguments.milestone.package();
    let run = Run::describe(typed(arguments))?;
    let binary = build(package, arguments.milestone.binary())?;
    let folder = match &arguments.output {
        Some(folder) => folder.clone(),
        None if arguments.record => root().join("book/generated"),
        None => root().join("target/soak"),
    };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{package}, {} minutes, seed {seed}", arguments.minutes);

    // Ctrl-C is meant for us, and not for the server: it would end before we have seen how it is.
    let server = Program::ours(package, &binary).start_with(Setup::new().in_its_own_group());
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends us at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let soak = watch(&server, arguments, run, seed, &stop)?;
    write(&soak, &folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    print!("{}", verdict::summary(&soak));
    println!("written to {}", folder.display());
    ensure!(
        soak.faults.is_empty(),
        "the soak found {}",
        plural(soak.faults.len(), "fault")
    );
    Ok(())
}

/// The command that does it again, without where it writes and the seed, which stands beside it.
fn typed(arguments: &Arguments) -> String {
    let mut typed = format!("cargo xtask soak --minutes {}", arguments.minutes);
    if arguments.milestone != Milestone::M9 {
        typed += &format!(" --milestone {}", arguments.milestone.package());
    }
    typed
}

/// Builds the release binary, and says where it is.
fn build(package: &str, binary: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", package])
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "{package} does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release").join(binary))
}

/// Lets the clients loose, and looks at the server once a second.
fn watch(
    server: &Server,
    arguments: &Arguments,
    run: Run,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Soak> {
    const EVERY: Duration = Duration::from_secs(1);
    let before = rest(server)?;
    let shared = Shared::default();
    // Also when something fails on our side, the others must come to an end.
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(arguments.minutes * 60.0);
    let goes_on =
        || !stop.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) && Instant::now() < until;
    let mut samples: Vec<Sample> = Vec::new();
    let mut chaos = Chaos::new(server.addr(), seed, CLIENTS, WAITS_AT_MOST)?;

    let (seen, chaos_ended) = thread::scope(|scope| {
        let chaos_ended = scope.spawn(|| {
            chaos.run(|tally| {
                *lock(&shared.chaos) = *tally;
                !goes_on()
            })
        });
        let load_ended = scope.spawn(|| load(server, &shared, &over, stop, until));
        let mut look = || -> Result<()> {
            let mut cpu = process::usage(server.pid().as_raw() as u32)?.cpu;
            let mut last = Instant::now();
            let mut next_line = Duration::from_secs(60);
            while goes_on() {
                thread::sleep(EVERY.min(until.saturating_duration_since(Instant::now())));
                let sample = sample(server, &shared, began, (cpu, last))?;
                (cpu, last) = (
                    process::usage(server.pid().as_raw() as u32)?.cpu,
                    Instant::now(),
                );
                if began.elapsed() >= next_line || std::io::stdout().is_terminal() {
                    next_line += Duration::from_secs(60);
                    verdict::show(&sample);
                }
                samples.push(sample);
            }
            Ok(())
        };
        let seen = look();
        over.store(true, Ordering::Relaxed);
        let _ = load_ended.join();
        (seen, chaos_ended.join())
    });
    if server.has_ended() {
        bail!("the server has ended:\n{}", server.stderr());
    }
    seen?;
    chaos_ended.map_err(|_| anyhow::anyhow!("the random clients panicked"))??;

    // All clients have gone; the last of them may not have been noticed yet.
    let _ = wait_until("", PATIENCE, || {
        server.open_descriptors() <= before.descriptors
    });
    let after = rest(server)?;
    let tally = chaos.tally();
    let load = lock(&shared.load).clone();
    let mut soak = Soak {
        run,
        milestone: arguments.milestone.package(),
        seed,
        seconds: began.elapsed().as_secs_f64(),
        interrupted: stop.load(Ordering::Relaxed),
        chaos: Counts {
            clients: tally.ended,
            bytes_sent: tally.sent,
            bytes_verified: tally.verified,
            bytes_given_up: tally.given_up,
            bytes_unaccounted: tally.unaccounted(),
            failures: tally.failed,
        },
        messages: load.messages,
        message_bytes: load.bytes,
        before,
        after,
        faults: Vec::new(),
        samples,
    };
    soak.run.took_s = soak.seconds;
    let chaos_error = chaos.first_failure().map(ToString::to_string);
    soak.faults = verdict::faults(&soak, load.errors, [chaos_error, load.first_error]);
    Ok(soak)
}

/// Load in slices, each on connections of its own.
fn load(server: &Server, shared: &Shared, over: &AtomicBool, stop: &AtomicBool, until: Instant) {
    let mut plan = Plan::new(server.addr());
    plan.connections = CONNECTIONS;
    plan.idle = SILENT;
    plan.stalled = STALLED;
    plan.rate = Some(RATE);
    plan.timeout = WAITS_AT_MOST;
    // Apart from the random clients, whose numbers begin at 0.
    plan.options.first = 500_000;
    while !over.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(100) {
            return;
        }
        plan.duration = SLICE.min(left);
        let before = lock(&shared.load).clone();
        let outcome = loadgen::run(&plan, stop, |progress| {
            if let loadgen::Progress::Running { messages, .. } = progress {
                lock(&shared.load).messages = before.messages + messages;
            }
        });
        let mut load = lock(&shared.load);
        match outcome {
            Ok(report) => {
                load.messages = before.messages + report.messages;
                load.bytes += report.bytes;
                load.errors += report.errors.total();
                if let Some(failure) = report.failure {
                    load.first_error.get_or_insert(failure.what);
                }
            }
            Err(loadgen::Error::Interrupted) => return,
            Err(error) => {
                load.errors += 1;
                load.first_error.get_or_insert(error.to_string());
                drop(load);
                // Not at once again: it would fail as it did.
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

fn sample(
    server: &Server,
    shared: &Shared,
    began: Instant,
    (cpu, last): (Duration, Instant),
) -> Result<Sample> {
    let pid = server.pid().as_raw() as u32;
    let memory = process::memory(pid)?;
    let used = process::usage(pid)?.cpu.saturating_sub(cpu);
    let chaos = *lock(&shared.chaos);
    let load = lock(&shared.load);
    Ok(Sample {
        at: began.elapsed().as_secs_f64(),
        resident: memory.resident,
        anonymous: memory.anonymous,
        descriptors: server.open_descriptors(),
        cpu_percent: 100.0 * used.as_secs_f64() / last.elapsed().as_secs_f64(),
        clients: chaos.ended,
        messages: load.messages,
        errors: chaos.failed + load.errors,
    })
}

/// Looks at a server that has no clients.
fn rest(server: &Server) -> Result<Rest> {
    let pid = server.pid().as_raw() as u32;
    let before = process::usage(pid)?.cpu;
    thread::sleep(Duration::from_secs(1));
    Ok(Rest {
        descriptors: server.open_descriptors(),
        anonymous: process::memory(pid)?.anonymous,
        idle_cpu_ms: (process::usage(pid)?.cpu - before).as_millis() as u64,
    })
}

fn write(soak: &Soak, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(
        folder.join("soak.json"),
        serde_json::to_string(soak)? + "\n",
    )?;
    fs::write(folder.join("soak.md"), verdict::summary(soak))?;
    fs::write(folder.join("soak.svg"), picture::draw(soak))?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What it guards are numbers, whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}
