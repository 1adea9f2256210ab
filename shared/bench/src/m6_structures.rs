//! The data structures of `m6-10k-tuning`, without its server and without sockets, so that they can be tried with more
//! entries than this machine could have connections.
//!
//! The files are those of the milestone. Each operation here is what its event loop does with them: once for an event,
//! or once for a client that comes or goes. `cargo bench -p bench --bench structures` and
//! the bench itself run the same ones.

#[path = "../../../milestones/m6-10k-tuning/src/connection.rs"]
#[allow(
    dead_code,
    missing_docs,
    reason = "part of a program, of which this uses a part"
)]
mod connection;
#[path = "../../../milestones/m6-10k-tuning/src/connections.rs"]
#[allow(
    dead_code,
    missing_docs,
    reason = "part of a program, of which this uses a part"
)]
mod connections;
#[path = "../../../milestones/m6-10k-tuning/src/idle.rs"]
#[allow(
    dead_code,
    missing_docs,
    reason = "part of a program, of which this uses a part"
)]
mod idle;
#[path = "../../../milestones/m6-10k-tuning/src/outbox.rs"]
#[allow(
    dead_code,
    missing_docs,
    reason = "part of a program, of which this uses a part"
)]
mod outbox;
#[path = "../../../milestones/m6-10k-tuning/src/token.rs"]
#[allow(
    dead_code,
    missing_docs,
    reason = "part of a program, of which this uses a part"
)]
mod token;

use std::collections::VecDeque;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use connection::Connection;
use connections::Connections;
use idle::IdleList;
use outbox::Outbox;
use token::Token;

/// The most that an outbox ever owes its client, in bytes: a read begins below the high watermark.
pub const MOST_OWED: usize = outbox::HIGH_WATERMARK + connection::READ_SIZE;

/// Takes the place of a `Connection`, which needs a socket: as large, aligned alike, and with a value that cannot be, so
/// that an empty slot of the table needs no flag either.
struct StandIn {
    _descriptor: NonZeroU32,
    _flags: [u8; size_of::<Connection>() - size_of::<NonZeroU32>() - size_of::<Outbox>()],
    _outbox: Outbox,
}

const _: () = assert!(size_of::<Option<StandIn>>() == size_of::<Option<Connection>>());
const _: () = assert!(align_of::<StandIn>() == align_of::<Connection>());

impl StandIn {
    fn new() -> Self {
        Self {
            _descriptor: NonZeroU32::MIN,
            _flags: [0; _],
            _outbox: Outbox::new(),
        }
    }
}

/// Connection table: from the token of an event to its connection.
pub fn look_up(entries: u32) -> impl FnMut(u32) {
    let mut table = filled(entries);
    move |slot| {
        black_box(table.get_mut(Token::new(slot, 0)));
    }
}

/// Connection table: a client leaves and another comes, which gets its slot.
pub fn replace(entries: u32) -> impl FnMut(u32) {
    let mut table = filled(entries);
    move |slot| {
        let token = table.token(slot);
        black_box(table.remove(token));
        black_box(table.insert(StandIn::new()));
    }
}

fn filled(entries: u32) -> Connections<StandIn> {
    let mut table = Connections::with_capacity(entries as usize);
    for _ in 0..entries {
        table.insert(StandIn::new());
    }
    table
}

/// Idle list: bytes have moved on a connection, so it goes to the end; and the look at the oldest that each turn takes.
pub fn touch(entries: u32) -> impl FnMut(u32) {
    let mut idle = IdleList::with_capacity(entries as usize, Duration::from_secs(60));
    for slot in 0..entries {
        idle.insert(slot, 0);
    }
    let mut now = 0;
    move |slot| {
        now += 1;
        idle.touch(slot, now / 1024);
        black_box(idle.until_next(now / 1024));
    }
}

/// Ready list: the first has its turn and goes to the end, where others wait.
pub fn take_turn(entries: u32) -> impl FnMut(u32) {
    let mut ready: VecDeque<Token> = (0..entries).map(|slot| Token::new(slot, 0)).collect();
    move |_| {
        if let Some(token) = ready.pop_front() {
            ready.push_back(black_box(token));
        }
    }
}

/// Outbox: the look whether anything is owed, which every event of a connection takes.
pub fn look_into_outbox(entries: u32) -> impl FnMut(u32) {
    let outboxes: Vec<Outbox> = (0..entries).map(|_| Outbox::new()).collect();
    move |slot| {
        black_box(outboxes[slot as usize].is_empty());
    }
}

/// All slots once, in an order in which nothing tells the next one: what many clients do to a table.
pub fn shuffled(entries: u32) -> Vec<u32> {
    let mut slots: Vec<u32> = (0..entries).collect();
    // Fisher and Yates, with a generator (Knuth's MMIX) that always gives the same order.
    let mut state = 1_u64;
    for last in (1..slots.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        slots.swap(last, (state >> 33) as usize % (last + 1));
    }
    slots
}
