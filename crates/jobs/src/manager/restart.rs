//! Taking up the jobs of an earlier life: their eventlogs are replayed, and each goes on from where it was.
//!
//! A job whose record cannot be read is left as it is in the store, and named in the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::module::{ModuleError, ModuleResult};
use formats::job::JobState;
use formats::jobid::JobId;
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::job::{Alloc, Job};
use super::past::Ended;
use super::{Manager, depend};
use crate::ingest::{FLAG_DEBUG, FLAG_WAITABLE};
use crate::record::{self, Record, RecordError};

/// What is in the store of one job.
enum Found {
    Active(Record),
    /// Nothing changes any more.
    Inactive(Ended),
}

impl Job {
    /// The job that a record tells of.
    fn replay(record: Record) -> Job {
        let mut job = Job::new(record.id, 0, Arc::new(record.jobspec));
        job.r = record.r.map(Arc::new);
        record.events.iter().for_each(|event| job.apply(event));
        job.asked = true;
        job.events = record.events;
        job
    }
}

impl Manager {
    /// Take up all active jobs that are in the store.
    pub(super) async fn restore(&mut self) -> ModuleResult {
        let failed = |e| ModuleError::new("reading the jobs there are", e);
        let (beside, floor) = self.restore_archive().await.map_err(failed)?;
        let from = record::ids(&self.handle, floor).await.map_err(failed)?;
        self.max_id = self.max_id.max(from.last().map_or(0, |id| id.0));
        let ids = beside.into_iter().chain(from);
        let ids: BTreeSet<JobId> = ids.filter(|id| self.past.get(*id).is_none()).collect();
        let handle = self.handle.clone();
        let found = stream::iter(ids).map(|id| {
            let handle = handle.clone();
            async move { (id, find(&handle, id).await) }
        });
        // In order, so that histories and queues are as they were.
        let mut found = found.buffered(record::WINDOW);
        let mut active = Vec::new();
        while let Some((id, found)) = found.next().await {
            match found {
                Ok(Found::Active(record)) => {
                    let job = Job::replay(record);
                    self.singletons.enter(&job);
                    self.jobs.insert(id, job);
                    active.push(id);
                }
                Ok(Found::Inactive(ended)) => self.past.add(id, ended),
                Err(e) if e.is_of_store() => {
                    return Err(ModuleError::new("reading the jobs there are", e));
                }
                Err(e) => {
                    let text = format!("job {}: {e}", crate::shown(id));
                    super::log(&self.handle, super::LOG_ERR, &text);
                    self.archive.keep_unreadable(id);
                }
            }
        }
        self.remember();
        self.restore_housekeeping().await.map_err(failed)?;
        if !active.is_empty() || self.past.len() > 0 {
            let (running, all) = (self.running(), active.len());
            let text = format!("restart: {all} active jobs, {running} of them running");
            super::log(&self.handle, super::LOG_INFO, &text);
        }
        active.into_iter().for_each(|id| self.resume(id));
        for id in self.singletons.due() {
            self.settle(id, "singleton", depend::Verdict::Satisfied);
        }
        Ok(())
    }

    /// Put all jobs into the histories of their users, in order.
    fn remember(&mut self) {
        let active = self.jobs.values().map(|job| (job.id, job.userid));
        let past = self.past.iter().map(|(id, ended)| (*id, ended.userid));
        let mut all: Vec<(JobId, u32)> = active.chain(past).collect();
        all.sort_unstable();
        for (id, userid) in all {
            self.history.add(userid, id);
        }
    }

    fn running(&self) -> usize {
        let runs = |job: &&Job| matches!(job.state, JobState::Run | JobState::Cleanup);
        self.jobs.values().filter(runs).count()
    }

    /// Let a replayed job go on.
    fn resume(&mut self, id: JobId) {
        self.introduce(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.flags & FLAG_WAITABLE != 0 {
            self.waits.expect(id);
        }
        if job.flags & FLAG_DEBUG != 0 && matches!(job.state, JobState::Run | JobState::Cleanup) {
            let context = json!({ "id": id.f58() });
            self.post(id, "debug.exec-reattach-start", context);
        }
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let is_held = job.perilogs > 0;
        if is_held {
            return self.resume_perilog(id);
        }
        match job.state {
            JobState::New => {
                if let Err(why) = self.depend_again(id) {
                    return self.raise(id, "dependency", 0, &why, self.owner(id), None);
                }
                let refusal = self.refusal_of(id);
                self.post(id, "validate", Value::Null);
                if let Some(why) = refusal {
                    self.raise(id, "validate", 0, &why, self.owner(id), None);
                }
            }
            JobState::Depend => match self.depend_again(id) {
                Ok(()) => self.act(id),
                Err(why) => self.raise(id, "dependency", 0, &why, self.owner(id), None),
            },
            // A new priority is asked for.
            JobState::Sched => self.post(id, "flux-restart", Value::Null),
            JobState::Priority => {
                self.ask_priority(id);
                self.act(id);
            }
            JobState::Cleanup | JobState::Inactive => self.act(id),
            // The execution service finds what runs, when it says hello.
            JobState::Run => {}
        }
    }

    /// Wait again for what a job depended on.
    fn depend_again(&mut self, id: JobId) -> Result<(), String> {
        let Some(job) = self.jobs.get(&id) else {
            return Ok(());
        };
        let (jobspec, open, is_new) = (
            job.jobspec.clone(),
            job.dependencies.clone(),
            job.state == JobState::New,
        );
        let mut found = depend::parse(&jobspec)?;
        self.leave_to_plugins(&mut found, &jobspec);
        for dependency in found {
            if matches!(dependency.on, depend::On::Foreign(_)) {
                continue;
            }
            let known = open.contains(&dependency.description);
            if known || (is_new && !self.has_seen(id, &dependency.description)) {
                self.depend_on(id, dependency, known);
            }
        }
        Ok(())
    }

    /// Whether a dependency was already added, and maybe removed.
    fn has_seen(&self, id: JobId, description: &str) -> bool {
        let events = self.jobs.get(&id).map_or(&[][..], |job| &job.events);
        events.iter().any(|event| {
            event.name == "dependency-add"
                && event.get("description").and_then(Value::as_str) == Some(description)
        })
    }
}

async fn find(handle: &client::Handle, id: JobId) -> Result<Found, RecordError> {
    let events = record::events(handle, id).await?;
    if record::is_inactive(&events) {
        return Ok(Found::Inactive(Ended::of(&events)));
    }
    record::load(handle, id, events).await.map(Found::Active)
}

/// Whether the execution service has to look for shells of a job that this manager has not started.
pub(super) fn must_reattach(job: &Job) -> bool {
    job.started && job.alloc == Alloc::Granted
}
