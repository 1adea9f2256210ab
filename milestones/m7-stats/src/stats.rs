//! Counters, and the block of statistics made from them.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// How often statistics are shown.
const INTERVAL: Duration = Duration::from_secs(1);

// ANCHOR: counters
/// What has happened since the start. Plain numbers, added to where it happens: one thread, so there is
/// nothing to lock and nothing atomic.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    /// Bytes read from clients.
    pub received: u64,
    /// Bytes that the sockets have taken.
    pub sent: u64,
    /// Events that the kernel has reported of clients and of the listener.
    pub events: u64,
}
// ANCHOR_END: counters

impl Counters {
    /// Bytes in both directions: as long as this does not change, nothing moves.
    pub fn bytes_moved(&self) -> u64 {
        self.received + self.sent
    }
}

/// The report of every second.
pub struct Ticker {
    timer: TimerFd,
    reporter: Reporter,
    display: Display,
}

impl Ticker {
    // ANCHOR: ticker
    /// Starts a timer, which is a descriptor that becomes readable every [`INTERVAL`].
    pub fn new(now: Instant) -> nix::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let interval = Expiration::Interval(TimeSpec::from_duration(INTERVAL));
        timer.set(interval, TimerSetTimeFlags::empty())?;
        Ok(Self {
            timer,
            reporter: Reporter::new(now),
            display: Display::new(),
        })
    }

    /// Shows what happened since the last tick.
    pub fn tick(&mut self, connections: usize, counters: &Counters) -> nix::Result<()> {
        // Unread, the timer would stay ready.
        self.timer.wait()?;
        let report = self.reporter.report(connections, counters, Instant::now());
        self.display.show(&report);
        Ok(())
    }
    // ANCHOR_END: ticker
}

impl AsFd for Ticker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Turns counters into rates: what happened since it last did so.
pub struct Reporter {
    last: Counters,
    at: Instant,
}

impl Reporter {
    pub fn new(now: Instant) -> Self {
        Self {
            last: Counters::default(),
            at: now,
        }
    }

    pub fn report(&mut self, connections: usize, counters: &Counters, now: Instant) -> Report {
        // Never 0, or a second report in the same instant would divide by it.
        let seconds = now.duration_since(self.at).as_secs_f64().max(1e-9);
        let per_second = |now: u64, last: u64| (now - last) as f64 / seconds;
        let report = Report {
            connections: connections as u64,
            received: per_second(counters.received, self.last.received),
            sent: per_second(counters.sent, self.last.sent),
            events: per_second(counters.events, self.last.events),
        };
        self.last = *counters;
        self.at = now;
        report
    }
}

/// One block of statistics. All rates are per second.
pub struct Report {
    connections: u64,
    received: f64,
    sent: f64,
    events: f64,
}

/// The lines of a block, which is how far up the next one begins on a terminal.
const LINES: usize = 4;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Connections: {} active", Thousands(self.connections))?;
        writeln!(f, "Bytes in: {}", ByteRate(self.received))?;
        writeln!(f, "Bytes out: {}", ByteRate(self.sent))?;
        writeln!(f, "Events/sec: {}", Thousands(self.events.round() as u64))
    }
}

/// Standard output, where blocks are appended, or drawn over the one before if it is a terminal.
struct Display {
    is_terminal: bool,
    drawn: bool,
}

impl Display {
    fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            drawn: false,
        }
    }

    /// Shows a block; or skips it, if whoever reads our output is too slow.
    fn show(&mut self, report: &Report) {
        let mut block = report.to_string();
        if self.is_terminal {
            // Up to the first line of the last block; and from each end of line on, clear what it left.
            block = block.replace('\n', "\x1b[K\n");
            if self.drawn {
                block.insert_str(0, &format!("\x1b[{LINES}A"));
            }
        }
        self.drawn |= write_if_ready(io::stdout().lock(), &block);
    }
}

// ANCHOR: write-if-ready
/// Writes to an output of ours unless that would block: a reader that has stopped must not stop the
/// server. Returns whether it was written.
pub fn write_if_ready(mut output: impl Write + AsFd, text: &str) -> bool {
    let mut watched = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    // A pipe is reported as writable when it has room for 4,096 bytes, far more than a block.
    match poll(&mut watched, PollTimeout::ZERO) {
        // Nobody may be reading any more: that is no reason not to serve.
        Ok(1..) => write!(output, "{text}")
            .and_then(|()| output.flush())
            .is_ok(),
        _ => false,
    }
}
// ANCHOR_END: write-if-ready

/// Displays 1234567 as `1,234,567`.
struct Thousands(u64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.char_indices() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// Displays bytes per second in the decimal unit that gives one to three digits: `45 MB/s`.
struct ByteRate(f64);

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rate = self.0;
        for unit in ["B/s", "kB/s", "MB/s"] {
            // As it will be displayed: 999.7 kB/s is 1 MB/s, not 1,000 kB/s.
            if rate.round() < 1000.0 {
                return write!(f, "{rate:.0} {unit}");
            }
            rate /= 1000.0;
        }
        write!(f, "{} GB/s", Thousands(rate.round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn thousands_are_separated() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (12_345, "12,345"),
            (250_000, "250,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(Thousands(number).to_string(), expected);
        }
    }

    #[test]
    fn byte_rates_choose_their_unit() {
        for (rate, expected) in [
            (0.0, "0 B/s"),
            (999.4, "999 B/s"),
            (999.5, "1 kB/s"),
            (1000.0, "1 kB/s"),
            (999_499.0, "999 kB/s"),
            (999_500.0, "1 MB/s"),
            (45_000_000.0, "45 MB/s"),
            (1e9, "1 GB/s"),
            (1_234e9, "1,234 GB/s"),
        ] {
            assert_eq!(ByteRate(rate).to_string(), expected, "{rate}");
        }
    }

    #[test]
    fn a_block_tells_what_happened_since_the_last() {
        let start = Instant::now();
        let mut reporter = Reporter::new(start);
        let mut counters = Counters {
            received: 90_000_000,
            sent: 80_000_000,
            events: 500_000,
        };
        let two_seconds = start + Duration::from_secs(2);
        // ANCHOR: block
        assert_eq!(
            reporter.report(1000, &counters, two_seconds).to_string(),
            "Connections: 1,000 active\n\
             Bytes in: 45 MB/s\n\
             Bytes out: 40 MB/s\n\
             Events/sec: 250,000\n"
        );
        // ANCHOR_END: block
        counters.sent += 64;
        let three_seconds = start + Duration::from_secs(3);
        assert_eq!(
            reporter.report(1, &counters, three_seconds).to_string(),
            "Connections: 1 active\nBytes in: 0 B/s\nBytes out: 64 B/s\nEvents/sec: 0\n"
        );
    }
}
