//! The checks about a chat server.

use crate::{Client, Trouble};

/// Gives a name that nobody else has, and hears who is in the room.
pub(crate) fn join_under_any_name(client: &Client) -> Result<(), Trouble> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    client.receive_line()?;
    client.send(format!("guest{number}\n").as_bytes())?;
    client.receive_line().map(drop)
}
