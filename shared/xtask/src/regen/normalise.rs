//! What varies from one run to the next is shown as if it did not.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use regex_lite::{Captures, Regex};

use super::scenes::Replacement;

/// The port that scenes name, and that is shown instead of the one they are played with.
pub const SHOWN_PORT: u16 = 9000;
/// The first of the ports that are shown as the clients' own.
const FIRST_CLIENT_PORT: usize = 50_001;
/// The first of the process ids that are shown.
const FIRST_PID: usize = 1001;

/// `text` with the port that a scene is really played with.
pub fn with_port(text: &str, port: u16) -> String {
    replace_number(text, SHOWN_PORT, port)
}

/// Replaces a number where it stands alone.
fn replace_number(text: &str, from: u16, to: u16) -> String {
    let from = from.to_string();
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let alone = !is_digit(before.chars().next_back().or(shown.chars().next_back()))
            && !is_digit(after.chars().next());
        shown.push_str(before);
        if alone {
            shown.push_str(&to.to_string());
        } else {
            shown.push_str(&from);
        }
        rest = after;
    }
    shown + rest
}

/// Numbers that vary, in the order in which they appear.
struct Sequence {
    first: usize,
    seen: BTreeMap<String, usize>,
}

impl Sequence {
    fn new(first: usize) -> Self {
        Self {
            first,
            seen: BTreeMap::new(),
        }
    }

    fn shown(&mut self, number: &str) -> usize {
        let next = self.first + self.seen.len();
        *self.seen.entry(number.to_owned()).or_insert(next)
    }
}

/// One scene's: the same number is the same in all its terminals and traces.
pub struct Normaliser {
    root: String,
    temp: String,
    port: u16,
    ports: Sequence,
    pids: Sequence,
    own: Vec<(Regex, String)>,
}

impl Normaliser {
    pub fn new(root: &Path, own: &[Replacement]) -> Result<Self> {
        let own = own
            .iter()
            .map(|it| {
                let regex = Regex::new(&it.pattern)
                    .with_context(|| format!("normalise: {}", it.pattern))?;
                Ok((regex, it.with.clone()))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            root: format!("{}/", root.display()),
            temp: String::new(),
            port: SHOWN_PORT,
            ports: Sequence::new(FIRST_CLIENT_PORT),
            pids: Sequence::new(FIRST_PID),
            own,
        })
    }

    /// The port and the temporary folder that the scene was played with.
    pub fn stage(&mut self, port: u16, temp: &Path) {
        self.port = port;
        self.temp = temp.display().to_string();
    }

    /// What a terminal shows.
    pub fn transcript(&mut self, text: &str) -> Result<String> {
        let text = as_seen(text);
        let text = without_cargo(&text);
        let text = self.common(&text)?;
        let text = replace(&text, r"\b([Pp]id|[Pp]rocess) (\d+)", |found| {
            format!("{} {}", &found[1], self.pids.shown(&found[2]))
        })?;
        let text = replace(&text, r"finished in \d+\.\d+s", |_| {
            "finished in 0.01s".to_owned()
        })?;
        let text = replace(&text, r"thread '([^']*)' \(\d+\) panicked", |found| {
            format!("thread '{}' panicked", &found[1])
        })?;
        Ok(self.finish(&text))
    }

    /// A trace: from the first line that contains `from`, at most `limit` lines.
    pub fn trace(
        &mut self,
        text: &str,
        from: Option<&str>,
        limit: Option<usize>,
    ) -> Result<String> {
        let text = self.pids_of_trace(text)?;
        let text = self.common(&text)?;
        let text = replace(&text, r"htons\((\d+)\)", |found| {
            match found[1].parse::<u16>() {
                Ok(port) if port == SHOWN_PORT || port < 32_768 => found[0].to_owned(),
                _ => format!("htons({})", self.ports.shown(&found[1])),
            }
        })?;
        let text = replace(&text, EPOLL_DATA, |found| {
            let data = u64::from_str_radix(&found[1], 16).unwrap_or(0);
            format!("data={{u32={}, u64={data}}}", data & 0xffff_ffff)
        })?;
        // A pointer that strace does not follow.
        let text = replace(&text, r"0x[0-9a-f]{7,}", |_| "0x…".to_owned())?;
        // What is left of a time that runs, in milliseconds: up to the second.
        let text = replace(
            &text,
            r"(?m)^(epoll_p?wait2?\(.*, )(\d{4,})(\) = )",
            |found| {
                let left: u64 = found[2].parse().unwrap_or(0);
                format!("{}{}{}", &found[1], left.div_ceil(1000) * 1000, &found[3])
            },
        )?;
        let text = self.finish(&text);
        let start = match from {
            None => 0,
            Some(from) => {
                let line = text.lines().position(|line| line.contains(from));
                line.with_context(|| format!("no line of the trace contains `{from}`"))?
            }
        };
        let lines: Vec<&str> = text.lines().skip(start).collect();
        Ok(limited(&lines, limit))
    }

    /// strace -f writes who calls before every line: left out when it is always the same.
    fn pids_of_trace(&mut self, text: &str) -> Result<String> {
        let pid = |line: &str| line.split(' ').next().map(str::to_owned);
        let first = text.lines().next().and_then(pid);
        let alone = text.lines().all(|line| pid(line) == first);
        replace(text, r"(?m)^(\d+) +", |found| {
            if alone {
                String::new()
            } else {
                format!("{} ", self.pids.shown(&found[1]))
            }
        })
    }

    fn common(&mut self, text: &str) -> Result<String> {
        let text = text.replace(&self.root, "");
        let text = if self.temp.is_empty() {
            text
        } else {
            text.replace(&self.temp, "/tmp")
        };
        let text = replace_number(&text, self.port, SHOWN_PORT);
        replace(
            &text,
            r"(127\.0\.0\.1|localhost|::1|\])([:.])(\d{5})\b",
            |found| format!("{}{}{}", &found[1], &found[2], self.ports.shown(&found[3])),
        )
    }

    /// The scene's own replacements; then no blanks at the ends of lines and no empty lines at the end.
    fn finish(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, with) in &self.own {
            text = pattern.replace_all(&text, with.as_str()).into_owned();
        }
        text.trim_end()
            .lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    }
}

/// What newer versions of strace write for a 64-bit number of the program's own; older ones write both its halves.
const EPOLL_DATA: &str = r"data=0x([0-9a-f]+)";

fn replace(text: &str, pattern: &str, with: impl FnMut(&Captures<'_>) -> String) -> Result<String> {
    let regex = Regex::new(pattern).with_context(|| pattern.to_owned())?;
    Ok(regex.replace_all(text, with).into_owned())
}

/// What is left on a screen: no colours, and of a line that is written again and again the last state.
fn as_seen(text: &str) -> String {
    let plain = Regex::new("\x1b\\[[0-9;?]*[A-Za-z]").map_or_else(
        |_| text.to_owned(),
        |escapes| escapes.replace_all(text, "").into_owned(),
    );
    plain
        .replace("\r\n", "\n")
        .split_inclusive('\n')
        .map(|line| line.rsplit('\r').next().unwrap_or(line))
        .collect()
}

/// Without what cargo says while it builds.
fn without_cargo(text: &str) -> String {
    const SAYS: [&str; 7] = [
        "Compiling ",
        "Finished `",
        "Finished [",
        "Running `",
        "Running tests/",
        "Running unittests ",
        "Blocking waiting ",
    ];
    text.split_inclusive('\n')
        .filter(|line| {
            let said = line.trim_start();
            !(line.starts_with("   ") && SAYS.iter().any(|start| said.starts_with(start)))
        })
        .collect()
}

/// The first lines, and that there were more: how many exactly only where that is few, for it may vary.
fn limited(lines: &[&str], limit: Option<usize>) -> String {
    let shown = limit.unwrap_or(lines.len()).min(lines.len());
    let mut text: String = lines[..shown]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    match lines.len() - shown {
        0 => {}
        1 => text.push_str("… and 1 more line\n"),
        more @ 2..100 => text.push_str(&format!("… and {more} more lines\n")),
        100..1000 => text.push_str("… and hundreds more lines\n"),
        _ => text.push_str("… and thousands more lines\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normaliser() -> Normaliser {
        let own = Replacement {
            pattern: r"\d+ KiB/s".to_owned(),
            with: "… KiB/s".to_owned(),
        };
        let mut normaliser = Normaliser::new(Path::new("/r"), &[own]).unwrap();
        normaliser.stage(9417, Path::new("/tmp/.tmpAbc"));
        normaliser
    }

    #[test]
    fn the_port_is_a_number_that_stands_alone() {
        assert_eq!(
            with_port("x 9000:9000 19000 90001", 9417),
            "x 9417:9417 19000 90001"
        );
        assert_eq!(with_port("90009000 9000", 9417), "90009000 9417");
    }

    #[test]
    fn a_transcript_shows_what_a_reader_would_see() {
        let seen = normaliser().transcript(
            "$ cargo run\n   Compiling m4 v0.1.0 (/r/x)\n    Finished `dev` profile\n\x1b[1mon\x1b[0m port 9417  \r\n10%\r100%\nfrom 127.0.0.1:45678 and 127.0.0.1:41111, 127.0.0.1:45678\n/tmp/.tmpAbc/x /r/y pid 77\n12 KiB/s",
        ).unwrap();
        assert_eq!(
            seen,
            "$ cargo run\non port 9000\n100%\nfrom 127.0.0.1:50001 and 127.0.0.1:50002, 127.0.0.1:50001\n/tmp/x y pid 1001\n… KiB/s\n"
        );
    }

    #[test]
    fn a_trace_of_one_process_names_none() {
        let seen = normaliser()
            .trace(
                "77 epoll_wait(4, [{events=EPOLLIN, data=0x100000005}], 1024, 29987) = 1\n77 accept4(3, {sa_family=AF_INET, sin_port=htons(45678), sin_addr=inet_addr(\"127.0.0.1\")}, 0x7ffd12345678) = 5\n",
                None,
                None,
            )
            .unwrap();
        assert_eq!(
            seen,
            "epoll_wait(4, [{events=EPOLLIN, data={u32=5, u64=4294967301}}], 1024, 30000) = 1\naccept4(3, {sa_family=AF_INET, sin_port=htons(50001), sin_addr=inet_addr(\"127.0.0.1\")}, 0x…) = 5\n"
        );
    }

    #[test]
    fn a_trace_of_two_processes_names_both() {
        let seen = normaliser()
            .trace("77 a() = 0\n78 b() = 0\n", None, None)
            .unwrap();
        assert_eq!(seen, "1001 a() = 0\n1002 b() = 0\n");
    }

    #[test]
    fn a_trace_is_cut_at_both_ends() {
        let text = "7 a\n7 b\n7 c\n7 d\n7 e\n";
        let seen = normaliser().trace(text, Some("b"), Some(2)).unwrap();
        assert_eq!(seen, "b\nc\n… and 2 more lines\n");
        assert!(normaliser().trace(text, Some("x"), None).is_err());
        assert_eq!(
            limited(&["x"; 5000], Some(1)),
            "x\n… and thousands more lines\n"
        );
    }
}
