//! One job as job-list knows it: built from the events of its eventlog (RFC 21).
//!
//! [`Job::apply`] is a pure step; replaying the same events gives the same job. The jobspec and R
//! are kept only while they may still be updated, that is until the job is inactive.

use std::sync::Arc;

use formats::job_event::{self, JobEvent};
use formats::{Event, Idset, JobResult, JobState, Jobspec, ResourceSet};
use serde_json::{Map, Value};

/// The first time a job entered a state, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    pub submit: f64,
    pub depend: f64,
    pub priority: f64,
    pub sched: f64,
    pub run: f64,
    pub cleanup: f64,
    pub inactive: f64,
}

/// The most severe exception of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    pub severity: i64,
    pub kind: String,
    pub note: Option<String>,
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: u64,
    pub userid: u32,
    pub urgency: i64,
    pub priority: i64,
    pub state: JobState,
    /// States the job has been in.
    pub states: u32,
    pub times: Times,
    pub name: Option<Arc<str>>,
    pub queue: Option<Arc<str>>,
    pub cwd: Option<Arc<str>>,
    pub project: Option<Arc<str>>,
    pub bank: Option<Arc<str>>,
    pub ntasks: Option<u32>,
    pub ncores: Option<u32>,
    pub nnodes: Option<u32>,
    pub duration: Option<f64>,
    pub ranks: Option<Idset>,
    pub nodelist: Option<Arc<str>>,
    pub expiration: Option<f64>,
    pub wait_status: Option<i64>,
    pub exception: Option<Exception>,
    pub annotations: Option<Value>,
    pub dependencies: Vec<String>,
    jobspec: Option<Box<Value>>,
    resources: Option<Box<Value>>,
}

/// What an event does to a job's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The job stays; its attributes may have changed.
    Kept,
    /// It was never valid: forget it.
    Dropped,
}

impl Job {
    /// A job that was just submitted.
    pub fn new(id: u64) -> Job {
        Job {
            id,
            userid: wire::USERID_UNKNOWN,
            urgency: 0,
            priority: 0,
            state: JobState::New,
            states: JobState::New.bit(),
            times: Times::default(),
            name: None,
            queue: None,
            cwd: None,
            project: None,
            bank: None,
            ntasks: None,
            ncores: None,
            nnodes: None,
            duration: None,
            ranks: None,
            nodelist: None,
            expiration: None,
            wait_status: None,
            exception: None,
            annotations: None,
            dependencies: Vec::new(),
            jobspec: None,
            resources: None,
        }
    }

    /// Takes in the jobspec that came with an event.
    pub fn set_jobspec(&mut self, jobspec: Value) {
        if self.jobspec.is_none() {
            self.jobspec = Some(Box::new(jobspec));
        }
    }

    /// Takes in the R that came with an event.
    pub fn set_resources(&mut self, resources: Value) {
        if self.resources.is_none() {
            self.resources = Some(Box::new(resources));
        }
    }

    /// Whether the job ended well.
    pub fn success(&self) -> bool {
        let fatal = self.exception.as_ref().is_some_and(|e| e.severity == 0);
        self.wait_status == Some(0) && !fatal
    }

    /// How an inactive job ended.
    pub fn result(&self) -> JobResult {
        if self.success() {
            return JobResult::Completed;
        }
        match self.exception.as_ref().map(|e| e.kind.as_str()) {
            Some("cancel") => JobResult::Canceled,
            Some("timeout") => JobResult::Timeout,
            _ => JobResult::Failed,
        }
    }

    /// Whether the job has been in this state.
    pub fn was(&self, state: JobState) -> bool {
        self.states & state.bit() != 0
    }

    /// Takes one event in. Events that say nothing new, or that make no sense, change nothing.
    pub fn apply(&mut self, event: &Event) -> Effect {
        let time = event.timestamp;
        let Ok(typed) = JobEvent::try_from(event) else {
            return Effect::Kept;
        };
        match typed {
            JobEvent::Submit(submit) => {
                self.times.submit = time;
                self.userid = submit.userid;
                self.urgency = submit.urgency.get().into();
                self.read_jobspec();
            }
            JobEvent::Invalidate(_) => return Effect::Dropped,
            JobEvent::Validate(_) => self.enter(JobState::Depend, time),
            JobEvent::Depend(_) => self.enter(JobState::Priority, time),
            JobEvent::Priority(event) => {
                self.priority = event.priority.into();
                if self.state == JobState::Priority {
                    self.enter(JobState::Sched, time);
                }
            }
            JobEvent::Urgency(event) => {
                self.urgency = event.urgency.get().into();
                self.revert(time);
            }
            JobEvent::FluxRestart(_) => self.revert(time),
            JobEvent::Alloc(alloc) => {
                if let Some(annotations) = alloc.annotations {
                    self.annotations = Some(annotations.into());
                }
                self.read_resources();
                self.enter(JobState::Run, time);
            }
            JobEvent::Finish(finish) => {
                self.wait_status = Some(finish.status.into());
                self.enter(JobState::Cleanup, time);
            }
            JobEvent::Exception(exception) => self.apply_exception(exception, time),
            JobEvent::Clean(_) => {
                self.enter(JobState::Inactive, time);
                (self.jobspec, self.resources) = (None, None);
            }
            JobEvent::Memo(memo) => self.apply_memo(&memo.extra),
            JobEvent::JobspecUpdate(update) => {
                self.update_jobspec(&update.extra);
                self.revert(time);
            }
            JobEvent::ResourceUpdate(update) => self.expiration = Some(update.expiration),
            JobEvent::DependencyAdd(added) => {
                self.dependencies.retain(|d| *d != added.description);
                self.dependencies.push(added.description);
            }
            JobEvent::DependencyRemove(gone) => {
                self.dependencies.retain(|d| *d != gone.description);
            }
            JobEvent::Other(other) if other.name == "annotations" => {
                let annotations = event.get("annotations");
                self.annotations = annotations.filter(|a| !a.is_null()).cloned();
            }
            _ => {}
        }
        Effect::Kept
    }

    /// Enters a state. PRIORITY and SCHED may be entered again; the first time counts.
    fn enter(&mut self, state: JobState, time: f64) {
        let again = matches!(state, JobState::Priority | JobState::Sched);
        if self.was(state) && !again {
            return;
        }
        let since = match state {
            JobState::New => return,
            JobState::Depend => &mut self.times.depend,
            JobState::Priority => &mut self.times.priority,
            JobState::Sched => &mut self.times.sched,
            JobState::Run => &mut self.times.run,
            JobState::Cleanup => &mut self.times.cleanup,
            JobState::Inactive => &mut self.times.inactive,
        };
        if !again || *since == 0.0 {
            *since = time;
        }
        self.state = state;
        self.states |= state.bit();
    }

    /// Events that change what the priority depends on take a job from SCHED back to PRIORITY.
    fn revert(&mut self, time: f64) {
        if self.state == JobState::Sched {
            self.states &= !JobState::Sched.bit();
            self.enter(JobState::Priority, time);
        }
    }

    fn apply_exception(&mut self, new: job_event::Exception, time: f64) {
        let severity = i64::from(new.severity);
        if self
            .exception
            .as_ref()
            .is_none_or(|e| severity < e.severity)
        {
            self.exception = Some(Exception {
                severity,
                kind: new.kind,
                note: Some(new.note),
            });
        }
        if severity == 0 {
            self.enter(JobState::Cleanup, time);
        }
    }

    fn apply_memo(&mut self, memo: &Map<String, Value>) {
        let mut all = match self.annotations.take() {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let mut user = match all.remove("user") {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        merge(&mut user, memo);
        if !user.is_empty() {
            all.insert("user".into(), Value::Object(user));
        }
        if !all.is_empty() {
            self.annotations = Some(Value::Object(all));
        }
    }

    fn update_jobspec(&mut self, updates: &Map<String, Value>) {
        let Some(jobspec) = &mut self.jobspec else {
            return;
        };
        for (path, value) in updates {
            let top = path.split('.').next().unwrap_or_default();
            if matches!(top, "resources" | "tasks" | "attributes") {
                crate::info::set_path(jobspec, path, value.clone());
            }
        }
        self.read_jobspec();
    }

    /// Sets the attributes that come from the jobspec. What it does not say stays unknown.
    fn read_jobspec(&mut self) {
        let Some(value) = &self.jobspec else { return };
        let system = &value["attributes"]["system"];
        let text = |key: &str| system[key].as_str().map(Arc::from);
        (self.cwd, self.queue) = (text("cwd"), text("queue"));
        (self.project, self.bank) = (text("project"), text("bank"));
        self.duration = system["duration"].as_f64();
        self.name = match system["job"]["name"].as_str() {
            Some(name) => Some(name.into()),
            None => value["tasks"][0]["command"][0]
                .as_str()
                .map(|c| base_name(c).into()),
        };
        let Ok(jobspec) = Jobspec::from_value((**value).clone()) else {
            return;
        };
        let Ok(counts) = jobspec.resource_counts() else {
            return;
        };
        self.nnodes = Some(counts.nnodes).filter(|n| *n > 0);
        self.ncores = if counts.nnodes > 0 && counts.exclusive {
            None
        } else {
            Some(counts.nslots * counts.slot_size)
        };
        self.ntasks = match per_resource(value) {
            Some(("node", n)) => self.nnodes.map(|nodes| nodes * n),
            Some(("core", n)) if counts.nnodes == 0 => Some(counts.nslots * counts.slot_size * n),
            Some(("core", _)) => None,
            _ => match value["tasks"][0]["count"]["total"].as_u64() {
                Some(total) => Some(total as u32),
                None => Some(counts.nslots),
            },
        };
    }

    /// Sets the attributes that come from R.
    fn read_resources(&mut self) {
        let Some(value) = &self.resources else { return };
        let Ok(set) = ResourceSet::try_from((**value).clone()) else {
            return;
        };
        self.expiration = Some(set.expiration);
        self.nnodes = Some(set.nnodes() as u32);
        self.ncores = Some(set.ncores() as u32);
        self.ranks = Some(set.ranks());
        self.nodelist = Some(set.nodelist().to_string().into());
        match self.jobspec.as_deref().and_then(per_resource) {
            Some(("node", n)) => self.ntasks = Some(set.nnodes() as u32 * n),
            Some(("core", n)) if self.ntasks.is_none() => {
                self.ntasks = Some(set.ncores() as u32 * n);
            }
            _ => {}
        }
    }
}

/// Last component of a command's path; a path that ends in a slash is no program's, and stays.
fn base_name(command: &str) -> &str {
    match command.rsplit_once('/') {
        Some((_, name)) if !name.is_empty() => name,
        _ => command,
    }
}

/// Shell option `per-resource`: tasks per node or core.
fn per_resource(jobspec: &Value) -> Option<(&str, u32)> {
    let option = &jobspec["attributes"]["system"]["shell"]["options"]["per-resource"];
    let count = option["count"].as_u64().unwrap_or(1);
    Some((option["type"].as_str()?, count as u32))
}

/// Merges a memo: dotted keys name nested members, null removes one.
fn merge(map: &mut Map<String, Value>, memo: &Map<String, Value>) {
    for (path, value) in memo {
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path.as_str(), None),
        };
        let inner = match (rest, value) {
            (Some(rest), _) => Map::from_iter([(rest.to_owned(), value.clone())]),
            (None, Value::Object(inner)) => inner.clone(),
            (None, Value::Null) => {
                map.remove(key);
                continue;
            }
            (None, _) => {
                map.insert(key.to_owned(), value.clone());
                continue;
            }
        };
        let mut sub = match map.remove(key) {
            Some(Value::Object(sub)) => sub,
            _ => Map::new(),
        };
        merge(&mut sub, &inner);
        if !sub.is_empty() {
            map.insert(key.to_owned(), Value::Object(sub));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn event(time: f64, name: &str, context: Value) -> Event {
        Event::new(time, name).with_context(context)
    }

    pub(crate) fn jobspec(queue: &str) -> Value {
        json!({
            "version": 1,
            "resources": [{"type": "slot", "count": 2, "label": "task",
                           "with": [{"type": "core", "count": 3}]}],
            "tasks": [{"command": ["/bin/prog", "x"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 60.0, "cwd": "/tmp", "queue": queue}},
        })
    }

    #[test]
    fn a_life() {
        let mut job = Job::new(7);
        job.set_jobspec(jobspec("debug"));
        job.apply(&event(
            1.0,
            "submit",
            json!({"userid": 5, "urgency": 16, "flags": 0, "version": 1}),
        ));
        assert_eq!(
            (job.state, job.userid, job.name.as_deref()),
            (JobState::New, 5, Some("prog"))
        );
        assert_eq!(
            (job.ntasks, job.ncores, job.nnodes),
            (Some(2), Some(6), None)
        );
        job.apply(&event(2.0, "validate", json!({})));
        job.apply(&event(
            2.1,
            "dependency-add",
            json!({"description": "after:1"}),
        ));
        job.apply(&event(3.0, "depend", json!({})));
        job.apply(&event(4.0, "priority", json!({"priority": 16})));
        assert_eq!(job.state, JobState::Sched);
        job.apply(&event(5.0, "urgency", json!({"urgency": 20, "userid": 5})));
        assert_eq!(
            (job.state, job.was(JobState::Sched)),
            (JobState::Priority, false)
        );
        job.apply(&event(
            6.0,
            "jobspec-update",
            json!({"attributes.system.duration": 90.0}),
        ));
        job.apply(&event(6.0, "priority", json!({"priority": 20})));
        assert_eq!((job.times.sched, job.times.priority), (4.0, 3.0));
        assert_eq!((job.duration, job.priority), (Some(90.0), 20));
        job.set_resources(json!({"version": 1, "execution": {
            "R_lite": [{"rank": "1-2", "children": {"core": "0-2"}}],
            "starttime": 7.0, "expiration": 97.0, "nodelist": ["n[1-2]"]}}));
        let summary = json!({"sched": {"resource_summary": "rank[1-2]/core[0-2]"}});
        job.apply(&event(7.0, "alloc", json!({"annotations": summary})));
        assert_eq!(job.annotations, Some(summary));
        assert_eq!(job.nodelist.as_deref(), Some("n[1-2]"));
        assert_eq!((job.nnodes, job.expiration), (Some(2), Some(97.0)));
        job.apply(&event(7.5, "resource-update", json!({"expiration": 100.0})));
        job.apply(&event(8.0, "finish", json!({"status": 0})));
        job.apply(&event(9.0, "clean", json!({})));
        assert_eq!(
            (job.state, job.result()),
            (JobState::Inactive, JobResult::Completed)
        );
        assert_eq!(job.expiration, Some(100.0));
    }

    #[test]
    fn exceptions_and_memos() {
        let mut job = Job::new(1);
        job.apply(&event(1.0, "memo", json!({"a.b": 1, "c": "x"})));
        job.apply(&event(1.0, "memo", json!({"c": null})));
        assert_eq!(job.annotations, Some(json!({"user": {"a": {"b": 1}}})));
        job.apply(&event(1.0, "memo", json!({"a.b": null})));
        assert_eq!(job.annotations, None);
        job.apply(&event(
            2.0,
            "exception",
            json!({"type": "warn", "severity": 3, "note": ""}),
        ));
        assert_eq!(job.state, JobState::New);
        job.apply(&event(
            3.0,
            "exception",
            json!({"type": "cancel", "severity": 0, "note": "n"}),
        ));
        assert_eq!((job.state, job.times.cleanup), (JobState::Cleanup, 3.0));
        job.apply(&event(4.0, "finish", json!({"status": 15})));
        assert_eq!(job.times.cleanup, 3.0);
        assert_eq!(job.result(), JobResult::Canceled);
        assert_eq!(
            job.apply(&event(5.0, "invalidate", json!({}))),
            Effect::Dropped
        );
    }
}
