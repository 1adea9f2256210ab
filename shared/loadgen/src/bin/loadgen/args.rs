//! The command line.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use loadgen::units::{parse_bytes, parse_count, parse_duration};
use loadgen::{Options, Plan};

use crate::output::Problem;

/// Measure an echo server: throughput, latency, and whether every byte comes back.
///
/// Each connection keeps messages in flight and sends the next when one comes back (closed loop); with
/// --rate, messages are sent by the clock, and a message's latency counts from the moment it was due.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXAMPLES)]
pub struct Args {
    /// The server
    #[arg(value_name = "HOST:PORT", value_parser = parse_target)]
    target: String,

    /// Threads, each with its own epoll
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = parse_usize)]
    threads: usize,

    /// Connections that send messages
    #[arg(short, long, value_name = "N", default_value = "10", value_parser = parse_usize)]
    pub connections: usize,

    /// How long to measure: 10s, 500ms, 2m [default: 10s; with --hold: until Ctrl-C]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Bytes in a message: 64, 4k, 1M
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = parse_size)]
    pub size: usize,

    /// Messages in flight on each connection
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_usize)]
    depth: usize,

    /// Messages a second, all connections together (open loop)
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "depth")]
    rate: Option<u64>,

    /// Load before the measured time
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    warmup: Duration,

    /// When a message counts as late, and what is under way at the end as lost
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    timeout: Duration,

    /// Silent connections beside the active ones
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_usize)]
    idle: usize,

    /// Connections that send and never read
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_usize)]
    stalled: usize,

    /// Open at most so many connections a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connect_rate: Option<u32>,

    /// Open the connections, let each echo once, and keep them
    #[arg(long, conflicts_with_all = ["threads", "depth", "rate", "warmup", "timeout", "idle", "stalled"])]
    pub hold: bool,

    /// Also say what this process uses: processor time per message, memory, threads
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,

    /// Write the result as JSON to a file, or with - to standard output in place of the table
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  loadgen -c 1000 127.0.0.1:9000                 1,000 clients, one message in flight on each
  loadgen -c 1000 --depth 16 127.0.0.1:9000      sixteen in flight on each
  loadgen -c 100 --rate 20k 127.0.0.1:9000       20,000 messages a second, by the clock
  loadgen -c 100 --idle 18000 127.0.0.1:9000     100 active clients beside 18,000 silent ones
  loadgen -c 10000 --hold 127.0.0.1:9000         open 10,000 connections and keep them

Exit code: 0 when every message came back right and in time, 1 when anything went wrong, 2 for a
wrong command line.";

/// Reads the command line; does not return when it is wrong (exit code 2) or asks for help.
pub fn parse() -> Args {
    let args = Args::parse();
    // Whether the numbers make sense together does not depend on the address.
    if let Err(error) = args.plan(SocketAddr::from(([127, 0, 0, 1], 1))).check() {
        Args::command()
            .error(ErrorKind::ValueValidation, error)
            .exit();
    }
    args
}

impl Args {
    /// What to measure at `target`.
    pub fn plan(&self, target: SocketAddr) -> Plan {
        let mut plan = Plan::new(target);
        plan.threads = self.threads;
        plan.connections = self.connections;
        plan.idle = self.idle;
        plan.stalled = self.stalled;
        plan.size = self.size;
        plan.depth = self.depth;
        plan.rate = self.rate.map(|rate| rate as f64);
        plan.warmup = self.warmup;
        plan.duration = self.duration.unwrap_or(plan.duration);
        plan.timeout = self.timeout;
        plan.server_pid = self.server_pid;
        plan.options = self.options();
        plan
    }

    /// How connections are opened.
    pub fn options(&self) -> Options {
        let mut options = Options {
            connect_rate: self.connect_rate,
            deadline: Duration::from_secs(10),
            ..Options::default()
        };
        if let Some(rate) = self.connect_rate {
            let all = self.connections + self.idle + self.stalled;
            options.deadline += Duration::from_secs_f64(all as f64 / f64::from(rate));
        }
        options
    }

    /// Whether standard output belongs to the JSON.
    pub fn json_to_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    /// The address to connect to.
    pub fn resolve(&self) -> Result<SocketAddr, Problem> {
        let resolved = self.target.to_socket_addrs();
        let addresses: Vec<_> = resolved
            .map_err(|error| {
                Problem::new(&format!("cannot resolve {}: {error}", self.target), None)
            })?
            .collect();
        match addresses[..] {
            [] => Err(Problem::new(
                &format!("{} has no address", self.target),
                None,
            )),
            [only] => Ok(only),
            // A name such as localhost means ::1 as well as 127.0.0.1: take the one where somebody
            // answers, and leave it to the run to explain when nobody does.
            [first, ..] => {
                let answers = |address: &&SocketAddr| {
                    TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok()
                };
                Ok(addresses.iter().find(answers).copied().unwrap_or(first))
            }
        }
    }
}

fn parse_target(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Err("give HOST:PORT, without http:// and without a path".into());
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("the port is missing: HOST:PORT".into());
    };
    if host.is_empty() {
        return Err("the host is missing: HOST:PORT".into());
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("an IPv6 address stands in brackets: [::1]:9000".into());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.into()),
        _ => Err("a port is a number from 1 to 65535".into()),
    }
}

fn parse_usize(text: &str) -> Result<usize, String> {
    let number = parse_count(text)?;
    // Far beyond any limit of the kernel, and small enough to be added up.
    if number > u64::from(u32::MAX) {
        return Err("the number is too large".into());
    }
    Ok(number as usize)
}

fn parse_size(text: &str) -> Result<usize, String> {
    parse_bytes(text).map(|bytes| bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn targets_are_a_host_and_a_port() {
        for good in ["127.0.0.1:9000", "localhost:1", "[::1]:65535"] {
            assert_eq!(parse_target(good).as_deref(), Ok(good));
        }
        for bad in [
            "9000",
            ":9000",
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "::1:9000",
            "http://localhost:9000/",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
