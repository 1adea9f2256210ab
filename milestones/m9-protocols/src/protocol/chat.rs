//! Chat: who is in the room, and who is told what.
//!
//! The protocol is Budget Chat, problem 3 of Protohackers.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::lines::{LONGEST_LINE, LineBuffer, printable};
use super::{Clients, Message, Progress, Protocol};
use crate::reactor::Token;

/// Longest name, in characters.
const LONGEST_NAME: usize = 32;

/// Most lines taken from one client in one turn: a read may bring thousands of them.
const LINE_BUDGET: usize = 1024;

/// The members. Those who have not given a name yet are clients like others, and no part of it.
#[derive(Default)]
pub struct Chat {
    /// Sorted, so that the newcomer's list does not depend on chance.
    by_name: BTreeMap<Rc<str>, Token>,
    names: HashMap<Token, Rc<str>>,
}

impl Protocol for Chat {
    /// What the client has begun to say.
    type State = LineBuffer;

    /// What a member is owed comes of what others say: not to read from it would help nobody.
    const BACK_PRESSURE: bool = false;

    fn opened(&mut self, client: Token, clients: &mut dyn Clients) {
        clients.tell(client, &message(b"Welcome! What is your name?"));
        clients.start_deadline(client);
    }

    fn received(
        &mut self,
        client: Token,
        state: &mut LineBuffer,
        bytes: &[u8],
        clients: &mut dyn Clients,
    ) -> Progress {
        state.extend(bytes);
        self.resumed(client, state, clients)
    }

    fn resumed(
        &mut self,
        client: Token,
        state: &mut LineBuffer,
        clients: &mut dyn Clients,
    ) -> Progress {
        for _ in 0..LINE_BUDGET {
            if clients.is_busy() {
                return Progress::More;
            }
            let goes_on = match state.next_line() {
                Ok(Some(line)) => self.hear(client, &line, clients),
                Ok(None) => return Progress::Done,
                Err(_) => {
                    let reason = format!("A line has at most {LONGEST_LINE} bytes.");
                    self.send_away(client, &reason, clients);
                    false
                }
            };
            if !goes_on {
                state.clear();
                return Progress::Done;
            }
        }
        Progress::More
    }

    fn ended(&mut self, client: Token, clients: &mut dyn Clients) {
        clients.clear_deadline(client);
        self.leave(client, clients);
    }

    fn closed(&mut self, client: Token, clients: &mut dyn Clients) {
        self.leave(client, clients);
    }

    fn overdue(&mut self, client: Token, clients: &mut dyn Clients) {
        self.send_away(client, "No name, no chat. Goodbye.", clients);
    }
}

impl Chat {
    /// Takes a line: a name, if it is the first, or something for the others. `false`: the client is sent
    /// away for it.
    fn hear(&mut self, client: Token, line: &[u8], clients: &mut dyn Clients) -> bool {
        if let Some(name) = self.names.get(&client) {
            let text = [b"[", name.as_bytes(), b"] ", &printable(line)].concat();
            self.tell_others(client, &text, clients);
            return true;
        }
        match self.admit(client, line) {
            Ok(name) => {
                clients.clear_deadline(client);
                let others = self.by_name.keys().filter(|other| **other != name);
                let others: Vec<&str> = others.map(AsRef::as_ref).collect();
                let list = format!("* The room contains: {}", others.join(", "));
                clients.tell(client, &message(list.as_bytes()));
                let entered = format!("* {name} has entered the room");
                self.tell_others(client, entered.as_bytes(), clients);
                true
            }
            Err(reason) => {
                self.send_away(client, reason, clients);
                false
            }
        }
    }

    fn admit(&mut self, client: Token, line: &[u8]) -> Result<Rc<str>, &'static str> {
        let name = std::str::from_utf8(line).unwrap_or_default();
        let allowed = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if name.is_empty() || name.len() > LONGEST_NAME || !allowed(name) {
            return Err("A name is 1 to 32 letters and digits. Goodbye.");
        }
        if self.by_name.contains_key(name) {
            return Err("Somebody here has that name already. Goodbye.");
        }
        let name = Rc::<str>::from(name);
        self.by_name.insert(Rc::clone(&name), client);
        self.names.insert(client, Rc::clone(&name));
        Ok(name)
    }

    /// Sends a client away, and tells it why.
    fn send_away(&mut self, client: Token, reason: &str, clients: &mut dyn Clients) {
        clients.tell(client, &message(reason.as_bytes()));
        clients.clear_deadline(client);
        clients.dismiss(client);
        self.leave(client, clients);
    }

    /// A client has gone, or goes. The others hear of it once, and only if they had heard that it came.
    fn leave(&mut self, client: Token, clients: &mut dyn Clients) {
        if let Some(name) = self.names.remove(&client) {
            self.by_name.remove(&name);
            let left = format!("* {name} has left the room");
            self.tell_others(client, left.as_bytes(), clients);
        }
    }

    /// Tells all members but one: one copy of the message, however many they are.
    fn tell_others(&self, but: Token, text: &[u8], clients: &mut dyn Clients) {
        let message = message(text);
        for &member in self.by_name.values().filter(|&&member| member != but) {
            clients.tell(member, &message);
        }
    }
}

/// A line of text as it goes over the wire.
fn message(text: &[u8]) -> Message {
    [text, b"\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::recorder::Recorder;

    const ALICE: Token = Token::new(0, 0);
    const BOB: Token = Token::new(1, 0);
    const EVE: Token = Token::new(2, 0);

    /// What is told to whom when a client says something.
    fn say(chat: &mut Chat, client: Token, text: &str) -> Vec<String> {
        let (mut state, mut clients) = (LineBuffer::default(), Recorder::default());
        let progress = chat.received(client, &mut state, text.as_bytes(), &mut clients);
        assert_eq!(progress, Progress::Done);
        clients.told
    }

    #[test]
    fn asks_for_a_name_and_waits_for_it_so_long() {
        let (mut chat, mut clients) = (Chat::default(), Recorder::default());
        chat.opened(ALICE, &mut clients);
        assert_eq!(clients.take_told(), ["to 0: Welcome! What is your name?\n"]);
        assert!(clients.has_deadline);
        chat.overdue(ALICE, &mut clients);
        assert!(clients.dismissed);
        assert!(!clients.has_deadline);
    }

    #[test]
    fn a_newcomer_learns_who_is_there_and_they_learn_of_it() {
        let mut chat = Chat::default();
        assert_eq!(
            say(&mut chat, BOB, "bob\n"),
            ["to 1: * The room contains: \n"]
        );
        assert_eq!(
            say(&mut chat, ALICE, "alice\r\n"),
            [
                "to 0: * The room contains: bob\n",
                "to 1: * alice has entered the room\n"
            ]
        );
    }

    #[test]
    fn a_line_goes_to_all_others_without_control_characters() {
        let mut chat = Chat::default();
        say(&mut chat, ALICE, "alice\n");
        say(&mut chat, BOB, "bob\n");
        assert_eq!(
            say(&mut chat, ALICE, "hello\x1b[2J\tthere\nagain\nunfinished"),
            ["to 1: [alice] hello[2J\tthere\n", "to 1: [alice] again\n"]
        );
    }

    #[test]
    fn a_bad_name_or_one_in_use_is_explained_and_nobody_else_hears_of_it() {
        let mut chat = Chat::default();
        say(&mut chat, ALICE, "alice\n");
        for name in [
            "",
            "two words",
            "zażółć",
            "alice\x07",
            &"x".repeat(33),
            "alice",
        ] {
            let told = say(&mut chat, EVE, &format!("{name}\nmore\n"));
            assert_eq!(told.len(), 2, "{name}: {told:?}");
            assert!(told[0].starts_with("to 2: "), "{name}: {told:?}");
            assert_eq!(told[1], "dismiss 2", "{name}");
        }
        let told = say(&mut chat, EVE, &format!("{}\n", "x".repeat(32)));
        assert_eq!(told[0], "to 2: * The room contains: alice\n");
    }

    #[test]
    fn only_a_member_is_said_to_have_left_and_only_once() {
        let (mut chat, mut clients) = (Chat::default(), Recorder::default());
        say(&mut chat, ALICE, "alice\n");
        say(&mut chat, BOB, "bob\n");
        for gone in [ALICE, EVE] {
            chat.ended(gone, &mut clients);
            chat.closed(gone, &mut clients);
        }
        assert_eq!(clients.take_told(), ["to 1: * alice has left the room\n"]);
        let told = say(&mut chat, EVE, "alice\n");
        assert_eq!(
            told[0], "to 2: * The room contains: bob\n",
            "the name is free again"
        );
    }

    #[test]
    fn a_line_too_long_is_explained_and_costs_the_connection() {
        let mut chat = Chat::default();
        say(&mut chat, ALICE, "alice\n");
        say(&mut chat, BOB, "bob\n");
        assert_eq!(
            say(
                &mut chat,
                ALICE,
                &format!("{}\nmore\n", "x".repeat(LONGEST_LINE + 1))
            ),
            [
                "to 0: A line has at most 4096 bytes.\n",
                "dismiss 0",
                "to 1: * alice has left the room\n"
            ]
        );
    }

    #[test]
    fn goes_on_later_where_it_stopped_because_too_much_was_waiting() {
        let (mut chat, mut clients) = (Chat::default(), Recorder::default());
        say(&mut chat, ALICE, "alice\n");
        say(&mut chat, BOB, "bob\n");
        let mut state = LineBuffer::default();
        clients.busy = true;
        let progress = chat.received(ALICE, &mut state, b"one\ntwo\n", &mut clients);
        assert_eq!(progress, Progress::More);
        assert!(clients.take_told().is_empty());
        clients.busy = false;
        assert_eq!(
            chat.resumed(ALICE, &mut state, &mut clients),
            Progress::Done
        );
        assert_eq!(clients.told, ["to 1: [alice] one\n", "to 1: [alice] two\n"]);
    }
}
