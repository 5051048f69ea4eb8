//! `job-manager.wait`: results of waitable jobs, each handed out once.

use std::collections::{BTreeMap, HashMap, HashSet};

use client::Handle;
use formats::job::WaitStatus;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::job::Job;
use super::query::entry;

/// Request id that means "any job".
const ANY: u64 = u64::MAX;

/// A job that has ended.
struct Ended {
    result: Value,
    /// What is listed of it, as long as nobody has waited for it.
    entry: Value,
}

/// Waitable jobs and who waits for them.
#[derive(Default)]
pub(crate) struct Waits {
    active: HashSet<JobId>,
    /// Ended, not yet waited for.
    ended: BTreeMap<JobId, Ended>,
    by_job: HashMap<JobId, Message>,
    any: Vec<Message>,
}

fn result(job: &Job) -> Value {
    let error = match (&job.exception, job.status) {
        (Some((kind, note)), _) => format!("Fatal exception type={kind} {note}"),
        (None, Some(status)) if status != 0 => match WaitStatus(status).signal() {
            Some(signal) => format!("task(s) terminated by signal {signal}"),
            None => format!(
                "task(s) exited with exit code {}",
                WaitStatus(status).exit_code()
            ),
        },
        _ => String::new(),
    };
    json!({ "id": job.id, "success": error.is_empty(), "errstr": error.trim_end() })
}

impl Waits {
    /// `id` was submitted as waitable.
    pub(crate) fn expect(&mut self, id: JobId) {
        self.active.insert(id);
    }

    /// A job has become inactive.
    pub(crate) fn ended(&mut self, handle: &Handle, job: &Job) {
        if !self.active.remove(&job.id) {
            return;
        }
        let waiter = self
            .by_job
            .remove(&job.id)
            .or_else(|| (!self.any.is_empty()).then(|| self.any.remove(0)));
        match waiter {
            Some(request) => handle.respond(&request, &result(job)),
            None => {
                let (result, entry) = (result(job), entry(job));
                self.ended.insert(job.id, Ended { result, entry });
            }
        }
        // More waiters than jobs: the rest can never be answered.
        while self.any.len() > self.active.len() {
            let request = self.any.remove(self.any.len() - 1);
            handle.respond_error(&request, &nothing());
        }
    }

    pub(crate) fn wait(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: i128,
        }
        msg.require_owner()?;
        let Request { id } = msg.json()?;
        let id = if id < 0 { ANY } else { id as u64 };
        if id == ANY {
            if let Some((_, ended)) = self.ended.pop_first() {
                return Ok(Some(ended.result));
            }
            if self.active.len() <= self.any.len() {
                return Err(nothing());
            }
            self.any.push(msg.clone());
            return Ok(None);
        }
        let id = JobId(id);
        if let Some(ended) = self.ended.remove(&id) {
            return Ok(Some(ended.result));
        }
        if !self.active.contains(&id) || self.by_job.contains_key(&id) {
            let text = format!(
                "job {} is not waitable, or is waited for already",
                crate::shown(id)
            );
            return Err(RpcError::new(libc::ECHILD, text));
        }
        self.by_job.insert(id, msg.clone());
        Ok(None)
    }

    /// What is listed of jobs that have ended and were not waited for, in the order of ids.
    pub(crate) fn ended_jobs(&self) -> impl Iterator<Item = &Value> {
        self.ended.values().map(|ended| &ended.entry)
    }

    pub(crate) fn disconnect(&mut self, msg: &Message) {
        self.any.retain(|req| !req.is_same_rpc(msg, None));
        self.by_job.retain(|_, req| !req.is_same_rpc(msg, None));
    }
}

fn nothing() -> RpcError {
    RpcError::new(libc::ECHILD, "there are no waitable jobs")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn waitable_jobs_are_listed_until_somebody_has_waited_for_them() {
        let instance = testbed::Instance::new(1);
        let handle = instance.client(0);
        let mut waits = Waits::default();
        let job = |id| Job::new(JobId(id), 0, Arc::new(json!({})));
        waits.expect(JobId(1));
        waits.ended(&handle, &job(1));
        waits.ended(&handle, &job(2));
        let listed: Vec<&Value> = waits.ended_jobs().map(|entry| &entry["id"]).collect();
        assert_eq!(listed, [&json!(1)]);
        let request = json!({ "id": 1 });
        let payload = wire::json_payload(&request).unwrap();
        let mut request = Message::request("job-manager.wait", 0, 1, 0, Some(payload));
        request.set_credentials(wire::Credentials {
            userid: 0,
            rolemask: wire::ROLE_OWNER,
        });
        assert_eq!(waits.wait(&request).unwrap().unwrap()["id"], 1);
        assert_eq!(waits.ended_jobs().count(), 0);
    }
}
