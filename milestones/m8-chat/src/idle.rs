//! The idle list: which connection has been silent longest, without asking any other.

use std::time::Duration;

/// No slot: the end of the list.
const NONE: u32 = u32::MAX;

/// Instead of a neighbour, in a slot that is not in the list.
const UNLINKED: u32 = u32::MAX - 1;

/// Connections, by slot, in the order of their last activity.
///
/// A connection on which bytes move goes to the end of the list. So the first of the list is always the
/// next to expire, and one look at it is enough, however many connections there are: a timer for each
/// would cost a heap operation per message, and a scan would cost O(connections) a turn.
///
/// The list is doubly linked through an array that lies beside the connection table, 16 bytes a slot,
/// and it exists only when there is a timeout. Time is counted in milliseconds, from any fixed moment,
/// on a clock that nobody can set.
pub struct IdleList {
    /// How long a connection may be silent, in milliseconds.
    timeout: u64,
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
}

#[derive(Clone, Copy)]
struct Link {
    /// The neighbour that was active before.
    older: u32,
    /// The neighbour that was active after.
    newer: u32,
    /// When bytes last moved, in milliseconds.
    last_active: u64,
}

impl IdleList {
    /// A list for connections in up to `capacity` slots, or more if need be.
    pub fn with_capacity(capacity: usize, timeout: Duration) -> Self {
        Self {
            timeout: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            links: Vec::with_capacity(capacity),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// Adds a connection as the one that was active last. It must not be in the list.
    pub fn insert(&mut self, slot: u32, now: u64) {
        let index = slot as usize;
        if index >= self.links.len() {
            let unlinked = Link {
                older: UNLINKED,
                newer: UNLINKED,
                last_active: 0,
            };
            self.links.resize(index + 1, unlinked);
        }
        self.links[index] = Link {
            older: self.newest,
            newer: NONE,
            last_active: now,
        };
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.links[newest as usize].newer = slot,
        }
        self.newest = slot;
    }

    /// Whether a connection is in the list.
    pub fn contains(&self, slot: u32) -> bool {
        let link = self.links.get(slot as usize);
        link.is_some_and(|link| link.older != UNLINKED)
    }

    /// Takes out a connection, if it is in the list.
    pub fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        let Link { older, newer, .. } = *link;
        if older == UNLINKED {
            return;
        }
        link.older = UNLINKED;
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
    }

    /// Bytes have moved on a connection: it goes to the end of the list, or into it.
    pub fn touch(&mut self, slot: u32, now: u64) {
        if self.newest == slot {
            self.links[slot as usize].last_active = now;
        } else {
            self.remove(slot);
            self.insert(slot, now);
        }
    }

    /// The connection that has been silent longest, if that is too long.
    pub fn expired(&self, now: u64) -> Option<u32> {
        (self.until_next(now)? == 0).then_some(self.oldest)
    }

    /// How long until a connection expires if nothing moves, in milliseconds; `None` if there is none.
    pub fn until_next(&self, now: u64) -> Option<u64> {
        let oldest = self.links.get(self.oldest as usize)?;
        let deadline = oldest.last_active.saturating_add(self.timeout);
        Some(deadline.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_of(slots: &[u32]) -> IdleList {
        let mut idle = IdleList::with_capacity(4, Duration::from_millis(100));
        for (now, &slot) in slots.iter().enumerate() {
            idle.insert(slot, now as u64);
        }
        idle
    }

    /// The order in which all expire, silent from now on.
    fn order(mut idle: IdleList) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(slot) = idle.expired(u64::MAX) {
            idle.remove(slot);
            order.push(slot);
        }
        assert_eq!((idle.oldest, idle.newest), (NONE, NONE));
        order
    }

    #[test]
    fn the_one_silent_longest_expires_first() {
        assert_eq!(order(list_of(&[3, 0, 2])), [3, 0, 2]);
    }

    #[test]
    fn activity_puts_a_connection_at_the_end() {
        for (touched, expected) in [(3, [0, 2, 3]), (0, [3, 2, 0]), (2, [3, 0, 2])] {
            let mut idle = list_of(&[3, 0, 2]);
            idle.touch(touched, 50);
            assert_eq!(order(idle), expected, "touched {touched}");
        }
    }

    #[test]
    fn one_that_left_does_not_expire() {
        for (gone, expected) in [(3, [0, 2]), (0, [3, 2]), (2, [3, 0])] {
            let mut idle = list_of(&[3, 0, 2]);
            idle.remove(gone);
            // Once more, and one that never was in it: nothing happens.
            idle.remove(gone);
            idle.remove(1);
            idle.remove(9);
            assert_eq!(order(idle), expected, "{gone} left");
        }
    }

    #[test]
    fn nobody_expires_before_the_time_is_up() {
        let mut idle = list_of(&[7]);
        assert_eq!(idle.until_next(40), Some(60));
        assert_eq!(idle.expired(99), None);
        assert_eq!(idle.expired(100), Some(7));
        idle.touch(7, 99);
        assert_eq!(idle.expired(100), None);
        idle.remove(7);
        assert_eq!(idle.until_next(1000), None);
    }

    #[test]
    fn one_look_is_enough() {
        let mut idle = list_of(&[3, 0, 2]);
        // The first of the list is the next to expire: nothing else is read. So nobody notices here that
        // another has, against the order of the list, been silent longer.
        idle.links[3].last_active = 50;
        assert_eq!(
            idle.until_next(100),
            Some(50),
            "more than the first of the list was looked at; to look at all costs O(connections) a turn"
        );
    }
}
