//! A server's clock, and how it is turned on: a deadline of 30 seconds is over in a moment.

use std::{
    env,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::Pid,
};

/// The library that servers load: `tests/clock`.
const LIBRARY: &str = "libturned_clock.so";

/// The environment variable that names the file of seconds to it. (Were that crate linked to ours, its `clock_gettime` would
/// take the place of this process's own, so nothing of it is used from here.)
const CLOCK: &str = "TURNED_CLOCK";

/// The clock of one server.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Holds the seconds that were added, where the server can read them.
    file: File,
    turned: AtomicI64,
}

impl Clock {
    /// A clock that says what all others say.
    ///
    /// # Errors
    ///
    /// Those of memfd_create(2) and of writing to such a file.
    pub(crate) fn new() -> io::Result<Clock> {
        let file: OwnedFd = memfd_create("turned-clock", MFdFlags::MFD_CLOEXEC)?;
        let clock = Clock {
            file: file.into(),
            turned: AtomicI64::new(0),
        };
        clock.turn(Duration::ZERO)?;
        Ok(clock)
    }

    /// Has a program that is about to be started go by this clock, if its C library is one that is loaded when it starts.
    pub(crate) fn give(&self, command: &mut Command) {
        // Cargo puts what a test program needs beside it. The loader would complain of what is not there.
        let Some(library) = library().filter(|library| library.is_file()) else {
            return;
        };
        let file = format!("/proc/{}/fd/{}", Pid::this(), self.file.as_raw_fd());
        command.env("LD_PRELOAD", library).env(CLOCK, file);
    }

    /// Whether this process goes by it.
    pub(crate) fn is_used_by(pid: Pid) -> bool {
        fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(LIBRARY))
    }

    /// Turns it on, by whole seconds.
    ///
    /// # Errors
    ///
    /// Those of writing to the file.
    pub(crate) fn turn(&self, by: Duration) -> io::Result<()> {
        let by = by.as_secs().cast_signed();
        let seconds = self.turned.fetch_add(by, Ordering::Relaxed) + by;
        self.file.write_all_at(&seconds.to_ne_bytes(), 0)
    }
}

fn library() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.with_file_name(LIBRARY))
}
