//! Plots as SVG, drawn by hand: what a page needs and nothing else.
//!
//! They are inlined in the book as well as shown as images, in light and in dark. So text and lines take the
//! page's own colour (`--fg` in mdBook, else what `prefers-color-scheme` asks for), the hues stand out on
//! both, there is no blank line (it would end the inlining), and every id and class begins with the plot's name.

use std::fmt::Write;

/// From the border to whatever is drawn.
pub const MARGIN: f64 = 16.0;

/// About the width of a letter.
pub const LETTER: f64 = 7.2;

/// A colour that means something.
#[derive(Clone, Copy, Debug)]
pub struct Hue<'a> {
    /// What fills have it; lines have `CLASS-line`.
    pub class: &'a str,
    /// As CSS has it; one that stands out on white and on black.
    pub colour: &'a str,
    /// What it means; may be empty.
    pub name: &'a str,
}

/// Title, explanation, and what the plot is called in ids and classes.
pub struct Heading<'a> {
    /// Begins every id and class: `bench-memory`.
    pub id: &'a str,
    /// What is shown, with its unit.
    pub title: &'a str,
    /// How to read it.
    pub subtitle: &'a str,
}

/// The drawing itself: each method adds one line of text.
pub struct Svg {
    id: String,
    height: f64,
    text: String,
}

impl Svg {
    /// A drawing with its heading, and a legend from the right to the left.
    pub fn new(heading: &Heading<'_>, width: f64, height: f64, legend: &[Hue<'_>]) -> Self {
        let id = heading.id;
        let mut text = String::new();
        let _ = writeln!(
            text,
            r#"<svg id="{id}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="100%" style="max-width: {width}px" role="img" aria-labelledby="{id}-title {id}-about">"#
        );
        let _ = writeln!(
            text,
            r#"<title id="{id}-title">{}</title>"#,
            escape(heading.title)
        );
        let _ = writeln!(
            text,
            r#"<desc id="{id}-about">{}</desc>"#,
            escape(heading.subtitle)
        );
        text.push_str("<style>\n");
        for (selector, rules) in [
            ("", "color: var(--fg, #24292f); color-scheme: light dark"),
            (
                " text",
                "fill: currentColor; font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif",
            ),
            (" .head", "font-size: 16px; font-weight: 600"),
            (" .strong", "font-weight: 600"),
            (" .quiet", "fill-opacity: 0.7"),
            (" .foot", "fill-opacity: 0.7; font-size: 11px"),
        ] {
            let _ = writeln!(text, "#{id}{selector} {{ {rules} }}");
        }
        for Hue { class, colour, .. } in legend.iter().rev() {
            let _ = writeln!(text, "#{id} .{class} {{ fill: {colour} }}");
        }
        let _ = writeln!(text, "#{id} .faint {{ fill-opacity: 0.3 }}");
        for Hue { class, colour, .. } in legend.iter().rev() {
            let _ = writeln!(
                text,
                "#{id} .{class}-line {{ fill: none; stroke: {colour} }}"
            );
        }
        for (selector, rules) in [
            (" .thin", "stroke-width: 1.5"),
            (" .thick", "stroke-width: 3"),
            (" .axis", "stroke: currentColor; stroke-opacity: 0.6"),
            (" .grid", "stroke: currentColor; stroke-opacity: 0.18"),
            (
                " .spread",
                "stroke: currentColor; stroke-opacity: 0.8; stroke-width: 1.5",
            ),
        ] {
            let _ = writeln!(text, "#{id}{selector} {{ {rules} }}");
        }
        let _ = writeln!(
            text,
            "@media (prefers-color-scheme: dark) {{ #{id} {{ color: var(--fg, #e6edf3) }} }}"
        );
        text.push_str("</style>\n");
        let mut svg = Self {
            id: id.to_owned(),
            height,
            text,
        };
        svg.text(MARGIN, 26.0, "start", "head", heading.title);
        svg.text(MARGIN, 46.0, "start", "quiet", heading.subtitle);
        let mut right = width - MARGIN;
        // A hue that stands alone needs no name.
        for Hue { class, name, .. } in legend.iter().filter(|hue| !hue.name.is_empty()) {
            svg.text(right, 26.0, "end", "quiet", name);
            right -= name.len() as f64 * LETTER + 18.0;
            svg.rect(right, 15.5, 12.0, 12.0, class);
            right -= 14.0;
        }
        svg
    }

    /// A line of text; `anchor` is `start`, `middle` or `end`.
    pub fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let class = if class.is_empty() {
            String::new()
        } else {
            format!(r#" class="{class}""#)
        };
        let text = escape(text);
        let _ = writeln!(
            self.text,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{class}>{text}</text>"#
        );
    }

    /// A straight line.
    pub fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, class: &str) {
        let _ = writeln!(
            self.text,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    /// A bar.
    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        // Something was measured, so something is to be seen.
        let width = width.max(1.0);
        let _ = writeln!(
            self.text,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="1.5" class="{class}"/>"#
        );
    }

    /// A dot.
    pub fn circle(&mut self, x: f64, y: f64, radius: f64, class: &str) {
        let _ = writeln!(
            self.text,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" class="{class}"/>"#
        );
    }

    /// Anything else.
    pub fn path(&mut self, path: &str, class: &str) {
        let _ = writeln!(self.text, r#"<path d="{path}" class="{class}"/>"#);
    }

    /// The drawing as text, with these lines at its foot.
    pub fn finish(mut self, foot: &[String]) -> String {
        for (below, line) in (0..foot.len()).rev().zip(foot) {
            let y = self.height - 9.0 - 15.0 * below as f64;
            self.text(MARGIN, y, "start", "foot", line);
        }
        self.text.push_str("</svg>\n");
        debug_assert!(
            !self.text.contains("\n\n"),
            "{} would end where mdBook sees a blank line",
            self.id
        );
        self.text
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
