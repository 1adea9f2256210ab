//! Clients that mean no good, and what the server is like when they have gone.
//!
//! Every check does the same thing to the server again and again, with an ordinary client beside it that has to be
//! served all the while. After each time the server must have the descriptors it began with, sleep when nothing
//! happens, spend on an echo the system calls it always spends, and take a new client; and from the second time on
//! its memory must stop growing.

mod arrivals;
mod limits;
mod random;
mod slow;

pub use arrivals::{
    outlives_thousands_that_reset_at_once, serves_bursts_beyond_its_backlog,
    spends_nothing_on_a_thousand_that_say_nothing,
};
pub use limits::{
    frees_the_places_of_clients_that_are_stuck, holds_the_line_at_its_most_connections,
    recovers_when_descriptors_are_free_again, serves_everyone_in_turn_without_descriptors,
};
pub use random::{goes_on_when_stopped_under_load, survives_random_clients};
pub use slow::{
    gives_slow_readers_all_after_their_half_close, keeps_unfinished_requests_bounded,
    spends_little_on_a_byte_now_and_then, stays_well_beside_clients_that_never_read,
};

use crate::{
    Client, PATIENCE, Server, Trouble,
    explain::count,
    mechanism::{echoes_in_lock_step, is_quiet},
    proc_fs,
    tracer::Tracer,
    wait_until,
};

/// How often each check does what it does, at least: the first time shows how much memory it takes, the second that it
/// takes no more, and one more settles it.
const REPETITIONS: usize = 3;

/// And at most: how the pieces of a heap fall is a matter of chance, and a server may once in a while need a page more.
/// One that loses memory needs more each time.
const MOST_REPETITIONS: usize = 8;

/// What a reader's program may grow by, in bytes: it may have a runtime that gives nothing back for long.
const RUNTIME: usize = 1 << 20;

/// An ordinary client that is there all the time: what it is given, everybody should be.
struct Witness<'a> {
    server: &'a Server,
    client: Client,
    /// What the server had open when nobody else was there.
    descriptors: usize,
}

impl<'a> Witness<'a> {
    fn new(server: &'a Server) -> Result<Self, Trouble> {
        let client = Client::connect(server)?;
        client.be_served(server)?;
        Ok(Self {
            server,
            client,
            descriptors: server.open_descriptors(),
        })
    }

    /// It is served, whoever else is there.
    fn is_served(&self) -> Result<(), Trouble> {
        self.client.echo(b"and I am served\n")
    }

    /// The server sleeps while nothing happens, and an echo costs what it always costs, whoever else is there.
    fn finds_the_server_well(&self) -> Result<(), Trouble> {
        const ROUNDS: u64 = 5;
        let tracer = Tracer::attach(self.server)?;
        self.is_served()?;
        is_quiet(self.server, &tracer)?;
        echoes_in_lock_step(self.server, &tracer, &self.client, ROUNDS, 1)
    }

    /// The server has as many connections as it had with so many clients besides this one.
    fn finds_clients(&self, others: usize) -> Result<(), Trouble> {
        let expected = self.descriptors + others;
        let mut seen = 0;
        wait_until("", PATIENCE, || {
            seen = self.server.open_descriptors();
            seen == expected
        })
        .map_err(|_| {
            Trouble::Server(format!(
                "it has {} descriptors open where {} are right: {} when only one client is there, and one for each of \
                 {others} others",
                count(seen),
                count(expected),
                self.descriptors
            ))
        })
    }

    /// The others have gone, and the server is what it was before they came.
    fn finds_all_as_it_was(&self) -> Result<(), Trouble> {
        self.finds_clients(0)?;
        self.finds_the_server_well()?;
        Client::connect(self.server)?.be_served(self.server)?;
        self.finds_clients(0)
    }
}

/// Does this to the server again and again, and each time looks whether it has taken harm.
fn withstands(
    server: &Server,
    mut attack: impl FnMut(&Witness<'_>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let witness = Witness::new(server)?;
    let mut memory = Vec::new();
    loop {
        let time = |trouble| after(memory.len() + 1, trouble);
        attack(&witness).map_err(time)?;
        witness.finds_all_as_it_was().map_err(time)?;
        memory.push(proc_fs::anonymous_memory(server.pid())?);
        let spare = match server.program().is_foreign() {
            true => RUNTIME,
            false => 0,
        };
        if memory.len() >= REPETITIONS && has_stopped_growing(&memory, spare) {
            return Ok(());
        }
        if memory.len() == MOST_REPETITIONS {
            let bytes: Vec<String> = memory.iter().map(|&bytes| count(bytes)).collect();
            return Err(Trouble::Server(format!(
                "with all clients gone its memory was larger each time, from the second to the last: something that clients \
                 leave behind is kept. `Anonymous` in bytes: {}",
                bytes.join(", ")
            )));
        }
    }
}

/// Whether the last time needed no more than a time before, the first not counted, and what may be spared.
fn has_stopped_growing(memory: &[usize], spare: usize) -> bool {
    match memory {
        [_, before @ .., last] => before.iter().any(|&earlier| *last <= earlier + spare),
        _ => false,
    }
}

/// The same trouble, with which time it was.
fn after(times: usize, trouble: Trouble) -> Trouble {
    match times {
        1 => trouble,
        times => Trouble::Server(format!(
            "{trouble}\n  (It was the {times}. time; before, all was well.)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_may_grow_once() {
        assert!(!has_stopped_growing(&[5, 6], 0));
        assert!(has_stopped_growing(&[5, 6, 6], 0));
        assert!(has_stopped_growing(&[5, 9, 6], 0));
        assert!(!has_stopped_growing(&[5, 6, 7], 0));
        assert!(has_stopped_growing(&[5, 6, 7], 1));
        assert!(has_stopped_growing(&[5, 6, 8, 7], 0));
    }
}
