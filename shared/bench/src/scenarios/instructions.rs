//! How many instructions a server executes in user space per message, counted by callgrind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use loadgen::{Crowd, Options};

use crate::bench::Bench;
use crate::command::output_within;
use crate::contender::{Contender, Limits};
use crate::figures::Measure;
use crate::machine::Cores;
use crate::scenarios::SIZE;
use crate::server::{Server, Setup};

/// Messages on each connection before and while they are counted, one in flight.
const WARM_UP: usize = 20;
const COUNTED: usize = 50;

/// Connections, few first: a server keeps what it has once needed.
const CONNECTIONS: [(&str, usize); 2] = [("1", 1), ("100", 100)];

pub fn run(bench: &mut Bench) {
    let valgrind = Command::new("valgrind").arg("--version").output();
    let missing = valgrind.is_err().then_some("valgrind is not installed");
    for contender in bench.contenders() {
        bench.step(&contender, "instructions per message");
        let counts = match (missing, contender.limits) {
            (Some(reason), _) => Err(reason.to_owned()),
            (_, Limits::Scans) => Err("never waits: what it executes depends on time".to_owned()),
            _ => under_callgrind(&contender, &bench.cores).map_err(|error| format!("{error:#}")),
        };
        for (index, (scenario, connections)) in CONNECTIONS.into_iter().enumerate() {
            let count = match &counts {
                Ok(counts) => counts
                    .get(index)
                    .copied()
                    .with_context(|| "serves one client at a time"),
                Err(reason) => Err(anyhow::anyhow!("{reason}")),
            };
            bench.record(
                Measure::Instructions,
                scenario,
                &contender,
                count.map(|all| all / messages(connections)),
            );
        }
    }
}

fn messages(connections: usize) -> f64 {
    (connections * COUNTED) as f64
}

/// Instructions executed during the counted messages, for each number of connections in turn.
fn under_callgrind(contender: &Contender, cores: &Cores) -> Result<Vec<f64>> {
    let dumps = std::env::temp_dir().join(format!("bench-callgrind-{}", std::process::id()));
    fs::create_dir_all(&dumps)?;
    let counted = count(contender, cores, &dumps);
    fs::remove_dir_all(&dumps)?;
    counted
}

fn count(contender: &Contender, cores: &Cores, dumps: &Path) -> Result<Vec<f64>> {
    let out = format!("--callgrind-out-file={}", dumps.join("out").display());
    let under = ["valgrind", "--tool=callgrind", &out]
        .map(str::to_owned)
        .to_vec();
    let arguments = if contender.has_stats {
        vec!["--stats".into()]
    } else {
        vec![]
    };
    let mut server = Server::start(
        contender,
        cores,
        &Setup {
            under,
            arguments,
            ..Setup::default()
        },
    )?;
    let tried = match contender.limits {
        Limits::OneClient => &CONNECTIONS[..1],
        _ => &CONNECTIONS[..],
    };
    let counts = tried
        .iter()
        .map(|&(_, connections)| count_with(&server, connections, dumps));
    let counts: Result<Vec<f64>> = counts.collect();
    counts.map_err(|error| server.explain(error, contender.name))
}

fn count_with(server: &Server, connections: usize, dumps: &Path) -> Result<f64> {
    let monitor = |order: &str| {
        // vgdb tells the running valgrind what to do, and returns when it is done.
        let pid = format!("--pid={}", server.pid());
        let mut vgdb = Command::new("vgdb");
        vgdb.args([pid.as_str(), order]);
        output_within(&mut vgdb, Duration::from_secs(20)).map(drop)
    };
    let echo = |crowd: &mut Crowd, messages: usize| {
        (0..messages).try_for_each(|_| crowd.echo(SIZE).map(drop))
    };
    let mut crowd = Crowd::connect(server.addr(), connections, Options::default())?;
    echo(&mut crowd, WARM_UP)?;
    monitor("zero")?;
    echo(&mut crowd, COUNTED)?;
    monitor("dump")?;
    let total = total(dumps)?;
    Ok(total as f64)
}

/// What the dumps count, all threads together; they are removed.
fn total(dumps: &Path) -> Result<u64> {
    let mut total = None;
    for entry in fs::read_dir(dumps)? {
        let path = entry?.path();
        let dump = fs::read_to_string(&path)?;
        fs::remove_file(path)?;
        let line = dump.lines().find_map(|line| line.strip_prefix("totals: "));
        if let Some(line) = line {
            let count: u64 = line
                .trim()
                .parse()
                .context("callgrind's total is no number")?;
            *total.get_or_insert(0) += count;
        }
    }
    match total {
        Some(total) => Ok(total),
        None => bail!("callgrind wrote no total"),
    }
}
