//! HTTP/1.1 (RFC 9110, RFC 9112), as an echo: the answer to a request is the request.
//!
//! The status is 200 and the body is the request as it was received, which is what TRACE asks for
//! (RFC 9110 §9.3.8). There is no `Date` field: that is for servers with a clock (§6.6.1), and this one
//! has none but the monotonic.

use std::io::Write;

use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::{Clients, Progress, Protocol};
use crate::reactor::Token;

/// Longest request line and header fields, in bytes, all together.
const LONGEST_HEAD: usize = 8 * 1024;

/// Most header fields of a request.
const MOST_FIELDS: usize = 64;

/// Longest body, in bytes, as it comes over the wire: of a chunked one, the framing counts as well.
const LONGEST_BODY: usize = 64 * 1024;

/// Answers requests.
#[derive(Default)]
pub struct Http {
    /// Where every answer is put together before it is sent, so that it leaves in one piece.
    answer: Vec<u8>,
}

/// What was received of a request that is not complete: nothing at all, for most connections at most
/// times.
#[derive(Default)]
pub struct State {
    partial: Option<Box<Partial>>,
}

struct Partial {
    bytes: Vec<u8>,
    expected: Expected,
}

/// What a request lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The end of its header section.
    Head,
    /// A body that ends with the byte before `end`, counted from the beginning of the request.
    Body { request: Request, end: usize },
    /// A chunked body, whose next chunk begins at `chunk`.
    Chunks { request: Request, chunk: usize },
}

/// What of a request decides on the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    is_head: bool,
    connection: Connection,
    /// The length of its header section in bytes, which is where its body begins.
    head: usize,
}

/// How far a look at the bytes has led.
enum Step {
    /// A request is there in full: it ends before this byte.
    Complete(Request, usize),
    /// Its header section is, and its body is waiting to be asked for (RFC 9110 §10.1.1).
    Continue,
    /// More is needed.
    Incomplete,
}

/// What becomes of the connection after the answer, and whether that has to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// It stays, as usual in HTTP/1.1.
    Persistent,
    /// It stays because an HTTP/1.0 client has asked for it.
    KeptAlive,
    Closed,
}

/// Why a request is not answered as it wishes: a status code, its phrase, and a word of explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal(u16, &'static str, &'static str);

// ANCHOR: refusals
const BAD_HEAD: Refusal = Refusal(400, "Bad Request", "This is no HTTP request.");
const BAD_HOST: Refusal = Refusal(400, "Bad Request", "HTTP/1.1 wants exactly one Host field.");
const BAD_LENGTH: Refusal = Refusal(400, "Bad Request", "How long the body is cannot be told.");
const BAD_CHUNK: Refusal = Refusal(400, "Bad Request", "This is no chunked body.");
const TOO_SLOW: Refusal = Refusal(
    408,
    "Request Timeout",
    "The request did not arrive in time.",
);
const LONG_BODY: Refusal = Refusal(413, "Content Too Large", "A body has at most 65536 bytes.");
const LONG_HEAD: Refusal = Refusal(
    431,
    "Request Header Fields Too Large",
    "A header section has at most 8192 bytes and 64 fields.",
);
const NO_CODING: Refusal = Refusal(
    501,
    "Not Implemented",
    "The only transfer coding is chunked.",
);
const NO_TUNNEL: Refusal = Refusal(501, "Not Implemented", "This is no proxy.");
const NO_VERSION: Refusal = Refusal(505, "HTTP Version Not Supported", "HTTP/1.1, please.");
// ANCHOR_END: refusals

// ANCHOR: request-line
/// Whether a stream begins with a whole request line (RFC 9112 §3): `GET / HTTP/1.1` and its end.
pub fn begins_with_request_line(bytes: &[u8]) -> bool {
    let bytes = &bytes[..bytes.len().min(LONGEST_HEAD)];
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return false;
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_method = !method.is_empty()
        && method
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    let is_target = !target.is_empty() && target.iter().all(|byte| (b'!'..=b'~').contains(byte));
    let is_version = matches!(
        version,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']
    );
    is_method && is_target && is_version
}
// ANCHOR_END: request-line

impl Protocol for Http {
    type State = State;

    // ANCHOR: received
    fn received(
        &mut self,
        client: Token,
        state: &mut State,
        bytes: &[u8],
        clients: &mut dyn Clients,
    ) -> Progress {
        match state.partial.take() {
            // The common case: whole requests, answered from where they are.
            None => {
                let mut expected = Expected::Head;
                if let Some(end) = self.answer_all(client, bytes, &mut expected, clients)
                    && end < bytes.len()
                {
                    let bytes = bytes[end..].to_vec();
                    state.partial = Some(Box::new(Partial { bytes, expected }));
                    clients.start_deadline(client);
                }
            }
            Some(mut partial) => {
                partial.bytes.extend_from_slice(bytes);
                let Partial { bytes, expected } = &mut *partial;
                match self.answer_all(client, bytes, expected, clients) {
                    // Still the same request: the deadline runs on.
                    Some(0) => state.partial = Some(partial),
                    Some(end) if end < bytes.len() => {
                        bytes.drain(..end);
                        state.partial = Some(partial);
                        clients.start_deadline(client);
                    }
                    Some(_) => clients.clear_deadline(client),
                    None => {}
                }
            }
        }
        Progress::Done
    }
    // ANCHOR_END: received

    fn overdue(&mut self, client: Token, clients: &mut dyn Clients) {
        self.refuse(client, TOO_SLOW, clients);
    }
}

impl Http {
    // ANCHOR: answer-all
    /// Answers all requests that are there in full, and returns where the next begins; `None` if there is
    /// no next, because the connection ends.
    fn answer_all(
        &mut self,
        client: Token,
        bytes: &[u8],
        expected: &mut Expected,
        clients: &mut dyn Clients,
    ) -> Option<usize> {
        let mut start = 0;
        while start < bytes.len() {
            match advance(&bytes[start..], expected) {
                Ok(Step::Complete(request, end)) => {
                    self.answer(request, &bytes[start..start + end], clients);
                    if request.connection == Connection::Closed {
                        clients.clear_deadline(client);
                        clients.dismiss(client);
                        return None;
                    }
                    *expected = Expected::Head;
                    start += end;
                }
                Ok(Step::Continue) => clients.reply(b"HTTP/1.1 100 Continue\r\n\r\n"),
                Ok(Step::Incomplete) => break,
                Err(refusal) => {
                    self.refuse(client, refusal, clients);
                    return None;
                }
            }
        }
        Some(start)
    }
    // ANCHOR_END: answer-all

    /// The answer to a request that is there in full: `message`, from its first byte to its last.
    fn answer(&mut self, request: Request, message: &[u8], clients: &mut dyn Clients) {
        let connection = match request.connection {
            Connection::Persistent => "",
            Connection::KeptAlive => "Connection: keep-alive\r\n",
            Connection::Closed => "Connection: close\r\n",
        };
        // To HEAD, the length of what GET would have got, and no other (RFC 9110 §8.6): GET is a letter
        // shorter.
        let length = message.len() - usize::from(request.is_head);
        self.answer.clear();
        // Writing to a vector does not fail.
        let _ = write!(
            self.answer,
            "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: {length}\r\n{connection}\r\n"
        );
        if !request.is_head {
            self.answer.extend_from_slice(message);
        }
        clients.reply(&self.answer);
    }

    /// The answer to a request that is not one, and the end of the connection: where the next request
    /// would begin is not known.
    fn refuse(&mut self, client: Token, refusal: Refusal, clients: &mut dyn Clients) {
        let Refusal(status, phrase, explanation) = refusal;
        self.answer.clear();
        let _ = write!(
            self.answer,
            "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{explanation}\n",
            explanation.len() + 1
        );
        clients.reply(&self.answer);
        clients.clear_deadline(client);
        clients.dismiss(client);
    }
}

/// Looks for the end of the request that `bytes` begin with, as far as that is possible.
fn advance(bytes: &[u8], expected: &mut Expected) -> Result<Step, Refusal> {
    if *expected == Expected::Head {
        let Some((next, waits)) = parse_head(bytes)? else {
            return Ok(Step::Incomplete);
        };
        *expected = next;
        if waits {
            return Ok(Step::Continue);
        }
    }
    match expected {
        Expected::Head => Ok(Step::Incomplete),
        Expected::Body { request, end } if *end <= bytes.len() => {
            Ok(Step::Complete(*request, *end))
        }
        Expected::Body { .. } => Ok(Step::Incomplete),
        Expected::Chunks { request, chunk } => advance_chunks(bytes, *request, chunk),
    }
}

/// Reads a header section; `None` if it has not ended yet. Returns what the request lacks now, and whether
/// the client waits to be asked for it.
fn parse_head(bytes: &[u8]) -> Result<Option<(Expected, bool)>, Refusal> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let head = match parsed.parse(bytes) {
        Ok(Status::Complete(head)) if head <= LONGEST_HEAD => head,
        Ok(Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(_) | Err(Error::TooManyHeaders) => return Err(LONG_HEAD),
        Err(Error::Version) => return Err(NO_VERSION),
        Err(_) => return Err(BAD_HEAD),
    };
    let (method, is_1_0) = (parsed.method.unwrap_or_default(), parsed.version == Some(0));
    if method == "CONNECT" {
        return Err(NO_TUNNEL);
    }
    let hosts = values(parsed.headers, "host").count();
    if hosts > 1 || (hosts == 0 && !is_1_0) {
        return Err(BAD_HOST);
    }
    let wants = |option| lists(values(parsed.headers, "connection"), option);
    let connection = match is_1_0 {
        _ if wants("close") => Connection::Closed,
        false => Connection::Persistent,
        true if wants("keep-alive") => Connection::KeptAlive,
        true => Connection::Closed,
    };
    let request = Request {
        is_head: method == "HEAD",
        connection,
        head,
    };
    let mut codings = values(parsed.headers, "transfer-encoding");
    let length = content_length(parsed.headers)?;
    let expected = match (codings.next(), length) {
        (None, length) if length > LONGEST_BODY as u64 => return Err(LONG_BODY),
        (None, length) => Expected::Body {
            request,
            end: head + length as usize,
        },
        // Both, or a coding that HTTP/1.0 does not know: somebody may be lied to (RFC 9112 §6.1).
        (Some(_), 1..) => return Err(BAD_LENGTH),
        (Some(_), _) if is_1_0 || values(parsed.headers, "content-length").count() > 0 => {
            return Err(BAD_LENGTH);
        }
        (Some(coding), _) if !coding.eq_ignore_ascii_case(b"chunked") => return Err(NO_CODING),
        (Some(_), _) if codings.next().is_some() => return Err(BAD_LENGTH),
        (Some(_), _) => Expected::Chunks {
            request,
            chunk: head,
        },
    };
    let has_all = matches!(expected, Expected::Body { end, .. } if end <= bytes.len());
    let asks = !is_1_0 && lists(values(parsed.headers, "expect"), "100-continue");
    Ok(Some((expected, asks && !has_all)))
}

/// Goes on from chunk to chunk (RFC 9112 §7.1). `chunk` is where the next one begins.
fn advance_chunks(bytes: &[u8], request: Request, chunk: &mut usize) -> Result<Step, Refusal> {
    let limit = request.head + LONGEST_BODY;
    loop {
        let rest = &bytes[*chunk..];
        let (framing, size) = match httparse::parse_chunk_size(rest) {
            Ok(Status::Complete((framing, size))) => (framing, size),
            Ok(Status::Partial) if bytes.len() > limit => return Err(LONG_BODY),
            Ok(Status::Partial) => return Ok(Step::Incomplete),
            Err(_) => return Err(BAD_CHUNK),
        };
        if size == 0 {
            return advance_trailer(bytes, *chunk + framing, request);
        }
        let left = limit.saturating_sub(*chunk + framing) as u64;
        if size > left {
            return Err(LONG_BODY);
        }
        // At most LONGEST_BODY, so it is no loss to count in usize from here on.
        let data = framing + size as usize;
        match rest.get(data..) {
            Some([b'\r', b'\n', ..]) => *chunk += data + 2,
            Some([] | [b'\r']) | None => return Ok(Step::Incomplete),
            Some(_) => return Err(BAD_CHUNK),
        }
    }
}

/// The fields after the last chunk, which begin at `start`, and the empty line that ends them.
fn advance_trailer(bytes: &[u8], start: usize, request: Request) -> Result<Step, Refusal> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(&bytes[start..], &mut fields) {
        Ok(Status::Complete((length, _))) => Ok(Step::Complete(request, start + length)),
        Ok(Status::Partial) if bytes.len() > request.head + LONGEST_BODY => Err(LONG_BODY),
        Ok(Status::Partial) => Ok(Step::Incomplete),
        Err(Error::TooManyHeaders) => Err(LONG_HEAD),
        Err(_) => Err(BAD_CHUNK),
    }
}

/// The values of a field, one for each time that it appears.
fn values<'a>(fields: &'a [Header<'a>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value.trim_ascii())
}

/// Whether one of the values, each a list with commas, has `option` in it.
fn lists<'a>(mut values: impl Iterator<Item = &'a [u8]>, option: &str) -> bool {
    values.any(|value| {
        value
            .split(|&byte| byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    })
}

/// The length of the body in bytes, 0 if nothing is said of it. More digits than a number can have stand
/// for the largest number.
fn content_length(fields: &[Header<'_>]) -> Result<u64, Refusal> {
    let mut lengths = values(fields, "content-length");
    let Some(length) = lengths.next() else {
        return Ok(0);
    };
    if lengths.next().is_some() || length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err(BAD_LENGTH);
    }
    let digits = std::str::from_utf8(length).unwrap_or_default();
    Ok(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::recorder::{CLIENT, Recorder};

    /// What is replied when `reads` arrive one after the other, and whether the connection ends.
    fn converse<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (String, bool) {
        let (mut http, mut state) = (Http::default(), State::default());
        let mut clients = Recorder::default();
        for read in reads {
            assert!(
                !clients.dismissed,
                "nothing is told of a client that was dismissed"
            );
            let progress = http.received(CLIENT, &mut state, read, &mut clients);
            assert_eq!(progress, Progress::Done);
            assert_eq!(clients.has_deadline, state.partial.is_some());
        }
        let text = String::from_utf8_lossy(&clients.replied).into_owned();
        (text, clients.dismissed)
    }

    fn replied(request: &str) -> (String, bool) {
        converse([request.as_bytes()])
    }

    /// The answer to a request that is echoed.
    fn ok(fields: &str, request: &str) -> String {
        let length = request.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: {length}\r\n{fields}\r\n{request}"
        )
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    const POST: &str = "POST /a HTTP/1.1\r\nhost: here\r\ncontent-length: 5\r\n\r\nhello";
    const CHUNKED: &str = "POST /b HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: Chunked\r\n\r\n\
        5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: yes\r\n\r\n";

    #[test]
    fn the_answer_is_the_request() {
        for request in [GET, POST, CHUNKED] {
            assert_eq!(replied(request), (ok("", request), false));
        }
    }

    #[test]
    fn the_answers_do_not_depend_on_how_the_bytes_arrive() {
        let stream = [GET, POST, CHUNKED, GET, CHUNKED, POST].concat();
        let whole = replied(&stream);
        assert!(!whole.1);
        for size in 1..stream.len() {
            assert_eq!(
                converse(stream.as_bytes().chunks(size)),
                whole,
                "{size} bytes each"
            );
        }
    }

    #[test]
    fn head_is_answered_without_the_body() {
        let head = GET.replace("GET", "HEAD");
        let to_get = ok("", GET);
        assert_eq!(replied(&head).0, to_get[..to_get.len() - GET.len()]);
    }

    #[test]
    fn a_connection_ends_when_the_client_or_the_version_says_so() {
        let close = "GET / HTTP/1.1\r\nHost: here\r\nConnection: x, Close\r\n\r\n";
        assert_eq!(replied(close), (ok("Connection: close\r\n", close), true));
        let old = "GET / HTTP/1.0\r\n\r\n";
        assert_eq!(replied(old), (ok("Connection: close\r\n", old), true));
        let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(
            replied(kept),
            (ok("Connection: keep-alive\r\n", kept), false)
        );
    }

    #[test]
    fn what_follows_the_end_is_not_answered() {
        let close = "GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        assert_eq!(replied(&[close, GET].concat()), replied(close));
    }

    #[test]
    fn asks_for_a_body_that_waits_to_be_asked_for() {
        let (head, body) = (
            "POST / HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            "ok",
        );
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        let (both, answer) = ([head, body].concat(), ok("", &[head, body].concat()));
        let in_two = converse([head.as_bytes(), body.as_bytes()]);
        assert_eq!(in_two, ([go_on, &answer].concat(), false));
        assert_eq!(replied(&both), (answer, false));
    }

    #[test]
    fn what_is_wrong_or_too_much_is_refused_and_ends_the_connection() {
        let host = "Host: here\r\n";
        let long = "x".repeat(LONGEST_HEAD);
        let many = "a: b\r\n".repeat(MOST_FIELDS + 1);
        let chunked = format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n");
        for (status, request) in [
            (400, "hello\r\n\r\n".to_owned()),
            (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
            (400, format!("GET / HTTP/1.1\r\n{host}{host}\r\n")),
            (
                400,
                format!("POST / HTTP/1.1\r\n{host}Content-Length: 1, 1\r\n\r\n"),
            ),
            (
                400,
                format!("POST / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"),
            ),
            (
                400,
                format!("POST / HTTP/1.1\r\n{host}Content-Length:\r\n\r\n"),
            ),
            (
                400,
                chunked.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
            ),
            (400, chunked.replace("HTTP/1.1", "HTTP/1.0")),
            (
                400,
                chunked.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ),
            (400, format!("{chunked}x\r\n")),
            (400, format!("{chunked}1\r\nab\r\n")),
            (
                413,
                format!("POST / HTTP/1.1\r\n{host}Content-Length: 65537\r\n\r\n"),
            ),
            (
                413,
                format!(
                    "POST / HTTP/1.1\r\n{host}Content-Length: {}\r\n\r\n",
                    "9".repeat(40)
                ),
            ),
            (413, format!("{chunked}10001\r\n")),
            (413, format!("{chunked}{}", "1\r\nx\r\n".repeat(11_000))),
            (413, format!("{chunked}0\r\nx: {}", "x".repeat(65_536))),
            (431, format!("GET /{long} HTTP/1.1\r\n")),
            (431, format!("GET / HTTP/1.1\r\n{host}{many}\r\n")),
            (501, chunked.replace("chunked", "gzip")),
            (501, format!("CONNECT here:1 HTTP/1.1\r\n{host}\r\n")),
            (505, format!("GET / HTTP/2.0\r\n{host}\r\n")),
        ] {
            let (answer, ends) = replied(&request);
            let request = &request[..request.len().min(100)];
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {answer}"
            );
            assert!(
                answer.contains("\r\nConnection: close\r\n"),
                "{request}: {answer}"
            );
            assert!(ends, "{request}");
        }
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit() {
        let length = LONGEST_BODY;
        let head = format!("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n");
        let request = format!("{head}{}", "x".repeat(length));
        assert_eq!(replied(&request), (ok("", &request), false));
    }

    #[test]
    fn a_request_that_takes_too_long_is_refused() {
        let mut clients = Recorder::default();
        Http::default().overdue(CLIENT, &mut clients);
        assert!(clients.replied.starts_with(b"HTTP/1.1 408 "));
        assert!(clients.dismissed);
    }

    #[test]
    fn knows_a_request_line_when_it_sees_one() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PATCH http://a/b?c HTTP/1.0\nrest",
            "PRI * HTTP/2.0\r\n",
        ] {
            assert!(begins_with_request_line(line.as_bytes()), "{line}");
        }
        for line in [
            "GET / HTTP/1.1",
            "GET / HTTP/1.1\r",
            "GET  / HTTP/1.1\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET /\r\n",
            "GET  HTTP/1.1\r\n",
            "GET /\x7f HTTP/1.1\r\n",
            "GET /a b HTTP/1.1\r\n",
            "G(T / HTTP/1.1\r\n",
            " / HTTP/1.1\r\n",
            "\r\nGET / HTTP/1.1\r\n",
            "GET / HTTP/11\r\n",
        ] {
            assert!(!begins_with_request_line(line.as_bytes()), "{line}");
        }
    }
}
