//! What plugins in Rust can ask of the shell: the functions of `shell.h`, by the same names.

use serde_json::{Map, Value, json};

use crate::author::{Error, Plugin};

/// The job shell, as a plugin sees it.
#[derive(Clone, Copy)]
pub struct Shell<'a>(pub(crate) &'a Plugin);

impl Plugin {
    /// The shell this plugin is loaded into.
    pub fn shell(&self) -> Shell<'_> {
        Shell(self)
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

impl Shell<'_> {
    fn tell(self, method: &str, params: Value) -> Result<(), Error> {
        self.0.ask(method, params).map(drop)
    }

    pub fn getopt(self, path: &str) -> Result<Option<Value>, Error> {
        let value = self.0.ask("getopt", json!({ "path": path }))?;
        Ok((!value.is_null()).then_some(value))
    }

    /// Null removes the option.
    pub fn setopt(self, path: &str, value: Value) -> Result<(), Error> {
        self.tell("setopt", json!({ "path": path, "json": value }))
    }

    pub fn getenv(self, name: &str) -> Result<Option<String>, Error> {
        self.0.ask("getenv", json!({ "name": name })).map(text)
    }

    pub fn setenv(self, name: &str, value: &str, overwrite: bool) -> Result<(), Error> {
        self.tell(
            "setenv",
            json!({ "name": name, "value": value, "overwrite": overwrite }),
        )
    }

    pub fn unsetenv(self, name: &str) -> Result<(), Error> {
        self.tell("unsetenv", json!({ "name": name }))
    }

    pub fn info(self) -> Result<Value, Error> {
        self.0.ask("info", json!({}))
    }

    /// Of this shell if there is no rank.
    pub fn rank_info(self, shell_rank: Option<u32>) -> Result<Value, Error> {
        let rank = shell_rank.map_or(-1, i64::from);
        self.0.ask("rank_info", json!({ "shell_rank": rank }))
    }

    pub fn jobspec_info(self) -> Result<Value, Error> {
        self.0.ask("jobspec_info", json!({}))
    }

    pub fn taskmap(self) -> Result<Option<String>, Error> {
        self.0.ask("taskmap", json!({})).map(text)
    }

    pub fn hostlist(self) -> Result<Option<String>, Error> {
        self.0.ask("hostlist", json!({})).map(text)
    }

    /// The current task if there is no index.
    pub fn task_info(self, index: Option<u32>) -> Result<Value, Error> {
        let index = index.map_or(-1, i64::from);
        self.0.ask("task_info", json!({ "index": index }))
    }

    pub fn task_setenv(self, name: &str, value: &str, overwrite: bool) -> Result<(), Error> {
        self.tell(
            "task_setenv",
            json!({ "name": name, "value": value, "overwrite": overwrite }),
        )
    }

    pub fn add_event_context(self, event: &str, context: Map<String, Value>) -> Result<(), Error> {
        self.tell(
            "add_event_context",
            json!({ "event": event, "context": context }),
        )
    }

    pub fn add_completion_ref(self, name: &str) -> Result<(), Error> {
        self.tell("add_completion_ref", json!({ "name": name }))
    }

    pub fn remove_completion_ref(self, name: &str) -> Result<(), Error> {
        self.tell("remove_completion_ref", json!({ "name": name }))
    }

    pub fn killall(self, signum: i32) -> Result<(), Error> {
        self.tell("killall", json!({ "signum": signum }))
    }

    pub fn raise(self, kind: &str, severity: i32, note: &str) -> Result<(), Error> {
        self.tell(
            "raise",
            json!({ "kind": kind, "severity": severity, "note": note }),
        )
    }

    pub fn service_register(self, method: &str) -> Result<(), Error> {
        self.tell("service_register", json!({ "method": method }))
    }

    pub fn event_subscribe(self, subtopic: &str) -> Result<(), Error> {
        self.tell("event_subscribe", json!({ "subtopic": subtopic }))
    }

    /// The answer comes as `topic`.
    pub fn rpc(
        self,
        method: &str,
        shell_rank: u32,
        payload: Map<String, Value>,
        topic: &str,
    ) -> Result<(), Error> {
        self.tell(
            "rpc",
            json!({ "method": method, "shell_rank": shell_rank, "payload": payload, "topic": topic }),
        )
    }

    pub fn render(self, template: &str) -> Result<Option<String>, Error> {
        self.0
            .ask("render", json!({ "template": template }))
            .map(text)
    }
}
