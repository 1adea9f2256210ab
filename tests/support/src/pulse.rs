//! Checks of what runs by the clock, on machines that may be busy.

use std::time::{Duration, Instant};

use crate::Trouble;

/// Notices how long a check itself was held up.
pub(crate) struct Pulse {
    last_beat: Instant,
    longest_pause: Duration,
}

impl Pulse {
    fn new() -> Pulse {
        Pulse {
            last_beat: Instant::now(),
            longest_pause: Duration::ZERO,
        }
    }

    /// The check has just done what must be done often.
    pub(crate) fn beat(&mut self) {
        self.longest_pause = self.longest_pause();
        self.last_beat = Instant::now();
    }

    fn longest_pause(&self) -> Duration {
        self.longest_pause.max(self.last_beat.elapsed())
    }
}

/// Runs a check of a timeout, which it is told in whole seconds, until it holds, or fails without having been held
/// up itself.
///
/// A loaded machine may keep the check waiting for so long that the client it calls busy is idle. Then it has seen
/// nothing, and looks again, with a timeout that is twice as long.
pub(crate) fn unless_held_up(
    mut look: impl FnMut(u64, &mut Pulse) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    const TIMEOUTS: [u64; 5] = [2, 4, 8, 16, 32];
    let mut seen = Ok(());
    for seconds in TIMEOUTS {
        let mut pulse = Pulse::new();
        seen = look(seconds, &mut pulse);
        if seen.is_ok() || pulse.longest_pause() < Duration::from_secs(seconds) / 2 {
            break;
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    fn failure() -> Result<(), Trouble> {
        Err(Trouble::Server("no".to_owned()))
    }

    #[test]
    fn a_failure_counts_when_nothing_held_the_check_up() {
        let mut looks = 0;
        let seen = unless_held_up(|_, pulse| {
            looks += 1;
            pulse.beat();
            failure()
        });
        assert!(seen.is_err());
        assert_eq!(looks, 1);
    }

    #[test]
    fn a_check_that_was_held_up_looks_again_with_more_time() {
        let mut timeouts = Vec::new();
        let seen = unless_held_up(|seconds, pulse| {
            timeouts.push(seconds);
            if seconds == 2 {
                // Time itself is what this is about.
                sleep(Duration::from_millis(1100));
                pulse.beat();
                return failure();
            }
            Ok(())
        });
        assert!(seen.is_ok());
        assert_eq!(timeouts, [2, 4]);
    }
}
