//! The graceful drain: how long the end of the server may take.

use std::time::{Duration, Instant};

// ANCHOR: limits
/// How long clients have to take what they are owed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often to look whether they have: of acknowledgements no event tells.
pub const INTERVAL: Duration = Duration::from_millis(20);
// ANCHOR_END: limits

/// The time that is left. It begins when the server is asked to stop.
pub struct Drain {
    until: Instant,
    next_look: Instant,
}

impl Drain {
    pub fn new(now: Instant) -> Self {
        Self {
            until: now + TIMEOUT,
            next_look: now,
        }
    }

    /// Leaves no more time.
    pub fn end(&mut self, now: Instant) {
        self.until = now;
    }

    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Whether to look at all connections: not more often than every [`INTERVAL`], however many events
    /// there are.
    pub fn is_time_to_look(&mut self, now: Instant) -> bool {
        let is_time = now >= self.next_look;
        if is_time {
            self.next_look = now + INTERVAL;
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_time_or_when_asked_again() {
        let now = Instant::now();
        let mut drain = Drain::new(now);
        assert!(!drain.is_over(now + TIMEOUT - INTERVAL));
        assert!(drain.is_over(now + TIMEOUT));
        drain.end(now);
        assert!(drain.is_over(now));
    }

    #[test]
    fn looks_at_once_and_then_from_time_to_time() {
        let now = Instant::now();
        let mut drain = Drain::new(now);
        assert!(drain.is_time_to_look(now));
        assert!(!drain.is_time_to_look(now + INTERVAL / 2));
        assert!(drain.is_time_to_look(now + INTERVAL));
    }
}
