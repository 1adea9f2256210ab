//! The graceful end: whatever was said is heard.

use nix::sys::signal::Signal;

use super::{Room, Said, text};
use crate::{
    PATIENCE, Program, Trouble,
    explain::{Lesson, book},
    server, skipped, wait_until,
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
        let status = server.wait_exit(PATIENCE)?;
        match (status.code(), server.stderr()) {
            (Some(0), said) if said.is_empty() => Ok(()),
            (_, said) => Err(Trouble::Server(format!(
                "it ended with {}, and wrote to standard error: {said:?}",
                server::explain_status(status)
            ))),
        }
    });
}
