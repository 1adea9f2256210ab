//! What is done about an event: what it reports, and nothing else.

use std::{os::fd::RawFd, time::Duration};

use super::back_pressure::took_everything;
use crate::{
    ClientOptions, PATIENCE, Server, Trouble, chat,
    explain::{Lesson, book},
    pattern, proc_fs, skipped,
    syscalls::{Call, Kind, listing},
    tracer::Tracer,
    wait_until,
};

/// Bytes that the client sends at a time: less than any budget.
const STEP: usize = 4096;

/// More than the buffers on the way ever take from a client that does not read.
const MORE_THAN_FITS: usize = 16 << 20;

/// A socket is read from when an event says that there is something to read, and what is owed is offered to it when an event
/// says that it has room.
#[track_caller]
pub fn asks_a_socket_for_what_was_reported(server: &Server) {
    if server.program().is_foreign() {
        return skipped("it is allowed to try in vain");
    }
    Lesson {
        tried: "one client with small buffers sends 4,096 bytes at a time, and reads nothing, until the server owes it \
                something; then it sends three messages of 64 bytes, and then it reads everything. Each time the tracer \
                waits until the server sleeps again",
        usually: "what an event reports is not looked at: each one costs a recv, and a send if something is owed, of which \
                  one says EAGAIN. Read on EPOLLIN; send what is owed on EPOLLOUT; both on EPOLLERR and EPOLLHUP",
        read: book::M5_OUTBOX,
    }
    .expect(|| {
        let client = ClientOptions::small().connect(server)?;
        client.echo(b".")?;
        let fd = proc_fs::connection_of(server, &client)?;
        let tracer = Tracer::attach(server)?;
        // From the wait that is going on: the echo before it may still have had to be seen to its EAGAIN.
        let start = tracer.wait_until_resting()?;
        let bytes = pattern(1, MORE_THAN_FITS);
        let mut sent = 0;
        let mut say = |length: usize| {
            let mark = tracer.mark();
            client.send(&bytes[sent..sent + length])?;
            sent += length;
            tracer.wait_for("the server read what it was sent", mark, |calls| {
                moved(calls, fd, Kind::Receive) == length
            })?;
            tracer.wait_until_resting()?;
            Ok::<_, Trouble>(sent)
        };
        let owed = || {
            let calls = tracer.since(start);
            moved(&calls, fd, Kind::Receive) - moved(&calls, fd, Kind::Send)
        };
        let mut said = 0;
        while owed() == 0 {
            said = say(STEP)?;
            if said + STEP > bytes.len() {
                return Err(took_everything(said));
            }
        }
        for _ in 0..3 {
            said = say(64)?;
        }
        client.expect(&bytes[..said])?;
        client.echo(b"and it is not forgotten")?;
        tracer.wait_until_resting()?;
        nothing_in_vain(&tracer.since(start), fd)
    });
}

/// How many bytes were received or sent.
fn moved(calls: &[Call], fd: RawFd, kind: Kind) -> usize {
    let those = calls
        .iter()
        .filter(|call| call.kind == kind && call.fd() == fd);
    those.map(Call::bytes).sum()
}

/// Whether each turn did what its event reported, and no more.
fn nothing_in_vain(calls: &[Call], fd: RawFd) -> Result<(), Trouble> {
    /// The next call may say what it is.
    const BROKEN: i32 = libc::EPOLLERR | libc::EPOLLHUP;
    let mut owed = 0;
    for turn in calls.chunk_by(|_, next| next.kind != Kind::Wait) {
        let reported = turn[0].ready.iter().filter(|ready| ready.fd == Some(fd));
        let reported = reported.fold(0, |all, ready| all | ready.events.cast_signed());
        let count = |kind| {
            turn.iter()
                .filter(|call| call.kind == kind && call.fd() == fd)
                .count()
        };
        let was_told = |what: i32| reported & (what | BROKEN) != 0;
        let in_vain = match (count(Kind::Receive), count(Kind::Send)) {
            (1.., _) if !was_told(libc::EPOLLIN) => {
                Some("read, and no event said that there was something to read")
            }
            (_, 1..) if owed > 0 && !was_told(libc::EPOLLOUT) => {
                Some("sent what was owed, and no event said that there was room")
            }
            _ => None,
        };
        if let Some(what) = in_vain {
            return Err(trouble_of(what, turn));
        }
        owed += moved(turn, fd, Kind::Receive);
        owed -= moved(turn, fd, Kind::Send);
    }
    Ok(())
}

/// The same of a chat server, where a guest is owed what others say.
#[track_caller]
pub fn asks_a_guest_for_what_was_reported(server: &Server) {
    if server.program().is_foreign() {
        return skipped("it is allowed to try in vain");
    }
    Lesson {
        tried: "a guest that reads nothing is owed lines that its socket does not take; then it says something, three \
                times, and then it reads everything. Each time the tracer waits until the server sleeps again",
        usually: "what an event reports is not looked at: each one costs a recv, and a send if something is owed, of which \
                  one says EAGAIN. Read on EPOLLIN; send what is owed on EPOLLOUT; both on EPOLLERR and EPOLLHUP",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        let guest = chat::a_member_that_is_owed_lines(server)?;
        let fd = proc_fs::connection_of(server, &guest)?;
        let tracer = Tracer::attach(server)?;
        // With the wait that is going on: the first word ends it.
        let mark = tracer.wait_until_resting()?;
        const WORD: &[u8] = b"zzz\n";
        for words in 1..=3 {
            guest.send(WORD)?;
            tracer.wait_for("the server read what it was sent", mark, |calls| {
                moved(calls, fd, Kind::Receive) == words * WORD.len()
            })?;
            tracer.wait_until_resting()?;
        }
        let owed = tracer.mark();
        wait_until("the guest had read everything", PATIENCE, || {
            let (received, _) = guest.receive_within(1 << 20, Duration::from_millis(10));
            received.is_empty() && server.is_asleep()
        })?;
        let lacks = |turn: &[Call], what: i32| {
            let reported = turn[0].ready.iter().filter(|ready| ready.fd == Some(fd));
            reported.fold(0, |all, ready| all | ready.events.cast_signed()) & what == 0
        };
        for turn in tracer.since(mark).chunk_by(|_, next| next.kind != Kind::Wait) {
            if lacks(turn, libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP)
                && turn.iter().any(|call| call.kind == Kind::Receive && call.fd() == fd)
            {
                return Err(trouble_of("read, and no event said that there was something to read", turn));
            }
        }
        for turn in tracer.between(mark, owed).chunk_by(|_, next| next.kind != Kind::Wait) {
            if lacks(turn, libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP)
                && turn.iter().any(|call| call.kind == Kind::Send && call.fd() == fd)
            {
                return Err(trouble_of("sent what was owed, and no event said that there was room", turn));
            }
        }
        Ok(())
    });
}

fn trouble_of(what: &str, turn: &[Call]) -> Trouble {
    Trouble::Server(format!("it {what}:{}", listing(turn)))
}
