//! The tables of `bench.md`, which are also what the bench prints: Markdown that reads well as text.

use std::fmt::Write;

use crate::figures::{Figure, Measure, Results, median};
use crate::machine::Run;
use crate::number::{figure, thousands};
use crate::scenarios::load::{self, LOADS};
use crate::scenarios::structures::{ENTRIES, STRUCTURES, active, all};
use crate::scenarios::{held, memory, traced, wrk};

/// The whole page, without a title: the chapter that includes it has one.
pub fn markdown(results: &Results) -> String {
    let mut page = Page {
        results,
        text: String::new(),
        notes: Vec::new(),
    };
    page.provenance();
    page.servers();
    page.load();
    page.growth();
    page.costs();
    page.structures();
    page.wrk();
    page.targets();
    page.reasons();
    page.text
}

struct Page<'a> {
    results: &'a Results,
    text: String,
    /// Why a cell is empty, in the order of the footnotes.
    notes: Vec<String>,
}

impl Page<'_> {
    fn provenance(&mut self) {
        let Run {
            machine,
            kernel,
            date,
            command,
            commit,
            rustc,
            took_s,
            load_before,
        } = &self.results.run;
        let took = match took_s / 60.0 {
            short if short < 2.0 => format!("{took_s:.0} seconds"),
            minutes => format!("{minutes:.1} minutes"),
        };
        let _ = writeln!(
            self.text,
            "Measured on {date} with `{command}` in {took}, at commit {commit}: {machine}; {kernel}; {rustc}. \
             Messages of 64 bytes, every byte verified; the server on one core, the load on another. A figure is the \
             median of its rounds, and the servers take turns within a round. The load average before was {load_before:.1}.\n"
        );
    }

    fn servers(&mut self) {
        let mut table = Table::new(&["server", "what it is"], 2);
        for server in &self.results.servers {
            let about = match &server.left_out {
                Some(reason) => format!("{}; left out: {reason}", server.about),
                None => server.about.clone(),
            };
            table.row([server.name.clone(), about]);
        }
        let about =
            "Built in release mode with the same profile. m8 is a chat, and echoes nothing.";
        self.section("Who takes part", &table, about);
    }

    fn load(&mut self) {
        let measures = [
            (
                Measure::CpuPerMessage,
                "CPU per message, µs",
                "What the server's process used in user space and in the kernel, divided by the messages it echoed. With its smallest and largest sample.",
            ),
            (
                Measure::Throughput,
                "Messages per second",
                "What one core of server and one core of load manage together: where the server waits for the load, this says less about it than the CPU per message does.",
            ),
            (
                Measure::LatencyP99,
                "99 of 100 echoes within, µs",
                "In a closed loop: with more connections than the server serves at once, this is mostly the time in which it serves the others.",
            ),
            (
                Measure::ServerBusy,
                "Share of its core that the server used",
                "",
            ),
        ];
        let tried = |measure| {
            LOADS
                .iter()
                .any(|load| self.results.tried(measure, load.name))
        };
        let measures: Vec<_> = measures
            .into_iter()
            .filter(|measure| tried(measure.0))
            .collect();
        for (measure, title, about) in measures {
            let mut table = Table::new(&["server"], 1);
            table.head.extend(LOADS.map(|load| load.title.to_owned()));
            for server in self.taking_part() {
                let cells = LOADS.map(|load| match measure {
                    Measure::CpuPerMessage => self.cell_with_spread(measure, load.name, &server),
                    Measure::ServerBusy => self.cell(measure, load.name, &server, |share| {
                        format!("{:.0} %", share * 100.0)
                    }),
                    _ => self.cell(measure, load.name, &server, figure),
                });
                table.row([server].into_iter().chain(cells));
            }
            self.section(title, &table, about);
        }
    }

    fn growth(&mut self) {
        let tried = load::idle_tried(self.results);
        let (Some(least), Some(most)) = (tried.first(), tried.last()) else {
            return;
        };
        let mut table = Table::new(&["server"], 1);
        table
            .head
            .extend(tried.iter().map(|&idle| thousands(idle as f64)));
        table.head.push("last ÷ first".to_owned());
        for server in self.taking_part() {
            let mut cells = vec![server.clone()];
            for &idle in &tried {
                cells.push(self.cell(Measure::CpuPerMessage, &load::beside(idle), &server, figure));
            }
            let (last, first) = (load::beside(*most), load::beside(*least));
            let growth =
                self.results
                    .ratios(Measure::CpuPerMessage, (&last, &first), (&server, &server));
            cells.push(median(&growth).map_or(NONE.to_owned(), figure));
            table.row(cells);
        }
        let title = "CPU per message of 100 active connections beside idle ones, µs by number of idle connections";
        self.section(
            title,
            &table,
            "All of one line are taken from one server process.",
        );
    }

    fn costs(&mut self) {
        if self.results.has(Measure::ConnectionsHeld) {
            self.held();
        }
        if self.results.has(Measure::UserMemory) {
            self.memory();
        }
        if self.results.has(Measure::Syscalls) || self.results.has(Measure::Instructions) {
            self.per_message();
        }
    }

    fn held(&mut self) {
        let held = [
            (Measure::ConnectionsHeld, held::USUAL),
            (Measure::ConnectionsHeld, held::RAISED),
        ];
        let mut table = Table::new(&["server", held::USUAL, held::RAISED], 1);
        for server in self.taking_part() {
            let cells =
                held.map(|(measure, scenario)| self.cell(measure, scenario, &server, thousands));
            table.row([server].into_iter().chain(cells));
        }
        let about = format!(
            "All open at once, and every one of them answered. The load generator is one process, and can have {} \
             descriptors itself.",
            thousands(self.results.run.machine.descriptors as f64)
        );
        self.section("Connections held by one process", &table, &about);
    }

    fn memory(&mut self) {
        let mut table = Table::new(&["server", "user space", "kernel"], 1);
        for server in self.taking_part() {
            let cells = [Measure::UserMemory, Measure::KernelMemory]
                .map(|measure| self.cell(measure, "", &server, thousands));
            table.row([server].into_iter().chain(cells));
        }
        let about = format!(
            "With {} connections, after each has echoed once. User space is `Anonymous` of `/proc/PID/smaps_rollup`; \
             the kernel's is half of what `Slab` of `/proc/meminfo` grows by, because both ends are on this machine, and \
             all that `KernelStack` and `PageTables` do. From m6 on with an idle timeout, and its list.",
            thousands(memory::CONNECTIONS as f64)
        );
        self.section("Memory per idle connection, bytes", &table, &about);
    }

    fn per_message(&mut self) {
        let measures = [
            (Measure::Syscalls, ""),
            (Measure::Receives, ""),
            (Measure::Sends, ""),
            (Measure::Waits, ""),
            (Measure::EpollCtl, ""),
            (Measure::WakeUps, ""),
            (Measure::Instructions, "1"),
            (Measure::Instructions, "100"),
        ];
        let titles = [
            "all",
            "receive",
            "send",
            "wait",
            "epoll_ctl",
            "wake-ups",
            "instructions, 1",
            "instructions, 100",
        ];
        let mut table = Table::new(&["server"], 1);
        table.head.extend(titles.map(str::to_owned));
        for server in self.taking_part() {
            let cells =
                measures.map(|(measure, scenario)| self.cell(measure, scenario, &server, figure));
            table.row([server].into_iter().chain(cells));
        }
        let about = format!(
            "System calls per message in lock-step (the next message is sent when the server waits again), counted by a \
             tracer; wake-ups until a burst of {} KiB has come back; and user-space instructions per message with 1 and \
             with 100 connections, counted by callgrind, with statistics on where there are any.",
            traced::BURST / 1024
        );
        self.section("What a message takes", &table, &about);
    }

    fn structures(&mut self) {
        if !self.results.has(Measure::Operation) {
            return;
        }
        let mut table = Table::new(&["structure"], 1);
        for kind in ["active of", "all of"] {
            table
                .head
                .extend(ENTRIES.map(|entries| format!("{kind} {}", thousands(f64::from(entries)))));
        }
        for structure in STRUCTURES {
            let cell = |name: String| {
                self.results
                    .median(Measure::Operation, &name, "m6")
                    .map_or(NONE.to_owned(), figure)
            };
            let some = ENTRIES.map(|entries| cell(active(structure, entries)));
            let every = ENTRIES.map(|entries| cell(all(structure, entries)));
            table.row([structure.to_owned()].into_iter().chain(some).chain(every));
        }
        let about = "With 100 active entries, spread over all: what a server with many idle connections does. And with \
                     all of them active, in a random order: those that do not fit in the processor's caches are waited \
                     for, whoever keeps them.";
        self.section(
            "m6's own structures without sockets, ns per operation",
            &table,
            about,
        );
    }

    fn wrk(&mut self) {
        let tried = |figure: &&Figure| figure.measure == Measure::WrkRequests;
        let entrants: Vec<Figure> = self.results.figures.iter().filter(tried).cloned().collect();
        if entrants.is_empty() {
            return;
        }
        let mut table = Table::new(&["server", "how", "requests/s", "errors", "÷ floor"], 2);
        for entrant in entrants {
            let Figure {
                server, scenario, ..
            } = &entrant;
            let requests = self.cell_with_spread(Measure::WrkRequests, scenario, server);
            let errors = self.results.get(Measure::WrkErrors, scenario, server);
            let errors = errors.map_or(0.0, |figure| figure.samples.iter().sum());
            let ratios = self.results.ratios(
                Measure::WrkRequests,
                (scenario, wrk::SCRIPT),
                (server, "floor"),
            );
            let ratio = median(&ratios).map_or(NONE.to_owned(), figure);
            table.row([
                server.clone(),
                scenario.clone(),
                requests,
                thousands(errors),
                ratio,
            ]);
        }
        let about = "`wrk -t4 -c1000` on the same cores as the server, nothing pinned. Under the echo script the request \
                     is a complete HTTP response, so that wrk takes its echo for an answer.";
        self.section("wrk", &table, about);
    }

    fn targets(&mut self) {
        let (measured, others): (Vec<_>, Vec<_>) = self
            .results
            .targets
            .iter()
            .partition(|target| target.met.is_some());
        if measured.is_empty() {
            return;
        }
        let mut table = Table::new(&["server", "measure", "target", "seen", "verdict"], 5);
        for target in measured {
            let verdict = if target.met == Some(true) {
                "met"
            } else {
                "**missed**"
            };
            let cells =
                [&target.server, &target.what, &target.target, &target.seen].map(String::clone);
            table.row(cells.into_iter().chain([verdict.to_owned()]));
        }
        let mut about =
            "Ratios are taken round by round; their median, with the smallest and the largest."
                .to_owned();
        if !others.is_empty() {
            let _ = write!(
                about,
                " {} more were not measured in this run.",
                others.len()
            );
        }
        self.section("Targets", &table, &about);
    }

    fn reasons(&mut self) {
        for (index, note) in self.notes.iter().enumerate() {
            let _ = writeln!(self.text, "[^bench-{}]: {note}", index + 1);
        }
    }

    fn section(&mut self, title: &str, table: &Table, about: &str) {
        let _ = writeln!(self.text, "### {title}\n");
        if !about.is_empty() {
            let _ = writeln!(self.text, "{about}\n");
        }
        let _ = writeln!(self.text, "{}", table.markdown());
    }

    fn taking_part(&self) -> Vec<String> {
        let servers = self
            .results
            .servers
            .iter()
            .filter(|server| server.left_out.is_none());
        servers.map(|server| server.name.clone()).collect()
    }

    fn cell_with_spread(&mut self, measure: Measure, scenario: &str, server: &str) -> String {
        let spread = self
            .results
            .get(measure, scenario, server)
            .and_then(Figure::spread);
        self.cell(measure, scenario, server, |median| match spread {
            Some((low, high)) if low < high => {
                format!("{} ({} to {})", figure(median), figure(low), figure(high))
            }
            _ => figure(median),
        })
    }

    /// The median, or a dash with a footnote that says why there is none.
    fn cell(
        &mut self,
        measure: Measure,
        scenario: &str,
        server: &str,
        show: impl Fn(f64) -> String,
    ) -> String {
        let Some(seen) = self.results.get(measure, scenario, server) else {
            return NONE.to_owned();
        };
        match (&seen.median, &seen.missing) {
            (Some(median), _) => show(*median),
            (None, None) => NONE.to_owned(),
            (None, Some(reason)) => {
                let note = match self.notes.iter().position(|note| note == reason) {
                    Some(known) => known,
                    None => {
                        self.notes.push(reason.clone());
                        self.notes.len() - 1
                    }
                };
                format!("{NONE}[^bench-{}]", note + 1)
            }
        }
    }
}

/// There is no figure.
const NONE: &str = "—";

/// A Markdown table whose columns are also aligned as text.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// How many columns at the left hold words; the others hold numbers, and end at the right.
    words: usize,
}

impl Table {
    fn new(head: &[&str], words: usize) -> Self {
        Self {
            head: head.iter().map(|&title| title.to_owned()).collect(),
            rows: Vec::new(),
            words,
        }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn markdown(&self) -> String {
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .chain([&self.head])
                .filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut line = "|".to_owned();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let _ = match column < self.words {
                    true => write!(line, " {cell:<width$} |"),
                    false => write!(line, " {cell:>width$} |"),
                };
            }
            line + "\n"
        };
        let rule = widths
            .iter()
            .enumerate()
            .map(|(column, width)| match column < self.words {
                true => "-".repeat(*width),
                false => "-".repeat(width - 1) + ":",
            });
        let mut text = line(&self.head) + &line(&rule.collect::<Vec<_>>());
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["server", "µs"], 1);
        table.row(["m4".to_owned(), "5.31".to_owned()]);
        table.row(["threads".to_owned(), "14.0".to_owned()]);
        let expected =
            "| server  |   µs |\n| ------- | ---: |\n| m4      | 5.31 |\n| threads | 14.0 |\n";
        assert_eq!(table.markdown(), expected);
    }
}
