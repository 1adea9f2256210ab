//! Echo (RFC 862): what a client sends comes back to it.

use super::{Clients, Progress, Protocol};
use crate::reactor::Token;

/// The protocol that has nothing to remember.
pub struct Echo;

// ANCHOR: echo
impl Protocol for Echo {
    type State = ();

    fn received(
        &mut self,
        _client: Token,
        _state: &mut (),
        bytes: &[u8],
        clients: &mut dyn Clients,
    ) -> Progress {
        clients.reply(bytes);
        Progress::Done
    }
}
// ANCHOR_END: echo

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::recorder::{CLIENT, Recorder};

    #[test]
    fn sends_back_what_it_gets() {
        let mut clients = Recorder::default();
        for part in [&b"hello"[..], b"\0\xff\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(
                Echo.received(CLIENT, &mut (), part, &mut clients),
                Progress::Done
            );
        }
        assert_eq!(clients.replied, b"hello\0\xff\r\nGET / HTTP/1.1\r\n\r\n");
    }
}
