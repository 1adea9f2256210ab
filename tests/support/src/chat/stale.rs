//! Stale events: one guest's line costs another its connection, in the middle of a batch.

use std::os::fd::RawFd;

use super::{Guest, HARD_LIMIT, Left, Said, alice_and_bob, joins_unheard, text};
use crate::{
    Client, Program, Server, Trouble,
    explain::{Lesson, book},
    proc_fs, skipped,
    syscalls::{Call, Kind, listing},
    tracer::Tracer,
};

/// Members who speak in the batch. Each brings as much as a server takes from one client in one
/// turn, which is some 50 KiB for ours: together more than is missing to the limit.
const SPEAKERS: usize = 20;

/// Bytes that each of them says, in lines of 4,096 with their ends.
const SPEECH: usize = 64 * 1024;

/// Bytes of lines that the slow member is owed before, less what its socket takes: with the
/// speeches it is above the limit, and without them it is not.
const BEFORE: usize = HARD_LIMIT - 600_000;

/// Tries to arrange the batch. The first one does it, unless this machine held up somebody for so
/// long that the slow member was dropped for being slow too long.
const TRIES: usize = 3;

/// An event of a connection that was closed earlier in the same batch is not taken for one of the
/// new connection that has its place.
#[track_caller]
pub fn knows_a_stale_event(program: &Program) {
    if program.is_foreign() {
        return skipped(
            "the batch can be arranged only for our own servers, whose limits are known",
        );
    }
    Lesson {
        tried: "a member who reads nothing is owed nearly as much as is allowed. With the server \
                stopped (SIGSTOP), in this order: others speak, which takes it above the limit; a \
                new client connects and sends its name; the slow member says something. When the \
                server goes on (SIGCONT), one wait reports all of this: while it handles the \
                speeches it closes the slow member's connection, then it accepts the new client \
                into the place that has become free, and then it comes to the event of the one who \
                had that place before. The new client is to be a member like any other: it hears \
                who is there, what it says is heard, and it hears what is said",
        usually: "the event's token names a slot (or a descriptor, which the kernel used again) \
                  and nothing tells whose it was: the new client's first words are handled under \
                  the old one's name. Put a generation into the token, count it up when a slot is \
                  left, and drop events whose generation is not the slot's",
        read: book::M8_STALE,
    }
    .expect(|| {
        for _ in 0..TRIES {
            let server = program.start();
            if new_guest_takes_the_slot_in_the_batch(&server)? {
                return Ok(());
            }
        }
        Err(Trouble::Server(format!(
            "in {TRIES} tries the server never closed one connection and accepted another between \
             two reported events: has the limit of what a member may be owed changed, or the order \
             in which it handles events?"
        )))
    });
}

/// Arranges the batch, and checks that no harm comes of it. `false` when the trace shows that the
/// batch was another one.
///
/// epoll keeps what is ready in a list, in the order in which it became so, and a wait takes it
/// from there in that order (`ep_poll_callback` of the kernel's fs/eventpoll.c adds at the end; a
/// descriptor that is on the list already keeps its place). While the server is stopped nothing is
/// taken from it. So the order of events is the order in which things happen here, one after the
/// other; and each is certain to have happened before the next begins, because bytes that are
/// acknowledged, and a connection that is established, have been through the server's kernel, which
/// is this one.
fn new_guest_takes_the_slot_in_the_batch(server: &Server) -> Result<bool, Trouble> {
    let (mut alice, mut bob) = alice_and_bob(server)?;
    let mut speakers = Vec::new();
    for number in 0..SPEAKERS {
        let name = format!("speaker{number}");
        let mut speaker = Guest::connect(server)?;
        speaker.introduce(&name)?;
        // The list and, later, whatever the others say: nobody asks, and their sockets have room
        // for it.
        speaker.line()?;
        alice.hears(super::Entered(&name))?;
        bob.hears(super::Entered(&name))?;
        speakers.push(speaker);
    }
    let mut room: Vec<Guest> = [alice, bob].into_iter().chain(speakers).collect();
    let sleepy = joins_unheard(server, "sleepy", room.iter_mut().take(2))?;
    let sleepy_fd = proc_fs::connection_of(server, &sleepy.client)?;
    let listener_fd = proc_fs::listener_of(server)?;
    for guest in &mut room[2..] {
        while guest.line()? != b"* sleepy has entered the room" {}
    }

    let (alice, others) = room.split_first_mut().expect("alice is the first");
    if let Err(trouble) = everybody_hears(alice, others, BEFORE) {
        // On a machine that takes seconds for this, the time in which sleepy may be far behind can
        // be over.
        return match proc_fs::connections(server)?.contains_key(&sleepy.client.port()) {
            true => Err(trouble),
            false => Ok(false),
        };
    }

    let tracer = Tracer::attach(server)?;
    everybody_hears(alice, others, 1)?;
    tracer.wait_until_resting()?;
    tracer.pause()?;
    // First: what takes sleepy above the limit.
    let line = text(0, 4095);
    let speech = [&line[..], b"\n"].concat().repeat(SPEECH / 4096);
    for speaker in &room[2..] {
        speaker.client.send(&speech)?;
        speaker.client.wait_until_acknowledged()?;
    }
    // Second: the new client. Its name waits in its socket; it makes no event of its own, because
    // nobody watches that socket yet. It is what makes a mistake visible: whoever reads it under
    // the wrong token gives the name to the wrong connection.
    let mut newcomer = Guest::new(server, Client::connect(server)?);
    newcomer.introduce("newcomer")?;
    newcomer.client.wait_until_acknowledged()?;
    // Third: the event that will be stale.
    sleepy.say(b"wait for me")?;
    sleepy.client.wait_until_acknowledged()?;
    let mark = tracer.mark();
    tracer.resume()?;

    newcomer.line()?;
    newcomer.line()?;
    let calls = tracer.wait_for("the server slept again", mark, |calls| {
        calls.iter().any(Call::is_wake_up) && calls.last().is_some_and(Call::is_resting)
    })?;
    drop(tracer);
    if !is_as_arranged(&calls, listener_fd, sleepy_fd) {
        return Ok(false);
    }

    // bob hears the speeches, and in between that sleepy has left and that the newcomer has come.
    let (mut left, mut entered) = (false, false);
    while !(left && entered) {
        let heard = room[1].line()?;
        left |= Left("sleepy").is(&heard, true);
        entered |= super::Entered("newcomer").is(&heard, true);
        if heard.starts_with(b"[sleepy]") {
            return Err(Trouble::Server(format!(
                "bob heard \"{}\", from a connection that the server had closed{}",
                super::excerpt(&heard),
                listing(&calls)
            )));
        }
    }
    is_a_member_like_any_other(&mut newcomer, &mut room[1], &calls)
}

/// alice says lines, together at least this many bytes, and each of the others hears each of them:
/// so only those who are not among them are behind.
fn everybody_hears(alice: &mut Guest, others: &mut [Guest], bytes: usize) -> Result<(), Trouble> {
    const LINE: usize = 4000;
    for number in 0..bytes.div_ceil(LINE) {
        let line = text(number, LINE);
        alice.say(&line)?;
        others
            .iter_mut()
            .try_for_each(|guest| guest.hears(Said("alice", &line)))?;
    }
    Ok(())
}

/// The newcomer is heard under its name, and hears others.
fn is_a_member_like_any_other(
    newcomer: &mut Guest,
    bob: &mut Guest,
    calls: &[Call],
) -> Result<bool, Trouble> {
    let trouble = |trouble: Trouble| Trouble::Server(format!("{trouble}{}", listing(calls)));
    // Which could be a name, too: a server that has lost the newcomer's announces it as one.
    newcomer.say(b"hello")?;
    // What is left of the speeches comes first.
    let heard = loop {
        let line = bob.line()?;
        if !line.starts_with(b"[speaker") {
            break line;
        }
    };
    if !Said("newcomer", b"hello").is(&heard, true) {
        let heard = format!("heard \"{}\"", super::excerpt(&heard));
        let what = Said("newcomer", b"hello").to_string();
        return Err(trouble(bob.missed(&what, &heard)));
    }
    bob.say(b"it is now")?;
    loop {
        let line = newcomer.line().map_err(trouble)?;
        if Said("bob", b"it is now").is(&line, true) {
            return Ok(true);
        }
        // The rest of the speeches, of which it hears what was said after it came.
        if !line.starts_with(b"[speaker") {
            let heard = format!("heard \"{}\"", super::excerpt(&line));
            return Err(trouble(newcomer.missed("bob's answer", &heard)));
        }
    }
}

/// Whether one wait reported the listener and, after it, the slow member, and the server closed the
/// slow member's connection before it accepted the new one, all before the next wait.
fn is_as_arranged(calls: &[Call], listener: RawFd, sleepy: RawFd) -> bool {
    let is_close = |call: &Call| call.kind == Kind::Close && call.fd() == sleepy;
    let is_accept = |call: &Call| call.kind == Kind::Accept && call.returned().is_some();
    // From one wait up to the next.
    calls
        .chunk_by(|_, next| next.kind != Kind::Wait)
        .any(|turn| {
            let place = |fd| {
                let reported = turn[0].ready.iter();
                reported
                    .map(|ready| ready.fd)
                    .position(|ready| ready == Some(fd))
            };
            let closed = turn.iter().position(is_close);
            let accepted = turn.iter().position(is_accept);
            is_before(place(listener), place(sleepy)) && is_before(closed, accepted)
        })
}

fn is_before(first: Option<usize>, second: Option<usize>) -> bool {
    first
        .zip(second)
        .is_some_and(|(first, second)| first < second)
}
