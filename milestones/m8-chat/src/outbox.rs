//! The outbox: messages that are owed to a client and that its socket would not take yet.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, sendmsg};

use crate::room::Message;

/// What a reference to a message counts for, in bytes: many owed messages of one byte are not free either.
const REFERENCE_COST: usize = 32;

/// Most messages handed to the kernel by one call.
const MOST_PIECES: usize = 64;

// ANCHOR: outbox
/// Messages in the order in which they are owed.
///
/// It holds references: however many clients are owed a message, there is one copy of it. Nearly all
/// outboxes are empty nearly all the time. An empty one is a null pointer, 8 bytes, and has no memory
/// behind it.
#[derive(Default)]
pub struct Outbox {
    pieces: Option<Box<Pieces>>,
}

#[derive(Default)]
struct Pieces {
    queue: VecDeque<Message>,
    /// How many bytes of the first message have been sent.
    offset: usize,
    /// What all of them count for, in bytes.
    debt: usize,
}
// ANCHOR_END: outbox

impl Outbox {
    /// What the client is owed, in bytes; each reference to a message counts as well.
    pub fn debt(&self) -> usize {
        self.pieces.as_ref().map_or(0, |pieces| pieces.debt)
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_none()
    }

    /// Adds a message, after all that is owed already.
    pub fn push(&mut self, message: Message) {
        let pieces = self.pieces.get_or_insert_default();
        pieces.debt += message.len() + REFERENCE_COST;
        pieces.queue.push_back(message);
    }

    /// Sends what the socket will take now, and returns how many bytes that was. If anything is left, an
    /// event will tell when there is room again.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> nix::Result<usize> {
        let mut all_sent = 0;
        while let Some(pieces) = &mut self.pieces {
            let mut slices = [IoSlice::new(&[]); MOST_PIECES];
            let offered = pieces.offer(&mut slices);
            let count = pieces.queue.len().min(MOST_PIECES);
            let sent = send_some(socket, &slices[..count])?;
            pieces.take(sent);
            all_sent += sent;
            if pieces.queue.is_empty() {
                self.pieces = None;
            }
            if sent < offered {
                break;
            }
        }
        Ok(all_sent)
    }
}

impl Pieces {
    /// Fills `slices` with what is owed first, and returns how many bytes that is.
    fn offer<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.offset;
        let mut offered = 0;
        for (slice, message) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(&message[skip..]);
            offered += slice.len();
            skip = 0;
        }
        offered
    }

    /// Forgets `sent` bytes.
    fn take(&mut self, mut sent: usize) {
        while let Some(first) = self.queue.front() {
            let left = first.len() - self.offset;
            if sent < left {
                self.offset += sent;
                self.debt -= sent;
                return;
            }
            sent -= left;
            self.debt -= left + REFERENCE_COST;
            self.offset = 0;
            self.queue.pop_front();
        }
    }
}

/// Sends as much of `slices` as the socket takes, which may be nothing. Less than all means that its
/// buffer is full and that an event will tell when it has room again.
fn send_some(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> nix::Result<usize> {
    loop {
        // MSG_NOSIGNAL: a client that has gone is an error to handle, not a SIGPIPE to die of. It is why
        // this is no `writev`, which takes no flags.
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(socket.as_raw_fd(), slices, &[], flags, None) {
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
    use std::rc::Rc;

    /// A non-blocking socket and the client at its other end.
    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).expect("a pair of sockets")
    }

    /// All that the client can read now.
    fn received(client: &OwnedFd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n) = recv(client.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    }

    #[test]
    fn many_messages_leave_in_order_and_leave_nothing_behind() {
        let (socket, client) = pair();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for number in 0..MOST_PIECES + 10 {
            let message = format!("{number}\n");
            expected.extend_from_slice(message.as_bytes());
            outbox.push(message.as_bytes().into());
        }
        assert_eq!(outbox.flush(socket.as_fd()), Ok(expected.len()));
        assert_eq!(received(&client), expected);
        assert!(outbox.is_empty());
        assert_eq!(outbox.debt(), 0);
    }

    #[test]
    fn loses_and_reorders_nothing_when_the_socket_is_full() {
        let (socket, client) = pair();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for number in 0_usize..3000 {
            let message = number.to_string().repeat(1 + number % 97);
            expected.extend_from_slice(message.as_bytes());
            outbox.push(message.as_bytes().into());
        }
        let mut arrived = Vec::new();
        while !outbox.is_empty() {
            outbox.flush(socket.as_fd()).expect("flushed");
            arrived.extend(received(&client));
        }
        assert!(
            arrived == expected,
            "the client got other bytes than it was owed"
        );
        assert_eq!(outbox.debt(), 0);
    }

    #[test]
    fn a_message_owed_to_many_is_there_once() {
        let message: Message = vec![0; 1000].into();
        let mut outboxes: Vec<Outbox> = (0..100).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            outbox.push(Rc::clone(&message));
        }
        assert_eq!(Rc::strong_count(&message), 101);
        assert_eq!(outboxes[0].debt(), 1000 + REFERENCE_COST);
    }
}
