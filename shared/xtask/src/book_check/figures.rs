//! Figures in prose: each says where it comes from, and is what stands there.
//!
//! Behind a figure stands one of
//!
//! - `<!-- bench: MEASURE | SCENARIO | SERVER -->`: the median in `book/generated/bench.json`, rounded to the
//!   digits shown; `<!-- bench: target | WHAT | SERVER -->`: a number of that target;
//! - `<!-- from: PATH -->`: the number stands in that file of the repository;
//! - `<!-- figure: none, REASON -->`: a figure that nobody measured.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Problem;
use super::include::regex;
use super::markdown::Markdown;
use super::pages::Book;

const BENCH: &str = "book/generated/bench.json";

/// What the bench has written, as far as the text may quote it.
#[derive(Deserialize)]
struct Bench {
    run: Run,
    figures: Vec<Figure>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Run {
    kernel: String,
    date: String,
    command: String,
    machine: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Figure {
    measure: String,
    scenario: String,
    server: String,
    unit: String,
    samples: Vec<f64>,
    median: Option<f64>,
    missing: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    what: String,
    server: String,
    target: String,
    seen: String,
}

/// A figure of the text and where it comes from.
pub struct Claim {
    file: String,
    line: usize,
    shown: String,
    source: String,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {} from {}",
            self.file, self.line, self.shown, self.source
        )
    }
}

/// Checks every page; gives the figures that have a source.
pub fn check(book: &Book, problems: &mut Vec<Problem>) -> Result<Vec<Claim>> {
    let text = fs::read_to_string(book.root.join(BENCH)).context(BENCH)?;
    let bench: Bench = match serde_json::from_str(&text) {
        Ok(bench) => bench,
        Err(error) => {
            let message = format!(
                "the bench cannot have written this: {error}; take the file of its last run"
            );
            problems.push(Problem::at(BENCH, error.line(), message));
            return Ok(Vec::new());
        }
    };
    problems.extend(
        bench
            .check()
            .into_iter()
            .map(|message| Problem::of(BENCH, message)),
    );
    let mut sources = Sources {
        book,
        bench,
        files: BTreeMap::new(),
    };
    let mut claims = Vec::new();
    for page in &book.pages {
        let markdown = &page.markdown;
        for comment in comments(markdown) {
            let line = markdown.line(comment.start);
            match sources.verify(&comment) {
                Ok(None) => {}
                Ok(Some((shown, source))) => claims.push(Claim {
                    file: page.file.clone(),
                    line,
                    shown,
                    source,
                }),
                Err(message) => problems.push(Problem::at(&page.file, line, message)),
            }
        }
        for at in broken_comments(markdown) {
            let message =
                "this comment is on the page as it is written: in a table, write `\\|` for its `|`";
            problems.push(Problem::at(
                &page.file,
                markdown.line(at),
                message.to_owned(),
            ));
        }
        for (at, figure) in bare_figures(markdown) {
            let message = format!(
                "`{figure}` does not say where it comes from: put <!-- bench: MEASURE | SCENARIO | SERVER --> or <!-- from: PATH --> right behind it (or <!-- figure: none, REASON --> if nobody measured it)"
            );
            problems.push(Problem::at(&page.file, markdown.line(at), message));
        }
    }
    Ok(claims)
}

impl Bench {
    /// What is wrong with the file itself.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let run = &self.run;
        if run.machine.is_empty()
            || [&run.kernel, &run.date, &run.command]
                .into_iter()
                .any(String::is_empty)
        {
            wrong.push("it does not say machine, kernel, date and command of the run".to_owned());
        }
        for figure in &self.figures {
            let name = format!(
                "{} | {} | {}",
                figure.measure, figure.scenario, figure.server
            );
            let mut samples = figure.samples.clone();
            samples.sort_by(f64::total_cmp);
            let middle = |at: usize| samples.get(at).copied();
            let count = samples.len();
            let median = match (middle(count.saturating_sub(1) / 2), middle(count / 2)) {
                (Some(low), Some(high)) => Some(f64::midpoint(low, high)),
                _ => None,
            };
            let same = match (median, figure.median) {
                (Some(ours), Some(theirs)) => (ours - theirs).abs() <= 1e-9 * ours.abs().max(1.0),
                (None, None) => figure.missing.is_some(),
                _ => false,
            };
            if !same {
                wrong.push(format!("{name}: its median is not that of its samples, or nothing says why it is missing"));
            }
        }
        wrong
    }
}

/// A comment about a figure.
struct Comment<'a> {
    start: usize,
    /// `bench`, `from` or `figure`.
    kind: &'a str,
    argument: &'a str,
    /// The text of the page up to the comment, and from its end.
    before: &'a str,
    after: &'a str,
}

fn comments(markdown: &Markdown) -> Vec<Comment<'_>> {
    let form = regex(r"<!--\s*(bench|from|figure):\s*(.*?)\s*-->");
    let text = markdown.text.as_str();
    let mut found = Vec::new();
    for span in &markdown.html {
        for comment in form.captures_iter(&text[span.clone()]) {
            let whole = comment.get(0).map_or(0..0, |whole| whole.range());
            let (start, end) = (span.start + whole.start, span.start + whole.end);
            let part = |index| comment.get(index).map_or("", |part| part.as_str());
            found.push(Comment {
                start,
                kind: part(1),
                argument: part(2),
                before: &text[..start],
                after: &text[end..],
            });
        }
    }
    found
}

/// A number as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Number {
    value: f64,
    /// The value of one step of its last digit that counts.
    step: f64,
}

impl Number {
    /// `19,936`, `0.97`, `nine`, `no`.
    fn parse(text: &str) -> Option<Self> {
        const WORDS: [&str; 13] = [
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve",
        ];
        let lower = text.to_lowercase();
        let word = if matches!(lower.as_str(), "no" | "none" | "nothing") {
            Some(0)
        } else {
            WORDS.iter().position(|word| *word == lower)
        };
        if let Some(value) = word {
            let value = u32::try_from(value).ok()?;
            return Some(Self {
                value: f64::from(value),
                step: 1.0,
            });
        }
        let digits = text.replace(',', "");
        let value: f64 = digits.parse().ok()?;
        let step = match digits.split_once('.') {
            Some((_, decimals)) => 0.1_f64.powi(i32::try_from(decimals.len()).ok()?),
            None => {
                // Zeros at the end may be rounded, but two digits count in any case.
                let significant = digits.trim_end_matches('0').len().max(2.min(digits.len()));
                10_f64.powi(i32::try_from(digits.len() - significant).ok()?)
            }
        };
        Some(Self { value, step })
    }

    /// Whether this is `exact`, rounded as it is shown.
    fn is(self, exact: f64) -> bool {
        (self.value - exact).abs() <= self.step * (0.5 + 1e-6)
    }
}

/// The number that stands right before a comment, with the unit behind it if there is one.
fn number_before(before: &str) -> Option<(Number, &str, &str)> {
    let form = regex(r"(?i)(\d[\d,]*(?:\.\d+)?|\b[a-z]+)([ -]?(?:%|[a-zµ]+(?:/[a-z]+)?))?$");
    let before = before.trim_end_matches(['*', '_', '`', ')', '"']);
    let line = before.rsplit('\n').next().unwrap_or(before);
    // A comment before this one is about the same text, or about an earlier figure.
    let line = line.rsplit("-->").next().unwrap_or(line);
    let found = form.captures(line)?;
    let part = |index| found.get(index).map_or("", |part| part.as_str());
    if let Some(number) = Number::parse(part(1)) {
        return Some((number, part(1), part(2).trim_start_matches([' ', '-'])));
    }
    // The last word alone.
    let word = line.rsplit([' ', '(', '-']).next()?;
    Number::parse(word).map(|number| (number, word, ""))
}

/// The unit behind a comment.
fn unit_after(after: &str) -> &str {
    let form = regex(r"^[ -]?(%|[A-Za-zµ]+(?:/[a-z]+)?)");
    let found = form.captures(after);
    found
        .and_then(|unit| unit.get(1))
        .map_or("", |unit| unit.as_str())
}

/// By how much a figure in `unit` is multiplied to be shown in `shown`.
fn factor(unit: &str, shown: &str) -> f64 {
    let base = unit.split('/').next().unwrap_or(unit);
    let time = |unit: &str| match unit {
        "s" | "seconds" => Some(1.0),
        "ms" | "milliseconds" => Some(1e3),
        "µs" | "us" | "microseconds" => Some(1e6),
        "ns" | "nanoseconds" => Some(1e9),
        _ => None,
    };
    match (base, shown) {
        ("of one core", "%") => 100.0,
        ("bytes", "KB") => 1e-3,
        ("bytes", "KiB") => 1.0 / 1024.0,
        (base, shown) => match (time(base), time(shown)) {
            (Some(base), Some(shown)) => shown / base,
            _ => 1.0,
        },
    }
}

/// Where figures come from.
struct Sources<'a> {
    book: &'a Book,
    bench: Bench,
    /// The numbers of files.
    files: BTreeMap<String, Option<Vec<String>>>,
}

impl Sources<'_> {
    /// Gives the figure and its source, or what is wrong.
    fn verify(&mut self, comment: &Comment<'_>) -> Result<Option<(String, String)>, String> {
        let line = comment.before.rsplit('\n').next().unwrap_or("");
        if line.trim().is_empty() {
            return Err(
                "a comment at the beginning of a line ends the paragraph: put it right behind its figure".to_owned(),
            );
        }
        if comment.kind == "figure" {
            let reason = comment.argument.strip_prefix("none").unwrap_or("");
            return if reason.trim_start_matches([',', ' ']).is_empty() {
                Err("<!-- figure: none, REASON --> needs its reason".to_owned())
            } else {
                Ok(None)
            };
        }
        let Some((number, text, unit)) = number_before(comment.before) else {
            return Err(format!(
                "no number stands right before <!-- {}: {} -->",
                comment.kind, comment.argument
            ));
        };
        let unit = if unit.is_empty() {
            unit_after(comment.after)
        } else {
            unit
        };
        let source = if comment.kind == "bench" {
            self.bench.verify(number, text, unit, comment.argument)?
        } else {
            self.verify_file(text, comment.argument)?
        };
        let shown = if unit.is_empty() {
            text.to_owned()
        } else {
            format!("{text} {unit}")
        };
        Ok(Some((shown, source)))
    }

    fn verify_file(&mut self, text: &str, path: &str) -> Result<String, String> {
        let root = &self.book.root;
        let numbers = self.files.entry(path.to_owned()).or_insert_with(|| {
            let text = fs::read_to_string(root.join(path)).ok();
            text.map(|text| numbers(&text))
        });
        let Some(numbers) = numbers else {
            return Err(format!(
                "there is no file {path}: a path is relative to the top folder"
            ));
        };
        let wanted = match Number::parse(text) {
            Some(number) if !text.starts_with(|c: char| c.is_ascii_digit()) => {
                number.value.to_string()
            }
            _ => text.replace(',', ""),
        };
        if numbers.contains(&wanted) {
            Ok(path.to_owned())
        } else {
            Err(format!(
                "{text} does not occur in {path}: correct the figure, or name the file that has it"
            ))
        }
    }
}

/// The numbers of a text, without separators of thousands.
fn numbers(text: &str) -> Vec<String> {
    let form = regex(r"\d+(?:[,_]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?");
    form.find_iter(text)
        .map(|number| number.as_str().replace([',', '_'], ""))
        .collect()
}

impl Bench {
    fn verify(
        &self,
        number: Number,
        text: &str,
        unit: &str,
        argument: &str,
    ) -> Result<String, String> {
        // In a table, a `|` that ends no cell is written `\|`.
        let argument = argument.replace("\\|", "|");
        let parts: Vec<&str> = argument.split('|').map(str::trim).collect();
        let [measure, scenario, server] = parts[..] else {
            return Err(format!(
                "<!-- bench: {argument} --> has not the form MEASURE | SCENARIO | SERVER (the scenario may be empty)"
            ));
        };
        let source = format!("{BENCH}: {measure} | {scenario} | {server}");
        if measure == "target" {
            let known = |it: &&Target| it.what == scenario && it.server == server;
            let Some(target) = self.targets.iter().find(known) else {
                let known: Vec<&str> = self.targets.iter().map(|it| it.what.as_str()).collect();
                return Err(format!("{BENCH} has no such target: {}", known.join("; ")));
            };
            let said = numbers(&format!("{} {}", target.seen, target.target));
            return if said.contains(&text.replace(',', "")) {
                Ok(source)
            } else {
                Err(format!(
                    "the target says {} (asked: {}), not {text}",
                    target.seen, target.target
                ))
            };
        }
        let of_measure: Vec<&Figure> = self
            .figures
            .iter()
            .filter(|it| it.measure == measure)
            .collect();
        let Some(figure) = of_measure
            .iter()
            .find(|it| it.scenario == scenario && it.server == server)
        else {
            return Err(format!(
                "{BENCH} has no such figure; {}",
                self.near(measure, server)
            ));
        };
        let Some(median) = figure.median else {
            let reason = figure.missing.as_deref().unwrap_or("nobody knows why");
            return Err(format!("the bench has not measured this: {reason}"));
        };
        let exact = median * factor(&figure.unit, unit);
        if number.is(exact) {
            Ok(source)
        } else {
            Err(format!(
                "the bench says {median} {}, not {text} {unit}",
                figure.unit
            ))
        }
    }

    /// What there is instead.
    fn near(&self, measure: &str, server: &str) -> String {
        let mut of_measure = self
            .figures
            .iter()
            .filter(|it| it.measure == measure)
            .peekable();
        if of_measure.peek().is_none() {
            let mut known: Vec<&str> = self.figures.iter().map(|it| it.measure.as_str()).collect();
            known.sort_unstable();
            known.dedup();
            return format!("its measures are {}", known.join(", "));
        }
        let mut known: Vec<String> = of_measure
            .filter(|it| {
                it.server == server
                    || !self
                        .figures
                        .iter()
                        .any(|any| any.server == server && any.measure == measure)
            })
            .map(|it| format!("`{} | {} | {}`", it.measure, it.scenario, it.server))
            .collect();
        known.truncate(12);
        format!("it has {}", known.join(", "))
    }
}

/// Comments that are none, because a `|` in them has ended a cell of a table: where they stand.
fn broken_comments(markdown: &Markdown) -> Vec<usize> {
    let form = regex(r"<!--\s*(?:bench|from|figure):");
    let found = form.find_iter(&markdown.prose);
    found.map(|comment| comment.start()).collect()
}

/// Figures with a unit of measure that no comment follows, and where they stand.
fn bare_figures(markdown: &Markdown) -> Vec<(usize, String)> {
    let form = regex(concat!(
        r"\d[\d,]*(?:\.\d+)?[ \n\u{a0}-]?",
        r"(?:µs|us|ns|ms|[KMG]i?B/s|(?:micro|nano|milli)seconds?",
        r"|instructions|(?:requests|messages)(?:/s| (?:a|per) second))",
    ));
    let mut found = Vec::new();
    for figure in form.find_iter(&markdown.prose) {
        let next = markdown.prose[figure.end()..].chars().next();
        // A longer word, or a place in a list of something else.
        if next.is_some_and(char::is_alphanumeric) {
            continue;
        }
        let after = markdown.text[figure.end()..].trim_start_matches(['*', '_', ')', ' ']);
        if !after.starts_with("<!--") {
            found.push((figure.start(), figure.as_str().replace('\n', " ")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn a_number_is_as_exact_as_it_is_shown() {
        assert!(number("4.88").is(4.8849));
        assert!(!number("4.88").is(4.8861));
        assert!(number("19,936").is(19_936.0));
        assert!(!number("19,936").is(19_937.0));
        assert!(number("151,000").is(151_474.0));
        assert!(!number("151,000").is(151_574.0));
        // Two digits count: 100 is not 93.
        assert!(!number("100").is(93.0));
        assert!(number("one").is(1.0) && number("no").is(-0.0));
        assert_eq!(Number::parse("many"), None);
    }

    #[test]
    fn the_number_before_a_comment_may_have_a_unit() {
        let shown = |text| number_before(text).map(|(_, number, unit)| (number, unit));
        assert_eq!(shown("costs 4.88"), Some(("4.88", "")));
        assert_eq!(shown("costs **4.88 µs**"), Some(("4.88", "µs")));
        assert_eq!(shown("a 64-byte"), Some(("64", "byte")));
        assert_eq!(shown("`4,096`"), Some(("4,096", "")));
        assert_eq!(shown("256 KiB are one"), Some(("one", "")));
        assert_eq!(shown("12 messages/s"), Some(("12", "messages/s")));
        assert_eq!(shown("1<!-- from: a --> requests/s"), None);
        assert_eq!(shown("no figure here"), None);
    }

    #[test]
    fn units_are_converted() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(factor("of one core", "%"), 100.0));
        assert!(close(factor("µs/message", "ns"), 1000.0));
        assert!(close(factor("bytes/connection", "KiB"), 1.0 / 1024.0));
        assert!(close(factor("calls/message", "calls"), 1.0));
    }

    #[test]
    fn figures_without_a_source_are_found_and_others_not() {
        let bare = |text: &str| {
            let found = bare_figures(&Markdown::new(text.to_owned()));
            found
                .into_iter()
                .map(|(_, figure)| figure)
                .collect::<Vec<_>>()
        };
        assert_eq!(bare("It takes 4.9 µs, and `5 µs` is code."), ["4.9 µs"]);
        assert_eq!(
            bare("at 1,200 requests/s or\n3 ms."),
            ["1,200 requests/s", "3 ms"]
        );
        assert!(bare("4.9<!-- bench: x --> µs, 5 µs<!-- figure: none, a guess -->").is_empty());
        assert!(bare("10 s, 64 KiB, 5 msgs, m4, 3 instructionsets").is_empty());
    }

    #[test]
    fn a_comment_in_a_table_must_not_end_a_cell() {
        let table = |cell: &str| Markdown::new(format!("| a | b |\n|---|---|\n| 1 | {cell} |\n"));
        let good = table(r"4.9<!-- bench: x \| y \| z --> µs");
        assert_eq!(comments(&good)[0].argument, r"x \| y \| z");
        assert!(broken_comments(&good).is_empty());
        let broken = table("4.9<!-- bench: x | y | z --> µs");
        assert!(comments(&broken).is_empty());
        assert_eq!(broken_comments(&broken).len(), 1);
    }

    #[test]
    fn numbers_of_a_file_are_compared_without_separators() {
        assert_eq!(
            numbers("a 126,976 4_096 1.50 x7,8"),
            ["126976", "4096", "1.50", "7", "8"]
        );
    }

    fn bench() -> Bench {
        let text = r#"{"run":{"kernel":"k","date":"d","command":"c","machine":{"cores":2}},
            "figures":[
                {"measure":"cpu","scenario":"100","server":"m4","unit":"µs/message","samples":[3.0,1.0,2.0],"median":2.0},
                {"measure":"cpu","scenario":"1000","server":"m4","unit":"µs/message","samples":[],"median":null,"missing":"no time"}],
            "targets":[{"what":"held","server":"m6","target":"≥ 19,900","seen":"19,936","met":true}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn figures_are_looked_up_in_the_bench() {
        let verify = |text: &str, unit: &str, argument: &str| {
            bench()
                .verify(number(text), text, unit, argument)
                .err()
                .unwrap_or_default()
        };
        assert_eq!(verify("2", "µs", "cpu | 100 | m4"), "");
        assert_eq!(verify("2,000", "ns", "cpu|100|m4"), "");
        assert!(verify("3", "µs", "cpu | 100 | m4").contains("the bench says 2"));
        assert!(verify("2", "", "cpu | 10 | m4").contains("`cpu | 100 | m4`"));
        assert!(verify("2", "", "gpu | 10 | m4").contains("its measures are cpu"));
        assert!(verify("2", "", "cpu | 1000 | m4").contains("no time"));
        assert!(verify("2", "", "cpu m4").contains("form"));
        assert_eq!(verify("19,936", "", "target | held | m6"), "");
        assert!(verify("19,000", "", "target | held | m6").contains("19,936"));
    }

    #[test]
    fn the_benchs_own_file_is_checked() {
        assert!(bench().check().is_empty());
        let mut wrong = bench();
        wrong.figures[0].median = Some(3.0);
        wrong.run.kernel.clear();
        assert_eq!(wrong.check().len(), 2);
    }
}
