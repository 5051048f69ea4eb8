//! The execution service's side of the manager (RFC 32).

use client::Node;
use formats::idset::Idset;
use formats::job::JobState;
use formats::job_schema::JobKey;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::Manager;
use super::batch::After;
use super::job::{Alloc, Exec, Job};
use super::restart::must_reattach;
use crate::ingest::FLAG_DEBUG;

/// The registered execution service.
#[derive(Debug, Default)]
pub(crate) struct ExecService {
    topic: Option<String>,
}

/// Whether the execution service has to do with a job: it holds resources and runs, or has begun to.
fn is_to_run(job: &Job) -> bool {
    let ending = job.state == JobState::Cleanup && must_reattach(job);
    let runs = job.state == JobState::Run && job.perilogs == 0;
    job.alloc == Alloc::Granted && (runs || ending)
}

#[derive(Deserialize)]
struct Response {
    id: JobId,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

impl Manager {
    pub(super) fn exec_hello(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            service: String,
        }
        msg.require_owner()?;
        let Request { service } = msg.json()?;
        self.exec.topic = Some(format!("{service}.start"));
        // What an earlier service was asked for, nobody follows any more.
        for job in self.jobs.values_mut().filter(|j| j.exec == Exec::Requested) {
            job.exec = Exec::None;
        }
        let waiting: Vec<JobId> = self
            .jobs
            .values()
            .filter(|job| job.exec == Exec::None && is_to_run(job))
            .map(|job| job.id)
            .collect();
        waiting.into_iter().for_each(|id| self.start(id));
        Ok(Value::Null)
    }

    /// Ask the execution service to start a job whose resources are stored.
    pub(super) fn start(&mut self, id: JobId) {
        let Some(topic) = self.exec.topic.clone() else {
            return;
        };
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.exec != Exec::None || !is_to_run(job) {
            return;
        }
        let request = json!({
            "id": id,
            "userid": job.userid,
            "jobspec": &*job.jobspec,
            "R": job.r.as_deref(),
            "reattach": must_reattach(job),
            "fresh": !job.asked,
        });
        (job.exec, job.asked) = (Exec::Requested, true);
        if let Err(e) = self.handle.request_untagged(&topic, &request) {
            let userid = self.owner(id);
            self.raise(id, "exec", 0, &e.to_string(), userid, None);
        }
    }

    pub(super) fn start_response(&mut self, msg: &Message) {
        let response: Response = match msg.clone().into_result().and_then(|msg| msg.json()) {
            Ok(response) => response,
            // The service is gone (RFC 32): nothing more is sent until the next hello.
            Err(_) => {
                self.exec.topic = None;
                // The next one looks for what runs.
                for job in self.jobs.values_mut().filter(|j| j.exec == Exec::Requested) {
                    job.exec = Exec::None;
                }
                return;
            }
        };
        let Response { id, kind, data } = response;
        let job = self.jobs.get(&id);
        let Some(job) = job.filter(|job| job.exec == Exec::Requested) else {
            return;
        };
        // A service that has found a job again says anew what was known of it.
        match kind.as_str() {
            "start" if job.started => return,
            "finish" if job.status.is_some() => return,
            _ => {}
        }
        let text = |key: &str| data.get(key).and_then(Value::as_str);
        match kind.as_str() {
            "start" => self.post(id, "start", Value::Null),
            "reattached" => {
                let debug = |job: &Job| job.flags & FLAG_DEBUG != 0;
                if self.jobs.get(&id).is_some_and(debug) {
                    let context = json!({ "id": id.f58() });
                    self.post(id, "debug.exec-reattach-finish", context);
                }
            }
            "finish" => {
                let status = data.get("status").and_then(Value::as_i64).unwrap_or(0);
                self.post(id, "finish", json!({ "status": status }));
            }
            "exception" => {
                let severity = data.get("severity").and_then(Value::as_i64).unwrap_or(0);
                let userid = self.owner(id);
                let kind = text("type").unwrap_or("exec");
                self.raise(id, kind, severity, text("note").unwrap_or(""), userid, None);
            }
            "release" => {
                let last = data.get("final").and_then(Value::as_bool).unwrap_or(false);
                let ranks = text("ranks").unwrap_or("all").to_owned();
                if !last && let Ok(ranks) = ranks.parse::<Idset>() {
                    self.free_ranks(id, &ranks);
                }
                if let Some(record) = data.get("record").and_then(Value::as_object) {
                    self.take_record(id, record);
                }
                self.post(id, "release", json!({ "ranks": ranks, "final": last }));
            }
            _ => {}
        }
    }

    /// Store, with what comes next, what the execution service has left of a job in its guest directory; the service is told
    /// when that is done.
    fn take_record(&mut self, id: JobId, record: &Map<String, Value>) {
        for (key, text) in record {
            let text = text.as_str().unwrap_or_default();
            self.batch.set(id.key(JobKey::InGuest(key)), text);
        }
        self.batch.after(After::Recorded(id));
    }

    /// What the execution service has left of a job is stored.
    pub(super) fn recorded(&self, id: JobId) {
        if let Some(start) = &self.exec.topic {
            let topic = start.replace(".start", ".recorded");
            self.handle
                .notify(&topic, Node::Rank(0), &json!({ "id": id }));
        }
    }
}
