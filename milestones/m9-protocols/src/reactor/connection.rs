//! One connection: what the server has to remember about a client between two events.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};

use super::outbox::{HIGH_WATERMARK, LOW_WATERMARK, Outbox};
use super::stats::Counters;
use crate::protocol::Message;

/// Most bytes taken from a client by one read. One buffer serves all, so it may well be larger now.
pub const READ_SIZE: usize = 16 * 1024;

/// What an event reports.
#[derive(Clone, Copy)]
pub struct Readiness(EpollFlags);

impl Readiness {
    /// What the kernel reports of a broken connection, whatever was asked for. The next `recv` or `send`
    /// says what it is.
    const BROKEN: EpollFlags = EpollFlags::EPOLLERR.union(EpollFlags::EPOLLHUP);

    /// What a connection is registered for: once, and never changed. Edge-triggered, an armed EPOLLOUT
    /// costs nothing while there is always room, and whether to read is for the connection to decide.
    pub fn interest() -> EpollFlags {
        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET
    }

    /// Whether to read.
    pub fn is_readable(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLIN | Self::BROKEN)
    }

    /// Whether reading on will come to an end: of input, or of the connection.
    fn is_read_closed(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLRDHUP | Self::BROKEN)
    }

    /// Whether there is room to send.
    pub fn is_writable(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLOUT | Self::BROKEN)
    }
}

impl From<EpollFlags> for Readiness {
    fn from(flags: EpollFlags) -> Self {
        Self(flags)
    }
}

/// What a read has given.
pub enum Received {
    /// So many bytes, and there may be more.
    Some(usize),
    /// So many bytes, which was all there was. What comes from here on makes a new edge.
    All(usize),
    /// Nothing yet, but there may be something.
    Nothing,
    /// Nothing. What comes from here on makes a new edge.
    Drained,
    /// The end of input.
    End,
    /// Nothing, and nothing will come: the connection is broken.
    Broken,
}

/// A client, what it is owed, and what its protocol remembers of it.
pub struct Connection<S> {
    socket: OwnedFd,
    outbox: Outbox,
    /// The protocol's own.
    pub state: S,
    /// Whether the protocol has not dealt yet with all that it was given.
    pub has_more: bool,
    /// Not read from because it is owed too much: back-pressure.
    paused: bool,
    /// In the queue of those whose socket has to be offered what they are owed.
    flushing: bool,
    /// In the list of those that go on without an event.
    resuming: bool,
    /// The end of input was reported and has not been read yet. No event will report it again.
    end_reported: bool,
    /// The client has no more to say (a half-close). It may still be reading, and gets what it is owed.
    end_of_input: bool,
    /// It gets what it is owed and nothing more, and what it says is dropped.
    finishing: bool,
}

impl<S: Default> Connection<S> {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            outbox: Outbox::default(),
            state: S::default(),
            has_more: false,
            paused: false,
            flushing: false,
            resuming: false,
            end_reported: false,
            end_of_input: false,
            finishing: false,
        }
    }

    /// Begins to end the connection from our side: the client gets what it is owed, then the end of input.
    ///
    /// What it sends from now on is read and dropped. Left unread, it would turn the close into a reset,
    /// and a reset throws away what has not reached the client yet.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.paused = false;
        self.has_more = false;
        self.state = S::default();
        if self.outbox.is_empty() {
            self.end_output();
        }
    }
}

impl<S> Connection<S> {
    /// Remembers of an event what no other will report.
    pub fn note(&mut self, readiness: Readiness) {
        self.end_reported |= readiness.is_read_closed();
    }

    /// What the client is owed, in bytes.
    pub fn debt(&self) -> usize {
        self.outbox.debt()
    }

    /// Adds to what it is owed; `false` if nothing more is to be sent to it.
    pub fn owe(&mut self, message: Message) -> bool {
        if self.is_open() {
            self.outbox.push(message);
        }
        self.is_open()
    }

    /// Sends `bytes` after all that the client is owed already; if nothing more is to be sent to it, drops
    /// them.
    pub fn reply(&mut self, bytes: &[u8], counters: &mut Counters) -> nix::Result<()> {
        if self.is_open() {
            counters.sent += self.outbox.send(self.socket.as_fd(), bytes)? as u64;
        }
        Ok(())
    }

    /// To be called after its turn, where a protocol wants back-pressure: whether it is read from depends
    /// on what it is owed.
    pub fn apply_back_pressure(&mut self) {
        self.paused = self.debt() >= HIGH_WATERMARK;
    }

    /// Whether it was paused and need not be any longer. What came during the pause was reported during
    /// the pause, and no event will repeat it.
    pub fn may_unpause(&mut self) -> bool {
        let may = self.paused && self.debt() <= LOW_WATERMARK;
        self.paused &= !may;
        may
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether anything more is to be sent to it, or heard of it.
    pub fn is_open(&self) -> bool {
        !self.finishing && !self.end_of_input
    }

    /// Whether what it still says is dropped.
    pub fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// Whether its socket was full when last offered something: an event will tell when it has room.
    pub fn is_blocked(&self) -> bool {
        !self.outbox.is_empty() && !self.flushing
    }

    /// To be called when it is put in the queue of those to be flushed; `false` if it is there already.
    pub fn start_flushing(&mut self) -> bool {
        !std::mem::replace(&mut self.flushing, true)
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self, counters: &mut Counters) -> nix::Result<()> {
        self.flushing = false;
        counters.sent += self.outbox.flush(self.socket.as_fd())? as u64;
        if self.finishing && self.outbox.is_empty() {
            self.end_output();
        }
        Ok(())
    }

    /// To be called when it is put on the list of those that go on without an event; `false` if it is
    /// there already.
    pub fn start_resuming(&mut self) -> bool {
        !std::mem::replace(&mut self.resuming, true)
    }

    /// To be called when it is taken from that list.
    pub fn stop_resuming(&mut self) {
        self.resuming = false;
    }

    pub fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// Reads once. What a client says that was dismissed is dropped.
    pub fn receive(&mut self, buffer: &mut [u8], counters: &mut Counters) -> Received {
        if self.end_of_input {
            return Received::End;
        }
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => {
                self.end_of_input = true;
                Received::End
            }
            Ok(received) => {
                counters.received += received as u64;
                // The short-read rule, which saves one system call per message: what does not fill
                // the buffer was all there is (epoll(7)), and what comes from here on makes a new
                // edge. But an end of input that was reported together with these bytes does not.
                // (Urgent data also ends a read early; what follows it waits for the next event.)
                let is_all = received < buffer.len() && !self.end_reported;
                match (is_all, self.finishing) {
                    (true, false) => Received::All(received),
                    (false, false) => Received::Some(received),
                    (true, true) => Received::Drained,
                    (false, true) => Received::Nothing,
                }
            }
            Err(Errno::EAGAIN) => Received::Drained,
            Err(Errno::EINTR) => Received::Nothing,
            // Reset, timed out: this client's affair, and nobody else's.
            Err(_) => Received::Broken,
        }
    }

    /// Whether it has said all and got all.
    pub fn is_done(&self) -> bool {
        self.end_of_input && self.outbox.is_empty()
    }

    /// Whether the client's system has all that the client is owed, so that nothing is lost by closing
    /// now, whatever the client still sends. (If the kernel cannot say, it is not.)
    pub fn is_delivered(&self) -> bool {
        self.outbox.is_empty() && unacknowledged(self.socket.as_fd()) == Ok(0)
    }

    fn end_output(&self) {
        // If this fails, the connection is broken, and the next read says so.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }
}

impl<S> AsFd for Connection<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

nix::ioctl_read_bad!(
    /// SIOCOUTQ of tcp(7): how many bytes in a socket's send buffer its peer has not acknowledged.
    siocoutq,
    libc::TIOCOUTQ,
    libc::c_int
);

/// How many bytes were sent, the end of input being one, that the other system has not acknowledged.
#[allow(unsafe_code, reason = "nix has no safe call for SIOCOUTQ")]
fn unacknowledged(socket: BorrowedFd<'_>) -> nix::Result<libc::c_int> {
    let mut bytes = 0;
    // SAFETY: `bytes` is an int that lives until the call returns, which is what SIOCOUTQ writes.
    unsafe { siocoutq(socket.as_raw_fd(), &mut bytes) }?;
    Ok(bytes)
}
