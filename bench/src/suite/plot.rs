//! Line plots as SVG, readable on light and on dark pages: colours follow the reader's
//! setting, and each line has its name at its end, so that colour is not needed.

use std::fmt::Write;

/// The picture's size, and the room around the plot.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 56.0;

/// The least distance between the names at the lines' ends.
const NAME_HEIGHT: f64 = 16.0;

/// Colours for light and dark pages, in the order of lines.
const COLOURS: [(&str, &str); 8] = [
    ("#1f5fbf", "#6ea8fe"),
    ("#c2410c", "#fb923c"),
    ("#15803d", "#4ade80"),
    ("#7e22ce", "#c084fc"),
    ("#0e7490", "#22d3ee"),
    ("#be123c", "#fb7185"),
    ("#854d0e", "#facc15"),
    ("#475569", "#94a3b8"),
];

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors.
    Log,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: &'static str,
    /// How.
    pub scale: Scale,
    /// Marked values and what stands beside them; the first and last are its ends.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to above `most` in round steps.
    pub fn from_zero(label: &'static str, most: f64) -> Self {
        let raw = (most / 5.0).max(1e-9);
        let magnitude = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|factor| factor * magnitude)
            .into_iter()
            .find(|step| *step >= raw)
            .unwrap_or(raw);
        let count = (most / step).ceil().max(1.0) as usize;
        let ticks = (0..=count).map(|n| (n as f64 * step, number(n as f64 * step)));
        Self {
            label,
            scale: Scale::Linear,
            ticks: ticks.collect(),
        }
    }

    /// Powers of ten around `least` and `most`.
    pub fn decades(label: &'static str, least: f64, most: f64) -> Self {
        let from = least.max(1e-9).log10().floor() as i32;
        let to = (most.max(1e-9).log10().ceil() as i32).max(from + 1);
        let ticks = (from..=to).map(|power| (10f64.powi(power), number(10f64.powi(power))));
        Self {
            label,
            scale: Scale::Log,
            ticks: ticks.collect(),
        }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let of = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-12).ln(),
        };
        let (first, last) = match self.ticks.as_slice() {
            [first, .., last] => (of(first.0), of(last.0)),
            _ => (0.0, 1.0),
        };
        ((of(value) - first) / (last - first)).clamp(0.0, 1.0)
    }
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    /// Along.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// Lines; those without points are left out.
    pub lines: Vec<Line>,
}

impl Plot {
    /// The picture.
    pub fn svg(&self) -> String {
        let mut out = String::new();
        self.head(&mut out);
        self.axes(&mut out);
        let lines: Vec<&Line> = self.lines.iter().filter(|l| !l.points.is_empty()).collect();
        for (number, line) in lines.iter().enumerate() {
            self.line(&mut out, number, line);
        }
        self.names(&mut out, &lines);
        out.push_str("</svg>\n");
        out
    }

    fn head(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\">\n\
             <title>{}</title>\n<style>\n\
             .text {{ fill: #1f2328; }} .soft {{ fill: #59636e; }}\n\
             .grid {{ stroke: #d1d9e0; stroke-width: 1; }} .line {{ fill: none; stroke-width: 2; }}",
            escaped(self.title)
        );
        for (number, (light, _)) in COLOURS.iter().enumerate() {
            let _ = writeln!(
                out,
                ".s{number} {{ stroke: {light}; }} .f{number} {{ fill: {light}; }}"
            );
        }
        out.push_str("@media (prefers-color-scheme: dark) {\n.text { fill: #f0f6fc; } .soft { fill: #9198a1; } .grid { stroke: #3d444d; }\n");
        for (number, (_, dark)) in COLOURS.iter().enumerate() {
            let _ = writeln!(
                out,
                ".s{number} {{ stroke: {dark}; }} .f{number} {{ fill: {dark}; }}"
            );
        }
        let _ = writeln!(
            out,
            "}}\n</style>\n<text class=\"text\" x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"600\">{}</text>",
            escaped(self.title)
        );
    }

    fn axes(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, text) in &self.y.ticks {
            let y = self.y_of(*value);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escaped(text)
            );
        }
        for (value, text) in &self.x.ticks {
            let x = self.x_of(*value);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{bottom}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 5.0,
                bottom + 19.0,
                escaped(text)
            );
        }
        let (x, y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        let _ = writeln!(
            out,
            "<text class=\"text\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text class=\"text\" transform=\"translate(18 {y:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 14.0,
            escaped(self.x.label),
            escaped(self.y.label)
        );
    }

    fn line(&self, out: &mut String, number: usize, line: &Line) {
        let colour = number % COLOURS.len();
        let mut path = String::new();
        for (x, y) in &line.points {
            let _ = write!(path, "{:.1},{:.1} ", self.x_of(*x), self.y_of(*y));
        }
        let _ = writeln!(
            out,
            "<polyline class=\"line s{colour}\" points=\"{}\"/>",
            path.trim_end()
        );
        for (x, y) in &line.points {
            let _ = writeln!(
                out,
                "<circle class=\"f{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                self.x_of(*x),
                self.y_of(*y)
            );
        }
    }

    /// Names at the lines' ends, moved apart where they would lie upon each other.
    fn names(&self, out: &mut String, lines: &[&Line]) {
        let mut ends: Vec<(f64, usize)> = lines
            .iter()
            .enumerate()
            .filter_map(|(number, line)| Some((self.y_of(line.points.last()?.1), number)))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let bottom = HEIGHT - BOTTOM + 4.0;
        for at in 1..ends.len() {
            ends[at].0 = ends[at].0.max(ends[at - 1].0 + NAME_HEIGHT);
        }
        let over = ends.last().map_or(0.0, |end| (end.0 - bottom).max(0.0));
        for (y, number) in ends {
            let _ = writeln!(
                out,
                "<text class=\"f{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                number % COLOURS.len(),
                WIDTH - RIGHT + 10.0,
                y - over + 4.0,
                escaped(&lines[number].name)
            );
        }
    }

    fn x_of(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - RIGHT - LEFT)
    }

    fn y_of(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - BOTTOM - TOP)
    }
}

/// A tick's number: short, with k and M.
pub fn number(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_over_the_most() {
        let rows = [(1.7, "0.5", 4), (970.0, "200", 5), (0.0, "0", 1)];
        for (most, second, last) in rows {
            let axis = Axis::from_zero("", most);
            if most > 0.0 {
                assert_eq!(axis.ticks[1].1, second, "{most}");
            }
            assert_eq!(axis.ticks.len() - 1, last, "{most}");
            assert!(axis.ticks.last().unwrap().0 >= most);
        }
        let axis = Axis::decades("", 2.0, 1234.0);
        let names: Vec<&str> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(names, ["1", "10", "100", "1k", "10k"]);
    }

    #[test]
    fn places_follow_the_scale() {
        let linear = Axis::from_zero("", 10.0);
        let log = Axis::decades("", 1.0, 100.0);
        assert!((linear.place(5.0) - 0.5).abs() < 1e-9);
        assert!((log.place(10.0) - 0.5).abs() < 1e-9);
        assert_eq!(log.place(1e9), 1.0, "what is beyond stays at the edge");
    }

    #[test]
    fn a_plot_names_its_lines_and_units_and_follows_dark_pages() {
        let plot = Plot {
            title: "a < b",
            x: Axis::decades("connections", 1.0, 100.0),
            y: Axis::from_zero("ns a packet", 100.0),
            lines: vec![
                Line {
                    name: "one & two".to_owned(),
                    points: vec![(1.0, 10.0), (100.0, 50.0)],
                },
                Line {
                    name: "beside it".to_owned(),
                    points: vec![(1.0, 10.0), (100.0, 50.0)],
                },
                Line {
                    name: "unmeasured".to_owned(),
                    points: Vec::new(),
                },
            ],
        };
        let svg = plot.svg();
        for part in [
            "a &lt; b",
            "one &amp; two",
            "ns a packet",
            "connections",
            "prefers-color-scheme",
        ] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(!svg.contains("unmeasured"));
        assert_eq!(svg.matches("<polyline").count(), 2);
        let heights: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("beside it") || line.contains("one &amp;"))
            .collect();
        assert_eq!(heights.len(), 2);
        assert_ne!(
            heights[0].split("y=").nth(1).unwrap().split('"').nth(1),
            heights[1].split("y=").nth(1).unwrap().split('"').nth(1),
            "names do not lie upon each other"
        );
    }
}
