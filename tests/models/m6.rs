//! The data structures of milestone 6 against simple models that have no need to be fast.
//!
//! The files are those of the milestone, without its event loop; that their own tests come along, and
//! run once more, does no harm. Each model is in a file of its own, below `model/`, and is shared by the
//! milestones that have what it models.

#[path = "../../milestones/m6-10k-tuning/src"]
#[allow(
    dead_code,
    missing_docs,
    unused_imports,
    reason = "part of a program, of which this uses a part"
)]
mod milestone {
    pub mod connection;
    pub mod connections;
    pub mod idle;
    pub mod outbox;
    pub mod token;
}

mod config;
mod sockets;
mod model {
    mod connections;
    mod echo;
    mod idle;
    mod ring;
    mod token;
}

use connection::{Connection, Next, Readiness, Shared};
use connections::Connections;
use idle::IdleList;
use milestone::{connection, connections, idle, outbox, token};
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;
use token::Token;

fn empty_table() -> Connections<usize> {
    Connections::with_capacity(4)
}

/// What else a table can be asked: for the tokens of those that are in it.
fn check_tokens(table: &Connections<usize>, live: &[Token]) -> Result<(), TestCaseError> {
    for &token in live {
        prop_assert_eq!(table.token(token.slot()), token);
    }
    Ok(())
}

/// What else an idle list can be asked: this one, nothing.
fn check_contains(_: &IdleList, _: u32, _: bool) -> Result<(), TestCaseError> {
    Ok(())
}

fn shared() -> Shared {
    Shared::new()
}

fn on_event(connection: &mut Connection, readiness: Readiness, shared: &mut Shared) -> Next {
    connection.on_event(readiness, shared)
}

fn on_resume(connection: &mut Connection, shared: &mut Shared) -> Next {
    connection.on_resume(shared)
}

/// What is counted: bytes, in both directions together.
fn check_counters(shared: &Shared, received: usize, sent: usize) -> Result<(), TestCaseError> {
    prop_assert_eq!(shared.bytes_moved, (received + sent) as u64);
    Ok(())
}
