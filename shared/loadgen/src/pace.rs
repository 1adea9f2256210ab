//! The schedule of an open loop: when each message should be sent, whatever the server does.
//!
//! A closed loop waits for an answer before it sends again, so a server that stops for a second is
//! asked nothing in that second, and the answers it owed are missing from the statistics
//! ("coordinated omission"). An open loop goes on sending by the clock, and a message's latency
//! counts from the moment it was due, even when it could only be sent later.

/// Messages due at equal intervals, dealt out to the connections in turn.
///
/// Message `k` of connection `i` of `n` is the `k * n + i`-th of all, so when it was due is a matter
/// of arithmetic, and no time needs to be kept per message.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When message 0 is due, in nanoseconds of the run's clock.
    begin: u64,
    /// Nanoseconds from one message to the next.
    interval: f64,
    connections: u64,
    released: u64,
}

impl Pace {
    /// `rate` messages a second over `connections` connections.
    pub(crate) fn new(begin: u64, rate: f64, connections: usize) -> Self {
        Self {
            begin,
            interval: 1e9 / rate,
            connections: connections as u64,
            released: 0,
        }
    }

    /// When message `k` of connection `i` is due.
    pub(crate) fn due(&self, connection: usize, k: u64) -> u64 {
        self.time_of(k * self.connections + connection as u64)
    }

    /// When the next message is due that was not released yet.
    pub(crate) fn next(&self) -> u64 {
        self.time_of(self.released)
    }

    /// The connection whose turn it is to send, if a message is due at `now`.
    pub(crate) fn release(&mut self, now: u64) -> Option<usize> {
        if self.next() > now {
            return None;
        }
        let connection = self.released % self.connections;
        self.released += 1;
        Some(connection as usize)
    }

    /// How many messages are due before `until` and were not released.
    pub(crate) fn held_back(&self, until: u64) -> u64 {
        let due = (until.saturating_sub(self.begin) as f64 / self.interval).ceil() as u64;
        due.saturating_sub(self.released)
    }

    fn time_of(&self, message: u64) -> u64 {
        self.begin + (message as f64 * self.interval) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deals_the_messages_out_in_turn_and_on_time() {
        let mut pace = Pace::new(1_000, 1e6, 3);
        let mut sent = [0; 3];
        for now in (1_000..20_000).step_by(500) {
            while let Some(connection) = pace.release(now) {
                assert_eq!(pace.due(connection, sent[connection]) / 500, now / 500);
                sent[connection] += 1;
            }
        }
        assert_eq!(sent, [7, 6, 6]);
    }

    #[test]
    fn what_was_held_up_is_due_when_it_should_have_been_sent() {
        let mut pace = Pace::new(0, 1_000.0, 1);
        assert_eq!(pace.held_back(5_000_001), 6);
        let late = std::iter::from_fn(|| pace.release(5_000_000)).count();
        assert_eq!((late, pace.held_back(5_000_001)), (6, 0));
        assert_eq!(
            (pace.due(0, 0), pace.due(0, 5), pace.next()),
            (0, 5_000_000, 6_000_000)
        );
    }
}
