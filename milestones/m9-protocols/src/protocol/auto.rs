//! Echo for everybody but HTTP clients, who are known by the first thing they say.

use super::http::{self, Http};
use super::{Clients, Echo, Progress, Protocol};
use crate::reactor::Token;

/// Decides on the first read of a connection, once and for all: if it begins with a whole HTTP request
/// line, the connection speaks HTTP. Any other stream of bytes is echoed as it came, also one that has a
/// request line further on.
#[derive(Default)]
pub struct Auto {
    http: Http,
}

/// What a connection speaks.
#[derive(Default)]
pub enum State {
    /// It has said nothing yet.
    #[default]
    Undecided,
    Echo,
    Http(http::State),
}

impl Protocol for Auto {
    type State = State;

    // ANCHOR: received
    fn received(
        &mut self,
        client: Token,
        state: &mut State,
        bytes: &[u8],
        clients: &mut dyn Clients,
    ) -> Progress {
        if let State::Undecided = state {
            *state = if http::begins_with_request_line(bytes) {
                State::Http(http::State::default())
            } else {
                State::Echo
            };
        }
        match state {
            State::Http(state) => self.http.received(client, state, bytes, clients),
            _ => Echo.received(client, &mut (), bytes, clients),
        }
    }
    // ANCHOR_END: received

    fn overdue(&mut self, client: Token, clients: &mut dyn Clients) {
        // Only HTTP starts deadlines.
        self.http.overdue(client, clients);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::recorder::{CLIENT, Recorder};

    /// What comes back when `reads` arrive one after the other.
    fn replied(reads: &[&str]) -> String {
        let (mut auto, mut state) = (Auto::default(), State::default());
        let mut clients = Recorder::default();
        for read in reads {
            let progress = auto.received(CLIENT, &mut state, read.as_bytes(), &mut clients);
            assert_eq!(progress, Progress::Done);
        }
        String::from_utf8(clients.replied).expect("text")
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";

    #[test]
    fn a_first_read_with_a_whole_request_line_makes_it_http() {
        assert!(replied(&[REQUEST]).starts_with("HTTP/1.1 200 OK\r\n"));
        let (line, rest) = REQUEST.split_at(16);
        assert!(replied(&[line, rest]).starts_with("HTTP/1.1 200 OK\r\n"));
    }

    #[test]
    fn anything_else_is_echoed_for_good() {
        let (half, other_half) = REQUEST.split_at(9);
        for reads in [
            &["hello\n", REQUEST][..],
            &[half, other_half],
            &["\n", REQUEST],
            &[&format!("see:\n{REQUEST}")],
        ] {
            assert_eq!(replied(reads), reads.concat());
        }
    }
}
