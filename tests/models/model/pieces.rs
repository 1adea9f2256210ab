//! The outbox of a chat server, a queue of messages, against all bytes that it was ever given.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::rc::Rc;

use proptest::prelude::*;

use crate::outbox::Outbox;
use crate::sockets::{pair, pattern, read};

/// What a reference to a message counts for.
const REFERENCE_COST: usize = 32;

#[derive(Clone, Debug)]
enum Step {
    /// A message of this length becomes owed, so many times.
    Push(usize, usize),
    /// So many bytes are sent past the queue if it is empty, and through it if not.
    Send(usize),
    /// The socket is said to have room.
    Flush,
    /// The client reads so many bytes.
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || prop_oneof![1..10_usize, 1..300_usize, 1..20_000_usize];
    let step = prop_oneof![
        4 => (length(), 1..4_usize).prop_map(|(length, times)| Step::Push(length, times)),
        1 => (1..100_usize, 1..200_usize).prop_map(|(length, times)| Step::Push(length, times)),
        2 => length().prop_map(Step::Send),
        3 => Just(Step::Flush),
        3 => (1..40_000_usize).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..60)
}

/// The lengths of what is owed.
#[derive(Default)]
struct Model(VecDeque<usize>);

impl Model {
    fn debt(&self) -> usize {
        self.0.iter().map(|left| left + REFERENCE_COST).sum()
    }

    fn take(&mut self, mut sent: usize) {
        while let Some(left) = self.0.front_mut()
            && sent > 0
        {
            let taken = sent.min(*left);
            *left -= taken;
            sent -= taken;
            if *left == 0 {
                self.0.pop_front();
            }
        }
    }
}

fn check(room: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (socket, client) = pair(room);
    let socket = socket.as_fd();
    let mut outbox = Outbox::default();
    let mut model = Model::default();
    let mut stream = Vec::new();
    let mut arrived = Vec::new();
    for step in steps {
        match step {
            Step::Push(length, times) => {
                let message: Rc<[u8]> = pattern(stream.len(), length).collect();
                for _ in 0..times {
                    stream.extend_from_slice(&message);
                    model.0.push_back(length);
                    outbox.push(Rc::clone(&message));
                }
            }
            Step::Send(length) => {
                let bytes: Vec<u8> = pattern(stream.len(), length).collect();
                let taken = crate::send(&mut outbox, socket, &bytes).expect("sent or kept");
                prop_assert!(model.0.is_empty() || taken == 0, "sent around what waits");
                if taken < length {
                    model.0.push_back(length - taken);
                }
                stream.extend(bytes);
            }
            Step::Flush => {
                model.take(outbox.flush(socket).expect("flushed"));
                prop_assert_eq!(
                    outbox.flush(socket),
                    Ok(0),
                    "the socket had room, and was not used"
                );
            }
            Step::Read(most) => arrived.extend(read(&client, most)),
        }
        prop_assert_eq!(outbox.debt(), model.debt());
        prop_assert_eq!(outbox.is_empty(), model.0.is_empty());
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
