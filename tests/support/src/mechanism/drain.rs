//! The graceful end: nothing that was read is lost.

use std::{os::unix::process::ExitStatusExt, thread};

use nix::sys::signal::Signal;

use crate::{
    ClientOptions, PATIENCE, Program, Trouble, Verdict, Wall, client, explain::count, pattern,
    server, wait_until,
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
