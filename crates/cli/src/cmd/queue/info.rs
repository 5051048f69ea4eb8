//! What is configured of a queue, and what it has.
//!
//! A key is looked up in the queue's own table, then in its parent's (RFC 33 virtual queues), then
//! in the global one.

use serde_json::Value as Json;

use super::Status;
use crate::error::Failure;
use crate::format::{Item, Value};
use crate::resources::{Counts, Resources, with_properties};

/// One queue of a listing.
#[derive(Debug)]
pub(super) struct Queue {
    name: String,
    is_default: bool,
    status: Status,
    /// Tables to look in, the nearest first.
    tables: Vec<Json>,
    resources: Counts,
}

const SIZES: [&str; 3] = ["nnodes", "ncores", "ngpus"];

impl Queue {
    pub(super) fn new(
        name: &str,
        config: &Json,
        status: Status,
        resources: &Resources,
    ) -> Result<Queue, Failure> {
        let queues = &config["queues"];
        let own = &queues[name];
        let parent = match status.parent.as_deref().filter(|p| !p.is_empty()) {
            Some(parent) if queues[parent].is_null() => {
                return Err(Failure::new(format!(
                    "queue '{name}': parent queue '{parent}' is not configured"
                )));
            }
            Some(parent) => queues[parent].clone(),
            None => Json::Null,
        };
        let requires = own["requires"].as_array().or(parent["requires"].as_array());
        let counts = match requires {
            None => resources.counts(),
            Some(list) => {
                let list: Vec<String> = list
                    .iter()
                    .filter_map(Json::as_str)
                    .map(str::to_owned)
                    .collect();
                let mut mine = resources.clone();
                mine.keep(&with_properties(&mine.all, &list).ranks());
                mine.counts()
            }
        };
        let default = &config["policy"]["jobspec"]["defaults"]["system"]["queue"];
        Ok(Queue {
            name: name.to_owned(),
            is_default: name.is_empty() || default.as_str() == Some(name),
            status,
            tables: vec![own.clone(), parent, config.clone()],
            resources: counts,
        })
    }

    fn find(&self, path: &[&str]) -> Option<&Json> {
        self.tables.iter().find_map(|table| {
            let at = path.iter().try_fold(table, |at, key| at.get(key))?;
            Some(at)
        })
    }

    /// A duration in seconds; infinite if unset.
    fn duration(&self, path: &[&str]) -> f64 {
        match self.find(path) {
            Some(Json::String(text)) => formats::fsd::parse(text).unwrap_or(f64::INFINITY),
            Some(Json::Number(n)) => n.as_f64().unwrap_or(f64::INFINITY),
            _ => f64::INFINITY,
        }
    }

    /// A limit of job sizes; `None` is unlimited.
    fn size(&self, limit: &str, what: &str) -> Option<i64> {
        let found = self.find(&["policy", "limits", "job-size", limit, what]);
        match (found.and_then(Json::as_i64), limit) {
            (Some(n), _) if n < 0 => None,
            (None, "min") => Some(0),
            (n, _) => n,
        }
    }

    fn is_paused(&self) -> bool {
        self.status.blocked.as_deref() == Some("parent")
    }

    fn limit(&self, path: &str) -> Value {
        let shown = |n: Option<i64>| n.map_or_else(|| "inf".to_owned(), |n| n.to_string());
        let (range, what) = match path.split_once('.') {
            Some(("range", rest)) => match rest.split_once('.') {
                Some(("effective", what)) => ("effective", what),
                _ => ("range", rest),
            },
            Some((kind, what)) => (kind, what),
            None => return Value::Empty,
        };
        if !SIZES.contains(&what) {
            return Value::Empty;
        }
        let (min, max) = (self.size("min", what), self.size("max", what));
        match range {
            "min" | "max" => {
                let n = if range == "min" { min } else { max };
                n.map_or(Value::Float(f64::INFINITY), Value::Int)
            }
            "range" => Value::Str(format!("{}-{}", shown(min), shown(max))),
            _ => {
                let all = self.resources.get("all", what);
                let max = max.into_iter().chain(all).min();
                Value::Str(format!("{}-{}", shown(min), shown(max)))
            }
        }
    }
}

impl Item for Queue {
    fn field(&self, name: &str) -> Value {
        let Status { enable, start, .. } = self.status;
        let green_or_red = |on: bool| if on { "\x1b[01;32m" } else { "\x1b[01;31m" };
        match name {
            "queue" => Value::from(&*self.name),
            "queuem" if self.is_default && !self.name.is_empty() => {
                Value::Str(format!("{}*", self.name))
            }
            "queuem" => Value::from(&*self.name),
            "parent" => Value::from(self.status.parent.as_deref().unwrap_or("")),
            "submission" => Value::from(if enable { "enabled" } else { "disabled" }),
            "scheduling" => Value::from(match (start, self.is_paused()) {
                (true, _) => "started",
                (false, true) => "stopped (parent)",
                (false, false) => "stopped",
            }),
            "enabled" => Value::from(if enable { "✔" } else { "✗" }),
            "enabled.ascii" => Value::from(if enable { "y" } else { "n" }),
            "started" => Value::from(match (start, self.is_paused()) {
                (true, _) => "✔",
                (false, true) => "⏸",
                (false, false) => "✗",
            }),
            "started.ascii" => Value::from(match (start, self.is_paused()) {
                (true, _) => "y",
                (false, true) => "p",
                (false, false) => "n",
            }),
            "color_enabled" => Value::from(green_or_red(enable)),
            "color_started" if !start && self.is_paused() => Value::from("\x1b[01;33m"),
            "color_started" => Value::from(green_or_red(start)),
            "color_off" => Value::from("\x1b[0;0m"),
            "defaults.timelimit" => {
                let path = ["policy", "jobspec", "defaults", "system", "duration"];
                Value::Float(self.duration(&path))
            }
            "limits.timelimit" => Value::Float(self.duration(&["policy", "limits", "duration"])),
            other => {
                if let Some(path) = other.strip_prefix("limits.") {
                    return self.limit(path);
                }
                let parts = other
                    .strip_prefix("resources.")
                    .and_then(|p| p.split_once('.'));
                parts
                    .and_then(|(state, what)| self.resources.get(state, what))
                    .map_or(Value::Empty, Value::Int)
            }
        }
    }
}
