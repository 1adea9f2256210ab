//! Fan-out against a queue, and a list of those who are behind.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use proptest::prelude::*;

use crate::fan_out::FanOut;
use crate::sockets::{pair, read};
use crate::token::Token;
use crate::{Client, Message};

/// Above this debt, in bytes, a client loses its connection at once.
const HARD_LIMIT: usize = 4 << 20;

/// Above this debt, in bytes, it has so many milliseconds to catch up.
const SOFT_LIMIT: usize = 3 << 19;
const PATIENCE: u64 = 10_000;

/// With so many messages not yet offered to a socket, no more input is dealt with.
const BACKLOG_LIMIT: usize = 65_536;

const CLIENTS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// A client becomes owed a message of this length, so many times.
    Owe(usize, usize, usize),
    /// The next in the queue is offered what it is owed.
    Next,
    /// A client reads so much, and its socket is said to have room.
    Read(usize, usize),
    /// A client gets what it is owed, and nothing more.
    Finish(usize),
    /// A connection is closed.
    Forget(usize),
    /// Milliseconds pass.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 0..CLIENTS;
    let step = prop_oneof![
        8 => (client(), 1..2000_usize).prop_map(|(client, length)| Step::Owe(client, length, 1)),
        4 => (client(), 1 << 18..3_usize << 19).prop_map(|(client, length)| Step::Owe(client, length, 1)),
        1 => (client(), 20_000..70_000_usize).prop_map(|(client, times)| Step::Owe(client, 1, times)),
        8 => Just(Step::Next),
        3 => (client(), 1..4_usize << 20).prop_map(|(client, most)| Step::Read(client, most)),
        1 => client().prop_map(Step::Finish),
        1 => client().prop_map(Step::Forget),
        2 => (0..6000_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..80)
}

/// A client as the model sees it.
struct Known {
    token: Token,
    connection: Client,
    reader: OwnedFd,
    flushing: bool,
    finished: bool,
}

impl Known {
    fn new(slot: usize) -> Self {
        let (socket, reader) = pair(4000);
        Self {
            token: Token::new(slot as u32, 0),
            connection: Client::new(socket),
            reader,
            flushing: false,
            finished: false,
        }
    }

    fn is_blocked(&self) -> bool {
        self.connection.debt() > 0 && !self.flushing
    }
}

#[derive(Default)]
struct Model {
    queue: VecDeque<usize>,
    backlog: usize,
    /// Slots, and since when.
    lagging: VecDeque<(usize, u64)>,
}

impl Model {
    fn relieve(&mut self, slot: usize, debt: usize) {
        if debt <= SOFT_LIMIT {
            self.lagging.retain(|&(other, _)| other != slot);
        }
    }
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut clients: Vec<Known> = (0..CLIENTS).map(Known::new).collect();
    let mut fan_out = FanOut::with_capacity(CLIENTS);
    let mut model = Model::default();
    let mut now = 0;
    for step in steps {
        match step {
            Step::Owe(slot, length, times) => {
                let client = &mut clients[slot];
                let message: Message = vec![b'x'; length].into();
                for _ in 0..times {
                    let is_blocked = client.is_blocked();
                    let debt = client.connection.debt();
                    let goes_on = fan_out.owe(client.token, &mut client.connection, &message, now);
                    if client.finished {
                        prop_assert!(goes_on);
                        prop_assert_eq!(client.connection.debt(), debt, "it gets nothing more");
                    } else if is_blocked {
                        let debt = client.connection.debt();
                        prop_assert_eq!(goes_on, debt <= HARD_LIMIT, "{} bytes are owed", debt);
                        let is_known = model.lagging.iter().any(|&(other, _)| other == slot);
                        if debt > SOFT_LIMIT && !is_known {
                            model.lagging.push_back((slot, now));
                        }
                    } else {
                        prop_assert!(goes_on, "its socket has not been offered anything yet");
                        model.backlog += 1;
                        if !client.flushing {
                            client.flushing = true;
                            model.queue.push_back(slot);
                        }
                    }
                }
            }
            Step::Next => {
                let next = model.queue.pop_front();
                if model.queue.is_empty() {
                    model.backlog = 0;
                }
                prop_assert_eq!(fan_out.next(), next.map(|slot| Token::new(slot as u32, 0)));
                if let Some(slot) = next {
                    let client = &mut clients[slot];
                    client.flushing = false;
                    crate::flush(&mut client.connection).expect("flushed");
                    fan_out.relieve(client.token, &client.connection);
                    model.relieve(slot, client.connection.debt());
                }
            }
            Step::Read(slot, most) => {
                let client = &mut clients[slot];
                let mut left = most;
                // As many events as it takes.
                while left > 0 && client.is_blocked() {
                    let some = read(&client.reader, left.min(1 << 16)).len();
                    left -= some;
                    crate::flush(&mut client.connection).expect("flushed");
                    fan_out.relieve(client.token, &client.connection);
                    model.relieve(slot, client.connection.debt());
                    if some == 0 {
                        break;
                    }
                }
            }
            Step::Finish(slot) => {
                clients[slot].connection.finish();
                clients[slot].finished = true;
            }
            Step::Forget(slot) => {
                fan_out.forget(clients[slot].token);
                model.lagging.retain(|&(other, _)| other != slot);
            }
            Step::Pass(milliseconds) => now += milliseconds,
        }
        for client in &clients {
            prop_assert_eq!(client.connection.is_blocked(), client.is_blocked());
        }
        prop_assert_eq!(fan_out.is_empty(), model.queue.is_empty());
        prop_assert_eq!(fan_out.is_busy(), model.backlog >= BACKLOG_LIMIT);
        let oldest = model.lagging.front().copied();
        let left = oldest.map(|(_, since)| (since + PATIENCE).saturating_sub(now));
        prop_assert_eq!(fan_out.until_next(now), left);
        let expired = oldest.filter(|_| left == Some(0));
        prop_assert_eq!(fan_out.expired(now), expired.map(|(slot, _)| slot as u32));
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn whoever_is_owed_something_has_a_turn_and_whoever_is_behind_has_a_limit(steps in steps()) {
        check(steps)?;
    }
}

#[test]
fn the_limits_are_in_reach_and_not_to_be_passed() {
    const REFERENCE_COST: usize = 32;
    let mut client = Known::new(0);
    let mut fan_out = FanOut::with_capacity(1);
    let mut owe = |client: &mut Known, length: usize, now| {
        let message: Message = vec![b'x'; length].into();
        let goes_on = fan_out.owe(client.token, &mut client.connection, &message, now);
        (goes_on, fan_out.until_next(now))
    };
    owe(&mut client, 1 << 20, 0);
    // Its socket is full from here on.
    crate::flush(&mut client.connection).expect("flushed");
    let left = SOFT_LIMIT - client.connection.debt() - REFERENCE_COST;
    assert_eq!(owe(&mut client, left, 1), (true, None));
    assert_eq!(owe(&mut client, 1, 2), (true, Some(PATIENCE)));
    let left = HARD_LIMIT - client.connection.debt() - REFERENCE_COST;
    assert_eq!(owe(&mut client, left, 3), (true, Some(PATIENCE - 1)));
    assert_eq!(owe(&mut client, 1, 4), (false, Some(PATIENCE - 2)));
    // It catches up as far as the soft limit.
    while client.connection.debt() > SOFT_LIMIT {
        read(&client.reader, client.connection.debt() - SOFT_LIMIT);
        crate::flush(&mut client.connection).expect("flushed");
        fan_out.relieve(client.token, &client.connection);
    }
    assert_eq!(fan_out.until_next(5), None);
}
