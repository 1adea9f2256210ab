//! The bench's charts: bars for what was measured of each server, lines for what it depends on.

use std::fmt::Write;

use plot::svg::{Heading, Hue, LETTER, MARGIN, Svg};

use crate::contender::Kind;
use crate::machine::Run;
use crate::number;

const WIDTH: f64 = 760.0;
const ROW: f64 = 22.0;

/// From right to left, as they stand in the legend.
const LEGEND: [Hue<'static>; 2] = [
    Hue {
        class: "peer",
        colour: "#c9741a",
        name: "peers",
    },
    Hue {
        class: "milestone",
        colour: "#2f81c7",
        name: "milestones",
    },
];

/// A bar of a bar chart.
pub struct Bar {
    /// What stands before it.
    pub label: String,
    /// Which hue it has.
    pub kind: Kind,
    /// Its length, with the smallest and largest sample.
    pub value: Option<(f64, f64, f64)>,
    /// A lighter bar behind it.
    pub behind: Option<f64>,
    /// What stands after it.
    pub text: String,
}

/// Bars that share an axis.
pub struct Panel {
    /// What is special about it.
    pub title: String,
    /// From top to bottom; the same labels in every panel of a plot.
    pub bars: Vec<Bar>,
}

/// A line of a line chart.
pub struct Line {
    /// What stands at its end.
    pub label: String,
    /// Which hue it has.
    pub kind: Kind,
    /// Drawn thicker than the others.
    pub strong: bool,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// Horizontal bars, in panels side by side with the labels at the left.
pub fn bars(heading: &Heading<'_>, panels: &[Panel], run: &Run) -> String {
    let rows = panels
        .iter()
        .map(|panel| panel.bars.len())
        .max()
        .unwrap_or(0);
    let titles = if panels.len() > 1 { 24.0 } else { 4.0 };
    let top = 62.0 + titles;
    let height = top + rows as f64 * ROW + 54.0;
    let mut svg = Svg::new(heading, WIDTH, height, &LEGEND);

    let letters = panels
        .iter()
        .flat_map(|panel| &panel.bars)
        .map(|bar| bar.label.chars().count())
        .max()
        .unwrap_or(0);
    let left = MARGIN + letters as f64 * LETTER + 10.0;
    let gap = 14.0;
    let width = (WIDTH - MARGIN - left + gap) / panels.len().max(1) as f64 - gap;
    for (number, panel) in panels.iter().enumerate() {
        let x = left + number as f64 * (width + gap);
        if panels.len() > 1 {
            svg.text(x, top - 12.0, "start", "strong", &panel.title);
        }
        let widest = panel
            .bars
            .iter()
            .map(|bar| bar.text.chars().count())
            .max()
            .unwrap_or(0);
        let room = (width - widest as f64 * LETTER - 8.0).max(20.0);
        let extent = |bar: &Bar| {
            bar.value
                .map_or(0.0, |(_, _, high)| high)
                .max(bar.behind.unwrap_or(0.0))
        };
        let largest = panel
            .bars
            .iter()
            .map(extent)
            .fold(f64::MIN_POSITIVE, f64::max);
        let scale = room / largest;
        svg.line(x, top - 2.0, x, top + panel.bars.len() as f64 * ROW, "axis");
        for (row, bar) in panel.bars.iter().enumerate() {
            let y = top + row as f64 * ROW;
            let middle = y + ROW / 2.0;
            if number == 0 {
                svg.text(x - 8.0, middle + 4.5, "end", "", &bar.label);
            }
            if let Some(behind) = bar.behind {
                svg.rect(
                    x,
                    y + 3.0,
                    behind * scale,
                    ROW - 7.0,
                    &format!("{} faint", hue(bar.kind)),
                );
            }
            let mut end = x + bar.behind.unwrap_or(0.0) * scale;
            if let Some((value, low, high)) = bar.value {
                svg.rect(x, y + 3.0, value * scale, ROW - 7.0, hue(bar.kind));
                end = end.max(x + value * scale);
                if high - low > 1e-9 {
                    svg.line(
                        x + low * scale,
                        middle - 0.5,
                        x + high * scale,
                        middle - 0.5,
                        "spread",
                    );
                    end = end.max(x + high * scale);
                }
            }
            let class = if bar.value.is_none() { "quiet" } else { "" };
            svg.text(end + 6.0, middle + 4.5, "start", class, &bar.text);
        }
    }
    svg.finish(&[run.machine_line(), run.command_line()])
}

/// Lines over a linear axis to the right and a logarithmic one upwards.
pub fn lines(
    heading: &Heading<'_>,
    (x_title, y_title): (&str, &str),
    lines: &[Line],
    run: &Run,
) -> String {
    let height = 430.0;
    let mut svg = Svg::new(heading, WIDTH, height, &LEGEND);
    let letters = lines
        .iter()
        .map(|line| line.label.chars().count())
        .max()
        .unwrap_or(0);
    let (left, right) = (
        MARGIN + 44.0,
        WIDTH - MARGIN - letters as f64 * LETTER - 14.0,
    );
    let (top, bottom) = (96.0, height - 92.0);

    let points = || lines.iter().flat_map(|line| &line.points);
    let most = points().map(|point| point.0).fold(1.0, f64::max);
    let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.1).fold(0.0, f64::max);
    let ticks = logarithmic_ticks(low, high);
    let (floor, ceiling) = match (ticks.first(), ticks.last()) {
        (Some(&first), Some(&last)) if last > first => (first.ln(), last.ln()),
        _ => (0.0, 1.0),
    };
    let to_x = |x: f64| left + x / most * (right - left);
    let to_y = |y: f64| bottom - (y.ln() - floor) / (ceiling - floor) * (bottom - top);

    svg.text(MARGIN, top - 18.0, "start", "quiet", y_title);
    for tick in ticks {
        svg.line(left, to_y(tick), right, to_y(tick), "grid");
        svg.text(
            left - 8.0,
            to_y(tick) + 4.5,
            "end",
            "quiet",
            &number::plain(tick),
        );
    }
    let mut measured: Vec<f64> = points().map(|point| point.0).collect();
    measured.sort_by(f64::total_cmp);
    measured.dedup();
    for x in measured {
        svg.line(to_x(x), bottom, to_x(x), bottom + 5.0, "axis");
        svg.text(
            to_x(x),
            bottom + 20.0,
            "middle",
            "quiet",
            &number::thousands(x),
        );
    }
    svg.line(left, bottom, right, bottom, "axis");
    svg.text(
        (left + right) / 2.0,
        bottom + 40.0,
        "middle",
        "quiet",
        x_title,
    );

    for line in lines {
        let mut path = String::new();
        for (index, &(x, y)) in line.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", to_x(x), to_y(y));
        }
        let weight = if line.strong { "thick" } else { "thin" };
        svg.path(&path, &format!("{}-line {weight}", hue(line.kind)));
        for &(x, y) in &line.points {
            svg.circle(
                to_x(x),
                to_y(y),
                if line.strong { 3.0 } else { 2.2 },
                hue(line.kind),
            );
        }
    }
    // Labels of lines that end close to each other move apart, in their order, around where they belong.
    let end_of = |line: &Line| {
        line.points
            .last()
            .map_or((0.0, bottom), |&(x, y)| (to_x(x), to_y(y)))
    };
    let mut ends: Vec<((f64, f64), &Line)> =
        lines.iter().map(|line| (end_of(line), line)).collect();
    ends.sort_by(|one, other| one.0.1.total_cmp(&other.0.1));
    let (full, short): (Vec<_>, Vec<_>) =
        ends.into_iter().partition(|((x, _), _)| *x > right - 1.0);
    let wanted: Vec<f64> = full.iter().map(|((_, y), _)| *y).collect();
    let class = |line: &Line| if line.strong { "strong" } else { "" };
    for (y, ((_, end), line)) in spread_out(&wanted, 15.0, bottom).into_iter().zip(full) {
        svg.line(right + 1.0, end, right + 9.0, y, "grid");
        svg.text(right + 12.0, y + 4.5, "start", class(line), &line.label);
    }
    // A line that could not be drawn to the end is labelled where it stops.
    for ((x, y), line) in short {
        svg.text(x + 7.0, y - 4.0, "start", class(line), &line.label);
    }
    svg.finish(&[run.machine_line(), run.command_line()])
}

fn hue(kind: Kind) -> &'static str {
    match kind {
        Kind::Milestone => "milestone",
        Kind::Peer => "peer",
    }
}

/// Round numbers from just below `low` to just above `high`, as close together as there is room for their labels.
fn logarithmic_ticks(low: f64, high: f64) -> Vec<f64> {
    const MOST: usize = 10;
    let fine = ticks(&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0], low, high);
    if fine.len() <= MOST {
        fine
    } else {
        ticks(&[1.0, 2.0, 5.0], low, high)
    }
}

fn ticks(digits: &[f64], low: f64, high: f64) -> Vec<f64> {
    let all: Vec<f64> = (-3..9)
        .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
        .collect();
    let first = all.iter().rposition(|&tick| tick <= low).unwrap_or(0);
    let last = all
        .iter()
        .position(|&tick| tick >= high)
        .unwrap_or(all.len() - 1);
    all.get(first..=last).unwrap_or_default().to_vec()
}

/// Moves sorted positions apart until neighbours are at least `gap` apart and none is below `bottom`.
fn spread_out(wanted: &[f64], gap: f64, bottom: f64) -> Vec<f64> {
    // Groups that touch merge, each centred on the mean of what its members wanted.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    let begin = |&(centre, members): &(f64, usize)| {
        let half = (members - 1) as f64 * gap / 2.0;
        centre.min(bottom - half) - half
    };
    for &y in wanted {
        groups.push((y, 1));
        while let [.., before, last] = groups[..] {
            if begin(&before) + before.1 as f64 * gap <= begin(&last) {
                break;
            }
            groups.pop();
            groups.pop();
            let members = before.1 + last.1;
            groups.push((
                (before.0 * before.1 as f64 + last.0 * last.1 as f64) / members as f64,
                members,
            ));
        }
    }
    let place = |group: &(f64, usize)| {
        let first = begin(group);
        (0..group.1).map(move |member| first + member as f64 * gap)
    };
    groups.iter().flat_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::{logarithmic_ticks, spread_out};

    #[test]
    fn ticks_enclose_the_values() {
        assert_eq!(
            logarithmic_ticks(4.8, 13.0),
            [4.0, 5.0, 6.0, 8.0, 10.0, 15.0]
        );
        assert_eq!(
            logarithmic_ticks(4.8, 310.0),
            [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
        );
        assert_eq!(logarithmic_ticks(5.0, 5.0), [5.0]);
    }

    #[test]
    fn labels_move_apart_and_stay_in_order() {
        assert_eq!(spread_out(&[10.0, 50.0], 15.0, 100.0), [10.0, 50.0]);
        assert_eq!(
            spread_out(&[50.0, 50.0, 50.0], 15.0, 100.0),
            [35.0, 50.0, 65.0]
        );
        assert_eq!(spread_out(&[98.0, 99.0], 10.0, 100.0), [90.0, 100.0]);
    }
}
