//! What plugins in Rust can do to jobs.

use serde_json::{Map, Value, json};

use crate::author::{Call, Error, Plugin};

/// A job, as a plugin names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// That of the innermost call.
    Current,
    Id(u64),
}

impl Job {
    fn id(self) -> Value {
        match self {
            Self::Current => Value::Null,
            Self::Id(id) => id.into(),
        }
    }
}

impl Call {
    /// The job this call is about.
    pub fn id(&self) -> Option<u64> {
        self.input.get("id").and_then(Value::as_u64)
    }

    /// What is at a path of the jobspec, such as `attributes.system.bank`.
    pub fn jobspec(&self, path: &str) -> Option<&Value> {
        let spec = self.input.get("jobspec")?;
        path.split('.').try_fold(spec, |value, key| value.get(key))
    }

    /// Say which priority the job has.
    pub fn set_priority(&mut self, priority: i64) {
        self.output.insert("priority".to_owned(), priority.into());
    }

    /// Say that the job's priority is not known yet.
    pub fn priority_unavail(&mut self) {
        self.set_priority(-1);
    }
}

/// What the header calls by the same names.
impl Plugin {
    pub fn dependency_add(&self, job: Job, description: &str) -> Result<(), Error> {
        self.ask(
            "dependency_add",
            json!({ "id": job.id(), "description": description }),
        )
        .map(drop)
    }

    pub fn dependency_remove(&self, job: Job, description: &str) -> Result<(), Error> {
        self.ask(
            "dependency_remove",
            json!({ "id": job.id(), "description": description }),
        )
        .map(drop)
    }

    /// What is known of a job.
    pub fn job_lookup(&self, job: Job) -> Result<Map<String, Value>, Error> {
        match self.ask("job_lookup", json!({ "id": job.id() }))? {
            Value::Object(job) => Ok(job),
            other => Err(format!("not a job: {other}").into()),
        }
    }

    pub fn event_post(&self, job: Job, name: &str, context: Value) -> Result<(), Error> {
        self.ask(
            "event_post",
            json!({ "id": job.id(), "name": name, "context": context }),
        )
        .map(drop)
    }

    pub fn raise(&self, job: Job, kind: &str, severity: i64, note: &str) -> Result<(), Error> {
        let params = json!({ "id": job.id(), "kind": kind, "severity": severity, "note": note });
        self.ask("raise", params).map(drop)
    }

    pub fn reprioritize_all(&self) -> Result<(), Error> {
        self.ask("reprioritize_all", json!({})).map(drop)
    }

    pub fn reprioritize(&self, job: Job, priority: i64) -> Result<(), Error> {
        self.ask(
            "reprioritize",
            json!({ "id": job.id(), "priority": priority }),
        )
        .map(drop)
    }

    pub fn subscribe(&self, job: Job) -> Result<(), Error> {
        self.ask("subscribe", json!({ "id": job.id() })).map(drop)
    }

    pub fn timer(&self, seconds: f64, topic: &str) -> Result<(), Error> {
        self.ask("timer", json!({ "seconds": seconds, "topic": topic }))
            .map(drop)
    }
}
