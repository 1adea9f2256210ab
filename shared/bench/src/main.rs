//! The milestones and their peers side by side: what each costs, measured in one run.
//!
//! `cargo run --release -p bench` takes less than twenty minutes and writes what the book shows below `book/generated/`;
//! with `-- --quick` it takes about a minute, for the shape of the figures. Server and load have a core each, the servers
//! take turns, and every sample is kept. `--servers` and `--only` measure less, and write nothing.

mod bench;
mod charts;
mod command;
mod contender;
mod figures;
mod machine;
mod million;
mod pictures;
mod report;
mod scenarios;
mod server;
mod targets;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use plot::number;

use crate::bench::{Bench, Plan};
use crate::contender::workspace;
use crate::figures::{Results, ServerInfo};
use crate::machine::{Cores, Run};
use crate::scenarios::{build, held, instructions, load, memory, structures, traced, wrk};

/// Measures the milestones and their peers side by side
#[derive(Parser)]
#[command(name = "bench", version)]
struct Arguments {
    /// About a minute instead of less than twenty: the shape of the figures, not the figures
    #[arg(long)]
    quick: bool,

    /// Measure these servers only (m1 to m7, floor, mio, tokio, threads, libuv, libuv-try), and write nothing
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    servers: Vec<String>,

    /// Measure this only, and write nothing
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    only: Vec<What>,

    /// Write here all the same [default: book/generated, when everything is measured]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// A load average from which on the figures are those of whatever else is running.
const BUSY: f64 = 0.7;

/// Measures something, and keeps what was seen.
type Scenario = fn(&mut Bench);

/// What there is to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// CPU per message, messages per second, latency
    Load,
    /// The same beside more and more idle connections
    Idle,
    /// Connections held
    Held,
    /// Memory per idle connection
    Memory,
    /// System calls per message, wake-ups for a burst
    Calls,
    /// User-space instructions per message
    Instructions,
    /// m6's own structures, up to a million entries
    Structures,
    /// wrk against the finished server and the floor
    Wrk,
    /// A release build from nothing
    Build,
}

impl Arguments {
    /// The command that gives these figures, without where they are written.
    fn typed(&self) -> String {
        let what = |what: &What| {
            what.to_possible_value()
                .map_or(String::new(), |name| name.get_name().to_owned())
        };
        let mut typed = "cargo run --release -p bench".to_owned();
        let mut separator = " -- ";
        for (option, values) in [
            ("--quick", self.quick.then(String::new)),
            (
                "--servers ",
                (!self.servers.is_empty()).then(|| self.servers.join(",")),
            ),
            (
                "--only ",
                (!self.only.is_empty())
                    .then(|| self.only.iter().map(what).collect::<Vec<_>>().join(",")),
            ),
        ] {
            if let Some(values) = values {
                typed = format!("{typed}{separator}{option}{values}");
                separator = " ";
            }
        }
        typed
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let results = measure(arguments)?;
    print!("{}", report::markdown(&results));

    let everything = arguments.servers.is_empty() && arguments.only.is_empty();
    let folder = arguments
        .output
        .clone()
        .or_else(|| everything.then(|| workspace().join("book/generated")));
    match folder {
        Some(folder) => write(&results, &folder)
            .with_context(|| format!("cannot write to {}", folder.display())),
        None => Ok(()),
    }
}

fn measure(arguments: &Arguments) -> Result<Results> {
    let run = Run::describe(arguments.typed())?;
    if run.load_before > BUSY {
        eprintln!(
            "bench: this machine is busy (load average {:.1}): what depends on the clock will not be worth quoting",
            run.load_before
        );
    }
    let contenders = contender::build(&arguments.servers)?;
    let cores = Cores::get()?;
    let descriptors = machine::raise_descriptor_limit()?;
    let servers = contenders.iter().map(|contender| ServerInfo {
        name: contender.name.to_owned(),
        about: contender.about.clone(),
        kind: contender.kind,
        left_out: contender.program.as_ref().err().cloned(),
    });
    let results = Results::new(run, servers.collect());
    let plan = if arguments.quick {
        Plan::QUICK
    } else {
        Plan::FULL
    };
    let slow = plan.slow;

    let began = Instant::now();
    server::end_with_us()?;
    // Builds are done: from here on, this process and its threads are the load.
    cores.take_load_core()?;
    let mut bench = Bench::new(contenders, cores, descriptors, plan, results);
    let wanted = |what| match what {
        _ if !arguments.only.is_empty() => arguments.only.contains(&what),
        What::Instructions | What::Build => slow,
        _ => true,
    };
    let n = bench.contenders().len();
    let Plan {
        rounds,
        few_rounds,
        memory_rounds,
        wrk_rounds,
        ..
    } = bench.plan;
    // With the steps that each takes, for the progress bar.
    let scenarios: [(What, Scenario, usize); 9] = [
        (What::Calls, traced::run, n * (1 + few_rounds)),
        (What::Memory, memory::run, n * memory_rounds),
        (What::Held, held::run, n * 2),
        (What::Load, load::run, n * rounds * load::LOADS.len()),
        (What::Idle, load::run_beside_idle, n * few_rounds),
        (What::Instructions, instructions::run, n),
        (What::Structures, structures::run, 15 * few_rounds),
        (What::Wrk, wrk::run, 3 * wrk_rounds),
        (What::Build, build::run, 1),
    ];
    let scenarios: Vec<_> = scenarios
        .into_iter()
        .filter(|&(what, ..)| wanted(what))
        .collect();
    bench.expect(scenarios.iter().map(|scenario| scenario.2).sum());
    for (_, scenario, _) in scenarios {
        scenario(&mut bench);
    }

    let mut results = bench.finish();
    results.run.took_s = began.elapsed().as_secs_f64();
    results.targets = targets::judge(&results);
    Ok(results)
}

/// The files that the book shows. Nobody else writes them.
fn write(results: &Results, folder: &std::path::Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(
        folder.join("bench.json"),
        serde_json::to_string_pretty(results)? + "\n",
    )?;
    fs::write(folder.join("bench.md"), report::markdown(results))?;
    if let Some(page) = million::markdown(results) {
        fs::write(folder.join("million.md"), page)?;
    }
    for (name, picture) in pictures::draw(results) {
        fs::write(folder.join(name), picture)?;
    }
    eprintln!(
        "bench: wrote bench.json, bench.md, million.md and the plots to {}",
        folder.display()
    );
    Ok(())
}
