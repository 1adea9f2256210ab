//! What a server does when it may open no more descriptors: it starts, serves what fits, says so
//! once, rests, and goes on when clients leave.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Client, ClientOptions, Lesson, PATIENCE, Program, Server, Setup, Trouble, explain::book,
    mechanism::set_soft_limit, pattern, proc_fs, skipped,
};

/// The limit of these checks: a handful of clients fills it.
pub const FEW: u64 = 16;

/// More clients than [`FEW`] descriptors are enough for.
const TOO_MANY: usize = 40;

/// Whether a server at its limit rests: the second milestone asks every socket over and over, limit
/// or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTheLimit {
    /// It sleeps.
    Rests,
    /// It goes on asking.
    NeverRests,
}

/// Started with few descriptors (`setup` says by which limit), it serves as many clients as fit;
/// the rest wait, and are served when others leave.
#[track_caller]
pub fn serves_what_fits(program: &Program, setup: Setup, at_the_limit: AtTheLimit) {
    if program.is_foreign() {
        return skipped("what a server says about its limits is judged on our own only");
    }
    let server = program.start_with(setup);
    Lesson {
        tried: "a server with 16 descriptors gets 40 clients, each of which sends a line; then the \
                served ones leave, one after the other",
        usually: "accept gives EMFILE. The listener stays ready, so a level-triggered loop spins; \
                  an edge-triggered one that stops accepting is never told again. Stop watching \
                  the listener, and watch it anew when a client has left",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let clients = send_lines(&server)?;
        let said = server.wait_for_stderr_line(program.name(), PATIENCE)?;

        // Those that fit came first; each of them is served while the others wait.
        let fit = served(&clients)?;
        for (connection, client) in (0..).zip(&clients[..fit]) {
            if connection > 0 {
                client.expect(&line(connection))?;
            }
            client.echo(b"and again\n")?;
        }
        if clients[fit..]
            .iter()
            .any(|client| client.has_received().is_some())
        {
            return Err(Trouble::Server(
                "a client was served, or turned away, out of its turn".to_owned(),
            ));
        }
        if at_the_limit == AtTheLimit::Rests {
            rests(&server)?;
        }

        // None waits for want of a descriptor that nobody uses. (There may be some above the limit, inherited from
        // whoever started the tests; a server that counts them allows as many less.)
        let open = proc_fs::descriptors(server.pid())?.len() as u64;
        if open < FEW {
            return Err(Trouble::Server(format!(
                "clients wait, and it uses {open} descriptors, of {FEW}"
            )));
        }

        // Each that leaves makes room for the next.
        let mut inside = VecDeque::from(clients);
        let mut waiting = inside.split_off(fit);
        let mut next = fit;
        while let Some(client) = waiting.pop_front() {
            inside.pop_front();
            client
                .expect(&line(next))
                .map_err(|trouble| trouble.of(&format!("client {}, the next in turn", next + 1)))?;
            inside.push_back(client);
            next += 1;
        }
        says_so_once(&server, &said)
    });
}

/// Started with few descriptors, a server that needs one at a time serves everybody in turn.
#[track_caller]
pub fn serves_in_turn(program: &Program) {
    if program.is_foreign() {
        return skipped("limits are judged on our own servers only");
    }
    let server = program.start_with(Setup::new().soft_descriptors(FEW));
    Lesson {
        tried: "a server with 16 descriptors gets 40 clients, each of which sends a line, and \
                leaves when it is back",
        usually: "the descriptor of a client that has left is not closed",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        for (connection, client) in send_lines(&server)?.into_iter().enumerate() {
            client.expect(&line(connection))?;
        }
        Ok(())
    });
    assert_eq!(server.stderr(), "");
}

/// Started with a soft limit of few descriptors and a hard limit that is higher, it serves
/// everybody.
#[track_caller]
pub fn raises_its_soft_limit(program: &Program) {
    if program.is_foreign() {
        return skipped("limits are judged on our own servers only");
    }
    let server = program.start_with(Setup::new().soft_descriptors(FEW));
    Lesson {
        tried: "a server with a soft limit of 16 descriptors gets 40 clients, and the hard limit \
                is higher; when all are there, each is served",
        usually: "RLIMIT_NOFILE was not raised to the hard limit, which any program may do for \
                  itself",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let clients: Vec<_> = (0..TOO_MANY)
            .map(|_| Client::connect(&server))
            .collect::<Result<_, _>>()?;
        clients
            .iter()
            .try_for_each(|client| client.be_served(&server))
    });
}

/// Started with so few descriptors that none is left for a client, it says so once and waits for
/// better times, which come although nobody has left.
#[track_caller]
pub fn waits_when_nobody_fits(program: &Program, descriptors: u64, at_the_limit: AtTheLimit) {
    if program.is_foreign() {
        return skipped("what a server says about its limits is judged on our own only");
    }
    let server = program.start_with(Setup::new().soft_descriptors(descriptors));
    Lesson {
        tried: "a server whose descriptors are all taken before the first client comes gets three \
                clients. It is to rest, and when its limit is raised (prlimit) it is to serve them",
        usually: "the error of accept ends the server, or fills the log, or accept is called again \
                  at once, for ever; or it is called again when a client leaves, and there is none. \
                  Try again after a while",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let clients: Vec<_> = (0..3)
            .map(|_| Client::connect(&server))
            .collect::<Result<_, _>>()?;
        let said = server.wait_for_stderr_line("(EMFILE)", PATIENCE)?;
        if at_the_limit == AtTheLimit::Rests {
            rests(&server)?;
        }
        if server.has_ended() || clients.iter().any(|client| client.has_received().is_some()) {
            return Err(Trouble::Server(
                "a client was answered, or the server ended".to_owned(),
            ));
        }
        says_so_once(&server, &said)?;
        set_soft_limit(&server, FEW)?;
        // One after the other: each leaves when it was served.
        clients
            .into_iter()
            .try_for_each(|client| client.be_served(&server))
    });
}

/// The number of connections that it says its limit allows is what it can be asked for, and what it then holds.
#[track_caller]
pub fn holds_as_many_as_it_says(program: &Program) {
    if program.is_foreign() {
        return skipped("what a server says about its limits is judged on our own only");
    }
    let few = || Setup::new().hard_descriptors(FEW);
    let said = program
        .start_with(few())
        .wait_for_stderr_line("allows only", PATIENCE);
    Lesson {
        tried: "a server with 16 descriptors says how many connections they allow, and is started again with \
                `--max-connections` and that number; so many clients come, and each is served while all others are there",
        usually: "descriptors are counted before all of the server's own are open, or one is counted that is not there \
                  later; or the last connection that fits is refused",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let said = said?;
        let number = |word: &str| word.parse::<usize>().ok();
        let Some(most) = said.split(' ').rev().find_map(number) else {
            return Err(Trouble::Server(format!("it said: {said}")));
        };
        let server = program.start_with(few().args(["--max-connections", &most.to_string()]));
        let clients: Vec<_> = (0..most)
            .map(|_| Client::connect(&server))
            .collect::<Result<_, _>>()?;
        clients
            .iter()
            .try_for_each(|client| client.be_served(&server))
    });
}

fn line(connection: usize) -> Vec<u8> {
    pattern(connection as u64, 50)
}

/// [`TOO_MANY`] clients that have each sent [`line`].
fn send_lines(server: &Server) -> Result<Vec<Client>, Trouble> {
    (0..TOO_MANY)
        .map(|connection| {
            let client = ClientOptions::new().connect(server)?;
            client.send(&line(connection))?;
            Ok(client)
        })
        .collect()
}

/// How many of the clients are answered when the server has answered all that it can: the first of
/// them holds ten short exchanges with it, and in each turn that this takes the server has seen all
/// that others sent long before.
fn served(clients: &[Client]) -> Result<usize, Trouble> {
    clients[0].expect(&line(0))?;
    for _ in 0..10 {
        clients[0].echo(b"still here\n")?;
    }
    let answered = |client: &&Client| client.has_received().is_some();
    match 1 + clients[1..].iter().filter(answered).count() {
        answered @ ..TOO_MANY => Ok(answered),
        _ => Err(Trouble::Server(
            "all clients were answered at once: more than there are descriptors".to_owned(),
        )),
    }
}

/// The server sleeps while nothing happens. A spinning one never does; one that tries again now and then
/// does, if not at the first look on a busy machine, then at a later one.
pub(crate) fn rests(server: &Server) -> Result<(), Trouble> {
    const LOOKS_ASLEEP: usize = 5;
    let deadline = Instant::now() + PATIENCE;
    let (mut asleep, mut looks) = (0, 0);
    while asleep < LOOKS_ASLEEP {
        if Instant::now() > deadline {
            return Err(Trouble::Server(format!(
                "the server runs although nothing happens: only {asleep} of {looks} looks found it asleep"
            )));
        }
        asleep += usize::from(server.is_asleep());
        looks += 1;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// One line, and at most one hint.
pub(crate) fn says_so_once(server: &Server, said: &str) -> Result<(), Trouble> {
    let stderr = server.stderr();
    let mut lines = stderr.lines();
    let (first, hint) = (lines.next(), lines.next());
    let right = first == Some(said)
        && hint.is_none_or(|hint| hint.starts_with("hint: "))
        && lines.next().is_none();
    match right {
        true => Ok(()),
        false => Err(Trouble::Server(format!(
            "expected one line on standard error and at most one hint; it wrote:\n{stderr}"
        ))),
    }
}
