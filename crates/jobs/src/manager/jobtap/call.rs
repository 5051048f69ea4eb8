//! Asking the stack, and taking over what it says.

use formats::job::JobState;
use formats::jobid::JobId;
use formats::resource_set::ResourceSet;
use plugin_sdk::Args;
use serde_json::{Map, Value};

use super::super::{LOG_ERR, Manager, log};
use super::{Builtin, args};
use crate::shown;
use std::sync::Arc;

/// Jobs' priorities (RFC 21).
const PRIORITIES: std::ops::RangeInclusive<i64> = 0..=u32::MAX as i64;
/// Events that may follow from one another by plugins: far more than a job has states.
const LONGEST_CHAIN: usize = 1000;
/// Says that there is no priority yet.
const UNAVAILABLE: i64 = -1;

impl Manager {
    /// Whether a plugin handles a topic.
    pub(in crate::manager) fn is_tapped(&mut self, topic: &str) -> bool {
        !self.taps.stack.matching(topic).is_empty()
    }

    /// Call all plugins that handle a topic: how many did, or -1 if one of them failed.
    pub(super) fn call_plugins(&mut self, id: Option<JobId>, topic: &str, args: &mut Args) -> i32 {
        let taps = self.taps.stack.matching(topic);
        if taps.is_empty() {
            return 0;
        }
        self.taps.current.extend(id);
        let mut called = 0;
        for tap in taps.iter() {
            // Kept for an outer call on the same job.
            let updates = std::mem::take(&mut self.taps.updates);
            let code = tap.call(topic, args, self);
            let asked = std::mem::replace(&mut self.taps.updates, updates);
            if let (Some(id), false) = (id, asked.is_empty()) {
                self.post(id, "jobspec-update", Value::Object(asked));
            }
            match code {
                None => {}
                Some(0..) => called += 1,
                Some(code) => {
                    let text = format!("jobtap: {}: {topic}: rc={code}", tap.name);
                    log(&self.handle, libc::LOG_DEBUG as u8, &text);
                    called = -1;
                    break;
                }
            }
        }
        if id.is_some() {
            self.taps.current.pop();
        }
        self.remove_broken();
        called
    }

    /// What plugins are told of a job, and what it is to be unless they say otherwise.
    pub(super) fn args_of(&self, id: JobId, topic: &str) -> Option<Args> {
        let job = self.jobs.get(&id)?;
        let mut args = args::of(job);
        let is_priority = matches!(topic, "job.state.priority" | "job.priority.get");
        if is_priority && self.taps.has(Builtin::PriorityDefault) {
            let priority = job.default_priority();
            args.output.insert("priority".to_owned(), priority.into());
        }
        Some(args)
    }

    /// Ask about a job, with more than is known of it, and take over what is said.
    pub(super) fn tell_of(&mut self, id: JobId, topic: &str, more: Map<String, Value>) {
        if !self.is_tapped(topic) {
            return;
        }
        let Some(mut args) = self.args_of(id, topic) else {
            return;
        };
        args.input.extend(more);
        if self.call_plugins(Some(id), topic, &mut args) < 0 {
            let why = args.error().unwrap_or("callback returned error");
            let text = format!("jobtap: {topic}: {}: {why}", shown(id));
            log(&self.handle, LOG_ERR, &text);
        }
        // What follows from the answer comes after what was asked for during the call.
        self.taps.current.push(id);
        self.take_over(id, topic, args.output);
        self.taps.current.pop();
    }

    fn take_over(&mut self, id: JobId, topic: &str, out: Map<String, Value>) {
        if let Some(notes) = out.get("annotations") {
            match notes {
                Value::Object(notes) => self.annotate(id, notes, topic != "job.new"),
                _ => self.complain(id, topic, "annotations are not an object"),
            }
        }
        if let Some(r) = out.get("R") {
            self.take_resources(id, topic, r.clone());
        }
        match out.get("priority").map(Value::as_i64) {
            None | Some(Some(UNAVAILABLE)) => {}
            Some(Some(priority)) if PRIORITIES.contains(&priority) => {
                self.reprioritize(id, priority);
            }
            Some(_) => self.complain(id, topic, "priority is not a number from 0 to 4294967295"),
        }
    }

    /// Note on a job that plugins said nonsense about it.
    fn complain(&mut self, id: JobId, topic: &str, why: &str) {
        let stuck = match self.jobs.get(&id).map(|job| job.state) {
            Some(JobState::Priority) => " (job may be stuck in PRIORITY state)",
            _ => "",
        };
        let note = format!("arg_unpack: {why}{stuck}");
        self.raise(id, topic, 4, &note, self.owner(id), None);
    }

    /// Resources that a plugin gives to a job without the scheduler.
    fn take_resources(&mut self, id: JobId, topic: &str, r: Value) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if ResourceSet::try_from(r.clone()).is_err() {
            return self.complain(id, topic, "R is no resource set");
        }
        let why = match topic {
            "job.state.sched" if job.r.is_none() => {
                job.r = Some(Arc::new(r));
                return;
            }
            "job.state.sched" => "R is already set",
            _ => "R may only be set in SCHED state",
        };
        let text = format!("jobtap: {topic}: {}: {why}", shown(id));
        log(&self.handle, LOG_ERR, &text);
    }

    /// Give a job that waits a priority.
    pub(super) fn reprioritize(&mut self, id: JobId, priority: i64) {
        let changes = |job: &super::super::Job| match job.state {
            JobState::Priority => true,
            JobState::Sched => job.priority != priority,
            _ => false,
        };
        if self.jobs.get(&id).is_some_and(changes) {
            self.post(id, "priority", serde_json::json!({ "priority": priority }));
        }
    }

    /// Ask for the priorities of all jobs that wait.
    pub(super) fn reprioritize_all(&mut self) {
        const TOPIC: &str = "job.priority.get";
        let waits =
            |job: &&super::super::Job| matches!(job.state, JobState::Priority | JobState::Sched);
        let waiting = self.jobs.values().filter(waits).map(|job| job.id);
        let mut waiting: Vec<JobId> = waiting.collect();
        waiting.sort_unstable();
        for id in waiting {
            let Some(mut args) = self.args_of(id, TOPIC) else {
                continue;
            };
            let code = self.call_plugins(Some(id), TOPIC, &mut args);
            if code < 0 {
                log(
                    &self.handle,
                    LOG_ERR,
                    "jobtap: job.priority.get: callback failed",
                );
                self.settle_deferred(id);
                continue;
            }
            let priority = args.output.get("priority").and_then(Value::as_i64);
            match priority {
                Some(priority) if PRIORITIES.contains(&priority) => {
                    self.taps.current.push(id);
                    self.reprioritize(id, priority);
                    self.taps.current.pop();
                }
                Some(_)
                    if self
                        .jobs
                        .get(&id)
                        .is_some_and(|job| job.state == JobState::Sched) =>
                {
                    let text = format!("jobtap: {}: BUG: plugin didn't return priority", shown(id));
                    log(&self.handle, LOG_ERR, &text);
                }
                _ => {}
            }
            self.settle_deferred(id);
        }
    }

    /// Post what was deferred while plugins were asked about a job, and do what follows from it.
    pub(super) fn settle_deferred(&mut self, id: JobId) {
        if self.taps.is_busy(id) || !self.taps.deferred.iter().any(|(job, _)| *job == id) {
            return;
        }
        let turns = |manager: &Self| manager.jobs.get(&id).map_or(0, |job| job.turns);
        let before = turns(self);
        self.drain(id);
        if self.taps.holds(id) {
            return;
        }
        match self.jobs.get(&id).map(|job| job.state) {
            Some(JobState::Cleanup) => self.act_cleanup(id),
            Some(_) if turns(self) != before => self.act(id),
            _ => {}
        }
    }

    /// Post what was deferred, in order, unless somebody does already; what follows from it is left to the caller.
    pub(super) fn drain(&mut self, id: JobId) {
        if self.taps.is_busy(id) || self.taps.holds(id) {
            return;
        }
        self.taps.held.push(id);
        let mut count = 0;
        while let Some(event) = self.taps.due(id) {
            count += 1;
            if count > LONGEST_CHAIN {
                self.taps.deferred.retain(|(job, _)| *job != id);
                let text = format!(
                    "jobtap: {}: plugins answer events with events without end; the last ({}) was dropped",
                    shown(id),
                    event.name
                );
                log(&self.handle, LOG_ERR, &text);
                break;
            }
            self.post_event(id, event);
        }
        self.taps.held.pop();
    }

    /// Plugins that do not work any more go, and are named in the log.
    pub(super) fn remove_broken(&mut self) {
        let gone = self.taps.stack.remove_broken();
        if gone.is_empty() {
            return;
        }
        for tap in gone {
            let why = tap.broken().unwrap_or_default();
            let text = format!("jobtap: {}: {why}; removed", tap.name);
            log(&self.handle, LOG_ERR, &text);
            self.taps.forget_plugin(tap.serial);
        }
        self.prioritize_orphans();
    }

    /// Plugins have gone: jobs whose priority one of them was to give get that of their urgency.
    pub(super) fn prioritize_orphans(&mut self) {
        if !self.taps.has(Builtin::PriorityDefault) || self.is_tapped("job.state.priority") {
            return;
        }
        let waits = |job: &&super::super::Job| job.state == JobState::Priority;
        let waiting = self.jobs.values().filter(waits).map(|job| job.id);
        let mut waiting: Vec<JobId> = waiting.collect();
        waiting.sort_unstable();
        waiting.into_iter().for_each(|id| self.act(id));
    }
}
