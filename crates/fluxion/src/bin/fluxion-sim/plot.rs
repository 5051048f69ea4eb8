//! Plots as SVG: use over time, and how waits are spread.

use crate::Run;
use std::fmt::Write;

const WIDTH: f64 = 860.;
const HEIGHT: f64 = 260.;
const LEFT: f64 = 60.;
const TOP: f64 = 50.;
/// From the top of one plot to that of the next.
const STRIDE: f64 = HEIGHT + 80.;
/// Over how many parts of the time use is averaged.
const PARTS: usize = 240;
/// Colours that people who see few of them can tell apart.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// Moments at which waits are marked.
const WAITS: [(f64, &str); 8] = [
    (0., "0"),
    (10., "10 s"),
    (60., "1 min"),
    (600., "10 min"),
    (3600., "1 h"),
    (36_000., "10 h"),
    (86_400., "1 d"),
    (604_800., "7 d"),
];

/// A place in a plot, both from 0 to 1.
type Point = (f64, f64);

struct Plot {
    out: String,
    top: f64,
}

impl Plot {
    fn place(&self, (x, y): Point) -> Point {
        (LEFT + x * WIDTH, self.top + (1. - y) * HEIGHT)
    }

    fn text(&mut self, (x, y): Point, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(format_args!(
            "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}'>{text}</text>\n"
        ));
    }

    fn add(&mut self, what: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(what);
    }

    fn line(&mut self, points: &[Point], colour: &str, width: f64) {
        let mut path = String::new();
        for point in points {
            let (x, y) = self.place(*point);
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        self.add(format_args!(
            "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='{width}'/>\n",
            path.trim_end()
        ));
    }

    fn frame(&mut self, title: &str, across: &[(f64, String)]) {
        let (x, y) = self.place((0., 1.));
        self.text((x, y - 10.), "start", title);
        for percent in [0, 25, 50, 75, 100] {
            let height = f64::from(percent) / 100.;
            self.line(&[(0., height), (1., height)], "#ddd", 1.);
            let (x, y) = self.place((0., height));
            self.text((x - 6., y + 4.), "end", &format!("{percent} %"));
        }
        for (at, label) in across {
            self.line(&[(*at, 0.), (*at, 1.)], "#eee", 1.);
            let (x, y) = self.place((*at, 0.));
            self.text((x, y + 16.), "middle", label);
        }
    }
}

/// The mean of a step function over equal parts of a time, as shares of the whole.
fn averages(usage: &[(i64, i64)], from: i64, to: i64, capacity: i64) -> Vec<f64> {
    let part = (to - from).max(1) as f64 / PARTS as f64;
    let mut sums = vec![0.; PARTS];
    let ends = usage.iter().skip(1).map(|u| u.0).chain([to]);
    for ((start, level), end) in usage.iter().zip(ends) {
        let (mut at, end) = ((start - from) as f64 / part, (end - from) as f64 / part);
        while at < end {
            let bin = (at as usize).min(PARTS - 1);
            let next = if bin == PARTS - 1 {
                end
            } else {
                end.min(bin as f64 + 1.)
            };
            sums[bin] += (next - at) * *level as f64;
            at = next;
        }
    }
    let capacity = capacity.max(1) as f64;
    sums.into_iter().map(|s| s / capacity).collect()
}

/// Days, so few that their labels have room.
fn days(length: i64) -> Vec<(f64, String)> {
    let days = (length as f64 / 86_400.).max(1e-6);
    let steps = [0.01, 0.05, 0.25, 1., 2., 5., 10., 30., 100., 365.];
    let step = steps.into_iter().find(|s| days / s <= 12.);
    let step = step.unwrap_or(days / 10.);
    let marks = (0..).map(|i| f64::from(i) * step);
    let marks = marks.take_while(|day| *day <= days);
    marks
        .map(|day| (day / days, format!("{} d", (day * 100.).round() / 100.)))
        .collect()
}

fn usage(plot: &mut Plot, runs: &[Run]) {
    let starts = runs.iter().filter_map(|r| r.usage.first());
    let ends = runs.iter().filter_map(|r| r.usage.last());
    let from = starts.map(|u| u.0).min().unwrap_or(0);
    let to = ends.map(|u| u.0).max().unwrap_or(0);
    plot.frame("Share of the machine in use", &days(to - from));
    for (run, colour) in runs.iter().zip(COLOURS.iter().cycle()) {
        let shares = averages(&run.usage, from, to, run.capacity);
        let at = |(i, share): (usize, f64)| ((i as f64 + 0.5) / PARTS as f64, share);
        let points: Vec<Point> = shares.into_iter().enumerate().map(at).collect();
        plot.line(&points, colour, 1.5);
    }
}

fn waits(plot: &mut Plot, runs: &[Run]) {
    let longest = runs.iter().flat_map(Run::waits).max().unwrap_or(0);
    let scale = |wait: f64| (1. + wait).ln() / (2. + longest as f64).ln();
    let marks = WAITS.into_iter().filter(|w| w.0 <= longest as f64);
    let marks: Vec<_> = marks
        .map(|(at, label)| (scale(at), label.to_owned()))
        .collect();
    plot.frame("Share of the jobs that waited no longer than", &marks);
    for (run, colour) in runs.iter().zip(COLOURS.iter().cycle()) {
        let mut sorted: Vec<i64> = run.waits().collect();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else {
            continue;
        };
        let mut points = vec![(0., 0.)];
        for i in 0..=2 * PARTS {
            let at = last * i / (2 * PARTS);
            let share = (at + 1) as f64 / (last + 1) as f64;
            points.push((scale(sorted[at] as f64), share));
        }
        plot.line(&points, colour, 1.5);
    }
}

/// Draws what came of policies, in one picture.
pub(crate) fn svg(runs: &[Run]) -> String {
    let (width, height) = (WIDTH + LEFT + 30., TOP + 2. * STRIDE);
    let mut plot = Plot {
        out: format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' \
             font-family='sans-serif' font-size='12' fill='#333'>\n\
             <rect width='{width}' height='{height}' fill='white'/>\n"
        ),
        top: TOP + 20.,
    };
    let mut x = LEFT;
    for (run, colour) in runs.iter().zip(COLOURS.iter().cycle()) {
        plot.add(format_args!(
            "<rect x='{x}' y='16' width='14' height='4' fill='{colour}'/>\n"
        ));
        plot.text((x + 20., 22.), "start", run.name);
        x += 50. + 7. * run.name.chars().count() as f64;
    }
    usage(&mut plot, runs);
    plot.top += STRIDE;
    waits(&mut plot, runs);
    plot.out + "</svg>\n"
}
