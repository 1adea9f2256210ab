//! Whether a server that has nothing to do does nothing.

use std::{thread, time::Duration};

use super::served_clients;
use crate::{
    Client, ClientOptions, Program, Server, Trouble, Verdict, Wall,
    explain::{Lesson, book},
    pattern, proc_fs,
    syscalls::{Call, listing},
    tracer::{Mark, Tracer},
};

/// Clients that are connected and silent.
const SILENT: usize = 50;

/// So many system calls while nothing happens are no accident.
const THOUSANDS: usize = 5_000;

/// How long a server is watched doing nothing. It is asleep in a wait without end and nothing is sent to it, so the
/// kernel has no reason to wake it; this only proves that the reasoning is right.
const A_WHILE: Duration = Duration::from_millis(100);

/// Wall 2: what does a server do while 50 clients are connected and silent?
///
/// [`Wall::NeverRests`] when it makes thousands of system calls, each asking a socket that has nothing to say; held when
/// it sleeps, and makes none. One of the two comes true, and it does not depend on time which: a server that sleeps makes
/// no more calls, and one that never rests is never asleep.
///
/// # Errors
///
/// Whatever is neither.
pub fn fifty_silent_clients(program: &Program) -> Result<Verdict, Trouble> {
    let server = program.start();
    let _clients = served_clients(&server, SILENT)?;
    let tracer = Tracer::attach(&server)?;
    let what = "the server slept, or made thousands of system calls";
    let calls = tracer.wait_for(what, Mark::default(), |calls| {
        calls.len() >= THOUSANDS || calls.last().is_some_and(Call::is_resting)
    })?;
    if calls.len() >= THOUSANDS {
        return Ok(Verdict::Hit(Wall::NeverRests));
    }
    is_quiet(&server, &tracer)?;
    Ok(Verdict::Held)
}

/// A server that has been busy sleeps again.
#[track_caller]
pub fn rests_after_load(server: &Server) {
    Lesson {
        tried: "50 clients echo 20 messages each and one leaves, one resets, one half-closes; then the server's system \
                calls and its processor time are watched while nothing is sent",
        usually: "a descriptor stays ready for ever: a client that has left but was not closed, EPOLLRDHUP, EPOLLHUP or \
                  EPOLLERR that nobody takes note of, EPOLLOUT armed under level triggering",
        read: book::M3_CODE,
    }
    .expect(|| {
        let mut clients = served_clients(server, SILENT)?;
        for round in 0..20 {
            for client in &clients {
                client.send(&pattern(round, 1000))?;
            }
            for client in &clients {
                client.expect(&pattern(round, 1000))?;
            }
        }
        drop(clients.pop());
        clients.pop().into_iter().for_each(Client::reset);
        if let Some(half_closed) = clients.last() {
            half_closed.half_close()?;
        }
        // Served after them, so they have been dealt with.
        clients[0].echo(b"!")?;
        let tracer = Tracer::attach(server)?;
        clients[0].echo(b"?")?;
        is_quiet(server, &tracer)
    });
}

/// A client that does not read is no reason to be busy, and neither is its half-close.
#[track_caller]
pub fn rests_beside_a_client_that_does_not_read(server: &Server) {
    Lesson {
        tried: "one client sends until the server takes no more, and reads nothing; another is served; then the server's \
                system calls are watched while nothing is sent. The same again after the first has half-closed",
        usually: "an event that the server cannot act on is reported again and again (EPOLLOUT with an empty outbox, \
                  EPOLLRDHUP of a paused connection, under level triggering), or the server keeps the connection on its \
                  ready list although only EPOLLOUT can help it",
        read: book::M5_BACK_PRESSURE,
    }
    .expect(|| {
        let stalled = ClientOptions::small().connect(server)?;
        let bytes = pattern(1, 16 << 20);
        let taken = stalled.send_until_stuck(server, &bytes)?;
        let other = Client::connect(server)?;
        let tracer = Tracer::attach(server)?;
        other.echo(b"1")?;
        is_quiet(server, &tracer)?;
        stalled.half_close()?;
        other.echo(b"2")?;
        is_quiet(server, &tracer)?;
        drop(tracer);
        stalled.expect(&bytes[..taken])?;
        stalled.expect_eof()
    });
}

/// The server goes to sleep, and makes no call and uses no processor time until somebody needs it.
///
/// The kernel may still have something to tell it: that a stalled client's socket has taken a little more, for one. So it
/// has several chances; a server that is busy without a reason uses none of them.
pub(crate) fn is_quiet(server: &Server, tracer: &Tracer) -> Result<(), Trouble> {
    const CHANCES: usize = 10;
    let mut quiet = Ok(());
    for _ in 0..CHANCES {
        quiet = is_quiet_for_a_while(server, tracer)?;
        if quiet.is_ok() {
            break;
        }
    }
    quiet
}

/// The inner error: it was not quiet.
fn is_quiet_for_a_while(server: &Server, tracer: &Tracer) -> Result<Result<(), Trouble>, Trouble> {
    // Processor time is told in steps of 10 ms, and going to sleep may complete one. Who spins uses most of the while.
    const NEXT_TO_NOTHING: Duration = Duration::from_millis(20);

    let asleep = tracer.wait_until_resting()?;
    let before = proc_fs::processor_time(server.pid())?;
    thread::sleep(A_WHILE);
    let used = proc_fs::processor_time(server.pid())?.saturating_sub(before);
    let mut calls = tracer.since(asleep);
    // A runtime may keep threads for its own ends.
    let tid = calls[0].tid;
    calls.retain(|call| call.tid == tid);
    // The first is the wait itself.
    if calls.len() == 1 && used <= NEXT_TO_NOTHING {
        return Ok(Ok(()));
    }
    Ok(Err(Trouble::Server(format!(
        "while nothing was sent, it made {} system calls and used {} ms of processor time in {} ms:{}",
        calls.len() - 1,
        used.as_millis(),
        A_WHILE.as_millis(),
        listing(&calls)
    ))))
}

/// What a server does from `mark` on, until it sleeps: for checks in which any small number of calls is right.
pub(crate) fn settles_within(tracer: &Tracer, mark: Mark, most: usize) -> Result<(), Trouble> {
    let calls = tracer.wait_for("the server went back to sleep", mark, |calls| {
        calls.len() > most || calls.last().is_some_and(Call::is_resting)
    })?;
    if calls.len() > most {
        return Err(Trouble::Server(format!(
            "it made more than {most} system calls without going back to sleep:{}",
            listing(&calls)
        )));
    }
    Ok(())
}
