//! What an idle connection costs in memory: the server's own, and the kernel's.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use loadgen::Options;

use crate::bench::Bench;
use crate::contender::{Contender, Limits};
use crate::figures::Measure;
use crate::machine::{Cores, kibibytes};
use crate::scenarios::{at_once, gather};
use crate::server::{Server, Setup};

/// Enough for what a server takes once and for all not to matter.
pub const CONNECTIONS: usize = 10_000;

pub fn run(bench: &mut Bench) {
    for round in 0..bench.plan.memory_rounds {
        for contender in bench.contenders() {
            if contender.limits == Limits::Scans && round > 0 {
                // Filling it takes longer than all others together.
                continue;
            }
            bench.step(&contender, "memory per idle connection");
            let memory = match contender.limits {
                Limits::OneClient => Err(anyhow::anyhow!("serves one client at a time")),
                Limits::Scans | Limits::Threads if !bench.plan.slow => Err(anyhow::anyhow!(
                    "not tried by --quick: so many take it too long"
                )),
                _ => memory(&contender, &bench.cores),
            };
            let (user, kernel) = match memory {
                Ok((user, kernel)) => (Ok(user), Ok(kernel)),
                Err(error) => (Err(anyhow::anyhow!("{error:#}")), Err(error)),
            };
            bench.record(Measure::UserMemory, "", &contender, user);
            bench.record(Measure::KernelMemory, "", &contender, kernel);
        }
    }
}

/// Bytes per connection after each has echoed once: in the server's user space, and in the kernel for one end.
fn memory(contender: &Contender, cores: &Cores) -> Result<(f64, f64)> {
    // With its idle list, which m6 keeps only when it is to close idle connections.
    let arguments = if contender.has_idle_timeout {
        vec!["--idle-timeout".into(), "3600".into()]
    } else {
        vec![]
    };
    let mut server = Server::start(
        contender,
        cores,
        &Setup {
            arguments,
            ..Setup::default()
        },
    )?;
    let user_before = server.anonymous()?;
    let (slab_before, stacks_before) = (settled_slab()?, stacks_and_page_tables()?);
    let crowds = gather(
        &server,
        CONNECTIONS,
        at_once(contender),
        &Options::default(),
    );
    let crowds = crowds.map_err(|error| server.explain(error.into(), contender.name))?;
    let connections: f64 = crowds.iter().map(|crowd| crowd.len() as f64).sum();
    let user = server.anonymous()?.saturating_sub(user_before) as f64;
    // Both ends of a connection are on this machine, each with a socket, a descriptor and a place in an epoll; threads
    // are the server's alone.
    let sockets = slab()?.saturating_sub(slab_before) as f64 / 2.0;
    let threads = stacks_and_page_tables()?.saturating_sub(stacks_before) as f64;
    Ok((user / connections, (sockets + threads) / connections))
}

/// The kernel's own objects, in bytes.
fn slab() -> Result<u64> {
    memory_of_kernel("Slab")
}

/// What threads take in the kernel, and what mapping memory does, in bytes.
fn stacks_and_page_tables() -> Result<u64> {
    Ok(memory_of_kernel("KernelStack")? + memory_of_kernel("PageTables")?)
}

fn memory_of_kernel(what: &str) -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    kibibytes(&meminfo, what).with_context(|| format!("/proc/meminfo has no line {what}"))
}

/// Like [`slab`], once the kernel has freed what was closed before, which it does a little later.
fn settled_slab() -> Result<u64> {
    let deadline = Instant::now() + Duration::from_millis(1_500);
    let mut last = slab()?;
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = slab()?;
        if now.abs_diff(last) < 512 * 1024 || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}
