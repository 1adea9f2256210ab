//! From an address to many connected sockets, without waiting for each in turn.
//!
//! A non-blocking `connect` returns at once (EINPROGRESS) and the socket becomes writable when the
//! handshake is over; SO_ERROR then says how it went (connect(2)).
//!
//! What limits the speed is the listener's backlog: connections that the server has not accepted yet
//! wait there, and when it is full the kernel drops the next SYN in silence. Ours would send it again
//! after a whole second. So connects go out in small bursts with a pause in which the server can
//! accept, and an attempt that takes far longer than its predecessors is given up and made anew, with
//! smaller bursts from then on.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockopt,
    setsockopt, socket, sockopt,
};

use crate::error::{Error, Result};
use crate::limits;

/// How connections are opened, used and closed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connects that are under way at a time; fewer when the listener's backlog overflows. Default
    /// 64: half of the backlog of 128 that many a listener has.
    pub under_way: usize,
    /// At most this many connects a second. Default: as fast as it goes.
    pub connect_rate: Option<u32>,
    /// How long opening all of them may take, and then each call that moves bytes. Default 30 s.
    pub deadline: Duration,
    /// SO_RCVBUF in bytes, set before the connect so that the window is small from the start; the
    /// kernel doubles it (socket(7)). Default: the kernel's own, which grows by itself.
    pub receive_buffer: Option<usize>,
    /// SO_SNDBUF in bytes; the kernel doubles it (socket(7)). Default: the kernel's own.
    pub send_buffer: Option<usize>,
    /// TCP_MAXSEG in bytes, for both directions. On loopback a segment has 64 KiB, and Linux gives a
    /// socket a send buffer of 20 segments at least: small segments make the *server's* send buffer
    /// small, which nobody else can. Default: the kernel's own.
    pub segment: Option<u32>,
    /// TCP_NODELAY: small messages leave at once. Default true.
    pub no_delay: bool,
    /// What closing a connection sends. Default [`Close::Reset`].
    pub close: Close,
    /// Number of the first connection. Two crowds of one process that number theirs apart send
    /// different bytes and come from different addresses. Default 0.
    pub first: usize,
}

/// What closing a connection sends to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// A RST (SO_LINGER 0). It leaves no TIME_WAIT behind, so ports are free for the next run. Right
    /// for a load generator, wrong nearly everywhere else: bytes under way are lost.
    Reset,
    /// A FIN, the normal way. The port stays taken for a minute (TIME_WAIT) when this side closes
    /// first.
    Fin,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            under_way: 64,
            connect_rate: None,
            deadline: Duration::from_secs(30),
            receive_buffer: None,
            send_buffer: None,
            segment: None,
            no_delay: true,
            close: Close::Reset,
            first: 0,
        }
    }
}

/// What came of opening connections.
pub(crate) struct Dialed {
    /// The connected sockets, with their numbers.
    pub(crate) sockets: Vec<(usize, OwnedFd)>,
    /// The first failure, if there was one. Those connections that were not opened are missing above.
    pub(crate) failure: Option<Error>,
}

/// Opens `n` connections to `target`, numbered from `options.first`.
///
/// A failure that the next connection would meet too ends it; so does `keep_going`, which is asked all
/// the time with the number of open connections, when it says no.
///
/// # Errors
///
/// Only what prevents the attempt as a whole: the descriptor limit, or no epoll.
pub(crate) fn dial(
    target: SocketAddr,
    n: usize,
    options: &Options,
    mut keep_going: impl FnMut(usize) -> bool,
) -> Result<Dialed> {
    limits::make_room_for(n, 0)?;
    let mut dialer = Dialer::new(target, n, options)?;
    let mut events = [EpollEvent::empty(); 256];
    while dialer.dialed.sockets.len() < n && keep_going(dialer.dialed.sockets.len()) {
        let now = Instant::now();
        dialer.retry_the_dropped(now);
        dialer.burst(now)?;
        if dialer.is_over(now) {
            break;
        }
        // With more to start the pause between two bursts, else until something happens.
        let ms = if dialer.has_more_to_start() { 1 } else { 20 };
        let ready = match dialer.epoll.wait(&mut events, EpollTimeout::from(ms as u8)) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::system("epoll_wait", errno)),
        };
        for event in &events[..ready] {
            dialer.complete(event.data() as usize)?;
        }
    }
    dialer
        .dialed
        .sockets
        .sort_unstable_by_key(|&(number, _)| number);
    Ok(dialer.dialed)
}

struct Dialer<'a> {
    target: SocketAddr,
    n: usize,
    options: &'a Options,
    began: Instant,
    epoll: Epoll,
    /// Connections that were started at least once.
    started: usize,
    /// Those to be started once more.
    again: Vec<usize>,
    /// By index, the attempts that are not decided yet.
    under_way: Vec<Option<Attempt>>,
    waiting: usize,
    /// The attempts by age, those that are decided among them.
    by_age: VecDeque<(usize, Instant)>,
    next_burst: Instant,
    /// Most attempts under way; halved when the backlog overflows.
    window: usize,
    /// The slowest handshake so far.
    slowest: Duration,
    /// Attempts given up since the last that succeeded.
    setbacks: u32,
    dialed: Dialed,
}

/// A connect that was started.
struct Attempt {
    socket: OwnedFd,
    at: Instant,
}

impl<'a> Dialer<'a> {
    fn new(target: SocketAddr, n: usize, options: &'a Options) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("epoll_create1", errno))?;
        let mut under_way = Vec::new();
        under_way.resize_with(n, || None);
        let now = Instant::now();
        Ok(Self {
            target,
            n,
            options,
            began: now,
            epoll,
            started: 0,
            again: Vec::new(),
            under_way,
            waiting: 0,
            by_age: VecDeque::new(),
            next_burst: now,
            window: options.under_way.max(1),
            slowest: Duration::ZERO,
            setbacks: 0,
            dialed: Dialed {
                sockets: Vec::with_capacity(n),
                failure: None,
            },
        })
    }

    /// Starts as many connects as may be under way, unless the last ones are too recent.
    fn burst(&mut self, now: Instant) -> Result<()> {
        /// The server's chance to accept.
        const PAUSE: Duration = Duration::from_millis(1);
        if now < self.next_burst {
            return Ok(());
        }
        self.next_burst = now + PAUSE;
        let elapsed = now - self.began;
        let due = self
            .options
            .connect_rate
            .map_or(self.n, |rate| due(elapsed, rate, self.n));
        while self.waiting < self.window && !hopeless(&self.dialed.failure) {
            let index = if let Some(index) = self.again.pop() {
                index
            } else if self.started < due {
                self.started += 1;
                self.started - 1
            } else {
                break;
            };
            match start(self.target, self.options.first + index, self.options) {
                Ok(socket) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLOUT, index as u64);
                    self.epoll
                        .add(&socket, event)
                        .map_err(|errno| Error::system("epoll_ctl", errno))?;
                    self.under_way[index] = Some(Attempt { socket, at: now });
                    self.by_age.push_back((index, now));
                    self.waiting += 1;
                }
                Err(errno) => self.note(errno),
            }
        }
        Ok(())
    }

    /// Gives up the attempts that take too long, to start them anew.
    fn retry_the_dropped(&mut self, now: Instant) {
        let patience = self.patience();
        let mut dropped = false;
        while let Some(&(index, at)) = self.by_age.front() {
            let is_decided = self.under_way[index]
                .as_ref()
                .is_none_or(|attempt| attempt.at != at);
            if !is_decided {
                if now - at < patience {
                    break;
                }
                // Closed, and so out of the epoll. The server's kernel never knew it.
                self.under_way[index] = None;
                self.waiting -= 1;
                self.again.push(index);
                dropped = true;
            }
            self.by_age.pop_front();
        }
        if dropped {
            // Not below 8, or a burst a millisecond would become slow.
            self.window = (self.window / 2).max(self.window.min(8));
            self.setbacks += 1;
        }
    }

    /// How long an attempt may take: much longer than any did, but no longer than the second after
    /// which the kernel itself would try again.
    fn patience(&self) -> Duration {
        const LEAST: Duration = Duration::from_millis(20);
        const MOST: Duration = Duration::from_secs(1);
        if self.slowest.is_zero() {
            return MOST;
        }
        (self.slowest * 8)
            .max(LEAST)
            .saturating_mul(1 << self.setbacks.min(6))
            .min(MOST)
    }

    /// The attempt `index` is over, one way or the other.
    fn complete(&mut self, index: usize) -> Result<()> {
        let Some(Attempt { socket, at }) = self.under_way[index].take() else {
            return Ok(());
        };
        self.waiting -= 1;
        match getsockopt(&socket, sockopt::SocketError) {
            Ok(0) => {
                self.epoll
                    .delete(&socket)
                    .map_err(|errno| Error::system("epoll_ctl", errno))?;
                self.dialed
                    .sockets
                    .push((self.options.first + index, socket));
                self.slowest = self.slowest.max(at.elapsed());
                self.setbacks = 0;
            }
            Ok(errno) => self.note(Errno::from_raw(errno)),
            Err(errno) => self.note(errno),
        }
        Ok(())
    }

    /// Keeps the first failure.
    fn note(&mut self, errno: Errno) {
        let (target, connected) = (self.target, self.dialed.sockets.len());
        self.dialed.failure.get_or_insert(match errno {
            Errno::ECONNREFUSED => Error::Refused { target },
            Errno::EADDRNOTAVAIL => Error::NoPorts { target, connected },
            errno => Error::Connect {
                target,
                connected,
                errno,
            },
        });
    }

    fn has_more_to_start(&self) -> bool {
        (self.started < self.n || !self.again.is_empty()) && self.waiting < self.window
    }

    /// Whether nothing more will come of it, or the deadline has passed.
    fn is_over(&mut self, now: Instant) -> bool {
        let all_started = self.started == self.n && self.again.is_empty();
        if self.waiting == 0 && (all_started || hopeless(&self.dialed.failure)) {
            return true;
        }
        let after = self.options.deadline;
        let late = now - self.began >= after;
        if late {
            let (connected, wanted) = (self.dialed.sockets.len(), self.n);
            let timeout = Error::ConnectTimeout {
                target: self.target,
                connected,
                wanted,
                after,
            };
            self.dialed.failure.get_or_insert(timeout);
        }
        late
    }
}

/// How many of `n` connects may have been started after `elapsed` at `rate` a second.
fn due(elapsed: Duration, rate: u32, n: usize) -> usize {
    let due = elapsed.as_secs_f64() * f64::from(rate) + 1.0;
    (due as usize).min(n)
}

/// Whether every further connect would fail in the same way.
fn hopeless(failure: &Option<Error>) -> bool {
    match failure {
        Some(Error::Refused { .. } | Error::NoPorts { .. }) => true,
        Some(Error::Connect { errno, .. }) => {
            !matches!(errno, Errno::ECONNRESET | Errno::ETIMEDOUT)
        }
        _ => false,
    }
}

/// Begins one connect; the socket becomes writable when it is over.
pub(crate) fn start(target: SocketAddr, number: usize, options: &Options) -> nix::Result<OwnedFd> {
    let family = if target.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;

    if let Some(bytes) = options.receive_buffer {
        setsockopt(&socket, sockopt::RcvBuf, &bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        setsockopt(&socket, sockopt::SndBuf, &bytes)?;
    }
    if let Some(bytes) = options.segment {
        setsockopt(&socket, sockopt::TcpMaxSeg, &bytes)?;
    }
    setsockopt(&socket, sockopt::TcpNoDelay, &options.no_delay)?;
    if options.close == Close::Reset {
        setsockopt(
            &socket,
            sockopt::Linger,
            &libc::linger {
                l_onoff: 1,
                l_linger: 0,
            },
        )?;
    }
    if let Some(source) = source_for(target, number) {
        // Without it bind would pick a port at once, and take it for this socket alone; with it the
        // choice waits for the connect, where one port can serve many destinations.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        bind(
            socket.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::from(source)),
        )?;
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// The address that connection number `number` comes from, when the choice is ours: all of 127/8 is
/// this machine, and every address of it brings another 28,000 ports.
fn source_for(target: SocketAddr, number: usize) -> Option<SocketAddrV4> {
    /// Far fewer than there are ports: a search for a free one stays short.
    const PER_ADDRESS: usize = 4_000;
    const ADDRESSES: usize = 250;
    match target.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let host = 2 + number / PER_ADDRESS % ADDRESSES;
            Some(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host as u8), 0))
        }
        _ => None,
    }
}
