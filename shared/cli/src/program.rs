//! One program: its name, its banner, and what it says on standard error.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::sync::Once;

use clap::{Args, Command};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getsockname};

use crate::failure::{Failure, OrFail, describe};

/// Who is speaking: made once per milestone with [`program!`](crate::program).
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The binary's name, which begins every message.
    pub name: &'static str,
    /// As `--version` prints it.
    pub version: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// What the banner calls it: "epoll echo server".
    pub kind: &'static str,
    /// What the banner says in brackets after the port, where it says anything.
    pub mode: Option<&'static str>,
}

/// The [`Program`] of the crate that calls this, named by what its banner says: the kind of server and,
/// from the third milestone on, how it is told of readiness.
#[macro_export]
macro_rules! program {
    ($kind:literal) => {
        $crate::program!(@ $kind, ::core::option::Option::None)
    };
    ($kind:literal, $mode:literal) => {
        $crate::program!(@ $kind, ::core::option::Option::Some($mode))
    };
    (@ $kind:literal, $mode:expr) => {
        $crate::Program {
            name: env!("CARGO_BIN_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            about: env!("CARGO_PKG_DESCRIPTION"),
            kind: $kind,
            mode: $mode,
        }
    };
}

impl Program {
    /// Reads the command line and runs the server: the whole of `main`.
    ///
    /// Exit code 0 for `--help`, `--version` and a server that ends when asked to, 1 for a failure at
    /// run time, 2 for a wrong command line.
    pub fn run<O: Args>(&self, serve: impl FnOnce(O) -> Result<(), Failure>) -> ExitCode {
        // After the options, whose own description would otherwise take the place of the program's.
        let command = O::augment_args(Command::new(self.name))
            .version(self.version)
            .about(self.about)
            .long_about(None);
        let matches = command.get_matches();
        let outcome = O::from_arg_matches(&matches)
            .map_err(|error| error.exit())
            .and_then(serve);
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                self.warn(&failure, failure.hint_line());
                ExitCode::FAILURE
            }
        }
    }

    /// Prints the banner and flushes it: whoever started us waits for it. Its port is the one that
    /// `listener` really has, which the kernel chose if 0 was asked for.
    pub fn announce(&self, listener: impl AsFd) -> Result<(), Failure> {
        let port = local_port(listener).or_fail("read the port that we listen on")?;
        let mut stdout = io::stdout().lock();
        let printed = match self.mode {
            Some(mode) => writeln!(stdout, "{} on port {port} ({mode})", self.kind),
            None => writeln!(stdout, "{} on port {port}", self.kind),
        };
        if let Err(error) = printed.and_then(|()| stdout.flush()) {
            // Nobody may be reading, or the disk may be full: neither is a reason not to serve.
            self.warn(
                format_args!("cannot write to standard output: {}", describe(&error)),
                None,
            );
        }
        Ok(())
    }

    /// Says one line on standard error, and a second that begins with `hint:` where there is one.
    pub fn warn(&self, problem: impl fmt::Display, hint: Option<&str>) {
        // Not `eprintln!`: it panics when standard error is closed.
        let mut stderr = io::stderr().lock();
        let _ = writeln!(stderr, "{}: {problem}", self.name);
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    }

    /// Says that no more clients can be taken in for now; only the first time, because clients could
    /// otherwise fill the log.
    pub fn warn_once_no_room(&self, cause: impl Into<io::Error>) {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            self.warn(
                format_args!(
                    "cannot accept more clients for now: {}",
                    describe(&cause.into())
                ),
                Some("`ulimit -n` shows and sets how many descriptors a program may have open"),
            );
        });
    }
}

fn local_port(listener: impl AsFd) -> nix::Result<u16> {
    let address: SockaddrStorage = getsockname(listener.as_fd().as_raw_fd())?;
    let v4 = address.as_sockaddr_in().map(|address| address.port());
    let v6 = address.as_sockaddr_in6().map(|address| address.port());
    v4.or(v6).ok_or(Errno::EAFNOSUPPORT)
}
