//! The graceful end: whatever was said is heard.

use nix::sys::signal::Signal;

use super::{Room, Said, alice_and_bob, joins_unheard, text};
use crate::{
    PATIENCE, Program,
    explain::{Lesson, book},
    mechanism::ended_well,
    proc_fs, server, skipped,
    syscalls::{Call, Kind},
    tracer::Tracer,
    wait_until,
};

/// Lines that were said before the signal.
const LINES: usize = 250;

/// SIGTERM ends a server when all have what they are owed, in good order.
#[track_caller]
pub fn loses_no_owed_line_at_sigterm(program: &Program) {
    if program.is_foreign() {
        return skipped("how a server ends is judged on our own only");
    }
    Lesson {
        tried: "a member with small buffers reads nothing while alice says 250 lines of 4,000 \
                bytes, and bob hears them; then the server gets SIGTERM. When it listens no more, \
                the member reads: every line, and then the end; bob and alice hear the end and \
                nothing else, and the exit code is 0",
        usually: "the outboxes are not flushed before the end; or connections are closed with \
                  bytes unread, which resets them; or the members hear of each other's leaving \
                  when all have to go",
        read: book::M7_DRAIN,
    }
    .expect(|| {
        let server = program.start();
        let (mut sleepy, mut alice, mut bob) = super::a_member_that_does_not_read(&server, LINES)?;
        server.signal(Signal::SIGTERM);
        let port = server.addr().port();
        wait_until(
            "the server acted on SIGTERM: it ended, or stopped listening",
            PATIENCE,
            || server.has_ended() || server::listening_at(port).is_none(),
        )?;
        bob.hears_the_end()?;
        alice.hears_the_end()?;
        sleepy.line()?;
        sleepy.hears(Room(&["alice", "bob"]))?;
        for number in 0..LINES {
            sleepy.hears(Said("alice", &text(number, 4000)))?;
        }
        sleepy.hears_the_end()?;
        ended_well(&server)
    });
}

/// What has been sent is not what has arrived: at its end, the server waits until a guest's system
/// has everything.
#[track_caller]
pub fn ends_when_all_has_arrived(program: &Program) {
    /// Lines that fit into the kernel's buffers, and not into the guest's.
    const LINES: usize = 16;
    if program.is_foreign() {
        return skipped("how a server ends is judged on our own only");
    }
    Lesson {
        tried: "a member with a small receive buffer reads nothing while alice says 16 lines of \
                4,000 bytes; the server has sent them all, and gets SIGTERM; when it has looked \
                three times whether they have arrived, the member says a word more, and then \
                reads: every line, and then the end",
        usually: "a connection is closed when the socket has taken all, which is not when the \
                  guest has it: a byte that comes after the close resets the connection, and what \
                  the kernel still had is lost. Ask SIOCOUTQ",
        read: book::M7_DRAIN,
    }
    .expect(|| {
        let server = program.start();
        let (mut alice, mut bob) = alice_and_bob(&server)?;
        let mut sleepy = joins_unheard(&server, "sleepy", [&mut alice, &mut bob])?;
        let fd = proc_fs::connection_of(&server, &sleepy.client)?;
        let tracer = Tracer::attach(&server)?;
        let mark = tracer.mark();
        for number in 0..LINES {
            let line = text(number, 4000);
            alice.say(&line)?;
            bob.hears(Said("alice", &line))?;
        }
        tracer.wait_for("the server sent the last line", mark, |calls| {
            let sends = calls
                .iter()
                .filter(|call| call.kind == Kind::Send && call.fd() == fd);
            sends.map(Call::bytes).sum::<usize>() == LINES * (b"[alice] \n".len() + 4000)
        })?;
        let asleep = tracer.wait_until_resting()?;
        server.signal(Signal::SIGTERM);
        tracer.wait_for("the server waited three times more", asleep, |calls| {
            calls.iter().filter(|call| call.kind == Kind::Wait).count() > 4
        })?;
        sleepy.say(b"one word more")?;
        sleepy.line()?;
        sleepy.hears(Room(&["alice", "bob"]))?;
        for number in 0..LINES {
            sleepy.hears(Said("alice", &text(number, 4000)))?;
        }
        sleepy.hears_the_end()?;
        drop(tracer);
        ended_well(&server)
    });
}
