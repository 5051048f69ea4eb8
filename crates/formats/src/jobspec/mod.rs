//! Job specifications, RFC 14 and its version 1 of RFC 25.
//!
//! [`Jobspec`] is a checked document: its only constructors are [`Jobspec::from_value`] (and
//! `FromStr`), which name the place of the first fault, and [`JobspecBuilder`]. Attributes are
//! kept as JSON maps, because their keys are open; the well-known ones have accessors.

mod builder;
mod parse;
mod v1;

pub use crate::count::{Count, CountRange};
pub use builder::{BuildError, JobspecBuilder, PerResource, parse_key_value};
pub use parse::JobspecError;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use std::path::Path;

/// A request to run one program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Jobspec {
    /// What is asked for.
    pub resources: Vec<Resource>,
    /// What is to run on it.
    pub tasks: Vec<Task>,
    /// Everything else.
    pub attributes: Attributes,
    /// 1 for RFC 25.
    pub version: u32,
}

/// A vertex of the resource request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resource {
    /// `slot`, `node`, `core`, `gpu` or another type.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many of it for each of what contains it.
    pub count: Count,
    /// Whether nobody else may use it; by default slots and what is in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
    /// What each of it contains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<Resource>,
    /// A name; slots have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What the count counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Which of the resources may be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Keys of RFC 14 that version 1 does not interpret.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The program and how many copies of it to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// Program and arguments; not empty.
    pub command: Vec<String>,
    /// The label of the slot they run in.
    pub slot: String,
    /// How many.
    pub count: TaskCount,
    /// Keys that version 1 does not interpret.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How many tasks there are.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskCount {
    /// In each slot.
    PerSlot(u32),
    /// In all slots together.
    Total(u32),
    /// RFC 14 only: tasks per resource of a type.
    PerResource {
        /// The type of resource.
        kind: String,
        /// For each of it.
        count: u32,
    },
}

/// What is said about a job besides its resources and tasks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes {
    /// What the system reads.
    pub system: Map<String, Value>,
    /// What users keep.
    pub user: Option<Map<String, Value>>,
    /// What was set besides: nothing in a jobspec that was parsed, for RFC 14 knows no more.
    pub other: Map<String, Value>,
}

impl Attributes {
    /// Sets an attribute by dotted path. `system.` and `user.` lead the path as they are, and so does anything behind
    /// `attributes.` or a leading dot; any other path is below `system` (flux-submit(1), `--setattr`).
    pub fn set(&mut self, path: &str, value: Value) {
        let absolute = path.strip_prefix("attributes.").or(path.strip_prefix('.'));
        let path = absolute.unwrap_or(path);
        if let Some(rest) = path.strip_prefix("user.") {
            set_path(self.user.get_or_insert_default(), rest, value);
        } else if let Some(rest) = path.strip_prefix("system.") {
            set_path(&mut self.system, rest, value);
        } else if absolute.is_some() {
            set_path(&mut self.other, path, value);
        } else {
            set_path(&mut self.system, path, value);
        }
    }
}

/// The resource request of a version 1 jobspec in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceCounts {
    /// Requested nodes; 0 when the request does not name nodes.
    pub nnodes: u32,
    /// Slots in total.
    pub nslots: u32,
    /// Cores per slot.
    pub slot_size: u32,
    /// GPUs per slot.
    pub slot_gpus: u32,
    /// Whole nodes are wanted.
    pub exclusive: bool,
}

impl ResourceCounts {
    /// Slots on each requested node; `None` when nodes are not named.
    pub fn slots_per_node(&self) -> Option<u32> {
        (self.nnodes > 0).then(|| self.nslots / self.nnodes)
    }
}

impl Serialize for TaskCount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(1))?;
        match self {
            TaskCount::PerSlot(n) => map.serialize_entry("per_slot", n)?,
            TaskCount::Total(n) => map.serialize_entry("total", n)?,
            TaskCount::PerResource { kind, count } => map.serialize_entry(
                "per_resource",
                &serde_json::json!({"type": kind, "count": count}),
            )?,
        }
        map.end()
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("system", &self.system)?;
        if let Some(user) = &self.user {
            map.serialize_entry("user", user)?;
        }
        for (key, value) in &self.other {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Jobspec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Jobspec, D::Error> {
        Jobspec::from_value(Value::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

fn str_map(value: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    let map = value.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}

impl Jobspec {
    /// A system attribute by dotted path, such as `shell.options.verbose`.
    pub fn system(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.attributes.system.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    /// The time limit in seconds; 0 is unlimited.
    pub fn duration(&self) -> f64 {
        self.system("duration")
            .and_then(Value::as_f64)
            .unwrap_or(0.)
    }

    /// The working directory of tasks.
    pub fn cwd(&self) -> Option<&str> {
        self.system("cwd")?.as_str()
    }

    /// The queue asked for.
    pub fn queue(&self) -> Option<&str> {
        self.system("queue")?.as_str()
    }

    /// The bank to charge.
    pub fn bank(&self) -> Option<&str> {
        self.system("bank")?.as_str()
    }

    /// Variables of the tasks. Those to be unset are not among them.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        str_map(self.system("environment"))
    }

    /// The constraint on resources, RFC 31.
    pub fn constraints(&self) -> Option<&Value> {
        self.system("constraints")
    }

    /// What must happen first, RFC 26.
    pub fn dependencies(&self) -> &[Value] {
        self.system("dependencies")
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// `attributes.system.shell.options` as a map.
    pub fn shell_options(&self) -> Option<&Map<String, Value>> {
        self.system("shell.options")?.as_object()
    }

    /// A shell option by dotted path, such as `output.stdout.type`.
    pub fn shell_option(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.shell_options()?.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    /// Program and arguments of the first task.
    pub fn command(&self) -> &[String] {
        self.tasks.first().map_or(&[], |task| &task.command)
    }

    /// The name users see: `attributes.system.job.name`, or else the last path component of the
    /// command.
    pub fn job_name(&self) -> &str {
        if let Some(name) = self.system("job.name").and_then(Value::as_str) {
            return name;
        }
        let command = self.command().first().map_or("", String::as_str);
        Path::new(command)
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or(command)
    }

    /// The request in numbers, for a request made of nodes, slots, cores and gpus. Counts that
    /// are not fixed count with their minimum; other resource types are passed over.
    pub fn resource_counts(&self) -> Result<ResourceCounts, JobspecError> {
        let mut counts = ResourceCounts {
            nnodes: 0,
            nslots: 0,
            slot_size: 0,
            slot_gpus: 0,
            exclusive: false,
        };
        fn walk(level: &[Resource], factor: u32, counts: &mut ResourceCounts) -> Option<()> {
            for resource in level {
                let count = resource.count.min();
                let total = factor.checked_mul(count)?;
                match resource.kind.as_str() {
                    "node" => {
                        counts.nnodes = total;
                        counts.exclusive |= resource.exclusive == Some(true);
                    }
                    "slot" => counts.nslots = count,
                    "core" => counts.slot_size = count,
                    "gpu" => counts.slot_gpus = count,
                    _ => {}
                }
                walk(&resource.with, total, counts)?;
            }
            Some(())
        }
        let error = |message: &str| JobspecError::new("resources", message);
        walk(&self.resources, 1, &mut counts).ok_or_else(|| error("the counts are too large"))?;
        if counts.nslots == 0 {
            return Err(error("a slot is required"));
        }
        if counts.slot_size == 0 {
            return Err(error("a slot must hold at least one core"));
        }
        if counts.nnodes > 0 {
            let total = counts.nslots.checked_mul(counts.nnodes);
            counts.nslots = total.ok_or_else(|| error("the counts are too large"))?;
        }
        Ok(counts)
    }

    /// The number of tasks when `nslots` slots were allocated.
    pub fn ntasks(&self, nslots: u32) -> u32 {
        match self.tasks.first().map(|task| &task.count) {
            Some(TaskCount::PerSlot(n)) => n.saturating_mul(nslots),
            Some(TaskCount::Total(n)) => *n,
            Some(TaskCount::PerResource { count, .. }) => count.saturating_mul(nslots),
            None => 0,
        }
    }
}

/// Sets `a.b.c` in nested maps; what stands in the way and is no map is replaced.
fn set_path(mut map: &mut Map<String, Value>, path: &str, value: Value) {
    let mut path = path;
    while let Some((key, rest)) = path.split_once('.') {
        let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        let Value::Object(next) = slot else {
            unreachable!("made an object above")
        };
        map = next;
        path = rest;
    }
    map.insert(path.to_owned(), value);
}

#[cfg(test)]
mod tests;
