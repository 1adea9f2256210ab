//! Protocols: what is said over a connection. They know nothing of sockets, readiness or epoll.
//!
//! The [reactor](crate::reactor) tells a [`Protocol`] what happens, and the protocol answers through
//! [`Clients`]. Both are traits, so a reactor serves any protocol, and a protocol can be tried out without
//! a reactor.

mod auto;
mod chat;
mod echo;
mod http;
mod lines;

use std::rc::Rc;
use std::time::Duration;

use crate::reactor::Token;

pub use auto::Auto;
pub use chat::Chat;
pub use echo::Echo;
pub use http::Http;

/// A message as it goes to a client: one copy, shared by all who are owed it.
pub type Message = Rc<[u8]>;

/// Whether a protocol has dealt with all the bytes that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All that can be dealt with before more arrives.
    Done,
    /// Not yet: it wants to go on in the next turn, after others have had theirs.
    More,
}

// ANCHOR: protocol
/// What is said over connections, told event by event.
pub trait Protocol {
    /// What it has to remember about each client. An idle client should cost next to nothing.
    type State: Default;

    /// Whether a client that is owed much is not read from until it has caught up. Right where what it is
    /// owed comes of what it sends; wrong where it comes of what others send.
    const BACK_PRESSURE: bool = true;

    /// How long after [`Clients::start_deadline`] a client is [`overdue`](Self::overdue).
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A client has connected.
    fn opened(&mut self, _client: Token, _clients: &mut dyn Clients) {}

    /// Bytes have arrived, cut anywhere. They are gone after the call: what is needed later is kept in
    /// `state`.
    fn received(
        &mut self,
        client: Token,
        state: &mut Self::State,
        bytes: &[u8],
        clients: &mut dyn Clients,
    ) -> Progress;

    /// The turn after one that ended in [`Progress::More`].
    fn resumed(
        &mut self,
        _client: Token,
        _state: &mut Self::State,
        _clients: &mut dyn Clients,
    ) -> Progress {
        Progress::Done
    }

    /// The client has no more to say. It may still read, and gets what it is owed.
    fn ended(&mut self, _client: Token, _clients: &mut dyn Clients) {}

    /// The connection has gone, for whatever reason, whether or not it had [`ended`](Self::ended).
    fn closed(&mut self, _client: Token, _clients: &mut dyn Clients) {}

    /// The deadline that the protocol had started for this client is over.
    fn overdue(&mut self, _client: Token, _clients: &mut dyn Clients) {}
}
// ANCHOR_END: protocol

// ANCHOR: clients
/// What a protocol can do for its clients.
pub trait Clients {
    /// Sends bytes to the client whose turn it is, after what it is owed already.
    fn reply(&mut self, bytes: &[u8]);

    /// Sends a message to any client, after what it is owed already. To one that has gone or was
    /// dismissed, nothing is sent.
    fn tell(&mut self, client: Token, message: &Message);

    /// Ends a connection when the client has what it is owed. What it still says is dropped.
    fn dismiss(&mut self, client: Token);

    /// Starts the time after which the client is overdue, or starts it anew.
    fn start_deadline(&mut self, client: Token);

    /// The client has done what it was waited for.
    fn clear_deadline(&mut self, client: Token);

    /// Whether so much is waiting to be sent that no more input should be dealt with in this turn.
    fn is_busy(&self) -> bool;
}
// ANCHOR_END: clients

/// A stand-in for the reactor: it writes down what a protocol does.
#[cfg(test)]
mod recorder {
    use super::*;

    /// The client whose turn it is.
    pub const CLIENT: Token = Token::new(0, 0);

    #[derive(Default)]
    pub struct Recorder {
        /// What was replied to the client whose turn it was.
        pub replied: Vec<u8>,
        /// What was told to whom, and who was dismissed, in order.
        pub told: Vec<String>,
        pub dismissed: bool,
        pub has_deadline: bool,
        pub busy: bool,
    }

    impl Recorder {
        /// What was told since the last time.
        pub fn take_told(&mut self) -> Vec<String> {
            std::mem::take(&mut self.told)
        }
    }

    impl Clients for Recorder {
        fn reply(&mut self, bytes: &[u8]) {
            self.replied.extend_from_slice(bytes);
        }

        fn tell(&mut self, client: Token, message: &Message) {
            let text = String::from_utf8_lossy(message);
            self.told.push(format!("to {}: {text}", client.slot()));
        }

        fn dismiss(&mut self, client: Token) {
            self.dismissed = true;
            self.told.push(format!("dismiss {}", client.slot()));
        }

        fn start_deadline(&mut self, _client: Token) {
            self.has_deadline = true;
        }

        fn clear_deadline(&mut self, _client: Token) {
            self.has_deadline = false;
        }

        fn is_busy(&self) -> bool {
            self.busy
        }
    }
}
