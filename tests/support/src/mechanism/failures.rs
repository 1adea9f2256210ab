//! System calls that fail, for no fault of the server: the tracer makes them.

use nix::errno::Errno;

use super::served_clients;
use crate::{
    Client, Protocol, Server, Trouble,
    explain::{Lesson, book},
    skipped,
    syscalls::{Kind, Outcome},
    tracer::{Mark, Tracer},
};

/// Calls that fail for reasons of one client, or only for the moment, cost one client at most, and no other anything.
#[track_caller]
pub fn outlives_calls_that_fail(server: &Server) {
    if server.program().is_foreign() {
        return skipped("which of its calls may fail, a program of yours may know better");
    }
    Lesson {
        tried: "the server's system calls are made to fail, one at a time: accept4 with ECONNABORTED while two clients are \
                in the queue; accept4, epoll_wait, recv and send with EINTR; epoll_ctl with ENOSPC for a client that has \
                just come. All other clients are to be served, before and after",
        usually: "an error that is not expected ends the loop, or the server; or all errors of accept are taken for a lack \
                  of descriptors. Few say anything about the server: EINTR is to be tried again, and the rest are about \
                  one client, which is lost or has gone",
        read: book::M4_ACCEPT,
    }
    .expect(|| {
        let resident = served_clients(server, 1)?;
        let tracer = Tracer::attach(server)?;
        tracer.pause()?;
        let queued = [Client::connect(server)?, Client::connect(server)?];
        let planned = plan(&tracer, Kind::Accept, Errno::ECONNABORTED);
        tracer.resume()?;
        queued.iter().try_for_each(|client| client.be_served(server))?;
        planned.has_happened()?;

        for kind in [Kind::Accept, Kind::Wait, Kind::Receive, Kind::Send] {
            let planned = plan(&tracer, kind, Errno::EINTR);
            // Twice: the wait that is going on now has begun already.
            let more = served_clients(server, 2)?;
            planned.has_happened()?;
            still_served(server, &more[0])?;
        }

        let planned = plan(&tracer, Kind::EpollCtl, Errno::ENOSPC);
        Client::connect(server)?.expect_eof()?;
        planned.has_happened()?;
        let more = served_clients(server, 2)?;
        resident.iter().chain(&queued).chain(&more).try_for_each(|client| still_served(server, client))
    });
}

/// A failure that is planned.
struct Planned<'a> {
    tracer: &'a Tracer,
    since: Mark,
    kind: Kind,
    errno: Errno,
}

fn plan(tracer: &Tracer, kind: Kind, errno: Errno) -> Planned<'_> {
    let since = tracer.mark();
    tracer.fail_next(kind, errno);
    Planned {
        tracer,
        since,
        kind,
        errno,
    }
}

impl Planned<'_> {
    /// Without it, nothing would have been tried.
    fn has_happened(&self) -> Result<(), Trouble> {
        let is_it = |call: &crate::syscalls::Call| {
            call.kind == self.kind && call.outcome == Outcome::Failed(self.errno)
        };
        let what = format!("a call failed with {}, as planned", self.errno);
        self.tracer
            .wait_for(&what, self.since, |calls| calls.iter().any(is_it))
            .map(drop)
    }
}

/// Whether a client that was served before still is.
fn still_served(server: &Server, client: &Client) -> Result<(), Trouble> {
    match server.program().protocol() {
        Protocol::Echo | Protocol::EchoOrHttp => client.echo(b"still here"),
        Protocol::Http => client.be_served(server),
        // What a guest says goes to others.
        Protocol::Chat => client.send(b"still here\n"),
    }
}
