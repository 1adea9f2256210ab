//! What a chat server owes its guests: the checks about Budget Chat (problem 3 of Protohackers),
//! and about what such a server does to get there. Each takes a running server, or a program to
//! start.
//!
//! That somebody hears *nothing* needs no pause to be seen. There is one order for all: when the
//! next line that a guest hears is one that was said later, nothing was said to it in between.
//!
//! Of a milestone the wording is known. Of a reader's server only what a client can rely on is
//! judged: that the names are in a notice, and that a notice begins with an asterisk.

mod ending;
mod fan_out;
mod limits;
mod lines;
mod room;
mod slow;
mod stale;

use std::{
    fmt,
    io::{ErrorKind, Read},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    Client, ClientOptions, PATIENCE, Server, Trouble,
    explain::{End, count, first_difference},
    mechanism::is_quiet,
    pattern, proc_fs,
    tracer::Tracer,
    wait_until,
};

pub use ending::{ends_when_all_has_arrived, loses_no_owed_line_at_sigterm};
pub use fan_out::{
    keeps_one_copy_of_a_message, offers_a_message_in_bounded_turns, rests_after_a_conversation,
    sends_a_message_once_to_each, sends_many_lines_by_one_call, takes_lines_in_bounded_turns,
    tells_everybody_everything_in_one_order,
};
pub use limits::{
    accepts_in_bounded_turns, closes_everybody_whose_time_is_up,
    closes_idle_guests_when_nothing_else_happens, closes_only_idle_guests,
    holds_no_more_than_it_was_told, serves_what_fits, turns_guests_away_without_descriptors,
    waits_so_long_for_a_name,
};
pub use lines::{
    drops_control_characters, ends_a_line_with_or_without_a_carriage_return, refuses_longer_lines,
    relays_every_other_byte, relays_lines_as_long_as_the_limit, takes_lines_however_they_are_split,
};
pub use room::{
    announces_who_enters_and_who_leaves, asks_for_a_name,
    closes_the_descriptor_of_every_guest_that_left, explains_to_one_who_has_said_more,
    gives_a_half_closed_guest_what_it_was_owed, lets_a_name_be_used_again, refuses_a_name_in_use,
    refuses_other_names, relays_a_line_to_all_others, says_that_one_who_resets_has_left,
    serves_hundreds_of_guests_in_turn, takes_a_whole_visit_in_one_segment,
    takes_names_of_letters_and_digits, tells_a_newcomer_who_is_there,
};
pub use slow::{
    drops_only_those_who_do_not_read, makes_one_who_floods_the_room_wait,
    rests_beside_a_guest_that_does_not_read,
};
pub use stale::knows_a_stale_event;

/// Most bytes that our servers take as a line.
const LONGEST_LINE: usize = 4096;

/// Bytes that our servers may owe a guest: one that does not read, and is owed more, loses its
/// connection.
const HARD_LIMIT: usize = 4 << 20;

/// Somebody who is connected to a chat server and hears, line by line, what it says.
#[derive(Debug)]
struct Guest {
    client: Client,
    /// What failures call it.
    name: String,
    /// Whether the server is a milestone, whose wording is known.
    is_ours: bool,
    /// What was received; taken as lines up to `taken`.
    received: Vec<u8>,
    taken: usize,
}

/// What a guest is to hear.
#[derive(Clone, Copy, Debug)]
enum Heard<'a> {
    /// Who else is in the room, in any order.
    Room(&'a [&'a str]),
    /// Somebody has come.
    Entered(&'a str),
    /// Somebody has gone.
    Left(&'a str),
    /// Somebody has said something.
    Said(&'a str, &'a [u8]),
}
use Heard::{Entered, Left, Room, Said};

impl Guest {
    /// Connects, and hears the question for its name.
    fn connect(server: &Server) -> Result<Guest, Trouble> {
        let mut guest = Guest::arrive(server, ClientOptions::new())?;
        guest.line()?;
        Ok(guest)
    }

    /// Connects, and hears nothing yet.
    fn arrive(server: &Server, options: ClientOptions) -> Result<Guest, Trouble> {
        let client = options.connect(server)?;
        Ok(Guest::new(server, client))
    }

    fn new(server: &Server, client: Client) -> Guest {
        Guest {
            client,
            name: "a guest without a name".to_owned(),
            is_ours: !server.program().is_foreign(),
            received: Vec::new(),
            taken: 0,
        }
    }

    /// Connects, gives its name, and hears that the room contains `others`.
    fn join(server: &Server, name: &str, others: &[&str]) -> Result<Guest, Trouble> {
        let mut guest = Guest::connect(server)?;
        guest.introduce(name)?;
        guest.hears(Room(others))?;
        Ok(guest)
    }

    /// Gives its name.
    fn introduce(&mut self, name: &str) -> Result<(), Trouble> {
        name.clone_into(&mut self.name);
        self.say(name.as_bytes())
    }

    /// Says a line.
    fn say(&self, text: &[u8]) -> Result<(), Trouble> {
        self.client.send(&[text, b"\n"].concat())
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut searched = self.taken;
        loop {
            let unsearched = &self.received[searched..];
            if let Some(length) = unsearched.iter().position(|&byte| byte == b'\n') {
                let line = self.received[self.taken..searched + length].to_vec();
                self.taken = searched + length + 1;
                return Ok(line);
            }
            let new = self.receive()?;
            searched = self.received.len() - new;
        }
    }

    /// Waits for more bytes, and gives how many have come.
    fn receive(&mut self) -> Result<usize, Trouble> {
        let mut buffer = [0; 64 * 1024];
        let stream = self.client.stream();
        let end = match stream.set_read_timeout(Some(PATIENCE)) {
            Err(error) => End::Error(error.kind()),
            Ok(()) => loop {
                match (&*stream).read(&mut buffer) {
                    Ok(0) => break End::Eof,
                    Ok(n) => {
                        // What was taken is in nobody's way until there is more of it than of the
                        // rest.
                        if self.taken > self.received.len() / 2 {
                            self.received.drain(..self.taken);
                            self.taken = 0;
                        }
                        self.received.extend_from_slice(&buffer[..n]);
                        return Ok(n);
                    }
                    Err(error) => match error.kind() {
                        ErrorKind::Interrupted => {}
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                            break End::Silence(PATIENCE);
                        }
                        ErrorKind::ConnectionReset => break End::Reset,
                        kind => break End::Error(kind),
                    },
                }
            },
        };
        Err(self.missed("a line", &format!("heard {end}")))
    }

    /// Hears exactly this next.
    fn hears(&mut self, expected: Heard<'_>) -> Result<(), Trouble> {
        if let Said(name, text) = expected {
            return self.hears_said(name, text);
        }
        let line = match self.line() {
            Ok(line) => line,
            Err(trouble) => {
                return Err(self.missed(&expected.to_string(), &trouble.to_string()));
            }
        };
        match expected.is(&line, self.is_ours) {
            true => Ok(()),
            false => Err(self.missed(
                &expected.to_string(),
                &format!("heard \"{}\"", excerpt(&line)),
            )),
        }
    }

    /// Compared as a whole, and taken apart only if it differs: megabytes are heard in this way.
    fn hears_said(&mut self, name: &str, text: &[u8]) -> Result<(), Trouble> {
        let expected = [b"[", name.as_bytes(), b"] ", text, b"\n"].concat();
        while self.received.len() - self.taken < expected.len() {
            let so_far = &self.received[self.taken..];
            if !expected.starts_with(so_far) {
                break;
            }
            if let Err(trouble) = self.receive() {
                return Err(self.missed(&Said(name, text).to_string(), &trouble.to_string()));
            }
        }
        if self.received[self.taken..].starts_with(&expected) {
            self.taken += expected.len();
            return Ok(());
        }
        let line = self.line()?;
        let at = first_difference(&expected[..expected.len() - 1], &line).unwrap_or(0);
        Err(self.missed(
            &Said(name, text).to_string(),
            &format!(
                "heard \"{}\" ({} bytes; the first difference is at offset {at})",
                excerpt(&line),
                count(line.len())
            ),
        ))
    }

    /// Hears nothing more but the end of the connection.
    fn hears_the_end(&mut self) -> Result<(), Trouble> {
        if self.taken < self.received.len() {
            let line = self.line()?;
            return Err(self.missed(
                "the end of the connection",
                &format!("heard \"{}\"", excerpt(&line)),
            ));
        }
        self.client.expect_eof()
    }

    /// Hears one line that explains, and then the end of the connection: an orderly one, because a
    /// reset could take the explanation away again.
    fn is_sent_away(&mut self) -> Result<(), Trouble> {
        let reason = self.line()?;
        if reason.is_empty() || reason.starts_with(b"* ") || reason.starts_with(b"[") {
            return Err(self.missed(
                "a line that explains why it has to go",
                &format!("heard \"{}\"", excerpt(&reason)),
            ));
        }
        self.hears_the_end()
    }

    fn missed(&self, what: &str, instead: &str) -> Trouble {
        Trouble::Server(format!(
            "{} was to hear {what}; instead: {instead}",
            self.name
        ))
    }
}

impl Heard<'_> {
    fn is(self, line: &[u8], is_ours: bool) -> bool {
        let Ok(text) = std::str::from_utf8(line) else {
            return false;
        };
        match self {
            Room(others) if is_ours => {
                let Some(listed) = text.strip_prefix("* The room contains:") else {
                    return false;
                };
                let mut listed: Vec<_> = listed.split(',').map(str::trim).collect();
                let mut others = match others {
                    [] => vec![""],
                    others => others.to_vec(),
                };
                listed.sort_unstable();
                others.sort_unstable();
                listed == others
            }
            Room(others) => {
                text.starts_with('*')
                    && others
                        .iter()
                        .all(|&other| names(text).any(|word| word == other))
            }
            Entered(name) if is_ours => text == format!("* {name} has entered the room"),
            Left(name) if is_ours => text == format!("* {name} has left the room"),
            Entered(name) | Left(name) => {
                text.starts_with('*') && names(text).any(|word| word == name)
            }
            Said(name, said) => line == [b"[", name.as_bytes(), b"] ", said].concat(),
        }
    }
}

impl fmt::Display for Heard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Room([]) => f.write_str("\"* The room contains:\", without a name"),
            Room(others) => write!(
                f,
                "\"* The room contains: {}\"",
                excerpt(others.join(", ").as_bytes())
            ),
            Entered(name) => write!(f, "\"* {name} has entered the room\""),
            Left(name) => write!(f, "\"* {name} has left the room\""),
            Said(name, text) => write!(f, "\"[{name}] {}\"", excerpt(text)),
        }
    }
}

/// The words of a notice that may be names.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
}

/// A line as a failure shows it.
fn excerpt(line: &[u8]) -> String {
    const SHOWN: usize = 120;
    match line.get(..SHOWN) {
        Some(beginning) => format!("{}…", beginning.escape_ascii()),
        None => line.escape_ascii().to_string(),
    }
}

/// Members of these names, in this order, each of whom has heard who was there before and who came
/// after.
fn members(server: &Server, names: &[&str]) -> Result<Vec<Guest>, Trouble> {
    let mut room = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        room.push(Guest::join(server, name, &names[..index])?);
    }
    for (index, guest) in room.iter_mut().enumerate() {
        for name in &names[index + 1..] {
            guest.hears(Entered(name))?;
        }
    }
    Ok(room)
}

/// The two of whom most conversations consist: alice, who has heard that bob came, and bob.
fn alice_and_bob(server: &Server) -> Result<(Guest, Guest), Trouble> {
    let mut room = members(server, &["alice", "bob"])?;
    let bob = room.pop().expect("there are two");
    let alice = room.pop().expect("there were two");
    Ok((alice, bob))
}

/// Whether the server still serves these two: each says a line that the other hears next.
fn still_talk(alice: &mut Guest, bob: &mut Guest) -> Result<(), Trouble> {
    alice.say(b"are you there?")?;
    bob.hears(Said(&alice.name, b"are you there?"))?;
    bob.say(b"I am")?;
    alice.hears(Said(&bob.name, b"I am"))
}

/// Text of `length` bytes, different for every number.
fn text(number: usize, length: usize) -> Vec<u8> {
    let mut text = pattern(number as u64, length);
    for byte in &mut text {
        *byte = b'a' + *byte % 26;
    }
    text
}

/// What [`Client::be_served`] means here: gives a name that nobody else has, and hears who is in
/// the room.
pub(crate) fn join_under_any_name(client: &Client) -> Result<(), Trouble> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    client.receive_line()?;
    client.send(format!("guest{number}\n").as_bytes())?;
    client.receive_line().map(drop)
}

/// A member that reads nothing, and for whom the server keeps more than the kernel takes.
pub(crate) fn a_member_that_is_owed_lines(server: &Server) -> Result<Client, Trouble> {
    Ok(a_member_that_does_not_read(server, 250)?.0.client)
}

/// A member called sleepy that has read nothing, not even the question for its name, and that is
/// owed this many lines, which alice has said. Gives her as well, and bob, who has heard them all.
fn a_member_that_does_not_read(
    server: &Server,
    lines: usize,
) -> Result<(Guest, Guest, Guest), Trouble> {
    let (mut alice, mut bob) = alice_and_bob(server)?;
    let sleepy = joins_unheard(server, "sleepy", [&mut alice, &mut bob])?;
    everybody_is_owed(lines, &alice, &mut bob)?;
    Ok((sleepy, alice, bob))
}

/// alice says this many lines of 4,000 bytes, [`text`] numbered from 0, and bob hears them: so they
/// are owed to everybody.
fn everybody_is_owed(lines: usize, alice: &Guest, bob: &mut Guest) -> Result<(), Trouble> {
    for number in 0..lines {
        let line = text(number, 4000);
        alice.say(&line)?;
        bob.hears(Said(&alice.name, &line))?;
    }
    Ok(())
}

/// Joins with little room on the way, and reads nothing; those who hear that it has come say that
/// it has.
fn joins_unheard<'a>(
    server: &Server,
    name: &str,
    witnesses: impl IntoIterator<Item = &'a mut Guest>,
) -> Result<Guest, Trouble> {
    let mut guest = Guest::arrive(server, ClientOptions::small())?;
    guest.introduce(name)?;
    for witness in witnesses {
        witness.hears(Entered(name))?;
    }
    Ok(guest)
}

/// Waits until the server has closed a connection, whatever its client does.
fn is_gone(server: &Server, guest: &Guest, within: Duration) -> Result<(), Trouble> {
    let port = guest.client.port();
    let what = format!("the server closed the connection of {}", guest.name);
    let mut looks = 0;
    wait_until(&what, within, || {
        let is_there = proc_fs::connections(server).is_ok_and(|known| known.contains_key(&port));
        // The kernel's table may miss a row at one look, and does not do so again and again.
        looks = if is_there { 0 } else { looks + 1 };
        looks >= 3
    })
}

/// Nobody says anything, and the server does nothing: no system call, no processor time, for a
/// while.
///
/// What is on its way to somebody who has not read it yet still makes an event when it arrives, or
/// when a client's kernel has room for more. Such events end; those of a server that does not rest
/// never do.
fn comes_to_rest(server: &Server, tracer: &Tracer) -> Result<(), Trouble> {
    const LOOKS: usize = 20;
    let mut seen = Ok(());
    for _ in 0..LOOKS {
        seen = is_quiet(server, tracer);
        if seen.is_ok() {
            break;
        }
    }
    seen
}
