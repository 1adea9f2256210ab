//! Connections: how long they last, and many requests on one of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Browser, GET, LAST};
use crate::{
    Client, ClientOptions, Program, Server, Setup, Trouble,
    explain::{Lesson, book, count},
    proc_fs, skipped,
    syscalls::{Kind, listing},
    tracer::Tracer,
    wait_until,
};

/// How much a server may grow for a client that asks and does not read the answers.
const BOUND: usize = 4 << 20;

/// Requests that are sent without waiting for answers are answered in order.
#[track_caller]
pub fn answers_pipelined_requests_in_order(server: &Server) {
    Lesson {
        tried: "300 requests of different lengths, GET, HEAD and POST in turn, are sent at once; \
                then 20,000 more are sent and the answers read at the same time",
        usually: "what follows the first request in a read is dropped; or its beginning is kept \
                  and its end is not; or the body of an answer to HEAD is sent",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let mut browser = Browser::connect(server)?;
        let request = |number: usize| match number % 3 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            1 => format!("HEAD /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            _ => format!(
                "POST /{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
                number % 50,
                "x".repeat(number % 50)
            ),
        };
        let all: String = (0..300).map(request).collect();
        browser.send(all)?;
        for number in 0..300 {
            browser.gets_it_back(&request(number))?;
        }
        let all: String = (0..20_000).map(request).collect();
        let sender = browser
            .client
            .stream()
            .try_clone()
            .map_err(|error| browser.client.trouble(&error))?;
        thread::scope(|scope| {
            // If it fails, too few answers come.
            scope.spawn(move || std::io::Write::write_all(&mut &sender, all.as_bytes()));
            (0..20_000).try_for_each(|number| browser.gets_it_back(&request(number)).map(drop))
        })?;
        browser.send(LAST)?;
        browser.gets_it_back(LAST)?;
        browser.ends()
    });
}

/// A client that does not want to go on says so, or is of HTTP/1.0, where that is the rule.
#[track_caller]
pub fn closes_when_it_was_told_to(server: &Server) {
    let lesson = Lesson {
        tried: "requests with Connection: close, and of HTTP/1.0 without Connection: keep-alive; \
                each is to be answered, with Connection: close, and then the connection is to end, \
                also when another request was sent behind it",
        usually: "the field is compared as it is, and not as a list of words in any case; or the \
                  connection is closed before the answer is sent, or with bytes unread, which \
                  makes a reset of it",
        read: book::M9_HTTP,
    };
    for request in [
        LAST,
        "GET / HTTP/1.1\r\nHost: localhost\r\nconnection: CLOSE\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: x-other, close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: x-other\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        for more in [0, 1, 1000] {
            lesson.expect(|| {
                let mut browser = Browser::connect(server)?;
                browser.send([request, &GET.repeat(more)].concat())?;
                let response = browser.gets_it_back(request)?;
                if !response.says_close() {
                    return Err(Trouble::Server(format!(
                        "the connection ends after \"{}\", and the answer does not say so \
                         (Connection: close)",
                        super::excerpt(request.as_bytes())
                    )));
                }
                browser.ends()
            });
        }
    }
}

/// A client that wants to go on stays: the rule in HTTP/1.1, and what one of HTTP/1.0 has to ask
/// for.
#[track_caller]
pub fn stays_when_it_was_told_to(server: &Server) {
    Lesson {
        tried: "requests of HTTP/1.0 with Connection: keep-alive, and of HTTP/1.1 with it and \
                without, all on one connection",
        usually: "HTTP/1.0 is closed whatever it asks for; or is kept without a word (Connection: \
                  keep-alive), and the client goes on waiting for the end",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let mut browser = Browser::connect(server)?;
        for (request, is_old) in [
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
            (
                "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
                false,
            ),
            (GET, false),
            (
                "POST / HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi",
                true,
            ),
        ] {
            browser.send(request)?;
            let response = browser.gets_it_back(request)?;
            let connection = response.field("connection").unwrap_or_default();
            let keeps = connection.eq_ignore_ascii_case("keep-alive");
            if response.says_close() || is_old && !keeps {
                return Err(Trouble::Server(format!(
                    "\"{}\" was answered with \"{}\"",
                    super::excerpt(request.as_bytes()),
                    super::excerpt(&response.head)
                )));
            }
        }
        Ok(())
    });
}

/// A client with a large body may wait until it is asked for it (RFC 9110 §10.1.1).
#[track_caller]
pub fn asks_for_a_body_that_waits_to_be_asked_for(server: &Server) {
    Lesson {
        tried: "POST with Expect: 100-continue, whose body is sent when 100 has come; the same \
                with a body that does not wait; and the same from HTTP/1.0, which does not know \
                100",
        usually: "the server waits for the body, and the client to be asked for it: curl then \
                  waits a second with every request; or 100 is sent to one who does not know it",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let mut browser = Browser::connect(server)?;
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\nContent-Length: \
                    5\r\n\r\n";
        let whole = [head, "hello"].concat();
        browser.send(head)?;
        let go_on = browser.answer("POST")?;
        if go_on.status != 100 {
            return Err(Trouble::Server(format!(
                "instead of 100 came \"{}\"",
                super::excerpt(&go_on.head)
            )));
        }
        browser.send("hello")?;
        browser.gets_it_back(&whole)?;
        browser.send(&whole)?;
        // Having the body already, it may ask for it all the same.
        let response = browser.answer("POST")?;
        if response.status == 100 {
            browser.gets_it_back(&whole)?;
        } else if response.status != 200 || response.body != whole.as_bytes() {
            return Err(Trouble::Server(format!(
                "the answer is \"{}\"",
                super::excerpt(&response.head)
            )));
        }
        let old = whole.replace("HTTP/1.1", "HTTP/1.0");
        let (head, body) = old.split_at(old.len() - 5);
        browser.send(head)?;
        browser.client.wait_until_acknowledged()?;
        browser.send(body)?;
        browser.gets_it_back(&old)?;
        browser.ends()
    });
}

/// A client that has no more to ask still gets its answers.
#[track_caller]
pub fn answers_what_arrived_before_the_half_close(server: &Server) {
    let lesson = Lesson {
        tried: "with the server stopped (SIGSTOP), a client sends one request, or 200, and does \
                shutdown(SHUT_WR); when the server goes on, all are to be answered, and then the \
                connection is to end; half a request is not answered",
        usually: "the end of input closes the connection although answers are still to be sent",
        read: book::M5_HALF_CLOSE,
    };
    for (requests, rest) in [
        (1, ""),
        (200, ""),
        (1, "GET / HT"),
        (0, "GET / HTTP/1.1\r\nHost: loc"),
    ] {
        lesson.expect(|| {
            server.pause();
            let mut browser = Browser::new(Client::connect(server)?);
            browser.send([&GET.repeat(requests), rest].concat())?;
            browser.client.half_close()?;
            server.resume();
            for _ in 0..requests {
                browser.gets_it_back(GET)?;
            }
            match rest.is_empty() {
                true => browser.ends(),
                // What is not complete may be refused.
                false => {
                    let (received, _) = browser.client.receive_up_to(1000);
                    match received.is_empty() || received.starts_with(b"HTTP/1.1 4") {
                        true => Ok(()),
                        false => Err(super::malformed("half a request was answered", &received)),
                    }
                }
            }
        });
    }
}

/// A client that asks and does not read costs a bounded amount of memory, and in the end gets every
/// answer.
#[track_caller]
pub fn keeps_unread_answers_bounded(server: &Server) {
    Lesson {
        tried: "a client with small buffers sends requests, and reads nothing, until the server \
                takes no more; `Anonymous` in /proc/PID/smaps_rollup is compared with what it was \
                before; then the client reads an answer to each request",
        usually: "requests are read and answered without a look at how much the client is owed: a \
                  small request makes a larger answer, so a client can fill the memory faster than \
                  it sends",
        read: book::M5_BACK_PRESSURE,
    }
    .expect(|| {
        let first = Client::connect(server)?;
        Browser::new(first).send(GET)?;
        let before = proc_fs::anonymous_memory(server.pid())?;
        let mut browser = Browser::new(ClientOptions::small().connect(server)?);
        let requests = GET.repeat((16 << 20) / GET.len());
        let taken = browser
            .client
            .send_until_stuck(server, requests.as_bytes())?;
        let grown = proc_fs::anonymous_memory(server.pid())?.saturating_sub(before);
        println!(
            "{} bytes of requests without a reader: {} bytes of memory",
            count(taken),
            count(grown)
        );
        if grown > BOUND {
            return Err(Trouble::Server(format!(
                "its memory grew by {} bytes for one client; allowed are {}",
                count(grown),
                count(BOUND)
            )));
        }
        for _ in 0..taken / GET.len() {
            browser.gets_it_back(GET)?;
        }
        // The last one, the rest of which did not leave.
        let rest = taken % GET.len();
        if rest > 0 {
            browser.send(&GET[rest..])?;
            browser.gets_it_back(GET)?;
        }
        browser.send(LAST)?;
        browser.gets_it_back(LAST)?;
        browser.ends()
    });
}

/// At rest, a request is one wake-up, one receive and one send.
#[track_caller]
pub fn costs_one_receive_and_one_send(server: &Server) {
    Lesson {
        tried: "one client sends a request and reads the answer, 50 times; each time the tracer \
                first sees the server asleep in epoll_wait, so every system call belongs to one \
                request",
        usually: "the header section and the body of the answer are sent by two calls: put them \
                  together first (or use sendmsg with two pieces); or one read more is made \
                  although the last one did not fill its buffer",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let tracer = Tracer::attach(server)?;
        let mut browser = Browser::connect(server)?;
        browser.send(GET)?;
        browser.gets_it_back(GET)?;
        let receives = if server.program().is_foreign() { 2 } else { 1 };
        for round in 1..=50 {
            let asleep = tracer.wait_until_resting()?;
            browser.send(GET)?;
            browser.gets_it_back(GET)?;
            let asleep_again = tracer.wait_until_resting()?;
            let calls = tracer.between(asleep, asleep_again);
            let count = |kind: Kind| calls.iter().filter(|call| call.kind == kind).count();
            let is_right = count(Kind::Wait) == 1
                && (1..=receives).contains(&count(Kind::Receive))
                && count(Kind::Send) == 1
                && count(Kind::EpollCtl) + count(Kind::Poll) == 0;
            if !is_right {
                return Err(Trouble::Server(format!(
                    "request {round} of 50 cost:{}",
                    listing(&calls)
                )));
            }
        }
        Ok(())
    });
}

/// A client has so long for a request, from its first byte to its last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that takes too long is refused; a client that asks for nothing may stay.
#[track_caller]
pub fn refuses_a_request_that_takes_too_long(program: &Program) {
    if program.is_foreign() {
        return skipped("how long a server waits is its own affair");
    }
    const SECOND: Duration = Duration::from_secs(1);
    /// A request without its last byte.
    const BEGINNING: &str = GET.split_at(GET.len() - 1).0;
    Lesson {
        tried: "one client sends a request line and then a byte a second (slowloris), one a head \
                and half of its body; the server's clock is turned on. Each is to be refused after \
                30 seconds (408), and not sooner. One that finishes its request in time and \
                begins another gets its answers, and so does one that asked for nothing meanwhile",
        usually: "every byte begins the time anew, and a connection costs its owner a byte now and \
                  then; or the deadline of a request that was answered goes on",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let server = program.start_with(Setup::new().with_a_clock_to_turn());
        let began = Instant::now();
        let mut witness = Browser::connect(&server)?;
        let mut silent = Browser::connect(&server)?;
        silent.send(GET)?;
        silent.gets_it_back(GET)?;
        let mut slow = Browser::connect(&server)?;
        slow.send("GET / HTTP/1.1\r\nSlow: ")?;
        let mut half = Browser::connect(&server)?;
        half.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello")?;
        let mut late = Browser::connect(&server)?;
        late.send(BEGINNING)?;
        let mut turned = Duration::ZERO;
        while turned < REQUEST_TIMEOUT {
            for browser in [&slow, &half] {
                let was_refused = browser.client.has_received().is_some();
                if was_refused && turned + began.elapsed() < REQUEST_TIMEOUT {
                    return Err(Trouble::Server(format!(
                        "a request that was not complete was refused in less than {REQUEST_TIMEOUT:?}"
                    )));
                }
            }
            let _ = slow.client.send_what_fits(b"x");
            if turned == REQUEST_TIMEOUT / 2 {
                late.send(&GET[BEGINNING.len()..])?;
                late.gets_it_back(GET)?;
                late.send(BEGINNING)?;
            }
            // When this is answered, what was sent before it has been read.
            witness.send(GET)?;
            witness.gets_it_back(GET)?;
            server.turn_clock(SECOND)?;
            turned += SECOND;
        }
        wait_until("both refused", 2 * SECOND, || {
            [&slow, &half].iter().all(|browser| browser.client.has_received().is_some())
        })?;
        slow.is_refused(&[408])?;
        half.is_refused(&[408])?;
        late.send(&GET[BEGINNING.len()..])?;
        late.gets_it_back(GET)?;
        silent.send(GET)?;
        silent.gets_it_back(GET).map(drop)
    });
}
