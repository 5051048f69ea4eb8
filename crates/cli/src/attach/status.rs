//! The line that tells a waiting user what the job waits for.

use std::io::IsTerminal as _;
use std::time::Duration;

use formats::Event;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::Options;

/// Shown on a terminal from two seconds after attaching until the job starts.
pub(super) struct StatusLine {
    name: String,
    ticks: Option<Interval>,
    shown: bool,
    text: &'static str,
    prologs: u32,
    since: std::time::Instant,
}

impl StatusLine {
    pub(super) fn new(name: &str, options: &Options) -> Self {
        let terminal = std::io::stdin().is_terminal()
            && std::io::stdout().is_terminal()
            && std::io::stderr().is_terminal();
        let wanted = options.show_status || (terminal && !options.show_events);
        let silent = std::env::var_os("FLUX_ATTACH_NONINTERACTIVE").is_some();
        let delay = if options.show_status { 0 } else { 2 };
        let ticks = (wanted && !silent).then(|| {
            let start = Instant::now() + Duration::from_secs(delay);
            let mut ticks = interval_at(start, Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            name: name.to_owned(),
            ticks,
            shown: false,
            text: "",
            prologs: 0,
            since: std::time::Instant::now(),
        }
    }

    /// Redraw once a second; never ends while nothing is to be drawn.
    pub(super) async fn tick(&mut self) {
        match &mut self.ticks {
            None => std::future::pending().await,
            Some(ticks) => {
                ticks.tick().await;
                self.shown = true;
                self.draw();
            }
        }
    }

    fn draw(&self) {
        if self.shown {
            let line = self.line(self.since.elapsed().as_secs());
            eprint!("\r\x1b[K{line}\r");
        }
    }

    fn line(&self, seconds: u64) -> String {
        format!(
            "flux-job: {} {:<40} {:02}:{:02}:{:02}",
            self.name,
            self.text,
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    }

    /// Make room for another line.
    pub(super) fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event.name.as_str() {
            "submit" => self.text = "submitted",
            "validate" => self.text = "resolving dependencies",
            "depend" => self.text = "waiting for priority assignment",
            "priority" => self.text = "waiting for resources",
            "alloc" => self.text = "starting",
            "prolog-start" => {
                self.prologs += 1;
                self.text = "waiting for prolog";
            }
            "prolog-finish" => {
                self.prologs = self.prologs.saturating_sub(1);
                if self.prologs == 0 {
                    self.text = "starting";
                }
            }
            "exception" => {
                let severity = event.get("severity").and_then(serde_json::Value::as_i64);
                if severity == Some(0) {
                    self.text = "canceling due to exception";
                }
            }
            "start" | "clean" => {
                if event.name == "start" {
                    self.text = "started";
                }
                self.draw();
                if self.shown {
                    eprintln!();
                }
                self.shown = false;
                self.ticks = None;
                return;
            }
            _ => return,
        }
        self.draw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prologs_are_counted() {
        let mut line = StatusLine::new("ƒx", &Options::default());
        for name in ["alloc", "prolog-start", "prolog-start", "prolog-finish"] {
            line.event(&Event::new(0., name));
        }
        assert_eq!(
            line.line(3661),
            "flux-job: ƒx waiting for prolog                       01:01:01"
        );
        line.event(&Event::new(0., "prolog-finish"));
        assert_eq!(line.text, "starting");
    }
}
