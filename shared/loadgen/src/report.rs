//! What a measurement came to, and how it is printed.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::units::{bytes, metric, time};

/// The result of a run. Everything that was counted was counted in the measured window, without the
/// connecting, the warm-up, and what was still under way at the end (which is verified all the same).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The server's address and port.
    pub target: String,
    /// What was asked for.
    pub load: Load,
    /// How opening the connections went.
    pub connecting: Connecting,
    /// Length of the measured window, in seconds.
    pub seconds: f64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// Messages that came back, every byte right.
    pub messages: u64,
    /// Bytes in these messages.
    pub bytes: u64,
    /// Messages a second, all threads together.
    pub messages_per_second: f64,
    /// Bytes a second that came back.
    pub bytes_per_second: f64,
    /// From sending a message (open loop: from when it was due) to its last byte; `None` when no
    /// message came back.
    pub latency: Option<Latency>,
    /// Messages a second of one thread, sampled ten times a second.
    pub thread_rate: Rate,
    /// Open loop: messages that were due and had not come back when the time was up.
    pub unanswered: u64,
    /// Failures by kind.
    pub errors: Errors,
    /// What became of the connections that never read.
    pub stalled: Stalled,
    /// What generating the load cost.
    pub client: ClientUse,
    /// What the server used; `None` when its process was not named or has ended.
    pub server: Option<ServerUse>,
    /// The first failure, a wrong byte before any other; `None` when all went well.
    pub failure: Option<Failure>,
}

/// A failure in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, on which connection, at which offset.
    pub what: String,
    /// What that usually means, or what to do.
    pub hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            what: error.to_string(),
            hint: error.hint(),
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Threads, each with its own epoll.
    pub threads: usize,
    /// Connections that send messages.
    pub connections: usize,
    /// Connections that stay silent.
    pub idle: usize,
    /// Connections that send and never read.
    pub stalled: usize,
    /// Bytes in a message.
    pub size: usize,
    /// Messages in flight on each connection (closed loop).
    pub depth: usize,
    /// Messages a second (open loop); `None` for a closed loop.
    pub rate: Option<f64>,
    /// Seconds of load before the measured window.
    pub warmup_seconds: f64,
}

/// How opening the connections went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connecting {
    /// Connections established, idle and stalled ones included.
    pub opened: usize,
    /// Seconds that took.
    pub seconds: f64,
}

/// Failures by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Connections that could not be opened.
    pub connect: u64,
    /// Connections that ended while the server should have answered: closed, or `recv` failed.
    pub read: u64,
    /// Connections on which `send` failed.
    pub write: u64,
    /// Messages that came back later than the timeout, or not at all.
    pub timeout: u64,
    /// Bytes that were not the ones sent; the first one ends the run.
    pub mismatch: u64,
}

impl Errors {
    /// Failures of all kinds together.
    pub fn total(&self) -> u64 {
        self.connect + self.read + self.write + self.timeout + self.mismatch
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.read += other.read;
        self.write += other.write;
        self.timeout += other.timeout;
        self.mismatch += other.mismatch;
    }
}

/// What became of the connections that never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    /// Bytes that they could send before nothing more went.
    pub bytes_sent: u64,
    /// How many the server closed; it may.
    pub closed: u64,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Mean.
    pub mean_us: f64,
    /// Standard deviation.
    pub stdev_us: f64,
    /// Share of the messages within one standard deviation of the mean, in percent.
    pub within_stdev_percent: f64,
    /// Half of the messages took no longer.
    pub p50_us: f64,
    /// 90 % took no longer.
    pub p90_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// 99.9 % took no longer.
    pub p999_us: f64,
    /// The slowest message.
    pub max_us: f64,
}

impl Latency {
    /// From a histogram of nanoseconds; `None` when it is empty.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let us = |ns: u64| ns as f64 / 1e3;
        let (mean, stdev) = (histogram.mean(), histogram.stdev());
        let within = histogram.count_between((mean - stdev).max(0.0) as u64, (mean + stdev) as u64);
        Some(Self {
            mean_us: mean / 1e3,
            stdev_us: stdev / 1e3,
            within_stdev_percent: 100.0 * within as f64 / histogram.len() as f64,
            p50_us: us(histogram.value_at_quantile(0.5)),
            p90_us: us(histogram.value_at_quantile(0.9)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            p999_us: us(histogram.value_at_quantile(0.999)),
            max_us: us(histogram.max()),
        })
    }
}

/// Messages a second of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Mean of the samples.
    pub mean: f64,
    /// Standard deviation.
    pub stdev: f64,
    /// Share of the samples within one standard deviation of the mean, in percent.
    pub within_stdev_percent: f64,
    /// The highest sample.
    pub max: f64,
}

impl Rate {
    pub(crate) fn of(samples: &[f64]) -> Self {
        if samples.is_empty() {
            return Self::default();
        }
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let stdev = (samples
            .iter()
            .map(|sample| (sample - mean).powi(2))
            .sum::<f64>()
            / n)
            .sqrt();
        let within = samples
            .iter()
            .filter(|&&sample| (sample - mean).abs() <= stdev)
            .count();
        Self {
            mean,
            stdev,
            within_stdev_percent: 100.0 * within as f64 / n,
            max: samples.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// What generating the load cost. Near 100 % of a processor per thread, the figures are those of the
/// load generator, not of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientUse {
    /// Processor time per message, in microseconds.
    pub cpu_us_per_message: f64,
    /// Processor time in percent of one processor.
    pub cpu_percent: f64,
}

/// What the server used in the measured window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerUse {
    /// Its process.
    pub pid: u32,
    /// Processor time per message, user and system, in microseconds.
    pub cpu_us_per_message: f64,
    /// Processor time in percent of one processor.
    pub cpu_percent: f64,
    /// Threads at the end of the window.
    pub threads: u64,
    /// Resident memory at the end, in bytes; `None` when it may not be read.
    pub resident_bytes: Option<u64>,
    /// The part of it that belongs to no file (heap, stacks).
    pub anonymous_bytes: Option<u64>,
}

/// The table that wrk prints, with messages where wrk has requests.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  Thread Stats   Avg      Stdev     Max   +/- Stdev")?;
        let latency = self.latency.as_ref();
        let of = |value: fn(&Latency) -> f64| latency.map_or(0.0, value);
        let (mean, stdev, max) = (of(|l| l.mean_us), of(|l| l.stdev_us), of(|l| l.max_us));
        row(
            f,
            "Latency",
            [mean, stdev, max].map(time),
            of(|l| l.within_stdev_percent),
        )?;
        let rate = &self.thread_rate;
        row(
            f,
            "Msg/Sec",
            [rate.mean, rate.stdev, rate.max].map(metric),
            rate.within_stdev_percent,
        )?;
        if let Some(latency) = latency {
            writeln!(f, "  Latency Distribution")?;
            let Latency {
                p50_us,
                p90_us,
                p99_us,
                p999_us,
                max_us,
                ..
            } = *latency;
            for (name, us) in [
                ("50%", p50_us),
                ("90%", p90_us),
                ("99%", p99_us),
                ("99.9%", p999_us),
                ("max", max_us),
            ] {
                writeln!(f, "  {name:>6} {}", column(&time(us), 9).trim_end())?;
            }
        }
        let (window, read) = (time(self.seconds * 1e6), bytes(self.bytes as f64));
        writeln!(f, "  {} messages in {window}, {read} read", self.messages)?;
        let Errors {
            connect,
            read,
            write,
            timeout,
            mismatch,
        } = self.errors;
        writeln!(
            f,
            "  Socket errors: connect {connect}, read {read}, write {write}, timeout {timeout}, mismatch {mismatch}"
        )?;
        if self.unanswered > 0 {
            writeln!(
                f,
                "  {} messages were due and not answered when the time was up",
                self.unanswered
            )?;
        }
        if self.load.stalled > 0 {
            let Stalled { bytes_sent, closed } = self.stalled;
            let sent = bytes(bytes_sent as f64);
            writeln!(
                f,
                "  Stalled clients: {sent} sent, none of it read; {closed} closed by the server"
            )?;
        }
        if let Some(server) = &self.server {
            let cpu = self.cost(server.cpu_us_per_message, server.cpu_percent);
            write!(
                f,
                "  Server: {cpu}, {} thread{}",
                server.threads,
                plural(server.threads as usize)
            )?;
            if let (Some(resident), Some(anonymous)) =
                (server.resident_bytes, server.anonymous_bytes)
            {
                write!(
                    f,
                    ", {} resident ({} anonymous)",
                    bytes(resident as f64),
                    bytes(anonymous as f64)
                )?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "  Loadgen: {}",
            self.cost(self.client.cpu_us_per_message, self.client.cpu_percent)
        )?;
        writeln!(f, "Messages/sec: {:>9.2}", self.messages_per_second)?;
        writeln!(f, "Transfer/sec: {:>11}", bytes(self.bytes_per_second))
    }
}

impl Report {
    /// `5.31us CPU per message, 98% of a processor`.
    fn cost(&self, us_per_message: f64, percent: f64) -> String {
        if self.messages == 0 {
            return format!("{percent:.0}% of a processor");
        }
        format!(
            "{} CPU per message, {percent:.0}% of a processor",
            time(us_per_message)
        )
    }
}

/// What is about to run, as wrk announces it.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            threads,
            connections,
            idle,
            stalled,
            size,
            depth,
            rate,
            ..
        } = *self;
        writeln!(
            f,
            "  {threads} thread{} and {connections} connection{}",
            plural(threads),
            plural(connections)
        )?;
        match rate {
            Some(rate) => writeln!(f, "  {size}-byte messages, {rate} a second (open loop)")?,
            None => writeln!(
                f,
                "  {size}-byte messages, {depth} in flight per connection"
            )?,
        }
        if idle + stalled > 0 {
            writeln!(
                f,
                "  beside them {idle} idle and {stalled} stalled connections"
            )?;
        }
        Ok(())
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    [mean, stdev, max]: [String; 3],
    within: f64,
) -> fmt::Result {
    let (mean, stdev, max) = (column(&mean, 8), column(&stdev, 10), column(&max, 9));
    writeln!(f, "    {name:<10}{mean}{stdev}{max}{within:>8.2}%")
}

/// `text` to the right of a column, but with its digits above the digits of its neighbours: the unit
/// takes two places, whether it has two letters, one or none.
fn column(text: &str, width: usize) -> String {
    let letters = text
        .chars()
        .rev()
        .take_while(char::is_ascii_alphabetic)
        .count();
    format!("{:>width$}", format!("{text}{}", &"  "[letters.min(2)..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut histogram = Histogram::new(3).unwrap();
        for us in 1..=1000_u64 {
            histogram.record(us * 1000).unwrap();
        }
        Report {
            target: "127.0.0.1:9000".into(),
            load: Load {
                threads: 4,
                connections: 1000,
                idle: 0,
                stalled: 0,
                size: 64,
                depth: 1,
                rate: None,
                warmup_seconds: 0.0,
            },
            connecting: Connecting {
                opened: 1000,
                seconds: 0.05,
            },
            seconds: 10.0,
            interrupted: false,
            messages: 1_000_000,
            bytes: 64_000_000,
            messages_per_second: 100_000.0,
            bytes_per_second: 6_400_000.0,
            latency: Latency::of(&histogram),
            thread_rate: Rate::of(&[20_000.0, 25_000.0, 30_000.0]),
            unanswered: 0,
            errors: Errors::default(),
            stalled: Stalled::default(),
            client: ClientUse {
                cpu_us_per_message: 6.0,
                cpu_percent: 60.0,
            },
            server: Some(ServerUse {
                pid: 1,
                cpu_us_per_message: 5.314,
                cpu_percent: 53.1,
                threads: 1,
                resident_bytes: Some(3 << 20),
                anonymous_bytes: Some(1 << 20),
            }),
            failure: None,
        }
    }

    #[test]
    fn prints_the_table_of_wrk() {
        let expected = "  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   500.50us  288.68us   1.00ms   57.80%
    Msg/Sec    25.00k     4.08k   30.00k    33.33%
  Latency Distribution
     50%  500.22us
     90%  900.10us
     99%  990.21us
   99.9%  999.42us
     max    1.00ms
  1000000 messages in 10.00s, 61.04MB read
  Socket errors: connect 0, read 0, write 0, timeout 0, mismatch 0
  Server: 5.31us CPU per message, 53% of a processor, 1 thread, 3.00MB resident (1.00MB anonymous)
  Loadgen: 6.00us CPU per message, 60% of a processor
Messages/sec: 100000.00
Transfer/sec:      6.10MB
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn announces_what_is_about_to_run() {
        let load = Load {
            idle: 5,
            rate: Some(50_000.0),
            threads: 1,
            ..report().load
        };
        let expected = "  1 thread and 1000 connections
  64-byte messages, 50000 a second (open loop)
  beside them 5 idle and 0 stalled connections
";
        assert_eq!(load.to_string(), expected);
    }

    #[test]
    fn survives_json_and_back() {
        let text = serde_json::to_string(&report()).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.to_string(), report().to_string());
    }

    #[test]
    fn of_nothing_there_is_no_latency() {
        assert_eq!(Latency::of(&Histogram::new(3).unwrap()), None);
        assert_eq!(Rate::of(&[]), Rate::default());
    }

    #[test]
    fn the_deviation_of_equal_samples_is_nothing() {
        let rate = Rate::of(&[5.0; 4]);
        assert_eq!(
            (rate.mean, rate.stdev, rate.within_stdev_percent, rate.max),
            (5.0, 0.0, 100.0, 5.0)
        );
    }
}
