//! One job as the manager knows it: its state is what its events say (RFC 21).
//!
//! [`Job::apply`] is pure: replaying an eventlog gives the same job. What a state calls for is done
//! elsewhere ([`super::Manager::act`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use formats::Urgency;
use formats::eventlog::Event;
use formats::idset::Idset;
use formats::job::JobState;
use formats::job_event::JobEvent;
use formats::jobid::JobId;
use serde_json::{Map, Value};

use super::singleton::Member;
use crate::info::set_path;
use crate::ingest::{FLAG_DEBUG, FLAG_WAITABLE};

/// Where a job is with the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alloc {
    /// No request is open.
    None,
    /// In the manager's queue.
    Queued,
    /// `sched.alloc` is open.
    Requested,
    /// The job holds resources.
    Granted,
}

/// Where a job is with the execution service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exec {
    /// Not asked.
    None,
    /// `start` is open.
    Requested,
    /// The final release has come.
    Done,
}

/// An active job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) userid: u32,
    pub(crate) urgency: Urgency,
    /// -1 before the priority event.
    pub(crate) priority: i64,
    pub(crate) flags: i32,
    pub(crate) t_submit: f64,
    pub(crate) state: JobState,
    /// Without environment.
    pub(crate) jobspec: Arc<Value>,
    pub(crate) r: Option<Arc<Value>>,
    /// Ranks released so far.
    pub(crate) freed: Idset,
    pub(crate) annotations: Map<String, Value>,
    pub(crate) dependencies: BTreeSet<String>,
    pub(crate) alloc: Alloc,
    pub(crate) exec: Exec,
    pub(crate) started: bool,
    /// The execution service may have been asked for it before.
    pub(crate) asked: bool,
    pub(crate) status: Option<i32>,
    /// Prologs and epilogs that have begun and not finished.
    pub(crate) perilogs: u32,
    /// Its user may not update it any more.
    immutable: bool,
    /// Its resources are not the scheduler's.
    pub(crate) bypass: bool,
    /// Counts what the manager has to act on.
    pub(crate) turns: u32,
    /// The first fatal exception: type and note.
    pub(crate) exception: Option<(String, String)>,
    /// All events so far, for the journal.
    pub(crate) events: Vec<Event>,
}

impl Job {
    pub(crate) fn new(id: JobId, flags: i32, jobspec: Arc<Value>) -> Self {
        Self {
            id,
            userid: 0,
            urgency: Urgency::DEFAULT,
            priority: -1,
            flags,
            t_submit: 0.0,
            state: JobState::New,
            jobspec,
            r: None,
            freed: Idset::new(),
            annotations: Map::new(),
            dependencies: BTreeSet::new(),
            alloc: Alloc::None,
            exec: Exec::None,
            started: false,
            asked: false,
            status: None,
            perilogs: 0,
            immutable: false,
            bypass: false,
            turns: 0,
            exception: None,
            events: Vec::new(),
        }
    }

    /// Take `event` into account. Unknown events change nothing (RFC 21), nor do those whose
    /// context does not fit.
    pub(crate) fn apply(&mut self, event: &Event) {
        let Ok(typed) = JobEvent::try_from(event) else {
            return;
        };
        match typed {
            JobEvent::Submit(submit) => {
                self.t_submit = event.timestamp;
                self.userid = submit.userid;
                self.urgency = submit.urgency;
                self.flags = submit.flags as i32;
            }
            JobEvent::JobspecUpdate(update) => {
                set_paths(Arc::make_mut(&mut self.jobspec), &update.extra);
                if self.state == JobState::Sched {
                    self.state = JobState::Priority;
                }
            }
            JobEvent::ResourceUpdate(update) => {
                if let Some(r) = &mut self.r {
                    let end = update.expiration.into();
                    set_path(Arc::make_mut(r), "execution.expiration", end);
                }
            }
            JobEvent::SetFlags(set) => {
                let has = |name: &str| set.flags.iter().any(|flag| flag == name);
                self.immutable |= has("immutable");
                self.bypass |= has("alloc-bypass");
                for (name, flag) in [("waitable", FLAG_WAITABLE), ("debug", FLAG_DEBUG)] {
                    if has(name) {
                        self.flags |= flag;
                    }
                }
            }
            JobEvent::Validate(_) if self.state == JobState::New => {
                // A dependency may have failed before.
                self.state = match self.exception {
                    None => JobState::Depend,
                    Some(_) => JobState::Cleanup,
                };
            }
            JobEvent::DependencyAdd(added) => drop(self.dependencies.insert(added.description)),
            JobEvent::DependencyRemove(gone) => drop(self.dependencies.remove(&gone.description)),
            JobEvent::Depend(_) if self.state == JobState::Depend => {
                self.state = JobState::Priority;
            }
            JobEvent::Priority(event) => {
                self.priority = event.priority.into();
                if self.state == JobState::Priority {
                    self.state = JobState::Sched;
                }
            }
            JobEvent::Urgency(event) => {
                self.urgency = event.urgency;
                if self.state == JobState::Sched {
                    self.state = JobState::Priority;
                }
            }
            JobEvent::FluxRestart(_) if self.state == JobState::Sched => {
                self.state = JobState::Priority;
            }
            JobEvent::Alloc(alloc) => {
                if let Some(annotations) = alloc.annotations {
                    self.annotations = annotations;
                }
                if self.state == JobState::Sched {
                    self.state = JobState::Run;
                }
                self.bypass |= event.get("bypass") == Some(&Value::Bool(true));
                self.alloc = Alloc::Granted;
            }
            JobEvent::PrologStart(_) | JobEvent::EpilogStart(_) => self.perilogs += 1,
            JobEvent::PrologFinish(_) | JobEvent::EpilogFinish(_) => {
                self.perilogs = self.perilogs.saturating_sub(1);
            }
            JobEvent::Start(_) => self.started = true,
            JobEvent::Finish(finish) => {
                self.status = Some(finish.status);
                if self.state == JobState::Run {
                    self.state = JobState::Cleanup;
                }
            }
            JobEvent::Release(release) if release.last => self.exec = Exec::Done,
            JobEvent::Free(_) => self.alloc = Alloc::None,
            JobEvent::Exception(exception) if exception.severity == 0 => {
                if self.exception.is_none() {
                    self.exception = Some((exception.kind, exception.note));
                }
                if matches!(
                    self.state,
                    JobState::Depend | JobState::Priority | JobState::Sched | JobState::Run
                ) {
                    self.state = JobState::Cleanup;
                }
            }
            JobEvent::Clean(_) => self.state = JobState::Inactive,
            JobEvent::Memo(memo) => {
                let user = self
                    .annotations
                    .entry("user")
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(user) = user {
                    update_annotations(user, &memo.extra);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn system(&self, key: &str) -> Option<&Value> {
        self.jobspec.get("attributes")?.get("system")?.get(key)
    }

    /// The name it was given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.system("job")?.get("name")?.as_str()
    }

    /// Which singletons it belongs to.
    pub(crate) fn member(&self) -> Option<Member> {
        Some((self.userid, self.name()?.to_owned()))
    }

    /// Whether only the instance's owner may update it.
    pub(crate) fn is_immutable(&self) -> bool {
        self.immutable
    }

    /// Whether its constraints are these properties and nothing else.
    pub(crate) fn has_only_properties(&self, properties: &[String]) -> bool {
        let constraints = self.system("constraints").and_then(Value::as_object);
        match constraints.filter(|constraints| !constraints.is_empty()) {
            None => properties.is_empty(),
            Some(found) => found.len() == 1 && found.get("properties") == Some(&properties.into()),
        }
    }

    /// The queue the job is in, if it has a name.
    pub(crate) fn queue(&self) -> Option<&str> {
        self.system("queue")?.as_str()
    }

    /// The priority that the urgency stands for without a priority plugin (RFC 30).
    pub(crate) fn default_priority(&self) -> i64 {
        self.urgency.default_priority().into()
    }

    /// Whether the job may be scheduled: it is not held.
    pub(crate) fn is_eligible(&self) -> bool {
        self.urgency > Urgency::HOLD && self.priority > 0
    }

    /// Order in the queue: higher priority first, then older.
    pub(crate) fn queue_key(&self) -> (std::cmp::Reverse<i64>, JobId) {
        (std::cmp::Reverse(self.priority), self.id)
    }
}

/// Set values in a jobspec by their dotted paths.
pub(crate) fn set_paths(jobspec: &mut Value, updates: &Map<String, Value>) {
    for (path, value) in updates {
        set_path(jobspec, path, value.clone());
    }
}

/// Update a dictionary of annotations as RFC 27 says: null removes, dictionaries merge. None is left empty.
pub(crate) fn update_annotations(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        let Value::Object(new) = value else {
            match value {
                Value::Null => into.shift_remove(key),
                _ => into.insert(key.clone(), value.clone()),
            };
            continue;
        };
        let mut inner = match into.get_mut(key).map(Value::take) {
            Some(Value::Object(old)) => old,
            _ => Map::new(),
        };
        update_annotations(&mut inner, new);
        match inner.is_empty() {
            true => into.shift_remove(key),
            false => into.insert(key.clone(), Value::Object(inner)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replay(events: &[(&str, Value)]) -> Job {
        let mut job = Job::new(JobId(1), 0, Arc::new(json!({})));
        for (name, context) in events {
            let mut event = Event::new(1.0, *name);
            if !context.is_null() {
                event = event.with_context(context.clone());
            }
            job.apply(&event);
        }
        job
    }

    #[test]
    fn states_follow_events() {
        let submit = (
            "submit",
            json!({"userid": 5, "urgency": 16, "flags": 0, "version": 1}),
        );
        let all = [
            (submit, JobState::New),
            (("validate", Value::Null), JobState::Depend),
            (("depend", Value::Null), JobState::Priority),
            (("priority", json!({"priority": 16})), JobState::Sched),
            (("alloc", Value::Null), JobState::Run),
            (("start", Value::Null), JobState::Run),
            (("finish", json!({"status": 256})), JobState::Cleanup),
            (
                ("release", json!({"ranks": "all", "final": true})),
                JobState::Cleanup,
            ),
            (("free", Value::Null), JobState::Cleanup),
            (("clean", Value::Null), JobState::Inactive),
        ];
        for n in 1..=all.len() {
            let events: Vec<_> = all[..n].iter().map(|(e, _)| e.clone()).collect();
            assert_eq!(
                replay(&events).state,
                all[n - 1].1,
                "after {}",
                events[n - 1].0
            );
        }
        let events: Vec<_> = all.iter().map(|(e, _)| e.clone()).collect();
        let job = replay(&events);
        assert_eq!(
            (job.userid, job.status, job.exec, job.alloc),
            (5, Some(256), Exec::Done, Alloc::None)
        );
    }

    #[test]
    fn updates_change_the_job() {
        let mut job = replay(&[
            ("validate", Value::Null),
            ("depend", Value::Null),
            ("priority", json!({"priority": 16})),
            (
                "jobspec-update",
                json!({"attributes.system.duration": 5.0, "attributes.system.queue": "x"}),
            ),
            ("set-flags", json!({"flags": ["immutable"]})),
        ]);
        assert_eq!((job.state, job.queue()), (JobState::Priority, Some("x")));
        assert!(job.is_immutable());
        job.r = Some(Arc::new(json!({"execution": {"expiration": 1.0}})));
        job.apply(&Event::new(1.0, "resource-update").with_context(json!({"expiration": 2.0})));
        assert_eq!(
            job.r.as_deref(),
            Some(&json!({"execution": {"expiration": 2.0}}))
        );
    }

    #[test]
    fn constraints_of_queues_are_told_from_others() {
        let job = |constraints: Value| {
            let jobspec = json!({"attributes": {"system": {"constraints": constraints}}});
            Job::new(JobId(1), 0, Arc::new(jobspec))
        };
        let batch = ["batch".to_owned()];
        assert!(job(json!({"properties": ["batch"]})).has_only_properties(&batch));
        assert!(job(json!({})).has_only_properties(&[]));
        assert!(!job(json!({})).has_only_properties(&batch));
        let both = json!({"properties": ["batch"], "hostlist": ["n1"]});
        assert!(!job(both).has_only_properties(&batch));
    }

    #[test]
    fn a_restart_asks_for_a_new_priority() {
        let start = [
            ("validate", Value::Null),
            ("depend", Value::Null),
            ("priority", json!({"priority": 16})),
            ("flux-restart", Value::Null),
            ("alloc", Value::Null),
        ];
        assert_eq!(replay(&start[..3]).state, JobState::Sched);
        assert_eq!(replay(&start[..4]).state, JobState::Priority);
        let cancel = json!({"type": "dependency", "severity": 0, "note": "", "userid": 1});
        let failed = [("exception", cancel), ("validate", Value::Null)];
        assert_eq!(replay(&failed).state, JobState::Cleanup);
        let running = [&start[..3], &start[4..], &start[3..4]].concat();
        assert_eq!(replay(&running).state, JobState::Run);
    }

    #[test]
    fn fatal_exceptions_end_active_jobs_only() {
        let fatal = (
            "exception",
            json!({"type": "cancel", "severity": 0, "note": ""}),
        );
        let mild = ("exception", json!({"type": "x", "severity": 1}));
        let start = [("validate", Value::Null), ("depend", Value::Null)];
        let with = |e: &(&'static str, Value)| {
            replay(&[start[0].clone(), start[1].clone(), e.clone()]).state
        };
        assert_eq!(with(&fatal), JobState::Cleanup);
        assert_eq!(with(&mild), JobState::Priority);
        assert_eq!(replay(&[fatal]).state, JobState::New);
    }

    #[test]
    fn annotations_merge() {
        let mut a = json!({"sched": {"a": 1, "b": 2}, "user": 1});
        let b = json!({"sched": {"a": null, "c": 3}, "user": {"x": 1, "y": null}});
        update_annotations(a.as_object_mut().unwrap(), b.as_object().unwrap());
        assert_eq!(a, json!({"sched": {"b": 2, "c": 3}, "user": {"x": 1}}));
        let c = json!({"sched": {"b": null, "c": null}, "user": {"y": {"z": null}}});
        update_annotations(a.as_object_mut().unwrap(), c.as_object().unwrap());
        assert_eq!(a, json!({"user": {"x": 1}}));
    }
}
