//! The listening socket, and the clients that come out of it.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, accept4, bind, recv,
    setsockopt, shutdown, socket, sockopt,
};

/// Most reads from a client that is turned away: whatever it has sent, it costs us no more than this.
const FAREWELL_READS: usize = 16;

/// A listening socket, and a descriptor in reserve for the day when there are none left.
pub struct Listener {
    socket: OwnedFd,
    /// Open for one purpose: to be closed when a client has to be turned away. Without a free descriptor
    /// it could not even be accepted, and would wait in the queue and keep the listener ready for ever.
    reserve: Option<File>,
}

impl Listener {
    /// A non-blocking listener on `address`, for which the kernel may queue `backlog` finished
    /// handshakes.
    pub fn new(address: SocketAddr, backlog: u32) -> nix::Result<Self> {
        Ok(Self {
            socket: listen(address, backlog)?,
            reserve: open_reserve().ok(),
        })
    }

    /// The next client in the queue, as a non-blocking socket.
    pub fn accept(&mut self) -> nix::Result<OwnedFd> {
        // Lost when there was no room at all. The first descriptor that is free again is for it.
        if self.reserve.is_none() {
            self.reserve = open_reserve().ok();
        }
        accept(&self.socket)
    }

    /// Turns the next client in the queue away, with the descriptor that is kept for this; `false` if
    /// none was waiting, which `accept` cannot tell at the limit: it asks for a descriptor before it
    /// looks at the queue. Fails if there is no room even so, or the reserve is gone.
    pub fn refuse(&mut self) -> nix::Result<bool> {
        drop(self.reserve.take().ok_or(Errno::EMFILE)?);
        let refused = match accept(&self.socket) {
            Ok(client) => {
                say_goodbye(&client);
                Ok(true)
            }
            Err(errno) if is_no_room(errno) => Err(errno),
            // The queue was empty, or who was first in it has gone.
            Err(_) => Ok(false),
        };
        self.reserve = open_reserve().ok();
        refused
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open_reserve() -> nix::Result<File> {
    File::open("/dev/null").map_err(|_| Errno::EMFILE)
}

/// Ends a connection so that the client reads an end of input. Closing a socket with unread input would
/// reset the connection instead.
fn say_goodbye(client: &OwnedFd) {
    let mut unread = [0; 4096];
    // If any of this fails, the client has gone already.
    let _ = shutdown(client.as_raw_fd(), Shutdown::Write);
    for _ in 0..FAREWELL_READS {
        match recv(client.as_raw_fd(), &mut unread, MsgFlags::empty()) {
            Ok(1..) => {}
            _ => break,
        }
    }
}

fn listen(address: SocketAddr, backlog: u32) -> nix::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let listener = socket(family, SockType::Stream, flags, None)?;
    // Connections of an earlier run may still be in TIME_WAIT: they must not keep us from the port.
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // `::` means IPv4 as well, whatever the system's default is.
        setsockopt(&listener, sockopt::Ipv6V6Only, &false)?;
    }
    // Small answers leave at once, instead of waiting for the acknowledgement of earlier ones. Every
    // accepted socket inherits this from its listener, which saves a system call for each.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    start_queue(&listener, backlog)?;
    Ok(listener)
}

/// The `listen` of the system. nix's refuses what exceeds the SOMAXCONN of the C headers, 4,096; what
/// counts is net.core.somaxconn of the running kernel.
#[allow(unsafe_code, reason = "nix has no wrapper for a longer queue")]
fn start_queue(listener: &OwnedFd, backlog: u32) -> nix::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: takes numbers and no pointer.
    Errno::result(unsafe { libc::listen(listener.as_raw_fd(), backlog) }).map(drop)
}

#[allow(
    unsafe_code,
    reason = "accept4 gives a raw descriptor; this makes it an owned one"
)]
fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: accept4 has just opened this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(client) })
}

/// Whether `accept` failed for want of descriptors or memory, so that it fails again until some are free.
pub fn is_no_room(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM
    )
}
