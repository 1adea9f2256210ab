//! The event loop: waits for readiness and lets each connection do what it can.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cli::{Failure, OrFail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::PROGRAM;
use crate::connection::{Connection, Next, Readiness, Shared};
use crate::connections::Connections;
use crate::idle::IdleList;
use crate::listener::{Listener, is_no_room};
use crate::token::Token;

/// Most events taken from the kernel by one wait.
const EVENTS_PER_WAIT: usize = 1024;

/// Most clients accepted in one turn. The listener is level-triggered: those who still wait are reported
/// again, after the connections there are have had their turn.
const ACCEPT_BUDGET: usize = 64;

/// Most connections closed for being idle in one turn.
const EXPIRE_BUDGET: usize = 64;

/// For how many connections there is room from the start, however many are allowed: beyond a million, the
/// limit on descriptors is a way of saying that there is none.
const LARGEST_CAPACITY: usize = 1 << 20;

/// How long to wait before asking for a descriptor again when none can be had, not even the one in reserve.
const RETRY: Duration = Duration::from_millis(100);

pub struct EventLoop {
    epoll: Epoll,
    listener: Listener,
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
    /// Who has been silent for how long; `None` if that is of no interest.
    idle: Option<IdleList>,
    started: Instant,
    /// When the last wait ended, in milliseconds since the start. Only kept if `idle` needs it.
    now: u64,
}

impl EventLoop {
    pub fn new(
        listener: Listener,
        max_connections: usize,
        idle_timeout: Option<Duration>,
    ) -> Result<Self, Failure> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).or_fail("create an epoll instance")?;
        let capacity = max_connections.min(LARGEST_CAPACITY);
        let mut event_loop = Self {
            epoll,
            listener,
            listening: false,
            retry_at: None,
            max_connections,
            connections: Connections::with_capacity(capacity),
            shared: Shared::new(),
            ready: VecDeque::new(),
            idle: idle_timeout.map(|timeout| IdleList::with_capacity(capacity, timeout)),
            started: Instant::now(),
            now: 0,
        };
        event_loop.start_listening()?;
        Ok(event_loop)
    }

    pub fn run(mut self) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); EVENTS_PER_WAIT];
        loop {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => ready,
                // A signal, or a debugger: no event, but time has passed.
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(Failure::new("wait for events", errno)),
            };
            self.read_clock();
            // Those that are put on the ready list from here on have their turn in the next round.
            let resuming = self.ready.len();
            for event in &events[..ready] {
                match Token::from(event.data()) {
                    Token::LISTENER => self.accept_clients()?,
                    token => self.serve_event(token, Readiness::from(event.events()))?,
                }
            }
            for _ in 0..resuming {
                if let Some(token) = self.ready.pop_front() {
                    self.serve_resumed(token)?;
                }
            }
            self.close_expired()?;
            if self.until_retry() == Some(0) {
                self.start_listening()?;
            }
        }
    }

    // ANCHOR: timeout
    /// How long to wait: not at all while somebody can go on without an event, and not beyond the moment
    /// at which somebody has been silent too long, or the listener is to be watched again.
    fn timeout(&self) -> EpollTimeout {
        if !self.ready.is_empty() {
            return EpollTimeout::ZERO;
        }
        let deadlines = [
            self.idle
                .as_ref()
                .and_then(|idle| idle.until_next(self.now)),
            self.until_retry(),
        ];
        match deadlines.into_iter().flatten().min() {
            Some(milliseconds) => EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX),
            None => EpollTimeout::NONE,
        }
    }
    // ANCHOR_END: timeout

    /// How long until the listener is to be watched again, in milliseconds; `None` if it is, or waits for a
    /// client to leave.
    fn until_retry(&self) -> Option<u64> {
        let left = self.retry_at?.saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be spent asking whether it is over.
        Some(left.as_micros().div_ceil(1000) as u64)
    }

    fn read_clock(&mut self) {
        if self.idle.is_some() {
            self.now = self.started.elapsed().as_millis() as u64;
        }
    }

    // ANCHOR: accept
    /// Takes in clients that are waiting, as many as there is room for.
    fn accept_clients(&mut self) -> Result<(), Failure> {
        for _ in 0..ACCEPT_BUDGET {
            if self.connections.len() >= self.max_connections {
                return self.stop_listening();
            }
            match self.listener.accept() {
                Ok(client) => self.add_client(client),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) if is_no_room(errno) => match self.listener.refuse() {
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
    // ANCHOR_END: accept

    /// Registers a new client, for all that will ever interest us of it. Where the kernel cannot (out of
    /// memory, or of epoll watches), the client is dropped, which closes its connection.
    fn add_client(&mut self, socket: OwnedFd) {
        let token = self.connections.insert(Connection::new(socket));
        let event = EpollEvent::new(Readiness::interest(), token.into());
        if let Some(connection) = self.connections.get_mut(token)
            && let Err(errno) = self.epoll.add(connection, event)
        {
            PROGRAM.warn_once_no_room(errno);
            self.connections.remove(token);
        } else if let Some(idle) = &mut self.idle {
            idle.insert(token.slot(), self.now);
        }
    }

    /// One client has something for us, or its socket has room for what it is owed.
    fn serve_event(&mut self, token: Token, readiness: Readiness) -> Result<(), Failure> {
        // There is none when it was closed earlier in this round.
        match self.connections.get_mut(token) {
            Some(connection) => {
                let before = self.shared.bytes_moved;
                let next = connection.on_event(readiness, &mut self.shared);
                self.settle(token, next, before)
            }
            None => Ok(()),
        }
    }

    /// One client goes on where its budget ended in the round before.
    fn serve_resumed(&mut self, token: Token) -> Result<(), Failure> {
        match self.connections.get_mut(token) {
            Some(connection) => {
                let before = self.shared.bytes_moved;
                let next = connection.on_resume(&mut self.shared);
                self.settle(token, next, before)
            }
            None => Ok(()),
        }
    }

    // ANCHOR: settle
    /// Notes what a connection needs after its turn, before which `moved_before` bytes had moved.
    fn settle(&mut self, token: Token, next: Next, moved_before: u64) -> Result<(), Failure> {
        // Progress counts, not events: a client that sends and never reads causes events as well.
        if let Some(idle) = &mut self.idle
            && self.shared.bytes_moved != moved_before
        {
            idle.touch(token.slot(), self.now);
        }
        match next {
            Next::Wait => {}
            Next::Resume => self.ready.push_back(token),
            Next::Close => self.close(token)?,
        }
        Ok(())
    }
    // ANCHOR_END: settle

    fn close(&mut self, token: Token) -> Result<(), Failure> {
        // Closing the last descriptor of a socket also takes it out of epoll.
        self.connections.remove(token);
        if let Some(idle) = &mut self.idle {
            idle.remove(token.slot());
        }
        if !self.listening {
            self.start_listening()?;
        }
        Ok(())
    }

    /// Closes connections that have been silent too long. If there are many, the rest have their turn in
    /// the next round, which then comes at once.
    fn close_expired(&mut self) -> Result<(), Failure> {
        for _ in 0..EXPIRE_BUDGET {
            let Some(slot) = self.idle.as_ref().and_then(|idle| idle.expired(self.now)) else {
                break;
            };
            self.close(self.connections.token(slot))?;
        }
        Ok(())
    }

    // ANCHOR: start-listening
    fn start_listening(&mut self) -> Result<(), Failure> {
        self.retry_at = None;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::LISTENER.into());
        self.epoll
            .add(&self.listener, event)
            .or_fail("watch the listener")?;
        self.listening = true;
        Ok(())
    }
    // ANCHOR_END: start-listening

    fn stop_listening(&mut self) -> Result<(), Failure> {
        self.epoll
            .delete(&self.listener)
            .or_fail("stop watching the listener")?;
        self.listening = false;
        Ok(())
    }
}
