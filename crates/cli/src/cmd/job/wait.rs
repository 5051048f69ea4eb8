//! `flux job status`, `flux job wait`: how jobs end.

use clap::Args;
use client::{Handle, Node};
use formats::job::{JobResult, WaitStatus};
use formats::{Event, JobId};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::RpcError;

use crate::attach;
use crate::error::{Context, Failure, Outcome};
use crate::jobid::{JobIdArg, shown};
use crate::output::outln;

#[derive(Args)]
pub(super) struct Status {
    /// Say how jobs ended; twice also for those that succeeded
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Exit code for jobs that ended by an exception alone
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    exception_exit_code: u8,
    /// Print results as JSON
    #[arg(short, long)]
    json: bool,
    /// Jobs
    #[arg(required = true)]
    id: Vec<JobIdArg>,
}

/// A job's result, gathered from its eventlog.
#[derive(Debug)]
pub(crate) struct Ended {
    members: Map<String, Value>,
}

impl Ended {
    fn new(id: JobId) -> Ended {
        let members = [("id", json!(id)), ("exception_occurred", json!(false))];
        let members = members
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect();
        Ended { members }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.members.insert(key.to_owned(), value);
    }

    fn severity(&self) -> Option<i64> {
        self.members.get("exception_severity")?.as_i64()
    }

    fn waitstatus(&self) -> Option<WaitStatus> {
        let status = self.members.get("waitstatus")?.as_i64()?;
        i32::try_from(status).ok().map(WaitStatus)
    }

    fn exception(&self) -> Option<&str> {
        self.members.get("exception_type")?.as_str()
    }

    /// Whether an exception ended the job.
    fn is_fatal(&self) -> bool {
        self.exception().is_some() && self.severity() == Some(0)
    }

    fn add(&mut self, event: &Event) {
        let time = json!(event.timestamp);
        match event.name.as_str() {
            "submit" => self.set("t_submit", time),
            "alloc" => self.set("t_run", time),
            "finish" => {
                self.set("t_cleanup", time);
                if let Some(status) = event.get("status") {
                    self.set("waitstatus", status.clone());
                }
            }
            "exception" => {
                let severity = event.get("severity").and_then(Value::as_i64).unwrap_or(0);
                // Only an exception at least as severe takes the place of the one before.
                if self.severity().is_some_and(|s| s > 0 && s < severity) {
                    return;
                }
                self.set("exception_occurred", json!(true));
                for key in ["type", "note", "severity"] {
                    let value = event.get(key).cloned().unwrap_or(json!(""));
                    self.set(&format!("exception_{key}"), value);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        let started = self.members.contains_key("t_run");
        let status = self.waitstatus().map(|s| s.0);
        let result = JobResult::of(started, status, self.exception());
        self.set("result", json!(result.bit()));
    }
}

/// Wait for a job to become inactive.
pub(crate) async fn ended(handle: &Handle, id: JobId) -> Result<Ended, RpcError> {
    let mut stream = attach::watch_events(handle, id, "eventlog");
    let mut ended = Ended::new(id);
    while let Some(answer) = stream.next().await {
        let events = attach::decode_events(&answer?);
        let events = events.map_err(|e| RpcError::new(libc::EPROTO, e.message))?;
        events.iter().for_each(|e| ended.add(e));
    }
    ended.finish();
    Ok(ended)
}

impl Status {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let many = self.verbose > 0 && self.id.len() > 1;
        if many {
            eprintln!("flux-job: fetching status for {} jobs", self.id.len());
        }
        let all = join_all(self.id.iter().map(|id| ended(handle, id.id))).await;
        if many {
            eprintln!("flux-job: all done.");
        }
        let mut largest = 0;
        for (id, result) in self.id.iter().zip(all) {
            let ended = match result {
                Err(e) if e.errno == libc::ENOENT => {
                    return Err(Failure::new(format!("{id}: No such job")));
                }
                result => result.context(id)?,
            };
            if self.json {
                outln!("{}", Value::Object(ended.members.clone()));
            }
            let status = ended.waitstatus();
            let code = status.map_or(0, WaitStatus::exit_code);
            largest = largest.max(u8::try_from(code).unwrap_or(u8::MAX));
            if ended.is_fatal() {
                largest = largest.max(self.exception_exit_code);
            }
            if self.verbose == 0 {
                continue;
            }
            if let Some(signal) = status.and_then(WaitStatus::signal) {
                eprintln!("flux-job: {id}: job shell died by signal {signal}");
            } else if ended.is_fatal() && (self.verbose > 1 || code != 0) {
                let kind = ended.exception().unwrap_or("");
                eprintln!("flux-job: {id}: exception type={kind}");
            } else if self.verbose > 1 || code != 0 {
                eprintln!("flux-job: {id}: exited with exit code {code}");
            }
        }
        Ok(largest)
    }
}

#[derive(Args)]
pub(super) struct Wait {
    /// Wait for all waitable jobs
    #[arg(short, long)]
    all: bool,
    /// Also say which jobs succeeded
    #[arg(short, long)]
    verbose: bool,
    /// Job (default: the next one that ends)
    id: Option<JobIdArg>,
}

#[derive(Deserialize)]
struct Waited {
    id: JobId,
    success: bool,
    errstr: String,
}

/// Wait for a job, or the next one that ends. "Any" is -1: JSON integers have a sign.
async fn wait(handle: &Handle, id: Option<JobId>) -> Result<Waited, RpcError> {
    let id = id.map_or(json!(-1), |id| json!(id));
    handle
        .call("job-manager.wait", Node::Any, &json!({ "id": id }))
        .await
}

impl Wait {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        if self.all {
            if self.id.is_some() {
                return Err(Failure::new("jobid not supported with --all"));
            }
            return self.run_all(handle).await;
        }
        let waited = match wait(handle, self.id.as_ref().map(|id| id.id)).await {
            Err(e) => {
                let code = if e.errno == libc::ECHILD { 2 } else { 1 };
                return Err(Failure::from(e).code(code));
            }
            Ok(waited) => waited,
        };
        if self.id.is_none() {
            outln!("{}", shown(waited.id));
        }
        match waited.success {
            true => Ok(0),
            false => Err(Failure::new(waited.errstr)),
        }
    }

    async fn run_all(&self, handle: &Handle) -> Outcome {
        let mut code = 0;
        loop {
            match wait(handle, None).await {
                Err(e) if e.errno == libc::ECHILD => return Ok(code),
                Err(e) => return Err(e.into()),
                Ok(Waited {
                    id, success: true, ..
                }) if self.verbose => {
                    eprintln!("{}: job completed successfully", shown(id));
                }
                Ok(Waited { success: true, .. }) => {}
                Ok(Waited { id, errstr, .. }) => {
                    eprintln!("{}: {errstr}", shown(id));
                    code = 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_from_events() {
        let mut ended = Ended::new(JobId(7));
        let events = [
            Event::new(1.5, "submit"),
            Event::new(2.5, "alloc"),
            Event::new(3., "exception")
                .with_context(json!({"type": "x", "severity": 3, "note": "n"})),
            Event::new(3., "exception")
                .with_context(json!({"type": "y", "severity": 5, "note": "n"})),
            Event::new(4., "finish").with_context(json!({"status": 256})),
        ];
        events.iter().for_each(|e| ended.add(e));
        ended.finish();
        insta::assert_snapshot!(Value::Object(ended.members.clone()).to_string(), @r#"{"id":7,"exception_occurred":true,"t_submit":1.5,"t_run":2.5,"exception_type":"x","exception_note":"n","exception_severity":3,"t_cleanup":4.0,"waitstatus":256,"result":2}"#);
        assert!(!ended.is_fatal());
    }
}
