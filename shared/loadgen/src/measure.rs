//! A measurement from beginning to end: connect, warm up, measure, settle, report.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::dial::{Options, dial};
use crate::error::{Error, Result};
use crate::limits;
use crate::process;
use crate::report::{
    ClientUse, Connecting, Errors, Failure, Latency, Load, Rate, Report, ServerUse, Stalled,
};
use crate::worker::{Clock, Shared, Sockets, Tally, Worker};

/// What to measure.
///
/// ```no_run
/// use std::sync::atomic::AtomicBool;
/// use std::time::Duration;
///
/// use loadgen::Plan;
///
/// let mut plan = Plan::new(([127, 0, 0, 1], 9000).into());
/// plan.connections = 1_000;
/// plan.duration = Duration::from_secs(5);
/// let report = loadgen::run(&plan, &AtomicBool::new(false), |_| ())?;
/// println!("{:.0} messages a second", report.messages_per_second);
/// # Ok::<(), loadgen::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// Threads, each with its own epoll. Default 1.
    pub threads: usize,
    /// Connections that send messages. Default 10.
    pub connections: usize,
    /// Connections that stay silent. Default 0.
    pub idle: usize,
    /// Connections that send and never read, with a small receive buffer. Default 0.
    pub stalled: usize,
    /// Bytes in a message. Default 64.
    pub size: usize,
    /// Messages in flight on each connection in a closed loop. Default 1.
    pub depth: usize,
    /// Messages a second, sent by the clock (open loop). Default: closed loop.
    pub rate: Option<f64>,
    /// Load before the measured window. Default none.
    pub warmup: Duration,
    /// Length of the measured window. Default 10 s.
    pub duration: Duration,
    /// A message that takes longer counts as a timeout; and so long may the server be silent at the
    /// end before what is under way counts as lost. Default 2 s.
    pub timeout: Duration,
    /// The server's process, to say what it used.
    pub server_pid: Option<u32>,
    /// How connections are opened.
    pub options: Options,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Connections are being opened.
    Connecting {
        /// Open already.
        open: usize,
        /// To be opened.
        of: usize,
    },
    /// The load is on.
    Running {
        /// Since it began, warm-up included.
        elapsed: Duration,
        /// Warm-up and measured window together.
        of: Duration,
        /// Messages that have come back.
        messages: u64,
    },
    /// The time is up, what is under way is being waited for.
    Settling,
}

impl Plan {
    /// wrk's own defaults, but one thread: on a small machine the server needs the other processor.
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            threads: 1,
            connections: 10,
            idle: 0,
            stalled: 0,
            size: 64,
            depth: 1,
            rate: None,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            server_pid: None,
            options: Options::default(),
        }
    }

    /// What is asked for, as the report repeats it.
    pub fn load(&self) -> Load {
        Load {
            threads: self.threads,
            connections: self.connections,
            idle: self.idle,
            stalled: self.stalled,
            size: self.size,
            depth: self.depth,
            rate: self.rate,
            warmup_seconds: self.warmup.as_secs_f64(),
        }
    }

    /// Says what cannot be done as asked.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`], for the user to read.
    pub fn check(&self) -> Result<()> {
        /// Keeps the send times of all messages in flight below 1 GB.
        const IN_FLIGHT: usize = 100_000_000;
        const LARGEST: usize = 1 << 30;
        let all = self
            .connections
            .saturating_add(self.idle)
            .saturating_add(self.stalled);
        let reason = if self.threads == 0 {
            "at least one thread is needed"
        } else if all == 0 {
            "at least one connection is needed"
        } else if self.connections > 0 && self.connections < self.threads {
            "there must be at least as many connections as threads"
        } else if !(1..=LARGEST).contains(&self.size) {
            "a message has from 1 byte to 1G"
        } else if self.depth == 0 {
            "at least one message must be in flight"
        } else if self.depth > 1 && self.connections.saturating_mul(self.depth) > IN_FLIGHT {
            "connections times depth must not exceed 100,000,000"
        } else if self.duration.is_zero() {
            "the duration must be longer than nothing"
        } else if self.timeout.is_zero() {
            "the timeout must be longer than nothing"
        } else if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
            "the rate must be from 1 to 1,000,000,000 messages a second"
        } else if self.rate.is_some() && self.connections == 0 {
            "a rate needs connections to send on"
        } else {
            return Ok(());
        };
        Err(Error::Plan(reason.into()))
    }
}

/// Measures. Calls `observe` some twenty times a second; ends early, with what was measured, soon
/// after `stop` is set.
///
/// What goes wrong once the load is on is in the report: counted by kind, and the first failure in
/// words.
///
/// # Errors
///
/// What prevents the measurement: an impossible plan, too low a descriptor limit, nothing listening,
/// or `stop` before all connections were open.
pub fn run(plan: &Plan, stop: &AtomicBool, mut observe: impl FnMut(Progress)) -> Result<Report> {
    plan.check()?;
    if let Some(pid) = plan.server_pid {
        process::usage(pid).map_err(|_| Error::NoServerProcess { pid })?;
    }

    let connected = connect(plan, stop, &mut observe)?;
    let mut errors = Errors {
        connect: connected.missing as u64,
        ..Errors::default()
    };

    let shared = Shared {
        stop,
        abort: AtomicBool::new(false),
        messages: AtomicU64::new(0),
    };
    let mut workers = Vec::with_capacity(plan.threads);
    for (thread, sockets) in connected.shares.into_iter().enumerate() {
        workers.push(Worker::new(
            plan,
            &shared,
            thread,
            sockets,
            connected.active,
        )?);
    }

    let clock = Clock(Instant::now());
    let (tallies, usage) = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| scope.spawn(move || worker.run(clock)))
            .collect();
        let all_ended = || threads.iter().all(thread::ScopedJoinHandle::is_finished);
        let usage = watch(plan, &shared, clock, all_ended, &mut observe);
        let join = |thread: thread::ScopedJoinHandle<'_, Tally>| {
            thread.join().expect("a worker does not panic")
        };
        (threads.into_iter().map(join).collect::<Vec<_>>(), usage)
    });

    let mut latencies =
        Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3).expect("bounds that fit");
    let (mut messages, mut unanswered, mut seconds) = (0, 0, 0.0_f64);
    let mut rates = Vec::new();
    let mut stalled = Stalled::default();
    for tally in &tallies {
        latencies
            .add(&tally.latencies)
            .expect("histograms of equal bounds");
        messages += tally.messages;
        unanswered += tally.unanswered;
        seconds = seconds.max(tally.seconds);
        rates.extend_from_slice(&tally.rates);
        stalled.bytes_sent += tally.stalled.bytes_sent;
        stalled.closed += tally.stalled.closed;
        errors.add(&tally.errors);
    }
    let failures = || tallies.iter().filter_map(|tally| tally.failure.as_ref());
    let wrong_byte = failures().find(|error| matches!(error, Error::Mismatch(_)));
    let first = wrong_byte
        .or(connected.failure.as_ref())
        .or_else(|| failures().next());
    let mut failure = first.cloned();
    if let Some(Error::Timeout { waiting, of, .. }) = &mut failure {
        // A thread knows only its own connections.
        *waiting = tallies.iter().map(|tally| tally.waiting).sum();
        *of = connected.active;
    }

    let bytes = messages * plan.size as u64;
    let per_second = |count: u64| {
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    };
    Ok(Report {
        target: plan.target.to_string(),
        load: plan.load(),
        connecting: connected.connecting,
        seconds,
        interrupted: stop.load(Ordering::Relaxed),
        messages,
        bytes,
        messages_per_second: per_second(messages),
        bytes_per_second: per_second(bytes),
        latency: Latency::of(&latencies),
        thread_rate: Rate::of(&rates),
        unanswered,
        errors,
        stalled,
        client: usage.client(messages),
        server: usage.server(plan.server_pid, messages),
        failure: failure.as_ref().map(Failure::from),
    })
}

/// The connections, dealt out to the threads.
struct Connected {
    shares: Vec<Sockets>,
    active: usize,
    missing: usize,
    failure: Option<Error>,
    connecting: Connecting,
}

fn connect(
    plan: &Plan,
    stop: &AtomicBool,
    observe: &mut impl FnMut(Progress),
) -> Result<Connected> {
    let of = plan.connections + plan.idle + plan.stalled;
    // An epoll and perhaps a timer for each thread.
    limits::make_room_for(of, 2 * plan.threads)?;
    let began = Instant::now();
    let mut shares: Vec<Sockets> = Vec::new();
    shares.resize_with(plan.threads, Sockets::default);
    let mut opened = 0;
    let mut active = 0;
    let mut failure = None;

    let stalled_options = Options {
        receive_buffer: Some(4096),
        ..plan.options.clone()
    };
    type Place = fn(&mut Sockets) -> &mut Vec<(usize, std::os::fd::OwnedFd)>;
    let groups: [(usize, &Options, Place); 3] = [
        (plan.connections, &plan.options, |share| &mut share.active),
        (plan.idle, &plan.options, |share| &mut share.idle),
        (plan.stalled, &stalled_options, |share| &mut share.stalled),
    ];
    let mut first = plan.options.first;
    for (group, (n, options, place)) in groups.into_iter().enumerate() {
        let options = Options {
            first,
            ..options.clone()
        };
        let dialed = dial(plan.target, n, &options, |open| {
            observe(Progress::Connecting {
                open: opened + open,
                of,
            });
            !stop.load(Ordering::Relaxed)
        })?;
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        match dialed.failure {
            Some(error @ Error::Refused { .. }) => return Err(error),
            Some(error) if dialed.sockets.is_empty() => return Err(error),
            Some(error) => drop(failure.get_or_insert(error)),
            None => {}
        }
        opened += dialed.sockets.len();
        for (index, socket) in dialed.sockets.into_iter().enumerate() {
            place(&mut shares[index % plan.threads]).push(socket);
        }
        if group == 0 {
            active = opened;
        }
        first += n;
    }
    let connecting = Connecting {
        opened,
        seconds: began.elapsed().as_secs_f64(),
    };
    Ok(Connected {
        shares,
        active,
        missing: of - opened,
        failure,
        connecting,
    })
}

/// What both sides had used at one moment.
#[derive(Clone, Copy)]
struct Snapshot {
    at: Instant,
    client: Duration,
    server: Option<process::Usage>,
}

/// What both sides had used when the measured window began and when it ended.
struct Usage {
    begin: Option<Snapshot>,
    end: Snapshot,
    memory: Option<process::Memory>,
}

/// Follows the run from outside until its threads end, or begin to settle.
fn watch(
    plan: &Plan,
    shared: &Shared<'_>,
    clock: Clock,
    all_ended: impl Fn() -> bool,
    observe: &mut impl FnMut(Progress),
) -> Usage {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let of = plan.warmup + plan.duration;
    let mut begin = None;
    loop {
        let elapsed = Duration::from_nanos(clock.now());
        if begin.is_none() && elapsed >= plan.warmup {
            begin = Some(snapshot(plan.server_pid));
        }
        if elapsed >= of || shared.is_over() || all_ended() {
            break;
        }
        observe(Progress::Running {
            elapsed,
            of,
            messages: shared.messages.load(Ordering::Relaxed),
        });
        let mark = if begin.is_some() { of } else { plan.warmup };
        thread::sleep((mark - elapsed).min(LOOK_EVERY));
    }
    let usage = Usage {
        begin,
        end: snapshot(plan.server_pid),
        memory: plan.server_pid.and_then(|pid| process::memory(pid).ok()),
    };
    observe(Progress::Settling);
    usage
}

fn snapshot(server_pid: Option<u32>) -> Snapshot {
    let own = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
    });
    Snapshot {
        at: Instant::now(),
        client: Duration::from_micros(own as u64),
        server: server_pid.and_then(|pid| process::usage(pid).ok()),
    }
}

impl Usage {
    fn client(&self, messages: u64) -> ClientUse {
        let Some(begin) = self.begin else {
            return ClientUse::default();
        };
        let (cpu_us_per_message, cpu_percent) =
            self.cost(begin, self.end.client - begin.client, messages);
        ClientUse {
            cpu_us_per_message,
            cpu_percent,
        }
    }

    fn server(&self, pid: Option<u32>, messages: u64) -> Option<ServerUse> {
        let begin = self.begin?;
        let (before, after) = (begin.server?, self.end.server?);
        let (cpu_us_per_message, cpu_percent) =
            self.cost(begin, after.cpu.saturating_sub(before.cpu), messages);
        Some(ServerUse {
            pid: pid?,
            cpu_us_per_message,
            cpu_percent,
            threads: after.threads,
            resident_bytes: self.memory.map(|memory| memory.resident),
            anonymous_bytes: self.memory.map(|memory| memory.anonymous),
        })
    }

    /// Microseconds per message, and percent of one processor.
    fn cost(&self, begin: Snapshot, cpu: Duration, messages: u64) -> (f64, f64) {
        let wall = (self.end.at - begin.at).as_secs_f64();
        let per_message = if messages > 0 {
            cpu.as_secs_f64() * 1e6 / messages as f64
        } else {
            0.0
        };
        let percent = if wall > 0.0 {
            100.0 * cpu.as_secs_f64() / wall
        } else {
            0.0
        };
        (per_message, percent)
    }
}
