//! One message for many: what it costs to send it, in calls, in turns and in memory, and in which
//! order it arrives.

use std::{collections::HashMap, os::fd::RawFd, thread};

use super::{Guest, Room, Said, comes_to_rest, joins_unheard, members, still_talk, text};
use crate::{
    Client, Server, Trouble, alone_with_many_descriptors,
    explain::{Lesson, book, count},
    proc_fs, skipped,
    syscalls::{Call, Kind, listing},
    tracer::Tracer,
};

/// Members in a room that is traced message by message.
const SMALL_ROOM: usize = 21;

/// Members in a room whose every line reaches several hundred.
const LARGE_ROOM: usize = 300;

/// Members that are owed the same megabyte.
const THOUSAND: usize = 1000;

/// How much a server may grow that owes one megabyte to a thousand: a copy for each would be a
/// thousand megabytes, and a reference to each line costs each member a few bytes.
const ONE_COPY: usize = 100 << 20;

/// At rest, a message is one call for each who receives it.
#[track_caller]
pub fn sends_a_message_once_to_each(server: &Server) {
    Lesson {
        tried: "21 members; ten of them say a line in turn, each when the tracer has seen the \
                server asleep again. Each line is to be one wake-up, one receive, one send of the \
                whole line to each of the 20 others, and nothing else",
        usually: "sends: a line is sent in pieces (the name, the text, the line's end), or sending \
                  is tried again although everything was taken, or it goes to its author as well. \
                  Wake-ups: the loop goes round once more for each receiver, or EPOLLOUT wakes it \
                  although nothing is left to send",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        let names: Vec<String> = (0..SMALL_ROOM)
            .map(|number| format!("guest{number}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut room = members(server, &names)?;
        let fds = descriptors(server, &room)?;
        let tracer = Tracer::attach(server)?;
        // Attaching has interrupted the wait; this is the first thing that happens after it.
        let (first, second) = room.split_at_mut(1);
        still_talk_before(&mut first[0], second)?;

        for said in 0..10 {
            let line = text(said, 64);
            let asleep = tracer.wait_until_resting()?;
            room[said].say(&line)?;
            for (index, guest) in room.iter_mut().enumerate() {
                if index != said {
                    guest.hears(Said(names[said], &line))?;
                }
            }
            let asleep_again = tracer.wait_until_resting()?;
            let calls = tracer.between(asleep, asleep_again);
            let message = format!("[{}] ", names[said]).len() + line.len() + 1;
            check(&calls, &fds, fds[said], message, room[said].is_ours).map_err(|what| {
                Trouble::Server(format!(
                    "line {} of 10 cost {what}:{}",
                    said + 1,
                    listing(&calls)
                ))
            })?;
        }
        Ok(())
    });
}

/// Something that the whole room hears, so that nothing is on its way any more.
fn still_talk_before(first: &mut Guest, others: &mut [Guest]) -> Result<(), Trouble> {
    first.say(b"quiet, please")?;
    let name = first.name.clone();
    others
        .iter_mut()
        .try_for_each(|guest| guest.hears(Said(&name, b"quiet, please")))
}

/// The server's descriptors of these guests, in their order.
fn descriptors(server: &Server, room: &[Guest]) -> Result<Vec<RawFd>, Trouble> {
    room.iter()
        .map(|guest| proc_fs::connection_of(server, &guest.client))
        .collect()
}

/// What is wrong with the calls that one line made.
fn check(
    calls: &[Call],
    members: &[RawFd],
    author: RawFd,
    message: usize,
    is_ours: bool,
) -> Result<(), String> {
    let mut sends: HashMap<RawFd, Vec<usize>> = HashMap::new();
    for call in calls.iter().filter(|call| call.kind == Kind::Send) {
        sends.entry(call.fd()).or_default().push(call.bytes());
    }
    if let Some(sent) = sends.get(&author) {
        return Err(format!("{} sends to the one who said it", sent.len()));
    }
    for member in members.iter().filter(|&&fd| fd != author) {
        match sends.get(member).map_or(&[][..], Vec::as_slice) {
            [sent] if *sent == message => {}
            [sent] => {
                return Err(format!(
                    "a send to descriptor {member} that took {sent} bytes of {message}"
                ));
            }
            sent => return Err(format!("{} sends to descriptor {member}", sent.len())),
        }
    }
    let count = |kind: Kind| calls.iter().filter(|call| call.kind == kind).count();
    let wake_ups = calls.iter().filter(|call| call.is_wake_up()).count();
    // Another server may drain to EAGAIN, and may go round for those whom it sends to.
    let (receives, waits) = if is_ours { (1, 1) } else { (2, members.len()) };
    for (seen, most, what) in [
        (wake_ups, waits, "wake-ups"),
        (count(Kind::Wait), waits, "waits"),
        (count(Kind::Receive), receives, "receives"),
    ] {
        if !(1..=most).contains(&seen) {
            return Err(format!("{seen} {what}, where {most} would do"));
        }
    }
    match count(Kind::EpollCtl) + count(Kind::Poll) {
        0 => Ok(()),
        _ if !is_ours => Ok(()),
        n => Err(format!("{n} calls of epoll_ctl or poll")),
    }
}

/// alice says these lines while the server is stopped, and bob hears them when it goes on. Gives what the
/// server did then, and its descriptor of bob.
fn alice_says_at_once(server: &Server, lines: &[Vec<u8>]) -> Result<(Vec<Call>, RawFd), Trouble> {
    let (alice, mut bob) = super::alice_and_bob(server)?;
    let fd = proc_fs::connection_of(server, &bob.client)?;
    let tracer = Tracer::attach(server)?;
    alice.say(b"now")?;
    bob.hears(Said("alice", b"now"))?;
    tracer.wait_until_resting()?;
    tracer.pause()?;
    alice.say(&lines.join(&b'\n'))?;
    alice.client.wait_until_acknowledged()?;
    let mark = tracer.mark();
    tracer.resume()?;
    for line in lines {
        bob.hears(Said("alice", line))?;
    }
    Ok((tracer.since(mark), fd))
}

/// Many small messages for one member leave by one call.
#[track_caller]
pub fn sends_many_lines_by_one_call(server: &Server) {
    Lesson {
        tried: "with the server stopped (SIGSTOP), alice says 50 short lines at once; when it goes \
                on, bob hears them all, and the sends to him are counted: fewer than one for ten \
                lines",
        usually: "each line is sent by a call of its own. Put what becomes owed in this turn into \
                  the outbox, and send it at the end of the turn: sendmsg takes many pieces",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        const LINES: usize = 50;
        let lines: Vec<Vec<u8>> = (0..LINES).map(|number| text(number, 10)).collect();
        let (calls, fd) = alice_says_at_once(server, &lines)?;
        let sends = calls
            .iter()
            .filter(|call| call.kind == Kind::Send && call.fd() == fd)
            .count();
        match sends * 10 {
            0..LINES => Ok(()),
            _ => Err(Trouble::Server(format!(
                "{sends} sends for {LINES} lines{}",
                listing(&calls)
            ))),
        }
    });
}

/// One message to hundreds does not keep the loop from what else happens: at most `budget` of them
/// are sent it in one turn.
#[track_caller]
pub fn offers_a_message_in_bounded_turns(server: &Server, budget: usize) {
    if server.program().is_foreign() {
        return skipped("how many members a turn may serve is another server's own affair");
    }
    Lesson {
        tried: "300 members; one says a line, and the sends between two waits are counted",
        usually: "a message is sent to everybody at once, in the middle of the turn of whoever \
                  said it: with 10,000 members all others wait for 10,000 calls. Put those who are \
                  owed something into a queue, and send to a bounded number of them a turn",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        let mut room = large_room(server)?;
        let tracer = Tracer::attach(server)?;
        let (first, others) = room.split_at_mut(1);
        let mark = tracer.wait_until_resting()?;
        still_talk_before(&mut first[0], others)?;
        let calls = tracer.since(mark);
        let turns = calls.split(|call| call.kind == Kind::Wait);
        let sends = turns.map(|turn| turn.iter().filter(|call| call.kind == Kind::Send).count());
        match sends.max().unwrap_or(0) {
            most if most <= budget => Ok(()),
            most => Err(Trouble::Server(format!(
                "it sent to {most} of {} members between two waits; its budget is {budget}",
                LARGE_ROOM - 1
            ))),
        }
    });
}

/// One who says very much at once has a turn like everybody else: at most `budget` of its lines are
/// taken in it.
#[track_caller]
pub fn takes_lines_in_bounded_turns(server: &Server, budget: usize) {
    if server.program().is_foreign() {
        return skipped("how many lines a turn may take is another server's own affair");
    }
    Lesson {
        tried: "with the server stopped (SIGSTOP), alice says 6,000 lines of one letter, which one \
                receive takes in; when it goes on, bob hears them all, and the bytes that are sent \
                to him between two waits are counted: they tell how many lines were taken",
        usually: "the budget counts receives, and one of them may bring thousands of lines, each \
                  of which is owed to the whole room. Count lines as well, and go on with the rest \
                  in the next turn: no event will report what was read already",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        let (calls, fd) = alice_says_at_once(server, &vec![b"x".to_vec(); 6_000])?;
        let turns = calls.split(|call| call.kind == Kind::Wait);
        let sent = turns.map(|turn| {
            let sends = turn.iter().filter(|call| call.kind == Kind::Send);
            sends
                .filter(|call| call.fd() == fd)
                .map(Call::bytes)
                .sum::<usize>()
        });
        match sent.max().unwrap_or(0) / b"[alice] x\n".len() {
            most if most <= budget => Ok(()),
            most => Err(Trouble::Server(format!(
                "it took {most} lines of alice's between two waits; its budget is {budget}"
            ))),
        }
    });
}

/// [`LARGE_ROOM`] members, each of whom has heard of all others.
fn large_room(server: &Server) -> Result<Vec<Guest>, Trouble> {
    let names: Vec<String> = (0..LARGE_ROOM)
        .map(|number| format!("guest{number}"))
        .collect();
    members(
        server,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

/// Everybody hears everything that others say, once, and all in the same order.
#[track_caller]
pub fn tells_everybody_everything_in_one_order(server: &Server) {
    Lesson {
        tried: "300 members, and one who only listens. Each of the 300 says one line while the \
                server is stopped (SIGSTOP), so that it finds all of them at once, and two more \
                while it runs. What the listener hears is the order; everybody else is to hear \
                exactly the same, less what it said itself",
        usually: "lines are lost when a socket is full or a budget ends; or those who are behind \
                  are sent newer lines before older ones; or a message is sent to some at once and \
                  to others later, and another one overtakes it",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        let mut room = large_room(server)?;
        let names: Vec<String> = room.iter().map(|guest| guest.name.clone()).collect();
        let mut listener = Guest::connect(server)?;
        listener.introduce("listener")?;
        listener.hears(Room(&names.iter().map(String::as_str).collect::<Vec<_>>()))?;
        for guest in &mut room {
            guest.hears(super::Entered("listener"))?;
        }

        server.pause();
        for guest in &room {
            guest.say(b"line 1")?;
        }
        server.resume();
        for line in ["line 2", "line 3"] {
            thread::scope(|scope| {
                let speaking: Vec<_> = room
                    .chunks(LARGE_ROOM / 4)
                    .map(|guests| {
                        scope.spawn(|| {
                            guests
                                .iter()
                                .try_for_each(|guest| guest.say(line.as_bytes()))
                        })
                    })
                    .collect();
                speaking.into_iter().try_for_each(|thread| {
                    thread.join().expect(
                        "speaking does not \
                                                                                 panic",
                    )
                })
            })?;
        }

        let order: Vec<Vec<u8>> = (0..3 * LARGE_ROOM)
            .map(|_| listener.line())
            .collect::<Result<_, _>>()?;
        // The listener has missed nothing and heard nothing twice.
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let mut all: Vec<Vec<u8>> = names
            .iter()
            .flat_map(|name| (1..=3).map(move |line| format!("[{name}] line {line}").into_bytes()))
            .collect();
        all.sort_unstable();
        if let Some((heard, said)) = sorted.iter().zip(&all).find(|(heard, said)| heard != said) {
            return Err(listener.missed(
                &format!("\"{}\" once", said.escape_ascii()),
                &format!("heard \"{}\" there, or twice", heard.escape_ascii()),
            ));
        }
        for guest in &mut room {
            let own = format!("[{}] ", guest.name);
            let expected = order
                .iter()
                .filter(|line| !line.starts_with(own.as_bytes()));
            for (position, expected) in expected.enumerate() {
                let line = guest.line()?;
                if line != *expected {
                    return Err(guest.missed(
                        &format!(
                            "\"{}\", as line {} in the order of all",
                            expected.escape_ascii(),
                            position + 1
                        ),
                        &format!("heard \"{}\"", line.escape_ascii()),
                    ));
                }
            }
        }
        // And nothing more: the next thing that anybody hears is the next thing that is said.
        let (first, others) = room.split_at_mut(1);
        still_talk_before(&mut first[0], others)
    });
}

/// However many are owed a message, there is one copy of it.
#[track_caller]
pub fn keeps_one_copy_of_a_message(server: &Server) {
    let _alone = alone_with_many_descriptors();
    Lesson {
        tried: "1,000 members with small buffers join and read nothing; then alice says 250 lines \
                of 4,000 bytes, which bob hears: a megabyte that a thousand others are owed. \
                `Anonymous` in /proc/PID/smaps_rollup is compared with what it was before. Then \
                one of the thousand reads, and misses nothing",
        usually: "each outbox has its own copy of the bytes, which are a gigabyte then: let the \
                  outboxes hold references (an Rc, and how far the first one was sent) to one copy",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        let (alice, mut bob) = super::alice_and_bob(server)?;
        let mut sleepers = (0..THOUSAND)
            .map(|number| joins_unheard(server, &format!("sleepy{number}"), [&mut bob]))
            .collect::<Result<Vec<_>, _>>()?;
        let before = proc_fs::anonymous_memory(server.pid())?;
        let mut grown = 0;
        for number in 0..250 {
            let line = text(number, 4000);
            alice.say(&line)?;
            bob.hears(Said("alice", &line))?;
            if number % 10 == 9 {
                grown = proc_fs::anonymous_memory(server.pid())?.saturating_sub(before);
            }
            if grown > ONE_COPY {
                // A thousand copies of all of it would be a gigabyte.
                return Err(Trouble::Server(format!(
                    "after {} lines it had grown by {} bytes, {} for each of {}; one copy of all 250 lines is \
                     1,002,500 bytes, and references may cost up to {} altogether",
                    number + 1,
                    count(grown),
                    count(grown / THOUSAND),
                    count(THOUSAND),
                    count(ONE_COPY)
                )));
            }
        }
        println!(
            "{}: {} bytes of memory more while {} members are owed the same megabyte",
            server.program(),
            count(grown),
            count(THOUSAND)
        );
        // Somebody from the middle: who was there, who came after, and every line.
        let middle = &mut sleepers[THOUSAND / 2];
        middle.line()?;
        middle.line()?;
        for number in THOUSAND / 2 + 1..THOUSAND {
            middle.hears(super::Entered(&format!("sleepy{number}")))?;
        }
        for number in 0..250 {
            middle.hears(Said("alice", &text(number, 4000)))?;
        }
        // Nobody was dropped for it.
        alice.say(b"is everybody here?")?;
        bob.hears(Said("alice", b"is everybody here?"))
    });
}

/// When all has been said, a server sleeps.
#[track_caller]
pub fn rests_after_a_conversation(server: &Server) {
    Lesson {
        tried: "20 members say 20 lines each; one leaves, one resets, one half-closes, one is sent \
                away; then the server's system calls and its processor time are watched while \
                nothing is said",
        usually: "a connection stays on the list of those who are to be sent something, or of \
                  those who go on without an event, although there is nothing left to do for it",
        read: book::M8_FAN_OUT,
    }
    .expect(|| {
        let names: Vec<String> = (0..20).map(|number| format!("guest{number}")).collect();
        let mut room = members(
            server,
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        )?;
        for round in 0..20 {
            for guest in &room {
                guest.say(&text(round, 80))?;
            }
        }
        for guest in &mut room {
            for _ in 0..19 * 20 {
                guest.line()?;
            }
        }
        drop(room.pop());
        room.pop()
            .into_iter()
            .map(|guest| guest.client)
            .for_each(Client::reset);
        room[17].client.half_close()?;
        room[16].say(&[b'x'; 5000])?;
        // These four leave in any order; the first two hear of all of them.
        let (first, others) = room.split_at_mut(1);
        for _ in 0..4 {
            first[0].line()?;
            others[0].line()?;
        }
        let tracer = Tracer::attach(server)?;
        still_talk(&mut first[0], &mut others[0])?;
        comes_to_rest(server, &tracer)
    });
}
