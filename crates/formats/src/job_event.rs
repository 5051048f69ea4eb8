//! The events of a job's primary eventlog, RFC 21.
//!
//! [`JobEvent`] is made from an [`crate::Event`] and back. Keys that the RFC does not name are kept
//! in `extra`, events it does not name in [`JobEvent::Other`] (those that start with `debug.` are
//! such).
//!
//! ```
//! use formats::{Event, job_event::JobEvent};
//! let event = Event::decode(r#"{"timestamp":1.5,"name":"finish","context":{"status":0}}"#).unwrap();
//! let JobEvent::Finish(finish) = JobEvent::try_from(&event).unwrap() else { panic!() };
//! assert_eq!(finish.status, 0);
//! ```

use crate::Urgency;
use crate::event_enum::event_enum;
pub use crate::event_enum::{EventError, Other, Plain};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

event_enum! {
    /// An event of a job.
    JobEvent {
        Submit(Submit) = "submit",
        /// Dotted paths into the jobspec, such as `attributes.system.duration`, and new values.
        JobspecUpdate(Plain) = "jobspec-update",
        ResourceUpdate(ResourceUpdate) = "resource-update",
        Validate(Plain) = "validate",
        /// The job is to be forgotten.
        Invalidate(Plain) = "invalidate",
        SetFlags(SetFlags) = "set-flags",
        DependencyAdd(Described) = "dependency-add",
        DependencyRemove(Described) = "dependency-remove",
        Depend(Plain) = "depend",
        Priority(Priority) = "priority",
        FluxRestart(Plain) = "flux-restart",
        Urgency(UrgencyChange) = "urgency",
        Alloc(Alloc) = "alloc",
        PrologStart(Described) = "prolog-start",
        PrologFinish(Finished) = "prolog-finish",
        EpilogStart(Described) = "epilog-start",
        EpilogFinish(Finished) = "epilog-finish",
        Free(Plain) = "free",
        Start(Plain) = "start",
        Release(Release) = "release",
        Finish(Finish) = "finish",
        Clean(Plain) = "clean",
        Exception(Exception) = "exception",
        /// Keys and values to keep with the job; null takes a key away.
        Memo(Plain) = "memo",
    }
}

/// The job was submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// Who submitted it.
    pub userid: u32,
    /// How important it was then.
    pub urgency: Urgency,
    /// A mask: 1 signed before submission, 2 debug, 4 waitable, 8 not validated.
    pub flags: u32,
    /// Of the eventlog's format: 1. Logs from before it was named lack it.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn first_version() -> u32 {
    1
}

/// The allocation ends at another time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceUpdate {
    /// Seconds since the Unix epoch.
    pub expiration: f64,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Flags were set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetFlags {
    /// Their names.
    pub flags: Vec<String>,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Something with a name began, or was added or removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// What it is, by name.
    pub description: String,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A prolog or epilog action is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// What it was, by name.
    pub description: String,
    /// 0 is success.
    pub status: i64,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A priority was assigned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Priority {
    /// 0 holds the job.
    pub priority: u32,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The urgency was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UrgencyChange {
    /// The new one.
    pub urgency: Urgency,
    /// Who asked for it.
    pub userid: u32,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Resources were allocated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Alloc {
    /// What the scheduler says about it, RFC 27.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Map<String, Value>>,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Resources were given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// An idset of ranks, or `all`.
    pub ranks: String,
    /// Whether these were the last.
    #[serde(rename = "final")]
    pub last: bool,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The job's shells have ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    /// A status as `wait(2)` gives it: see [`crate::job::WaitStatus`].
    pub status: i32,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Something out of the ordinary happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exception {
    /// Such as `cancel`, `timeout` or `exec`.
    #[serde(rename = "type")]
    pub kind: String,
    /// 0 (ends the job) to 7.
    pub severity: u8,
    /// For people; may be empty.
    #[serde(default)]
    pub note: String,
    /// Who raised it, if not the owner of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userid: Option<u32>,
    /// The wait status of the task that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_status: Option<i32>,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    /// An example of every event in the RFC.
    const EXAMPLES: &[&str] = &[
        r#"{"timestamp":1552593348.073045,"name":"submit","context":{"userid":5588,"urgency":16,"flags":0,"version":1}}"#,
        r#"{"timestamp":1552593348.073045,"name":"jobspec-update","context":{"attributes.system.duration":3600}}"#,
        r#"{"timestamp":1552593348.073045,"name":"resource-update","context":{"expiration":1692206240.0}}"#,
        r#"{"timestamp":1605115080.0358412,"name":"validate"}"#,
        r#"{"timestamp":1605115080.0358412,"name":"invalidate"}"#,
        r#"{"timestamp":1552593348.073045,"name":"set-flags","context":{"flags":["debug"]}}"#,
        r#"{"timestamp":1552593348.073045,"name":"dependency-add","context":{"description":"begin-time=1552594348"}}"#,
        r#"{"timestamp":1552594348.0,"name":"dependency-remove","context":{"description":"begin-time=1552594348"}}"#,
        r#"{"timestamp":1605115080.0358412,"name":"depend"}"#,
        r#"{"timestamp":1552593547.411336,"name":"priority","context":{"priority":42}}"#,
        r#"{"timestamp":1605115080.0358412,"name":"flux-restart"}"#,
        r#"{"timestamp":1552593547.411336,"name":"urgency","context":{"urgency":0,"userid":5588}}"#,
        r#"{"timestamp":1552593348.088391,"name":"alloc","context":{"annotations":{"sched.resource_summary":"rank0/core[0-1]"}}}"#,
        r#"{"timestamp":1552593348.073045,"name":"prolog-start","context":{"description":"/usr/sbin/job-prolog.sh"}}"#,
        r#"{"timestamp":1552594348.0,"name":"prolog-finish","context":{"description":"/usr/sbin/job-prolog.sh","status":0}}"#,
        r#"{"timestamp":1552593348.073045,"name":"epilog-start","context":{"description":"/usr/sbin/job-epilog.sh"}}"#,
        r#"{"timestamp":1552594348.0,"name":"epilog-finish","context":{"description":"/usr/sbin/job-epilog.sh","status":0}}"#,
        r#"{"timestamp":1552593348.093541,"name":"free"}"#,
        r#"{"timestamp":1552593348.089787,"name":"start"}"#,
        r#"{"timestamp":1552593348.09283,"name":"release","context":{"ranks":"all","final":true}}"#,
        r#"{"timestamp":1552593348.090927,"name":"finish","context":{"status":0}}"#,
        r#"{"timestamp":1552593348.104432,"name":"clean"}"#,
        r#"{"timestamp":1552593986.335602,"name":"exception","context":{"type":"oom","severity":0,"note":"out of memory on foo42","userid":5588}}"#,
        r#"{"timestamp":1552593986.335602,"name":"exception","context":{"type":"exec","severity":0,"note":"task failed","wait_status":11}}"#,
        r#"{"timestamp":1637723184.372579,"name":"memo","context":{"key":"value"}}"#,
        r#"{"timestamp":1552594649.848032,"name":"debug.free-request"}"#,
    ];

    #[test]
    fn examples_keep_their_text() {
        for line in EXAMPLES {
            let event = Event::decode(line).unwrap();
            let typed = JobEvent::try_from(&event).unwrap();
            assert_eq!(typed.name(), event.name);
            let debug = event.name.starts_with("debug.");
            assert_eq!(matches!(typed, JobEvent::Other(_)), debug, "{line}");
            assert_eq!(typed.to_event(event.timestamp).encode().trim_end(), *line);
        }
    }

    #[test]
    fn unknown_keys_are_kept() {
        let line = r#"{"timestamp":1.0,"name":"finish","context":{"status":256,"why":{"a":[1]}}}"#;
        let typed = JobEvent::try_from(&Event::decode(line).unwrap()).unwrap();
        assert!(matches!(&typed, JobEvent::Finish(f) if f.extra.contains_key("why")));
        assert_eq!(typed.to_event(1.).encode().trim_end(), line);
    }

    #[test]
    fn faults_name_the_event_and_the_key() {
        for (name, context, want) in [
            ("finish", "{}", "event finish: missing field `status`"),
            (
                "submit",
                r#"{"userid":1,"urgency":32,"flags":0}"#,
                "event submit: urgency 32 is out of range: 0 to 31",
            ),
            (
                "exception",
                r#"{"type":1,"severity":0}"#,
                "event exception: invalid type: integer `1`, expected a string",
            ),
        ] {
            let line = format!(r#"{{"timestamp":1,"name":"{name}","context":{context}}}"#);
            let fault = JobEvent::try_from(&Event::decode(&line).unwrap()).unwrap_err();
            assert_eq!(fault.to_string(), want);
        }
    }
}
