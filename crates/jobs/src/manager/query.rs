//! Questions about active jobs: `list`, `getattr`, `stats-get`.

use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::Manager;

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
        let entry = |job: &&super::Job| {
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
        };
        Ok(json!({ "jobs": jobs.iter().take(limit).map(entry).collect::<Vec<_>>() }))
    }

    pub(super) fn getattr(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            attrs: Vec<String>,
        }
        let Request { id, attrs } = msg.json()?;
        let job = self.active(id)?;
        msg.require_user(job.userid)?;
        let mut answer = Map::new();
        for name in attrs {
            let value = match name.as_str() {
                "jobspec" => Value::clone(&job.jobspec),
                "R" => job.r.as_deref().cloned().unwrap_or(Value::Null),
                "eventlog" => formats::eventlog::encode(&job.events).into(),
                _ => {
                    return Err(RpcError::new(
                        libc::ENOENT,
                        format!("unknown attribute {name:?}"),
                    ));
                }
            };
            answer.insert(name, value);
        }
        Ok(Value::Object(answer))
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
