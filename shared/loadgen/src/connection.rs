//! One connection: the bytes that went out, the bytes that came back.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getsockname, recv, send};

use crate::error::{Error, Fault, Mismatch};
use crate::pattern;

/// A connected, non-blocking socket and how far its two streams have come.
pub(crate) struct Connection {
    socket: OwnedFd,
    /// Its number in the run; what it sends begins at a place of the pattern that depends on it.
    number: u32,
    /// Where in the pattern its byte 0 lies.
    start: u32,
    /// Bytes that the kernel has taken.
    pub(crate) sent: u64,
    /// Bytes that came back, all of them right.
    pub(crate) received: u64,
    /// Bytes that are to be sent by now; more than `sent` while the kernel takes no more.
    pub(crate) goal: u64,
}

/// Why `receive` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Nothing is left to read now: the next bytes bring a new edge.
    Drained,
    /// The server has closed its side.
    End,
    /// All that was asked for; there may be more.
    #[cfg(feature = "chaos")]
    Enough,
}

/// What went wrong on this connection; [`Connection::error`] makes an [`Error`] of it.
#[derive(Debug)]
pub(crate) enum Trouble {
    Mismatch(Mismatch),
    Fault(Fault),
}

impl Connection {
    pub(crate) fn new(number: usize, socket: OwnedFd) -> Self {
        let start = pattern::start(number) as u32;
        Self {
            socket,
            number: number as u32,
            start,
            sent: 0,
            received: 0,
            goal: 0,
        }
    }

    /// Sends until the goal is reached or the kernel takes no more; then room for more makes an edge.
    pub(crate) fn send(&mut self) -> Result<(), Trouble> {
        while self.sent < self.goal {
            let len = (self.goal - self.sent).min(pattern::WINDOW as u64) as usize;
            let bytes = pattern::slice(self.start as usize, self.sent, len);
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => {
                    self.sent += n as u64;
                    // Fewer than offered: the buffer is full, a second call would only say EAGAIN.
                    if n < len {
                        break;
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Trouble::Fault(Fault::Write(errno))),
            }
        }
        Ok(())
    }

    /// Reads what is there, and compares it with what was sent.
    ///
    /// A read shorter than `scratch` has emptied the socket, and the next bytes make a new edge, so
    /// the `recv` that would only say EAGAIN is saved; unless the end of the stream is already
    /// announced (`ending`), for which no further edge comes (epoll(7), EPOLLRDHUP).
    ///
    /// This ends by itself: no more comes back than was sent, and nothing is sent meanwhile.
    pub(crate) fn receive(
        &mut self,
        scratch: &mut [u8],
        ending: bool,
    ) -> Result<Received, Trouble> {
        loop {
            match recv(self.socket.as_raw_fd(), scratch, MsgFlags::empty()) {
                Ok(0) => return Ok(Received::End),
                Ok(n) => {
                    self.check(&scratch[..n]).map_err(Trouble::Mismatch)?;
                    self.received += n as u64;
                    if n < scratch.len() && !ending {
                        return Ok(Received::Drained);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(Received::Drained),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Trouble::Fault(Fault::Read(errno))),
            }
        }
    }

    /// Reads up to `most` bytes of what is there, and compares them with what was sent.
    #[cfg(feature = "chaos")]
    pub(crate) fn receive_some(
        &mut self,
        scratch: &mut [u8],
        mut most: u64,
    ) -> Result<Received, Trouble> {
        while most > 0 {
            let len = most.min(scratch.len() as u64) as usize;
            match recv(
                self.socket.as_raw_fd(),
                &mut scratch[..len],
                MsgFlags::empty(),
            ) {
                Ok(0) => return Ok(Received::End),
                Ok(n) => {
                    self.check(&scratch[..n]).map_err(Trouble::Mismatch)?;
                    self.received += n as u64;
                    most -= n as u64;
                }
                Err(Errno::EAGAIN) => return Ok(Received::Drained),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Trouble::Fault(Fault::Read(errno))),
            }
        }
        Ok(Received::Enough)
    }

    /// Compares what came with what was sent, both from byte number `received` on.
    fn check(&self, got: &[u8]) -> Result<(), Mismatch> {
        let expected = pattern::slice(self.start as usize, self.received, got.len());
        let outstanding = self.sent - self.received;
        // One memcmp when all is well; where they differ is only looked for when they do.
        if got == expected && got.len() as u64 <= outstanding {
            return Ok(());
        }
        let same = got
            .iter()
            .zip(expected)
            .take_while(|(got, expected)| got == expected)
            .count();
        let first = (same as u64).min(outstanding);
        let (offset, at) = (self.received + first, first as usize);
        Err(Mismatch {
            connection: self.number as usize,
            local: self.local(),
            offset,
            expected: (first < outstanding).then(|| expected[at]),
            got: got[at],
            sent: self.sent,
            meaning: pattern::explain(self.start as usize, offset, self.sent, &got[at..]),
        })
    }

    /// Whether every byte of the goal has come back.
    pub(crate) fn is_done(&self) -> bool {
        self.received == self.goal
    }

    /// This side's address and port.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        let address: SockaddrStorage = getsockname(self.socket.as_raw_fd()).ok()?;
        let v4 = address
            .as_sockaddr_in()
            .map(|&v4| SocketAddr::V4(v4.into()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|&v6| SocketAddr::V6(v6.into()))
        })
    }

    /// `trouble`, with the connection it befell.
    pub(crate) fn error(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Mismatch(mismatch) => Error::Mismatch(mismatch),
            Trouble::Fault(fault) => Error::Broken {
                connection: self.number as usize,
                local: self.local(),
                sent: self.sent,
                received: self.received,
                fault,
            },
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number as usize
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
