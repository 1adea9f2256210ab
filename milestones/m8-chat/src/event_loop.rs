//! The event loop: waits for readiness and lets each connection do what it can.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cli::{Failure, OrFail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::PROGRAM;
use crate::connection::{Connection, Readiness, Received, Shared};
use crate::connections::Connections;
use crate::drain::{self, Drain};
use crate::fan_out::FanOut;
use crate::idle::IdleList;
use crate::lines::LONGEST_LINE;
use crate::listener::{Listener, is_no_room};
use crate::room::{Action, Room};
use crate::signals::{Request, Signals};
use crate::stats::{Reporter, Ticker, write_if_ready};
use crate::token::Token;

/// Most events taken from the kernel by one wait.
const EVENTS_PER_WAIT: usize = 1024;

/// Most clients accepted in one turn. The listener is level-triggered: those who still wait are reported
/// again, after the connections there are have had their turn.
const ACCEPT_BUDGET: usize = 64;

/// Most reads from one client in one turn: one that sends faster than it is served would otherwise be
/// served alone.
const READ_BUDGET: usize = 4;

/// Most lines taken from one client in one turn: a read may bring thousands of them.
const LINE_BUDGET: usize = 1024;

/// Most clients that are offered what they are owed in one turn, besides those whose sockets are reported.
const FLUSH_BUDGET: usize = 256;

/// Most connections closed in one turn because their time is up.
const EXPIRE_BUDGET: usize = 64;

/// How long a client may take to give its name.
const NAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client that was dismissed may take to read why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// For how many connections there is room from the start, however many are allowed: beyond a million, the
/// limit on descriptors is a way of saying that there is none.
const LARGEST_CAPACITY: usize = 1 << 20;

/// How long to wait before asking for a descriptor again when none can be had, not even the one in reserve.
const RETRY: Duration = Duration::from_millis(100);

pub struct EventLoop {
    epoll: Epoll,
    /// `None` once the server has been asked to stop.
    listener: Option<Listener>,
    /// Whether the listener is registered. It is not while there is no room for another client, who then
    /// waits in the kernel's queue.
    listening: bool,
    /// When to watch the listener again, if no client leaves before.
    retry_at: Option<Instant>,
    max_connections: usize,
    connections: Connections<Connection>,
    shared: Shared,
    /// The ready list: connections that have bytes to read of which no event will tell.
    ready: VecDeque<Token>,
    room: Room,
    /// What the room wants done.
    actions: VecDeque<Action>,
    fan_out: FanOut,
    /// Who has not given a name yet. (A list of the idle serves here as well: nobody in it is active.)
    nameless: IdleList,
    /// Who was dismissed and has not gone yet.
    dismissed: IdleList,
    /// Who has been silent for how long; `None` if that is of no interest.
    idle: Option<IdleList>,
    started: Instant,
    /// When the last wait ended, in milliseconds since the start.
    now: u64,
    signals: Signals,
    /// The report of every second; `None` if nobody asked for it.
    ticker: Option<Ticker>,
    /// The report that SIGUSR1 asks for.
    on_request: Reporter,
    /// `None` before the server is asked to stop.
    drain: Option<Drain>,
}

impl EventLoop {
    pub fn new(
        listener: Listener,
        max_connections: usize,
        idle_timeout: Option<Duration>,
        signals: Signals,
        stats: bool,
    ) -> Result<Self, Failure> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).or_fail("create an epoll instance")?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::SIGNALS.into());
        epoll.add(&signals, event).or_fail("watch for signals")?;
        let started = Instant::now();
        let mut ticker = None;
        if stats {
            let timer = ticker.insert(Ticker::new(started).or_fail("start a timer")?);
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::TIMER.into());
            epoll.add(timer, event).or_fail("watch the timer")?;
        }
        let capacity = max_connections.min(LARGEST_CAPACITY);
        let mut event_loop = Self {
            epoll,
            listener: Some(listener),
            listening: false,
            retry_at: None,
            max_connections,
            connections: Connections::with_capacity(capacity),
            shared: Shared::new(),
            ready: VecDeque::new(),
            room: Room::default(),
            actions: VecDeque::new(),
            fan_out: FanOut::with_capacity(capacity),
            nameless: IdleList::with_capacity(capacity, NAME_TIMEOUT),
            dismissed: IdleList::with_capacity(capacity, FAREWELL_TIMEOUT),
            idle: idle_timeout.map(|timeout| IdleList::with_capacity(capacity, timeout)),
            started,
            now: 0,
            signals,
            ticker,
            on_request: Reporter::new(started),
            drain: None,
        };
        event_loop.start_listening()?;
        Ok(event_loop)
    }

    pub fn run(mut self) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); EVENTS_PER_WAIT];
        while !self.is_done() {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => ready,
                // A signal, or a debugger: no event, but time has passed.
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(Failure::new("wait for events", errno)),
            };
            self.now = self.started.elapsed().as_millis() as u64;
            let (mut tick, mut signalled) = (false, false);
            // Those that are put on the ready list from here on have their turn in the next round.
            let resuming = self.ready.len();
            for event in &events[..ready] {
                match Token::from(event.data()) {
                    Token::LISTENER => self.accept_clients()?,
                    Token::TIMER => tick = true,
                    Token::SIGNALS => signalled = true,
                    token => self.serve_event(token, Readiness::from(event.events()))?,
                }
            }
            for _ in 0..resuming {
                if let Some(token) = self.ready.pop_front() {
                    self.serve_resumed(token)?;
                }
            }
            self.serve_fan_out()?;
            self.serve_expired()?;
            if self.until_retry() == Some(0) {
                self.start_listening()?;
            }
            // What clients cause is counted, and not that we look at it.
            let ours = usize::from(tick) + usize::from(signalled);
            self.shared.counters.events += (ready - ours) as u64;
            // Last, so that they see the connections after all that was reported together with them.
            if tick {
                self.serve_tick()?;
            }
            if signalled {
                self.serve_signals()?;
            }
            self.close_delivered()?;
        }
        let left = self.connections.len();
        if left > 0 {
            let plural = if left == 1 { "" } else { "s" };
            PROGRAM.warn(
                format_args!("ended before {left} connection{plural} had taken what was owed"),
                None,
            );
        }
        Ok(())
    }

    /// How long to wait: not at all while somebody can go on without an event, and not beyond the moment
    /// at which somebody has been silent too long, or the listener is to be watched again.
    fn timeout(&self) -> EpollTimeout {
        if !self.ready.is_empty() || !self.fan_out.is_empty() {
            return EpollTimeout::ZERO;
        }
        if self.drain.is_some() {
            return EpollTimeout::try_from(drain::INTERVAL).unwrap_or(EpollTimeout::ZERO);
        }
        let deadlines = [
            self.idle
                .as_ref()
                .and_then(|idle| idle.until_next(self.now)),
            self.nameless.until_next(self.now),
            self.dismissed.until_next(self.now),
            self.fan_out.until_next(self.now),
            self.until_retry(),
        ];
        match deadlines.into_iter().flatten().min() {
            Some(milliseconds) => EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        }
    }

    /// How long until the listener is to be watched again, in milliseconds; `None` if it is, or waits for a
    /// client to leave.
    fn until_retry(&self) -> Option<u64> {
        let left = self.retry_at?.saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be spent asking whether it is over.
        Some(left.as_micros().div_ceil(1000) as u64)
    }

    /// Takes in clients that are waiting, as many as there is room for.
    fn accept_clients(&mut self) -> Result<(), Failure> {
        for _ in 0..ACCEPT_BUDGET {
            if self.connections.len() >= self.max_connections {
                return self.stop_listening();
            }
            let Some(listener) = &mut self.listener else {
                return Ok(());
            };
            match listener.accept() {
                Ok(client) => self.add_client(client)?,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) if is_no_room(errno) => match listener.refuse() {
                    Ok(true) => PROGRAM.warn_once_no_room(errno),
                    // The queue was empty: no client was refused, and none needs to be.
                    Ok(false) => return Ok(()),
                    // The listener stays ready: waiting for it would return at once, again and again.
                    // It is watched anew when a client has left, or after a while: what others had taken
                    // may be free again, and nobody tells.
                    Err(errno) => {
                        PROGRAM.warn_once_no_room(errno);
                        self.retry_at = Some(Instant::now() + RETRY);
                        return self.stop_listening();
                    }
                },
                // Anything else is about one client, which has gone.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Registers a new client, for all that will ever interest us of it. Where the kernel cannot (out of
    /// memory, or of epoll watches), the client is dropped, which closes its connection.
    fn add_client(&mut self, socket: OwnedFd) -> Result<(), Failure> {
        let token = self.connections.insert(Connection::new(socket));
        let event = EpollEvent::new(Readiness::interest(), token.into());
        if let Some(connection) = self.connections.get_mut(token)
            && let Err(errno) = self.epoll.add(connection, event)
        {
            PROGRAM.warn_once_no_room(errno);
            self.connections.remove(token);
            return Ok(());
        }
        if let Some(idle) = &mut self.idle {
            idle.insert(token.slot(), self.now);
        }
        self.nameless.insert(token.slot(), self.now);
        self.room
            .arrive(token, &mut |action| self.actions.push_back(action));
        self.act()
    }

    // ANCHOR: serve-event
    /// One client has something for us, or its socket has room for what it is owed.
    fn serve_event(&mut self, token: Token, readiness: Readiness) -> Result<(), Failure> {
        // There is none when it was closed earlier in this round: the line of one client may be what
        // costs another its connection. Its slot may even have a new client already.
        let Some(connection) = self.connections.get_mut(token) else {
            return Ok(());
        };
        connection.note(readiness);
        // One that is resuming has its turn later in this round, and shall not have two.
        let may_read = readiness.is_readable() && !connection.is_resuming();
        if readiness.is_writable() && connection.is_blocked() {
            self.flush(token)?;
        }
        if may_read {
            self.converse(token)?;
        }
        self.act()
    }
    // ANCHOR_END: serve-event

    /// One client goes on where its budget ended in the round before.
    fn serve_resumed(&mut self, token: Token) -> Result<(), Failure> {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.stop_resuming();
            self.converse(token)?;
        }
        self.act()
    }

    // ANCHOR: serve-fan-out
    /// Those who became owed something are offered it, as many as the budget allows.
    fn serve_fan_out(&mut self) -> Result<(), Failure> {
        for _ in 0..FLUSH_BUDGET {
            let Some(token) = self.fan_out.next() else {
                break;
            };
            self.flush(token)?;
            self.act()?;
        }
        Ok(())
    }
    // ANCHOR_END: serve-fan-out

    /// Reads and takes lines until the client has no more to give for now or its budget is used up.
    fn converse(&mut self, token: Token) -> Result<(), Failure> {
        let (mut reads, mut lines) = (READ_BUDGET, LINE_BUDGET);
        let mut is_drained = false;
        // Ends as well when what it said has cost it its connection.
        while let Some(connection) = self.connections.get_mut(token) {
            if reads == 0 || lines == 0 || self.fan_out.is_busy() {
                if connection.start_resuming() {
                    self.ready.push_back(token);
                }
                return Ok(());
            }
            match connection.next_line() {
                Ok(Some(line)) => {
                    lines -= 1;
                    let act = &mut |action| self.actions.push_back(action);
                    self.room.hear(token, &line, act);
                    if self.room.has(token) {
                        self.nameless.remove(token.slot());
                    }
                    self.act()?;
                    continue;
                }
                Ok(None) if is_drained => return Ok(()),
                Ok(None) => {}
                Err(_) => {
                    self.dismiss(token, &format!("A line has at most {LONGEST_LINE} bytes."));
                    self.act()?;
                    continue;
                }
            }
            reads -= 1;
            let before = self.shared.counters.received;
            match connection.receive(&mut self.shared) {
                Received::Some => {}
                Received::All => is_drained = true,
                Received::End => {
                    let is_done = connection.is_done();
                    self.nameless.remove(token.slot());
                    self.room
                        .leave(token, &mut |action| self.actions.push_back(action));
                    if is_done {
                        self.close(token)?;
                    }
                    return Ok(());
                }
                Received::Broken => return self.close(token),
            }
            if self.shared.counters.received != before {
                self.touch(token);
            }
        }
        Ok(())
    }

    // ANCHOR: act
    /// Does what the room wants done.
    fn act(&mut self) -> Result<(), Failure> {
        while let Some(action) = self.actions.pop_front() {
            let mut too_slow = Vec::new();
            let mut owe = |token, message| {
                if let Some(connection) = self.connections.get_mut(token)
                    && !self.fan_out.owe(token, connection, message, self.now)
                {
                    too_slow.push(token);
                }
            };
            match action {
                Action::Tell(token, message) => owe(token, &message),
                Action::TellOthers(but, message) => {
                    for token in self.room.members().filter(|&token| token != but) {
                        owe(token, &message);
                    }
                }
                Action::Dismiss(token) => {
                    if let Some(connection) = self.connections.get_mut(token) {
                        connection.finish();
                        self.nameless.remove(token.slot());
                        self.dismissed.touch(token.slot(), self.now);
                    }
                }
            }
            for token in too_slow {
                self.close(token)?;
            }
        }
        Ok(())
    }
    // ANCHOR_END: act

    /// Sends a client away, and tells it why.
    fn dismiss(&mut self, token: Token, reason: &str) {
        let act = &mut |action| self.actions.push_back(action);
        self.room.dismiss(token, reason, act);
    }

    /// Offers a client what it is owed.
    fn flush(&mut self, token: Token) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(token) else {
            return Ok(());
        };
        let before = self.shared.counters.sent;
        let flushed = connection.flush(&mut self.shared);
        self.fan_out.relieve(token, connection);
        if flushed.is_err() || connection.is_done() {
            return self.close(token);
        }
        if self.shared.counters.sent != before {
            self.touch(token);
        }
        Ok(())
    }

    /// Bytes have moved. Progress counts, not events: a client that never reads causes events as well.
    fn touch(&mut self, token: Token) {
        if let Some(idle) = &mut self.idle {
            idle.touch(token.slot(), self.now);
        }
    }

    fn close(&mut self, token: Token) -> Result<(), Failure> {
        // Closing the last descriptor of a socket also takes it out of epoll.
        self.connections.remove(token);
        self.fan_out.forget(token);
        self.nameless.remove(token.slot());
        self.dismissed.remove(token.slot());
        if let Some(idle) = &mut self.idle {
            idle.remove(token.slot());
        }
        self.room
            .leave(token, &mut |action| self.actions.push_back(action));
        if !self.listening {
            self.start_listening()?;
        }
        Ok(())
    }

    /// Ends connections whose time is up. If there are many, the rest have their turn in the next round,
    /// which then comes at once.
    fn serve_expired(&mut self) -> Result<(), Failure> {
        for _ in 0..EXPIRE_BUDGET {
            if let Some(slot) = self.nameless.expired(self.now) {
                self.dismiss(self.connections.token(slot), "No name, no chat. Goodbye.");
            } else if let Some(slot) = self.next_to_close() {
                self.close(self.connections.token(slot))?;
            } else {
                break;
            }
            self.act()?;
        }
        Ok(())
    }

    /// The slot of a connection that has been silent, behind, or dismissed for too long.
    fn next_to_close(&self) -> Option<u32> {
        let idle = self.idle.as_ref().and_then(|idle| idle.expired(self.now));
        idle.or_else(|| self.fan_out.expired(self.now))
            .or_else(|| self.dismissed.expired(self.now))
    }

    fn serve_tick(&mut self) -> Result<(), Failure> {
        if let Some(ticker) = &mut self.ticker {
            let (connections, counters) = (self.connections.len(), &self.shared.counters);
            ticker
                .tick(connections, counters)
                .or_fail("read the timer")?;
        }
        Ok(())
    }

    fn serve_signals(&mut self) -> Result<(), Failure> {
        while let Some(request) = self.signals.next().or_fail("read a signal")? {
            match request {
                Request::Report => {
                    let (connections, counters) = (self.connections.len(), &self.shared.counters);
                    let report = self
                        .on_request
                        .report(connections, counters, Instant::now());
                    write_if_ready(io::stderr().lock(), &report.to_string());
                }
                Request::Stop => match &mut self.drain {
                    None => self.start_drain()?,
                    // Asked again: at once.
                    Some(drain) => drain.end(Instant::now()),
                },
            }
        }
        Ok(())
    }

    /// Begins to end: takes in nobody, and gives every client what it is owed.
    fn start_drain(&mut self) -> Result<(), Failure> {
        self.drain = Some(Drain::new(Instant::now()));
        self.listener = None;
        // Nobody is told any more who comes and goes.
        self.room = Room::default();
        for token in self.connections.tokens() {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.finish();
            }
        }
        Ok(())
    }

    /// Closes, when the server ends, the connections whose clients have all that they were owed.
    fn close_delivered(&mut self) -> Result<(), Failure> {
        let Some(drain) = &mut self.drain else {
            return Ok(());
        };
        if !drain.is_time_to_look(Instant::now()) {
            return Ok(());
        }
        for token in self.connections.tokens() {
            if let Some(connection) = self.connections.get_mut(token)
                && connection.is_delivered()
            {
                self.close(token)?;
            }
        }
        Ok(())
    }

    /// Whether the server was asked to end and owes nobody anything, or has no time left.
    fn is_done(&self) -> bool {
        match &self.drain {
            Some(drain) => self.connections.is_empty() || drain.is_over(Instant::now()),
            None => false,
        }
    }

    fn start_listening(&mut self) -> Result<(), Failure> {
        self.retry_at = None;
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::LISTENER.into());
        self.epoll
            .add(listener, event)
            .or_fail("watch the listener")?;
        self.listening = true;
        Ok(())
    }

    fn stop_listening(&mut self) -> Result<(), Failure> {
        if let Some(listener) = &self.listener {
            self.epoll
                .delete(listener)
                .or_fail("stop watching the listener")?;
        }
        self.listening = false;
        Ok(())
    }
}
