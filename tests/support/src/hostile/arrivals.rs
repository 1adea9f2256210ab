//! Clients that come: too fast, too many at once, or for nothing.

use std::{thread, time::Duration};

use loadgen::{Close, Crowd, Options};
use nix::sys::resource::{Resource, getrlimit};

use super::withstands;
use crate::{
    ClientOptions, Program, Server, Setup, Trouble,
    explain::{Lesson, book},
    skipped,
};

/// Clients that connect, and reset the connection at once.
#[track_caller]
pub fn outlives_thousands_that_reset_at_once(server: &Server) {
    const CLIENTS: usize = 3_000;
    Lesson {
        tried: "3,000 clients connect and reset the connection at once, as fast as one thread can, every third after it \
                has sent a byte; one more is served meanwhile. Again and again",
        usually: "an error of accept or of the first read ends the loop; or a client that has gone before it was \
                  accepted keeps its place in the table, or its descriptor",
        read: book::M6_LISTENER,
    }
    .expect(|| {
        withstands(server, |witness| {
            for number in 0..CLIENTS {
                let client = ClientOptions::new().begin(server)?;
                match number % 3 {
                    0 => {
                        let client = client.finish()?;
                        client.send(b"!")?;
                        client.reset();
                    }
                    _ => client.reset(),
                }
                if number % 300 == 0 {
                    witness.is_served()?;
                }
            }
            Ok(())
        })
    });
}

/// Clients that connect, and say nothing.
#[track_caller]
pub fn spends_nothing_on_a_thousand_that_say_nothing(server: &Server) {
    const CLIENTS: usize = 1_000;
    // Where so many are not allowed, fewer show the same.
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard as usize / 8);
    let clients = CLIENTS.min(allowed);
    Lesson {
        tried: "1,000 clients connect and say nothing; one more is served, and its echoes have to cost the system calls \
                they always cost. Then the thousand leave, with a reset or without. Again and again",
        usually: "every connection is looked at in every turn of the loop, whether it has something to say or not; or \
                  what a connection left behind is not found again",
        read: book::M6_MEMORY,
    }
    .expect(|| {
        let mut close = Close::Fin;
        withstands(server, |witness| {
            close = match close {
                Close::Fin => Close::Reset,
                Close::Reset => Close::Fin,
            };
            let options = Options {
                close,
                ..Options::default()
            };
            let crowd = Crowd::connect(server.addr(), clients, options)
                .map_err(|error| Trouble::Server(error.to_string()))?;
            witness.finds_clients(clients)?;
            witness.finds_the_server_well()?;
            drop(crowd);
            Ok(())
        })
    });
}

/// More clients at once than its backlog has room for.
#[track_caller]
pub fn serves_bursts_beyond_its_backlog(program: &Program) {
    const CLIENTS: u64 = 80;
    /// What the kernel drops, it is sent again, after one second, and three, and seven.
    const PATIENCE: Duration = Duration::from_secs(30);
    if program.is_foreign() {
        return skipped("options are for our own servers only");
    }
    let server = program.start_with(Setup::new().args(["--backlog", "16"]));
    Lesson {
        tried: "a server with `--backlog 16` is stopped (SIGSTOP), and 80 clients connect; it goes on (SIGCONT), and each \
                client sends a line when it is connected. All are to be served: those who found the queue full try again \
                by themselves (TCP sends its SYN again after a second). Again and again",
        usually: "the listener is not looked at again after some were accepted, or an error of accept ends the loop",
        read: book::M6_BACKLOG,
    }
    .expect(|| {
        withstands(&server, |witness| {
            server.pause();
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(ClientOptions::new().patience(PATIENCE).begin(&server)?);
                // Not all in the same moment, or all would try again in the same moment.
                thread::sleep(Duration::from_millis(3));
            }
            server.resume();
            witness.is_served()?;
            clients.into_iter().try_for_each(|client| client.finish()?.be_served(&server))
        })
    });
}
