//! Random requests, right and wrong ones: whatever comes, the answer is well-formed, or the
//! connection ends, and the server goes on.

use std::{env, thread};

use super::{Browser, GET, excerpt, malformed, response::Response};
use crate::{
    Client, PATIENCE, Protocol, Server, Trouble,
    explain::{End, Lesson, book, count},
    proc_fs, wait_until,
};

/// Where the numbers begin, unless `SEED` in the environment says otherwise.
const SEED: u64 = 20_110_131;

/// Clients at once. Each has its own numbers, so what is sent does not depend on how they take
/// turns.
const CLIENTS: u64 = 4;

/// Right requests on one connection.
const ON_ONE_CONNECTION: usize = 50;

/// How much the server may have grown when all is over.
const BOUND: usize = 1 << 20;

/// `requests` in all, half of which are right and have to be answered as such; the others were
/// right before something happened to them, or are nothing but noise.
#[track_caller]
pub fn survives_random_requests(server: &Server, requests: usize) {
    let seed = env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(SEED);
    println!("SEED={seed}");
    Lesson {
        tried: "random requests, half of them right: these are to be answered with themselves. In \
                the other half bytes were changed, lost, doubled or made up; each is sent on its \
                own connection, followed by shutdown(SHUT_WR), and what comes back has to be \
                well-formed answers up to the end of the connection (or the bytes themselves, from \
                a server that echoes what is no HTTP). Afterwards the server has to be as well as \
                before",
        usually: "an index or a length that was believed and not checked: a panic, a loop without \
                  an end, a connection that is never closed. `SEED=… cargo test` sends the same \
                  bytes again",
        read: book::M9_HTTP,
    }
    .expect(|| {
        Browser::connect(server).and_then(|mut browser| {
            browser.send(GET)?;
            browser.gets_it_back(GET)
        })?;
        let descriptors = server.open_descriptors();
        let memory = proc_fs::anonymous_memory(server.pid())?;
        let right = requests / 2 / CLIENTS as usize;
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || {
                        let mut random = Random(seed.wrapping_mul(CLIENTS).wrapping_add(client));
                        (0..right.div_ceil(ON_ONE_CONNECTION))
                            .try_for_each(|_| right_requests(server, &mut random))?;
                        (0..right).try_for_each(|_| wrong_request(server, &mut random))
                    })
                })
                .collect();
            clients.into_iter().try_for_each(|client| {
                client.join().expect(
                    "a client does not \
                                                                            panic",
                )
            })
        })?;

        wait_until("as few open descriptors as before", PATIENCE, || {
            server.open_descriptors() <= descriptors
        })
        .map_err(|_| {
            Trouble::Server(format!(
                "it had {descriptors} descriptors open before and has {} now, with all clients \
                     gone",
                server.open_descriptors()
            ))
        })?;
        let grown = proc_fs::anonymous_memory(server.pid())?.saturating_sub(memory);
        println!(
            "{} requests: {} bytes of memory more",
            count(requests),
            count(grown)
        );
        if grown > BOUND {
            return Err(Trouble::Server(format!(
                "it has grown by {} bytes",
                count(grown)
            )));
        }
        match server.stderr() {
            said if said.is_empty() => Ok(()),
            said => Err(Trouble::Server(format!(
                "it wrote to standard error:\n{said}"
            ))),
        }
    });
}

/// Right requests, pipelined in bunches on one connection.
fn right_requests(server: &Server, random: &mut Random) -> Result<(), Trouble> {
    let mut browser = Browser::connect(server)?;
    let mut left = ON_ONE_CONNECTION;
    while left > 0 {
        let bunch: Vec<Vec<u8>> = (0..random.below(5).min(left - 1) + 1)
            .map(|_| request(random))
            .collect();
        left -= bunch.len();
        let bytes = bunch.concat();
        let answered = browser.send(&bytes).and_then(|()| {
            bunch
                .iter()
                .try_for_each(|request| is_answered(&mut browser, request))
        });
        answered.map_err(|trouble| of(&bytes, &trouble))?;
    }
    // Its end is no event for anybody: this side is the one whose port it is.
    browser.client.reset();
    Ok(())
}

fn is_answered(browser: &mut Browser, request: &[u8]) -> Result<(), Trouble> {
    let is_head = request.starts_with(b"HEAD ");
    let response = browser.answer(if is_head { "HEAD" } else { "another" })?;
    let body = if is_head { &[] } else { request };
    match response.status == 200 && response.body == body {
        true => Ok(()),
        false => Err(Trouble::Server(format!(
            "\"{}\" was answered with \"{}\"",
            excerpt(request),
            excerpt(&response.head)
        ))),
    }
}

/// Something that is probably no request.
fn wrong_request(server: &Server, random: &mut Random) -> Result<(), Trouble> {
    let mut bytes: Vec<u8> = match random.below(8) {
        0 => (0..random.below(300))
            .map(|_| random.below(256) as u8)
            .collect(),
        _ => (0..random.below(3) + 1)
            .flat_map(|_| request(random))
            .collect(),
    };
    for _ in 0..random.below(4) + 1 {
        mutate(&mut bytes, random);
    }
    let received = visit(server, &bytes, random).map_err(|trouble| of(&bytes, &trouble))?;
    let echoes = server.program().protocol() == Protocol::EchoOrHttp;
    if echoes && received == bytes {
        return Ok(());
    }
    let has_head = bytes.windows(4).any(|window| window == b"HEAD");
    are_answers(&received, has_head).map_err(|what| of(&bytes, &malformed(&what, &received)))
}

fn of(bytes: &[u8], trouble: &Trouble) -> Trouble {
    Trouble::Server(format!("\"{}\" was sent: {trouble}", bytes.escape_ascii()))
}

/// Sends these bytes in a few pieces, and gives what came back up to the end of the connection.
fn visit(server: &Server, bytes: &[u8], random: &mut Random) -> Result<Vec<u8>, Trouble> {
    let client = Client::connect(server)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, next) = rest.split_at(match random.below(3) {
            0 => random.below(rest.len()) + 1,
            _ => rest.len(),
        });
        client.send(piece)?;
        rest = next;
    }
    client.half_close()?;
    match client.receive_up_to(16 << 20) {
        (received, End::Eof) => Ok(received),
        (received, end) => Err(Trouble::Server(format!(
            "\"{}\" came back, then {end}; expected was the end",
            excerpt(&received)
        ))),
    }
}

/// Whether this is a row of answers and nothing else. Which of them are to HEAD is not known, only
/// whether any can be: such an answer has no body, and what follows it is another answer, or the
/// end. (No request begins like an answer, so no body does.)
fn are_answers(mut bytes: &[u8], has_head: bool) -> Result<(), String> {
    while !bytes.is_empty() {
        let Some((_, head)) = Response::parse(bytes, true)? else {
            return Err("the header section of the last answer is not complete".to_owned());
        };
        let has_no_body = has_head && (bytes.len() == head || is_status_line(&bytes[head..]));
        let end = match has_no_body {
            true => head,
            false => match Response::parse(bytes, false)? {
                Some((_, end)) => end,
                None => return Err("the body of the last answer is not complete".to_owned()),
            },
        };
        bytes = &bytes[end..];
    }
    Ok(())
}

/// Whether bytes begin like `HTTP/1.1 200 `.
fn is_status_line(bytes: &[u8]) -> bool {
    bytes
        .strip_prefix(b"HTTP/1.1 ")
        .is_some_and(|rest| matches!(rest, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ', ..]))
}

/// A request that is right, and does not end its connection.
fn request(random: &mut Random) -> Vec<u8> {
    const METHODS: [&str; 8] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X-OWN",
    ];
    const TOKEN: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!~*";
    const VALUE: &[u8] = b"abcdefghijklmnopqrstuvwxyz 0123456789,;:=\"/()[]{}<>@?\t";
    let word = |random: &mut Random, letters: &[u8], most: usize| -> String {
        (0..random.below(most) + 1)
            .map(|_| letters[random.below(letters.len())] as char)
            .collect()
    };
    let method = METHODS[random.below(METHODS.len())];
    let target = match random.below(4) {
        0 => "*".to_owned(),
        1 => format!(
            "http://{}/{}",
            word(random, TOKEN, 10),
            word(random, TOKEN, 30)
        ),
        _ => format!("/{}", word(random, TOKEN, 100)),
    };
    let is_old = random.below(4) == 0;
    let mut fields = match is_old {
        true => vec!["Connection: keep-alive".to_owned()],
        false => vec![format!("Host: {}", word(random, TOKEN, 20))],
    };
    for _ in 0..random.below(8) {
        fields.push(format!(
            "X-{}: {}",
            word(random, TOKEN, 15),
            word(random, VALUE, 60).trim()
        ));
    }
    let length = match random.below(3) {
        0 => 0,
        1 => random.below(100),
        _ => random.below(3000),
    };
    let mut body = Vec::new();
    match random.below(3) {
        0 => {}
        1 if !is_old => {
            fields.push("Transfer-Encoding: chunked".to_owned());
            let mut left = length;
            while left > 0 {
                let size = random.below(left) + 1;
                body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                body.extend((0..size).map(|_| random.below(256) as u8));
                body.extend_from_slice(b"\r\n");
                left -= size;
            }
            body.extend_from_slice(b"0\r\n\r\n");
        }
        _ => {
            fields.push(format!("Content-Length: {length}"));
            body.extend((0..length).map(|_| random.below(256) as u8));
        }
    }
    // In any order.
    for place in (1..fields.len()).rev() {
        fields.swap(place, random.below(place + 1));
    }
    let version = if is_old { "HTTP/1.0" } else { "HTTP/1.1" };
    let head = format!(
        "{method} {target} {version}\r\n{}\r\n\r\n",
        fields.join("\r\n")
    );
    [head.into_bytes(), body].concat()
}

/// Something happens to the bytes.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    /// What is put in where it does not belong.
    const PIECES: [&[u8]; 16] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b":",
        b"\0",
        b"\xff",
        b"HTTP/1.1",
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
    ];
    let at = random.below(bytes.len() + 1);
    // Most of what matters is near the beginning.
    let at = if random.below(2) == 0 {
        at.min(random.below(200))
    } else {
        at
    };
    let end = (at + random.below(20)).min(bytes.len());
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let doubled = bytes[at..end].to_vec();
            bytes.splice(at..at, doubled);
        }
        4 => bytes.truncate(at),
        _ => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
    }
}

/// SplitMix64: a few lines, and the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `limit`, or 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}
