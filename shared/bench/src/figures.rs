//! What was measured, in the form in which `bench.json` keeps it.

use serde::{Deserialize, Serialize};

use crate::contender::Kind;
use crate::machine::Run;
use crate::targets::Target;

/// The whole of one run: every sample of it, not only the medians.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Where, when and how.
    pub run: Run,
    /// Who took part, in the order of the tables.
    pub servers: Vec<ServerInfo>,
    /// What was seen.
    pub figures: Vec<Figure>,
    /// What was asked for, beside what was seen.
    pub targets: Vec<Target>,
}

/// Somebody who took part, or should have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerInfo {
    /// What tables and plots call it.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// On which side it stands.
    pub kind: Kind,
    /// Why there are no figures of it at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// One measure of one server in one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub measure: Measure,
    /// Under which load or setting; empty where the measure has only one.
    pub scenario: String,
    /// Of which server.
    pub server: String,
    /// The unit of the samples.
    pub unit: String,
    /// One for each round. In two figures of the same measure and scenario, samples of the same round were taken
    /// one right after the other.
    pub samples: Vec<f64>,
    /// The middle one of the samples.
    pub median: Option<f64>,
    /// Why there are no samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Connections open at once on which an echo came back.
    ConnectionsHeld,
    /// (utime + stime of the server over the measured window) / messages echoed.
    CpuPerMessage,
    /// Messages echoed, per second.
    Throughput,
    /// The time below which 99 of 100 echoes came back.
    LatencyP99,
    /// Share of the window in which the server's process was running.
    ServerBusy,
    /// System calls of one message in lock-step, all kinds together.
    Syscalls,
    /// Of those, the ones that receive.
    Receives,
    /// Of those, the ones that send.
    Sends,
    /// Of those, the ones that wait for events.
    Waits,
    /// `epoll_ctl` calls while messages are echoed.
    EpollCtl,
    /// Waits that reported events until a burst was echoed.
    WakeUps,
    /// Instructions executed in user space, per message.
    Instructions,
    /// Growth of `Anonymous` per idle connection.
    UserMemory,
    /// Growth of the kernel's memory per idle connection, for the server's end.
    KernelMemory,
    /// What wrk prints as Requests/sec.
    WrkRequests,
    /// What wrk counts as socket errors, all kinds together, and answers that it does not take for a success.
    WrkErrors,
    /// One operation on one of m6's own structures.
    Operation,
    /// A release build of one milestone from nothing.
    BuildTime,
}

impl Measure {
    /// The unit of its samples.
    pub fn unit(self) -> &'static str {
        match self {
            Self::ConnectionsHeld => "connections",
            Self::CpuPerMessage => "µs/message",
            Self::Throughput => "messages/s",
            Self::LatencyP99 => "µs",
            Self::ServerBusy => "of one core",
            Self::Syscalls | Self::Receives | Self::Sends | Self::Waits | Self::EpollCtl => {
                "calls/message"
            }
            Self::WakeUps => "waits",
            Self::Instructions => "instructions/message",
            Self::UserMemory | Self::KernelMemory => "bytes/connection",
            Self::WrkRequests => "requests/s",
            Self::WrkErrors => "errors",
            Self::Operation => "ns/operation",
            Self::BuildTime => "s",
        }
    }
}

impl Results {
    /// Results without any figures yet.
    pub fn new(run: Run, servers: Vec<ServerInfo>) -> Self {
        Self {
            run,
            servers,
            figures: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Adds one sample to the figure it belongs to.
    pub fn add(&mut self, measure: Measure, scenario: &str, server: &str, sample: f64) {
        let figure = self.entry(measure, scenario, server);
        figure.samples.push(sample);
        figure.median = median(&figure.samples);
    }

    /// Says why there is no such figure. Samples of earlier rounds go: a median of the rounds that went well would
    /// hide the ones that did not.
    pub fn miss(&mut self, measure: Measure, scenario: &str, server: &str, reason: &str) {
        let figure = self.entry(measure, scenario, server);
        figure.samples.clear();
        figure.median = None;
        figure.missing = Some(reason.to_owned());
    }

    /// The figure, if it was tried.
    pub fn get(&self, measure: Measure, scenario: &str, server: &str) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|figure| figure.is(measure, scenario, server))
    }

    /// Whether it was tried at all.
    pub fn has(&self, measure: Measure) -> bool {
        self.figures.iter().any(|figure| figure.measure == measure)
    }

    /// Whether it was tried in this scenario, with any server.
    pub fn tried(&self, measure: Measure, scenario: &str) -> bool {
        self.figures
            .iter()
            .any(|figure| figure.measure == measure && figure.scenario == scenario)
    }

    /// The median, if there is one.
    pub fn median(&self, measure: Measure, scenario: &str, server: &str) -> Option<f64> {
        self.get(measure, scenario, server)?.median
    }

    /// One server's samples divided by another's, round by round.
    pub fn ratios(
        &self,
        measure: Measure,
        (ours, over): (&str, &str),
        (server, other): (&str, &str),
    ) -> Vec<f64> {
        let samples = |scenario, server| {
            self.get(measure, scenario, server)
                .map_or(&[][..], |figure| &figure.samples)
        };
        samples(ours, server)
            .iter()
            .zip(samples(over, other))
            .map(|(ours, theirs)| ours / theirs)
            .collect()
    }

    fn entry(&mut self, measure: Measure, scenario: &str, server: &str) -> &mut Figure {
        let place = self
            .figures
            .iter()
            .position(|figure| figure.is(measure, scenario, server));
        let place = place.unwrap_or_else(|| {
            self.figures.push(Figure {
                measure,
                scenario: scenario.to_owned(),
                server: server.to_owned(),
                unit: measure.unit().to_owned(),
                samples: Vec::new(),
                median: None,
                missing: None,
            });
            self.figures.len() - 1
        });
        &mut self.figures[place]
    }
}

impl Figure {
    fn is(&self, measure: Measure, scenario: &str, server: &str) -> bool {
        self.measure == measure && self.scenario == scenario && self.server == server
    }

    /// The smallest and the largest sample.
    pub fn spread(&self) -> Option<(f64, f64)> {
        let low = self.samples.iter().copied().reduce(f64::min)?;
        let high = self.samples.iter().copied().reduce(f64::max)?;
        Some((low, high))
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_one_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
