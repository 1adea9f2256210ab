//! Signals as events: read from a descriptor, in the event loop, where nothing is half done.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGINT, SIGTERM: finish what was begun, and end.
    Stop,
    /// SIGUSR1: say how things are.
    Report,
}

/// The signals that ask something of the server. From its making on they no longer interrupt or end the
/// process: they wait here until they are read.
pub struct Signals {
    queue: SignalFd,
}

impl Signals {
    // ANCHOR: signals
    pub fn new() -> nix::Result<Self> {
        let mask = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1]);
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            queue: SignalFd::with_flags(&mask, flags)?,
        })
    }
    // ANCHOR_END: signals

    /// The next signal that has come, if one has.
    pub fn next(&self) -> nix::Result<Option<Request>> {
        let Some(signal) = self.queue.read_signal()? else {
            return Ok(None);
        };
        Ok(Some(if signal.ssi_signo == Signal::SIGUSR1 as u32 {
            Request::Report
        } else {
            Request::Stop
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
