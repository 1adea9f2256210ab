//! One thread of a measurement: its connections, its epoll, its histogram.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::connection::{Connection, Received, Trouble};
use crate::error::{Error, Fault, Result};
use crate::measure::Plan;
use crate::pace::Pace;
use crate::pattern;
use crate::report::{Errors, Stalled};

/// How often a thread's rate is sampled, and the longest that it sleeps.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// How much a stalled client sends before the others get their turn.
const STALLED_BUDGET: u64 = 64 * 1024;

/// The token of the timer; connections have their index.
const TIMER: u64 = u64::MAX;

/// Nanoseconds since the run began: what all threads measure with.
#[derive(Clone, Copy)]
pub(crate) struct Clock(pub(crate) Instant);

impl Clock {
    pub(crate) fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What the threads of a run tell one another.
pub(crate) struct Shared<'run> {
    /// Set from outside: end early, with what was measured.
    pub(crate) stop: &'run AtomicBool,
    /// Set by the first thread that sees a wrong byte: nothing else matters then.
    pub(crate) abort: AtomicBool,
    /// Messages so far, warm-up included, for the progress bar.
    pub(crate) messages: AtomicU64,
}

impl Shared<'_> {
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.abort.load(Ordering::Relaxed)
    }
}

/// What one thread has counted.
pub(crate) struct Tally {
    /// Latencies in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Messages that came back in the measured window.
    pub(crate) messages: u64,
    /// Messages a second, sampled.
    pub(crate) rates: Vec<f64>,
    /// Length of the measured window.
    pub(crate) seconds: f64,
    pub(crate) unanswered: u64,
    /// Connections that still waited for bytes when the thread gave up.
    pub(crate) waiting: usize,
    pub(crate) errors: Errors,
    pub(crate) stalled: Stalled,
    pub(crate) failure: Option<Error>,
}

/// A connection and how far its messages have come.
struct Client {
    connection: Connection,
    /// Where in its stream the oldest message that is on its way ends.
    message_end: u64,
    /// Messages answered; in a closed loop modulo the depth, which finds the oldest one's send time.
    answered: u64,
}

/// When messages are sent.
enum Schedule {
    /// When another one has come back. For each connection the times when its `depth` messages in
    /// flight were sent, the slot of an answered message serving the one that replaces it.
    Closed { sent_at: Vec<u64> },
    /// By the clock.
    Open {
        pace: Pace,
        timer: TimerFd,
        armed_for: u64,
    },
}

pub(crate) struct Worker<'run> {
    plan: &'run Plan,
    shared: &'run Shared<'run>,
    clock: Clock,
    epoll: Epoll,
    scratch: Vec<u8>,
    /// First the active ones, then the idle, then the stalled. `None` where one was lost.
    clients: Vec<Option<Client>>,
    active: usize,
    stalled_from: usize,
    /// Active ones that are not lost.
    live: usize,
    /// Closed loop: active ones that have sent their first messages.
    opened: usize,
    /// Stalled ones that could send more: no edge will say so.
    eager: Vec<usize>,
    schedule: Schedule,
    /// Open loop: connections with messages to send now. Kept for its memory.
    due: Vec<usize>,
    tally: Tally,
}

/// The sockets of one thread, with their numbers.
#[derive(Default)]
pub(crate) struct Sockets {
    pub(crate) active: Vec<(usize, OwnedFd)>,
    pub(crate) idle: Vec<(usize, OwnedFd)>,
    pub(crate) stalled: Vec<(usize, OwnedFd)>,
}

impl<'run> Worker<'run> {
    /// Thread number `thread`'s share of the run. Of the rate it gets what its part of all `connected`
    /// active connections is.
    pub(crate) fn new(
        plan: &'run Plan,
        shared: &'run Shared<'run>,
        thread: usize,
        sockets: Sockets,
        connected: usize,
    ) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("epoll_create1", errno))?;
        let active = sockets.active.len();
        let stalled_from = active + sockets.idle.len();
        let all = sockets
            .active
            .into_iter()
            .chain(sockets.idle)
            .chain(sockets.stalled);
        let interest = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        let mut clients = Vec::new();
        for (index, (number, socket)) in all.enumerate() {
            let event = EpollEvent::new(interest, index as u64);
            epoll
                .add(&socket, event)
                .map_err(|errno| Error::system("epoll_ctl", errno))?;
            let message_end = if index < active {
                plan.size as u64
            } else {
                u64::MAX
            };
            clients.push(Some(Client {
                connection: Connection::new(number, socket),
                message_end,
                answered: 0,
            }));
        }

        let schedule = match plan.rate {
            None => Schedule::Closed {
                sent_at: vec![0; active * plan.depth],
            },
            Some(rate) => {
                // epoll_wait counts in milliseconds, and the kernel adds 50 us to them; a timerfd
                // does neither.
                let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
                let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
                    .map_err(|errno| Error::system("timerfd_create", errno))?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER);
                epoll
                    .add(&timer, event)
                    .map_err(|errno| Error::system("epoll_ctl", errno))?;
                let share = rate * active as f64 / connected.max(1) as f64;
                // The threads send in turn, not all at the same moment.
                let begin = (thread as f64 * 1e9 / rate) as u64;
                Schedule::Open {
                    pace: Pace::new(begin, share, active),
                    timer,
                    armed_for: 0,
                }
            }
        };
        // Three digits from 1 ns to 10 min.
        let latencies = Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds that fit");
        Ok(Self {
            plan,
            shared,
            clock: Clock(Instant::now()),
            epoll,
            scratch: vec![0; pattern::WINDOW],
            eager: (stalled_from..clients.len()).collect(),
            clients,
            active,
            stalled_from,
            live: active,
            opened: 0,
            schedule,
            due: Vec::new(),
            tally: Tally {
                latencies,
                messages: 0,
                rates: Vec::new(),
                seconds: 0.0,
                unanswered: 0,
                waiting: 0,
                errors: Errors::default(),
                stalled: Stalled::default(),
                failure: None,
            },
        })
    }

    /// Runs from time 0 of `clock`: the warm-up, the measured window, then until everything that is
    /// under way has come back.
    pub(crate) fn run(mut self, clock: Clock) -> Tally {
        self.clock = clock;
        if let Err(error) = self.load().and_then(|ended| self.settle(ended)) {
            self.tally.failure.get_or_insert(error);
            self.shared.abort.store(true, Ordering::Relaxed);
        }
        let stalled = self.clients[self.stalled_from..].iter().flatten();
        self.tally.stalled.bytes_sent += stalled.map(|client| client.connection.sent).sum::<u64>();
        self.tally
    }

    /// The warm-up and the measured window; when they ended.
    fn load(&mut self) -> Result<u64> {
        let begin = self.plan.warmup.as_nanos() as u64;
        let end = begin + self.plan.duration.as_nanos() as u64;
        let step = SAMPLE_EVERY.as_nanos() as u64;
        let mut events = [EpollEvent::empty(); 1024];
        let mut window = self.plan.warmup.is_zero().then_some(0);
        let (mut sampled_at, mut sampled) = (0, 0);

        let ended = loop {
            let now = self.clock.now();
            if now >= end || self.shared.is_over() || (self.active > 0 && self.live == 0) {
                break now.min(end);
            }
            let window_begins = window.is_none() && now >= begin;
            if window_begins || now >= sampled_at + step {
                let messages = self.tally.messages - sampled;
                self.shared.messages.fetch_add(messages, Ordering::Relaxed);
                if window.is_some() {
                    self.tally
                        .rates
                        .push(messages as f64 * 1e9 / (now - sampled_at) as f64);
                }
                (sampled_at, sampled) = (now, self.tally.messages);
            }
            if window_begins {
                window = Some(now);
                self.tally.latencies.reset();
                (self.tally.messages, sampled) = (0, 0);
            }

            self.open_the_loop();
            self.release(now);
            self.push_stalled();
            let mark = if window.is_some() { end } else { begin };
            let ready = self.wait(&mut events, mark.min(now + step))?;
            for event in &events[..ready] {
                self.on_event(event.data(), event.events());
            }
        };
        match window {
            Some(window) => self.tally.seconds = (ended - window) as f64 / 1e9,
            // Ended in the warm-up, which does not count.
            None => {
                self.tally.latencies.reset();
                self.tally.messages = 0;
            }
        }
        Ok(ended)
    }

    /// Closed loop: sends the first messages of some more connections. Of all of them at once, the
    /// first answers would wait here for the last message to leave.
    fn open_the_loop(&mut self) {
        const AT_ONCE: usize = 64;
        let Schedule::Closed { sent_at } = &mut self.schedule else {
            return;
        };
        if self.opened == self.active {
            return;
        }
        let now = self.clock.now();
        let some = self.opened..self.active.min(self.opened + AT_ONCE);
        sent_at[some.start * self.plan.depth..some.end * self.plan.depth].fill(now);
        self.opened = some.end;
        let bytes = (self.plan.depth * self.plan.size) as u64;
        for index in some {
            self.ask(index, bytes);
        }
    }

    /// Open loop: sends what is due at `now`.
    fn release(&mut self, now: u64) {
        /// What comes back must not wait for a backlog to be sent.
        const AT_ONCE: usize = 4096;
        let Schedule::Open { pace, .. } = &mut self.schedule else {
            return;
        };
        if self.active == 0 {
            return;
        }
        for _ in 0..AT_ONCE {
            let Some(index) = pace.release(now) else {
                break;
            };
            let Some(client) = &mut self.clients[index] else {
                continue;
            };
            // Several messages due on one connection leave in one call. And where some wait already,
            // the kernel takes no more: an edge will say when it does.
            if client.connection.goal == client.connection.sent {
                self.due.push(index);
            }
            client.connection.goal += self.plan.size as u64;
        }
        for at in 0..self.due.len() {
            self.ask(self.due[at], 0);
        }
        self.due.clear();
    }

    /// Lets connection `index` send `bytes` more, and what it may send already.
    fn ask(&mut self, index: usize, bytes: u64) {
        let Some(client) = &mut self.clients[index] else {
            return;
        };
        client.connection.goal += bytes;
        if let Err(trouble) = client.connection.send() {
            self.lose(index, trouble);
        }
    }

    /// Lets the stalled clients send on, a bounded piece each.
    fn push_stalled(&mut self) {
        for index in std::mem::take(&mut self.eager) {
            let Some(client) = &mut self.clients[index] else {
                continue;
            };
            let connection = &mut client.connection;
            connection.goal = connection.sent + STALLED_BUDGET;
            match connection.send() {
                // Stuck: an edge will say when there is room again.
                Ok(()) if connection.sent < connection.goal => {}
                Ok(()) => self.eager.push(index),
                Err(_) => self.lose_stalled(index),
            }
        }
    }

    /// Waits for events until time `until` at the latest, and no longer than until the next message is
    /// due; their number.
    fn wait(&mut self, events: &mut [EpollEvent], until: u64) -> Result<usize> {
        let now = self.clock.now();
        let mut sleep = Duration::from_nanos(until.saturating_sub(now));
        if let Schedule::Open {
            pace,
            timer,
            armed_for,
        } = &mut self.schedule
            && self.active > 0
        {
            let due = pace.next();
            if due <= now {
                sleep = Duration::ZERO;
            } else if *armed_for != due {
                let left = TimeSpec::from_duration(Duration::from_nanos(due - now));
                timer
                    .set(Expiration::OneShot(left), TimerSetTimeFlags::empty())
                    .map_err(|errno| Error::system("timerfd_settime", errno))?;
                *armed_for = due;
            }
        }
        let closed = matches!(self.schedule, Schedule::Closed { .. });
        if !self.eager.is_empty() || (closed && self.opened < self.active) {
            sleep = Duration::ZERO;
        }
        // Rounded up, or the last millisecond would be spent in a loop.
        let ms = sleep
            .as_nanos()
            .div_ceil(1_000_000)
            .min(SAMPLE_EVERY.as_millis()) as u8;
        match self.epoll.wait(events, EpollTimeout::from(ms)) {
            Ok(ready) => Ok(ready),
            Err(Errno::EINTR) => Ok(0),
            Err(errno) => Err(Error::system("epoll_wait", errno)),
        }
    }

    fn on_event(&mut self, token: u64, events: EpollFlags) {
        if token == TIMER {
            return;
        }
        let index = token as usize;
        if index >= self.stalled_from {
            self.on_stalled(index, events);
        } else if let Err(trouble) = self.exchange(index, events) {
            self.lose(index, trouble);
        }
    }

    /// Takes what came back on connection `index`, and sends what that allows.
    fn exchange(&mut self, index: usize, events: EpollFlags) -> std::result::Result<(), Trouble> {
        let Some(client) = &mut self.clients[index] else {
            return Ok(());
        };
        let ended = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if events.intersects(EpollFlags::EPOLLIN | ended) {
            let received = client
                .connection
                .receive(&mut self.scratch, events.intersects(ended))?;
            if client.connection.received >= client.message_end {
                // One look at the clock for all that came at once, and for what is sent in their place.
                let now = self.clock.now();
                while client.connection.received >= client.message_end {
                    let sent_at = match &mut self.schedule {
                        Schedule::Open { pace, .. } => {
                            client.answered += 1;
                            pace.due(index, client.answered - 1)
                        }
                        Schedule::Closed { sent_at } => {
                            let slot =
                                &mut sent_at[index * self.plan.depth + client.answered as usize];
                            client.answered += 1;
                            if client.answered == self.plan.depth as u64 {
                                client.answered = 0;
                            }
                            client.connection.goal += self.plan.size as u64;
                            std::mem::replace(slot, now)
                        }
                    };
                    client.message_end += self.plan.size as u64;
                    let latency = now.saturating_sub(sent_at);
                    self.tally.messages += 1;
                    self.tally.latencies.saturating_record(latency);
                    if latency > self.plan.timeout.as_nanos() as u64 {
                        self.tally.errors.timeout += 1;
                    }
                }
            }
            if received == Received::End {
                return Err(Trouble::Fault(Fault::Closed));
            }
        }
        client.connection.send()
    }

    /// Stalled clients only look at whether there is room to send, and whether they are thrown out.
    fn on_stalled(&mut self, index: usize, events: EpollFlags) {
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP) {
            self.lose_stalled(index);
        } else if events.contains(EpollFlags::EPOLLOUT) && !self.eager.contains(&index) {
            self.eager.push(index);
        }
    }

    /// A server may well close a connection that never reads.
    fn lose_stalled(&mut self, index: usize) {
        if let Some(client) = self.clients[index].take() {
            self.tally.stalled.closed += 1;
            self.tally.stalled.bytes_sent += client.connection.sent;
        }
    }

    /// Drops connection `index` and notes why.
    fn lose(&mut self, index: usize, trouble: Trouble) {
        let Some(client) = self.clients[index].take() else {
            return;
        };
        self.live -= usize::from(index < self.active);
        let error = client.connection.error(trouble);
        match error {
            Error::Mismatch(_) => {
                self.tally.errors.mismatch += 1;
                // It outranks whatever went wrong before.
                self.tally.failure = Some(error);
                self.shared.abort.store(true, Ordering::Relaxed);
                return;
            }
            Error::Broken {
                fault: Fault::Write(_),
                ..
            } => self.tally.errors.write += 1,
            _ => self.tally.errors.read += 1,
        }
        self.tally.failure.get_or_insert(error);
    }

    /// Sends no more since `ended`, and waits for what is under way: a byte that never comes back is an error even
    /// when it was the last one.
    fn settle(&mut self, ended: u64) -> Result<()> {
        let size = self.plan.size as u64;
        let mut waiting = 0;
        if let Schedule::Open { pace, .. } = &self.schedule
            && self.active > 0
        {
            self.tally.unanswered += pace.held_back(ended);
        }
        for client in self.clients[..self.active].iter_mut().flatten() {
            let connection = &mut client.connection;
            if self.plan.rate.is_some() {
                self.tally.unanswered += (connection.goal - connection.received).div_ceil(size);
            }
            connection.goal = connection.sent;
            // No message ends any more, so none is counted, and none is sent in its place.
            client.message_end = u64::MAX;
            waiting += usize::from(!connection.is_done());
        }

        let silence = self.plan.timeout.as_nanos() as u64;
        let mut heard = self.clock.now();
        let mut events = [EpollEvent::empty(); 1024];
        self.eager.clear();
        while waiting > 0 && !self.shared.abort.load(Ordering::Relaxed) {
            let now = self.clock.now();
            if now >= heard + silence {
                self.give_up(waiting);
                break;
            }
            let ready = self.epoll_only(&mut events)?;
            for event in &events[..ready] {
                let index = event.data() as usize;
                let Some(Some(client)) = self.clients[..self.active].get(index) else {
                    continue;
                };
                let (was_done, received) =
                    (client.connection.is_done(), client.connection.received);
                let ended = self.exchange(index, event.events());
                let Some(client) = &self.clients[index] else {
                    continue;
                };
                if client.connection.received > received {
                    heard = now;
                }
                if was_done {
                    // Ours is all here: how the server closes is its own affair.
                    continue;
                }
                if client.connection.is_done() {
                    waiting -= 1;
                } else if let Err(trouble) = ended {
                    waiting -= 1;
                    self.lose(index, trouble);
                }
            }
        }
        Ok(())
    }

    fn epoll_only(&self, events: &mut [EpollEvent]) -> Result<usize> {
        match self
            .epoll
            .wait(events, EpollTimeout::from(SAMPLE_EVERY.as_millis() as u8))
        {
            Ok(ready) => Ok(ready),
            Err(Errno::EINTR) => Ok(0),
            Err(errno) => Err(Error::system("epoll_wait", errno)),
        }
    }

    /// Counts what never came back.
    fn give_up(&mut self, waiting: usize) {
        self.tally.waiting = waiting;
        let size = self.plan.size as u64;
        for client in self.clients[..self.active].iter().flatten() {
            let connection = &client.connection;
            if connection.is_done() {
                continue;
            }
            self.tally.errors.timeout += (connection.sent - connection.received).div_ceil(size);
            self.tally.failure.get_or_insert(Error::Timeout {
                connection: connection.number(),
                local: connection.local(),
                sent: connection.sent,
                received: connection.received,
                waiting,
                of: self.active,
                after: self.plan.timeout,
            });
        }
    }
}
