//! HTTP against answers that are made from the same requests by hand.

use proptest::{prelude::*, sample::Index};

use crate::protocol::{Auto, Clients, Http, Message, Progress, Protocol};
use crate::reactor::Token;

/// What a protocol does for its only client.
#[derive(Default)]
struct Heard {
    replied: Vec<u8>,
    dismissed: bool,
    has_deadline: bool,
}

impl Clients for Heard {
    fn reply(&mut self, bytes: &[u8]) {
        self.replied.extend_from_slice(bytes);
    }

    fn tell(&mut self, _client: Token, _message: &Message) {
        unreachable!("HTTP says nothing to others");
    }

    fn dismiss(&mut self, _client: Token) {
        self.dismissed = true;
    }

    fn start_deadline(&mut self, _client: Token) {
        self.has_deadline = true;
    }

    fn clear_deadline(&mut self, _client: Token) {
        self.has_deadline = false;
    }

    fn is_busy(&self) -> bool {
        false
    }
}

/// What is replied to a stream that arrives in parts of these sizes, one after the other and then from the first again,
/// and whether that ends the connection. With `ends`, of the requests, a deadline runs within them and only there.
fn converse<P: Protocol>(
    mut protocol: P,
    stream: &[u8],
    sizes: &[usize],
    ends: Option<&[usize]>,
) -> Result<(Vec<u8>, bool), TestCaseError> {
    let client = Token::new(0, 0);
    let mut state = P::State::default();
    let mut heard = Heard::default();
    let mut at = 0;
    for &size in sizes.iter().cycle() {
        if at == stream.len() || heard.dismissed {
            break;
        }
        let part = &stream[at..stream.len().min(at + size)];
        at += part.len();
        let progress = protocol.received(client, &mut state, part, &mut heard);
        prop_assert_eq!(progress, Progress::Done);
        if heard.dismissed {
            prop_assert!(!heard.has_deadline);
        } else if let Some(ends) = ends {
            prop_assert_eq!(
                heard.has_deadline,
                !ends.contains(&at),
                "after {} bytes",
                at
            );
        }
    }
    Ok((heard.replied, heard.dismissed))
}

/// A request, and its answer.
#[derive(Clone, Debug)]
struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
    ends: bool,
}

/// How a body is framed: as long as the request says, or in chunks.
#[derive(Clone, Debug)]
enum Framing {
    None,
    Length,
    /// The sizes of chunks, used again and again; whether each is extended; a trailer.
    Chunks(Vec<usize>, bool, bool),
}

fn framing() -> impl Strategy<Value = Framing> {
    let chunks = (
        prop::collection::vec(1..40_usize, 1..5),
        any::<bool>(),
        any::<bool>(),
    );
    prop_oneof![
        Just(Framing::None),
        Just(Framing::Length),
        chunks.prop_map(|(sizes, extended, trailer)| Framing::Chunks(sizes, extended, trailer)),
    ]
}

/// What is to become of the connection.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Nothing,
    Close,
    KeepAlive,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let method = prop_oneof![Just("GET"), Just("HEAD"), Just("POST"), Just("PURGE")];
    let wish = prop_oneof![
        12 => Just(Wish::Nothing),
        1 => Just(Wish::Close),
        2 => Just(Wish::KeepAlive),
    ];
    let fields = prop::collection::vec(("[a-z]{1,8}", "[ -~]{0,20}"), 0..4);
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let is_old = prop::bool::weighted(0.1);
    let line = (method, "/[!-~]{0,20}", is_old, wish);
    (line, fields, framing(), body).prop_map(|((method, target, is_old, wish), fields, framing, body)| {
        let version = if is_old { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut head = format!("{method} {target} {version}\r\n");
        if !is_old {
            head += "hOst: here\r\n";
        }
        for (name, value) in fields {
            head += &format!("x-{name}:{value}\r\n");
        }
        head += match wish {
            Wish::Nothing => "",
            Wish::Close => "Connection: te , CLOSE\r\n",
            Wish::KeepAlive => "connection: Keep-Alive\r\n",
        };
        let framed = match framing {
            Framing::None => Vec::new(),
            // HTTP/1.0 knows no chunks.
            Framing::Chunks(sizes, extended, trailer) if !is_old => {
                head += "Transfer-Encoding: chunked\r\n";
                chunked(&body, &sizes, extended, trailer)
            }
            Framing::Length | Framing::Chunks(..) => {
                head += &format!("Content-Length: {}\r\n", body.len());
                body
            }
        };
        head += "\r\n";
        let request = [head.into_bytes(), framed].concat();
        let (said, ends) = match (wish, is_old) {
            (Wish::Close, _) | (Wish::Nothing, true) => ("Connection: close\r\n", true),
            (Wish::KeepAlive, true) => ("Connection: keep-alive\r\n", false),
            (Wish::Nothing | Wish::KeepAlive, false) => ("", false),
        };
        // HEAD is answered as GET would be, of which the request is a byte shorter.
        let is_head = method == "HEAD";
        let length = request.len() - usize::from(is_head);
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: {length}\r\n{said}\r\n"
        )
        .into_bytes();
        if !is_head {
            answer.extend_from_slice(&request);
        }
        Exchange { request, answer, ends }
    })
}

fn chunked(body: &[u8], sizes: &[usize], extended: bool, trailer: bool) -> Vec<u8> {
    let mut framed = Vec::new();
    let mut rest = body;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        let extension = if extended { ";name=value" } else { "" };
        framed.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(if trailer {
        b"0\r\nx-sum: 1\r\n\r\n"
    } else {
        b"0\r\n\r\n"
    });
    framed
}

/// Requests one after the other: the stream, where each of them ends, what has to come back, and whether that ends the
/// connection.
fn pipeline(exchanges: Vec<Exchange>) -> (Vec<u8>, Vec<usize>, (Vec<u8>, bool)) {
    let (mut stream, mut ends, mut answers, mut ended) =
        (Vec::new(), Vec::new(), Vec::new(), false);
    for exchange in exchanges {
        stream.extend(exchange.request);
        ends.push(stream.len());
        if !ended {
            answers.extend(exchange.answer);
            ended = exchange.ends;
        }
    }
    (stream, ends, (answers, ended))
}

fn exchanges() -> impl Strategy<Value = Vec<Exchange>> {
    prop::collection::vec(exchange(), 1..6)
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4_usize, 1..100_usize, 1..2000_usize], 1..10)
}

/// A change to a stream, which makes most of them wrong.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Remove(Index),
    Insert(Index, u8),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = || {
        prop_oneof![
            any::<u8>(),
            Just(b'\r'),
            Just(b'\n'),
            Just(b':'),
            Just(b' ')
        ]
    };
    prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Cut),
    ]
}

fn damaged(mut stream: Vec<u8>, damages: Vec<Damage>) -> Vec<u8> {
    for damage in damages {
        if stream.is_empty() {
            break;
        }
        match damage {
            Damage::Set(at, byte) => {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            Damage::Remove(at) => {
                let at = at.index(stream.len());
                stream.remove(at);
            }
            Damage::Insert(at, byte) => {
                let at = at.index(stream.len());
                stream.insert(at, byte);
            }
            Damage::Cut(at) => stream.truncate(at.index(stream.len())),
        }
    }
    stream
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn requests_are_answered_however_their_bytes_arrive(exchanges in exchanges(), sizes in sizes()) {
        let (stream, ends, expected) = pipeline(exchanges);
        let replied = converse(Http::default(), &stream, &sizes, Some(&ends))?;
        prop_assert_eq!(replied, expected);
    }

    #[test]
    fn what_is_wrong_is_wrong_however_its_bytes_arrive(
        exchanges in exchanges(),
        damages in prop::collection::vec(damage(), 1..4),
        sizes in sizes(),
    ) {
        let stream = damaged(pipeline(exchanges).0, damages);
        let whole = converse(Http::default(), &stream, &[usize::MAX], None)?;
        prop_assert_eq!(converse(Http::default(), &stream, &sizes, None)?, whole);
    }

    #[test]
    fn whatever_comes_is_answered_or_waited_for(
        stream in prop::collection::vec(any::<u8>(), 0..300),
        sizes in sizes(),
    ) {
        converse(Http::default(), &stream, &sizes, None)?;
    }

    #[test]
    fn whoever_begins_with_no_request_has_an_echo(
        first in "[^ \n]{0,20}\n?",
        exchanges in exchanges(),
        sizes in sizes(),
    ) {
        let stream = [first.as_bytes(), &pipeline(exchanges).0].concat();
        // One byte is no request line, whatever it is.
        let sizes = [&[1][..], &sizes].concat();
        prop_assert_eq!(converse(Auto::default(), &stream, &sizes, None)?, (stream, false));
    }

    #[test]
    fn whoever_begins_with_a_request_has_http(exchanges in exchanges(), sizes in sizes()) {
        let (stream, _, expected) = pipeline(exchanges);
        let line = stream.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let sizes = [&[line][..], &sizes].concat();
        prop_assert_eq!(converse(Auto::default(), &stream, &sizes, None)?, expected);
    }
}

/// A request whose header section has this many bytes, with or without its last two.
fn head(length: usize) -> Vec<u8> {
    let (start, end) = ("GET / HTTP/1.1\r\nHost: here\r\nx: ", "\r\n\r\n");
    let filling = "x".repeat(length - start.len() - end.len());
    [start, &filling, end].concat().into_bytes()
}

/// The status that a stream is answered with, if it is.
fn status(stream: &[u8]) -> Option<String> {
    let (replied, _) = converse(Http::default(), stream, &[stream.len()], None).expect("progress");
    let line = replied.split(|&byte| byte == b'\r').next()?;
    let status = String::from_utf8_lossy(line);
    status.split(' ').nth(1).map(str::to_owned)
}

#[test]
fn a_head_may_have_8192_bytes() {
    assert_eq!(status(&head(8192)).as_deref(), Some("200"));
    assert_eq!(status(&head(8193)).as_deref(), Some("431"));
    // Whatever comes next, it is too long.
    assert_eq!(status(&head(8194)[..8192]).as_deref(), Some("431"));
    assert_eq!(status(&head(8192)[..8191]), None);
}

#[test]
fn a_body_may_have_65536_bytes() {
    for (length, expected) in [(65_536, "200"), (65_537, "413")] {
        let head = format!("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n");
        let stream = [head.into_bytes(), vec![b'x'; length]].concat();
        assert_eq!(status(&stream).as_deref(), Some(expected), "{length} bytes");
    }
}
