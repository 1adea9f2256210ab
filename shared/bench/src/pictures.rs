//! The plots of the book, from the figures.

use plot::svg::Heading;

use crate::charts::{Bar, Line, Panel, bars, lines};
use crate::contender::Kind;
use crate::figures::{Figure, Measure, Results, ServerInfo};
use crate::number::{figure, thousands};
use crate::scenarios::load::{self, HUNDRED, THOUSAND, THOUSAND_DEEP};
use crate::scenarios::{held, memory};

/// All plots for which there are figures, with the names of their files.
pub fn draw(results: &Results) -> Vec<(&'static str, String)> {
    let plots = [
        ("bench-cpu.svg", cpu(results)),
        ("bench-throughput.svg", throughput(results)),
        ("bench-held.svg", connections_held(results)),
        ("bench-idle.svg", growth(results)),
        ("bench-memory.svg", user_memory(results)),
    ];
    plots
        .into_iter()
        .filter_map(|(name, picture)| Some((name, picture?)))
        .collect()
}

fn cpu(results: &Results) -> Option<String> {
    let heading = Heading {
        id: "bench-cpu",
        title: "CPU per message, in microseconds",
        subtitle: "64-byte messages; shorter is better. Median, with a line from the smallest to the largest sample.",
    };
    under_load(results, Measure::CpuPerMessage, &heading)
}

fn throughput(results: &Results) -> Option<String> {
    let heading = Heading {
        id: "bench-throughput",
        title: "Messages per second",
        subtitle: "64-byte messages, one core for the server and one for the load; longer is better. Median and spread.",
    };
    under_load(results, Measure::Throughput, &heading)
}

fn under_load(results: &Results, measure: Measure, heading: &Heading<'_>) -> Option<String> {
    let panels = [HUNDRED, THOUSAND, THOUSAND_DEEP].map(|load| Panel {
        title: load.title.to_owned(),
        bars: bars_of(results, |server| {
            let seen = results.get(measure, load.name, &server.name)?;
            Some((seen, None, figure(seen.median?)))
        }),
    });
    draw_bars(heading, &panels, results)
}

fn connections_held(results: &Results) -> Option<String> {
    let heading = Heading {
        id: "bench-held",
        title: "Connections held at once, each of them answered",
        subtitle: match results.tried(Measure::ConnectionsHeld, held::RAISED) {
            true => {
                "Started with the usual soft limit of 1,024 descriptors; pale: with the limit raised beforehand."
            }
            false => "Started with the usual soft limit of 1,024 descriptors.",
        },
    };
    let panel = Panel {
        title: String::new(),
        bars: bars_of(results, |server| {
            let seen = results.get(Measure::ConnectionsHeld, held::USUAL, &server.name)?;
            let usual = thousands(seen.median?);
            let raised = results.median(Measure::ConnectionsHeld, held::RAISED, &server.name);
            let text = match raised.map(thousands) {
                Some(raised) if raised != usual => {
                    format!("{usual}; {raised} with the limit raised")
                }
                _ => usual,
            };
            Some((seen, raised, text))
        }),
    };
    draw_bars(&heading, &[panel], results)
}

fn user_memory(results: &Results) -> Option<String> {
    let subtitle = format!(
        "User space, with {} connections after one echo on each; shorter is better.",
        thousands(memory::CONNECTIONS as f64)
    );
    let heading = Heading {
        id: "bench-memory",
        title: "Memory per idle connection, in bytes",
        subtitle: &subtitle,
    };
    let panel = Panel {
        title: String::new(),
        bars: bars_of(results, |server| {
            let seen = results.get(Measure::UserMemory, "", &server.name)?;
            Some((seen, None, thousands(seen.median?)))
        }),
    };
    draw_bars(&heading, &[panel], results)
}

fn growth(results: &Results) -> Option<String> {
    let tried = load::idle_tried(results);
    let drawn = taking_part(results).filter_map(|server| {
        let point = |&idle: &u64| {
            Some((
                idle as f64,
                results.median(Measure::CpuPerMessage, &load::beside(idle), &server.name)?,
            ))
        };
        let points: Vec<(f64, f64)> = tried.iter().filter_map(point).collect();
        (points.len() > 1).then(|| Line {
            label: server.name.clone(),
            kind: server.kind,
            strong: server.kind == Kind::Milestone,
            points,
        })
    });
    let drawn: Vec<Line> = drawn.collect();
    let heading = Heading {
        id: "bench-idle",
        title: "What a message costs beside idle connections",
        subtitle: "100 connections echo, one message in flight on each; the others say nothing.",
    };
    let axes = ("idle connections", "CPU per message, µs (logarithmic)");
    (!drawn.is_empty()).then(|| lines(&heading, axes, &drawn, &results.run))
}

/// A bar for each server; `value` gives the figure, what lies behind the bar, and what stands after it.
fn bars_of<'a>(
    results: &'a Results,
    value: impl Fn(&ServerInfo) -> Option<(&'a Figure, Option<f64>, String)>,
) -> Vec<Bar> {
    let bar = |server: &ServerInfo| {
        let (value, behind, text) = match value(server) {
            Some((seen, behind, text)) => {
                let spread = seen.spread();
                (
                    seen.median
                        .zip(spread)
                        .map(|(median, (low, high))| (median, low, high)),
                    behind,
                    text,
                )
            }
            None => (None, None, "—".to_owned()),
        };
        Bar {
            label: server.name.clone(),
            kind: server.kind,
            value,
            behind,
            text,
        }
    };
    taking_part(results).map(bar).collect()
}

fn draw_bars(heading: &Heading<'_>, panels: &[Panel], results: &Results) -> Option<String> {
    let measured = panels
        .iter()
        .flat_map(|panel| &panel.bars)
        .any(|bar| bar.value.is_some());
    measured.then(|| bars(heading, panels, &results.run))
}

fn taking_part(results: &Results) -> impl Iterator<Item = &ServerInfo> {
    results
        .servers
        .iter()
        .filter(|server| server.left_out.is_none())
}
