//! The data structures of milestone 8 against simple models that have no need to be fast.
//!
//! The files are those of the milestone, without its event loop; that their own tests come along, and
//! run once more, does no harm. Each model is in a file of its own, below `model/`, and is shared by the
//! milestones that have what it models.

#[path = "../../milestones/m8-chat/src"]
#[allow(
    dead_code,
    missing_docs,
    unused_imports,
    reason = "part of a program, of which this uses a part"
)]
mod milestone {
    pub mod connection;
    pub mod connections;
    pub mod fan_out;
    pub mod idle;
    pub mod lines;
    pub mod outbox;
    pub mod room;
    pub mod stats;
    pub mod token;
}

mod config;
mod sockets;
mod model {
    mod connections;
    mod fan_out;
    mod idle;
    mod lines;
    mod pieces;
    mod statistics;
    mod token;
}

use connections::Connections;
use idle::IdleList;
use milestone::{connection, connections, fan_out, idle, lines, outbox, room, stats, token};
use outbox::Outbox;
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;
use room::Message;
use std::os::fd::BorrowedFd;
use token::Token;

fn empty_table() -> Connections<usize> {
    Connections::with_capacity(4)
}

/// What else a table can be asked: for the tokens of those that are in it.
fn check_tokens(table: &Connections<usize>, live: &[Token]) -> Result<(), TestCaseError> {
    for &token in live {
        prop_assert_eq!(table.token(token.slot()), token);
    }
    prop_assert_eq!(table.tokens(), live);
    Ok(())
}

/// What else an idle list can be asked: whether somebody is in it.
fn check_contains(idle: &IdleList, slot: u32, is_in_it: bool) -> Result<(), TestCaseError> {
    prop_assert_eq!(idle.contains(slot), is_in_it);
    Ok(())
}

type Client = connection::Connection;

fn flush(client: &mut Client) -> nix::Result<()> {
    client.flush(&mut connection::Shared::new())
}

/// Sends what is not shared with others. Here nothing is: it is a message like others.
fn send(outbox: &mut Outbox, _socket: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    outbox.push(bytes.into());
    Ok(0)
}
