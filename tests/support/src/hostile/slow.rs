//! Clients that take their time, and those that take nothing at all.

use std::{thread, time::Duration};

use super::withstands;
use crate::{
    Client, ClientOptions, Server, Trouble, client,
    explain::{Lesson, book, count},
    pattern, proc_fs,
    syscalls::listing,
    tracer::Tracer,
};

/// More than the buffers on the way ever take from a client that does not read.
const MORE_THAN_FITS: usize = 16 << 20;

/// A byte a second, from many.
#[track_caller]
pub fn spends_little_on_a_byte_now_and_then(server: &Server) {
    const CLIENTS: usize = 200;
    const SECONDS: usize = 1;
    /// A wait, a receive, a send.
    const CALLS_EACH: usize = 3;
    /// What the tracer's arrival may cost.
    const BESIDES: usize = 10;
    Lesson {
        tried: "200 clients send one byte a second each, and receive it; meanwhile the server's system calls are \
                counted: a wait, a receive and a send are enough for a byte. Again and again",
        usually: "a byte of one client makes the server look at the others as well",
        read: book::M6_SHORT_READ,
    }
    .expect(|| {
        withstands(server, |witness| {
            let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server)).collect::<Result<_, _>>()?;
            clients.iter().try_for_each(|client| client.echo(b"?"))?;
            let tracer = Tracer::attach(server)?;
            witness.is_served()?;
            let mark = tracer.wait_until_resting()?;
            for _ in 0..SECONDS {
                for client in &clients {
                    client.send(b".")?;
                    thread::sleep(Duration::from_secs(1) / CLIENTS as u32);
                }
                clients.iter().try_for_each(|client| client.expect(b"."))?;
            }
            tracer.wait_until_resting()?;
            let calls = tracer.since(mark);
            let most = CALLS_EACH * CLIENTS * SECONDS + BESIDES;
            match calls.len() {
                few if few <= most || server.program().is_foreign() => Ok(()),
                many => Err(Trouble::Server(format!(
                    "it made {} system calls for {} bytes; {} are enough:{}",
                    count(many),
                    count(CLIENTS * SECONDS),
                    count(most),
                    listing(&calls[..40])
                ))),
            }
        })
    });
}

/// Clients that send as much as they can, and never read.
#[track_caller]
pub fn stays_well_beside_clients_that_never_read(server: &Server) {
    const CLIENTS: usize = 40;
    Lesson {
        tried: "40 clients send until the server takes no more, and read nothing; another one is served, and its echoes \
                have to cost the system calls they always cost. Then the forty leave, every second with a reset. Again \
                and again",
        usually: "the server goes on trying to send to those who do not read, or keeps the memory of their outboxes",
        read: book::M5_BACK_PRESSURE,
    }
    .expect(|| {
        let bytes = pattern(1, MORE_THAN_FITS);
        withstands(server, |witness| {
            let clients: Vec<Client> =
                (0..CLIENTS).map(|_| ClientOptions::small().connect(server)).collect::<Result<_, _>>()?;
            client::send_until_stuck(server, &clients, &bytes)?;
            witness.finds_the_server_well()?;
            for (number, client) in clients.into_iter().enumerate() {
                if number % 2 == 0 {
                    client.reset();
                }
            }
            Ok(())
        })
    });
}

/// Clients that half-close first, and only then begin to read, in small pieces.
#[track_caller]
pub fn gives_slow_readers_all_after_their_half_close(server: &Server) {
    const CLIENTS: usize = 12;
    const PIECE: usize = 1_500;
    Lesson {
        tried: "12 clients send until the server takes no more and do shutdown(SHUT_WR); another one is served; then the \
                twelve read in turns, 1,500 bytes each time, all that they sent, and the end. Again and again",
        usually: "the end of the input is taken for the end of the connection; or a paused connection is not read to its \
                  end when its outbox has room again",
        read: book::M5_HALF_CLOSE,
    }
    .expect(|| {
        let bytes = pattern(2, MORE_THAN_FITS);
        withstands(server, |witness| {
            let clients: Vec<Client> =
                (0..CLIENTS).map(|_| ClientOptions::small().connect(server)).collect::<Result<_, _>>()?;
            let taken = client::send_until_stuck(server, &clients, &bytes)?;
            clients.iter().try_for_each(Client::half_close)?;
            witness.finds_the_server_well()?;
            witness.finds_clients(CLIENTS)?;
            let longest = taken.iter().copied().max().unwrap_or(0);
            for from in (0..longest).step_by(PIECE) {
                for (client, &taken) in clients.iter().zip(&taken) {
                    client.expect(&bytes[from.min(taken)..taken.min(from + PIECE)])?;
                }
            }
            clients.iter().try_for_each(Client::expect_eof)
        })
    });
}

/// Requests that never come to their end.
#[track_caller]
pub fn keeps_unfinished_requests_bounded(server: &Server) {
    const CLIENTS: usize = 100;
    /// As much as a header section may have.
    const LONG: usize = 8 * 1024;
    /// What is kept of a request, twice over: a buffer that grows by doubling.
    const MOST_EACH: usize = 2 * 64 * 1024;
    Lesson {
        tried: "100 clients send the beginning of an HTTP request in pieces, every second a long one, and do not end it; \
                another one is served, and its echoes have to cost the system calls they always cost. Then the hundred \
                leave, every second with a reset. Again and again",
        usually: "what has come of a request is kept without a limit, or is kept when the client has gone; or the whole \
                  of it is looked at again for every byte",
        read: book::M9_HTTP,
    }
    .expect(|| {
        let head = [b"GET /a HTTP/1.1\r\nHost: here\r\nX: ".as_slice(), &[b'x'; LONG]].concat();
        withstands(server, |witness| {
            let before = proc_fs::anonymous_memory(server.pid())?;
            let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server)).collect::<Result<_, _>>()?;
            for (number, client) in clients.iter().enumerate() {
                let end = [40, LONG - 100][number % 2];
                for piece in head[..end].chunks(1_000) {
                    client.send(piece)?;
                    client.wait_until_acknowledged()?;
                }
            }
            witness.finds_the_server_well()?;
            if let Some(number) = clients.iter().position(|client| client.has_received().is_some()) {
                return Err(Trouble::Server(format!(
                    "client {number} was answered, or closed, in the middle of its request"
                )));
            }
            let grown = proc_fs::anonymous_memory(server.pid())?.saturating_sub(before);
            if grown > CLIENTS * MOST_EACH {
                return Err(Trouble::Server(format!(
                    "it needed {} bytes more for {CLIENTS} unfinished requests",
                    count(grown)
                )));
            }
            for (number, client) in clients.into_iter().enumerate() {
                if number % 4 < 2 {
                    client.reset();
                }
            }
            Ok(())
        })
    });
}
