//! The scheduler's side of the manager (RFC 27).

use std::collections::BTreeSet;
use std::sync::Arc;

use formats::idset::Idset;
use formats::job::JobState;
use formats::jobid::JobId;
use formats::resource_set::ResourceSet;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::job::{Alloc, Job, update_annotations};
use super::queues::Standing;
use super::{LOG_DEBUG, Manager, log};
use crate::ingest::FLAG_DEBUG;

/// What the manager knows of the scheduler.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    /// Its `sched-hello`: whose connection it came by.
    greeted: Option<Message>,
    ready: bool,
    /// Largest number of open alloc requests.
    limit: usize,
    open: usize,
    /// With a limit: the jobs of the open requests, and the one that is to give way to a more urgent one.
    offered: BTreeSet<JobId>,
    revoked: Option<JobId>,
}

/// Kinds of responses to `sched.alloc`.
mod kind {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const ANNOTATE: u32 = 1;
    pub(super) const DENY: u32 = 2;
    pub(super) const CANCEL: u32 = 3;
}

#[derive(Deserialize)]
struct Response {
    id: JobId,
    #[serde(rename = "type")]
    kind: u32,
    annotations: Option<Map<String, Value>>,
    #[serde(rename = "R")]
    r: Option<Value>,
    note: Option<String>,
}

impl Manager {
    /// Tell a scheduler about the jobs that hold resources.
    pub(super) fn sched_hello(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default, rename = "partial-ok")]
            partial_ok: bool,
        }
        msg.require_owner()?;
        let Request { partial_ok } = msg.json()?;
        let flag = if partial_ok { " +partial-ok" } else { "" };
        log(&self.handle, LOG_DEBUG, &format!("scheduler: hello{flag}"));
        self.sched.ready = false;
        self.sched.greeted = Some(msg.clone());
        let holds = |job: &&Job| job.alloc == Alloc::Granted && !job.bypass;
        for job in self.jobs.values().filter(holds) {
            let mut item = json!({
                "id": job.id,
                "priority": job.priority,
                "userid": job.userid,
                "t_submit": job.t_submit,
                "R": job.r.as_deref(),
            });
            if !job.freed.is_empty() {
                item["free"] = job.freed.to_string().into();
            }
            self.handle.respond(msg, &item);
        }
        for item in self.housekeeping.hello() {
            self.handle.respond(msg, &item);
        }
        Err(RpcError::errno(libc::ENODATA))
    }

    pub(super) fn sched_ready(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            mode: String,
            limit: Option<usize>,
        }
        msg.require_owner()?;
        let Request { mode, limit } = msg.json()?;
        self.sched.limit = match (mode.as_str(), limit) {
            ("unlimited", _) => usize::MAX,
            ("limited", Some(limit)) if limit > 0 => limit,
            _ => {
                return Err(RpcError::proto(format!(
                    "sched-ready: mode {mode:?} is not valid"
                )));
            }
        };
        let greeted = &self.sched.greeted;
        if !greeted.as_ref().is_some_and(|by| by.is_same_rpc(msg, None)) {
            // It greeted an earlier life of this module, and does not know what jobs hold now.
            let why = "sched-ready: say sched-hello to this job manager first";
            return Err(RpcError::new(libc::EAGAIN, why));
        }
        self.sched.ready = true;
        self.sched.open = 0;
        self.sched.offered.clear();
        self.sched.revoked = None;
        let lost: Vec<JobId> = self
            .jobs
            .values()
            .filter(|job| job.alloc == Alloc::Requested)
            .map(|job| job.id)
            .collect();
        let count = self.pending.len() + lost.len();
        lost.into_iter().for_each(|id| self.ask_again(id));
        self.schedule();
        Ok(json!({ "count": count }))
    }

    pub(super) fn has_scheduler(&self) -> bool {
        self.sched.ready
    }

    /// Somebody has gone; it may have been the scheduler.
    pub(super) fn sched_disconnect(&mut self, msg: &Message) {
        let greeted = &mut self.sched.greeted;
        if greeted.take_if(|by| by.is_same_rpc(msg, None)).is_some() {
            self.sched.ready = false;
        }
    }

    /// Put a job in SCHED state into the queue; tell the scheduler if it knows the job already.
    pub(super) fn enqueue(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.alloc == Alloc::Requested && self.sched.ready && self.sched.open > 0 {
            let jobs = json!({ "jobs": [[id, job.priority]] });
            self.handle
                .notify("sched.prioritize", client::Node::Any, &jobs);
            match job.is_eligible() {
                true => self.give_way(),
                false => self.cancel_alloc(id),
            }
            return;
        }
        self.wait_for_turn(id);
        self.schedule();
    }

    /// What an earlier scheduler was asked for this one does not know.
    fn ask_again(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        match job.state {
            JobState::Sched => self.wait_for_turn(id),
            _ => {
                job.alloc = Alloc::None;
                self.act_cleanup(id);
            }
        }
    }

    /// Put a job that the scheduler does not know into the queue, unless its queue is stopped. If its queue is gone, it
    /// stays where it was: the scheduler says what becomes of those it is asked for.
    pub(super) fn wait_for_turn(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let is_held = match self.queues.standing(job.queue()) {
            Standing::Started => false,
            Standing::Stopped => true,
            Standing::Gone => job.alloc == Alloc::None,
        };
        if is_held {
            job.alloc = Alloc::None;
            return;
        }
        job.alloc = Alloc::Queued;
        if job.is_eligible() {
            self.pending.insert(job.queue_key());
        }
    }

    /// Send alloc requests as far as the scheduler takes them.
    pub(super) fn schedule(&mut self) {
        while self.sched.ready && self.sched.open < self.sched.limit {
            let Some((_, id)) = self.pending.pop_first() else {
                return;
            };
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            let request = json!({
                "id": id,
                "priority": job.priority,
                "userid": job.userid,
                "t_submit": job.t_submit,
                "jobspec": &*job.jobspec,
            });
            if self
                .handle
                .request_untagged("sched.alloc", &request)
                .is_err()
            {
                return;
            }
            job.alloc = Alloc::Requested;
            self.sched.open += 1;
            if self.sched.limit != usize::MAX {
                self.sched.offered.insert(id);
            }
            if job.flags & FLAG_DEBUG != 0 {
                self.post(id, "debug.alloc-request", Value::Null);
            }
        }
        self.give_way();
    }

    /// A scheduler that takes few requests gets those of the most urgent jobs: the last of those it has is taken back
    /// for one that comes before it.
    fn give_way(&mut self) {
        let sched = &self.sched;
        if !sched.ready || sched.open < sched.limit || sched.revoked.is_some() {
            return;
        }
        let offered = sched.offered.iter().filter_map(|id| self.jobs.get(id));
        let last = offered.map(Job::queue_key).max();
        if let Some(last) = last.filter(|last| self.pending.first().is_some_and(|next| next < last))
        {
            self.sched.revoked = Some(last.1);
            self.cancel_alloc(last.1);
        }
    }

    /// Withdraw an open alloc request; the scheduler answers it.
    pub(super) fn cancel_alloc(&mut self, id: JobId) {
        self.handle
            .notify("sched.cancel", client::Node::Any, &json!({ "id": id }));
    }

    pub(super) fn alloc_response(&mut self, msg: &Message) {
        let response: Response = match msg.clone().into_result().and_then(|msg| msg.json()) {
            Ok(response) => response,
            // The scheduler is gone; its jobs wait for the next one.
            Err(_) => {
                self.sched.ready = false;
                return;
            }
        };
        let id = response.id;
        let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.alloc == Alloc::Requested)
        else {
            return;
        };
        if response.kind != kind::ANNOTATE {
            self.sched.open = self.sched.open.saturating_sub(1);
            self.sched.offered.remove(&id);
            self.sched.revoked.take_if(|revoked| *revoked == id);
        }
        match response.kind {
            kind::SUCCESS => self.granted(id, response),
            kind::ANNOTATE => {
                if let Some(annotations) = &response.annotations {
                    self.annotate(id, annotations, true);
                }
            }
            kind::DENY => {
                job.alloc = Alloc::None;
                self.forget_annotations(id, |all| all.clear());
                let Some(job) = self.jobs.get(&id) else {
                    return;
                };
                let (userid, note) = (job.userid, response.note.unwrap_or_default());
                self.raise(id, "alloc", 0, &note, userid, None);
            }
            kind::CANCEL => {
                job.alloc = Alloc::None;
                let waits = job.state == JobState::Sched;
                self.forget_annotations(id, |all| drop(all.shift_remove("sched")));
                match waits {
                    true => self.enqueue(id),
                    false => self.act_cleanup(id),
                }
            }
            _ => {}
        }
        self.schedule();
    }

    fn granted(&mut self, id: JobId, response: Response) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(annotations) = &response.annotations {
            update_annotations(&mut job.annotations, annotations);
        }
        job.alloc = Alloc::Granted;
        if let Some(r) = response.r {
            let r = Arc::new(r);
            job.r = Some(r.clone());
            self.batch.resources(id, r);
        }
        let context = match job.annotations.is_empty() {
            true => Value::Null,
            false => json!({ "annotations": job.annotations }),
        };
        // Of a job that was cancelled in the meantime they go back at once.
        self.post(id, "alloc", context);
    }

    /// Update the annotations of a job that waits.
    pub(super) fn annotate(&mut self, id: JobId, notes: &Map<String, Value>, publish: bool) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        update_annotations(&mut job.annotations, notes);
        if publish {
            self.publish_annotations(id);
        }
    }

    /// What was said of a request does not hold any more.
    fn forget_annotations(&mut self, id: JobId, forget: impl FnOnce(&mut Map<String, Value>)) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let before = job.annotations.len();
        forget(&mut job.annotations);
        if job.annotations.len() != before {
            self.publish_annotations(id);
        }
    }

    /// Annotations of waiting jobs are not stored, only shown (RFC 27).
    fn publish_annotations(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let there_are = Some(&job.annotations).filter(|all| !all.is_empty());
        let context = json!({ "annotations": there_are });
        let event =
            formats::eventlog::Event::new(super::now(), "annotations").with_context(context);
        self.journal.publish(job, &event);
    }

    /// Give the resources that a job still holds back to the scheduler.
    pub(super) fn free_all(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).filter(|job| !job.bypass) else {
            return;
        };
        let Some(r) = held(job) else { return };
        let request = json!({ "id": id, "R": r, "final": true });
        self.handle
            .notify("sched.free", client::Node::Any, &request);
    }

    /// Give back the resources of some ranks of a job.
    pub(super) fn free_ranks(&mut self, id: JobId, ranks: &Idset) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.bypass) else {
            return;
        };
        let Some(set) = job.r.as_deref().and_then(parse_set) else {
            return;
        };
        let part = set.on_ranks(ranks);
        job.freed = job.freed.union(ranks);
        let request = json!({ "id": id, "R": part.to_value() });
        self.handle
            .notify("sched.free", client::Node::Any, &request);
    }

    /// `job-manager.resource-status`: everything allocated.
    pub(super) fn resource_status(&self) -> Result<Value, RpcError> {
        let mut all = ResourceSet::new();
        for job in self.jobs.values().filter(|job| job.alloc == Alloc::Granted) {
            if let Some(set) = held(job).and_then(|r| parse_set(&r)) {
                all.merge(&set);
            }
        }
        self.housekeeping.held().for_each(|set| all.merge(set));
        Ok(json!({ "allocated": all.to_value() }))
    }

    pub(super) fn alloc_query(&self) -> Value {
        let running = self
            .jobs
            .values()
            .filter(|job| job.alloc == Alloc::Granted)
            .count();
        let requested = self
            .jobs
            .values()
            .filter(|job| job.alloc == Alloc::Requested)
            .count();
        json!({
            "queue_length": self.pending.len(),
            "alloc_pending": requested,
            "running": running,
        })
    }
}

/// What a job holds: its R without the ranks released.
pub(super) fn held(job: &Job) -> Option<Value> {
    let r = job.r.as_deref()?;
    if job.freed.is_empty() {
        return Some(r.clone());
    }
    let mut set = parse_set(r)?;
    set.remove_ranks(&job.freed);
    Some(set.to_value())
}

/// The resource set of an R object; `None` if it is none.
fn parse_set(r: &Value) -> Option<ResourceSet> {
    ResourceSet::try_from(r.clone()).ok()
}
