//! `job-manager.update`: changes to the jobspec of an active job (RFC 21), which its owner or the instance's asks for.
//!
//! A request is judged as a whole: by what may be changed at all, then against the limits, then by the scheduler if the
//! job could have become impossible, or runs and shall end at another time, and by who may use a new queue. Only then is
//! the change posted.

use formats::job::JobState;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::job::{Alloc, Job, set_paths};
use super::jobtap::{Builtin, Judged};
use super::{Done, Manager};
use crate::access;

const DURATION: &str = "attributes.system.duration";
const QUEUE: &str = "attributes.system.queue";
const CONSTRAINTS: &str = "attributes.system.constraints";

/// A change that was found to be allowed.
pub(super) struct Change {
    request: Message,
    id: JobId,
    updates: Map<String, Value>,
    /// It was not held against the limits, because the instance's owner asked.
    unchecked: bool,
}

/// What a request comes to: a change, whom to ask first, and the jobspec there would be.
struct Plan {
    change: Change,
    ask: Ask,
    jobspec: Value,
}

/// Whom to ask before a change is made.
enum Ask {
    Nobody,
    /// Whether the job could still be allocated.
    Feasibility,
    /// Whether the job may end then.
    Expiration(f64),
}

fn invalid(why: impl Into<String>) -> RpcError {
    RpcError::new(libc::EINVAL, why)
}

/// When a running job ends that lasts `duration`; 0 is never.
fn expiration(job: &Job, duration: f64) -> Result<f64, RpcError> {
    if duration == 0.0 {
        return Ok(0.0);
    }
    let start = job
        .r
        .as_deref()
        .and_then(|r| r.pointer("/execution/starttime"));
    let start = start.and_then(Value::as_f64).filter(|start| *start > 0.0);
    let start = start.ok_or_else(|| invalid("it is not known when the job started"))?;
    let end = start + duration;
    if end <= super::now() {
        return Err(invalid(
            "requested duration places job expiration in the past",
        ));
    }
    Ok(end)
}

impl Manager {
    /// Handle an update request; it is answered when the change is made.
    pub(super) fn update(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            updates: Map<String, Value>,
        }
        let Request { id, mut updates } = msg.json()?;
        if updates.is_empty() || updates.keys().any(|key| !key.starts_with("attributes.")) {
            return Err(invalid("only attributes of a job can be updated"));
        }
        let job = match (self.jobs.get(&id), self.past.get(id)) {
            (Some(job), _) => job,
            (None, Some(_)) => return Err(invalid("job is inactive")),
            (None, None) => return Err(RpcError::new(libc::ENOENT, "unknown job id")),
        };
        let refused = |why: &str| RpcError::new(libc::EPERM, why);
        msg.require_user(job.userid)
            .map_err(|_| refused("guests may only update their own jobs"))?;
        if job.is_immutable() && !msg.is_owner() {
            return Err(refused(
                "job is immutable: the instance owner has updated it",
            ));
        }
        let judged = self.judge_updates(msg, id, &mut updates)?;
        let Some(job) = self.jobs.get(&id) else {
            return Err(invalid("job is inactive"));
        };
        let userid = job.userid;
        let Plan {
            change,
            ask,
            jobspec,
        } = self.plan(msg, job, updates, &judged)?;
        if !change.unchecked {
            self.validate_changed(id, &jobspec)?;
        }
        let new_queue = change.updates.get(QUEUE).and_then(Value::as_str);
        let new_queue =
            new_queue.map(|name| (name.to_owned(), userid, self.queues.config().clone()));
        let (topic, request) = match ask {
            Ask::Nobody => {
                self.change(change);
                return Ok(None);
            }
            Ask::Feasibility => ("feasibility.check", json!({ "jobspec": jobspec })),
            Ask::Expiration(when) => ("sched.expiration", json!({ "id": id, "expiration": when })),
        };
        let asked = self.handle.rpc(topic, client::Node::Any, &request);
        self.work.push(Box::pin(async move {
            let mut answer = match asked.await {
                // A scheduler that does not know the question has no objection.
                Err(e) if e.errno != libc::ENOSYS => Err(e),
                _ => Ok(()),
            };
            if let (Ok(()), Some((name, userid, queues))) = (&answer, new_queue) {
                answer = access::check(&queues, Some(&name), userid).await;
            }
            Done::Asked(Box::new(change), topic, answer)
        }));
        Ok(None)
    }

    /// What a request comes to, if it is allowed.
    fn plan(
        &self,
        msg: &Message,
        job: &Job,
        mut updates: Map<String, Value>,
        judged: &Judged,
    ) -> Result<Plan, RpcError> {
        let runs = matches!(job.state, JobState::Run | JobState::Cleanup);
        let is_free = msg.is_owner() && self.taps.owner_is_free();
        let mut unchecked = true;
        let mut properties = None;
        for (key, value) in &updates {
            match key.as_str() {
                DURATION if self.taps.has(Builtin::UpdateDuration) => {
                    let duration = value.as_f64().ok_or_else(|| {
                        RpcError::proto(format!("{key}: must be a number, found {value}"))
                    })?;
                    if duration < 0.0 {
                        return Err(invalid("duration must not be negative"));
                    }
                    if runs && !is_free {
                        return Err(invalid(
                            "duration update of running job requires instance owner privileges",
                        ));
                    }
                    unchecked &= is_free || judged.validated.contains(key);
                }
                QUEUE if self.taps.has(Builtin::UpdateQueue) => {
                    let name = value.as_str().ok_or_else(|| {
                        RpcError::proto(format!("{key}: must be a string, found {value}"))
                    })?;
                    properties = Some(self.new_queue(job, name)?);
                    unchecked = false;
                }
                _ if judged.known.contains(key) => unchecked &= judged.validated.contains(key),
                _ => return Err(invalid(format!("update of {key} not supported"))),
            }
        }
        let has_moved = properties.is_some();
        if let Some(properties) = properties {
            let constraints = match properties.is_empty() {
                true => json!({}),
                false => json!({ "properties": properties }),
            };
            updates.insert(CONSTRAINTS.to_owned(), constraints);
        }
        let mut jobspec = Value::clone(&job.jobspec);
        set_paths(&mut jobspec, &updates);
        if !unchecked {
            self.check_limits(&jobspec).map_err(invalid)?;
        }
        let ask = match updates.get(DURATION).and_then(Value::as_f64) {
            _ if has_moved || judged.feasibility => Ask::Feasibility,
            Some(duration) if job.state == JobState::Run => {
                Ask::Expiration(expiration(job, duration)?)
            }
            _ => Ask::Nobody,
        };
        let change = Change {
            request: msg.clone(),
            id: job.id,
            updates,
            unchecked,
        };
        Ok(Plan {
            change,
            ask,
            jobspec,
        })
    }

    /// The properties that the queue `name` requires, if the job may move there.
    fn new_queue(&self, job: &Job, name: &str) -> Result<Vec<String>, RpcError> {
        if matches!(job.state, JobState::Run | JobState::Cleanup) {
            return Err(invalid("update of queue for running job not supported"));
        }
        if job.queue() == Some(name) {
            return Err(invalid(format!("job queue is already set to {name}")));
        }
        self.queues.check_open(name).map_err(invalid)?;
        let config = self.queues.config();
        let old = job
            .queue()
            .map_or_else(Vec::new, |old| config.properties(old));
        if !job.has_only_properties(&old) {
            return Err(invalid(format!(
                "job appears to have non-queue constraints, unable to update queue to {name}"
            )));
        }
        Ok(config.properties(name))
    }

    /// The scheduler's word on a change.
    pub(super) fn asked(&mut self, change: Change, topic: &str, answer: Result<(), RpcError>) {
        match answer {
            Ok(()) => self.change(change),
            Err(e) => {
                let why = match topic {
                    "sched.expiration" => format!("scheduler refused expiration update: {e}"),
                    _ => e.to_string(),
                };
                let error = RpcError::new(e.errno, why);
                self.handle.respond_error(&change.request, &error);
            }
        }
    }

    /// Make a change that all have agreed to.
    fn change(&mut self, change: Change) {
        let Change {
            request,
            id,
            updates,
            unchecked,
        } = change;
        let Some(job) = self.jobs.get(&id) else {
            let error = invalid("job is inactive");
            return self.handle.respond_error(&request, &error);
        };
        let duration = updates.get(DURATION).and_then(Value::as_f64);
        let end = match duration.filter(|_| job.state == JobState::Run) {
            Some(duration) => match expiration(job, duration) {
                Ok(end) => Some(end),
                Err(e) => return self.handle.respond_error(&request, &e),
            },
            None => None,
        };
        if unchecked && request.is_owner() && request.userid() != job.userid {
            // Its user could otherwise go on from what only the owner may set.
            self.post(id, "set-flags", json!({ "flags": ["immutable"] }));
        }
        self.post(id, "jobspec-update", Value::Object(updates));
        let is_requested = |job: &Job| job.alloc == Alloc::Requested;
        if self.jobs.get(&id).is_some_and(is_requested) {
            // The scheduler is asked again, with the new jobspec.
            self.cancel_alloc(id);
        }
        if let Some(end) = end {
            self.expire(id, end);
        }
        self.handle.respond_ok(&request);
    }

    /// Let a running job end at another time.
    pub(super) fn expire(&mut self, id: JobId, end: f64) {
        self.post(id, "resource-update", json!({ "expiration": end }));
        let request = json!({ "id": id, "expiration": end });
        let told = self
            .handle
            .rpc("job-exec.expiration", client::Node::Any, &request);
        self.work.push(Box::pin(async move {
            match told.await {
                Ok(_) => Done::Nothing,
                Err(e) => Done::Unexpired(id, e),
            }
        }));
    }

    /// The execution service does not know of a new end.
    pub(super) fn unexpired(&mut self, id: JobId, error: &RpcError) {
        let runs = |job: &Job| job.state == JobState::Run;
        if self.jobs.get(&id).is_some_and(runs) {
            let note = format!("job execution does not take the new expiration: {error}");
            self.raise(id, "exec", 1, &note, self.owner(id), None);
        }
    }
}
