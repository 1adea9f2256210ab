//! The outbox: bytes that are owed to a client and that its socket would not take yet.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use crate::connection::READ_SIZE;

/// With this many bytes in the outbox, in bytes, a connection is no longer read from.
pub const HIGH_WATERMARK: usize = 64 * 1024;

/// With this many left, in bytes, it is read from again. Well below the other: pausing and resuming at
/// the same mark would do both for every few bytes.
pub const LOW_WATERMARK: usize = 16 * 1024;

/// The most it ever holds: a read begins below the high watermark.
const CAPACITY: usize = HIGH_WATERMARK + READ_SIZE;

// ANCHOR: outbox
/// Bytes in the order in which they are owed.
///
/// Nearly all outboxes are empty nearly all the time. An empty one is a null pointer, 8 bytes, and has no
/// memory behind it.
pub struct Outbox {
    /// A ring, so that what was sent makes room without moving the rest.
    #[allow(
        clippy::box_collection,
        reason = "a ring is 32 bytes, in every connection"
    )]
    bytes: Option<Box<VecDeque<u8>>>,
}
// ANCHOR_END: outbox

impl Outbox {
    pub fn new() -> Self {
        Self { bytes: None }
    }

    /// How many bytes are owed.
    pub fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_none()
    }

    /// Sends `bytes`, after all that is owed already, and keeps what the socket does not take. Returns how
    /// many bytes it took.
    pub fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
        // Never around what waits already: the bytes would arrive in another order.
        let sent = if self.is_empty() {
            send_some(socket, bytes)?
        } else {
            0
        };
        if sent < bytes.len() {
            self.keep(&bytes[sent..]);
        }
        Ok(sent)
    }

    // ANCHOR: flush
    /// Sends what the socket will take now, and returns how many bytes that was. If anything is left, an
    /// event will tell when there is room again.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> nix::Result<usize> {
        let mut all_sent = 0;
        while let Some(bytes) = &mut self.bytes {
            let (front, _) = bytes.as_slices();
            let offered = front.len();
            let sent = send_some(socket, front)?;
            bytes.drain(..sent);
            all_sent += sent;
            if bytes.is_empty() {
                self.bytes = None;
            }
            if sent < offered {
                break;
            }
        }
        Ok(all_sent)
    }
    // ANCHOR_END: flush

    fn keep(&mut self, bytes: &[u8]) {
        self.bytes
            // All at once: growing by doubling would end at twice of what is ever needed. The kernel
            // gives memory to those pages alone that are written to.
            .get_or_insert_with(|| Box::new(VecDeque::with_capacity(CAPACITY)))
            .extend(bytes);
    }
}

/// Sends as much of `bytes` as the socket takes, which may be nothing. Less than all means that its
/// buffer is full and that an event will tell when it has room again.
fn send_some(socket: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    loop {
        // MSG_NOSIGNAL: a client that has gone is an error to handle, not a SIGPIPE to die of.
        match send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EAGAIN) => return Ok(0),
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, recv, socketpair};
    use std::os::fd::{AsFd, OwnedFd};

    /// A non-blocking socket and the client at its other end.
    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).expect("a pair of sockets")
    }

    /// All that the client can read now.
    fn received(client: &OwnedFd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; READ_SIZE];
        while let Ok(n) = recv(client.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    }

    /// Bytes that tell where in the stream they belong.
    fn pattern(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|i| (i / 251 + i) as u8).collect()
    }

    #[test]
    fn keeps_nothing_while_the_socket_takes_everything() {
        let (socket, client) = pair();
        let mut outbox = Outbox::new();
        outbox.send(socket.as_fd(), b"hello").expect("sent");
        assert!(outbox.is_empty());
        assert_eq!(received(&client), b"hello");
    }

    #[test]
    fn loses_and_reorders_nothing_when_the_socket_is_full() {
        let (socket, client) = pair();
        let mut outbox = Outbox::new();
        let mut sent = 0;
        while outbox.len() < HIGH_WATERMARK {
            outbox
                .send(socket.as_fd(), &pattern(sent, READ_SIZE))
                .expect("sent or kept");
            sent += READ_SIZE;
        }
        let mut arrived = received(&client);
        while !outbox.is_empty() {
            outbox.flush(socket.as_fd()).expect("flushed");
            arrived.extend(received(&client));
        }
        assert!(
            arrived == pattern(0, sent),
            "the client got other bytes than it was owed"
        );
    }

    #[test]
    fn never_sends_around_what_is_owed_already() {
        let (socket, client) = pair();
        let mut outbox = Outbox::new();
        let mut sent = 0;
        while outbox.is_empty() {
            outbox
                .send(socket.as_fd(), &pattern(sent, READ_SIZE))
                .expect("sent or kept");
            sent += READ_SIZE;
        }
        // Now the socket has room again, and bytes are still owed.
        let mut arrived = received(&client);
        outbox
            .send(socket.as_fd(), &pattern(sent, 10))
            .expect("kept");
        outbox.flush(socket.as_fd()).expect("flushed");
        arrived.extend(received(&client));
        assert!(
            arrived == pattern(0, sent + 10),
            "the client got other bytes than it was owed"
        );
    }
    #[test]
    fn takes_its_memory_at_once_and_only_when_something_is_owed() {
        let memory = |outbox: &Outbox| outbox.bytes.as_ref().map_or(0, |bytes| bytes.capacity());
        let (socket, _client) = pair();
        let mut outbox = Outbox::new();
        outbox.send(socket.as_fd(), b"hello").expect("sent");
        assert_eq!(memory(&outbox), 0);
        while outbox.is_empty() {
            outbox.send(socket.as_fd(), &[0]).expect("sent or kept");
        }
        let at_first = memory(&outbox);
        // To the brim: a last read, begun just below the mark.
        let almost = vec![0; HIGH_WATERMARK - 1 - outbox.len()];
        outbox.send(socket.as_fd(), &almost).expect("kept");
        outbox.send(socket.as_fd(), &[0; READ_SIZE]).expect("kept");
        assert_eq!(memory(&outbox), at_first);
        assert!(at_first < 2 * outbox.len(), "{at_first} bytes are too many");
    }
}
