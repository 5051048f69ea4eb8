//! `--wait`, `--wait-event`, `--watch` of submission commands: following many jobs at once.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use client::Handle;
use formats::iodata::IoData;
use formats::job::WaitStatus;
use formats::{Event, JobId};
use serde_json::Value;

use crate::attach::{cancel_watch, decode_events, watch_events};
use crate::error::Failure;
use crate::output;
use crate::submit::progress::{Progress, Stage};

/// Where a job's messages go: a terminal stream, or a file that several jobs may share.
#[derive(Clone)]
pub(crate) enum Sink {
    Stdout,
    Stderr,
    File(Arc<Mutex<File>>),
}

impl Sink {
    pub(crate) fn write(&self, bytes: &[u8]) {
        match self {
            Self::Stdout => output::write_bytes(bytes),
            // Nothing can be said about a standard error that is closed.
            Self::Stderr => drop(std::io::stderr().write_all(bytes)),
            Self::File(file) => {
                // The lock guards a single write, so even a poisoned one is sound.
                let mut file = file
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Err(e) = file.write_all(bytes) {
                    eprintln!("flux: log file: {e}");
                }
            }
        }
    }
}

/// How a job is followed.
#[derive(Clone)]
pub(crate) struct Follow {
    /// The event to stop at; `exec.NAME` is one of the execution.
    pub(crate) wait: String,
    /// Show the job's output.
    pub(crate) watch: bool,
    pub(crate) label: bool,
    pub(crate) log_status: bool,
    pub(crate) log_events: bool,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    pub(crate) progress: Progress,
}

/// State of one job that is followed.
struct Job<'a> {
    follow: &'a Follow,
    name: String,
    zero: Option<f64>,
    started: bool,
    code: u8,
    stage: Stage,
}

/// Follow a job, which `progress` counts at `stage`, to its end or the event waited for; its
/// exit code.
pub(crate) async fn follow(
    handle: &Handle,
    id: JobId,
    stage: Stage,
    follow: &Follow,
) -> Result<u8, Failure> {
    let mut job = Job {
        follow,
        name: crate::jobid::shown(id),
        zero: None,
        started: false,
        code: 0,
        stage,
    };
    let mut main = Some(watch_events(handle, id, "eventlog"));
    let mut exec = None;
    let mut out = None;
    loop {
        if main.is_none() && exec.is_none() && out.is_none() {
            job.reach(Stage::ended(job.code));
            return Ok(job.code);
        }
        tokio::select! {
            answer = crate::attach::next(&mut main) => {
                let Some(answer) = answer else {
                    main = None;
                    continue;
                };
                for event in decode_events(&answer?)? {
                    job.main(&event);
                    if event.name == "start" && (follow.watch || follow.wait.starts_with("exec.")) {
                        exec = Some(watch_events(handle, id, "guest.exec.eventlog"));
                    }
                    if event.name == follow.wait && let Some(stream) = main.take() {
                        cancel_watch(&stream);
                    }
                }
            }
            answer = crate::attach::next(&mut exec) => {
                let Some(Ok(answer)) = answer else {
                    exec = None;
                    continue;
                };
                for event in decode_events(&answer)? {
                    job.log_event("exec.", &event);
                    if event.name == "shell.init" && follow.watch {
                        out = Some(watch_events(handle, id, "guest.output"));
                    }
                    if follow.wait.strip_prefix("exec.") == Some(&event.name) {
                        for stream in main.take().iter().chain(exec.take().iter()) {
                            cancel_watch(stream);
                        }
                    }
                }
            }
            answer = crate::attach::next(&mut out) => {
                let Some(Ok(answer)) = answer else {
                    out = None;
                    continue;
                };
                for event in decode_events(&answer)? {
                    job.output(&event)?;
                }
            }
        }
    }
}

impl Job<'_> {
    /// What has ended stays so.
    fn reach(&mut self, stage: Stage) {
        if !self.stage.is_over() && self.stage != stage {
            self.follow.progress.moves(Some(self.stage), stage);
            self.stage = stage;
        }
    }

    fn log(&mut self, timestamp: f64, text: &str) {
        let zero = *self.zero.get_or_insert(timestamp);
        let line = format!("{}: {:.3}s: {text}\n", self.name, timestamp - zero);
        let Follow {
            progress, stderr, ..
        } = self.follow;
        progress.write(stderr, line.as_bytes());
    }

    fn log_event(&mut self, prefix: &str, event: &Event) {
        self.zero.get_or_insert(event.timestamp);
        if self.follow.log_events {
            let context = match &event.context {
                Some(map) => Value::Object(map.clone()).to_string(),
                None => String::new(),
            };
            self.log(
                event.timestamp,
                &format!("{prefix}{} {context}", event.name),
            );
        }
    }

    fn main(&mut self, event: &Event) {
        self.log_event("", event);
        match event.name.as_str() {
            "exception" => {
                let severity = event.get("severity").and_then(Value::as_i64).unwrap_or(0);
                if severity != 0 {
                    return;
                }
                let text = |key| event.get(key).and_then(Value::as_str).unwrap_or("");
                let (kind, note) = (text("type"), text("note"));
                if !self.started {
                    self.code = self.code.max(1);
                }
                let text = format!("job.exception: type={kind} severity={severity} {note}");
                self.log(event.timestamp, &text);
            }
            "start" => {
                self.started = true;
                self.reach(Stage::Running);
            }
            "finish" => {
                let status = event.get("status").and_then(Value::as_i64).unwrap_or(0) as i32;
                self.code = self.code.max(WaitStatus(status).exit_code() as u8);
                if self.follow.log_status {
                    let word = if status == 0 { "complete" } else { "failed" };
                    self.log(event.timestamp, &format!("{word}: status={status}"));
                }
            }
            _ => {}
        }
    }

    fn output(&self, event: &Event) -> Result<(), Failure> {
        let Some(context) = event.context.as_ref().filter(|_| event.name == "data") else {
            return Ok(());
        };
        let io = IoData::from_context(context).map_err(|e| Failure::new(e.to_string()))?;
        let mut bytes = Vec::new();
        match self.follow.label {
            false => bytes = io.data,
            true => {
                for line in io.data.split_inclusive(|b| *b == b'\n') {
                    bytes.extend_from_slice(format!("{}: {}: ", self.name, io.rank).as_bytes());
                    bytes.extend_from_slice(line);
                }
            }
        }
        let sink = match io.stream.as_str() {
            "stdout" => &self.follow.stdout,
            _ => &self.follow.stderr,
        };
        self.follow.progress.write(sink, &bytes);
        Ok(())
    }
}
