//! A soak over time, as a plot.

use std::fmt::Write;

use plot::number::{plain, thousands};
use plot::svg::{Heading, Hue, MARGIN, Svg};

use super::{Sample, Soak};

const WIDTH: f64 = 420.0;
const LEFT: f64 = MARGIN + 44.0;
const RIGHT: f64 = WIDTH - MARGIN;
const PANEL: f64 = 92.0;
const GAP: f64 = 40.0;
const TOP: f64 = 92.0;

/// So many points are drawn at most; each stands for some seconds.
const POINTS: usize = 160;

/// What is drawn over the same time as the others.
struct Panel {
    title: &'static str,
    value: fn(&Sample) -> f64,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Memory (Anonymous), MB",
        value: |sample| sample.anonymous as f64 / 1e6,
    },
    Panel {
        title: "Descriptors",
        value: |sample| sample.descriptors as f64,
    },
    Panel {
        title: "CPU, % of one core",
        value: |sample| sample.cpu_percent,
    },
    Panel {
        title: "Errors so far",
        value: |sample| sample.errors as f64,
    },
];

/// One panel below the other: in each a line through the median of some seconds, and pale around it from the
/// least to the most in them.
pub fn draw(soak: &Soak) -> String {
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP) + 66.0;
    let clients = thousands(soak.chaos.clients as f64);
    let minutes = plain((soak.seconds / 6.0).round() / 10.0);
    let heading = Heading {
        id: "soak",
        title: &format!("{} under hostile clients", soak.milestone),
        subtitle: &format!("{minutes} minutes, {clients} random clients, load beside them"),
    };
    let hue = Hue {
        class: "seen",
        colour: "#2f81c7",
        name: "",
    };
    let mut svg = Svg::new(&heading, WIDTH, height, &[hue]);
    for (number, panel) in PANELS.iter().enumerate() {
        draw_panel(&mut svg, soak, panel, TOP + number as f64 * (PANEL + GAP));
    }
    let bottom = TOP + PANELS.len() as f64 * (PANEL + GAP) - GAP;
    label_minutes(&mut svg, soak, bottom);
    svg.finish(&[
        soak.run.machine.to_string(),
        format!("{} · {}", soak.run.kernel, soak.run.date),
        format!("{} --seed {}", soak.run.command, soak.seed),
    ])
}

fn draw_panel(svg: &mut Svg, soak: &Soak, panel: &Panel, top: f64) {
    let bottom = top + PANEL;
    svg.text(MARGIN, top - 14.0, "start", "strong", panel.title);
    let values = soak.samples.iter().map(panel.value);
    let (step, ceiling) = scale(values.fold(0.0, f64::max));
    let to_y = |value: f64| bottom - value / ceiling * PANEL;
    let mut tick = 0.0;
    while tick <= ceiling * 1.001 {
        svg.line(LEFT, to_y(tick), RIGHT, to_y(tick), "grid");
        svg.text(LEFT - 8.0, to_y(tick) + 4.5, "end", "quiet", &plain(tick));
        tick += step;
    }
    svg.line(LEFT, bottom, RIGHT, bottom, "axis");
    let (mut middle, mut over, mut under) = (String::new(), String::new(), Vec::new());
    let together = soak.samples.len().div_ceil(POINTS).max(1);
    for (number, some) in soak.samples.chunks(together).enumerate() {
        let mut values: Vec<f64> = some.iter().map(panel.value).collect();
        values.sort_by(f64::total_cmp);
        let x = to_x(some[some.len() / 2].at / 60.0, minutes(soak));
        let command = if number == 0 { 'M' } else { 'L' };
        let _ = write!(
            middle,
            "{command}{x:.1} {:.1}",
            to_y(values[values.len() / 2])
        );
        let _ = write!(
            over,
            "{command}{x:.1} {:.1}",
            to_y(values[values.len() - 1])
        );
        under.push(format!("L{x:.1} {:.1}", to_y(values[0])));
    }
    if under.len() > 1 {
        under.reverse();
        svg.path(&format!("{over}{}Z", under.concat()), "seen faint");
    }
    svg.path(&middle, "seen-line thin");
}

/// The axis that all panels share.
fn label_minutes(svg: &mut Svg, soak: &Soak, bottom: f64) {
    let minutes = minutes(soak);
    let (step, _) = scale(minutes);
    let mut tick = 0.0;
    while tick <= minutes * 1.001 {
        svg.line(
            to_x(tick, minutes),
            bottom,
            to_x(tick, minutes),
            bottom + 4.0,
            "axis",
        );
        svg.text(
            to_x(tick, minutes),
            bottom + 18.0,
            "middle",
            "quiet",
            &plain(tick),
        );
        tick += step;
    }
    let middle = (LEFT + RIGHT) / 2.0;
    svg.text(middle, bottom + 38.0, "middle", "quiet", "minutes");
}

fn minutes(soak: &Soak) -> f64 {
    soak.samples.last().map_or(1.0, |sample| sample.at / 60.0)
}

fn to_x(minute: f64, minutes: f64) -> f64 {
    LEFT + minute / minutes * (RIGHT - LEFT)
}

/// The distance between two ticks, and the tick at or above `most`: two to five of them.
fn scale(most: f64) -> (f64, f64) {
    if most <= 0.0 {
        return (1.0, 1.0);
    }
    let magnitude = 10f64.powf((most / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * magnitude);
    let step = steps
        .into_iter()
        .find(|step| most / step <= 4.0)
        .unwrap_or(steps[3]);
    (step, (most / step).ceil() * step)
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn scales_begin_at_zero_and_end_above_the_most() {
        assert_eq!(scale(0.0), (1.0, 1.0));
        assert_eq!(scale(20.0), (5.0, 20.0));
        assert_eq!(scale(7.3), (2.0, 8.0));
        assert_eq!(scale(641.0), (200.0, 800.0));
    }
}
