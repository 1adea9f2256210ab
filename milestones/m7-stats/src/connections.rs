//! The connection table: from a token to its connection in one step, whatever the number of connections.

use crate::token::Token;

/// All connections, each in a slot of its own. A slot is reused when its connection has gone, with the
/// next generation.
///
/// It does not care what a connection is, which lets it be tried out without sockets.
pub struct Connections<C> {
    slots: Vec<Slot<C>>,
    /// Slots without a connection; the one that was left last is filled first, while it is still in the
    /// processor's cache.
    free: Vec<u32>,
}

struct Slot<C> {
    /// Counts the connections that have been in this slot. It comes round after 2^32 of them, and no
    /// event is kept that long.
    generation: u32,
    connection: Option<C>,
}

impl<C> Connections<C> {
    /// An empty table that never has to be moved to grow as far as `capacity`, which costs address space
    /// alone: the kernel gives memory to a page when it is first written to.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            slots: Vec::with_capacity(capacity),
            free: Vec::new(),
        }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token of the connection that is in `slot` now.
    pub fn token(&self, slot: u32) -> Token {
        Token::new(slot, self.slots[slot as usize].generation)
    }

    /// The tokens of all connections there are now.
    pub fn tokens(&self) -> Vec<Token> {
        let taken = |&slot: &u32| self.slots[slot as usize].connection.is_some();
        let slots = 0..self.slots.len() as u32;
        slots.filter(taken).map(|slot| self.token(slot)).collect()
    }

    pub fn insert(&mut self, connection: C) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                connection: None,
            });
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.connection = Some(connection);
        Token::new(slot, entry.generation)
    }

    /// The connection that `token` was made for; `None` if it has gone, also when another has its slot.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut C> {
        let slot = self.slots.get_mut(token.slot() as usize)?;
        if slot.generation != token.generation() {
            return None;
        }
        slot.connection.as_mut()
    }

    /// Takes the connection out of the table; dropping it closes its socket.
    pub fn remove(&mut self, token: Token) -> Option<C> {
        let slot = self.slots.get_mut(token.slot() as usize)?;
        if slot.generation != token.generation() {
            return None;
        }
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token.slot());
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_means_a_later_connection_in_the_same_slot() {
        let mut connections = Connections::with_capacity(4);
        let first = connections.insert("first");
        assert_eq!(connections.remove(first), Some("first"));

        let second = connections.insert("second");
        assert_eq!(second.slot(), first.slot(), "the slot is reused");
        assert_eq!(connections.get_mut(first), None);
        assert_eq!(connections.remove(first), None);
        assert_eq!(connections.get_mut(second), Some(&mut "second"));
        assert_eq!(connections.len(), 1);
    }

    #[test]
    fn fills_free_slots_before_it_adds_one() {
        let mut connections = Connections::with_capacity(4);
        let tokens: Vec<_> = (0..4).map(|i| connections.insert(i)).collect();
        connections.remove(tokens[1]);
        connections.remove(tokens[2]);
        assert_eq!(connections.len(), 2);
        assert_eq!(connections.tokens(), [tokens[0], tokens[3]]);
        let slots: Vec<_> = (4..7).map(|i| connections.insert(i).slot()).collect();
        assert_eq!(slots, [2, 1, 4]);
    }

    #[test]
    fn knows_no_token_that_it_did_not_give() {
        let mut connections = Connections::<()>::with_capacity(4);
        assert_eq!(connections.get_mut(Token::new(0, 0)), None);
        assert_eq!(connections.remove(Token::LISTENER), None);
        assert_eq!(connections.len(), 0);
    }
}
