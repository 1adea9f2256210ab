//! Failures at run time: one line on standard error, at most one hint, exit code 1.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

/// Why the server cannot start or go on.
///
/// Displays as `cannot listen on 127.0.0.1:9000: Address already in use (EADDRINUSE)`.
#[derive(Debug)]
pub struct Failure {
    problem: String,
    hint: Option<String>,
}

impl Failure {
    /// The step called `what` ("create an epoll instance") failed because of `cause`.
    pub fn new(what: impl fmt::Display, cause: impl Into<io::Error>) -> Self {
        Self {
            problem: format!("cannot {what}: {}", describe(&cause.into())),
            hint: None,
        }
    }

    /// Something the user asked for is impossible; `problem` says so in full.
    pub fn refused(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: None,
        }
    }

    /// The server cannot listen on `address`.
    pub fn listen(address: SocketAddr, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        Self {
            hint: hint_for_listen(address, &cause),
            ..Self::new(format_args!("listen on {address}"), cause)
        }
    }

    /// Adds a line that says what may help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The second line, where there is one.
    pub(crate) fn hint_line(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Failure {}

/// Turns a failed system call into a [`Failure`] that says which step it was.
pub trait OrFail<T> {
    /// `step` completes the sentence "cannot …".
    fn or_fail(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> OrFail<T> for Result<T, E> {
    fn or_fail(self, step: &str) -> Result<T, Failure> {
        self.map_err(|cause| Failure::new(step, cause))
    }
}

/// An error as people look it up: what the manual calls it, and its name.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("{} ({errno:?})", errno.desc()),
        None => error.to_string(),
    }
}

fn hint_for_listen(address: SocketAddr, cause: &io::Error) -> Option<String> {
    match cause.raw_os_error().map(Errno::from_raw)? {
        Errno::EADDRINUSE => Some(
            "another program listens there; name another port, or 0 to be given a free one".into(),
        ),
        Errno::EACCES => Some(format!(
            "port {} is reserved for the system; name one above 1023",
            address.port()
        )),
        Errno::EADDRNOTAVAIL => Some(match address.ip() {
            IpAddr::V6(_) => "no interface of this machine has that address; `ip -6 address` lists those it has (a link-local one needs its interface and cannot be used here)".into(),
            IpAddr::V4(_) => "no interface of this machine has that address; `ip address` lists those it has".into(),
        }),
        Errno::EAFNOSUPPORT => Some("this machine has no IPv6; use an IPv4 address".into()),
        _ => None,
    }
}
