//! The graceful end: nothing that was read is lost.

use std::{os::unix::process::ExitStatusExt, thread};

use nix::sys::signal::Signal;

use crate::{
    ClientOptions, PATIENCE, Program, Server, Trouble, Verdict, Wall, client,
    explain::{Lesson, book, count},
    pattern, proc_fs, server, skipped,
    syscalls::{Call, Kind, listing},
    tracer::Tracer,
    wait_until,
};

/// Clients that have read nothing when the signal comes.
const CLIENTS: usize = 100;

/// Wall 6, with a hundred clients at once: does SIGTERM lose what the server had already read?
///
/// [`Wall::LosesWhatItHadRead`] when the signal kills it and bytes are missing; held when every client gets every byte
/// that the server had read, and the server then ends with exit code 0.
///
/// # Errors
///
/// Whatever is neither.
pub fn a_hundred_clients_at_sigterm(program: &Program) -> Result<Verdict, Trouble> {
    let server = program.start();
    let bytes = pattern(1, 16 << 20);
    let clients = (0..CLIENTS)
        .map(|_| ClientOptions::small().connect(&server))
        .collect::<Result<Vec<_>, _>>()?;
    let sent = client::send_until_stuck(&server, &clients, &bytes)?;
    let unread = server::unread_by_server(server.addr());
    // What the server has read: what was sent, less what it has not. Bytes on their way may count twice, so it is never
    // too high.
    let clients: Vec<_> = clients
        .into_iter()
        .zip(sent)
        .map(|(client, sent)| {
            let in_kernel = client
                .stream()
                .local_addr()
                .ok()
                .and_then(|addr| unread.get(&addr));
            let read =
                sent.saturating_sub(client.unacknowledged() + in_kernel.copied().unwrap_or(0));
            (client, sent, read)
        })
        .collect();
    if clients.iter().any(|&(.., read)| read == 0) {
        return Err(Trouble::Server(
            "it had read nothing from one of its clients".to_owned(),
        ));
    }

    server.signal(Signal::SIGTERM);
    let port = server.addr().port();
    wait_until(
        "the server acted on SIGTERM: it ended, or stopped listening",
        PATIENCE,
        || server.has_ended() || server::listening_at(port).is_none(),
    )?;
    // All at once: the server gives them a few seconds together, not one after the other.
    let received: Vec<_> = thread::scope(|scope| {
        let reading: Vec<_> = clients
            .iter()
            .map(|(client, sent, _)| scope.spawn(|| client.receive_up_to(*sent).0))
            .collect();
        reading
            .into_iter()
            .map(|thread| thread.join().expect("receiving does not panic"))
            .collect()
    });
    let status = server.wait_exit(PATIENCE)?;
    let mut lost = 0;
    for (received, (_, _, read)) in received.iter().zip(&clients) {
        Trouble::compare(&bytes[..received.len()], received)?;
        lost += read.saturating_sub(received.len());
    }
    match (lost, status.code(), status.signal()) {
        (0, Some(0), _) => Ok(Verdict::Held),
        (1.., _, Some(libc::SIGTERM)) => Ok(Verdict::Hit(Wall::LosesWhatItHadRead)),
        _ => Err(Trouble::Server(format!(
            "{} bytes that it had read never came back, and it ended with {}; expected: none, and exit code 0",
            count(lost),
            server::explain_status(status)
        ))),
    }
}

/// Bytes that fit into the kernel's buffers, and not into the client's.
const IN_BETWEEN: usize = 64 << 10;

/// What has been sent is not what has arrived: at its end, the server waits until the client's system has everything, and not
/// for the client to leave.
#[track_caller]
pub fn ends_when_all_has_arrived(program: &Program) {
    if program.is_foreign() {
        return skipped("what a server does at SIGTERM is judged on our own only");
    }
    Lesson {
        tried: "a client with a small receive buffer sends 65,536 bytes and reads none; the server has sent all of them, \
                and gets SIGTERM; when it has looked three times whether they have arrived, the client says a word more, \
                reads everything up to the end, and stays",
        usually: "a connection is closed when the socket has taken all, which is not when the client has it: a byte that \
                  comes after the close resets the connection, and what the kernel still had is lost. Ask SIOCOUTQ. Or \
                  the server waits for the client to leave",
        read: book::M7_DRAIN,
    }
    .expect(|| {
        let server = program.start();
        let client = ClientOptions::small().connect(&server)?;
        client.be_served(&server)?;
        let fd = proc_fs::connection_of(&server, &client)?;
        let tracer = Tracer::attach(&server)?;
        let bytes = pattern(1, IN_BETWEEN);
        let mark = tracer.mark();
        client.send(&bytes)?;
        tracer.wait_for("the server sent back all that it had read", mark, |calls| {
            let sends = calls.iter().filter(|call| call.kind == Kind::Send && call.fd() == fd);
            sends.map(Call::bytes).sum::<usize>() == IN_BETWEEN
        })?;
        let asleep = tracer.wait_until_resting()?;
        server.signal(Signal::SIGTERM);
        let calls = tracer.wait_for("the server waited three times more", asleep, |calls| {
            calls.iter().filter(|call| call.kind == Kind::Wait).count() > 4
        })?;
        if !calls.iter().any(|call| call.name() == "shutdown" && call.fd() == fd) {
            return Err(Trouble::Server(format!(
                "it waits, and has not put the end behind the last byte (shutdown), so a client that goes on sending may \
                 get a reset in its place:{}",
                listing(&calls)
            )));
        }
        client.send(b"one word more")?;
        client.expect(&bytes)?;
        client.expect_eof()?;
        drop(tracer);
        ended_well(&server)
    });
}

/// It ends by itself, with exit code 0 and nothing to say.
pub(crate) fn ended_well(server: &Server) -> Result<(), Trouble> {
    let status = server.wait_exit(PATIENCE)?;
    match (status.code(), server.stderr().as_str()) {
        (Some(0), "") => Ok(()),
        (_, said) => Err(Trouble::Server(format!(
            "it ended with {}, and said: {said}",
            server::explain_status(status)
        ))),
    }
}
