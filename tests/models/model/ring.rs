//! The outbox of an echo server, a ring of bytes, against all bytes that it was ever given.

use std::os::fd::AsFd;

use proptest::prelude::*;

use crate::connection::READ_SIZE;
use crate::outbox::{HIGH_WATERMARK, LOW_WATERMARK, Outbox};
use crate::sockets::{pair, pattern, read};

// Between the two marks, at least one read has room.
const _: () = assert!(LOW_WATERMARK + READ_SIZE <= HIGH_WATERMARK);

#[derive(Clone, Debug)]
enum Step {
    /// The server sends so many bytes, as many as a read may give, unless the outbox has reached the high watermark.
    Send(usize),
    /// The socket is said to have room.
    Flush,
    /// The client reads so many.
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop_oneof![1..100_usize, 1..=READ_SIZE].prop_map(Step::Send),
        2 => Just(Step::Flush),
        3 => (1..40_000_usize).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..60)
}

/// What an outbox says of how many bytes the socket took. That of the fifth milestone says nothing.
trait Told {
    fn is(&self, taken: usize) -> bool;
}

impl Told for nix::Result<()> {
    fn is(&self, _taken: usize) -> bool {
        self.is_ok()
    }
}

impl Told for nix::Result<usize> {
    fn is(&self, taken: usize) -> bool {
        *self == Ok(taken)
    }
}

fn check(room: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (socket, client) = pair(room);
    let socket = socket.as_fd();
    let mut outbox = Outbox::new();
    let mut stream = Vec::new();
    let mut arrived = Vec::new();
    for step in steps {
        let owed = outbox.len();
        match step {
            Step::Send(length) if owed < HIGH_WATERMARK => {
                let bytes: Vec<u8> = pattern(stream.len(), length).collect();
                let told = outbox.send(socket, &bytes);
                stream.extend(bytes);
                let taken = owed + length - outbox.len();
                prop_assert!(told.is(taken));
                prop_assert!(owed == 0 || taken == 0, "sent around what waits");
            }
            Step::Send(_) => {}
            Step::Flush => {
                let told = outbox.flush(socket);
                prop_assert!(told.is(owed - outbox.len()));
                let left = outbox.len();
                outbox.flush(socket).expect("flushed");
                prop_assert_eq!(outbox.len(), left, "the socket had room, and was not used");
            }
            Step::Read(most) => arrived.extend(read(&client, most)),
        }
        prop_assert_eq!(outbox.is_empty(), matches!(outbox.len(), 0));
        prop_assert!(outbox.len() < HIGH_WATERMARK + READ_SIZE);
        prop_assert!(arrived.len() + outbox.len() <= stream.len());
    }
    while arrived.len() < stream.len() {
        outbox.flush(socket).expect("flushed");
        let more = read(&client, stream.len());
        prop_assert!(!more.is_empty(), "bytes are lost");
        arrived.extend(more);
    }
    prop_assert!(outbox.is_empty());
    prop_assert!(arrived == stream, "other bytes arrive than were sent");
    Ok(())
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn the_outbox_keeps_the_order_and_every_byte(room in 1..20_000_usize, steps in steps()) {
        check(room, steps)?;
    }
}
