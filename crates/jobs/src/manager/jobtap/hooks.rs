//! The points of a job's life at which plugins are asked.

use std::sync::Arc;

use formats::eventlog::Event;
use formats::job::JobState;
use formats::jobid::JobId;
use plugin_sdk::Args;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::super::depend::{Dependency, On};
use super::super::job::Job;
use super::super::{Manager, depend};
use super::tap::Tap;
use super::{Builtin, args};

/// What plugins make of a request to change a job.
#[derive(Debug, Default)]
pub(in crate::manager) struct Judged {
    /// Keys that plugins know.
    pub(in crate::manager) known: Vec<String>,
    /// Those of them that need no validation.
    pub(in crate::manager) validated: Vec<String>,
    /// Whether somebody wants to know if the job could still run.
    pub(in crate::manager) feasibility: bool,
}

fn state_topic(state: JobState) -> &'static str {
    match state {
        JobState::New => "job.state.new",
        JobState::Depend => "job.state.depend",
        JobState::Priority => "job.state.priority",
        JobState::Sched => "job.state.sched",
        JobState::Run => "job.state.run",
        JobState::Cleanup => "job.state.cleanup",
        JobState::Inactive => "job.state.inactive",
    }
}

fn more<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

impl Manager {
    /// Tell of an event that a job has just had; what follows from those that plugins answer it with is left to the caller.
    pub(in crate::manager) fn tell(&mut self, id: JobId, event: &Event, before: JobState) {
        let is_outermost = !self.taps.holds(id);
        self.taps.held.push(id);
        self.tell_subscribers(id, event);
        if event.name == "jobspec-update" {
            let updates = event.context.clone().unwrap_or_default();
            self.tell_of(
                id,
                "job.update",
                more([("updates", Value::Object(updates))]),
            );
        }
        let state = self.jobs.get(&id).map_or(before, |job| job.state);
        if state != before {
            let known = more([
                ("entry", args::entry(event)),
                ("prev_state", before.bit().into()),
            ]);
            self.tell_of(id, state_topic(state), known);
        }
        self.taps.held.pop();
        if is_outermost {
            self.drain(id);
        }
    }

    fn tell_subscribers(&mut self, id: JobId, event: &Event) {
        let Some(subscribers) = self.taps.subscribers.get(&id).cloned() else {
            return;
        };
        let topic = format!("job.event.{}", event.name);
        let taps = self.taps.stack.matching(&topic);
        for tap in taps.iter().filter(|tap| subscribers.contains(&tap.serial)) {
            let Some(mut args) = self.args_of(id, &topic) else {
                return;
            };
            args.input.insert("entry".to_owned(), args::entry(event));
            self.taps.current.push(id);
            tap.call(&topic, &mut args, self);
            self.taps.current.pop();
        }
        self.remove_broken();
    }

    /// Let plugins consider a new job, which is dropped if one of them rejects it. Events they post follow its first one.
    pub(in crate::manager) fn consider(&mut self, id: JobId) -> Result<(), String> {
        self.taps.current.push(id);
        let accepted = self.ask_about_new(id);
        match (&accepted, self.jobs.get(&id)) {
            (Ok(()), _) => self.tell_of(id, "job.new", Map::new()),
            (Err(_), Some(job)) => {
                let job = job.clone();
                self.tell_destroyed(&job, false);
                self.jobs.remove(&id);
            }
            (Err(_), None) => {}
        }
        self.taps.current.pop();
        accepted
    }

    fn ask_about_new(&mut self, id: JobId) -> Result<(), String> {
        for topic in ["job.create", "job.validate"] {
            self.consider_by(id, topic, Map::new(), "rejected by job-manager plugin")?;
        }
        for (scheme, entry) in self.foreign_dependencies(id)? {
            self.check_dependency(id, &scheme, entry)?;
        }
        Ok(())
    }

    fn consider_by(
        &mut self,
        id: JobId,
        topic: &str,
        known: Map<String, Value>,
        otherwise: &str,
    ) -> Result<i32, String> {
        if !self.is_tapped(topic) {
            return Ok(0);
        }
        let Some(mut args) = self.args_of(id, topic) else {
            return Ok(0);
        };
        args.input.extend(known);
        match self.call_plugins(Some(id), topic, &mut args) {
            code @ 0.. => Ok(code),
            _ => Err(args.error().unwrap_or(otherwise).to_owned()),
        }
    }

    /// Dependencies of kinds whose plugin was removed are for others.
    pub(in crate::manager) fn leave_to_plugins(&self, found: &mut [Dependency], jobspec: &Value) {
        let entries = jobspec.pointer("/attributes/system/dependencies");
        let entries = entries
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        for (dependency, entry) in found.iter_mut().zip(entries) {
            let builtin = match dependency.on {
                On::Job(..) => Builtin::DependencyAfter,
                On::Time(_) => Builtin::BeginTime,
                On::Singleton => Builtin::DependencySingleton,
                On::Foreign(_) => continue,
            };
            if let (false, Some(Value::String(scheme))) =
                (self.taps.has(builtin), entry.get("scheme"))
            {
                dependency.description = scheme.clone();
                dependency.on = On::Foreign(entry.clone());
            }
        }
    }

    /// The dependencies of a job that are none of ours.
    fn foreign_dependencies(&self, id: JobId) -> Result<Vec<(String, Value)>, String> {
        let Some(job) = self.jobs.get(&id) else {
            return Ok(Vec::new());
        };
        let mut found = depend::parse(&job.jobspec)?;
        self.leave_to_plugins(&mut found, &job.jobspec);
        let found = found.into_iter();
        Ok(found
            .filter_map(|dependency| match dependency.on {
                On::Foreign(entry) => Some((dependency.description, entry)),
                _ => None,
            })
            .collect())
    }

    fn check_dependency(&mut self, id: JobId, scheme: &str, entry: Value) -> Result<(), String> {
        let topic = format!("job.dependency.{scheme}");
        let otherwise = "rejected by job-manager dependency plugin";
        match self.consider_by(id, &topic, more([("dependency", entry)]), otherwise)? {
            0 => Err(format!("dependency scheme \"{scheme}\" not supported")),
            _ => Ok(()),
        }
    }

    /// Tell of a job found in the store, before it goes on.
    pub(in crate::manager) fn introduce(&mut self, id: JobId) {
        let waits = |job: &Job| matches!(job.state, JobState::New | JobState::Depend);
        if self.jobs.get(&id).is_some_and(waits) {
            let found = self.foreign_dependencies(id).unwrap_or_default();
            for (scheme, entry) in found {
                if let Err(why) = self.check_dependency(id, &scheme, entry) {
                    let note = format!("{why} (job may be stuck in DEPEND state)");
                    self.raise(id, "dependency", 4, &note, self.owner(id), None);
                }
            }
        }
        for topic in ["job.create", "job.new"] {
            self.tell_of(id, topic, Map::new());
        }
        self.settle_deferred(id);
    }

    /// Ask again for the priority of a job that had none yet when the manager ended.
    pub(in crate::manager) fn ask_priority(&mut self, id: JobId) {
        self.tell_of(id, "job.state.priority", Map::new());
        self.settle_deferred(id);
    }

    /// Tell one plugin, which has just been loaded, of a job there is.
    pub(super) fn introduce_to(&mut self, tap: &Arc<Tap>, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (mut args, is_waiting) = (args::of(job), job.state == JobState::Depend);
        self.taps.current.push(id);
        for topic in ["job.create", "job.new"] {
            tap.call(topic, &mut args, self);
        }
        if is_waiting {
            for (scheme, entry) in self.foreign_dependencies(id).unwrap_or_default() {
                args.input.insert("dependency".to_owned(), entry);
                tap.call(&format!("job.dependency.{scheme}"), &mut args, self);
            }
            tap.call("job.state.depend", &mut args, self);
        }
        self.taps.current.pop();
        self.settle_deferred(id);
    }

    /// A job is no more: it has become inactive, or was rejected.
    pub(in crate::manager) fn tell_destroyed(&mut self, job: &Job, is_inactive: bool) {
        if self.taps.is_plain() {
            return;
        }
        let topics: &[&str] = match is_inactive {
            true => &["job.inactive-add", "job.destroy"],
            false => &["job.destroy"],
        };
        for topic in topics {
            let mut args = args::of(job);
            self.call_plugins(Some(job.id), topic, &mut args);
        }
        self.taps.subscribers.remove(&job.id);
        self.taps.deferred.retain(|(id, _)| *id != job.id);
        for tap in self.taps.stack.all() {
            tap.forget(job.id.0, self);
        }
    }

    /// The record of an inactive job is removed.
    pub(in crate::manager) fn tell_purged(&mut self, id: JobId, userid: u32) {
        let known = json!({ "id": id, "userid": userid, "state": JobState::Inactive.bit() });
        if let Value::Object(known) = known {
            self.call_plugins(Some(id), "job.inactive-remove", &mut Args::new(known));
        }
    }

    /// Let plugins judge what a request changes of a job; they may change more.
    pub(in crate::manager) fn judge_updates(
        &mut self,
        msg: &Message,
        id: JobId,
        updates: &mut Map<String, Value>,
    ) -> Result<Judged, RpcError> {
        let mut judged = Judged::default();
        if self.taps.is_plain() {
            return Ok(judged);
        }
        let cred = json!({ "userid": msg.userid(), "rolemask": msg.rolemask() });
        let mut extra = Map::new();
        for (key, value) in updates.clone() {
            let topic = format!("job.update.{key}");
            let Some(mut args) = self.args_of(id, &topic) else {
                break;
            };
            args.input.extend(more([
                ("cred", cred.clone()),
                ("updates", Value::Object(updates.clone())),
                ("value", value),
                ("key", key.clone().into()),
            ]));
            let called = self.call_plugins(Some(id), &topic, &mut args);
            self.settle_deferred(id);
            if called == 0 {
                continue;
            }
            if called < 0 {
                let why = args
                    .error()
                    .unwrap_or("update rejected by job-manager plugin");
                return Err(RpcError::new(libc::EINVAL, why));
            }
            let is_set = |key: &str| {
                let value = args.output.get(key);
                value.is_some_and(|v| v.as_bool().unwrap_or(v.as_i64().is_some_and(|n| n != 0)))
            };
            judged.feasibility |= is_set("feasibility");
            if is_set("validated") {
                judged.validated.push(key.clone());
            }
            if let Some(Value::Object(more)) = args.output.get("updates") {
                extra.extend(more.clone());
            }
            judged.known.push(key);
        }
        judged.known.extend(extra.keys().cloned());
        judged.validated.extend(extra.keys().cloned());
        updates.extend(extra);
        Ok(judged)
    }

    /// Let plugins validate a job as it would be.
    pub(in crate::manager) fn validate_changed(
        &mut self,
        id: JobId,
        jobspec: &Value,
    ) -> Result<(), RpcError> {
        let known = more([("jobspec", jobspec.clone())]);
        let otherwise = "rejected by job-manager plugin";
        let valid = self.consider_by(id, "job.validate", known, otherwise);
        self.settle_deferred(id);
        valid
            .map(drop)
            .map_err(|why| RpcError::new(libc::EINVAL, why))
    }
}
