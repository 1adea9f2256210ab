//! What a failing check says: found in its output, and compared with what it once said.

/// The failure in a test program's output: from "What was tried" to "Read:", where it is one that teaches;
/// if not, what the panic says.
pub fn of_output(output: &str) -> Option<String> {
    let text = match output.find("What was tried: ") {
        Some(start) => {
            let text = &output[start..];
            let last = text.find("\nRead: ")? + 1;
            let end = text[last..].find('\n').map_or(text.len(), |at| last + at);
            &text[..end]
        }
        None => {
            // The line with the place in the source says nothing to a reader.
            let panicked = output
                .find("' panicked at ")
                .or_else(|| output.find(") panicked at "))?;
            let start = panicked + output[panicked..].find('\n')?;
            let text = &output[start..];
            let ends = [
                "\nThe server (",
                "\nnote: run with `RUST_BACKTRACE",
                "\nstack backtrace:",
            ];
            let end = ends.iter().filter_map(|end| text.find(end)).min();
            &text[..end.unwrap_or(text.len())]
        }
    };
    let text = normalised(text.trim());
    (!text.is_empty()).then(|| text + "\n")
}

/// The first line that matters.
pub fn what_happened(message: &str) -> &str {
    let mut lines = message.lines();
    let line = lines.find(|line| line.starts_with("What happened: "));
    line.map_or_else(
        || message.lines().next().unwrap_or_default(),
        |line| &line["What happened: ".len()..],
    )
}

/// Whether a message contains these words, wherever its lines break.
pub fn contains(message: &str, words: &str) -> bool {
    fn joined(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
    joined(message).contains(&joined(words))
}

/// The message with the numbers that the kernel gives out, ports and processes, as they never are.
fn normalised(text: &str) -> String {
    let mut text = text.to_owned();
    for (before, instead) in [
        ("/proc/", "PID"),
        ("127.0.0.1:", "9000"),
        ("on port ", "9000"),
        ("process ", "PID"),
        ("thread 'main' (", "TID"),
    ] {
        let mut done = 0;
        while let Some(at) = text[done..].find(before) {
            let from = done + at + before.len();
            let digits = text[from..].bytes().take_while(u8::is_ascii_digit).count();
            done = from;
            if digits > 0 {
                text.replace_range(from..from + digits, instead);
            }
        }
    }
    text
}

/// What stands for a number that is another one each time.
const VARIES: &str = "…";

/// How a client sees that the server closes, which is a matter of moments: whether a byte of its was still on
/// the way.
const CLOSES: [&str; 2] = [
    "the end (the server closed its side)",
    "a reset (ECONNRESET: the server threw the connection away)",
];

/// Two runs of one check: what they agree on, with [`VARIES`] where they have other numbers, or other bytes in an
/// excerpt. `None` when they differ in more than that.
pub fn merged(one: &str, other: &str) -> Option<String> {
    if one.lines().count() != other.lines().count() {
        return None;
    }
    let lines = one.lines().zip(other.lines());
    lines
        .map(|(one, other)| merged_line(one, other).map(|line| line + "\n"))
        .collect()
}

fn merged_line(one: &str, other: &str) -> Option<String> {
    if one == other {
        return Some(other.to_owned());
    }
    let excerpt = |line: &str| {
        let is_one = line.starts_with("    expected ") || line.starts_with("    received ");
        let (numbers, _) = line.split_once(" bytes: ").filter(|_| is_one)?;
        Some(numbers.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    if let (Some(one), Some(other)) = (excerpt(one), excerpt(other)) {
        return Some(format!(
            "    {} bytes: {VARIES}",
            merged_line(&one, &other)?
        ));
    }
    for [close, other_close] in [CLOSES, [CLOSES[1], CLOSES[0]]] {
        if one.contains(close) && other.contains(other_close) {
            return merged_line(&one.replace(close, other_close), other);
        }
    }
    // A rate is shown in the unit that suits it.
    let rate = |line: &str| {
        let (what, _) = line.split_once(": ").filter(|_| line.ends_with("B/s"))?;
        Some(what.to_owned())
    };
    if let (Some(what), Some(same)) = (rate(one), rate(other))
        && what == same
    {
        return Some(format!("{what}: {VARIES} B/s"));
    }
    if let Some(line) = merged_numbers(one, other) {
        return Some(line);
    }
    // The order in which a wait reports descriptors is that in which they became ready.
    let (one, in_order) = (with_events_in_order(one)?, with_events_in_order(other)?);
    merged_numbers(&one, &in_order).map(|_| other.to_owned())
}

fn merged_numbers(one: &str, other: &str) -> Option<String> {
    let (one, other) = (parts(one), parts(other));
    if one.len() != other.len() {
        return None;
    }
    let mut line = String::new();
    for (one, other) in one.iter().zip(&other) {
        match one == other {
            true => line += other,
            false if is_number(one) && is_number(other) => line += VARIES,
            false => return None,
        }
    }
    Some(line)
}

/// A line of a trace with the events that a wait reported sorted by what they are; `None` if it is no such line.
fn with_events_in_order(line: &str) -> Option<String> {
    let (call, events) = line.split_once(" [fd ")?;
    let mut events: Vec<&str> = events.split(" [fd ").collect();
    events.sort_by_key(|event| event.trim_start_matches(|c: char| c.is_ascii_digit()));
    Some(format!("{call} {}", events.join(" ")))
}

/// Whether `message` is what was recorded. Numbers in what happened come from the kernel, and another kernel
/// has other buffers: there any number will do.
pub fn is_as_recorded(message: &str, recorded: &str) -> bool {
    let Some(common) = merged(message, recorded) else {
        return false;
    };
    if common == recorded {
        return true;
    }
    let outside = |text: &str| -> Option<(String, String)> {
        let start = text.find("\nWhat happened: ")?;
        let end = start + text[start..].find("\nWhat it usually means: ")?;
        Some((text[..start].to_owned(), text[end..].to_owned()))
    };
    match (outside(message), outside(recorded)) {
        (Some(message), Some(recorded)) => message == recorded,
        // A failure without a lesson is all about what happened.
        (None, None) => true,
        _ => false,
    }
}

fn is_number(part: &str) -> bool {
    part == VARIES || part.starts_with(|first: char| first.is_ascii_digit())
}

/// Numbers, with the separators in them, and what is between them.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if first.is_ascii_digit() {
            let in_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b',' | b'.');
            let end = rest.bytes().take_while(|&byte| in_number(byte)).count();
            // A full stop or a comma after a number is not its own.
            rest[..end].trim_end_matches([',', '.']).len()
        } else if rest.starts_with(VARIES) {
            VARIES.len()
        } else {
            rest.find(|c: char| c.is_ascii_digit() || c == '…')
                .unwrap_or(rest.len())
        };
        let (part, next) = rest.split_at(end);
        parts.push(part);
        rest = next;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 1 test\n\nthread 'x' (7) panicked at tests/m4.rs:9:5:\n\n\nWhat was tried: a\nWhat happened: 10 of 20 bytes\n    at 127.0.0.1:41234\nWhat it usually means: b\nRead: book/src/x.md, \"Y\"\n\nThe server (m4) was still running.\n";

    #[test]
    fn a_lesson_is_taken_whole() {
        let message = of_output(OUTPUT).unwrap();
        assert!(message.starts_with("What was tried: a\n"));
        assert!(message.ends_with("Read: book/src/x.md, \"Y\"\n"));
        assert!(message.contains("127.0.0.1:9000\n"), "{message}");
        assert_eq!(what_happened(&message), "10 of 20 bytes");
    }

    #[test]
    fn another_failure_is_what_the_panic_says() {
        let output = "thread 'x' (7) panicked at tests/m4.rs:9:5:\n\n\nm4 ends at the wall of process 71\nfor sure\n\nnote: run with `RUST_BACKTRACE=1`\n";
        let message = of_output(output).unwrap();
        assert_eq!(message, "m4 ends at the wall of process PID\nfor sure\n");
        assert_eq!(
            what_happened(&message),
            "m4 ends at the wall of process PID"
        );
        assert_eq!(of_output("test x ... ok\n"), None);
    }

    #[test]
    fn words_may_be_broken_over_lines() {
        assert!(contains("it took\n    only 7 bytes", "took only 7"));
        assert!(!contains("it took only 7 bytes", "took 7"));
    }

    #[test]
    fn numbers_that_vary_are_left_out() {
        let merge = |one, other| merged(one, other).unwrap_or_default();
        assert_eq!(
            merge("1 of 1,000, ok", "2 of 1,000, ok"),
            "… of 1,000, ok\n"
        );
        assert_eq!(merge("… of 1,000", "3 of 1,024."), "");
        assert_eq!(merge("… of 1,000.", "3 of 1,024."), "… of ….\n");
        assert_eq!(merge("4096 in 1.5s", "4096 in 20.7s"), "4096 in …s\n");
        assert_eq!(merged("it hangs", "it ends"), None);
        assert_eq!(merged("one line", "one line\nanother"), None);
    }

    #[test]
    fn bytes_and_the_manner_of_a_close_may_vary_as_well() {
        let one = "    expected       1,000 bytes: …f4 [49]";
        let other = "    expected      20,000 bytes: […]";
        let either = "    expected … bytes: …\n";
        assert_eq!(merged(one, other).as_deref(), Some(either));
        assert_eq!(merged(one, either).as_deref(), Some(either));
        let one = "    epoll_wait(4) = 2 [fd 7: IN] [fd 8: IN|HUP]";
        let other = "    epoll_wait(4) = 2 [fd 8: IN|HUP] [fd 9: IN]";
        assert_eq!(merged(one, other), Some(format!("{other}\n")));
        assert_eq!(merged(one, &other.replace("HUP", "ERR")), None);
        let ends = format!("0 bytes, then {}\n", CLOSES[0]);
        let resets = format!("0 bytes, then {}\n", CLOSES[1]);
        assert_eq!(merged(&ends, &resets), Some(resets.clone()));
        assert_eq!(merged(&resets, &ends), Some(ends));
    }

    #[test]
    fn a_rate_may_have_another_unit() {
        let line = |rate: &str| format!("    Bytes in: {rate}\n");
        let either = merged(&line("512 kB/s"), &line("2 MB/s"));
        assert_eq!(either, Some(line("… B/s")));
        assert_eq!(merged("Bytes in: 1 B/s", "Bytes out: 2 B/s"), None);
    }

    #[test]
    fn only_what_happened_may_have_other_numbers() {
        let recorded = "What was tried: 3\nWhat happened: 10 of …\nWhat it usually means: 5\n";
        let is_recorded = |message: &str| is_as_recorded(message, recorded);
        assert!(is_recorded(&recorded.replace("10 of …", "11 of 7")));
        assert!(!is_recorded(&recorded.replace("10 of", "10 for")));
        assert!(!is_recorded(&recorded.replace("tried: 3", "tried: 4")));
        assert!(is_as_recorded("it ended with 1\n", "it ended with …\n"));
    }
}
