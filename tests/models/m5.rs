//! The data structures of milestone 5 against simple models that have no need to be fast.
//!
//! The files are those of the milestone, without its event loop; that their own tests come along, and
//! run once more, does no harm. Each model is in a file of its own, below `model/`, and is shared by the
//! milestones that have what it models.

#[path = "../../milestones/m5-connection-contexts/src"]
#[allow(
    dead_code,
    missing_docs,
    unused_imports,
    reason = "part of a program, of which this uses a part"
)]
mod milestone {
    pub mod connection;
    pub mod connections;
    pub mod outbox;
    pub mod token;
}

mod config;
mod sockets;
mod model {
    mod connections;
    mod echo;
    mod ring;
    mod token;
}

use connection::{Connection, Next, Readiness};
use connections::Connections;
use milestone::{connection, connections, outbox, token};
use proptest::test_runner::TestCaseError;
use token::Token;

fn empty_table() -> Connections<usize> {
    Connections::new()
}

/// What else a table can be asked: this one, nothing.
fn check_tokens(_: &Connections<usize>, _: &[Token]) -> Result<(), TestCaseError> {
    Ok(())
}

/// What connections share: here, nothing.
type Shared = ();

fn shared() -> Shared {}

fn on_event(connection: &mut Connection, readiness: Readiness, _: &mut Shared) -> Next {
    connection.on_event(readiness)
}

fn on_resume(connection: &mut Connection, _: &mut Shared) -> Next {
    connection.on_resume()
}

/// What is counted: here, nothing.
fn check_counters(_: &Shared, _: usize, _: usize) -> Result<(), TestCaseError> {
    Ok(())
}
