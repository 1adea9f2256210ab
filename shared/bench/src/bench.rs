//! What all scenarios share: who takes part, how long to measure, and where to put what was seen.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::contender::{Contender, Limits};
use crate::figures::{Figure, Measure, Results};
use crate::machine::Cores;

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds of what depends on the clock: A B C …, A B C ….
    pub rounds: usize,
    /// Rounds of what takes longer, and of memory, which hardly varies.
    pub few_rounds: usize,
    pub memory_rounds: usize,
    /// Load before the measured window, and the window itself.
    pub warm_up: Duration,
    pub window: Duration,
    /// Idle connections beside the active ones, from none to as many as the descriptor limit allows.
    pub idle: &'static [u64],
    /// Whether to do what takes long for what it shows: to fill a server that scans its sockets, to hold as many
    /// connections as a raised limit allows, to count instructions, to time a build from nothing.
    pub slow: bool,
    /// Rounds of wrk, and the length of each.
    pub wrk_rounds: usize,
    pub wrk_time: Duration,
}

impl Plan {
    /// About a minute: the shape of the figures.
    pub const QUICK: Self = Self {
        rounds: 1,
        few_rounds: 1,
        memory_rounds: 1,
        warm_up: Duration::from_millis(100),
        window: Duration::from_millis(250),
        idle: &[0, 2_000, 10_000],
        slow: false,
        wrk_rounds: 1,
        wrk_time: Duration::from_secs(2),
    };

    /// Less than twenty minutes: the figures that the book quotes.
    pub const FULL: Self = Self {
        rounds: 5,
        few_rounds: 3,
        memory_rounds: 2,
        warm_up: Duration::from_millis(150),
        window: Duration::from_millis(600),
        idle: &[0, 2_000, 8_000, 18_000],
        slow: true,
        wrk_rounds: 5,
        wrk_time: Duration::from_secs(10),
    };
}

/// One run of the bench.
pub struct Bench {
    /// Where server and load run.
    pub cores: Cores,
    /// How many descriptors one process can have: the server one, and this one.
    pub descriptors: u64,
    /// How much to measure.
    pub plan: Plan,
    /// What was seen so far.
    pub results: Results,
    contenders: Vec<Contender>,
    progress: ProgressBar,
}

impl Bench {
    /// Measures `contenders` as `plan` says; those that could not be built are left out.
    pub fn new(
        contenders: Vec<Contender>,
        cores: Cores,
        descriptors: u64,
        plan: Plan,
        results: Results,
    ) -> Self {
        // Hidden by itself where standard error is no terminal.
        let progress = ProgressBar::no_length();
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {percent:>3} % {msg}");
        progress.set_style(style.expect("the template is right"));
        let contenders = contenders
            .into_iter()
            .filter(|contender| contender.program.is_ok())
            .collect();
        Self {
            cores,
            descriptors,
            plan,
            results,
            contenders,
            progress,
        }
    }

    /// Those who take part, in the order of the tables.
    pub fn contenders(&self) -> Vec<Contender> {
        self.contenders.clone()
    }

    /// How many steps there will be.
    pub fn expect(&self, steps: usize) {
        self.progress.set_length(steps as u64);
    }

    /// Says what is measured now.
    pub fn step(&self, contender: &Contender, what: &str) {
        self.progress.inc(1);
        self.progress
            .set_message(format!("{}: {what}", contender.name));
    }

    /// All is measured.
    pub fn finish(self) -> Results {
        self.progress.finish_and_clear();
        self.results
    }

    /// Whether an earlier round has shown that `contender` cannot do this.
    pub fn has_failed(&self, measure: Measure, scenario: &str, contender: &Contender) -> bool {
        self.results
            .get(measure, scenario, contender.name)
            .is_some_and(|figure| figure.missing.is_some())
    }

    /// Keeps what was seen, or why nothing was. One that fails in one round has failed.
    pub fn record(
        &mut self,
        measure: Measure,
        scenario: &str,
        contender: &Contender,
        seen: Result<f64>,
    ) {
        match seen {
            _ if self.has_failed(measure, scenario, contender) => {}
            Ok(sample) => self.results.add(measure, scenario, contender.name, sample),
            Err(error) => {
                let reason = format!("{error:#}");
                self.say_once(contender, &reason);
                self.results
                    .miss(measure, scenario, contender.name, &reason);
            }
        }
    }

    /// What a contender is known to be unable to do is no news, and neither is what it has failed in before.
    fn say_once(&self, contender: &Contender, reason: &str) {
        let known = |figure: &Figure| {
            figure.server == contender.name && figure.missing.as_deref() == Some(reason)
        };
        if contender.limits == Limits::None && !self.results.figures.iter().any(known) {
            self.progress
                .suspend(|| eprintln!("bench: {}: {reason}", contender.name));
        }
    }
}
