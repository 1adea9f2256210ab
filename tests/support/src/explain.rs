//! What a failing check says: what was tried, what came back, where that first differs from what
//! was sent, what it usually means, and where the book explains it.

use std::{fmt, io, net::SocketAddr, time::Duration};

/// Why a check could not get what it was waiting for. Its text is the middle of a failure's
/// message; `Debug` gives the same text, so that `unwrap` speaks to the reader as well.
pub enum Trouble {
    /// No connection.
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// What `connect` said.
        error: io::Error,
    },
    /// The server's end did not take the bytes.
    Send {
        /// Bytes taken before the error.
        taken: usize,
        /// Bytes that were to be sent.
        total: usize,
        /// What `send` said; `WouldBlock` when the deadline passed.
        error: io::Error,
    },
    /// The connection ended, or fell silent, before all bytes were there.
    Short {
        /// What should have come.
        expected: Vec<u8>,
        /// What came.
        received: Vec<u8>,
        /// What came instead of the rest.
        end: End,
    },
    /// Bytes came back that are not the ones sent.
    Differs {
        /// What should have come.
        expected: Vec<u8>,
        /// What came.
        received: Vec<u8>,
    },
    /// The server should have closed the connection.
    NotTheEnd {
        /// The bytes that came instead; empty when nothing came.
        extra: Vec<u8>,
        /// How the wait ended.
        end: End,
    },
    /// Something else that should have happened did not.
    Never {
        /// What should have happened.
        what: String,
        /// How long the check waited.
        within: Duration,
    },
    /// Anything else about the server.
    Server(String),
}

/// How a client's wait for bytes ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All that was asked for came.
    Enough,
    /// The server closed its end: `recv` gave 0.
    Eof,
    /// ECONNRESET: the server threw the connection away.
    Reset,
    /// Nothing more came in this time.
    Silence(Duration),
    /// Another error of `recv`.
    Error(io::ErrorKind),
}

impl Trouble {
    /// Compares what came back with what was sent.
    ///
    /// # Errors
    ///
    /// [`Trouble::Differs`].
    pub fn compare(expected: &[u8], received: &[u8]) -> Result<(), Trouble> {
        if expected == received {
            return Ok(());
        }
        Err(Trouble::Differs {
            expected: expected.to_vec(),
            received: received.to_vec(),
        })
    }
}

impl Trouble {
    /// The trouble of one among several: `who` says of which.
    pub fn of(self, who: &str) -> Trouble {
        Trouble::Server(format!("{who}: {self}"))
    }
}

impl std::error::Error for Trouble {}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Connect { addr, error } => write!(f, "connecting to {addr} failed: {error}"),
            Trouble::Send {
                taken,
                total,
                error,
            } => {
                let taken = count(*taken);
                let total = count(*total);
                match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        write!(
                            f,
                            "the server took only {taken} of {total} bytes, and then no more"
                        )
                    }
                    _ => write!(f, "sending failed after {taken} of {total} bytes: {error}"),
                }
            }
            Trouble::Short {
                expected,
                received,
                end,
            } => {
                writeln!(
                    f,
                    "{} of {} bytes came back, then {end}",
                    count(received.len()),
                    count(expected.len())
                )?;
                difference(f, expected, received)
            }
            Trouble::Differs { expected, received } => {
                writeln!(
                    f,
                    "the bytes that came back are not the bytes that were sent"
                )?;
                difference(f, expected, received)
            }
            Trouble::NotTheEnd { extra, end } if extra.is_empty() => {
                write!(
                    f,
                    "the server should have closed the connection; instead: {end}"
                )
            }
            Trouble::NotTheEnd { extra, .. } => write!(
                f,
                "the server should have closed the connection; instead {} more bytes came: {}",
                count(extra.len()),
                excerpt(extra, 0)
            ),
            Trouble::Never { what, within } => {
                write!(f, "never seen, in {within:?} of waiting: {what}")
            }
            Trouble::Server(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Enough => f.write_str("nothing was missing"),
            End::Eof => f.write_str("the end (the server closed its side)"),
            End::Reset => f.write_str("a reset (ECONNRESET: the server threw the connection away)"),
            End::Silence(waited) => write!(f, "nothing more for {waited:?}"),
            End::Error(kind) => write!(f, "the error \"{kind}\""),
        }
    }
}

/// Where two byte strings first differ: the shorter one's end, when it is the beginning of the
/// other.
pub fn first_difference(expected: &[u8], received: &[u8]) -> Option<usize> {
    let common = expected
        .iter()
        .zip(received)
        .take_while(|(a, b)| a == b)
        .count();
    (common < expected.len() || common < received.len()).then_some(common)
}

fn difference(f: &mut fmt::Formatter<'_>, expected: &[u8], received: &[u8]) -> fmt::Result {
    let Some(at) = first_difference(expected, received) else {
        return Ok(());
    };
    writeln!(
        f,
        "    expected {:>11} bytes: {}",
        count(expected.len()),
        excerpt(expected, at)
    )?;
    writeln!(
        f,
        "    received {:>11} bytes: {}",
        count(received.len()),
        excerpt(received, at)
    )?;
    write!(f, "    first difference at offset {}", count(at))?;
    // What came instead may be a piece of what was sent from elsewhere: that names the mistake.
    const PROBE: usize = 16;
    if let Some(probe) = received.get(at..at + PROBE)
        && let Some(found) = expected.windows(PROBE).position(|window| window == probe)
    {
        let found_at = count(found);
        match found > at {
            true => write!(
                f,
                "; what came there was sent as offset {found_at}: bytes in between are lost or late"
            )?,
            false => write!(
                f,
                "; what came there was sent as offset {found_at}: bytes came twice or late"
            )?,
        }
    }
    Ok(())
}

/// A few bytes around `at`, as text where they are text, the one at `at` in brackets.
fn excerpt(bytes: &[u8], at: usize) -> String {
    const BEFORE: usize = 8;
    const AFTER: usize = 16;
    let from = at.saturating_sub(BEFORE);
    let to = (at + AFTER).min(bytes.len());
    let window = &bytes[from.min(to)..to];
    let is_text = window
        .iter()
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    let mut text = String::new();
    if from > 0 {
        text.push('…');
    }
    for (offset, byte) in (from..).zip(window) {
        let shown = match is_text {
            true => byte.escape_ascii().to_string(),
            false => format!("{byte:02x}"),
        };
        if offset == at {
            text += &format!("[{shown}]");
        } else {
            text += &shown;
        }
        if !is_text {
            text.push(' ');
        }
    }
    if to < bytes.len() {
        text.push('…');
    } else if at >= bytes.len() {
        text += "[nothing]";
    }
    text.trim_end().to_owned()
}

/// A number with its thousands separated, as people read it.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What one check teaches when it fails.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// What the client did, and what should have come of it.
    pub tried: &'static str,
    /// The mistake that usually makes a server fail here.
    pub usually: &'static str,
    /// Where the book explains it.
    pub read: Section,
}

impl Lesson {
    /// Runs the check; its trouble becomes a failure that teaches.
    ///
    /// # Panics
    ///
    /// When the check gives a [`Trouble`].
    #[track_caller]
    pub fn expect<T>(self, check: impl FnOnce() -> Result<T, Trouble>) -> T {
        match check() {
            Ok(value) => value,
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// Fails with this lesson.
    ///
    /// # Panics
    ///
    /// Always.
    #[track_caller]
    pub fn fail(self, trouble: &dyn fmt::Display) -> ! {
        panic!(
            "\n\n\
             What was tried: {}\n\
             What happened: {trouble}\n\
             What it usually means: {}\n\
             Read: {}\n",
            self.tried, self.usually, self.read
        )
    }
}

/// A section of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The chapter's file below `book/src`, without `.md`: the name of the package that it
    /// explains.
    pub chapter: &'static str,
    /// The heading in it.
    pub heading: &'static str,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "book/src/{}.md, \"{}\"", self.chapter, self.heading)
    }
}

/// The sections that failures point to; `cargo xtask book-check` holds the book to them.
pub mod book {
    use super::Section;

    macro_rules! sections {
        ($($name:ident = $chapter:literal, $heading:literal;)*) => {
            $(
                #[doc = concat!("`", $chapter, "`, \"", $heading, "\"")]
                pub const $name: Section = Section { chapter: $chapter, heading: $heading };
            )*
            /// All of them.
            pub const ALL: &[Section] = &[$($name),*];
        };
    }

    sections! {
        M1_IDEA = "m1-blocking-echo", "The idea";
        M1_CODE = "m1-blocking-echo", "The code";
        M1_WALL = "m1-blocking-echo", "The next wall";
        M2_CODE = "m2-nonblocking", "The code";
        M2_LISTENER = "m2-nonblocking", "The listener";
        M2_IDEA = "m2-nonblocking", "The idea";
        M2_NON_BLOCKING = "m2-nonblocking", "Non-blocking sockets";
        M2_WALL = "m2-nonblocking", "The next wall";
        M3_CODE = "m3-level-triggered", "The code";
        M3_WALL = "m3-level-triggered", "The next wall";
        M4_CODE = "m4-edge-triggered", "The code";
        M4_ACCEPT = "m4-edge-triggered", "Accept until EAGAIN";
        M4_WALL = "m4-edge-triggered", "The next wall";
        M4_DRAIN = "m4-edge-triggered", "Read until EAGAIN";
        M5_OUTBOX = "m5-connection-contexts", "The outbox";
        M5_BACK_PRESSURE = "m5-connection-contexts", "Back-pressure";
        M5_HALF_CLOSE = "m5-connection-contexts", "Half-close";
        M5_RESUMING = "m5-connection-contexts", "Resuming without a new edge";
        M5_FAIRNESS = "m5-connection-contexts", "The fairness budget";
        M5_WALL = "m5-connection-contexts", "The next wall";
        M6_SHORT_READ = "m6-10k-tuning", "The short read";
        M6_LISTENER = "m6-10k-tuning", "The listener";
        M6_NODELAY = "m6-10k-tuning", "TCP_NODELAY";
        M6_DESCRIPTORS = "m6-10k-tuning", "When descriptors run out";
        M6_IDLE = "m6-10k-tuning", "The idle timeout";
        M6_MEMORY = "m6-10k-tuning", "Buffers only while in use";
        M6_BACKLOG = "m6-10k-tuning", "The backlog";
        M6_WALL = "m6-10k-tuning", "The next wall";
        M7_CODE = "m7-stats", "The code";
        M7_DRAIN = "m7-stats", "The graceful drain";
        M8_ROOM = "m8-chat", "The room";
        M8_LINES = "m8-chat", "Line framing";
        M8_FAN_OUT = "m8-chat", "Fan-out";
        M8_SLOW = "m8-chat", "Slow consumers";
        M8_STALE = "m8-chat", "Stale events";
        M9_FIRST_READ = "m9-protocols", "The first read decides";
        M9_HTTP = "m9-protocols", "HTTP";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_may_be_an_end() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
        assert_eq!(first_difference(b"abc", b"abd"), Some(2));
        assert_eq!(first_difference(b"abc", b"ab"), Some(2));
        assert_eq!(first_difference(b"ab", b"abc"), Some(2));
        assert_eq!(first_difference(b"", b"a"), Some(0));
    }

    #[test]
    fn numbers_are_separated_in_threes() {
        let shown = [0, 999, 1000, 126_976, 1_000_000].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "126,976", "1,000,000"]);
    }

    #[test]
    fn a_wrong_byte_is_shown_in_its_place() {
        let trouble = Trouble::compare(b"a line of text\n", b"a line of test\n").unwrap_err();
        let text = trouble.to_string();
        assert!(text.contains("first difference at offset 12"), "{text}");
        assert!(text.contains("ne of te[x]t\\n"), "{text}");
        assert!(text.contains("ne of te[s]t\\n"), "{text}");
    }

    #[test]
    fn lost_bytes_are_told_from_wrong_ones() {
        let sent = crate::pattern(1, 1000);
        let lost = [&sent[..500], &sent[516..]].concat();
        let text = Trouble::compare(&sent, &lost).unwrap_err().to_string();
        assert!(
            text.contains("was sent as offset 516: bytes in between are lost"),
            "{text}"
        );
        let twice = [&sent[..500], &sent[400..]].concat();
        let text = Trouble::compare(&sent, &twice).unwrap_err().to_string();
        assert!(
            text.contains("was sent as offset 400: bytes came twice"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_rest_says_how_the_connection_ended() {
        let trouble = Trouble::Short {
            expected: b"hello\n".to_vec(),
            received: b"he".to_vec(),
            end: End::Reset,
        };
        let text = trouble.to_string();
        assert!(
            text.starts_with("2 of 6 bytes came back, then a reset (ECONNRESET"),
            "{text}"
        );
        assert!(text.contains("he[nothing]"), "{text}");
    }
}
