//! Clients that come, talk and go at random, and verify every byte that comes back.
//!
//! What a client tries is decided before it connects: its [`Life`] follows from the seed and its
//! number, and from nothing else, so the same seed tries the same again. How the clients take turns,
//! and how much the kernel takes of them at a time, depends on the moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    Shutdown, SockaddrStorage, getpeername, getsockopt, setsockopt, shutdown, sockopt,
};

use crate::connection::{Connection, Received, Trouble};
use crate::dial::{Close, Options, start};
use crate::error::{Error, Fault, Result};
use crate::limits;
use crate::pattern;

/// More than all buffers on the way take from a client with small ones.
const MORE_THAN_FITS: u32 = 4 << 20;

/// What one client is going to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Little room in both directions, so that the server's sends are cut short and a client that
    /// does not read is soon felt.
    pub has_small_buffers: bool,
    /// What it does, in this order.
    pub steps: Vec<Step>,
    /// How it leaves.
    pub end: End,
}

/// One thing that a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends so many bytes. While the server takes no more, it receives.
    Send(u32),
    /// Sends of so many bytes what the kernel takes now, and receives nothing.
    Stuff(u32),
    /// Waits until so many more bytes have come back, or all that are still out.
    Receive(u32),
    /// Does nothing for so many milliseconds.
    Pause(u16),
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `shutdown(SHUT_WR)`; then it receives all that is still out, in pieces of so many bytes with a
    /// pause after each, and the end.
    HalfClose(u32),
    /// Receives all that is still out, and closes.
    Close,
    /// Closes at once. With bytes still out that is a reset, too.
    Leave,
    /// `shutdown(SHUT_WR)`, and closes at once.
    HalfCloseAndLeave,
    /// Resets the connection (SO_LINGER 0).
    Reset,
}

impl Life {
    /// What client number `number` does under this seed.
    pub fn of(seed: u64, number: usize) -> Self {
        // Neighbouring numbers get seeds that are far apart.
        let mut random =
            Rng::with_seed(seed.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        match random.u32(0..100) {
            0..20 => Self::that_says_nothing(&mut random),
            20..35 => Self::that_only_sends(&mut random),
            _ => Self::that_talks(&mut random),
        }
    }

    fn that_says_nothing(random: &mut Rng) -> Self {
        let stays = random.bool();
        Self {
            has_small_buffers: false,
            steps: stays
                .then(|| Step::Pause(random.u16(1..300)))
                .into_iter()
                .collect(),
            end: match random.u32(0..3) {
                0 => End::Close,
                1 => End::HalfClose(1),
                _ => End::Reset,
            },
        }
    }

    fn that_only_sends(random: &mut Rng) -> Self {
        let stuffs = (0..random.u32(1..4))
            .flat_map(|_| [Step::Stuff(MORE_THAN_FITS), Step::Pause(random.u16(1..100))]);
        Self {
            has_small_buffers: true,
            steps: stuffs.collect(),
            end: Self::some_end(random),
        }
    }

    fn that_talks(random: &mut Rng) -> Self {
        let steps = (0..random.u32(1..20)).map(|_| match random.u32(0..10) {
            0..5 => Step::Send(size(random)),
            5 => Step::Stuff(size(random)),
            6..9 => Step::Receive(size(random)),
            _ => Step::Pause(random.u16(0..50)),
        });
        Self {
            steps: steps.collect(),
            has_small_buffers: random.u32(0..3) == 0,
            end: Self::some_end(random),
        }
    }

    fn some_end(random: &mut Rng) -> End {
        match random.u32(0..10) {
            0..3 => End::Close,
            3..7 => End::HalfClose(random.u32(1_000..20_000)),
            7 => End::Leave,
            8 => End::HalfCloseAndLeave,
            _ => End::Reset,
        }
    }
}

/// From one byte to 128 KiB; a tenth of it as likely as all of it.
fn size(random: &mut Rng) -> u32 {
    let magnitude = random.u32(0..=17);
    random.u32(1..=1 << magnitude)
}

/// What came of all clients so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Clients that connected, or began to.
    pub begun: u64,
    /// Clients that came to the end of what they wanted to do.
    pub ended: u64,
    /// Clients that did not get what they should have got.
    pub failed: u64,
    /// Bytes that the kernel took from them.
    pub sent: u64,
    /// Bytes that came back, every one compared.
    pub verified: u64,
    /// Bytes that were still out when their client left without waiting for them.
    pub given_up: u64,
}

impl Tally {
    /// Bytes that were sent, and of which nobody can say what became of them. (While clients are
    /// there: those that are on their way.)
    pub fn unaccounted(&self) -> u64 {
        self.sent - self.verified - self.given_up
    }
}

/// A client that did not get what it should have got.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of its life.
    pub seed: u64,
    /// Its number.
    pub number: usize,
    /// What it wanted to do.
    pub life: Life,
    /// What it did not get.
    pub error: Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            number,
            life,
            error,
        } = self;
        write!(f, "{error}\n  client {number} of seed {seed}: {life:?}")
    }
}

/// Clients at random, a constant number of them at a time, all driven by the calling thread.
pub struct Chaos {
    target: SocketAddr,
    seed: u64,
    patience: Duration,
    epoll: Epoll,
    /// Those there are; a place is used again.
    clients: Vec<Option<Client>>,
    /// Who goes on when, by place and number: the place may have another client by then.
    pauses: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    /// The number of the next client.
    next: usize,
    tally: Tally,
    first_failure: Option<Failure>,
    scratch: Vec<u8>,
}

impl Chaos {
    /// Prepares `clients` clients at a time. Each has `patience` to come further with what it does;
    /// who is kept waiting longer counts as a failure.
    ///
    /// # Errors
    ///
    /// When this process may not open so many connections.
    pub fn new(target: SocketAddr, seed: u64, clients: usize, patience: Duration) -> Result<Self> {
        limits::make_room_for(clients, 1)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("epoll_create1", errno))?;
        let mut places = Vec::new();
        places.resize_with(clients, || None);
        Ok(Self {
            target,
            seed,
            patience,
            epoll,
            clients: places,
            pauses: BinaryHeap::new(),
            next: 0,
            tally: Tally::default(),
            first_failure: None,
            scratch: vec![0; pattern::WINDOW],
        })
    }

    /// What came of all clients so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The first client that did not get what it should have got.
    pub fn first_failure(&self) -> Option<&Failure> {
        self.first_failure.as_ref()
    }

    /// Lets clients come and go until `is_over` says that no more need come, and then lets those
    /// there are come to their end. `is_over` is asked all the time.
    ///
    /// A client's failure is counted, and does not end it.
    ///
    /// # Errors
    ///
    /// Only what has nothing to do with a client: no descriptor, no port, nobody who listens.
    pub fn run(&mut self, mut is_over: impl FnMut(&Tally) -> bool) -> Result<()> {
        /// How often to look for those who have waited too long, and to ask whether it is over.
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let mut events = [EpollEvent::empty(); 256];
        let mut next_look = Instant::now();
        let mut over = false;
        loop {
            over = over || is_over(&self.tally);
            if !over {
                self.fill()?;
            } else if self.clients.iter().all(Option::is_none) {
                return Ok(());
            }
            let until = match self.pauses.peek() {
                Some(&Reverse((at, ..))) => at.min(next_look),
                None => next_look,
            };
            let left = until.saturating_duration_since(Instant::now());
            let timeout = EpollTimeout::from(left.as_micros().div_ceil(1000).min(1000) as u16);
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(Error::system("epoll_wait", errno)),
            };
            for event in &events[..ready] {
                self.advance(event.data() as usize);
            }
            let now = Instant::now();
            while let Some(&Reverse((at, place, number))) = self.pauses.peek()
                && at <= now
            {
                self.pauses.pop();
                if let Some(client) = &mut self.clients[place]
                    && client.connection.number() == number
                {
                    client.paused = false;
                    self.advance(place);
                }
            }
            if now >= next_look {
                next_look = now + LOOK_EVERY;
                self.fail_the_forgotten(now);
            }
        }
    }

    /// Begins a client in every free place.
    fn fill(&mut self) -> Result<()> {
        for place in 0..self.clients.len() {
            if self.clients[place].is_none() {
                self.begin(place)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, place: usize) -> Result<()> {
        let number = self.next;
        self.next += 1;
        let life = Life::of(self.seed, number);
        let mut options = Options {
            close: Close::Fin,
            ..Options::default()
        };
        if life.has_small_buffers {
            options.receive_buffer = Some(4096);
            options.send_buffer = Some(4096);
            options.segment = Some(1024);
        }
        let target = self.target;
        let socket = start(target, number, &options).map_err(|errno| match errno {
            Errno::ECONNREFUSED => Error::Refused { target },
            Errno::EADDRNOTAVAIL => Error::NoPorts {
                target,
                connected: self.clients.iter().flatten().count(),
            },
            errno => Error::system("connect", errno),
        })?;
        // Registered once, for everything: edge-triggered, a bit that is of no interest now costs
        // nothing. So every step tries first, and waits only when the kernel said EAGAIN.
        let interest = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        self.epoll
            .add(&socket, EpollEvent::new(interest, place as u64))
            .map_err(|errno| Error::system("epoll_ctl", errno))?;
        self.clients[place] = Some(Client::new(Connection::new(number, socket), life));
        self.tally.begun += 1;
        Ok(())
    }

    /// Lets the client in `place` do what it can do now.
    fn advance(&mut self, place: usize) {
        let Some(client) = &mut self.clients[place] else {
            return;
        };
        // What happens meanwhile is noticed when it goes on.
        if client.paused {
            return;
        }
        let before = (client.connection.sent, client.connection.received);
        let outcome = client.advance(&mut self.scratch);
        let (sent, received) = (client.connection.sent, client.connection.received);
        self.tally.sent += sent - before.0;
        self.tally.verified += received - before.1;
        match outcome {
            Ok(Next::Event) => {
                if (sent, received) != before {
                    client.last_progress = Instant::now();
                }
            }
            Ok(Next::Pause(pause)) => {
                client.paused = true;
                client.last_progress = Instant::now() + pause;
                let number = client.connection.number();
                self.pauses
                    .push(Reverse((client.last_progress, place, number)));
            }
            Ok(Next::Gone) => {
                self.tally.ended += 1;
                self.forget(place);
            }
            Err(trouble) => {
                let error = client.connection.error(trouble);
                self.fail(place, error);
            }
        }
    }

    /// Whoever has waited longer than anybody should is a failure.
    fn fail_the_forgotten(&mut self, now: Instant) {
        let patience = self.patience;
        let is_forgotten = |client: &Client| client.last_progress + patience < now;
        let is_waiting = |client: &&Client| !client.paused;
        let waiting = self.clients.iter().flatten().filter(is_waiting).count();
        let of = self.clients.iter().flatten().count();
        for place in 0..self.clients.len() {
            if let Some(client) = &self.clients[place]
                && is_forgotten(client)
            {
                let connection = &client.connection;
                let error = Error::Timeout {
                    connection: connection.number(),
                    local: connection.local(),
                    sent: connection.sent,
                    received: connection.received,
                    waiting,
                    of,
                    after: patience,
                };
                self.fail(place, error);
            }
        }
    }

    fn fail(&mut self, place: usize, error: Error) {
        self.tally.failed += 1;
        if let Some(client) = &self.clients[place] {
            let (seed, number) = (self.seed, client.connection.number());
            self.first_failure.get_or_insert_with(|| Failure {
                seed,
                number,
                life: client.life.clone(),
                error,
            });
        }
        self.forget(place);
    }

    /// Drops the client, which closes its socket.
    fn forget(&mut self, place: usize) {
        if let Some(client) = self.clients[place].take() {
            self.tally.given_up += client.connection.sent - client.connection.received;
        }
    }
}

/// One of them, on its way through its life.
struct Client {
    connection: Connection,
    life: Life,
    /// The step that it is at; the end comes after the last.
    step: usize,
    /// Where that step is complete, in bytes sent or received; `None` before it has begun.
    goal: Option<u64>,
    connected: bool,
    half_closed: bool,
    paused: bool,
    /// When bytes last moved, or its pause is over.
    last_progress: Instant,
}

/// What a client needs to go on.
enum Next {
    /// An event of its socket.
    Event,
    /// So much time.
    Pause(Duration),
    /// Nothing: it has done what it wanted to do.
    Gone,
}

/// What a step came to, or what prevents it.
type Outcome<T> = std::result::Result<T, Trouble>;

impl Client {
    fn new(connection: Connection, life: Life) -> Self {
        Self {
            connection,
            life,
            step: 0,
            goal: None,
            connected: false,
            half_closed: false,
            paused: false,
            last_progress: Instant::now(),
        }
    }

    /// Does what can be done now, step by step.
    fn advance(&mut self, scratch: &mut [u8]) -> Outcome<Next> {
        if !self.connected && !self.connect()? {
            return Ok(Next::Event);
        }
        while let Some(&step) = self.life.steps.get(self.step) {
            let is_first = self.goal.is_none();
            let next = match step {
                Step::Send(bytes) => self.send(u64::from(bytes), scratch)?,
                Step::Stuff(bytes) => {
                    self.connection.goal = self.connection.sent + u64::from(bytes);
                    self.connection.send()?;
                    self.connection.goal = self.connection.sent;
                    None
                }
                Step::Receive(bytes) => self.receive(u64::from(bytes), scratch)?,
                Step::Pause(ms) if is_first => {
                    self.goal = Some(0);
                    Some(Next::Pause(Duration::from_millis(ms.into())))
                }
                Step::Pause(_) => None,
            };
            if let Some(next) = next {
                return Ok(next);
            }
            self.step += 1;
            self.goal = None;
        }
        self.leave(scratch)
    }

    /// Whether it may begin. Who only wants to reset its connection does not wait for it.
    fn connect(&mut self) -> Outcome<bool> {
        let does_not_wait = self.life.steps.is_empty() && self.life.end == End::Reset;
        let fault = |errno| Trouble::Fault(Fault::Write(errno));
        match getsockopt(&self.connection, sockopt::SocketError).map_err(fault)? {
            0 => {
                let peer = getpeername::<SockaddrStorage>(self.connection.as_fd().as_raw_fd());
                self.connected = does_not_wait || peer.is_ok();
                Ok(self.connected)
            }
            errno => Err(fault(Errno::from_raw(errno))),
        }
    }

    /// Sends all of it, receiving while nothing more goes out. `None` when it is done.
    fn send(&mut self, bytes: u64, scratch: &mut [u8]) -> Outcome<Option<Next>> {
        let goal = *self.goal.get_or_insert(self.connection.sent + bytes);
        self.connection.goal = goal;
        loop {
            self.connection.send()?;
            if self.connection.sent == goal {
                return Ok(None);
            }
            // A server that cannot get rid of its bytes takes no more: whoever sends has to read.
            let before = self.connection.received;
            match self.connection.receive_some(scratch, u64::MAX)? {
                Received::End => return Err(Trouble::Fault(Fault::Closed)),
                _ if self.connection.received == before => return Ok(Some(Next::Event)),
                _ => {}
            }
        }
    }

    /// Receives so many bytes, or all that are out. `None` when they are there.
    fn receive(&mut self, bytes: u64, scratch: &mut [u8]) -> Outcome<Option<Next>> {
        let (received, sent) = (self.connection.received, self.connection.sent);
        let goal = *self.goal.get_or_insert(sent.min(received + bytes));
        match self.connection.receive_some(scratch, goal - received)? {
            Received::Enough => Ok(None),
            Received::Drained => Ok(Some(Next::Event)),
            Received::End => Err(Trouble::Fault(Fault::Closed)),
        }
    }

    fn leave(&mut self, scratch: &mut [u8]) -> Outcome<Next> {
        match self.life.end {
            End::Leave => Ok(Next::Gone),
            End::Reset => {
                let at_once = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                // Fails only when the server has reset it, which it has no reason to.
                setsockopt(&self.connection, sockopt::Linger, &at_once)
                    .map_err(|errno| Trouble::Fault(Fault::Write(errno)))?;
                Ok(Next::Gone)
            }
            End::HalfCloseAndLeave => {
                self.half_close()?;
                Ok(Next::Gone)
            }
            End::Close => Ok(self.receive(u64::MAX / 2, scratch)?.unwrap_or(Next::Gone)),
            End::HalfClose(piece) => {
                self.half_close()?;
                let out = self.connection.sent - self.connection.received;
                if out > 0 {
                    if let Some(next) = self.receive(u64::from(piece), scratch)? {
                        return Ok(next);
                    }
                    self.goal = None;
                    return Ok(Next::Pause(Duration::from_millis(1)));
                }
                // Anything but the end is a byte too many, which `receive_some` says.
                match self.connection.receive_some(scratch, 1)? {
                    Received::End => Ok(Next::Gone),
                    _ => Ok(Next::Event),
                }
            }
        }
    }

    fn half_close(&mut self) -> Outcome<()> {
        if !self.half_closed {
            self.half_closed = true;
            shutdown(self.connection.as_fd().as_raw_fd(), Shutdown::Write)
                .map_err(|errno| Trouble::Fault(Fault::Write(errno)))?;
        }
        Ok(())
    }
}
