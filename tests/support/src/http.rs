//! What an HTTP server owes its clients that answers a request with the request (as TRACE does, RFC
//! 9110 §9.3.8): the checks about requests, answers and connections, each of which takes a running
//! server.
//!
//! A server that decides on the first read of a connection whether it is HTTP passes them as well,
//! as long as that read holds a whole request line: so everything here is sent at once up to the
//! end of its first line.

mod auto;
mod connections;
mod random;
mod requests;
mod response;

use std::io::{ErrorKind, Read};

use crate::{Client, ClientOptions, PATIENCE, Server, Trouble, explain::End};

pub use auto::{
    decides_on_the_first_read, echoes_a_file_with_a_request_in_its_middle,
    serves_echo_and_http_side_by_side,
};
pub use connections::{
    answers_pipelined_requests_in_order, answers_what_arrived_before_the_half_close,
    asks_for_a_body_that_waits_to_be_asked_for, closes_when_it_was_told_to,
    costs_one_receive_and_one_send, keeps_unread_answers_bounded,
    refuses_a_request_that_takes_too_long, stays_when_it_was_told_to,
};
pub use random::survives_random_requests;
pub use requests::{
    answers_head_without_a_body, answers_with_the_request, refuses_what_begins_with_no_request,
    refuses_what_is_malformed, refuses_what_is_too_large, takes_bodies_up_to_the_limit,
    takes_requests_however_they_are_split, takes_requests_split_anywhere,
};

use response::Response;

/// Most bytes of a request line and header fields that our server takes.
const LONGEST_HEAD: usize = 8 * 1024;

/// Most header fields.
const MOST_FIELDS: usize = 64;

/// Most bytes of a body.
const LONGEST_BODY: usize = 64 * 1024;

/// A request that nothing is wrong with.
const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The same, and the connection is to end after it.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A client that reads answers.
#[derive(Debug)]
struct Browser {
    client: Client,
    /// Received, and not taken as an answer yet.
    received: Vec<u8>,
}

impl Browser {
    fn connect(server: &Server) -> Result<Browser, Trouble> {
        Ok(Browser::new(Client::connect(server)?))
    }

    fn new(client: Client) -> Browser {
        Browser {
            client,
            received: Vec::new(),
        }
    }

    fn send(&self, bytes: impl AsRef<[u8]>) -> Result<(), Trouble> {
        self.client.send(bytes.as_ref())
    }

    /// The next answer, to a request of this method.
    fn answer(&mut self, method: &str) -> Result<Response, Trouble> {
        loop {
            match Response::parse(&self.received, method == "HEAD") {
                Ok(Some((response, end))) => {
                    self.received.drain(..end);
                    return Ok(response);
                }
                Ok(None) => self.receive()?,
                Err(what) => return Err(malformed(&what, &self.received)),
            }
        }
    }

    fn receive(&mut self) -> Result<(), Trouble> {
        let mut buffer = [0; 64 * 1024];
        let stream = self.client.stream();
        let end = match stream.set_read_timeout(Some(PATIENCE)) {
            Err(error) => End::Error(error.kind()),
            Ok(()) => loop {
                match (&*stream).read(&mut buffer) {
                    Ok(0) => break End::Eof,
                    Ok(n) => {
                        self.received.extend_from_slice(&buffer[..n]);
                        return Ok(());
                    }
                    Err(error) => match error.kind() {
                        ErrorKind::Interrupted => {}
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                            break End::Silence(PATIENCE);
                        }
                        ErrorKind::ConnectionReset => break End::Reset,
                        kind => break End::Error(kind),
                    },
                }
            },
        };
        Err(Trouble::Server(match self.received.len() {
            0 => format!("no answer came; instead: {end}"),
            _ => format!(
                "the answer is not complete: \"{}\", then {end}",
                excerpt(&self.received)
            ),
        }))
    }

    /// The request is answered by itself.
    fn gets_it_back(&mut self, request: &str) -> Result<Response, Trouble> {
        let method = request.split(' ').next().unwrap_or_default();
        let response = self.answer(method)?;
        let wrong = |what: &str| {
            Err(Trouble::Server(format!(
                "\"{}\" was answered with {what}: \"{}\"",
                excerpt(request.as_bytes()),
                excerpt(&response.head)
            )))
        };
        if response.status != 200 {
            return wrong("another status than 200");
        }
        if method != "HEAD" && response.body != request.as_bytes() {
            Trouble::compare(request.as_bytes(), &response.body)?;
        }
        Ok(response)
    }

    /// The request is refused with one of these statuses, and the connection ends in good order.
    fn is_refused(&mut self, statuses: &[u16]) -> Result<(), Trouble> {
        let response = self.answer("GET")?;
        if !statuses.contains(&response.status) {
            let statuses: Vec<_> = statuses.iter().map(u16::to_string).collect();
            return Err(Trouble::Server(format!(
                "the answer should be {}; it is \"{}\"",
                statuses.join(" or "),
                excerpt(&response.head)
            )));
        }
        if !response.says_close() {
            return Err(Trouble::Server(format!(
                "after a refusal the connection ends, which is to be said (Connection: close); the \
                 answer is \"{}\"",
                excerpt(&response.head)
            )));
        }
        self.ends()
    }

    /// Nothing more comes but the end of the connection.
    fn ends(&mut self) -> Result<(), Trouble> {
        if !self.received.is_empty() {
            return Err(Trouble::Server(format!(
                "after the last answer comes \"{}\"",
                excerpt(&self.received)
            )));
        }
        self.client.expect_eof()
    }
}

fn malformed(what: &str, received: &[u8]) -> Trouble {
    Trouble::Server(format!(
        "what came is no HTTP answer: {what}: \"{}\"",
        excerpt(received)
    ))
}

/// Bytes as a failure shows them.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 300;
    match bytes.get(..SHOWN) {
        Some(beginning) => format!("{}…", beginning.escape_ascii()),
        None => bytes.escape_ascii().to_string(),
    }
}

/// What [`Client::be_served`] means here: a request is answered.
pub(crate) fn be_answered(client: &Client) -> Result<(), Trouble> {
    client.send(GET.as_bytes())?;
    let mut received = Vec::new();
    loop {
        match Response::parse(&received, false) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {
                // Byte by byte: there is nobody to keep what would be too much.
                let (byte, end) = client.receive_up_to(1);
                if end != End::Enough {
                    return Err(Trouble::Short {
                        expected: b"HTTP/1.1 200 OK".to_vec(),
                        received,
                        end,
                    });
                }
                received.extend(byte);
            }
            Err(what) => return Err(malformed(&what, &received)),
        }
    }
}

/// A client that asks and reads no answer, until the server takes no more.
pub(crate) fn a_client_that_is_owed_answers(server: &Server) -> Result<Client, Trouble> {
    let client = ClientOptions::small().connect(server)?;
    let requests = GET.repeat((16 << 20) / GET.len());
    client.send_until_stuck(server, requests.as_bytes())?;
    Ok(client)
}
