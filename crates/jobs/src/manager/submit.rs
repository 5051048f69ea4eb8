//! `job-manager.submit`: new jobs from ingest, whose records are stored already.

use std::sync::Arc;

use formats::Urgency;
use formats::eventlog::Event;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::batch::After;
use super::depend::On;
use super::job::Job;
use super::jobtap::Builtin;
use super::{Manager, depend};
use crate::ingest::{FLAG_NOVALIDATE, FLAG_WAITABLE};

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
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        for job in jobs {
            let id = job.id;
            self.max_id = self.max_id.max(id.0);
            if let Err(why) = self.take(job) {
                errors.push(json!([id, why]));
            }
        }
        let answer = match errors.is_empty() {
            true => json!({}),
            false => json!({ "errors": errors }),
        };
        if self.keep_above_floor(&ids) {
            self.batch.after(After::Respond(msg.clone(), answer));
            return Ok(None);
        }
        Ok(Some(answer))
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
        if self.jobs.contains_key(&id) || self.past.get(id).is_some() {
            // It was in the store, or its announcement was not answered, when this manager came.
            return Ok(());
        }
        let mut dependencies = depend::parse(&jobspec)?;
        self.leave_to_plugins(&mut dependencies, &jobspec);
        let mut job = Job::new(id, flags, Arc::new(jobspec));
        (job.userid, job.urgency, job.t_submit) = (userid, urgency, t_submit);
        if let Some(why) = self.refusal(&job) {
            return Err(why);
        }
        self.check_bypass(&job)?;
        self.check_dependencies(&job, userid, &dependencies)?;
        let foreign = dependencies.iter().find(|d| matches!(d.on, On::Foreign(_)));
        if let (true, Some(foreign)) = (self.taps.is_plain(), foreign) {
            let scheme = &foreign.description;
            return Err(format!("dependency scheme \"{scheme}\" not supported"));
        }
        self.jobs.insert(id, job);
        if !self.taps.is_plain() {
            self.consider(id)?;
        }
        if flags & FLAG_WAITABLE != 0 {
            self.waits.expect(id);
        }
        self.history.add(userid, id);
        let context = json!({ "userid": userid, "urgency": urgency, "flags": flags, "version": 1 });
        self.post_event(id, Event::new(t_submit, "submit").with_context(context));
        for dependency in dependencies {
            self.depend_on(id, dependency, false);
        }
        if let Some(job) = self.jobs.get(&id) {
            self.singletons.enter(job);
        }
        if self.taps.has(Builtin::SubmitHold) && urgency != Urgency::HOLD {
            let context = json!({ "userid": userid, "urgency": Urgency::HOLD });
            self.post(id, "urgency", context);
        }
        self.post(id, "validate", Value::Null);
        Ok(())
    }

    /// Why a new job is not taken, if it is not.
    fn refusal(&self, job: &Job) -> Option<String> {
        let is_checked = job.flags & FLAG_NOVALIDATE == 0;
        self.queues
            .refusal(job.queue())
            .or_else(|| self.check_limits(&job.jobspec).err().filter(|_| is_checked))
    }

    /// [`Manager::refusal`] of a job found in the store.
    pub(super) fn refusal_of(&self, id: JobId) -> Option<String> {
        self.refusal(self.jobs.get(&id)?)
    }
}
