//! Requests: which are answered, which are refused, and how they may arrive.

use super::{Browser, GET, LAST, LONGEST_BODY, LONGEST_HEAD, MOST_FIELDS};
use crate::{
    Server, Trouble,
    explain::{Lesson, book},
    skipped,
};

/// A body that says by its framing where it ends, with an extension and a trailer, which the answer
/// has as well.
const CHUNKED: &str = "POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \
                       chunked\r\n\r\n5;name=value\r\nhello\r\n1\r\n \r\n00A\r\n0123456789\r\n0\r\n\
                       Trailer: yes\r\n\r\n";

/// What is answered with itself.
const REQUESTS: &[&str] = &[
    GET,
    "GET /a/b?c=d&e=%20 HTTP/1.1\r\nHost: localhost:9000\r\nUser-Agent: curl/8.0\r\nAccept: \
     */*\r\n\r\n",
    "GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET / HTTP/1.1\r\nhOsT:localhost\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\nX-Empty:\r\n\r\n",
    "POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\nhello=world",
    "POST /empty HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    "POST /lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 41\r\n\r\nGET / HTTP/1.1\r\nHost: \
     not a request\r\n\r\n..",
    "PUT /file HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n\0\r\n",
    "DELETE /file HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TRACE / HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\n\r\n",
    CHUNKED,
    "POST /chunked HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
];

/// What has a request line, and is no request all the same; and what the answer to it is.
const MALFORMED: &[(&[u16], &str)] = &[
    // A host, and only one (RFC 9112 §3.2).
    (&[400], "GET / HTTP/1.1\r\n\r\n"),
    (&[400], "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (&[400], "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n"),
    // What HTTP/1.0 does not know (§6.1).
    (
        &[400],
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    // What is understood, and not done.
    (
        &[501],
        "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    (&[505], "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n"),
];

/// The same, after [`POST`].
const MALFORMED_POSTS: &[(&[u16], &str)] = &[
    // Fields (§5).
    (&[400], "no colon\r\n\r\n"),
    (&[400], ": no name\r\n\r\n"),
    (&[400], "a blank: no name\r\n\r\n"),
    (&[400], " folded: line\r\n\r\n"),
    (&[400], "X: a\0b\r\n\r\n"),
    // How long the body is, and no two answers to that (§6): who believes another one than the
    // server before it can be given a request that nobody meant (request smuggling).
    (&[400], "Content-Length: -1\r\n\r\n"),
    (&[400], "Content-Length: +1\r\n\r\nx"),
    (&[400], "Content-Length: 0x1\r\n\r\nx"),
    (&[400], "Content-Length: 1 1\r\n\r\nx"),
    (&[400], "Content-Length:\r\n\r\n"),
    (&[400], "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    (
        &[400],
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        &[400],
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    ),
    // Chunks (§7.1).
    (
        &[400],
        "Transfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
    ),
    (
        &[400],
        "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        &[400],
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello, 0\r\n\r\n",
    ),
    (
        &[400],
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    ),
    (
        &[400],
        "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    ),
    // What is understood, and not done.
    (&[501], "Transfer-Encoding: gzip\r\n\r\n"),
];

/// The beginning of a request that is right so far.
const POST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\n";

/// What does not even begin like a request.
const NO_REQUESTS: &[(&[u16], &str)] = &[
    (&[400], "hello\r\n\r\n"),
    (&[400], "GET\r\n\r\n"),
    (&[400], "GET /\r\n\r\n"),
    (&[400], "GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (&[400], "GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n"),
    (&[400], "G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (&[400], " GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    // That is no version of HTTP, whatever is said of it.
    (&[400, 505], "GET / http/1.1\r\nHost: localhost\r\n\r\n"),
    (&[400, 505], "GET / HTTP/11\r\nHost: localhost\r\n\r\n"),
    // A TLS client says hello.
    (&[400], "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n"),
    (&[400], "\0\0\0\0\r\n\r\n"),
];

/// The answer to a request is the request.
#[track_caller]
pub fn answers_with_the_request(server: &Server) {
    Lesson {
        tried: "requests of all kinds, one after the other on one connection: without a body, with \
                one of a given length, with one in chunks; each is to be answered with 200 and its \
                own bytes as the body",
        usually: "the end of a request is not found where it is: a body is taken for the next \
                  request, or the next request for a body; or the connection is closed after the \
                  answer although nobody asked for that",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let mut browser = Browser::connect(server)?;
        for request in REQUESTS {
            browser.send(request)?;
            let response = browser.gets_it_back(request)?;
            if response.says_close() {
                return Err(Trouble::Server(
                    "it says Connection: close, which nobody asked for".to_owned(),
                ));
            }
        }
        // And each on a connection of its own.
        for request in REQUESTS {
            let mut browser = Browser::connect(server)?;
            browser.send(request)?;
            browser.gets_it_back(request)?;
        }
        Ok(())
    });
}

/// HEAD is GET without the body.
#[track_caller]
pub fn answers_head_without_a_body(server: &Server) {
    Lesson {
        tried: "HEAD, GET and HEAD again on one connection: the answer to HEAD is to have no body, \
                and the Content-Length of the one that GET would have had",
        usually: "the body is sent, and the client takes it for the next answer; or the length is \
                  0; or it is that of the request that came, which is a byte longer than GET would \
                  be (RFC 9110 §8.6 allows no other length than that of the content that GET would \
                  have got)",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let mut browser = Browser::connect(server)?;
        let head = GET.replace("GET", "HEAD");
        for request in [&head, GET, &head, &head] {
            browser.send(request)?;
            let response = browser.gets_it_back(request)?;
            let length = response.field("content-length").unwrap_or_default();
            if length != GET.len().to_string() {
                return Err(Trouble::Server(format!(
                    "the content that GET gets has {} bytes; Content-Length is {length}",
                    GET.len()
                )));
            }
        }
        browser.send(LAST)?;
        browser.gets_it_back(LAST)?;
        browser.ends()
    });
}

/// After its first line, a request may arrive in any pieces.
#[track_caller]
pub fn takes_requests_however_they_are_split(server: &Server) {
    let lesson = Lesson {
        tried: "requests whose first line comes at once and the rest byte by byte, and in pieces \
                of 2 to 50 bytes, each acknowledged before the next",
        usually: "one read is taken for one request; or the end of the header section \
                  (\\r\\n\\r\\n), of a body or of a chunk is not found when a read ends in the \
                  middle of it",
        read: book::M9_HTTP,
    };
    for size in [1, 2, 3, 7, 16, 50] {
        lesson.expect(|| {
            let mut browser = Browser::connect(server)?;
            for request in [GET, CHUNKED, REQUESTS[5], LAST] {
                let line = request.find('\n').map_or(0, |end| end + 1);
                let rest = request.as_bytes()[line..].chunks(size);
                for piece in std::iter::once(&request.as_bytes()[..line]).chain(rest) {
                    browser.send(piece)?;
                    browser.client.wait_until_acknowledged()?;
                }
                browser.gets_it_back(request)?;
            }
            browser.ends()
        });
    }
}

/// For one who speaks nothing but HTTP, the first line may be split as well.
#[track_caller]
pub fn takes_requests_split_anywhere(server: &Server) {
    let lesson = Lesson {
        tried: "a request is sent in two pieces, split at every place in turn, the first one \
                acknowledged before the second",
        usually: "what has come of the request line is dropped, or refused, when a read ends in \
                  the middle of it",
        read: book::M9_HTTP,
    };
    let mut browser = lesson.expect(|| Browser::connect(server));
    for at in 1..GET.len() {
        lesson.expect(|| {
            let (first, second) = GET.split_at(at);
            // Some of them on a new connection: nothing was decided on it yet.
            if at % 4 == 0 {
                browser = Browser::connect(server)?;
            }
            browser.send(first)?;
            browser.client.wait_until_acknowledged()?;
            browser.send(second)?;
            browser.gets_it_back(GET).map(drop)
        });
    }
}

/// A body may be as long as the limit allows, in one piece or in chunks.
#[track_caller]
pub fn takes_bodies_up_to_the_limit(server: &Server) {
    Lesson {
        tried: "POST with bodies of 1 byte to 65,536, and of 60,000 in chunks of 1 to 16,384; each \
                is to come back whole",
        usually: "a body longer than one read is cut, or its rest is taken for the next request; \
                  or a chunk is, that is longer than one read",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let mut browser = Browser::connect(server)?;
        let text = |length: usize| String::from_utf8(vec![b'x'; length]).expect("letters");
        for length in [
            1,
            1000,
            16 * 1024 - 1,
            16 * 1024,
            16 * 1024 + 1,
            LONGEST_BODY,
        ] {
            let request = format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n\
                         {}",
                text(length)
            );
            browser.send(&request)?;
            browser.gets_it_back(&request)?;
        }
        for size in [1_usize, 100, 4096, 16 * 1024] {
            // The framing counts as well.
            let chunk = format!("{size:X}\r\n{}\r\n", text(size));
            let chunks = chunk.repeat(60_000 / chunk.len());
            let request = format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                         {chunks}0\r\n\r\n"
            );
            browser.send(&request)?;
            browser.gets_it_back(&request)?;
        }
        Ok(())
    });
}

/// What is no request is refused, and the connection ends: where the next request would begin,
/// nobody knows.
#[track_caller]
pub fn refuses_what_is_malformed(server: &Server) {
    let posts = MALFORMED_POSTS
        .iter()
        .map(|&(statuses, rest)| (statuses, [POST, rest].concat()));
    let requests = MALFORMED
        .iter()
        .map(|&(statuses, request)| (statuses, request.to_owned()))
        .chain(posts);
    refuses(
        server,
        Lesson {
            tried: "what begins with a request line and is no request: without a host, with fields \
                    that are none, with two lengths, with chunks that are none. Each is to be \
                    answered with 400 (501, 505), Connection: close, and the end; also when more \
                    has been sent already",
            usually: "a field that is not understood is passed over, and with it the length of the \
                      body: from there on, what somebody else wrote is taken for requests. Or the \
                      connection is closed with bytes unread, and the reset takes the answer away",
            read: book::M9_HTTP,
        },
        requests,
        GET,
    );
}

/// What does not begin like a request is refused as well, by one who speaks nothing but HTTP.
#[track_caller]
pub fn refuses_what_begins_with_no_request(server: &Server) {
    refuses(
        server,
        Lesson {
            tried: "what is no HTTP at all, or hardly: words, a request line with too many blanks, \
                    the beginning of a TLS handshake. Each is to be answered with 400, Connection: \
                    close, and the end",
            usually: "the server waits for the end of a header section that will not come, or \
                      closes without a word",
            read: book::M9_HTTP,
        },
        NO_REQUESTS
            .iter()
            .map(|&(statuses, request)| (statuses, request.to_owned())),
        GET,
    );
}

/// What is longer than our limits is refused before it has filled the memory.
#[track_caller]
pub fn refuses_what_is_too_large(server: &Server) {
    if server.program().is_foreign() {
        return skipped("how much another server takes is its own affair");
    }
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    let field = |length: usize| format!("X: {}\r\n", "x".repeat(length));
    refuses(
        server,
        Lesson {
            tried: "bodies of a length above 65,536, given in numbers of 5 to 40 digits, in one \
                    chunk and in many; a chunk's extension and a trailer without an end; header \
                    sections above 8 KiB, in one field, in many, and without an end. Each is to be \
                    answered with 413 or 431, Connection: close, and the end",
            usually: "the length is believed, and memory for it asked for; or 40 digits overflow a \
                      number; or what has no end is kept for ever",
            read: book::M9_HTTP,
        },
        [
            (
                &[413][..],
                format!("{POST}Content-Length: {}\r\n\r\n", LONGEST_BODY + 1),
            ),
            (
                &[413][..],
                format!("{POST}Content-Length: {}\r\n\r\n", u64::MAX),
            ),
            (
                &[413][..],
                format!("{POST}Content-Length: 18446744073709551616\r\n\r\n"),
            ),
            (
                &[413][..],
                format!("{POST}Content-Length: {}\r\n\r\n", "9".repeat(40)),
            ),
            (
                &[413][..],
                format!(
                    "{POST}Content-Length: 200000\r\n\r\n{}",
                    "x".repeat(200_000)
                ),
            ),
            (&[413][..], format!("{chunked}{:x}\r\n", LONGEST_BODY + 1)),
            (&[413][..], format!("{chunked}ffffffffffffffff\r\n")),
            (
                &[413][..],
                format!("{chunked}{}", "1\r\nx\r\n".repeat(12_000)),
            ),
            (&[413][..], format!("{chunked}1;{}", "x".repeat(100_000))),
            (
                &[413][..],
                format!("{chunked}0\r\nX: {}", "x".repeat(100_000)),
            ),
            (
                &[431][..],
                format!(
                    "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                    field(LONGEST_HEAD)
                ),
            ),
            (
                &[431][..],
                format!(
                    "GET / HTTP/1.1\r\nHost: localhost\r\n{}",
                    field(LONGEST_HEAD)
                ),
            ),
            (
                &[431][..],
                format!(
                    "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}",
                    "x".repeat(100_000)
                ),
            ),
            (
                &[431][..],
                format!(
                    "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                    field(1).repeat(MOST_FIELDS)
                ),
            ),
        ],
        // Where one of these ends is not said, so nothing can come behind it.
        "",
    );
}

/// Each of the requests is refused: alone, with `behind` sent behind it, and after one that is
/// answered.
#[track_caller]
fn refuses<'a>(
    server: &Server,
    lesson: Lesson,
    requests: impl IntoIterator<Item = (&'a [u16], String)>,
    behind: &str,
) {
    for (statuses, request) in requests {
        lesson.expect(|| {
            for more in ["", behind] {
                let mut browser = Browser::connect(server)?;
                let refused = browser
                    .send([&request, more].concat())
                    .and_then(|()| browser.is_refused(statuses));
                refused.map_err(|trouble| {
                    let request = super::excerpt(request.as_bytes());
                    Trouble::Server(format!("of \"{request}\": {trouble}"))
                })?;
            }
            // After one that was answered, and nobody else is the worse for it.
            let mut browser = Browser::connect(server)?;
            browser.send([GET, &request].concat())?;
            browser.gets_it_back(GET)?;
            browser.is_refused(statuses)
        });
    }
}
