//! Lines: how they are cut from the bytes that arrive, how long they may be, and what of them is
//! relayed.

use super::{Entered, Guest, LONGEST_LINE, Left, Room, Said, alice_and_bob, still_talk, text};
use crate::{
    Server,
    explain::{Lesson, book},
    skipped,
};

/// What somebody says, and what the others see of it: of a terminal's commands, nothing that makes
/// it obey.
const CONTROL_CHARACTERS: &[(&[u8], &[u8])] = &[
    (b"a\ttab stays", b"a\ttab stays"),
    (b"\x1b[2Jclear the screen", b"[2Jclear the screen"),
    (b"\x1b]0;a title\x07", b"]0;a title"),
    (b"ring\x07 and back\x08space", b"ring and backspace"),
    (b"a zero\0byte", b"a zerobyte"),
    (b"to the\rbeginning", b"to thebeginning"),
    (b"down\x0b and a page\x0c on", b"down and a page on"),
    (b"delete\x7f", b"delete"),
    (b"\x01\x02\x03\x04\x05\x06\x0e\x0f\x10\x11\x12\x13", b""),
    // CSI of ISO 6429 in eight bits: U+009B in UTF-8, and as a byte that is no UTF-8.
    ("up \u{9b}1A".as_bytes(), b"up 1A"),
    (b"up \x9b1A", b"up 1A"),
];

/// What is no control character is relayed as it came, whether or not it is text.
const OTHER_BYTES: &[&[u8]] = &[
    b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCXYZ[\\]^_`abcxyz{|}~",
    b"  blanks at both ends  ",
    b"* bob has left the room",
    b"[bob] I never said this",
    "Zażółć gęślą jaźń".as_bytes(),
    "日本語 🦀 e\u{301}".as_bytes(),
    b"\xe9t\xe9 in Latin-1",
    b"\xff\xfe\xa0 \xc3",
];

/// A line ends with `\n`; a `\r` before it is no part of the line.
#[track_caller]
pub fn ends_a_line_with_or_without_a_carriage_return(server: &Server) {
    Lesson {
        tried: "alice says a line that ends with \\n and one that ends with \\r\\n, as telnet \
                sends it, and an empty one of either kind; bob hears them without the \\r",
        usually: "only the \\n is taken off: the others then see text that begins at the left edge \
                  again",
        read: book::M8_LINES,
    }
    .expect(|| {
        let (alice, mut bob) = alice_and_bob(server)?;
        for line in [&b"unix"[..], b"telnet\r", b"", b"\r", b"last"] {
            alice.say(line)?;
        }
        for line in [&b"unix"[..], b"telnet", b"", b"", b"last"] {
            bob.hears(Said("alice", line))?;
        }
        Ok(())
    });
}

/// TCP keeps the order of bytes and nothing else.
#[track_caller]
pub fn takes_lines_however_they_are_split(server: &Server) {
    Lesson {
        tried: "alice sends her name and ten lines byte by byte; then in pieces of 1 to 20 bytes, \
                each acknowledged before the next; then 500 lines at once",
        usually: "one read is taken for one line; or the bytes after a line's end are dropped; or \
                  a line that is not finished is lost when the rest comes",
        read: book::M8_LINES,
    }
    .expect(|| {
        let mut bob = Guest::join(server, "bob", &[])?;
        let mut alice = Guest::connect(server)?;
        "alice".clone_into(&mut alice.name);
        for byte in b"alice\r\n" {
            alice.client.send(&[*byte])?;
            alice.client.wait_until_acknowledged()?;
        }
        alice.hears(Room(&["bob"]))?;
        bob.hears(Entered("alice"))?;
        let lines: Vec<_> = (0..500)
            .map(|number| text(number, 1 + number % 40))
            .collect();
        let joined = |lines: &[Vec<u8>]| [lines.join(&b'\n'), vec![b'\n']].concat();
        for byte in joined(&lines[..10]) {
            alice.client.send(&[byte])?;
            alice.client.wait_until_acknowledged()?;
        }
        let bytes = joined(&lines[..50]);
        let mut rest = &bytes[..];
        for size in (1..=20).cycle() {
            let (piece, next) = rest.split_at(rest.len().min(size));
            alice.client.send(piece)?;
            alice.client.wait_until_acknowledged()?;
            rest = next;
            if rest.is_empty() {
                break;
            }
        }
        alice.client.send(&joined(&lines))?;
        for line in lines[..10].iter().chain(&lines[..50]).chain(&lines) {
            bob.hears(Said("alice", line))?;
        }
        still_talk(&mut alice, &mut bob)
    });
}

/// A line of 1,000 characters has to pass on any server, one of 4,096 on ours.
#[track_caller]
pub fn relays_lines_as_long_as_the_limit(server: &Server) {
    Lesson {
        tried: "alice says lines of 1,000 bytes and of 4,096, ended with \\n and with \\r\\n, in \
                one write and in many; bob hears them whole",
        usually: "the line's end counts as a part of it, or a line longer than one read is cut",
        read: book::M8_LINES,
    }
    .expect(|| {
        let (alice, mut bob) = alice_and_bob(server)?;
        let longest = if alice.is_ours { LONGEST_LINE } else { 1000 };
        for length in [1000, longest - 1, longest] {
            for end in ["", "\r"] {
                let line = text(length, length);
                alice.say(&[&line[..], end.as_bytes()].concat())?;
                bob.hears(Said("alice", &line))?;
                for piece in line.chunks(1000) {
                    alice.client.send(piece)?;
                    alice.client.wait_until_acknowledged()?;
                }
                alice.say(end.as_bytes())?;
                bob.hears(Said("alice", &line))?;
            }
        }
        Ok(())
    });
}

/// A longer line ends the connection, with an explanation; and one without an end does so before it
/// fills the memory.
#[track_caller]
pub fn refuses_longer_lines(server: &Server) {
    if server.program().is_foreign() {
        return skipped("how long a line may be is another server's own affair");
    }
    let lesson = Lesson {
        tried: "beside alice and bob, members send a line of 4,097 bytes, one that has no end \
                after 10,000 bytes, and one that has none after a megabyte; and a client does so \
                instead of giving its name. Each is to hear one line and then the end, and the \
                others that it has left, but nothing of the line",
        usually: "what has come of a line is kept without a limit, which any client can make into \
                  all of the memory; or the line is cut and relayed, and its rest taken for \
                  another one; or the connection is closed with bytes unread, and the reset takes \
                  the explanation away",
        read: book::M8_LINES,
    };
    let (mut alice, mut bob) = lesson.expect(|| alice_and_bob(server));
    let too_long = [
        (LONGEST_LINE + 1, "\n"),
        (LONGEST_LINE + 1, "\r\n"),
        (10_000, ""),
        (1 << 20, ""),
        (1 << 20, "\nand more\n"),
    ];
    for (length, end) in too_long {
        let line = [&text(length, length)[..], end.as_bytes()].concat();
        lesson.expect(|| {
            let mut carol = Guest::join(server, "carol", &["alice", "bob"])?;
            carol.client.send(&line)?;
            carol.is_sent_away()?;
            for witness in [&mut alice, &mut bob] {
                witness.hears(Entered("carol"))?;
                witness.hears(Left("carol"))?;
            }
            let mut nameless = Guest::connect(server)?;
            nameless.client.send(&line)?;
            nameless.is_sent_away()?;
            still_talk(&mut alice, &mut bob)
        });
    }
}

/// Nobody's terminal is anybody else's to drive.
#[track_caller]
pub fn drops_control_characters(server: &Server) {
    Lesson {
        tried: "alice says lines with control characters in them: escape sequences, a bell, a \
                backspace, a carriage return in the middle; bob hears them without, but with the \
                tabs",
        usually: "lines are relayed as they are, and any guest can clear, recolour or retitle the \
                  others' terminals; or only the characters below 32 are dropped, and U+009B, \
                  which means the same as ESC [, is not",
        read: book::M8_LINES,
    }
    .expect(|| {
        let (alice, mut bob) = alice_and_bob(server)?;
        for (said, heard) in CONTROL_CHARACTERS {
            alice.say(said)?;
            bob.hears(Said("alice", heard))?;
        }
        Ok(())
    });
}

/// Everything else is relayed, byte for byte.
#[track_caller]
pub fn relays_every_other_byte(server: &Server) {
    Lesson {
        tried: "alice says lines of punctuation, of many scripts, and of bytes that are no UTF-8; \
                bob hears the same bytes",
        usually: "a line is made into a string that must be UTF-8: what is none is replaced, or \
                  ends the connection; or the blanks around it are trimmed",
        read: book::M8_LINES,
    }
    .expect(|| {
        let (alice, mut bob) = alice_and_bob(server)?;
        for line in OTHER_BYTES {
            alice.say(line)?;
            bob.hears(Said("alice", line))?;
        }
        Ok(())
    });
}
