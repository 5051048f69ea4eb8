//! Questions about active jobs: `list`, `getattr`, `stats-get`.

use client::Node;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, ROLE_ADMIN, RpcError};

use super::job::Job;
use super::{Done, Manager};

/// Values of `job-info.lookup` come as JSON where they are JSON.
const JSON_DECODE: u32 = 1;

const PRIVATE: &str = "not permitted: jobs are private here";

/// What is listed of a job.
pub(super) fn entry(job: &Job) -> Value {
    let mut entry = json!({
        "id": job.id,
        "userid": job.userid,
        "urgency": job.urgency,
        "priority": job.priority,
        "t_submit": job.t_submit,
        "state": job.state.bit(),
    });
    if !job.dependencies.is_empty() {
        entry["dependencies"] = json!(job.dependencies);
    }
    if !job.annotations.is_empty() {
        entry["annotations"] = Value::Object(job.annotations.clone());
    }
    entry
}

impl Manager {
    pub(super) fn list(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            max_entries: usize,
        }
        msg.require_owner()?;
        let Request { max_entries } = msg.json()?;
        let mut jobs: Vec<_> = self.jobs.values().collect();
        jobs.sort_by_key(|job| job.queue_key());
        let limit = if max_entries == 0 {
            usize::MAX
        } else {
            max_entries
        };
        let active = jobs.into_iter().map(entry);
        // Who has submitted these has still to hear of them.
        let ended = self.waits.ended_jobs().cloned();
        let entries: Vec<Value> = active.chain(ended).take(limit).collect();
        Ok(json!({ "jobs": entries }))
    }

    /// `job-manager.getattr`: what an active job is made of; of an inactive one what the store has.
    pub(super) fn getattr(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            attrs: Vec<String>,
        }
        let Request { id, attrs } = msg.json()?;
        let known = ["jobspec", "R", "eventlog"];
        if let Some(name) = attrs.iter().find(|name| !known.contains(&name.as_str())) {
            let why = format!("unknown attribute {name:?}");
            return Err(RpcError::new(libc::ENOENT, why));
        }
        let owner = self.jobs.get(&id).map(|job| job.userid);
        let owner = owner.or_else(|| self.past.get(id).map(|ended| ended.userid));
        // Where jobs are private, a guest does not learn which there are.
        let is_open = match owner {
            Some(userid) => msg.require_user(userid).is_ok(),
            None => self.require_openness(msg).is_ok(),
        };
        if !is_open {
            return Err(match self.is_private {
                true => RpcError::new(libc::EPERM, PRIVATE),
                false => RpcError::new(libc::EPERM, "guests can only access their own jobs"),
            });
        }
        let Some(job) = self.jobs.get(&id) else {
            if owner.is_none() {
                return Err(RpcError::new(libc::ENOENT, "unknown job id"));
            }
            self.getattr_of_ended(msg, id, &attrs);
            return Ok(None);
        };
        let value = |name: &str| match name {
            "jobspec" => Value::clone(&job.jobspec),
            "R" => job.r.as_deref().cloned().unwrap_or(Value::Null),
            _ => formats::eventlog::encode(&job.events).into(),
        };
        let answer: Map<String, Value> = attrs
            .into_iter()
            .map(|name| {
                let value = value(&name);
                (name, value)
            })
            .collect();
        Ok(Some(answer.into()))
    }

    /// What tells of all jobs is for the owner and administrators alone where jobs are private.
    pub(super) fn require_openness(&self, msg: &Message) -> Result<(), RpcError> {
        match self.is_private {
            true => msg
                .require_role(ROLE_ADMIN)
                .map_err(|_| RpcError::new(libc::EPERM, PRIVATE)),
            false => Ok(()),
        }
    }

    fn getattr_of_ended(&mut self, msg: &Message, id: JobId, attrs: &[String]) {
        let request = json!({ "id": id, "keys": attrs, "flags": JSON_DECODE });
        let found = self.handle.rpc("job-info.lookup", Node::Any, &request);
        let (handle, msg) = (self.handle.clone(), msg.clone());
        self.work.push(Box::pin(async move {
            let answer = found.await.and_then(|found| {
                let mut answer: Map<String, Value> = found.json()?;
                answer.remove("id");
                Ok(answer)
            });
            handle.respond_result(&msg, answer);
            Done::Nothing
        }));
    }

    pub(super) fn stats(&self) -> Value {
        json!({
            "journal": { "listeners": self.journal.len(), "events": 0 },
            "active_jobs": self.jobs.len(),
            "inactive_jobs": self.past.len(),
            "max_jobid": self.max_id,
            "housekeeping": self.housekeeping.stats(),
        })
    }
}
