//! How many jobs wait, run and have ended, in the last line of a terminal.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::jobs::now;
use crate::submit::watch::Sink;

/// The least time between two drawings: more cannot be read, and each is a system call.
const PERIOD: Duration = Duration::from_millis(50);

/// Cells of the bar.
const BAR: usize = 40;

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Pending,
    Running,
    Complete,
    Failed,
}

impl Stage {
    const ALL: [(Stage, &'static str); 4] = [
        (Stage::Pending, "PD"),
        (Stage::Running, "R"),
        (Stage::Complete, "CD"),
        (Stage::Failed, "F"),
    ];

    /// That of a job that ended with an exit code.
    pub(crate) fn ended(code: u8) -> Stage {
        if code == 0 {
            Self::Complete
        } else {
            Self::Failed
        }
    }

    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

/// What the line says.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    of: [usize; 4],
    /// Jobs in all, also those that are still to be submitted.
    total: usize,
    /// Jobs count when they are submitted, not when they have ended.
    is_unwatched: bool,
}

impl Counts {
    fn done(&self) -> usize {
        match self.is_unwatched {
            true => self.of.iter().sum(),
            false => self.of[Stage::Complete as usize] + self.of[Stage::Failed as usize],
        }
    }

    /// The line, when this many seconds have gone; with jobs per second, or the time.
    fn line(&self, seconds: f64, is_rate: bool) -> String {
        let mut out = String::new();
        for (stage, name) in Stage::ALL {
            out += &format!("{name}:{:<5} ", self.of[stage as usize]);
        }
        let fraction = match self.total {
            0 => 1.,
            total => self.done() as f64 / total as f64,
        };
        let full = ((fraction * BAR as f64) as usize).min(BAR);
        out += &format!("|{}{}|", "#".repeat(full), " ".repeat(BAR - full));
        out += &format!(" {:5.1}% ", fraction * 100.);
        match is_rate {
            true => out += &format!("{:.1} job/s", self.done() as f64 / seconds.max(1e-3)),
            false => {
                let whole = seconds.max(0.) as u64;
                let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
                out += &format!("{hours}:{minutes:02}:{seconds:02}");
            }
        }
        out
    }
}

#[derive(Debug)]
struct Display {
    counts: Counts,
    is_rate: bool,
    /// Seconds since the epoch.
    start: f64,
    drawn: Option<Instant>,
    is_finished: bool,
}

/// The line on standard error, or nothing. Clones are of one line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Option<Rc<RefCell<Display>>>);

impl Progress {
    /// A line of `total` jobs; none, with a warning, where standard output is no terminal.
    pub(crate) fn new(command: &str, total: usize, is_rate: bool, is_unwatched: bool) -> Progress {
        if !std::io::stdout().is_terminal() {
            eprintln!("flux-{command}: stdout is not a terminal. Ignoring --progress");
            return Progress(None);
        }
        let display = Display {
            counts: Counts {
                total,
                is_unwatched,
                ..Counts::default()
            },
            is_rate,
            start: now(),
            drawn: None,
            is_finished: false,
        };
        Progress(Some(Rc::new(RefCell::new(display))))
    }

    /// Time and rate count from here, in seconds since the epoch.
    pub(crate) fn since(&self, start: f64) {
        if let Some(display) = &self.0 {
            display.borrow_mut().start = start;
        }
    }

    /// A job goes from one stage, or from nowhere, to another.
    pub(crate) fn moves(&self, from: Option<Stage>, to: Stage) {
        let Some(display) = &self.0 else { return };
        let mut display = display.borrow_mut();
        if let Some(from) = from {
            display.counts.of[from as usize] -= 1;
        }
        display.counts.of[to as usize] += 1;
        display.refresh();
    }

    /// Write bytes; those for the terminal go above the line.
    pub(crate) fn write(&self, sink: &Sink, bytes: &[u8]) {
        let display = match (&self.0, sink) {
            (None, _) | (_, Sink::File(_)) => return sink.write(bytes),
            (Some(display), _) => display,
        };
        let mut display = display.borrow_mut();
        if display.drawn.take().is_some() && !display.is_finished {
            eprint!("\r\x1b[K");
        }
        sink.write(bytes);
        if bytes.ends_with(b"\n") {
            display.refresh();
        }
    }
}

impl Display {
    fn refresh(&mut self) {
        let is_finished = self.counts.done() >= self.counts.total;
        let is_due = self.drawn.is_none_or(|at| at.elapsed() >= PERIOD);
        if self.is_finished || !(is_due || is_finished) {
            return;
        }
        let line = self.counts.line(now() - self.start, self.is_rate);
        let end = if is_finished { "\n" } else { "" };
        // Nothing can be said about a standard error that is closed.
        drop(std::io::stderr().write_all(format!("\r\x1b[K{line}{end}").as_bytes()));
        self.drawn = Some(Instant::now());
        self.is_finished = is_finished;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_what_ended() {
        let mut counts = Counts {
            of: [2, 1, 3, 2],
            total: 16,
            is_unwatched: false,
        };
        insta::assert_snapshot!(counts.line(3725.9, false), @"PD:2     R:1     CD:3     F:2     |############                            |  31.2% 1:02:05");
        counts.is_unwatched = true;
        insta::assert_snapshot!(counts.line(2., true), @"PD:2     R:1     CD:3     F:2     |####################                    |  50.0% 4.0 job/s");
        assert!(Counts::default().line(0., false).contains("100.0%"));
    }
}
