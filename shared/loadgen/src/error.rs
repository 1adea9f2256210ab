//! Everything that can go wrong, in words.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;

use crate::pattern::Meaning;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a crowd of connections could not be opened, or did not get its bytes back.
///
/// `Display` says what happened, in one line; [`Error::hint`] what to do about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Nothing listens there.
    Refused {
        /// The address that was tried.
        target: SocketAddr,
    },
    /// The hard RLIMIT_NOFILE is too low.
    TooManyConnections {
        /// Connections asked for.
        wanted: usize,
        /// Descriptors that were open already.
        open: u64,
        /// The hard limit of this process.
        hard: u64,
    },
    /// No free port is left on this side (EADDRNOTAVAIL).
    NoPorts {
        /// The address that was tried.
        target: SocketAddr,
        /// Connections open at that moment.
        connected: usize,
    },
    /// Any other failure to connect.
    Connect {
        /// The address that was tried.
        target: SocketAddr,
        /// Connections open at that moment.
        connected: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// Not all connections were open in time.
    ConnectTimeout {
        /// The address that was tried.
        target: SocketAddr,
        /// Connections that did open.
        connected: usize,
        /// Connections asked for.
        wanted: usize,
        /// How long it was given.
        after: Duration,
    },
    /// A byte came back that is not the one that was sent there.
    Mismatch(Mismatch),
    /// A connection ended while bytes were still to come back.
    Broken {
        /// Which connection, counted from 0.
        connection: usize,
        /// Its end on this side, to find it in a trace.
        local: Option<SocketAddr>,
        /// Bytes sent on it.
        sent: u64,
        /// Bytes that came back on it, all as they were sent.
        received: u64,
        /// How it ended.
        fault: Fault,
    },
    /// Bytes did not come back in time.
    Timeout {
        /// The first connection that still waits, counted from 0.
        connection: usize,
        /// Its end on this side, to find it in a trace.
        local: Option<SocketAddr>,
        /// Bytes sent on it.
        sent: u64,
        /// Bytes that came back on it, all as they were sent.
        received: u64,
        /// Connections that still wait, this one included.
        waiting: usize,
        /// All connections of the crowd.
        of: usize,
        /// How long they were given.
        after: Duration,
    },
    /// What was asked for makes no sense; in words.
    Plan(String),
    /// It was ended before all connections were open.
    Interrupted,
    /// No process has the number that was named as the server's.
    NoServerProcess {
        /// The number.
        pid: u32,
    },
    /// A system call failed that has nothing to do with the server.
    System {
        /// Its name.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

/// How a connection ended too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server closed it (`recv` gave 0).
    Closed,
    /// `recv` failed.
    Read(Errno),
    /// `send` failed.
    Write(Errno),
}

/// The first byte that is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which connection, counted from 0.
    pub connection: usize,
    /// Its end on this side, to find it in a trace.
    pub local: Option<SocketAddr>,
    /// Number of the byte in what came back on this connection, counted from 0.
    pub offset: u64,
    /// The byte that was sent there; `None` when no byte was sent that far.
    pub expected: Option<u8>,
    /// The byte that came.
    pub got: u8,
    /// Bytes sent on this connection so far.
    pub sent: u64,
    /// What that looks like.
    pub meaning: Meaning,
}

impl Error {
    pub(crate) fn system(call: &'static str, errno: Errno) -> Self {
        Self::System { call, errno }
    }

    /// Says what to do about it, where that is known; one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { .. } => Some("start the server first, and look at the port in its first line".into()),
            Self::TooManyConnections { .. } => Some(
                "ask for fewer, or raise the hard limit: `ulimit -Hn` shows it, root may raise it (`prlimit --nofile`)"
                    .into(),
            ),
            Self::NoPorts { .. } => Some(
                "one source address has about 28,000 ports per destination (net.ipv4.ip_local_port_range); \
                 connections closed moments ago may still hold some"
                    .into(),
            ),
            Self::ConnectTimeout { .. } => Some(
                "a server at its descriptor limit, or one that serves a single client, leaves new connections \
                 in the backlog, and when that is full it answers no more"
                    .into(),
            ),
            Self::Connect { errno: Errno::EMFILE | Errno::ENFILE, .. } => {
                Some("descriptors ran out on this side: ask for fewer connections".into())
            }
            Self::Mismatch(Mismatch { expected: None, .. }) => Some(
                "an echo server sends back what it got and nothing else: no greeting, no byte twice".into(),
            ),
            Self::Mismatch(mismatch) => mismatch.meaning.hint().map(Into::into),
            Self::Broken { fault: Fault::Closed, .. } => Some(
                "the server closed it with bytes still to come: at its limit of connections, at an idle timeout, \
                 or by an error it did not survive"
                    .into(),
            ),
            Self::Broken { .. } => {
                Some("a server that closes with unread input resets the connection: both ends lose bytes".into())
            }
            Self::Timeout { sent, received, .. } if received == &0 && sent > &0 => Some(
                "a connection is open once the kernel has queued it; that nothing comes back usually means \
                 that the server has not accepted it yet"
                    .into(),
            ),
            Self::Timeout { .. } => Some(
                "bytes lost on the way, or a server that waits for readiness that was reported already \
                 (edge-triggered: read and write until EAGAIN)"
                    .into(),
            ),
            Self::NoServerProcess { .. } => Some("`pgrep -a NAME` shows the processes of a server".into()),
            Self::Connect { .. } | Self::Plan(_) | Self::Interrupted | Self::System { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { target } => {
                write!(
                    f,
                    "nothing listens on {target}: start the server first (ECONNREFUSED)"
                )
            }
            Self::TooManyConnections { wanted, open, hard } => write!(
                f,
                "{wanted} connections need more descriptors than the hard limit of {hard} allows \
                 ({open} are open already)"
            ),
            Self::NoPorts { target, connected } => {
                write!(
                    f,
                    "no free port for another connection to {target}, {connected} are open (EADDRNOTAVAIL)"
                )
            }
            Self::Connect {
                target,
                connected,
                errno,
            } => {
                write!(
                    f,
                    "cannot connect to {target}, {connected} are open: {}",
                    in_words(*errno)
                )
            }
            Self::ConnectTimeout {
                target,
                connected,
                wanted,
                after,
            } => {
                write!(
                    f,
                    "only {connected} of {wanted} connections to {target} opened in {after:.1?}"
                )
            }
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::Broken {
                connection,
                local,
                sent,
                received,
                fault,
            } => {
                Client(*connection, *local).fmt(f)?;
                match fault {
                    Fault::Closed => write!(f, "closed by the server")?,
                    Fault::Read(errno) => write!(f, "recv: {}", in_words(*errno))?,
                    Fault::Write(errno) => write!(f, "send: {}", in_words(*errno))?,
                }
                write!(
                    f,
                    " at offset {received}: {sent} bytes sent, {received} came back"
                )
            }
            Self::Timeout {
                connection,
                local,
                sent,
                received,
                waiting,
                of,
                after,
            } => {
                Client(*connection, *local).fmt(f)?;
                write!(
                    f,
                    "byte at offset {received} has not come back in {after:.1?}: {sent} bytes sent, "
                )?;
                write!(
                    f,
                    "{received} came back; {waiting} of {of} connections wait"
                )
            }
            Self::Plan(reason) => f.write_str(reason),
            Self::Interrupted => write!(f, "interrupted before all connections were open"),
            Self::NoServerProcess { pid } => {
                write!(f, "there is no process {pid} whose costs could be read")
            }
            Self::System { call, errno } => write!(f, "{call}: {}", in_words(*errno)),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connection,
            local,
            offset,
            expected,
            got,
            sent,
            meaning,
        } = self;
        Client(*connection, *local).fmt(f)?;
        match expected {
            Some(expected) => write!(
                f,
                "offset {offset}: expected 0x{expected:02x}, got 0x{got:02x}; {meaning}"
            ),
            None => write!(
                f,
                "offset {offset}: expected nothing more, {sent} bytes were sent, got 0x{got:02x}"
            ),
        }
    }
}

/// `connection 7 (from 127.0.0.2:40123): `, the beginning of every message about one connection.
struct Client(usize, Option<SocketAddr>);

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(connection, Some(local)) => write!(f, "connection {connection} (from {local}): "),
            Self(connection, None) => write!(f, "connection {connection}: "),
        }
    }
}

impl Meaning {
    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Changed(_) => "usually a buffer that was used again before all of it was sent",
            Self::Swapped(_) => {
                "usually new bytes were sent while older ones still waited in the outbox"
            }
            Self::Missing(_) => "usually the unsent rest of a partial write was forgotten",
            Self::Repeated(_) => "usually a partial write was repeated from its beginning",
            Self::Foreign => {
                "usually bytes of another connection: a stale token, or a buffer that two share"
            }
            Self::Unclear => return None,
        })
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(1) => write!(f, "one byte was changed, the next is right again"),
            Self::Changed(n) => write!(f, "{n} bytes were changed, the next is right again"),
            Self::Swapped(n) => write!(f, "the next {n} bytes came in another order"),
            Self::Missing(n) => write!(
                f,
                "what came belongs {} further on: lost, or overtaken",
                bytes(*n)
            ),
            Self::Repeated(n) => write!(
                f,
                "what came belongs {} further back: it came twice",
                bytes(*n)
            ),
            Self::Foreign => write!(f, "what came was never sent near there on this connection"),
            Self::Unclear => write!(f, "nothing came after it that would explain it"),
        }
    }
}

fn bytes(n: u64) -> String {
    if n == 1 {
        "1 byte".into()
    } else {
        format!("{n} bytes")
    }
}

/// `Connection reset by peer (ECONNRESET)`.
pub(crate) fn in_words(errno: Errno) -> String {
    format!("{} ({errno:?})", errno.desc())
}
