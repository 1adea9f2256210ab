//! One connection: what the server has to remember about a client between two events.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv};

use crate::outbox::{HIGH_WATERMARK, LOW_WATERMARK, Outbox};

/// Most bytes taken from a client by one read.
pub const READ_SIZE: usize = 4096;

// ANCHOR: read-budget
/// Most bytes taken from one client in one turn of the event loop. A client that sends faster than it is
/// served would otherwise be served alone.
const READ_BUDGET: usize = 64 * 1024;
// ANCHOR_END: read-budget

/// What an event reports.
#[derive(Clone, Copy)]
pub struct Readiness(EpollFlags);

// ANCHOR: interest
impl Readiness {
    /// What the kernel reports of a broken connection, whatever was asked for. The next `recv` or `send`
    /// says what it is.
    const BROKEN: EpollFlags = EpollFlags::EPOLLERR.union(EpollFlags::EPOLLHUP);

    /// What a connection is registered for: once, and never changed. Edge-triggered, an armed EPOLLOUT
    /// costs nothing while there is always room, and whether to read is for the connection to decide.
    pub fn interest() -> EpollFlags {
        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET
    }

    /// Whether to read.
    fn is_readable(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLIN | Self::BROKEN)
    }

    /// Whether there is room to send.
    fn is_writable(self) -> bool {
        self.0.intersects(EpollFlags::EPOLLOUT | Self::BROKEN)
    }
}
// ANCHOR_END: interest

impl From<EpollFlags> for Readiness {
    fn from(flags: EpollFlags) -> Self {
        Self(flags)
    }
}

// ANCHOR: next
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
// ANCHOR_END: next

// ANCHOR: context
/// A client and what it is owed.
pub struct Connection {
    socket: OwnedFd,
    outbox: Outbox,
    /// Where its reads put their bytes.
    buffer: Box<[u8; READ_SIZE]>,
    /// Not read from because the outbox has reached the high watermark: back-pressure. The kernel's
    /// buffer fills, and then the client cannot send.
    paused: bool,
    /// In the list of those that go on without an event.
    resuming: bool,
    /// The client has no more to say (a half-close). It may still be reading, and gets what it is owed.
    end_of_input: bool,
}
// ANCHOR_END: context

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            outbox: Outbox::new(),
            buffer: Box::new([0; READ_SIZE]),
            paused: false,
            resuming: false,
            end_of_input: false,
        }
    }

    // ANCHOR: on-event
    /// Does what an event makes possible.
    pub fn on_event(&mut self, readiness: Readiness) -> Next {
        let mut readable = readiness.is_readable();
        if readiness.is_writable() && !self.outbox.is_empty() {
            match self.outbox.flush(self.socket.as_fd()) {
                Ok(()) => {}
                Err(_) => return Next::Close,
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
            self.read()
        } else {
            Next::Wait
        }
    }
    // ANCHOR_END: on-event

    // ANCHOR: on-resume
    /// Goes on where the budget ended.
    pub fn on_resume(&mut self) -> Next {
        self.resuming = false;
        self.read()
    }
    // ANCHOR_END: on-resume

    // ANCHOR: read
    /// Reads and echoes until the client has no more to give for now, its outbox is full, or its budget
    /// is used up.
    fn read(&mut self) -> Next {
        let mut budget = READ_BUDGET;
        while !self.paused && !self.end_of_input {
            if budget == 0 {
                self.resuming = true;
                return Next::Resume;
            }
            match recv(
                self.socket.as_raw_fd(),
                &mut self.buffer[..],
                MsgFlags::empty(),
            ) {
                Ok(0) => self.end_of_input = true,
                Ok(received) => {
                    budget = budget.saturating_sub(received);
                    let bytes = &self.buffer[..received];
                    match self.outbox.send(self.socket.as_fd(), bytes) {
                        Ok(()) => {}
                        Err(_) => return Next::Close,
                    }
                    self.paused = self.outbox.len() >= HIGH_WATERMARK;
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
    // ANCHOR_END: read
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
