//! wrk, as people know it: against the finished server and against the floor, in turn.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::command::output_within;
use crate::contender::{Contender, workspace};
use crate::figures::Measure;
use crate::machine::Cores;
use crate::server::{Server, Setup};

/// The request is a complete HTTP response, so that wrk takes its echo for an answer.
pub const SCRIPT: &str = "echo script";
/// wrk's own request, for a server that answers HTTP.
pub const LITERAL: &str = "plain wrk";

/// Connections, more than which nothing is asked of wrk.
const THREADS_AND_CONNECTIONS: [&str; 2] = ["-t4", "-c1000"];

/// Who is measured in which way.
const ENTRANTS: [(&str, &str); 3] = [("floor", SCRIPT), ("m7", SCRIPT), ("m9", LITERAL)];

pub fn run(bench: &mut Bench) {
    let missing = Command::new("wrk")
        .arg("--version")
        .output()
        .is_err()
        .then_some("wrk is not installed");
    let contenders = bench.contenders();
    for _ in 0..bench.plan.wrk_rounds {
        for (name, scenario) in ENTRANTS {
            let Some(contender) = contenders.iter().find(|contender| contender.name == name) else {
                continue;
            };
            bench.step(contender, "wrk");
            let seen = match missing {
                Some(reason) => Err(anyhow::anyhow!(reason)),
                None => wrk(contender, &bench.cores, scenario, bench.plan.wrk_time),
            };
            let (requests, errors) = match seen {
                Ok((requests, errors)) => (Ok(requests), Ok(errors)),
                Err(error) => (Err(anyhow::anyhow!("{error:#}")), Err(error)),
            };
            bench.record(Measure::WrkRequests, scenario, contender, requests);
            bench.record(Measure::WrkErrors, scenario, contender, errors);
        }
    }
}

/// Requests per second, and errors. Nothing is pinned: that is how it is used.
fn wrk(contender: &Contender, cores: &Cores, scenario: &str, time: Duration) -> Result<(f64, f64)> {
    let server = Server::start(
        contender,
        cores,
        &Setup {
            all_cores: true,
            ..Setup::default()
        },
    )?;
    let mut wrk = Command::new("wrk");
    wrk.args(THREADS_AND_CONNECTIONS)
        .arg(format!("-d{}s", time.as_secs()));
    if scenario == SCRIPT {
        wrk.arg("-s")
            .arg(workspace().join("shared/loadgen/wrk-echo.lua"));
    }
    wrk.arg(format!("http://{}/", server.addr()));
    let output = cores.with_all(|| output_within(&mut wrk, time + Duration::from_secs(20)))??;
    let requests = output
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    let requests = requests
        .context("wrk printed no Requests/sec")?
        .trim()
        .parse()?;
    Ok((requests, errors(&output)))
}

/// What wrk counts as gone wrong, all kinds together; it prints nothing where that is 0.
fn errors(output: &str) -> f64 {
    let kinds = ["Socket errors:", "Non-2xx or 3xx responses:"];
    let lines = output
        .lines()
        .filter_map(|line| kinds.iter().find_map(|kind| line.trim().strip_prefix(kind)));
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_digit()));
    words.filter_map(|digits| digits.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::errors;

    #[test]
    fn all_errors_of_wrk_count() {
        let clean = "  Latency 9.00ms\nRequests/sec: 112152.01\n";
        assert_eq!(errors(clean), 0.0);
        let failed = "  Socket errors: connect 1, read 20, write 300, timeout 0\n  Non-2xx or 3xx responses: 4000\n";
        assert_eq!(errors(failed), 4321.0);
    }
}
