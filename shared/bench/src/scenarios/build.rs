//! How long a reader waits for the first server: a release build of one milestone from nothing.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::Bench;
use crate::command::output_within;
use crate::contender::workspace;
use crate::figures::Measure;

pub fn run(bench: &mut Bench) {
    let Some(m7) = bench
        .contenders()
        .into_iter()
        .find(|contender| contender.name == "m7")
    else {
        return;
    };
    bench.step(&m7, "release build");
    let seconds = bench.cores.with_all(build).and_then(|built| built);
    bench.record(Measure::BuildTime, "", &m7, seconds);
}

/// Seconds, with what it depends on downloaded already.
fn build() -> Result<f64> {
    let target = std::env::temp_dir().join(format!("bench-build-{}", std::process::id()));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(workspace())
        .args([
            "build",
            "--release",
            "--package",
            "m7-stats",
            "--target-dir",
        ])
        .arg(&target);
    let began = Instant::now();
    let built = output_within(&mut build, Duration::from_secs(120));
    let took = began.elapsed();
    // A build that failed at once has made no folder.
    let _ = fs::remove_dir_all(&target);
    built?;
    Ok(took.as_secs_f64())
}
