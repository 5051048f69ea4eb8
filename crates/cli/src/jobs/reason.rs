//! Words for what a job waits for and how it ended.

use formats::JobState;

use super::info::Job;
use crate::format::{date, duration};

/// A dependency as shown: begin times as a time of day or a date.
pub(crate) fn dependency(text: &str) -> String {
    let Some(time) = text
        .strip_prefix("begin-time=")
        .and_then(|t| t.parse::<f64>().ok())
    else {
        return text.to_owned();
    };
    let shown = |t: f64, format: &str| date(t, format).unwrap_or_default();
    let now = crate::jobs::info::now();
    let same_day = shown(time, "%F") == shown(now, "%F");
    let mut out = match same_day {
        true => format!("begin@{}", shown(time, "%H:%M")),
        false => format!("begin@{}", shown(time, "%b%d-%H:%M")),
    };
    let seconds = shown(time, "%S");
    if seconds != "00" {
        out.push_str(&format!(":{seconds}"));
    }
    out
}

/// The INFO column: where the job runs, or what it waits for.
pub(crate) fn contextual(job: &Job) -> String {
    match job.state() {
        Some(JobState::Priority) => "priority-wait".to_owned(),
        Some(JobState::Depend) => format!("depends:{}", job.dependencies()),
        Some(JobState::Sched) => {
            let estimate = job.annotation(&["sched", "t_estimate"]);
            match estimate.and_then(serde_json::Value::as_f64) {
                Some(t) if t < job.now => "eta:now".to_owned(),
                Some(t) => format!("eta:{}", duration(t - job.now)),
                None if job.integer("urgency") == Some(0) => "held".to_owned(),
                None if job.integer("priority") == Some(0) => "priority-hold".to_owned(),
                None => String::new(),
            }
        }
        _ => job.string("nodelist").to_owned(),
    }
}

/// How an inactive job ended.
pub(crate) fn ended(job: &Job) -> String {
    if job.state() != Some(JobState::Inactive) {
        return String::new();
    }
    let occurred = job.raw("exception_occurred").and_then(|v| v.as_bool()) == Some(true);
    let kind = job.string("exception_type");
    let note = job.string("exception_note");
    let code = job.returncode();
    let exit = || match code {
        Some(code) => format!("Exit {code}"),
        None => "Exit ".to_owned(),
    };
    match job.result().map(formats::JobResult::name) {
        Some("CANCELED") if occurred && kind == "cancel" && !note.is_empty() => {
            format!("Canceled: {note}")
        }
        Some("CANCELED") => "Canceled".to_owned(),
        Some("TIMEOUT") => "Timeout".to_owned(),
        Some("FAILED") => {
            if occurred && kind != "exec" && job.integer("exception_severity") == Some(0) {
                return match note {
                    "" => format!("Exception: type={kind}"),
                    note => format!("Exception: type={kind} note={note}"),
                };
            }
            match code {
                Some(code) if code > 128 => {
                    formats::signals::describe(i32::try_from(code - 128).unwrap_or(0))
                }
                Some(126) => "Command invoked cannot execute".to_owned(),
                Some(127) => "command not found".to_owned(),
                Some(128) => "Invalid argument to exit".to_owned(),
                _ => exit(),
            }
        }
        _ => exit(),
    }
}
