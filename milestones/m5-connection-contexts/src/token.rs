//! What epoll gives back with each event: which connection it is about.

use std::fmt;

/// A slot of the connection table and the generation of the connection in it.
///
/// A descriptor would not do. The kernel reuses its number as soon as it is closed, and an event of the
/// connection that had it before would be taken for one of the new. A slot is reused as well, but each
/// time with another generation, so that a stale token is recognised.
///
/// In the 64 bits that epoll keeps for us, the generation is the upper half and the slot the lower.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(u64);

// ANCHOR: token
impl Token {
    /// The listener. No connection has this token: the table never grows to 2^32 slots.
    pub const LISTENER: Self = Self(u64::MAX);

    pub fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    pub fn slot(self) -> u32 {
        self.0 as u32
    }

    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
// ANCHOR_END: token

impl From<u64> for Token {
    fn from(bits: u64) -> Self {
        Self(bits)
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} generation {}", self.slot(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_way_through_the_kernel() {
        for (slot, generation) in [(0, 0), (1, 0), (0, 1), (7, 3), (u32::MAX - 1, u32::MAX)] {
            let token = Token::from(u64::from(Token::new(slot, generation)));
            assert_eq!((token.slot(), token.generation()), (slot, generation));
            assert_ne!(token, Token::LISTENER);
        }
    }
}
