//! Line framing: from bytes as they arrive to lines, of bounded length.

use std::borrow::Cow;

/// Longest line that is taken, in bytes, its end not counted.
pub const LONGEST_LINE: usize = 4096;

/// A client sent a longer line than [`LONGEST_LINE`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

// ANCHOR: line-buffer
/// Bytes of a client that have not been taken as lines yet.
///
/// TCP keeps the order of bytes and nothing else: a line may arrive in many reads, and many lines in one.
/// Between two lines there is nothing to keep, so an idle client costs a null pointer.
#[derive(Default)]
pub struct LineBuffer {
    pending: Option<Box<Pending>>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Where the first line begins that has not been taken.
    start: usize,
    /// How far the end of that line has been looked for in vain: a line that comes byte by byte is not
    /// searched from its beginning each time.
    searched: usize,
}
// ANCHOR_END: line-buffer

impl LineBuffer {
    /// Adds what was received.
    pub fn extend(&mut self, bytes: &[u8]) {
        let pending = self.pending.get_or_insert_default();
        pending.bytes.extend_from_slice(bytes);
    }

    // ANCHOR: next-line
    /// Takes the next line, without its end (`\n`, or `\r\n`). `None`: it has not arrived in full.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some(pending) = &mut self.pending else {
            return Ok(None);
        };
        let unsearched = &pending.bytes[pending.searched..];
        let Some(length) = unsearched.iter().position(|&byte| byte == b'\n') else {
            pending.bytes.drain(..pending.start);
            pending.start = 0;
            pending.searched = pending.bytes.len();
            // The last byte may be the `\r` of a line's end.
            if pending.bytes.len() > LONGEST_LINE + 1 {
                return Err(TooLong);
            }
            if pending.bytes.is_empty() {
                self.pending = None;
            }
            return Ok(None);
        };
        let end = pending.searched + length;
        let line = &pending.bytes[pending.start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LONGEST_LINE {
            return Err(TooLong);
        }
        let line = line.to_vec();
        pending.start = end + 1;
        pending.searched = end + 1;
        Ok(Some(line))
    }
    // ANCHOR_END: next-line

    /// Forgets everything: nobody will take it.
    pub fn clear(&mut self) {
        self.pending = None;
    }
}

/// A line as others may see it: without control characters, of which a terminal makes commands, but with
/// tabs. What is no UTF-8 passes as it came, except for the bytes that are control characters in the older
/// 8-bit sets.
pub fn printable(line: &[u8]) -> Cow<'_, [u8]> {
    if line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Cow::Borrowed(line);
    }
    let mut printable = Vec::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\t' || !character.is_control() {
                printable.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        let invalid = chunk.invalid().iter();
        printable.extend(invalid.filter(|byte| !matches!(byte, 0x80..=0x9f)));
    }
    Cow::Owned(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines that have arrived in full.
    fn lines(buffer: &mut LineBuffer) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Some(line) = buffer.next_line().expect("no line is too long") {
            lines.push(line);
        }
        lines
    }

    #[test]
    fn lines_do_not_depend_on_how_their_bytes_arrive() {
        let stream = b"alice\r\nhello\n\nlast one\nunfinished";
        let expected: [&[u8]; 4] = [b"alice", b"hello", b"", b"last one"];
        for size in 1..=stream.len() {
            let mut buffer = LineBuffer::default();
            let mut got = Vec::new();
            for part in stream.chunks(size) {
                buffer.extend(part);
                got.extend(lines(&mut buffer));
            }
            assert_eq!(got, expected, "in parts of {size} bytes");
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_not_a_byte_longer() {
        for end in ["\n", "\r\n"] {
            let mut buffer = LineBuffer::default();
            buffer.extend(&vec![b'x'; LONGEST_LINE]);
            assert_eq!(buffer.next_line(), Ok(None));
            buffer.extend(end.as_bytes());
            assert_eq!(buffer.next_line(), Ok(Some(vec![b'x'; LONGEST_LINE])));

            buffer.extend(&vec![b'x'; LONGEST_LINE + 1]);
            buffer.extend(end.as_bytes());
            assert_eq!(buffer.next_line(), Err(TooLong));
        }
    }

    #[test]
    fn a_line_that_never_ends_is_too_long_before_it_ends() {
        let mut buffer = LineBuffer::default();
        buffer.extend(&vec![b'x'; LONGEST_LINE + 2]);
        assert_eq!(buffer.next_line(), Err(TooLong));
    }

    #[test]
    fn keeps_nothing_when_there_is_nothing_to_keep() {
        let mut buffer = LineBuffer::default();
        buffer.extend(b"hello\n");
        assert_eq!(lines(&mut buffer), [b"hello"]);
        assert!(buffer.pending.is_none());
    }

    #[test]
    fn only_what_no_terminal_obeys_is_passed_on() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"plain text", b"plain text"),
            (b"a\ttab", b"a\ttab"),
            (b"\x1b[2Jboo\x07\x7f", b"[2Jboo"),
            ("żółw\u{9b}2J".as_bytes(), "żółw2J".as_bytes()),
            (b"\xff\xfe\x9b2J", b"\xff\xfe2J"),
            (b"\0", b""),
        ];
        for (line, expected) in cases {
            assert_eq!(
                printable(line).as_ref(),
                expected,
                "{}",
                line.escape_ascii()
            );
        }
    }
}
