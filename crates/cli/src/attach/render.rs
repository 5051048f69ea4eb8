//! Showing the events of an attached job.

use std::collections::VecDeque;
use std::io::Write as _;

use formats::Event;
use formats::iodata::IoData;
use serde_json::Value;

use super::Options;
use crate::error::Failure;
use crate::output;

/// Writes a job's output, and its events with times since its submission.
pub(super) struct Output {
    zero: Option<f64>,
    label: bool,
    quiet: bool,
    verbose: bool,
    /// The last lines written so far, until the stream has caught up.
    tail: Option<(usize, VecDeque<Event>)>,
    /// Set while the terminal of task 0 is ours: whether its output comes by the log, too.
    raw: Option<bool>,
}

/// Words for the levels of shell log messages; an empty one is not shown.
const LEVELS: [&str; 8] = [
    "FATAL", "FATAL", "FATAL", "ERROR", " WARN", "", "DEBUG", "TRACE",
];

impl Output {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            zero: None,
            label: options.label_io,
            quiet: options.quiet,
            verbose: options.verbose,
            tail: options.tail.map(|n| (n, VecDeque::new())),
            raw: None,
        }
    }

    /// The terminal of task 0 is entered; `captured` says that what it shows comes by the log, too.
    pub(super) fn enter_terminal(&mut self, captured: bool) {
        self.raw = Some(captured);
    }

    /// And left.
    pub(super) fn leave_terminal(&mut self) {
        self.raw = None;
    }

    /// The time of the first event is what others are shown relative to.
    pub(super) fn start(&mut self, timestamp: f64) {
        self.zero.get_or_insert(timestamp);
    }

    pub(super) fn time(&self, timestamp: f64) -> String {
        format!("{:.3}s", timestamp - self.zero.unwrap_or(timestamp))
    }

    /// One event as a line on standard error.
    pub(super) fn event(&self, prefix: &str, event: &Event) {
        let context = match &event.context {
            Some(map) => format!(" {}", Value::Object(map.clone())),
            None => String::new(),
        };
        eprintln!(
            "{}: {prefix}.{}{context}",
            self.time(event.timestamp),
            event.name
        );
    }

    /// An event of the output log.
    pub(super) fn output(&mut self, event: &Event) -> Result<(), Failure> {
        // The end of a stream is a data event, too, but nothing to see.
        let is_line = event.name == "log" || event.name == "data" && event.get("data").is_some();
        if let Some((lines, kept)) = &mut self.tail
            && is_line
        {
            kept.push_back(event.clone());
            while kept.len() > *lines {
                kept.pop_front();
            }
            return Ok(());
        }
        self.show(event)
    }

    /// Show what `--tail` held back.
    pub(super) fn flush(&mut self) {
        let Some((_, kept)) = self.tail.take() else {
            return;
        };
        for event in kept {
            if let Err(e) = self.show(&event) {
                eprintln!("flux-job: {}", e.message);
            }
        }
    }

    fn show(&self, event: &Event) -> Result<(), Failure> {
        let Some(context) = &event.context else {
            return Ok(());
        };
        match event.name.as_str() {
            "data" => {
                let io = IoData::from_context(context).map_err(|e| Failure::new(e.to_string()))?;
                self.data(&io);
            }
            "redirect" if !self.quiet => {
                let text = |key| context.get(key).and_then(Value::as_str);
                let path = text("path").map_or_else(String::new, |p| format!(" to {p}"));
                let (rank, stream) = (text("rank").unwrap_or("?"), text("stream").unwrap_or("?"));
                eprintln!("{rank}: {stream} redirected{path}");
            }
            "log" if !self.quiet => eprintln!("{}", self.shell_log(event)),
            _ => {}
        }
        Ok(())
    }

    fn data(&self, io: &IoData) {
        let shown = self.raw == Some(true) && io.rank == "0";
        if io.data.is_empty() || shown {
            return;
        }
        let mut bytes = Vec::new();
        match self.label {
            false => bytes.extend_from_slice(&io.data),
            true => {
                for line in io.data.split_inclusive(|b| *b == b'\n') {
                    bytes.extend_from_slice(format!("{}: ", io.rank).as_bytes());
                    bytes.extend_from_slice(line);
                }
            }
        }
        if self.raw.is_some() {
            // A terminal in raw mode does not go to the start of a line by itself.
            bytes.push(b'\r');
        }
        if io.stream == "stdout" {
            output::write_bytes(&bytes);
        } else {
            // Nothing can be said about a standard error that is closed.
            let _ = std::io::stderr().write_all(&bytes);
        }
    }

    fn shell_log(&self, event: &Event) -> String {
        let text = |key| event.get(key).and_then(Value::as_str);
        let number = |key| event.get(key).and_then(Value::as_i64);
        let mut line = format!("{}: flux-shell", self.time(event.timestamp));
        if let Some(rank) = number("rank") {
            line += &format!("[{rank}]");
        }
        let level = number("level").and_then(|n| LEVELS.get(usize::try_from(n).ok()?));
        if let Some(level) = level.filter(|l| !l.is_empty()) {
            line += &format!(": {level}");
        }
        if let Some(component) = text("component") {
            line += &format!(": {component}");
        }
        if let Some(file) = text("file").filter(|_| self.verbose) {
            line += &format!(": {file}");
            if let Some(number) = number("line").filter(|n| *n > 0) {
                line += &format!(":{number}");
            }
        }
        format!("{line}: {}", text("message").unwrap_or(""))
    }

    /// What the execution system says about a process of the job.
    pub(super) fn exec_log(&self, event: &Event) {
        let text = |key| event.get(key).and_then(Value::as_str).unwrap_or("");
        if !self.quiet {
            let time = self.time(event.timestamp);
            eprint!(
                "{time}: {}[{}]: {}: ",
                text("component"),
                text("rank"),
                text("stream")
            );
        }
        eprint!("{}", text("data"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shell_messages() {
        let mut out = Output::new(&Options {
            verbose: true,
            ..Options::default()
        });
        out.start(1.);
        let log = |context| out.shell_log(&Event::new(1.25, "log").with_context(context));
        insta::assert_snapshot!(
            [
                log(json!({"rank": 0, "level": 3, "component": "mpi", "message": "bad"})),
                log(json!({"level": 5, "message": "note", "file": "a.c", "line": 7})),
            ]
            .join("\n"),
            @r"
        0.250s: flux-shell[0]: ERROR: mpi: bad
        0.250s: flux-shell: a.c:7: note
        "
        );
    }
}
