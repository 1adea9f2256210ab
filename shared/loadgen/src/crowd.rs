//! Many clients in the hands of a test.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::connection::{Connection, Received, Trouble};
use crate::dial::{Options, dial};
use crate::error::{Error, Fault, Result};
use crate::pattern;

/// Many connections to one server, all driven by the calling thread.
///
/// Each has its own epoll registration and its own place in the [`pattern`]; nothing happens between
/// calls. Dropping the crowd closes them all. After an error, drop it: what the other connections
/// have under way is not known then.
///
/// ```no_run
/// use loadgen::{Crowd, Options};
///
/// let mut crowd = Crowd::connect(([127, 0, 0, 1], 9000).into(), 10_000, Options::default())?;
/// crowd.echo(1024)?; // every one of the 10,000 sends and gets back 1,024 bytes
/// # Ok::<(), loadgen::Error>(())
/// ```
pub struct Crowd {
    connections: Vec<Connection>,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    scratch: Vec<u8>,
    options: Options,
}

/// What [`Crowd::echo`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echoed {
    /// Bytes that went out and came back, all connections together.
    pub bytes: u64,
    /// From the first send to the last byte back.
    pub took: Duration,
}

impl Crowd {
    /// Opens `n` connections to `target`; returns when all of them are established.
    ///
    /// Established means that the server's kernel has answered. Whether the server has accepted them
    /// only an [`echo`](Crowd::echo) shows.
    ///
    /// Raises this process's soft descriptor limit to its hard limit when `n` needs it. Against a
    /// loopback IPv4 address the connections come from 127.0.0.2, .3, … so that ports suffice.
    ///
    /// # Errors
    ///
    /// When any of them could not be opened, or not all before the deadline of `options`. All are
    /// closed then.
    pub fn connect(target: SocketAddr, n: usize, options: Options) -> Result<Self> {
        let dialed = dial(target, n, &options, |_| true)?;
        if let Some(failure) = dialed.failure {
            return Err(failure);
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("epoll_create1", errno))?;
        // Registered once, for everything, and never changed: edge-triggered, a bit that is of no
        // interest now costs nothing.
        let interest = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        let mut connections = Vec::with_capacity(n);
        for (index, (number, socket)) in dialed.sockets.into_iter().enumerate() {
            let event = EpollEvent::new(interest, index as u64);
            epoll
                .add(&socket, event)
                .map_err(|errno| Error::system("epoll_ctl", errno))?;
            connections.push(Connection::new(number, socket));
        }
        Ok(Self {
            connections,
            epoll,
            events: vec![EpollEvent::empty(); 1024],
            scratch: vec![0; pattern::WINDOW],
            options,
        })
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The socket of connection `index`, for what this type does not offer. Bytes sent or received on
    /// it past the crowd are a mismatch later.
    ///
    /// # Panics
    ///
    /// When `index` is not less than [`len`](Crowd::len).
    pub fn socket(&self, index: usize) -> BorrowedFd<'_> {
        self.connections[index].as_fd()
    }

    /// This side's address and port of connection `index`.
    ///
    /// # Panics
    ///
    /// When `index` is not less than [`len`](Crowd::len).
    pub fn local_addr(&self, index: usize) -> Option<SocketAddr> {
        self.connections[index].local()
    }

    /// Closes the last `k` connections (all of them when there are fewer), in the way
    /// [`Options::close`] says.
    pub fn close(&mut self, k: usize) {
        self.connections
            .truncate(self.connections.len().saturating_sub(k));
    }

    /// Makes every connection send `bytes` and get them back, all of them at the same time; each byte
    /// is compared. The next call continues the streams.
    ///
    /// # Errors
    ///
    /// At the first byte that is wrong, the first connection that ends, or at the deadline. The error
    /// names the connection, the offset in its stream, what was expected and what came.
    pub fn echo(&mut self, bytes: u64) -> Result<Echoed> {
        let began = Instant::now();
        let deadline = began + self.options.deadline;
        let mut waiting = if bytes == 0 {
            0
        } else {
            self.connections.len()
        };
        for connection in &mut self.connections {
            connection.goal += bytes;
            connection
                .send()
                .map_err(|trouble| connection.error(trouble))?;
        }
        while waiting > 0 {
            let ready = self.wait(deadline)?;
            if ready == 0 && Instant::now() >= deadline {
                return Err(self.timeout(waiting));
            }
            for event in &self.events[..ready] {
                // Closed since, and the kernel's epoll has not noticed: another crowd's dup, say.
                let Some(connection) = self.connections.get_mut(event.data() as usize) else {
                    continue;
                };
                let was_done = connection.is_done();
                Self::move_bytes(connection, event.events(), &mut self.scratch)
                    .map_err(|trouble| connection.error(trouble))?;
                if !was_done && connection.is_done() {
                    waiting -= 1;
                }
            }
        }
        Ok(Echoed {
            bytes: bytes * self.connections.len() as u64,
            took: began.elapsed(),
        })
    }

    /// Waits for `how_long`, and fails when meanwhile a connection ends or gets bytes that are not due.
    ///
    /// # Errors
    ///
    /// As [`echo`](Crowd::echo), but that time passes is none.
    pub fn watch(&mut self, how_long: Duration) -> Result<()> {
        let deadline = Instant::now() + how_long;
        while Instant::now() < deadline {
            let ready = self.wait(deadline)?;
            for event in &self.events[..ready] {
                let Some(connection) = self.connections.get_mut(event.data() as usize) else {
                    continue;
                };
                Self::move_bytes(connection, event.events(), &mut self.scratch)
                    .map_err(|trouble| connection.error(trouble))?;
            }
        }
        Ok(())
    }

    /// Receives first, so that a server which stops reading when it cannot write is set free.
    fn move_bytes(
        connection: &mut Connection,
        events: EpollFlags,
        scratch: &mut [u8],
    ) -> std::result::Result<(), Trouble> {
        let ended = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if events.intersects(EpollFlags::EPOLLIN | ended) {
            let received = connection.receive(scratch, events.intersects(ended))?;
            if received == Received::End {
                return Err(Trouble::Fault(Fault::Closed));
            }
        }
        connection.send()
    }

    /// Waits for events until `deadline`; their number.
    fn wait(&mut self, deadline: Instant) -> Result<usize> {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .as_millis()
            + 1;
        let timeout = EpollTimeout::from(left.min(60_000) as u16);
        match self.epoll.wait(&mut self.events, timeout) {
            Ok(ready) => Ok(ready),
            Err(Errno::EINTR) => Ok(0),
            Err(errno) => Err(Error::system("epoll_wait", errno)),
        }
    }

    /// The deadline has passed: says where the first connection that waits has come to.
    fn timeout(&self, waiting: usize) -> Error {
        let first = self
            .connections
            .iter()
            .find(|connection| !connection.is_done());
        let first = first.expect("somebody waits");
        Error::Timeout {
            connection: first.number(),
            local: first.local(),
            sent: first.sent,
            received: first.received,
            waiting,
            of: self.connections.len(),
            after: self.options.deadline,
        }
    }
}
