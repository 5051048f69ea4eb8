//! `job-manager.wait`: results of waitable jobs, each handed out once.

use std::collections::{BTreeMap, HashMap, HashSet};

use client::Handle;
use formats::job::WaitStatus;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::job::Job;

/// Request id that means "any job".
const ANY: u64 = u64::MAX;

/// Waitable jobs and who waits for them.
#[derive(Default)]
pub(crate) struct Waits {
    active: HashSet<JobId>,
    /// Ended, not yet waited for.
    results: BTreeMap<JobId, Value>,
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
            None => drop(self.results.insert(job.id, result(job))),
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
            if let Some((_, result)) = self.results.pop_first() {
                return Ok(Some(result));
            }
            if self.active.len() <= self.any.len() {
                return Err(nothing());
            }
            self.any.push(msg.clone());
            return Ok(None);
        }
        let id = JobId(id);
        if let Some(result) = self.results.remove(&id) {
            return Ok(Some(result));
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

    pub(crate) fn disconnect(&mut self, msg: &Message) {
        self.any.retain(|req| !req.is_same_rpc(msg, None));
        self.by_job.retain(|_, req| !req.is_same_rpc(msg, None));
    }
}

fn nothing() -> RpcError {
    RpcError::new(libc::ECHILD, "there are no waitable jobs")
}
