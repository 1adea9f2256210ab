//! Slow consumers: those who do not read what they are owed.

use std::thread;

use super::{
    Guest, HARD_LIMIT, Left, Said, comes_to_rest, joins_unheard, members, still_talk, text,
};
use crate::{
    Client, ClientOptions, Server, Trouble,
    explain::{End, Lesson, book, count},
    proc_fs, skipped,
    tracer::Tracer,
};

/// Members who read.
const READERS: usize = 180;

/// Members who never do.
const SLEEPERS: usize = 20;

/// Lines in a round, at the end of which everybody who reads has heard all of them: nobody who
/// reads is ever behind by more, however slow the machine.
const ROUND: usize = 50;

/// Bytes of each.
const LINE: usize = 4000;

/// Bytes that may be said before those who never read have to be dropped: the hard limit and what
/// the kernel takes for them, twice over.
const ENOUGH: usize = 3 * HARD_LIMIT;

/// How much a server may grow meanwhile: one copy of what the sleepers are owed, references to it,
/// and what the readers are owed for a moment. A copy for each of the twenty would be more than
/// twice as much.
const BOUND: usize = 32 << 20;

/// Whoever does not read is dropped at the limit, and nobody else notices more than that it has
/// left.
#[track_caller]
pub fn drops_only_those_who_do_not_read(server: &Server) {
    Lesson {
        tried: "a room of 200, of whom 20 with small buffers read nothing. One of the others says \
                lines of 4,000 bytes, in rounds that all 179 others hear to the end, until the 20 \
                have been dropped. Everybody else is to hear every line, and that each of the 20 \
                has left, all in the same order; `Anonymous` in /proc/PID/smaps_rollup is read \
                after each round",
        usually: "nobody is dropped, and what the slow are owed grows until the memory is full; or \
                  the whole room waits for them; or those are dropped too whose socket was full \
                  for a moment only; or a message goes missing where the loop over the members is \
                  left because one of them was dropped",
        read: book::M8_SLOW,
    }
    .expect(|| {
        let names: Vec<String> = (0..READERS)
            .map(|number| format!("reader{number}"))
            .collect();
        let mut room = members(
            server,
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        )?;
        let mut sleepers = (0..SLEEPERS)
            .map(|number| joins_unheard(server, &format!("sleepy{number}"), &mut room))
            .collect::<Result<Vec<_>, _>>()?;
        let before = proc_fs::anonymous_memory(server.pid())?;
        let mut most = before;

        let (speaker, readers) = room.split_at_mut(1);
        let speaker = &mut speaker[0];
        let mut logs: Vec<Vec<Notice>> = vec![Vec::new(); readers.len()];
        let mut said = 0;
        while logs[0].len() < SLEEPERS {
            if server.program().is_foreign() && said * LINE > HARD_LIMIT {
                // Its limit is its own affair, and so far nobody has suffered.
                break;
            }
            if said * LINE > ENOUGH {
                return Err(Trouble::Server(format!(
                    "after {} bytes only {} of {SLEEPERS} members who read nothing have been \
                     dropped",
                    count(said * LINE),
                    logs[0].len()
                )));
            }
            let round: Vec<_> = (said..said + ROUND)
                .map(|number| text(number, LINE))
                .collect();
            round.iter().try_for_each(|line| speaker.say(line))?;
            everybody_hears(readers, &mut logs, &speaker.name, said, &round)?;
            said += ROUND;
            most = most.max(proc_fs::anonymous_memory(server.pid())?);
        }
        let last = [b"that was it".to_vec()];
        speaker.say(&last[0])?;
        everybody_hears(readers, &mut logs, &speaker.name, said, &last)?;
        println!(
            "{}: {} of {SLEEPERS} were dropped within {} bytes; at most {} bytes of memory more \
             than before",
            server.program(),
            logs[0].len(),
            count(said * LINE),
            count(most - before)
        );

        // One order for all, and nobody left twice.
        let mut gone: Vec<&str> = logs[0].iter().map(|notice| notice.name.as_str()).collect();
        gone.sort_unstable();
        if gone.windows(2).any(|names| names[0] == names[1]) {
            return Err(Trouble::Server(format!(
                "those who are said to have left are {gone:?}"
            )));
        }
        if let Some((guest, log)) = readers.iter().zip(&logs).find(|(_, log)| **log != logs[0]) {
            return Err(Trouble::Server(format!(
                "{} heard {log:?}, and {} heard {:?}: each name is to come after the same number \
                 of lines",
                guest.name, readers[0].name, logs[0]
            )));
        }
        for notice in &logs[0] {
            speaker.hears(Left(&notice.name))?;
        }
        if most - before > BOUND {
            return Err(Trouble::Server(format!(
                "its memory grew by {} bytes; allowed are {}",
                count(most - before),
                count(BOUND)
            )));
        }

        // What they had been sent before is in order, and their connections have ended.
        for guest in &mut sleepers {
            if gone.contains(&guest.name.as_str()) {
                was_dropped(guest, &speaker.name)?;
            }
        }
        still_talk(speaker, &mut readers[0])
    });
}

/// That somebody has left was heard after so many lines.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Notice {
    after: usize,
    name: String,
}

/// Every reader hears these lines, the first of which is number `first`, and maybe in between that
/// somebody has left.
fn everybody_hears(
    readers: &mut [Guest],
    logs: &mut [Vec<Notice>],
    speaker: &str,
    first: usize,
    lines: &[Vec<u8>],
) -> Result<(), Trouble> {
    let share = readers.len().div_ceil(4);
    thread::scope(|scope| {
        let hearing: Vec<_> = readers
            .chunks_mut(share)
            .zip(logs.chunks_mut(share))
            .map(|(readers, logs)| {
                scope.spawn(move || {
                    let mut pairs = readers.iter_mut().zip(logs);
                    pairs.try_for_each(|(guest, log)| hears_all(guest, log, speaker, first, lines))
                })
            })
            .collect();
        hearing
            .into_iter()
            .try_for_each(|thread| thread.join().expect("hearing does not panic"))
    })
}

fn hears_all(
    guest: &mut Guest,
    log: &mut Vec<Notice>,
    speaker: &str,
    first: usize,
    lines: &[Vec<u8>],
) -> Result<(), Trouble> {
    for (number, line) in (first..).zip(lines) {
        while guest.next_is(b'*')? {
            let notice = guest.line()?;
            let notice = String::from_utf8_lossy(&notice);
            let Some(name) = super::names(&notice).find(|word| word.starts_with("sleepy")) else {
                return Err(guest.missed("that a sleeper has left", &format!("heard \"{notice}\"")));
            };
            log.push(Notice {
                after: number,
                name: name.to_owned(),
            });
        }
        guest.hears(Said(speaker, line))?;
    }
    Ok(())
}

/// Of what was sent to it, it has the beginning, and then its connection has ended, by a reset or
/// not.
fn was_dropped(guest: &mut Guest, speaker: &str) -> Result<(), Trouble> {
    // Its name, the list, and who came after: all before the first line.
    let (received, end) = guest.client.receive_up_to(ENOUGH);
    if !matches!(end, End::Eof | End::Reset) {
        return Err(guest.missed("the end of its connection", &format!("{end}")));
    }
    let opening = format!("[{speaker}] ").into_bytes();
    let Some(begin) = received
        .windows(opening.len())
        .position(|window| window == opening)
    else {
        // So little fits on the way that not even a line does.
        return Ok(());
    };
    let received = &received[begin..];
    let lines = received.len().div_ceil(LINE);
    let sent: Vec<u8> = (0..lines)
        .flat_map(|number| [&opening, &text(number, LINE)[..], b"\n"].concat())
        .collect();
    Trouble::compare(&sent[..received.len()], received)
}

impl Guest {
    /// Whether the next line begins with this byte.
    fn next_is(&mut self, byte: u8) -> Result<bool, Trouble> {
        if self.taken == self.received.len() {
            self.receive()?;
        }
        Ok(self.received[self.taken] == byte)
    }
}

/// A member who does not read is no reason to be busy.
#[track_caller]
pub fn rests_beside_a_guest_that_does_not_read(server: &Server) {
    Lesson {
        tried: "a member with small buffers reads nothing and is owed 250 lines of 4,000 bytes; \
                alice and bob talk; then the server's system calls are watched while nothing is \
                said. The same again after the member has half-closed. Then it resets, and that it \
                has left is heard once",
        usually: "the member stays in the queue of those who are to be sent something, although \
                  its socket is full and an event will tell when it has room",
        read: book::M8_SLOW,
    }
    .expect(|| {
        let (sleepy, mut alice, mut bob) = super::a_member_that_does_not_read(server, 250)?;
        let tracer = Tracer::attach(server)?;
        still_talk(&mut alice, &mut bob)?;
        comes_to_rest(server, &tracer)?;
        sleepy.client.half_close()?;
        alice.hears(Left("sleepy"))?;
        bob.hears(Left("sleepy"))?;
        comes_to_rest(server, &tracer)?;
        Client::reset(sleepy.client);
        still_talk(&mut alice, &mut bob)
    });
}

/// Members who hear the flood.
const FLOODED: usize = 600;

/// Lines of the flood.
const FLOOD: usize = 5000;

/// How much a server may grow at most while it passes the flood on. If it took all lines first, it
/// would keep three million references for a while, of 16 bytes each.
const FLOOD_BOUND: usize = 8 << 20;

/// Whoever says more than can be passed on is read from later, and nothing is lost.
#[track_caller]
pub fn makes_one_who_floods_the_room_wait(server: &Server) {
    if server.program().is_foreign() {
        return skipped("how much another server takes before it passes it on is its own affair");
    }
    Lesson {
        tried: "600 members; one says 5,000 lines of one letter at once, each of which makes 599 \
                messages. The most memory that the server has had (VmHWM) is compared with what it \
                was before; then everybody reads, and has missed nothing",
        usually: "lines are taken as fast as they come, and what becomes owed grows faster than it \
                  can be sent: count what waits to be sent, and take no more lines while that is \
                  too much",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        // All names at once, so that the notices of one turn leave together: 600 arrivals one by
        // one are 180,000 sends.
        server.pause();
        let mut room = (0..FLOODED)
            .map(|number| {
                let guest = Guest::arrive(server, ClientOptions::new())?;
                guest.say(format!("guest{number}").as_bytes())?;
                Ok(guest)
            })
            .collect::<Result<Vec<_>, Trouble>>()?;
        server.resume();
        // The question and the list: with them, all are in the room.
        for guest in &mut room {
            guest.line()?;
            guest.line()?;
        }
        let (speaker, others) = room.split_at_mut(1);
        let speaker = &mut speaker[0];
        speaker.say(b"quiet, please")?;
        for guest in others.iter_mut() {
            while guest.line()? != b"[guest0] quiet, please" {}
        }

        let before = proc_fs::peak_memory(server.pid())?;
        speaker.client.send(&b"x\n".repeat(FLOOD))?;
        let line = Said("guest0", b"x");
        for guest in others.iter_mut() {
            (0..FLOOD).try_for_each(|_| guest.hears(line))?;
        }
        let grown = proc_fs::peak_memory(server.pid())? - before;
        println!(
            "{}: at most {} bytes of memory more while {} lines go to {} members",
            server.program(),
            count(grown),
            count(FLOOD),
            FLOODED - 1
        );
        match grown {
            0..=FLOOD_BOUND => Ok(()),
            _ => Err(Trouble::Server(format!(
                "it grew by {} bytes; allowed are {}",
                count(grown),
                count(FLOOD_BOUND)
            ))),
        }
    });
}
