//! What the finished server has to reach, beside what was seen.

use serde::{Deserialize, Serialize};

use crate::figures::{Measure, Results, median};
use crate::number::{figure, thousands};
use crate::scenarios::load::{HUNDRED, MOST_IDLE, THOUSAND, THOUSAND_DEEP};
use crate::scenarios::structures::{STRUCTURES, active};
use crate::scenarios::{held, load, wrk};

/// One promise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// What was promised.
    pub what: String,
    /// Of which server.
    pub server: String,
    /// The bound.
    pub target: String,
    /// What was seen, with its spread where it has one.
    pub seen: String,
    /// Whether that keeps the promise; `None` when it was not measured.
    pub met: Option<bool>,
}

/// The servers that have to reach them.
const FINISHED: [&str; 3] = ["m6", "m7", "m9"];

/// All targets, judged.
pub fn judge(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    for server in FINISHED
        .into_iter()
        .filter(|name| results.servers.iter().any(|server| server.name == *name))
    {
        let judge = Judge { results, server };
        targets.push(judge.connections());
        targets.push(judge.memory());
        for (scenario, title) in
            [HUNDRED, THOUSAND, THOUSAND_DEEP].map(|load| (load.name, load.title))
        {
            targets.push(judge.cpu("floor", scenario, title, 1.05));
        }
        for (scenario, title, most) in [
            (HUNDRED.name, HUNDRED.title, 1.0),
            (THOUSAND.name, THOUSAND.title, 1.0),
            (THOUSAND_DEEP.name, THOUSAND_DEEP.title, 0.9),
        ] {
            targets.push(judge.cpu("tokio", scenario, title, most));
        }
        for (scenario, title) in
            [HUNDRED, THOUSAND, THOUSAND_DEEP].map(|load| (load.name, load.title))
        {
            targets.push(judge.cpu("libuv", scenario, title, 0.6));
        }
        targets.push(judge.growth());
        targets.push(judge.syscalls());
        targets.push(judge.epoll_ctl());
        targets.push(judge.instructions());
        match server {
            "m7" => targets.push(judge.wrk(wrk::SCRIPT, 0.95)),
            "m9" => targets.push(judge.wrk(wrk::LITERAL, 0.85)),
            _ => {}
        }
    }
    if let Some(server) = results.servers.iter().find(|server| server.name == "m6") {
        let judge = Judge {
            results,
            server: &server.name,
        };
        targets.push(judge.million());
        targets.extend(STRUCTURES.iter().map(|structure| judge.flat(structure)));
    }
    let judge = Judge {
        results,
        server: "m7",
    };
    targets.push(judge.most(
        Measure::BuildTime,
        "",
        "a release build of one milestone from nothing",
        30.0,
        "s",
    ));
    targets
}

struct Judge<'a> {
    results: &'a Results,
    server: &'a str,
}

impl Judge<'_> {
    fn target(&self, what: &str, target: String, seen: Option<(String, bool)>) -> Target {
        let (seen, met) = match seen {
            Some((seen, met)) => (seen, Some(met)),
            None => ("not measured".to_owned(), None),
        };
        Target {
            what: what.to_owned(),
            server: self.server.to_owned(),
            target,
            seen,
            met,
        }
    }

    /// A median that must not be more than `most`.
    fn most(&self, measure: Measure, scenario: &str, what: &str, most: f64, unit: &str) -> Target {
        let seen = self.results.median(measure, scenario, self.server);
        let seen = seen.map(|seen| (format!("{} {unit}", figure(seen)), seen <= most));
        self.target(what, format!("≤ {} {unit}", figure_or_whole(most)), seen)
    }

    fn connections(&self) -> Target {
        // What the descriptor limit allows, less 64, and no target asks for more than 19,900.
        let least = self
            .results
            .run
            .machine
            .descriptors
            .saturating_sub(100)
            .min(19_900) as f64;
        let seen = self
            .results
            .median(Measure::ConnectionsHeld, held::USUAL, self.server);
        let seen = seen.map(|seen| (thousands(seen), seen >= least));
        let what = "connections held, started with a soft limit of 1,024";
        self.target(what, format!("≥ {}", thousands(least)), seen)
    }

    fn memory(&self) -> Target {
        self.most(
            Measure::UserMemory,
            "",
            "user-space memory per idle connection",
            64.0,
            "bytes",
        )
    }

    /// CPU per message, divided by a peer's in the same round.
    fn cpu(&self, peer: &str, scenario: &str, title: &str, most: f64) -> Target {
        let measure = Measure::CpuPerMessage;
        let ratios = self
            .results
            .ratios(measure, (scenario, scenario), (self.server, peer));
        self.ratio(
            &format!("CPU per message ÷ {peer}'s, {title}"),
            &ratios,
            most,
        )
    }

    fn growth(&self) -> Target {
        // Both from one server process. With fewer idle connections than promised, it is another measure.
        let (most, alone) = (load::beside(MOST_IDLE), load::beside(0));
        let ratios = self.results.ratios(
            Measure::CpuPerMessage,
            (&most, &alone),
            (self.server, self.server),
        );
        let what = format!(
            "CPU per message, 100 active beside {} idle ÷ alone",
            thousands(MOST_IDLE as f64)
        );
        self.ratio(&what, &ratios, 1.05)
    }

    fn ratio(&self, what: &str, ratios: &[f64], most: f64) -> Target {
        let seen = median(ratios)
            .map(as_printed)
            .map(|middle| (with_spread(middle, ratios), middle <= most));
        self.target(what, format!("≤ {most:.2}"), seen)
    }

    fn syscalls(&self) -> Target {
        let calls = |measure| self.results.median(measure, "", self.server);
        let seen = calls(Measure::Syscalls).zip(calls(Measure::Waits));
        let seen = seen.map(|(all, waits)| {
            let text = format!("{} + {} `epoll_wait`", figure(all - waits), figure(waits));
            (text, all - waits <= 2.0 && waits <= 1.0)
        });
        self.target(
            "system calls per message, in lock-step",
            "2 + `epoll_wait`".to_owned(),
            seen,
        )
    }

    fn epoll_ctl(&self) -> Target {
        let seen = self.results.median(Measure::EpollCtl, "", self.server);
        let seen = seen.map(|seen| (figure(seen), seen == 0.0));
        self.target(
            "`epoll_ctl` per message after a connection is registered",
            "0".to_owned(),
            seen,
        )
    }

    fn instructions(&self) -> Target {
        let what = "user-space instructions per message, 100 connections";
        self.most(Measure::Instructions, "100", what, 200.0, "")
    }

    fn wrk(&self, scenario: &str, least: f64) -> Target {
        let measure = Measure::WrkRequests;
        let ratios = self
            .results
            .ratios(measure, (scenario, wrk::SCRIPT), (self.server, "floor"));
        let errors = self.results.get(Measure::WrkErrors, scenario, self.server);
        let errors: f64 = errors.map_or(0.0, |figure| figure.samples.iter().sum());
        let requests = self
            .results
            .median(measure, scenario, self.server)
            .unwrap_or(0.0);
        let seen = median(&ratios).map(as_printed).map(|middle| {
            let spread = with_spread(middle, &ratios);
            let text = format!(
                "{spread}, {} errors, {} requests/s",
                thousands(errors),
                thousands(requests)
            );
            (text, middle >= least && errors == 0.0)
        });
        let what = format!("requests/s under {scenario} ÷ the floor's under the echo script");
        self.target(&what, format!("≥ {least:.2}, 0 errors"), seen)
    }

    fn million(&self) -> Target {
        let per_connection = |measure| self.results.median(measure, "", self.server);
        let seen = per_connection(Measure::UserMemory).zip(per_connection(Measure::KernelMemory));
        let seen = seen.map(|(user, kernel)| {
            let text = format!("{} MB and {:.1} GB", figure(user), kernel / 1e3);
            (text, user <= 100.0 && kernel <= 4_500.0)
        });
        let what = "1,000,000 connections, on paper: memory in user space and in the kernel";
        self.target(what, "≤ 100 MB and ≤ 4.5 GB".to_owned(), seen)
    }

    /// Cost per operation on an active one of a million entries, divided by that of a thousand.
    fn flat(&self, structure: &str) -> Target {
        let (most, least) = (active(structure, 1_000_000), active(structure, 1_000));
        let server = self.server;
        let ratios = self
            .results
            .ratios(Measure::Operation, (&most, &least), (server, server));
        self.ratio(
            &format!("{structure}: cost per operation, 1,000,000 entries ÷ 1,000"),
            &ratios,
            1.5,
        )
    }
}

/// To two digits: a ratio that is shown as 1.00 keeps a promise of 1.00.
fn as_printed(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}

fn with_spread(middle: f64, samples: &[f64]) -> String {
    let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let high = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if samples.len() > 1 {
        format!("{middle:.2} ({low:.2} to {high:.2})")
    } else {
        format!("{middle:.2}")
    }
}

fn figure_or_whole(value: f64) -> String {
    if value.fract() == 0.0 {
        thousands(value)
    } else {
        figure(value)
    }
}
