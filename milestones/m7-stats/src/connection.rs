//! One connection: what the server has to remember about a client between two events.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};

use crate::outbox::{HIGH_WATERMARK, LOW_WATERMARK, Outbox};
use crate::stats::Counters;

/// Most bytes taken from a client by one read. One buffer serves all, so it may well be larger now.
pub const READ_SIZE: usize = 16 * 1024;

/// Most bytes taken from one client in one turn of the event loop. A client that sends faster than it is
/// served would otherwise be served alone.
const READ_BUDGET: usize = 64 * 1024;

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
    fn is_readable(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLIN | Self::BROKEN)
    }

    /// Whether reading on will come to an end: of input, or of the connection.
    fn is_read_closed(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLRDHUP | Self::BROKEN)
    }

    /// Whether there is room to send.
    fn is_writable(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLOUT | Self::BROKEN)
    }
}

impl From<EpollFlags> for Readiness {
    fn from(flags: EpollFlags) -> Self {
        Self(flags)
    }
}

/// What a connection needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another event.
    Wait,
    /// Another turn, and no event will tell: its budget was used up, with bytes left to read.
    Resume,
    /// To be closed: all is done, or it is broken.
    Close,
}

/// What all connections share, because only one of them has its turn at a time.
pub struct Shared {
    /// Where every read puts its bytes; they are sent or kept before the next read.
    buffer: Box<[u8; READ_SIZE]>,
    /// What has been received and sent, on all connections.
    pub counters: Counters,
    /// The server ends: clients get what they are owed, and what they still send is not answered.
    pub draining: bool,
}

impl Shared {
    pub fn new() -> Self {
        Self {
            buffer: Box::new([0; READ_SIZE]),
            counters: Counters::default(),
            draining: false,
        }
    }
}

/// A client and what it is owed: 16 bytes while it is owed nothing.
pub struct Connection {
    socket: OwnedFd,
    outbox: Outbox,
    /// Not read from because the outbox has reached the high watermark: back-pressure. The kernel's
    /// buffer fills, and then the client cannot send.
    paused: bool,
    /// In the list of those that go on without an event.
    resuming: bool,
    /// The end of input was reported and has not been read yet. No event will report it again.
    end_reported: bool,
    /// The client has no more to say (a half-close). It may still be reading, and gets what it is owed.
    end_of_input: bool,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            outbox: Outbox::new(),
            paused: false,
            resuming: false,
            end_reported: false,
            end_of_input: false,
        }
    }

    /// Does what an event makes possible.
    pub fn on_event(&mut self, readiness: Readiness, shared: &mut Shared) -> Next {
        let mut readable = readiness.is_readable();
        self.end_reported |= readiness.is_read_closed();
        if readiness.is_writable() && !self.outbox.is_empty() {
            match self.outbox.flush(self.socket.as_fd()) {
                Ok(sent) => shared.counters.sent += sent as u64,
                Err(_) => return Next::Close,
            }
            if self.outbox.is_empty() && shared.draining {
                self.end_output();
            }
            if self.end_of_input && self.outbox.is_empty() {
                return Next::Close;
            }
            if self.paused && self.outbox.len() <= LOW_WATERMARK {
                self.paused = false;
                // What came during the pause was reported during the pause. No event will repeat it.
                readable = true;
            }
        }
        // One that is resuming has its turn later in this round, and shall not have two.
        if readable && !self.resuming {
            self.read(shared)
        } else {
            Next::Wait
        }
    }

    /// Goes on where the budget ended.
    pub fn on_resume(&mut self, shared: &mut Shared) -> Next {
        self.resuming = false;
        self.read(shared)
    }

    // ANCHOR: finish
    /// Begins to end the connection, when the server drains: sends what the client is owed, then the end
    /// of input.
    ///
    /// What it sends from now on is read and dropped. Left unread, it would turn the close into a reset,
    /// and a reset throws away what has not reached the client yet; and a client that cannot go on sending
    /// might never come to reading.
    pub fn finish(&mut self, shared: &mut Shared) -> Next {
        self.paused = false;
        if self.outbox.is_empty() {
            self.end_output();
        }
        if self.resuming {
            // It is on the ready list, and goes on from there.
            return Next::Wait;
        }
        self.read(shared)
    }
    // ANCHOR_END: finish

    /// Whether the client's system has all that the client is owed, so that nothing is lost by closing
    /// now, whatever the client still sends. (If the kernel cannot say, it is not.)
    pub fn is_delivered(&self) -> bool {
        self.outbox.is_empty() && unacknowledged(self.socket.as_fd()) == Ok(0)
    }

    fn end_output(&self) {
        // If this fails, the connection is broken, and the next read says so.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }

    /// Reads and echoes until the client has no more to give for now, its outbox is full, or its budget
    /// is used up.
    fn read(&mut self, shared: &mut Shared) -> Next {
        let mut budget = READ_BUDGET;
        while !self.paused && !self.end_of_input {
            if budget == 0 {
                self.resuming = true;
                return Next::Resume;
            }
            match recv(
                self.socket.as_raw_fd(),
                &mut shared.buffer[..],
                MsgFlags::empty(),
            ) {
                Ok(0) => self.end_of_input = true,
                Ok(received) => {
                    budget = budget.saturating_sub(received);
                    shared.counters.received += received as u64;
                    if !shared.draining {
                        let bytes = &shared.buffer[..received];
                        match self.outbox.send(self.socket.as_fd(), bytes) {
                            Ok(sent) => shared.counters.sent += sent as u64,
                            Err(_) => return Next::Close,
                        }
                        self.paused = self.outbox.len() >= HIGH_WATERMARK;
                    }
                    // The short-read rule, which saves one system call per message: what does not fill
                    // the buffer was all there is (epoll(7)), and what comes from here on makes a new
                    // edge. But an end of input that was reported together with these bytes does not.
                    // (Urgent data also ends a read early; what follows it waits for the next event.)
                    if received < READ_SIZE && !self.end_reported {
                        return Next::Wait;
                    }
                }
                // Drained. What comes from here on makes a new edge.
                Err(Errno::EAGAIN) => return Next::Wait,
                Err(Errno::EINTR) => {}
                // Reset, timed out: this client's affair, and nobody else's.
                Err(_) => return Next::Close,
            }
        }
        if self.end_of_input && self.outbox.is_empty() {
            Next::Close
        } else {
            // For room in the socket: EPOLLOUT will tell.
            Next::Wait
        }
    }
}

impl AsFd for Connection {
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

// ANCHOR: unacknowledged
/// How many bytes were sent, the end of input being one, that the other system has not acknowledged.
#[allow(unsafe_code, reason = "nix has no safe call for SIOCOUTQ")]
fn unacknowledged(socket: BorrowedFd<'_>) -> nix::Result<libc::c_int> {
    let mut bytes = 0;
    // SAFETY: `bytes` is an int that lives until the call returns, which is what SIOCOUTQ writes.
    unsafe { siocoutq(socket.as_raw_fd(), &mut bytes) }?;
    Ok(bytes)
}
// ANCHOR_END: unacknowledged
