//! What each milestone cannot do, and the next one can: the walls between them.
//!
//! A wall is one function. It starts the server and says what it saw: [`Verdict::Held`], or
//! [`Verdict::Hit`] with the one way of failing that the book foretells. Milestone N must give that
//! very hit, milestone N + 1 must hold. Whatever else goes wrong (a refusal, a wrong byte, an end)
//! is a [`Trouble`], and never a wall.

use std::fmt;

use nix::sys::signal::Signal;

use crate::{
    Client, ClientOptions, PATIENCE, Program, Server, Setup, Trouble, alone_with_many_descriptors,
    explain::{End, Lesson, book, count},
    pattern, server, skipped, wait_until,
};

/// What a wall's function saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server did it: no wall here.
    Held,
    /// The server failed in exactly this way, the one that was foretold.
    Hit(Wall),
}

/// The way in which a milestone ends at its wall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wall {
    /// m1: a second client waits while the first is silent, and is served when the first leaves.
    ServesOneAtATime,
    /// m2: it makes syscalls without end while nothing happens.
    NeverRests,
    /// m3: it asks the kernel this many times about one burst.
    AsksAgain {
        /// Waits that reported the connection.
        reports: usize,
    },
    /// m4: one client that does not read keeps everybody waiting.
    StalledByOne,
    /// m5: it holds only as many connections as the soft limit on descriptors allows.
    StopsAtTheSoftLimit,
    /// m5: an idle connection costs kilobytes of the server's memory.
    IdleCostsKilobytes,
    /// m6: SIGTERM loses bytes that it had already read.
    LosesWhatItHadRead,
    /// m7: a line sent by one client never reaches another.
    ClientsAreAlone,
    /// m8: an HTTP client gets no HTTP answer.
    SpeaksNoHttp,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wall::ServesOneAtATime => {
                f.write_str("a second client waits until the first one leaves")
            }
            Wall::NeverRests => f.write_str("it never rests, although nothing happens"),
            Wall::AsksAgain { reports } => write!(f, "one burst is reported {reports} times"),
            Wall::StalledByOne => {
                f.write_str("one client that does not read keeps everybody waiting")
            }
            Wall::StopsAtTheSoftLimit => {
                f.write_str("it holds no more connections than the soft limit allows")
            }
            Wall::IdleCostsKilobytes => f.write_str("an idle connection costs kilobytes"),
            Wall::LosesWhatItHadRead => f.write_str("SIGTERM loses what it had already read"),
            Wall::ClientsAreAlone => f.write_str("a line sent by one client never reaches another"),
            Wall::SpeaksNoHttp => f.write_str("an HTTP client gets no HTTP answer"),
        }
    }
}

/// The milestone fails at `wall` in exactly the way that its chapter ends with.
///
/// # Panics
///
/// When it holds, fails in another way, or there is trouble.
#[track_caller]
pub fn must_hit(
    program: &Program,
    expected: Wall,
    wall: impl FnOnce(&Program) -> Result<Verdict, Trouble>,
) {
    if program.is_foreign() {
        return skipped("walls belong to our own milestones");
    }
    match wall(program) {
        Ok(Verdict::Hit(seen)) if seen == expected => {}
        Ok(Verdict::Held) => panic!(
            "\n\n{program} does not end at the wall that its chapter ends with.\n\
             Foretold: {expected}\n\
             Seen: it held\n\
             What it usually means: a lesson of a later milestone has slipped into this one\n"
        ),
        Ok(Verdict::Hit(seen)) => {
            panic!("\n\n{program}: foretold was {expected:?}, seen was {seen:?}\n")
        }
        Err(trouble) => panic!("\n\nThis is no wall but a failure of {program}: {trouble}\n"),
    }
}

/// The milestone does what the one before could not, which ended at `climbed`.
///
/// # Panics
///
/// When it does not; the message says what this milestone has to teach about it.
#[track_caller]
pub fn must_hold(
    program: &Program,
    climbed: Wall,
    wall: impl FnOnce(&Program) -> Result<Verdict, Trouble>,
) {
    if program.is_foreign() {
        return skipped("walls belong to our own milestones");
    }
    match wall(program) {
        Ok(Verdict::Held) => {}
        Ok(Verdict::Hit(wall)) => climbed.lesson().fail(&format!(
            "{program} ends at the wall of the milestone before it: {wall}"
        )),
        Err(trouble) => climbed.lesson().fail(&trouble),
    }
}

impl Wall {
    /// What the milestone that has this wall behind it teaches about it.
    fn lesson(&self) -> Lesson {
        let (tried, usually, read) = match self {
            Wall::ServesOneAtATime => (
                "one client echoes a line and is silent from then on; another one sends a line",
                "the server waits in read for the silent client. Let no call wait for one client \
                 alone: make every socket non-blocking",
                book::M2_NON_BLOCKING,
            ),
            Wall::NeverRests => (
                "50 clients are served once and then silent; the server's system calls are watched",
                "a wait returns at once although nothing happened: sockets are asked over and over \
                 instead of waited for, or something is armed that is ready all the time \
                 (EPOLLOUT, a client that has left)",
                book::M3_CODE,
            ),
            Wall::AsksAgain { .. } => (
                "with the server stopped (SIGSTOP), 32,768 bytes of one client arrive; when it \
                 goes on (SIGCONT), the waits that report this client are counted until all bytes \
                 are back",
                "one read is done for each event. Register the client with EPOLLET, and read until \
                 EAGAIN: the edge that reports the bytes comes once",
                book::M4_DRAIN,
            ),
            Wall::StalledByOne => (
                "one client sends until the server takes no more, and reads nothing; another one \
                 sends a line. Then the first one reads, or leaves",
                "the server waits until the first client's socket has room. Keep what it does not \
                 take in an outbox, and go on",
                book::M5_OUTBOX,
            ),
            Wall::StopsAtTheSoftLimit => (
                "a server with a soft limit of 1,024 descriptors gets 1,100 clients, and then \
                 10,000",
                "RLIMIT_NOFILE was not raised to the hard limit, which any program may do for \
                 itself",
                book::M6_DESCRIPTORS,
            ),
            Wall::IdleCostsKilobytes => (
                "10,000 connections each echo 1 KiB and are then idle; `Anonymous` in \
                 /proc/PID/smaps_rollup is compared with what it was before",
                "a buffer for each connection, in use or not: let one serve all for reading, and \
                 give a connection an outbox only while it is owed bytes",
                book::M6_MEMORY,
            ),
            Wall::LosesWhatItHadRead => (
                "clients with small buffers send until the server takes no more, and read nothing. \
                 Then the server gets SIGTERM, and when it has acted on it, they read: what it had \
                 read of theirs before the signal is to come back, and it is to end with exit \
                 code 0",
                "the signal ends the loop, or the process, with outboxes still full. Stop \
                 accepting and reading, go on sending until every outbox is empty and \
                 acknowledged, and only then end",
                book::M7_DRAIN,
            ),
            Wall::ClientsAreAlone => (
                "two clients give their names; one says a line, and the other is to hear it",
                "a line goes back to whoever said it, and to nobody else",
                book::M8_ROOM,
            ),
            Wall::SpeaksNoHttp => (
                "a client sends an HTTP request; the answer is to be 200 OK with the request as \
                 its body",
                "the request is taken for something else than HTTP",
                book::M9_HTTP,
            ),
        };
        Lesson {
            tried,
            usually,
            read,
        }
    }
}

/// Wall 1: is a second client served while the first one is silent?
///
/// That the second is *not* served needs no pause to be seen. Its line lies in the server's kernel,
/// and after that the first client holds ten short exchanges: the server was at work ten times and
/// did not look. Then the first leaves, and the second must be answered: that it was held up by the
/// first, and by nothing else, is what makes it a wall.
///
/// # Errors
///
/// Whatever is not this wall.
// ANCHOR: silent-client
pub fn a_silent_client(program: &Program) -> Result<Verdict, Trouble> {
    let server = program.start();
    let first = Client::connect(&server)?;
    first.echo(b"I am first\n")?;
    let second = Client::connect(&server)?;
    second.send(b"I am second\n")?;
    second.wait_until_acknowledged()?;
    for _ in 0..10 {
        first.echo(b"still here\n")?;
    }
    if second.has_received().is_some() {
        second.expect(b"I am second\n")?;
        // And the first one is none the worse for it.
        first.echo(b"still here\n")?;
        return Ok(Verdict::Held);
    }
    drop(first);
    second.expect(b"I am second\n")?;
    Ok(Verdict::Hit(Wall::ServesOneAtATime))
}
// ANCHOR_END: silent-client

/// Wall 4: is anybody served while one client sends and does not read?
///
/// Two things can happen, and the check waits for either: the other client is answered, or the
/// server is seen asleep in `poll`, which is where this milestone waits for the one socket. Then
/// the stalled client reads (the first time) or leaves (the second), and the other one must be
/// answered.
///
/// # Errors
///
/// Whatever is not this wall.
pub fn a_client_that_does_not_read(program: &Program) -> Result<Verdict, Trouble> {
    let server = program.start();
    let bytes = pattern(40, 16 << 20);
    let mut hit = false;
    for leaves in [false, true] {
        let stalled = ClientOptions::small().connect(&server)?;
        let taken = stalled.send_until_stuck(&server, &bytes)?;
        let other = Client::connect(&server)?;
        other.send(b"is anybody there?\n")?;
        other.wait_until_acknowledged()?;
        wait_until("an answer, or the server asleep in poll", PATIENCE, || {
            other.has_received().is_some() || sleeps_in_poll(&server)
        })?;
        hit |= other.has_received().is_none();
        if leaves {
            stalled.reset();
        } else {
            stalled.expect(&bytes[..taken])?;
        }
        other.expect(b"is anybody there?\n")?;
    }
    Ok(match hit {
        true => Verdict::Hit(Wall::StalledByOne),
        false => Verdict::Held,
    })
}

fn sleeps_in_poll(server: &Server) -> bool {
    let call = server.sleeps_in();
    // Newer architectures, aarch64 among them, have only ppoll.
    #[cfg(target_arch = "x86_64")]
    let is_poll = call == Some(libc::SYS_poll);
    #[cfg(not(target_arch = "x86_64"))]
    let is_poll = false;
    is_poll || call == Some(libc::SYS_ppoll)
}

/// The soft limit on descriptors that most systems set.
const COMMON_SOFT_LIMIT: u64 = 1024;

/// What the sixth milestone is for.
const TEN_THOUSAND: usize = 10_000;

/// Wall 5: started with the soft limit of 1,024 descriptors that is common, does it hold 10,000
/// connections?
///
/// The first 1,100 clients tell: either the last of them is answered, or the server says that it has
/// no descriptor left, all 1,024 are open, and the last client waits. Then some leave, and those who
/// waited must be answered: it was the limit that kept them out.
///
/// # Errors
///
/// Whatever is not this wall.
pub fn ten_thousand_connections(program: &Program) -> Result<Verdict, Trouble> {
    let _alone = alone_with_many_descriptors();
    let server = program.start_with(Setup::new().soft_descriptors(COMMON_SOFT_LIMIT));
    let mut clients = Vec::new();
    for connection in 0..1100 {
        let client = Client::connect(&server)?;
        client.send(&pattern(connection, 100))?;
        clients.push(client);
        // While it can, the server catches up now and then: what its backlog has no room for is
        // sent again after a second, and then after two more.
        if connection % 100 == 0 && connection <= 900 {
            Client::connect(&server)?.echo(b"am I in?\n")?;
        }
    }
    let last = clients.last().expect("there are 1,100");
    let says_it_is_full = || server.stderr().contains("(EMFILE)");
    wait_until(
        "an answer for the last client, or the server saying that it is at its limit",
        PATIENCE,
        || last.has_received().is_some() || says_it_is_full(),
    )?;
    let is_full = says_it_is_full() && server.has_used_up(COMMON_SOFT_LIMIT);
    if is_full && last.has_received().is_none() {
        // Everybody is answered, as each in turn leaves.
        for (connection, client) in (0..).zip(clients) {
            client.expect(&pattern(connection, 100))?;
        }
        return Ok(Verdict::Hit(Wall::StopsAtTheSoftLimit));
    }
    for (connection, client) in (0..).zip(&clients) {
        client.expect(&pattern(connection, 100))?;
    }
    drop(clients);
    hold(&server, TEN_THOUSAND).map(|()| Verdict::Held)
}

/// Opens this many connections at once and has each of them echo 1 KiB.
fn hold(server: &Server, connections: usize) -> Result<(), Trouble> {
    let trouble = |error: loadgen::Error| {
        Trouble::Server(format!("with {} connections: {error}", count(connections)))
    };
    let mut crowd =
        loadgen::Crowd::connect(server.addr(), connections, loadgen::Options::default())
            .map_err(trouble)?;
    crowd.echo(1024).map_err(trouble)?;
    Ok(())
}

/// Wall 6: does SIGTERM lose what the server had already read?
///
/// A client with small buffers sends until the server takes no more and reads nothing. How many of
/// its bytes the server has read by then is known: those sent, less those not acknowledged, less
/// those unread in the server's kernel. Only when the server has acted on SIGTERM does the client
/// begin to read.
///
/// # Errors
///
/// Whatever is not this wall.
pub fn sigterm_with_bytes_unsent(program: &Program) -> Result<Verdict, Trouble> {
    let server = program.start();
    let client = ClientOptions::small().connect(&server)?;
    let bytes = pattern(60, 16 << 20);
    let taken = client.send_until_stuck(&server, &bytes)?;
    // Bytes on their way may count twice; the number is never too high.
    let read = taken.saturating_sub(client.unacknowledged() + client.unread_by(&server));

    server.signal(Signal::SIGTERM);
    let addr = server.addr();
    wait_until(
        "the server acted on SIGTERM: it ended, or stopped listening",
        PATIENCE,
        || server.has_ended() || server::listening_at(addr.port()).is_none(),
    )?;
    let (received, end) = client.receive_up_to(taken);
    Trouble::compare(&bytes[..received.len()], &received)?;
    let status = server.wait_exit(PATIENCE)?;
    if received.len() < read {
        // Nothing else explains the loss: the server did as the signal says, and ended at once.
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGTERM);
        return match killed {
            true => Ok(Verdict::Hit(Wall::LosesWhatItHadRead)),
            false => Err(Trouble::Server(format!(
                "of {} bytes that the server had read before SIGTERM only {} came back, then \
                 {end}; it ended with {}",
                count(read),
                count(received.len()),
                server::explain_status(status)
            ))),
        };
    }
    match (end, status.code()) {
        (End::Eof | End::Enough, Some(0)) => Ok(Verdict::Held),
        (end, _) => Err(Trouble::Server(format!(
            "every byte came back, then {end}, and the server ended with {}; expected: its end, \
             and exit code 0",
            server::explain_status(status)
        ))),
    }
}

/// Wall 7: does a line sent by one client reach another?
///
/// Each client's first line is its name. Then alice says hello, and bob sends a line to wait for:
/// on a server where clients are alone it comes back to him, and hello has come back to alice and
/// nobody else. On a chat server hello reaches bob, and his own line does not.
///
/// # Errors
///
/// Whatever is not this wall.
pub fn a_line_for_another(program: &Program) -> Result<Verdict, Trouble> {
    let server = program.start();
    let alice = join(&server, "alice")?;
    let bob = join(&server, "bob")?;
    alice.send(b"hello\n")?;
    alice.wait_until_acknowledged()?;
    bob.send(b"a line to wait for\n")?;
    loop {
        let line = bob.receive_line()?;
        if line.contains("hello") {
            return Ok(Verdict::Held);
        }
        if line == "a line to wait for" {
            break;
        }
    }
    alice.expect(b"hello\n")?;
    match bob.has_received() {
        None => Ok(Verdict::Hit(Wall::ClientsAreAlone)),
        Some(_) => Err(Trouble::Server(format!(
            "bob received a line more: {:?}",
            bob.receive_line()?
        ))),
    }
}

/// A client whose first line is its name; back when the server has taken it in. An echo server sends
/// it back; a chat server tells who is in the room, in a line that begins with an asterisk.
fn join(server: &Server, name: &str) -> Result<Client, Trouble> {
    let client = Client::connect(server)?;
    client.send(format!("{name}\n").as_bytes())?;
    loop {
        let line = client.receive_line()?;
        if line == name || line.starts_with("* ") {
            return Ok(client);
        }
    }
}

/// Wall 8: does an HTTP client get an HTTP answer?
///
/// On a chat server its request line is taken for a name, which it is not: one line of explanation, and the end, and none
/// of it is HTTP. On the next one the answer is `200 OK`, with the request as its body.
///
/// # Errors
///
/// Whatever is not this wall.
pub fn an_http_client(program: &Program) -> Result<Verdict, Trouble> {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let server = program.start();
    let client = Client::connect(&server)?;
    client.send(REQUEST)?;
    let (answer, end) = client.receive_up_to(64 * 1024);
    if end != End::Eof {
        return Err(Trouble::Server(format!(
            "it answered \"{}\", then {end}; expected was the end",
            answer.escape_ascii()
        )));
    }
    if !answer.starts_with(b"HTTP/") {
        let lines = answer.iter().filter(|&&byte| byte == b'\n').count();
        return match lines {
            // What it asks everybody, and what it says to those who give no name.
            2 => Ok(Verdict::Hit(Wall::SpeaksNoHttp)),
            _ => Err(Trouble::Server(format!(
                "it answered \"{}\", which is neither HTTP nor a chat server's refusal",
                answer.escape_ascii()
            ))),
        };
    }
    let is_right = answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(REQUEST);
    match is_right {
        true => Ok(Verdict::Held),
        false => Err(Trouble::Server(format!(
            "it answered \"{}\", which is not 200 with the request as the body",
            answer.escape_ascii()
        ))),
    }
}
