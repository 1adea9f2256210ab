//! The reactor: sockets, readiness, buffers, limits, timers and signals.
//!
//! It knows nothing of what is said over a connection. That is a [`Protocol`]'s affair, which it tells
//! what happens, and which answers through [`Clients`].

mod clients;
mod connection;
mod connections;
mod drain;
mod fan_out;
mod idle;
pub mod limits;
mod listener;
mod outbox;
mod signals;
mod stats;
mod token;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cli::{Failure, OrFail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::PROGRAM;
use crate::protocol::{Clients, Progress, Protocol};
use clients::ConnectedClients;
use connection::{Connection, READ_SIZE, Readiness, Received};
use drain::Drain;
use idle::IdleList;
use listener::is_no_room;
use signals::Request;
use stats::{Reporter, Ticker, write_if_ready};

pub use listener::Listener;
pub use signals::Signals;
pub use token::Token;

/// Most events taken from the kernel by one wait.
const EVENTS_PER_WAIT: usize = 1024;

/// Most clients accepted in one turn. The listener is level-triggered: those who still wait are reported
/// again, after the connections there are have had their turn.
const ACCEPT_BUDGET: usize = 64;

/// Most reads from one client in one turn: one that sends faster than it is served would otherwise be
/// served alone.
const READ_BUDGET: usize = 4;

/// Most clients that are offered what they are owed in one turn, besides those whose sockets are reported.
const FLUSH_BUDGET: usize = 256;

/// Most connections closed in one turn because their time is up.
const EXPIRE_BUDGET: usize = 64;

/// For how many connections there is room from the start, however many are allowed: beyond a million, the
/// limit on descriptors is a way of saying that there is none.
const LARGEST_CAPACITY: usize = 1 << 20;

/// How long to wait before asking for a descriptor again when none can be had, not even the one in reserve.
const RETRY: Duration = Duration::from_millis(100);

/// The event loop, for one protocol.
pub struct Reactor<P: Protocol> {
    protocol: P,
    epoll: Epoll,
    /// `None` once the server has been asked to stop.
    listener: Option<Listener>,
    /// Whether the listener is registered. It is not while there is no room for another client, who then
    /// waits in the kernel's queue.
    listening: bool,
    /// When to watch the listener again, if no client leaves before.
    retry_at: Option<Instant>,
    max_connections: usize,
    clients: ConnectedClients<P::State>,
    /// Where every read puts its bytes; the protocol has dealt with them before the next read.
    buffer: Box<[u8; READ_SIZE]>,
    /// The ready list: connections that have bytes to read, or to deal with, of which no event will tell.
    ready: VecDeque<Token>,
    /// Who has been silent for how long; `None` if that is of no interest.
    idle: Option<IdleList>,
    started: Instant,
    signals: Signals,
    /// The report of every second; `None` if nobody asked for it.
    ticker: Option<Ticker>,
    /// The report that SIGUSR1 asks for.
    on_request: Reporter,
    /// `None` before the server is asked to stop.
    drain: Option<Drain>,
}

impl<P: Protocol> Reactor<P> {
    pub fn new(
        protocol: P,
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
        let mut reactor = Self {
            protocol,
            epoll,
            listener: Some(listener),
            listening: false,
            retry_at: None,
            max_connections,
            clients: ConnectedClients::with_capacity(capacity, P::DEADLINE),
            buffer: Box::new([0; READ_SIZE]),
            ready: VecDeque::new(),
            idle: idle_timeout.map(|timeout| IdleList::with_capacity(capacity, timeout)),
            started,
            signals,
            ticker,
            on_request: Reporter::new(started),
            drain: None,
        };
        reactor.start_listening()?;
        Ok(reactor)
    }

    // ANCHOR: run
    pub fn run(mut self) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); EVENTS_PER_WAIT];
        while !self.is_done() {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => ready,
                // A signal, or a debugger: no event, but time has passed.
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(Failure::new("wait for events", errno)),
            };
            self.clients.now = self.started.elapsed().as_millis() as u64;
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
            self.clients.counters.events += (ready - ours) as u64;
            // Last, so that they see the connections after all that was reported together with them.
            if tick {
                self.serve_tick()?;
            }
            if signalled {
                self.serve_signals()?;
            }
            self.close_delivered()?;
        }
        let left = self.clients.connections.len();
        if left > 0 {
            let plural = if left == 1 { "" } else { "s" };
            PROGRAM.warn(
                format_args!("ended before {left} connection{plural} had taken what was owed"),
                None,
            );
        }
        Ok(())
    }
    // ANCHOR_END: run

    /// How long to wait: not at all while somebody can go on without an event, and not beyond the moment
    /// at which somebody has been silent too long, or the listener is to be watched again.
    fn timeout(&self) -> EpollTimeout {
        if !self.ready.is_empty() || !self.clients.fan_out.is_empty() {
            return EpollTimeout::ZERO;
        }
        if self.drain.is_some() {
            return EpollTimeout::try_from(drain::INTERVAL).unwrap_or(EpollTimeout::ZERO);
        }
        let deadlines = [
            self.idle
                .as_ref()
                .and_then(|idle| idle.until_next(self.clients.now)),
            self.clients.deadlines.until_next(self.clients.now),
            self.clients.dismissed.until_next(self.clients.now),
            self.clients.fan_out.until_next(self.clients.now),
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
            if self.clients.connections.len() >= self.max_connections {
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
        let token = self.clients.connections.insert(Connection::new(socket));
        let event = EpollEvent::new(Readiness::interest(), token.into());
        if let Some(connection) = self.clients.connections.get_mut(token)
            && let Err(errno) = self.epoll.add(connection, event)
        {
            PROGRAM.warn_once_no_room(errno);
            self.clients.connections.remove(token);
            return Ok(());
        }
        if let Some(idle) = &mut self.idle {
            idle.insert(token.slot(), self.clients.now);
        }
        self.call(token, |protocol, clients| protocol.opened(token, clients))
    }

    /// One client has something for us, or its socket has room for what it is owed.
    fn serve_event(&mut self, token: Token, readiness: Readiness) -> Result<(), Failure> {
        // There is none when it was closed earlier in this round: the message of one client may be what
        // costs another its connection. Its slot may even have a new client already.
        let Some(connection) = self.clients.connections.get_mut(token) else {
            return Ok(());
        };
        connection.note(readiness);
        // One that is resuming has its turn later in this round, and shall not have two.
        let is_resuming = connection.is_resuming();
        let mut may_read = readiness.is_readable();
        if readiness.is_writable() && connection.is_blocked() {
            may_read |= self.flush(token)?;
        }
        if may_read && !is_resuming {
            self.converse(token)?;
        }
        Ok(())
    }

    /// One client goes on where its budget ended in the round before.
    fn serve_resumed(&mut self, token: Token) -> Result<(), Failure> {
        if let Some(connection) = self.clients.connections.get_mut(token) {
            connection.stop_resuming();
            self.converse(token)?;
        }
        Ok(())
    }

    /// Those who became owed something are offered it, as many as the budget allows.
    fn serve_fan_out(&mut self) -> Result<(), Failure> {
        for _ in 0..FLUSH_BUDGET {
            let Some(token) = self.clients.fan_out.next() else {
                break;
            };
            if self.flush(token)? {
                self.converse(token)?;
            }
        }
        Ok(())
    }

    /// Reads, and lets the protocol deal with it, until the client has no more to give for now, is owed too
    /// much, or has used up its budget.
    fn converse(&mut self, token: Token) -> Result<(), Failure> {
        let mut budget = READ_BUDGET;
        let mut is_drained = false;
        // Ends as well when what the client said has cost it its connection.
        while let Some(connection) = self.clients.connections.get_mut(token) {
            if connection.is_paused() || (is_drained && !connection.has_more) {
                break;
            }
            // A protocol that could not deal with all it was given goes on in the next turn.
            let has_had_its_turn = connection.has_more && budget < READ_BUDGET;
            if has_had_its_turn || budget == 0 || self.clients.fan_out.is_busy() {
                if connection.start_resuming() {
                    self.ready.push_back(token);
                }
                break;
            }
            budget -= 1;
            let mut received = 0;
            if !connection.has_more {
                match connection.receive(&mut self.buffer[..], &mut self.clients.counters) {
                    Received::Some(some) => received = some,
                    Received::All(all) => (received, is_drained) = (all, true),
                    Received::Nothing => continue,
                    Received::Drained => {
                        is_drained = true;
                        continue;
                    }
                    Received::End => {
                        let is_done = connection.is_done();
                        self.call(token, |protocol, clients| protocol.ended(token, clients))?;
                        if is_done {
                            self.close(token)?;
                        }
                        break;
                    }
                    Received::Broken => return self.close(token),
                }
            }
            self.deal(token, received)?;
        }
        Ok(())
    }

    // ANCHOR: deal
    /// Lets the protocol deal with so many bytes in the buffer, or, with 0, go on with what it has.
    fn deal(&mut self, token: Token, received: usize) -> Result<(), Failure> {
        let Some(connection) = self.clients.connections.get_mut(token) else {
            return Ok(());
        };
        // Taken out for the time of the call, in which the protocol may reach all connections.
        let mut state = std::mem::take(&mut connection.state);
        let bytes = &self.buffer[..received];
        self.clients.current = token;
        let progress = if received > 0 {
            self.protocol
                .received(token, &mut state, bytes, &mut self.clients)
        } else {
            self.protocol.resumed(token, &mut state, &mut self.clients)
        };
        // (One that was dismissed by the call has no state any more.)
        if let Some(connection) = self.clients.connections.get_mut(token)
            && !connection.is_finishing()
        {
            connection.state = state;
            connection.has_more = progress == Progress::More;
            if P::BACK_PRESSURE {
                connection.apply_back_pressure();
            }
        }
        self.touch(token);
        // Looked at here, because it is nearly always empty: the call would cost more than the look.
        if self.clients.doomed.is_empty() {
            return Ok(());
        }
        self.close_doomed()
    }
    // ANCHOR_END: deal

    /// Tells the protocol what has happened to a client.
    fn call(
        &mut self,
        token: Token,
        tell: impl FnOnce(&mut P, &mut dyn Clients),
    ) -> Result<(), Failure> {
        // When the server ends, clients are no longer told who comes and goes.
        if self.drain.is_none() {
            self.clients.current = token;
            tell(&mut self.protocol, &mut self.clients);
        }
        self.close_doomed()
    }

    /// Offers a client what it is owed. Returns whether it is to be read from again because of that.
    fn flush(&mut self, token: Token) -> Result<bool, Failure> {
        let Some(connection) = self.clients.connections.get_mut(token) else {
            return Ok(false);
        };
        let before = self.clients.counters.sent;
        let flushed = connection.flush(&mut self.clients.counters);
        self.clients.fan_out.relieve(token, connection);
        if flushed.is_err() || connection.is_done() {
            self.close(token)?;
            return Ok(false);
        }
        let may_read = connection.may_unpause();
        if self.clients.counters.sent != before {
            self.touch(token);
        }
        Ok(may_read)
    }

    /// Bytes have moved. Progress counts, not events: a client that never reads causes events as well.
    fn touch(&mut self, token: Token) {
        if let Some(idle) = &mut self.idle {
            idle.touch(token.slot(), self.clients.now);
        }
    }

    fn close(&mut self, token: Token) -> Result<(), Failure> {
        self.clients.doomed.push(token);
        self.close_doomed()
    }

    /// Closes the connections that have come to their end, and tells the protocol, which may bring others
    /// to theirs.
    fn close_doomed(&mut self) -> Result<(), Failure> {
        while let Some(token) = self.clients.doomed.pop() {
            if !self.clients.remove(token) {
                continue;
            }
            if let Some(idle) = &mut self.idle {
                idle.remove(token.slot());
            }
            if self.drain.is_none() {
                self.protocol.closed(token, &mut self.clients);
            }
            if !self.listening {
                self.start_listening()?;
            }
        }
        Ok(())
    }

    /// Ends connections whose time is up. If there are many, the rest have their turn in the next round,
    /// which then comes at once.
    fn serve_expired(&mut self) -> Result<(), Failure> {
        for _ in 0..EXPIRE_BUDGET {
            if let Some(slot) = self.clients.deadlines.expired(self.clients.now) {
                self.clients.deadlines.remove(slot);
                let token = self.clients.connections.token(slot);
                self.call(token, |protocol, clients| protocol.overdue(token, clients))?;
            } else if let Some(slot) = self.next_to_close() {
                self.close(self.clients.connections.token(slot))?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// The slot of a connection that has been silent, behind, or dismissed for too long.
    fn next_to_close(&self) -> Option<u32> {
        let idle = self
            .idle
            .as_ref()
            .and_then(|idle| idle.expired(self.clients.now));
        idle.or_else(|| self.clients.fan_out.expired(self.clients.now))
            .or_else(|| self.clients.dismissed.expired(self.clients.now))
    }

    fn serve_tick(&mut self) -> Result<(), Failure> {
        if let Some(ticker) = &mut self.ticker {
            let (connections, counters) = (self.clients.connections.len(), &self.clients.counters);
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
                    let (connections, counters) =
                        (self.clients.connections.len(), &self.clients.counters);
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
        for token in self.clients.connections.tokens() {
            if let Some(connection) = self.clients.connections.get_mut(token) {
                connection.finish();
                // What it has sent is read and dropped, also what waited for it to catch up.
                self.converse(token)?;
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
        for token in self.clients.connections.tokens() {
            if let Some(connection) = self.clients.connections.get_mut(token)
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
            Some(drain) => self.clients.connections.is_empty() || drain.is_over(Instant::now()),
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
