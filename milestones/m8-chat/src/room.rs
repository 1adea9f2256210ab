//! The chat room: who is in it, and who is told what. It knows nothing of sockets.
//!
//! The protocol is Budget Chat, problem 3 of Protohackers.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::lines::printable;
use crate::token::Token;

// ANCHOR: message
/// A message as it goes to a client: one copy, shared by all who are owed it.
pub type Message = Rc<[u8]>;
// ANCHOR_END: message

/// Longest name, in characters.
const LONGEST_NAME: usize = 32;

// ANCHOR: action
/// What the room wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message to one client.
    Tell(Token, Message),
    /// Send a message to all members but this one.
    TellOthers(Token, Message),
    /// End a client's connection when it has what it is owed.
    Dismiss(Token),
}
// ANCHOR_END: action

/// The members, and those who have not given a name yet.
#[derive(Default)]
pub struct Room {
    /// Sorted, so that the newcomer's list does not depend on chance.
    by_name: BTreeMap<Rc<str>, Token>,
    names: HashMap<Token, Rc<str>>,
}

impl Room {
    /// Who is told what is said to all.
    pub fn members(&self) -> impl Iterator<Item = Token> {
        self.by_name.values().copied()
    }

    /// Whether a client has given its name.
    pub fn has(&self, token: Token) -> bool {
        self.names.contains_key(&token)
    }

    /// A client has connected.
    pub fn arrive(&self, token: Token, act: &mut impl FnMut(Action)) {
        act(Action::Tell(token, message(b"Welcome! What is your name?")));
    }

    // ANCHOR: hear
    /// A client has said something: its name, if it is the first line, or a line for the others.
    pub fn hear(&mut self, token: Token, line: &[u8], act: &mut impl FnMut(Action)) {
        match self.names.get(&token) {
            Some(name) => {
                let text = [b"[", name.as_bytes(), b"] ", &printable(line)].concat();
                act(Action::TellOthers(token, message(&text)));
            }
            None => match self.admit(token, line) {
                Ok(name) => {
                    let others = self.by_name.keys().filter(|other| **other != name);
                    let others: Vec<&str> = others.map(AsRef::as_ref).collect();
                    let list = format!("* The room contains: {}", others.join(", "));
                    let entered = format!("* {name} has entered the room");
                    act(Action::Tell(token, message(list.as_bytes())));
                    act(Action::TellOthers(token, message(entered.as_bytes())));
                }
                Err(reason) => self.dismiss(token, reason, act),
            },
        }
    }
    // ANCHOR_END: hear

    /// A client is sent away, and told why.
    pub fn dismiss(&mut self, token: Token, reason: &str, act: &mut impl FnMut(Action)) {
        act(Action::Tell(token, message(reason.as_bytes())));
        act(Action::Dismiss(token));
        self.leave(token, act);
    }

    /// A client has gone, or goes. The others hear of it once, and only if they had heard that it came.
    pub fn leave(&mut self, token: Token, act: &mut impl FnMut(Action)) {
        if let Some(name) = self.names.remove(&token) {
            self.by_name.remove(&name);
            let left = format!("* {name} has left the room");
            act(Action::TellOthers(token, message(left.as_bytes())));
        }
    }

    fn admit(&mut self, token: Token, line: &[u8]) -> Result<Rc<str>, &'static str> {
        let name = std::str::from_utf8(line).unwrap_or_default();
        let allowed = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if name.is_empty() || name.len() > LONGEST_NAME || !allowed(name) {
            return Err("A name is 1 to 32 letters and digits. Goodbye.");
        }
        if self.by_name.contains_key(name) {
            return Err("Somebody here has that name already. Goodbye.");
        }
        let name = Rc::<str>::from(name);
        self.by_name.insert(Rc::clone(&name), token);
        self.names.insert(token, Rc::clone(&name));
        Ok(name)
    }
}

/// A line of text as it goes over the wire.
fn message(text: &[u8]) -> Message {
    [text, b"\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Token = Token::new(0, 0);
    const BOB: Token = Token::new(1, 0);
    const EVE: Token = Token::new(2, 0);

    /// What the room wants done when something happens, as text.
    fn actions(happen: impl FnOnce(&mut dyn FnMut(Action))) -> Vec<String> {
        let mut all = Vec::new();
        happen(&mut |action| {
            let text = |message: Message| String::from_utf8_lossy(&message).into_owned();
            all.push(match action {
                Action::Tell(token, message) => format!("to {}: {}", token.slot(), text(message)),
                Action::TellOthers(token, message) => {
                    format!("to all but {}: {}", token.slot(), text(message))
                }
                Action::Dismiss(token) => format!("dismiss {}", token.slot()),
            });
        });
        all
    }

    fn hear(room: &mut Room, token: Token, line: &str) -> Vec<String> {
        actions(|mut act| room.hear(token, line.as_bytes(), &mut act))
    }

    #[test]
    fn a_newcomer_learns_who_is_there_and_they_learn_of_it() {
        let mut room = Room::default();
        assert_eq!(
            hear(&mut room, BOB, "bob"),
            [
                "to 1: * The room contains: \n",
                "to all but 1: * bob has entered the room\n"
            ]
        );
        assert_eq!(
            hear(&mut room, ALICE, "alice"),
            [
                "to 0: * The room contains: bob\n",
                "to all but 0: * alice has entered the room\n"
            ]
        );
        assert_eq!(room.members().collect::<Vec<_>>(), [ALICE, BOB]);
    }

    #[test]
    fn a_line_goes_to_all_others_without_control_characters() {
        let mut room = Room::default();
        hear(&mut room, ALICE, "alice");
        assert_eq!(
            hear(&mut room, ALICE, "hello\x1b[2J\tthere"),
            ["to all but 0: [alice] hello[2J\tthere\n"]
        );
    }

    #[test]
    fn a_bad_name_or_one_in_use_is_explained_and_nobody_else_hears_of_it() {
        let mut room = Room::default();
        hear(&mut room, ALICE, "alice");
        for name in [
            "",
            "two words",
            "zażółć",
            "alice\x07",
            &"x".repeat(33),
            "alice",
        ] {
            let actions = hear(&mut room, EVE, name);
            assert_eq!(actions.len(), 2, "{name}: {actions:?}");
            assert!(actions[0].starts_with("to 2: "), "{name}: {actions:?}");
            assert_eq!(actions[1], "dismiss 2", "{name}");
            assert!(!room.has(EVE), "{name}");
        }
        assert_eq!(hear(&mut room, EVE, &"x".repeat(32)).len(), 2);
        assert!(room.has(EVE), "32 characters are allowed");
    }

    #[test]
    fn only_a_member_is_said_to_have_left_and_only_once() {
        let mut room = Room::default();
        hear(&mut room, ALICE, "alice");
        let left = actions(|mut act| room.leave(ALICE, &mut act));
        assert_eq!(left, ["to all but 0: * alice has left the room\n"]);
        for token in [ALICE, BOB] {
            assert!(actions(|mut act| room.leave(token, &mut act)).is_empty());
        }
        assert_eq!(room.members().count(), 0);
        hear(&mut room, BOB, "alice");
        assert!(room.has(BOB), "the name is free again");
    }
}
