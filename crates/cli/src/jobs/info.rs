//! One job: the fields output formats can show.

use formats::{JobId, JobResult, JobState};
use serde_json::{Map, Value as Json, json};

use super::reason;
use super::stats::Stats;
use crate::format::{Item, Value};
use crate::resources::Counts;

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    formats::eventlog::timestamp(std::time::SystemTime::now())
}

/// What is known of the instance a job runs, if it runs one.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) stats: Stats,
    pub(crate) resources: Counts,
}

/// A job with the attributes that were asked for.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    attrs: Map<String, Json>,
    pub(crate) instance: Option<Instance>,
    /// When the list was made.
    pub(crate) now: f64,
    /// The mock job of an instance that is no job prints `.` for its id.
    pub(crate) is_root: bool,
}

/// Attributes that print as nothing or zero if they were not returned.
const DEFAULTS: [(&str, bool); 22] = [
    ("t_depend", true),
    ("t_priority", true),
    ("t_sched", true),
    ("t_run", true),
    ("t_cleanup", true),
    ("t_inactive", true),
    ("duration", true),
    ("expiration", true),
    ("name", false),
    ("cwd", false),
    ("queue", false),
    ("project", false),
    ("bank", false),
    ("ntasks", false),
    ("ncores", false),
    ("nnodes", false),
    ("priority", false),
    ("ranks", false),
    ("nodelist", false),
    ("success", false),
    ("result", false),
    ("waitstatus", false),
];

/// Fields after [`DEFAULTS`] in JSON output.
const PROPERTIES: [&str; 12] = [
    "id",
    "t_submit",
    "t_remaining",
    "state",
    "result",
    "username",
    "userid",
    "urgency",
    "runtime",
    "status",
    "returncode",
    "dependencies",
];

impl Job {
    pub(crate) fn new(attrs: Map<String, Json>, now: f64) -> Job {
        let id = JobId(attrs.get("id").and_then(Json::as_u64).unwrap_or(0));
        Job {
            id,
            attrs,
            instance: None,
            now,
            is_root: false,
        }
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&Json> {
        self.attrs.get(name)
    }

    pub(crate) fn string(&self, name: &str) -> &str {
        self.raw(name).and_then(Json::as_str).unwrap_or("")
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.raw(name).and_then(Json::as_i64)
    }

    pub(crate) fn time(&self, name: &str) -> f64 {
        self.raw(name).and_then(Json::as_f64).unwrap_or(0.)
    }

    pub(crate) fn state(&self) -> Option<JobState> {
        let bit = self.integer("state")?;
        JobState::from_bit(u32::try_from(bit).ok()?)
    }

    pub(crate) fn result(&self) -> Option<JobResult> {
        let bit = self.integer("result")?;
        JobResult::from_bit(u32::try_from(bit).ok()?)
    }

    pub(crate) fn userid(&self) -> Option<u32> {
        self.integer("userid").and_then(|u| u32::try_from(u).ok())
    }

    /// A value in the annotations.
    pub(crate) fn annotation(&self, path: &[&str]) -> Option<&Json> {
        let mut at = self.raw("annotations")?;
        for key in path {
            at = at.get(key)?;
        }
        Some(at)
    }

    /// Where the instance that this job is can be reached.
    pub(crate) fn uri(&self) -> Option<String> {
        let uri = self.annotation(&["user", "uri"])?.as_str()?;
        if uri.is_empty() {
            return None;
        }
        match std::env::var_os("FLUX_URI_RESOLVE_LOCAL").is_some_and(|v| !v.is_empty()) {
            true => Some(local_uri(uri)),
            false => Some(uri.to_owned()),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state() == Some(JobState::Run)
    }

    fn runtime(&self) -> f64 {
        match (self.time("t_run"), self.time("t_cleanup")) {
            (run, cleanup) if run > 0. && cleanup > 0. => cleanup - run,
            (run, _) if run > 0. => self.now - run,
            _ => 0.,
        }
    }

    fn remaining(&self) -> f64 {
        match self.is_running() {
            true => (self.time("expiration") - self.now).max(0.),
            false => 0.,
        }
    }

    /// The wait status as a shell shows it: exit code, or the negative signal number.
    pub(crate) fn returncode(&self) -> Option<i64> {
        match self.integer("waitstatus") {
            Some(status) => {
                let status = formats::job::WaitStatus(status as i32);
                match status.signal() {
                    Some(signal) => Some(-i64::from(signal)),
                    None => status.code().map(i64::from),
                }
            }
            None => match self.result() {
                Some(JobResult::Canceled) => Some(-128),
                Some(JobResult::Failed) => Some(1),
                _ => None,
            },
        }
    }

    pub(crate) fn dependencies(&self) -> String {
        let list = self.raw("dependencies").and_then(Json::as_array);
        let shown = list.into_iter().flatten().filter_map(Json::as_str);
        shown.map(reason::dependency).collect::<Vec<_>>().join(",")
    }

    fn username(&self) -> Value {
        let Some(uid) = self.userid() else {
            return Value::Empty;
        };
        Value::Str(user_name(uid))
    }

    /// The state of an active job, the result of an inactive one.
    fn status(
        &self,
        state: fn(JobState) -> &'static str,
        result: fn(JobResult) -> &'static str,
    ) -> Value {
        match self.state() {
            Some(JobState::Inactive) => Value::from(self.result().map_or("", result)),
            Some(other) => Value::from(state(other)),
            None => Value::Empty,
        }
    }

    fn instance_field(&self, path: &str) -> Value {
        let Some(instance) = &self.instance else {
            return Value::Empty;
        };
        let ratio = |part: i64, all: i64| match all {
            0 => Value::from(""),
            _ => Value::Float(part as f64 / all as f64),
        };
        let stats = &instance.stats;
        let get = |state, what| instance.resources.get(state, what);
        match path {
            "utilization" => ratio(
                get("allocated", "ncores").unwrap_or(0),
                get("all", "ncores").unwrap_or(0),
            ),
            "gpu_utilization" => ratio(
                get("allocated", "ngpus").unwrap_or(0),
                get("all", "ngpus").unwrap_or(0),
            ),
            "progress" => ratio(stats.inactive, stats.total),
            "stats" => Value::Str(format!(
                "PD:{} R:{} CD:{} F:{}",
                stats.pending, stats.running, stats.successful, stats.failed
            )),
            "stats.total" => Value::Int(stats.total),
            "stats.pending" => Value::Int(stats.pending),
            "stats.running" => Value::Int(stats.running),
            "stats.successful" => Value::Int(stats.successful),
            "stats.failed" => Value::Int(stats.failed),
            "stats.inactive" => Value::Int(stats.inactive),
            "stats.active" => Value::Int(stats.active()),
            other => {
                let parts = other
                    .strip_prefix("resources.")
                    .and_then(|p| p.split_once('.'));
                parts
                    .and_then(|(state, what)| get(state, what))
                    .map_or(Value::Empty, Value::Int)
            }
        }
    }

    /// All attributes as JSON, unset ones left out.
    pub(crate) fn to_json(&self) -> Map<String, Json> {
        let mut out = Map::new();
        for name in DEFAULTS.iter().map(|d| d.0).chain(PROPERTIES) {
            let value = match name {
                "id" => json!(self.id.0),
                "dependencies" => self.raw("dependencies").cloned().unwrap_or(json!([])),
                "success" | "annotations" => self.raw(name).cloned().unwrap_or(json!("")),
                name => match self.field(name) {
                    Value::Str(s) => json!(s),
                    Value::Int(n) => json!(n),
                    Value::Float(x) => json!(x),
                    Value::Bool(b) => json!(b),
                    _ => continue,
                },
            };
            let is_time = name.starts_with("t_") || name == "runtime" || name == "expiration";
            if value == json!("") || (is_time && value.as_f64() == Some(0.)) {
                out.shift_remove(name);
                continue;
            }
            out.insert(name.to_owned(), value);
        }
        out.insert("jobid".into(), json!(crate::jobid::shown(self.id)));
        let mut annotations = self.raw("annotations").cloned().unwrap_or(json!({}));
        let uri = self.uri();
        if uri.is_some()
            && let Some(Json::Object(user)) = annotations.get_mut("user")
        {
            user.shift_remove("uri");
            if user.is_empty()
                && let Json::Object(annotations) = &mut annotations
            {
                annotations.shift_remove("user");
            }
        }
        out.insert("annotations".into(), annotations);
        let occurred = self.raw("exception_occurred").and_then(Json::as_bool) == Some(true);
        let part = |name: &str| self.raw(name).cloned().unwrap_or(json!(""));
        let exception = match occurred {
            true => json!({
                "occurred": true,
                "severity": part("exception_severity"),
                "type": part("exception_type"),
                "note": part("exception_note"),
            }),
            false => json!({"occurred": false}),
        };
        out.insert("exception".into(), exception);
        if let Some(uri) = uri {
            out.insert("uri".into(), json!(uri));
        }
        out
    }
}

/// The user's name, or the number if there is no such user.
pub(crate) fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// The URI for use on the instance's own host.
pub(crate) fn local_uri(uri: &str) -> String {
    let path = uri.strip_prefix("ssh://").and_then(|r| r.split_once('/'));
    path.map_or_else(|| uri.to_owned(), |(_, path)| format!("local:///{path}"))
}

fn state_emoji(state: JobState) -> &'static str {
    match state {
        JobState::New => "\u{1f381}",
        JobState::Depend => "\u{1f6d1}",
        JobState::Priority => "\u{1f6a6}",
        JobState::Sched => "\u{1f4c5}",
        JobState::Run => "\u{1f3c3}",
        JobState::Cleanup => "\u{1f5d1}",
        JobState::Inactive => "\u{1f480}",
    }
}

fn result_emoji(result: JobResult) -> &'static str {
    match result {
        JobResult::Completed => "\u{1f600}",
        JobResult::Failed => "\u{1f4a9}",
        JobResult::Canceled => "\u{1f4a5}",
        JobResult::Timeout => "\u{231b}",
    }
}

impl Item for Job {
    fn field(&self, name: &str) -> Value {
        if let Some(kind) = name.strip_prefix("id.") {
            if self.is_root {
                return Value::from(".");
            }
            return match kind {
                "f58" => Value::Str(crate::jobid::shown(self.id)),
                kind => self.id.encode(kind).map_or(Value::Empty, Value::Str),
            };
        }
        let annotated = |path: &[&str]| self.annotation(path).map_or(Value::Empty, Value::from);
        if let Some(path) = name.strip_prefix("annotations.") {
            return annotated(&path.split('.').collect::<Vec<_>>());
        }
        if name.starts_with("sched.") || name.starts_with("user.") {
            return annotated(&name.split('.').collect::<Vec<_>>());
        }
        if let Some(path) = name.strip_prefix("instance.") {
            return self.instance_field(path);
        }
        if let Some(part) = name.strip_prefix("exception.") {
            let raw = self.raw(&format!("exception_{part}"));
            return raw.map_or(Value::from(""), Value::from);
        }
        match name {
            "id" if self.is_root => Value::from("."),
            "id" => Value::Id(self.id),
            "username" => self.username(),
            "state" => self.state().map_or(Value::Empty, |s| Value::from(s.name())),
            "state_single" => self
                .state()
                .map_or(Value::Empty, |s| Value::from(s.abbrev())),
            "state_emoji" => self
                .state()
                .map_or(Value::Empty, |s| Value::from(state_emoji(s))),
            "result" => Value::from(self.result().map_or("", JobResult::name)),
            "result_abbrev" => Value::from(self.result().map_or("", JobResult::abbrev)),
            "result_emoji" => Value::from(self.result().map_or("\u{3000}", result_emoji)),
            "status" => self.status(JobState::name, JobResult::name),
            "status_abbrev" => self.status(JobState::abbrev, JobResult::abbrev),
            "status_emoji" => self.status(state_emoji, result_emoji),
            "runtime" => Value::Float(self.runtime()),
            "t_remaining" => Value::Float(self.remaining()),
            "returncode" => self.returncode().map_or(Value::from(""), Value::Int),
            "dependencies" => Value::Str(self.dependencies()),
            "contextual_info" => Value::Str(reason::contextual(self)),
            "contextual_time" => match self.state() {
                Some(JobState::Priority | JobState::Depend | JobState::Sched) => {
                    self.field("duration")
                }
                _ => Value::Float(self.runtime()),
            },
            "inactive_reason" => Value::Str(reason::ended(self)),
            "annotations" => annotated(&[]),
            "sched" | "user" => annotated(&[name]),
            // Upstream's word for no URI; scripts look for it.
            "uri" => Value::Str(self.uri().unwrap_or_else(|| "None".to_owned())),
            "uri.local" => self
                .uri()
                .map_or(Value::Empty, |u| Value::Str(local_uri(&u))),
            other => match (self.raw(other), DEFAULTS.iter().find(|d| d.0 == other)) {
                // Times may come as integers; they are numbers with a fraction all the same.
                (Some(json), Some((_, true))) => Value::Float(json.as_f64().unwrap_or(0.)),
                (Some(json), _) => Value::from(json),
                (None, Some((_, true))) => Value::Float(0.),
                (None, Some((_, false))) => Value::from(""),
                (None, None) => Value::Empty,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(attrs: Json) -> Job {
        let Json::Object(attrs) = attrs else {
            panic!("an object")
        };
        Job::new(attrs, 1000.)
    }

    #[test]
    fn times_and_status() {
        let running = job(json!({"id": 1, "state": 16, "t_run": 990.0, "expiration": 1060.0}));
        assert_eq!(running.field("runtime"), Value::Float(10.));
        assert_eq!(running.field("t_remaining"), Value::Float(60.));
        assert_eq!(running.field("status_abbrev"), Value::from("R"));
        let done = job(json!({"id": 1, "state": 64, "result": 2, "waitstatus": 256,
                              "t_run": 10.0, "t_cleanup": 12.5}));
        assert_eq!(done.field("runtime"), Value::Float(2.5));
        assert_eq!(done.field("status_abbrev"), Value::from("F"));
        assert_eq!(done.field("returncode"), Value::Int(1));
        assert_eq!(done.field("inactive_reason"), Value::from("Exit 1"));
    }

    #[test]
    fn what_a_job_waits_for() {
        let shown = |attrs| job(attrs).field("contextual_info").text();
        let cases = [
            json!({"id": 1, "state": 2, "dependencies": ["after-success=1", "x"]}),
            json!({"id": 1, "state": 4}),
            json!({"id": 1, "state": 8, "urgency": 0}),
            json!({"id": 1, "state": 8, "urgency": 16, "priority": 0}),
            json!({"id": 1, "state": 8, "annotations": {"sched": {"t_estimate": 1090.0}}}),
            json!({"id": 1, "state": 16, "nodelist": "n[0-3]"}),
        ];
        insta::assert_snapshot!(cases.map(shown).join("\n"), @r"
        depends:after-success=1,x
        priority-wait
        held
        priority-hold
        eta:1.5m
        n[0-3]
        ");
    }

    #[test]
    fn json_leaves_out_what_is_unset() {
        let job = job(
            json!({"id": 5, "state": 64, "result": 4, "userid": 0, "t_submit": 3.5,
            "urgency": 16, "name": "hostname", "exception_occurred": true, "exception_type": "cancel",
            "exception_severity": 0, "exception_note": "", "annotations": {"user": {"uri": "ssh://h/x"}}}),
        );
        insta::assert_snapshot!(crate::pyjson::dumps(&Json::Object(job.to_json())), @r#"{"duration": 0.0, "name": "hostname", "result": "CANCELED", "id": 5, "t_submit": 3.5, "state": "INACTIVE", "username": "root", "userid": 0, "urgency": 16, "status": "CANCELED", "returncode": -128, "dependencies": [], "jobid": "\u01926", "annotations": {}, "exception": {"occurred": true, "severity": 0, "type": "cancel", "note": ""}, "uri": "ssh://h/x"}"#);
    }
}
