//! What is on the screen: from the state of an instance to lines of a given width and height, without I/O.
//!
//! Above is the summary (path of job ids, bars of resources, counts of jobs, the instance), below the list of jobs.
//! No text that others chose gets a control character to the terminal, and no line is longer than the screen is wide.

use formats::JobId;

use crate::format::cut;
use crate::jobs::Stats;

/// Used, down and all of one kind of resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) used: usize,
    pub(super) down: usize,
    pub(super) all: usize,
}

/// A job in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: JobId,
    pub(super) text: String,
    /// Where the instance it runs is, if this user may enter it.
    pub(super) uri: Option<String>,
}

/// What an instance has said of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Snapshot {
    pub(super) nodes: Amount,
    pub(super) cores: Amount,
    pub(super) gpus: Amount,
    pub(super) stats: Stats,
    /// Seconds left; `None` is no end that is known.
    pub(super) remaining: Option<f64>,
    pub(super) uptime: f64,
    pub(super) heading: String,
    pub(super) rows: Vec<Row>,
}

/// What does not change as long as an instance runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) size: u32,
    pub(super) level: u32,
    pub(super) version: String,
    /// Whether this user is the instance's owner.
    pub(super) is_owner: bool,
}

/// All there is to see.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    pub(super) path: Vec<String>,
    pub(super) identity: Identity,
    pub(super) snapshot: Snapshot,
    /// The queue that is shown; `None` is all.
    pub(super) queue: Option<String>,
    pub(super) cursor: Option<JobId>,
    /// Inactive jobs by outcome.
    pub(super) has_details: bool,
    /// A heartbeat was heard since the last look.
    pub(super) beats: bool,
    /// Why the last look at the instance failed.
    pub(super) trouble: Option<String>,
    /// What went wrong, until a key is pressed.
    pub(super) notice: Option<String>,
}

impl View {
    fn selected(&self) -> Option<usize> {
        let rows = &self.snapshot.rows;
        rows.iter().position(|row| Some(row.id) == self.cursor)
    }

    /// The job under the cursor.
    pub(super) fn job(&self) -> Option<&Row> {
        Some(&self.snapshot.rows[self.selected()?])
    }

    /// The cursor goes to the next job, and from the last to the first.
    pub(super) fn down(&mut self) {
        let count = self.snapshot.rows.len();
        let next = self.selected().map_or(0, |at| (at + 1) % count);
        self.cursor = self.snapshot.rows.get(next).map(|row| row.id);
    }

    /// The cursor goes to the job before, and from the first to the last.
    pub(super) fn up(&mut self) {
        let last = self.snapshot.rows.len().saturating_sub(1);
        let next = match self.selected() {
            None | Some(0) => last,
            Some(at) => at - 1,
        };
        self.cursor = self.snapshot.rows.get(next).map(|row| row.id);
    }
}

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Reverse,
    Used,
    Down,
    Instance,
    Alive,
}

impl Style {
    /// The terminal's sequence for it. Without color, what is not bold or reversed is plain.
    fn sequence(self, color: bool) -> &'static str {
        match (self, color) {
            (Style::Bold, _) => "\x1b[1m",
            (Style::Reverse, _) => "\x1b[7m",
            (Style::Used, true) => "\x1b[33m",
            (Style::Down, true) => "\x1b[31m",
            (Style::Instance, true) => "\x1b[1;34m",
            (Style::Alive, true) => "\x1b[1;31m",
            _ => "",
        }
    }
}

/// A line of the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    fn push(&mut self, style: Style, text: impl Into<String>) {
        self.0.push((style, text.into()));
    }

    fn of(style: Style, text: impl Into<String>) -> Line {
        Line(vec![(style, text.into())])
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Blanks up to a column.
    fn pad(&mut self, column: usize) {
        let missing = column.saturating_sub(self.width());
        self.push(Style::Plain, " ".repeat(missing));
    }

    fn cut(mut self, width: usize) -> Line {
        let mut left = width;
        for (_, text) in &mut self.0 {
            *text = text.chars().take(left).collect();
            left -= text.chars().count();
        }
        self
    }

    fn plain(&self) -> String {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }
}

/// The lines as text.
pub(super) fn plain(lines: &[Line]) -> String {
    lines.iter().map(|line| line.plain() + "\n").collect()
}

/// The lines as what a terminal is sent to show them, and nothing else.
pub(super) fn drawn(lines: &[Line], color: bool) -> String {
    let mut out = String::from("\x1b[H");
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push_str("\r\n");
        }
        for (style, text) in &line.0 {
            match style.sequence(color) {
                "" => out.push_str(text),
                sequence => out.push_str(&format!("{sequence}{text}\x1b[0m")),
            }
        }
        out.push_str("\x1b[K");
    }
    out.push_str("\x1b[J");
    out
}

/// Text without control characters.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

/// Seconds in a unit that suits them.
fn duration(seconds: f64) -> String {
    crate::cmd::uptime::short_duration(seconds.max(0.))
}

/// Where bars begin, and the counts of jobs.
const BAR: usize = 19;
const COUNTS: usize = 24;

/// A bar: what is used from the left, what is down from the right.
fn bar(name: &str, amount: Amount, width: usize) -> Line {
    let mut line = Line::of(
        Style::Plain,
        format!("{name:>5} {}/{}", amount.used, amount.all),
    );
    line.pad(BAR);
    let inner = width.saturating_sub(BAR + COUNTS + 3);
    if inner == 0 {
        return line;
    }
    // A share that is there is seen; no two shares are longer than the bar.
    let share = |n: usize| match (n, amount.all) {
        (0, _) | (_, 0) => 0,
        (n, all) => (n.min(all) * inner).div_ceil(all),
    };
    let used = share(amount.used);
    let down = share(amount.down).min(inner - used);
    line.push(Style::Plain, "[");
    line.push(Style::Used, "|".repeat(used));
    line.push(Style::Plain, " ".repeat(inner - used - down));
    line.push(Style::Down, "|".repeat(down));
    line.push(Style::Plain, "]");
    line
}

fn counts(view: &View) -> [String; 4] {
    let stats = &view.snapshot.stats;
    let line = |n: i64, what: &str| format!("{n:>6} {what}");
    let (third, fourth) = match view.has_details && view.identity.is_owner {
        true => (
            line(stats.successful, "complete"),
            line(stats.failed, "failed"),
        ),
        false => (
            line(stats.successful + stats.failed, "inactive"),
            String::new(),
        ),
    };
    let pending = line(stats.pending, "pending");
    [pending, line(stats.running, "running"), third, fourth]
}

fn title(view: &View, width: usize) -> Line {
    let mut path = view.path.join("/");
    // Otherwise the lines of jobs say it.
    if let Some(queue) = view
        .queue
        .as_ref()
        .filter(|_| view.snapshot.rows.is_empty())
    {
        path = format!("{path} queue {}", printable(queue));
    }
    let left = view.snapshot.remaining.map(duration);
    let left = left.unwrap_or_else(|| "∞".to_owned());
    let room = width.saturating_sub(left.chars().count() + 1);
    let mut line = Line::of(Style::Bold, cut(path.trim_start().to_owned(), Some(room)));
    line.pad(room);
    line.push(Style::Plain, left);
    line
}

fn about(view: &View) -> Line {
    let identity = &view.identity;
    let mut text = format!(" size {}", identity.size);
    if identity.level > 0 {
        text += &format!("  depth {}", identity.level);
    }
    let uptime = duration(view.snapshot.uptime);
    text += &format!("  uptime {uptime}  {}  ", printable(&identity.version));
    let mut line = Line::of(Style::Plain, text);
    line.push(Style::Alive, if view.beats { "♥" } else { " " });
    line
}

/// The lines of a screen, `height` at most.
pub(super) fn draw(view: &View, (height, width): (usize, usize)) -> Vec<Line> {
    let snapshot = &view.snapshot;
    let mut lines = vec![
        title(view, width),
        bar("nodes", snapshot.nodes, width),
        bar("cores", snapshot.cores, width),
        bar("gpus", snapshot.gpus, width),
        about(view),
    ];
    for (line, text) in lines[1..].iter_mut().zip(counts(view)) {
        line.pad(width.saturating_sub(COUNTS));
        line.push(Style::Plain, text);
    }
    let trouble = view.trouble.as_deref().map(printable);
    lines.push(Line::of(Style::Down, trouble.unwrap_or_default()));
    match &view.notice {
        Some(notice) => {
            lines.push(Line::of(Style::Reverse, printable(notice)));
            lines.push(Line::of(Style::Plain, "(press any key)"));
        }
        None => jobs(view, height, width, &mut lines),
    }
    lines.truncate(height);
    lines.into_iter().map(|line| line.cut(width)).collect()
}

fn jobs(view: &View, height: usize, width: usize, lines: &mut Vec<Line>) {
    let mut heading = Line::of(Style::Reverse, view.snapshot.heading.clone());
    let missing = width.saturating_sub(heading.width());
    heading.push(Style::Reverse, " ".repeat(missing));
    lines.push(heading);
    let room = height.saturating_sub(lines.len());
    // The cursor is always in sight.
    let skipped = view
        .selected()
        .map_or(0, |at| (at + 1).saturating_sub(room));
    for row in view.snapshot.rows.iter().skip(skipped).take(room) {
        let style = match (Some(row.id) == view.cursor, &row.uri) {
            (true, _) => Style::Reverse,
            (false, Some(_)) => Style::Instance,
            (false, None) => Style::Plain,
        };
        lines.push(Line::of(style, cut(printable(&row.text), Some(width))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, text: &str, uri: Option<&str>) -> Row {
        Row {
            id: JobId(id),
            text: text.to_owned(),
            uri: uri.map(str::to_owned),
        }
    }

    fn view() -> View {
        let amount = |used, down, all| Amount { used, down, all };
        View {
            path: vec!["ƒABC".to_owned()],
            identity: Identity {
                size: 4,
                level: 1,
                version: "0.1.0".to_owned(),
                is_owner: true,
            },
            snapshot: Snapshot {
                nodes: amount(1, 1, 4),
                cores: amount(5, 8, 32),
                gpus: amount(0, 0, 0),
                stats: Stats {
                    pending: 3,
                    running: 2,
                    successful: 10,
                    failed: 1,
                    ..Stats::default()
                },
                remaining: Some(1790.),
                uptime: 72.,
                heading: "JOBID NAME".to_owned(),
                rows: vec![
                    row(3, "ƒ3 sleep", None),
                    row(2, "ƒ2 flux\x1b[2J", Some("u")),
                ],
            },
            has_details: true,
            beats: true,
            ..View::default()
        }
    }

    #[test]
    fn summary_and_jobs() {
        insta::assert_snapshot!(plain(&draw(&view(), (10, 70))), @r"
        ƒABC                                                              30m
        nodes 1/4          [||||||            ||||||]      3 pending
        cores 5/32         [||||              ||||||]      2 running
         gpus 0/0          [                        ]     10 complete
         size 4  depth 1  uptime 1.2m  0.1.0  ♥            1 failed

        JOBID NAME
        ƒ3 sleep
        ƒ2 flux?[2J
        ");
    }

    #[test]
    fn other_users_see_no_outcomes() {
        let mut view = view();
        view.identity.is_owner = false;
        view.path.clear();
        view.queue = Some("debug".to_owned());
        view.snapshot.remaining = None;
        view.snapshot.rows.clear();
        insta::assert_snapshot!(plain(&draw(&view, (6, 60))), @r"
        queue debug                                               ∞
        nodes 1/4          [||||      ||||]      3 pending
        cores 5/32         [|||       ||||]      2 running
         gpus 0/0          [              ]     11 inactive
         size 4  depth 1  uptime 1.2m  0.1.0  ♥
        ");
    }

    #[test]
    fn a_notice_stands_for_the_jobs() {
        let mut view = view();
        view.notice = Some("cannot\nconnect".to_owned());
        let text = plain(&draw(&view, (24, 80)));
        assert!(text.contains("cannot?connect"));
        assert!(!text.contains("sleep"));
    }

    #[test]
    fn the_cursor_goes_round() {
        let mut view = view();
        let mut seen = Vec::new();
        for step in [View::down, View::down, View::down, View::up, View::up] {
            step(&mut view);
            seen.push(view.job().unwrap().id);
        }
        assert_eq!(seen, [3, 2, 3, 2, 3].map(JobId));
        view.snapshot.rows.clear();
        view.down();
        view.up();
        assert_eq!(view.job(), None);
    }

    #[test]
    fn the_cursor_is_in_sight() {
        let mut view = view();
        view.snapshot.rows = (0..50).map(|n| row(n, &format!("job {n}"), None)).collect();
        view.cursor = Some(JobId(40));
        let lines = draw(&view, (12, 40));
        assert_eq!(lines.len(), 12);
        assert_eq!(lines[11].plain(), "job 40");
    }

    #[test]
    fn styles_are_sequences() {
        let mut view = view();
        view.cursor = Some(JobId(3));
        let lines = draw(&view, (9, 80));
        let colored = drawn(&lines, true);
        assert!(colored.contains("\x1b[7mƒ3 sleep\x1b[0m"));
        assert!(colored.contains("\x1b[1;34mƒ2 flux?[2J\x1b[0m"));
        assert!(colored.contains("\x1b[33m|"));
        assert!(!drawn(&lines, false).contains("\x1b[33m"));
    }

    #[test]
    fn any_size_is_kept() {
        for (height, width) in [(1, 1), (3, 10), (7, 47), (24, 48), (100, 300)] {
            let lines = draw(&view(), (height, width));
            assert!(lines.len() <= height);
            assert!(lines.iter().all(|line| line.width() <= width));
        }
    }
}
