//! The listening socket, and the clients that come out of it.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, accept4, bind, setsockopt, socket,
    sockopt,
};

/// Finished handshakes that the kernel may queue for us.
const BACKLOG: i32 = 128;

/// A non-blocking listener on `address`.
pub fn listen(address: SocketAddr) -> nix::Result<OwnedFd> {
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
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

/// The next client in the queue, as a non-blocking socket.
#[allow(
    unsafe_code,
    reason = "accept4 gives a raw descriptor; this makes it an owned one"
)]
pub fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
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
