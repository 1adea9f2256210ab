//! Clients that take all the places there are, and an environment that allows too few.

use std::time::Duration;

use super::withstands;
use crate::{
    Client, ClientOptions, PATIENCE, Program, Server, Setup, Trouble,
    explain::{Lesson, book},
    mechanism::set_soft_limit,
    pattern, proc_fs,
    pulse::unless_held_up,
    skipped, wait_until,
};

/// More than the buffers on the way ever take from a client that does not read.
const MORE_THAN_FITS: usize = 16 << 20;

/// More clients than `--max-connections`.
#[track_caller]
pub fn holds_the_line_at_its_most_connections(program: &Program) {
    /// The witness and this many.
    const INSIDE: usize = 15;
    const BEYOND: usize = 30;
    if program.is_foreign() {
        return skipped("options are for our own servers only");
    }
    let server = program.start_with(Setup::new().args(["--max-connections", "16"]));
    Lesson {
        tried: "a server with `--max-connections 16` has 16 clients, one of which has sent until it was stuck and \
                half-closed; 30 more come, send a line and wait, and every fifth of them gives up. Then those inside leave, \
                by an end, a reset or a half-close, one after the other, the stuck one when it has read all; each time the \
                next one is to be served. Again and again",
        usually: "the listener stays in epoll at the limit, so that the loop spins; or it is not put back at each of the \
                  ways in which a connection can end; or a half-closed client, that is still owed bytes, is not counted",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        let bytes = pattern(3, MORE_THAN_FITS);
        withstands(&server, |witness| {
            let stuck = ClientOptions::small().connect(&server)?;
            let taken = stuck.send_until_stuck(&server, &bytes)?;
            stuck.half_close()?;
            let inside: Vec<Client> = (1..INSIDE).map(|_| Client::connect(&server)).collect::<Result<_, _>>()?;
            inside.iter().try_for_each(|client| client.echo(b"I am in"))?;
            let mut waiting = Vec::new();
            for number in 0..BEYOND {
                let client = Client::connect(&server)?;
                client.send(b"let me in")?;
                client.wait_until_acknowledged()?;
                match number % 5 {
                    4 => client.reset(),
                    _ => waiting.push(client),
                }
            }
            witness.finds_clients(INSIDE)?;
            witness.finds_the_server_well()?;
            nobody_is_answered(&waiting)?;

            let mut waiting = waiting.into_iter();
            let mut next_is_served = || match waiting.next() {
                Some(next) => next.expect(b"let me in").map(|()| next),
                None => Err(Trouble::Server("nobody waits any more".to_owned())),
            };
            let mut came_later = Vec::new();
            for (number, client) in inside.into_iter().enumerate() {
                match number % 3 {
                    0 => drop(client),
                    1 => client.reset(),
                    _ => {
                        client.half_close()?;
                        client.expect_eof()?;
                    }
                }
                came_later.push(next_is_served()?);
            }
            witness.finds_clients(INSIDE)?;
            stuck.expect(&bytes[..taken])?;
            stuck.expect_eof()?;
            came_later.push(next_is_served()?);
            came_later.iter().try_for_each(|client| client.echo(b"and we are sixteen again"))
        })
    });
}

/// Clients that are stuck keep their places no longer than the idle timeout.
#[track_caller]
pub fn frees_the_places_of_clients_that_are_stuck(program: &Program) {
    if program.is_foreign() {
        return skipped("options are for our own servers only");
    }
    Lesson {
        tried: "a server with `--max-connections 2` and an idle timeout has two clients that have sent until they were \
                stuck, have half-closed, and read nothing; a third waits with a line. When the timeout has closed the two, \
                the third is to be served",
        usually: "a connection that waits for its outbox to empty is not in the list of the idle ones; or its end by \
                  timeout does not put the listener back",
        read: book::M6_IDLE,
    }
    .expect(|| {
        unless_held_up(|seconds, pulse| {
            let setup = Setup::new().args(["--max-connections", "2", "--idle-timeout", &seconds.to_string()]);
            let server = program.start_with(setup);
            let bytes = pattern(4, MORE_THAN_FITS);
            let mut stuck = Vec::new();
            for _ in 0..2 {
                let client = ClientOptions::small().connect(&server)?;
                client.send_until_stuck(&server, &bytes)?;
                client.half_close()?;
                pulse.beat();
                stuck.push(client);
            }
            let patience = PATIENCE + Duration::from_secs(seconds);
            let third = ClientOptions::new().patience(patience).connect(&server)?;
            third.send(b"is there room for me")?;
            third.expect(b"is there room for me")
        })
    });
}

/// Fewer descriptors than clients, from the beginning.
#[track_caller]
pub fn serves_everyone_in_turn_without_descriptors(program: &Program) {
    const DESCRIPTORS: u64 = 40;
    const CLIENTS: u64 = 120;
    if program.is_foreign() {
        return skipped("limits are for our own servers only");
    }
    let server = program.start_with(Setup::new().hard_descriptors(DESCRIPTORS));
    Lesson {
        tried: "a server with 40 descriptors (soft and hard limit) gets 120 clients, each of which sends a line; those \
                that fit are served, the others wait, and the server sleeps. Then each that has its line leaves, every \
                second with a reset, and all are served in turn. Again and again",
        usually: "accept gives EMFILE and the listener stays ready: the loop spins, or the listener is forgotten",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        withstands(&server, |witness| {
            let clients: Vec<Client> = (0..CLIENTS)
                .map(|number| {
                    let client = Client::connect(&server)?;
                    client.send(&pattern(number, 50))?;
                    Ok(client)
                })
                .collect::<Result<_, _>>()?;
            witness.is_served()?;
            witness.finds_the_server_well()?;
            for (number, client) in (0..).zip(clients) {
                client.expect(&pattern(number, 50))?;
                if number % 2 == 0 {
                    client.reset();
                }
            }
            Ok(())
        })
    });
}

/// No descriptor left, not even for the one in reserve; then there are some again, and nobody has left.
#[track_caller]
pub fn recovers_when_descriptors_are_free_again(program: &Program) {
    const INSIDE: usize = 10;
    if program.is_foreign() {
        return skipped("limits are for our own servers only");
    }
    let server = program.start();
    Lesson {
        tried: "a server has 11 clients, and its limit of descriptors is lowered (prlimit) below what it has open, so that \
                it can open nothing, as when the whole system has run out (ENFILE). Five clients come; the server must \
                not spin. Then the limit is raised again, and a new client is to be served, although none has left. Again \
                and again",
        usually: "the listener is put back only when a client leaves. Descriptors may be free again for other reasons, of \
                  which nobody tells: try again after a while",
        read: book::M6_DESCRIPTORS,
    }
    .expect(|| {
        withstands(&server, |witness| {
            let inside: Vec<Client> = (0..INSIDE).map(|_| Client::connect(&server)).collect::<Result<_, _>>()?;
            inside.iter().try_for_each(|client| client.echo(b"I am in"))?;
            let normal = set_soft_limit(&server, 4)?;
            let outside: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect::<Result<_, _>>()?;
            let at_the_limit = rests_mostly(&server)
                .and_then(|()| witness.is_served())
                .and_then(|()| inside.iter().try_for_each(|client| client.echo(b"still here")));
            set_soft_limit(&server, normal)?;
            at_the_limit?;
            let next = Client::connect(&server)?;
            next.echo(b"there is room for me")?;
            // They were before it in the queue, so they have been served, or turned away.
            outside.iter().filter(|client| client.has_received().is_none()).try_for_each(|client| client.echo(b"for me, too"))
        })
    });
}

/// Whether the server at its limit uses next to no processor time: it may look again now and then.
fn rests_mostly(server: &Server) -> Result<(), Trouble> {
    const A_WHILE: Duration = Duration::from_millis(300);
    /// Of a while: who spins uses most of it. (The kernel tells it in steps of 10 ms.)
    const NEXT_TO_NOTHING: Duration = Duration::from_millis(50);
    let mut used = Duration::ZERO;
    // The first while may have the end of something in it.
    let what = "the server at its limit used next to no processor time for a while";
    wait_until(what, PATIENCE, || {
        let Ok(before) = proc_fs::processor_time(server.pid()) else {
            return true;
        };
        std::thread::sleep(A_WHILE);
        used = proc_fs::processor_time(server.pid()).map_or(Duration::ZERO, |after| after - before);
        used <= NEXT_TO_NOTHING
    })
}

fn nobody_is_answered(waiting: &[Client]) -> Result<(), Trouble> {
    match waiting
        .iter()
        .position(|client| client.has_received().is_some())
    {
        None => Ok(()),
        Some(number) => Err(Trouble::Server(format!(
            "client {number} of those who wait was answered, or turned away"
        ))),
    }
}
