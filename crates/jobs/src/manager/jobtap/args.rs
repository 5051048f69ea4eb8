//! What plugins are told of a job.

use formats::eventlog::Event;
use formats::job::JobState;
use plugin_sdk::Args;
use serde_json::{Map, Value, json};

use super::super::job::Job;

/// The event that sent a job to CLEANUP.
fn end_event(job: &Job) -> Option<&Event> {
    if !matches!(job.state, JobState::Cleanup | JobState::Inactive) {
        return None;
    }
    job.events.iter().find(|event| match event.name.as_str() {
        "finish" => true,
        "exception" => event.get("severity").and_then(Value::as_i64) == Some(0),
        _ => false,
    })
}

/// How a job ended, as a bit of RFC 21's results; nothing before CLEANUP.
pub(super) fn result(job: &Job) -> Option<i64> {
    let end = end_event(job)?;
    let text = |key: &str| end.get(key).and_then(Value::as_str);
    Some(match (end.name.as_str(), text("type")) {
        ("finish", _) if end.get("status").and_then(Value::as_i64) == Some(0) => 1,
        ("exception", Some("cancel")) => 4,
        ("exception", Some("timeout")) => 8,
        _ => 2,
    })
}

pub(super) fn entry(event: &Event) -> Value {
    serde_json::to_value(event).unwrap_or_default()
}

/// Everything, as the arguments of a call.
pub(super) fn of(job: &Job) -> Args {
    let mut input = Map::new();
    let mut put = |key: &str, value: Value| drop(input.insert(key.to_owned(), value));
    put("jobspec", Value::clone(&job.jobspec));
    put("id", json!(job.id));
    put("userid", job.userid.into());
    put("urgency", json!(job.urgency));
    put("state", job.state.bit().into());
    put("priority", job.priority.into());
    put("t_submit", job.t_submit.into());
    if let Some(r) = &job.r {
        let mut r = Value::clone(r);
        if let Some(r) = r.as_object_mut() {
            r.shift_remove("scheduling");
        }
        put("R", r);
    }
    if let Some(end) = end_event(job) {
        put("end_event", entry(end));
    }
    Args::new(input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::jobid::JobId;
    use std::sync::Arc;

    fn ended(name: &str, context: Value) -> Job {
        let mut job = Job::new(JobId(5), 0, Arc::new(json!({"version": 1})));
        job.state = JobState::Cleanup;
        job.events.push(Event::new(1.0, name).with_context(context));
        job
    }

    #[test]
    fn a_job_is_told_whole() {
        let mut job = ended("finish", json!({"status": 0}));
        job.r = Some(Arc::new(json!({"execution": {}, "scheduling": {}})));
        let args = of(&job).input;
        let keys: Vec<&str> = args.keys().map(String::as_str).collect();
        let want = "jobspec id userid urgency state priority t_submit R end_event";
        assert_eq!(keys.join(" "), want);
        assert_eq!(args["R"], json!({"execution": {}}));
        assert_eq!((&args["id"], &args["state"]), (&json!(5), &json!(32)));
    }

    #[test]
    fn results() {
        for (name, context, want) in [
            ("finish", json!({"status": 0}), Some(1)),
            ("finish", json!({"status": 256}), Some(2)),
            (
                "exception",
                json!({"type": "cancel", "severity": 0}),
                Some(4),
            ),
            (
                "exception",
                json!({"type": "timeout", "severity": 0}),
                Some(8),
            ),
            ("exception", json!({"type": "exec", "severity": 0}), Some(2)),
            ("exception", json!({"type": "exec", "severity": 1}), None),
        ] {
            assert_eq!(result(&ended(name, context)), want, "{name}");
        }
    }
}
