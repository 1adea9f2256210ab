//! Sockets with little room, and clients that read when they are told to.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socketpair, sockopt,
};

/// A non-blocking socket that holds about `room` bytes (the kernel has a least of its own), and the client at its other end.
pub fn pair(room: usize) -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (socket, client) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).expect("a pair of sockets");
    setsockopt(&socket, sockopt::SndBuf, &room).expect("a small buffer");
    (socket, client)
}

/// Reads at most so many bytes, as far as they are there.
pub fn read(client: &OwnedFd, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let mut length = 0;
    while length < most {
        match recv(client.as_raw_fd(), &mut bytes[length..], MsgFlags::empty()) {
            Ok(received @ 1..) => length += received,
            _ => break,
        }
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that tell where in the stream they belong.
pub fn pattern(from: usize, length: usize) -> impl Iterator<Item = u8> {
    (from..from + length).map(|at| (at / 251 + at) as u8)
}
