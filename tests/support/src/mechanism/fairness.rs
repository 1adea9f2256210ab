//! Whether a fast sender leaves others their turn.

use std::thread;

use super::served_clients;
use crate::{
    Protocol, Server, Trouble,
    explain::{Lesson, book, count},
    pattern, proc_fs, skipped,
    syscalls::{Call, Kind, listing},
    tracer::Tracer,
};

/// Bytes that lie ready for the fast sender when the server wakes up: more than a budget and a read.
const QUEUED: usize = 100_000;

/// Bytes that one client may be read from before it is another's turn.
const BUDGET: usize = 64 * 1024;

/// The same for the reader's program, which may count reads instead of bytes: 32 reads of 64 KiB, as libuv does.
const FOREIGN_BUDGET: usize = 32 * 64 * 1024;

/// Bytes that the fast sender goes on with: it must not run dry before the other is served.
const STREAM: usize = 16 << 20;

/// A client that sends without end is read from in turns: another's message waits for one budget, not for the stream's
/// end.
#[track_caller]
pub fn gives_others_a_turn(server: &Server) {
    let budget = match server.program().is_foreign() {
        true => FOREIGN_BUDGET,
        false => BUDGET,
    };
    Lesson {
        tried: "two clients; with the server stopped (SIGSTOP), the first sends 100,000 bytes and the second 6; the \
                server goes on (SIGCONT), and so does the first client, sending and receiving. The bytes that the server \
                reads from the first before it reads from the second are counted",
        usually: "a connection is read from until EAGAIN, however long that takes. Stop after a budget, put the \
                  connection on a ready list, and go on with it after the others (epoll_wait with timeout 0 while the list \
                  is not empty): no new edge will come for what is left",
        read: book::M5_FAIRNESS,
    }
    .expect(|| {
        let clients = served_clients(server, 2)?;
        let (fast, other) = (&clients[0], &clients[1]);
        let fast_fd = proc_fs::connection_of(server, fast)?;
        let other_fd = proc_fs::connection_of(server, other)?;
        let tracer = Tracer::attach(server)?;
        other.echo(b".")?;
        tracer.wait_until_resting()?;
        tracer.pause()?;

        let bytes = pattern(1, STREAM);
        fast.send(&bytes[..QUEUED])?;
        fast.wait_until_acknowledged()?;
        // After the first, so that its event comes after the first's.
        other.send(b"my turn")?;
        other.wait_until_acknowledged()?;

        let mark = tracer.mark();
        let calls = thread::scope(|scope| {
            let sending = scope.spawn(|| {
                // Until the other has been served, and then the connection is shut from here.
                let _ = fast.send(&bytes[QUEUED..]);
            });
            let receiving = scope.spawn(|| fast.receive_up_to(STREAM));
            tracer.resume()?;
            let served = other.expect(b"my turn");
            let calls = tracer.since(mark);
            let _ = fast.stream().shutdown(std::net::Shutdown::Both);
            sending.join().expect("sending does not panic");
            let (received, _) = receiving.join().expect("receiving does not panic");
            served?;
            Trouble::compare(&bytes[..received.len()], &received)?;
            Ok(calls)
        })?;

        let is_receive = |fd| move |call: &&Call| call.kind == Kind::Receive && call.fd() == fd;
        let until = calls.iter().position(|call| is_receive(other_fd)(&call)).unwrap_or(calls.len());
        let before: Vec<usize> =
            calls[..until].iter().filter(is_receive(fast_fd)).map(|call| call.bytes()).collect();
        let read: usize = before.iter().sum();
        let one_read = before.iter().max().copied().unwrap_or(0);
        if read <= budget + one_read {
            return Ok(());
        }
        Err(Trouble::Server(format!(
            "it read {} bytes from the fast client, in {} reads, before it read the other's first byte; a fair share \
             is at most {} bytes and one read{}",
            count(read),
            before.len(),
            count(budget),
            listing(&calls)
        )))
    });
}

/// Bytes that come without a pause.
const FLOOD: usize = 4 << 20;

/// One turn a round: whoever is on the ready list, and is reported as well, is read from once.
#[track_caller]
pub fn takes_one_turn_a_round(server: &Server) {
    if server.program().is_foreign() {
        return skipped("how much a turn is, a program of yours may know better");
    }
    Lesson {
        tried: "one client sends 4 MiB as fast as they are taken. The bytes that the server reads between one epoll_wait \
                and the next are counted",
        usually: "a connection that has used up its budget is on the ready list; when more arrives, there is an event as \
                  well, and it is served twice. While it is on the list, leave its events to its turn",
        read: book::M5_FAIRNESS,
    }
    .expect(|| {
        let client = served_clients(server, 1)?.remove(0);
        let fd = proc_fs::connection_of(server, &client)?;
        let tracer = Tracer::attach(server)?;
        let mark = tracer.mark();
        match server.program().protocol() {
            // Nobody else is in the room. (Of long lines, the reads in a turn are counted sooner than the lines.)
            Protocol::Chat => {
                let line = [&[b'x'; 999][..], b"\n"].concat();
                client.send(&line.repeat(FLOOD / line.len()))?;
            }
            _ => client.exchange(&pattern(1, FLOOD))?,
        }
        client.wait_until_acknowledged()?;
        tracer.wait_until_resting()?;
        let calls = tracer.since(mark);
        let is_receive = |call: &&Call| call.kind == Kind::Receive && call.fd() == fd;
        let one_read = calls.iter().filter(is_receive).map(Call::bytes).max().unwrap_or(0);
        for round in calls.chunk_by(|_, next| next.kind != Kind::Wait) {
            let read: usize = round.iter().filter(is_receive).map(Call::bytes).sum();
            if read > BUDGET + one_read {
                return Err(Trouble::Server(format!(
                    "it read {} bytes from one client in one round; a budget and one read are {}{}",
                    count(read),
                    count(BUDGET + one_read),
                    listing(round)
                )));
            }
        }
        Ok(())
    });
}
