//! Line framing against the same stream, cut into lines as a whole.

use proptest::prelude::*;

use crate::lines::{LONGEST_LINE, LineBuffer, TooLong, printable};

/// Lines of many lengths, most of all around the longest, with both ends; and what has no end yet.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => any::<u8>(), 1 => Just(b'\r'), 1 => Just(b'\n')];
    let short = prop::collection::vec(byte, 0..60);
    let long = (
        LONGEST_LINE - 3..LONGEST_LINE + 4,
        prop_oneof![Just(b'x'), Just(b'\r')],
    )
        .prop_map(|(length, last)| {
            let mut line = vec![b'x'; length - 1];
            line.push(last);
            line
        });
    let end = prop::sample::select(&["\n", "\r\n", ""][..]);
    let line = (prop_oneof![9 => short, 1 => long], end);
    prop::collection::vec(line, 0..20).prop_map(|lines| {
        let lines = lines.into_iter();
        lines
            .flat_map(|(line, end)| [line, end.into()].concat())
            .collect()
    })
}

/// All lines of a stream, up to the first that is too long.
fn model(stream: &[u8]) -> Vec<Result<Vec<u8>, TooLong>> {
    let mut lines = Vec::new();
    let mut parts: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
    let unfinished = parts.pop().unwrap_or_default();
    for part in parts {
        let line = part.strip_suffix(b"\r").unwrap_or(part);
        if line.len() > LONGEST_LINE {
            lines.push(Err(TooLong));
            return lines;
        }
        lines.push(Ok(line.to_vec()));
    }
    // With `\r\n` to come, its last byte may not count.
    if unfinished.len() > LONGEST_LINE + 1 {
        lines.push(Err(TooLong));
    }
    lines
}

/// The lines of a stream that arrives in parts of these sizes, one after the other and then from the first again.
fn framed(stream: &[u8], sizes: &[usize]) -> Vec<Result<Vec<u8>, TooLong>> {
    let mut buffer = LineBuffer::default();
    let mut lines = Vec::new();
    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        buffer.extend(part);
        loop {
            match buffer.next_line() {
                Ok(Some(line)) => lines.push(Ok(line)),
                Ok(None) => break,
                Err(TooLong) => {
                    lines.push(Err(TooLong));
                    return lines;
                }
            }
        }
    }
    lines
}

/// What others may see of a line, a character at a time.
fn visible(line: &[u8]) -> Vec<u8> {
    let mut visible = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let most = line.len().min(at + 4);
        let character = (at + 1..=most).find_map(|end| std::str::from_utf8(&line[at..end]).ok());
        match character.and_then(|text| text.chars().next()) {
            Some(character) => {
                if character == '\t' || !character.is_control() {
                    visible.extend(character.to_string().bytes());
                }
                at += character.len_utf8();
            }
            None => {
                if !(0x80..0xa0).contains(&line[at]) {
                    visible.push(line[at]);
                }
                at += 1;
            }
        }
    }
    visible
}

/// Bytes of which many belong to characters, whole or in part, and some control a terminal.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let character = any::<char>().prop_map(|character| character.to_string().into_bytes());
    let control = prop_oneof![0..0x20_u32, 0x7f..0xa0_u32]
        .prop_map(|code| char::from_u32(code).map_or(Vec::new(), |c| c.to_string().into_bytes()));
    let part = prop_oneof![
        character,
        control,
        any::<u8>().prop_map(|byte| vec![byte]),
        (0x80..0xa0_u8).prop_map(|byte| vec![byte]),
        "[ -~\t]{1,8}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(crate::config::config())]

    #[test]
    fn lines_do_not_depend_on_how_their_bytes_arrive(
        stream in stream(),
        sizes in prop::collection::vec(prop_oneof![1..8_usize, 1..5000_usize], 1..20),
    ) {
        prop_assert_eq!(framed(&stream, &sizes), model(&stream));
    }

    #[test]
    fn nothing_is_left_of_what_was_forgotten(before in "[a-z\n]{0,20}", after in stream()) {
        let mut buffer = LineBuffer::default();
        buffer.extend(before.as_bytes());
        buffer.next_line().expect("a short line");
        buffer.clear();
        buffer.extend(&after);
        let first = buffer.next_line().transpose();
        prop_assert_eq!(first, model(&after).into_iter().next());
    }

    #[test]
    fn others_see_no_control_characters(line in text()) {
        let shown = printable(&line);
        prop_assert_eq!(shown.as_ref(), visible(&line));
        let text = String::from_utf8_lossy(&shown);
        prop_assert!(!text.chars().any(|c| c.is_control() && c != '\t'));
    }
}
