//! `job-manager.submit`: new jobs from ingest, whose records are stored already.

use std::sync::Arc;

use formats::Urgency;
use formats::eventlog::{self, Event};
use formats::job_schema::JobKey;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::depend::{self, Dependency, Progress, Verdict};
use super::job::Job;
use super::{Done, Manager};
use crate::ingest::FLAG_WAITABLE;

#[derive(Deserialize)]
struct NewJob {
    id: JobId,
    userid: u32,
    urgency: Urgency,
    flags: i32,
    t_submit: f64,
    jobspec: Value,
}

impl Manager {
    pub(super) fn submit(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            jobs: Vec<NewJob>,
        }
        msg.require_owner()?;
        let Request { jobs } = msg.json()?;
        let mut errors = Vec::new();
        for job in jobs {
            let id = job.id;
            self.max_id = self.max_id.max(id.0);
            if let Err(why) = self.take(job) {
                errors.push(json!([id, why]));
            }
        }
        Ok(Some(if errors.is_empty() {
            json!({})
        } else {
            json!({ "errors": errors })
        }))
    }

    fn take(&mut self, new: NewJob) -> Result<(), String> {
        let NewJob {
            id,
            userid,
            urgency,
            flags,
            t_submit,
            jobspec,
        } = new;
        if self.jobs.contains_key(&id) || self.just_ended.contains(&id) {
            // It was in the store, or its announcement was not answered, when this manager came.
            return Ok(());
        }
        if let Some(reason) = self.queue.refuses() {
            return Err(reason);
        }
        let dependencies = depend::parse(&jobspec)?;
        let job = Job::new(id, flags, Arc::new(jobspec));
        if flags & FLAG_WAITABLE != 0 {
            self.waits.expect(id);
        }
        self.jobs.insert(id, job);
        self.history.add(userid, id);
        let context = json!({ "userid": userid, "urgency": urgency, "flags": flags, "version": 1 });
        self.post_event(id, Event::new(t_submit, "submit").with_context(context));
        for dependency in dependencies {
            self.depend_on(id, dependency, false);
        }
        self.post(id, "validate", Value::Null);
        Ok(())
    }

    /// Let a job wait for a dependency; one that is known to have been added is not added again.
    pub(super) fn depend_on(&mut self, id: JobId, dependency: Dependency, known: bool) {
        if !known {
            let context = json!({ "description": dependency.description });
            self.post(id, "dependency-add", context);
        }
        let target = dependency.target;
        let progress = |job: &Job| match job.started {
            true => Progress::Started,
            false => Progress::Waiting,
        };
        let active = self.jobs.get(&target).map(progress);
        match active.map(|progress| depend::judge(dependency.condition, progress)) {
            Some(Verdict::Satisfied) => {
                let context = json!({ "description": dependency.description });
                self.post(id, "dependency-remove", context);
            }
            Some(_) => self.waiting.add(id, dependency),
            None => {
                self.waiting.add(id, dependency);
                self.look_up(target);
            }
        }
    }

    /// Find out what became of a job that is not active.
    fn look_up(&mut self, target: JobId) {
        let handle = self.handle.clone();
        self.work.push(Box::pin(async move {
            let key = target.key(JobKey::Eventlog);
            Done::Looked(
                target,
                kvs::client::get(&handle, Some(kvs::PRIMARY), &key).await,
            )
        }));
    }

    pub(super) fn looked(&mut self, target: JobId, log: Result<Vec<u8>, RpcError>) {
        if self.jobs.contains_key(&target) {
            return;
        }
        let events = log
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| eventlog::decode(&text).ok());
        // A job that never was cannot satisfy anything: it counts as failed for `afterok`, and the
        // submitter learns of the unknown id through the same exception.
        let mut job = Job::new(target, 0, Arc::new(Value::Null));
        events.iter().flatten().for_each(|event| job.apply(event));
        match events {
            Some(_) if job.succeeded() => self.progress(target, Progress::Succeeded),
            Some(_) => self.progress(target, Progress::Failed),
            None => {
                for (dependent, dependency, _) in self.waiting.decide(target, Progress::Failed) {
                    self.settle(dependent, &dependency, Verdict::Never);
                }
            }
        }
    }
}
