//! From JSON to a checked [`Jobspec`].
//!
//! The walk carries the path of the place it is at, but renders it only for an error: ingest
//! runs this for every submitted job.

use super::{Attributes, Count, CountRange, Jobspec, Resource, Task, TaskCount};
use crate::count::{CountError, Operator};
use crate::{Hostlist, Idset};
use serde_json::{Map, Value};
use std::str::FromStr;

/// What is wrong with a jobspec, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("jobspec{dot}{place}: {message}", dot = if place.is_empty() { "" } else { "." })]
pub struct JobspecError {
    /// The path of the faulty value, such as `resources[0].with[1].count`.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

impl JobspecError {
    pub(super) fn new(place: impl Into<String>, message: impl Into<String>) -> JobspecError {
        JobspecError {
            place: place.into(),
            message: message.into(),
        }
    }
}

/// A place in the document, as a list from the leaf to the root.
#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl At<'_> {
    fn render(&self, out: &mut String) {
        match self {
            At::Root => {}
            At::Key(parent, key) => {
                parent.render(out);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            At::Index(parent, i) => {
                parent.render(out);
                out.push_str(&format!("[{i}]"));
            }
        }
    }

    fn error(&self, message: impl Into<String>) -> JobspecError {
        let mut place = String::new();
        self.render(&mut place);
        JobspecError {
            place,
            message: message.into(),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn object(value: Value, at: &At) -> Result<Map<String, Value>, JobspecError> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(at.error(format!("must be a mapping, found {}", kind(&other)))),
    }
}

fn array(value: Value, at: &At) -> Result<Vec<Value>, JobspecError> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(at.error(format!("must be a list, found {}", kind(&other)))),
    }
}

fn string(value: Value, at: &At) -> Result<String, JobspecError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(at.error(format!("must be a string, found {}", kind(&other)))),
    }
}

fn positive(value: &Value, at: &At) -> Result<u32, JobspecError> {
    match value.as_i64() {
        None => Err(at.error(format!("must be an integer, found {}", kind(value)))),
        Some(n) if n < 1 => Err(at.error(format!("must be positive, found {n}"))),
        Some(n) => u32::try_from(n).map_err(|_| at.error(format!("{n} is too large"))),
    }
}

fn required(map: &mut Map<String, Value>, key: &str, at: &At) -> Result<Value, JobspecError> {
    map.shift_remove(key)
        .ok_or_else(|| at.error(format!("key '{key}' is missing")))
}

fn range(map: &Map<String, Value>, at: &At) -> Result<CountRange, JobspecError> {
    if let Some(key) = map
        .keys()
        .find(|k| !["min", "max", "operand", "operator"].contains(&k.as_str()))
    {
        return Err(at.error(format!("unknown key '{key}' in a count range")));
    }
    let number = |key| {
        map.get(key)
            .map(|v| positive(v, &At::Key(at, key)))
            .transpose()
    };
    let min = number("min")?.ok_or_else(|| at.error("key 'min' is missing"))?;
    let operand = number("operand")?;
    let operator = match map.get("operator") {
        None => None,
        Some(symbol) => match symbol.as_str().and_then(Operator::from_symbol) {
            Some(operator) => Some(operator),
            None => {
                return Err(At::Key(at, "operator").error("must be one of \"+\", \"*\", \"^\""));
            }
        },
    };
    if operand.is_some() != operator.is_some() {
        return Err(at.error("'operand' and 'operator' go together"));
    }
    let (operator, operand) = (operator.unwrap_or(Operator::Add), operand.unwrap_or(1));
    CountRange::new(min, number("max")?, operator, operand).map_err(|e| at.error(e.to_string()))
}

fn count(value: Value, kind_of_resource: &str, at: &At) -> Result<Count, JobspecError> {
    match value {
        // Resources other than the three that make a slot may be asked for zero times.
        Value::Number(n)
            if n.as_i64() == Some(0) && !["node", "slot", "core"].contains(&kind_of_resource) =>
        {
            Ok(Count::Fixed(0))
        }
        Value::Number(_) => positive(&value, at).map(Count::Fixed),
        Value::Object(map) => range(&map, at).map(Count::Range),
        Value::String(text) => text
            .parse()
            .map_err(|e: CountError| at.error(e.to_string())),
        other => Err(at.error(format!(
            "must be an integer or a range, found {}",
            kind(&other)
        ))),
    }
}

fn resource(value: Value, at: &At) -> Result<Resource, JobspecError> {
    let mut map = object(value, at)?;
    let kind_of = string(required(&mut map, "type", at)?, &At::Key(at, "type"))?;
    let count = count(
        required(&mut map, "count", at)?,
        &kind_of,
        &At::Key(at, "count"),
    )?;
    let exclusive = match map.shift_remove("exclusive") {
        None => None,
        Some(Value::Bool(b)) => Some(b),
        Some(other) => {
            let message = format!("must be a boolean, found {}", kind(&other));
            return Err(At::Key(at, "exclusive").error(message));
        }
    };
    let mut text = |key| {
        map.shift_remove(key)
            .map(|v| string(v, &At::Key(at, key)))
            .transpose()
    };
    let (label, unit, id) = (text("label")?, text("unit")?, text("id")?);
    if kind_of == "slot" && label.is_none() {
        return Err(at.error("a slot must have a label"));
    }
    let with = match map.shift_remove("with") {
        None => Vec::new(),
        Some(value) => resources(value, &At::Key(at, "with"))?,
    };
    Ok(Resource {
        kind: kind_of,
        count,
        exclusive,
        with,
        label,
        unit,
        id,
        extra: map,
    })
}

fn resources(value: Value, at: &At) -> Result<Vec<Resource>, JobspecError> {
    let list = array(value, at)?;
    list.into_iter()
        .enumerate()
        .map(|(i, value)| resource(value, &At::Index(at, i)))
        .collect()
}

fn task_count(value: Value, at: &At) -> Result<TaskCount, JobspecError> {
    let map = object(value, at)?;
    let mut entries = map.into_iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return Err(at.error("must have exactly one key: per_slot or total"));
    };
    let at_key = At::Key(at, &key);
    match key.as_str() {
        "per_slot" => positive(&value, &at_key).map(TaskCount::PerSlot),
        "total" => positive(&value, &at_key).map(TaskCount::Total),
        "per_resource" => {
            let mut map = object(value, &at_key)?;
            let kind = string(
                required(&mut map, "type", &at_key)?,
                &At::Key(&at_key, "type"),
            )?;
            let count = required(&mut map, "count", &at_key)?;
            Ok(TaskCount::PerResource {
                kind,
                count: positive(&count, &At::Key(&at_key, "count"))?,
            })
        }
        _ => Err(at_key.error("unknown task count; use per_slot or total")),
    }
}

fn task(value: Value, at: &At) -> Result<Task, JobspecError> {
    let mut map = object(value, at)?;
    let at_command = At::Key(at, "command");
    let command = array(required(&mut map, "command", at)?, &at_command)?
        .into_iter()
        .enumerate()
        .map(|(i, arg)| string(arg, &At::Index(&at_command, i)))
        .collect::<Result<Vec<_>, _>>()?;
    if command.is_empty() {
        return Err(at_command.error("must not be empty"));
    }
    let slot = string(required(&mut map, "slot", at)?, &At::Key(at, "slot"))?;
    let count = task_count(required(&mut map, "count", at)?, &At::Key(at, "count"))?;
    if let Some(value) = map.get("attributes").filter(|v| !v.is_object()) {
        let message = format!("must be a mapping, found {}", kind(value));
        return Err(At::Key(at, "attributes").error(message));
    }
    Ok(Task {
        command,
        slot,
        count,
        extra: map,
    })
}

/// The parts of `attributes.system` that the system itself reads.
fn check_system(system: &Map<String, Value>, at: &At) -> Result<(), JobspecError> {
    let is = |key: &str, what: &str, ok: fn(&Value) -> bool| match system.get(key) {
        Some(value) if !ok(value) => {
            Err(At::Key(at, key).error(format!("must be {what}, found {}", kind(value))))
        }
        _ => Ok(()),
    };
    is("cwd", "a string", Value::is_string)?;
    is("queue", "a string", Value::is_string)?;
    is("bank", "a string", Value::is_string)?;
    is("environment", "a mapping", Value::is_object)?;
    is("dependencies", "a list", Value::is_array)?;
    let at_env = At::Key(at, "environment");
    if let Some(environment) = system.get("environment").and_then(Value::as_object) {
        for (name, value) in environment {
            // null unsets a variable.
            if !value.is_string() && !value.is_null() {
                let message = format!("must be a string or null, found {}", kind(value));
                return Err(At::Key(&at_env, name).error(message));
            }
        }
    }
    let at_deps = At::Key(at, "dependencies");
    if let Some(Value::Array(dependencies)) = system.get("dependencies") {
        for (i, dependency) in dependencies.iter().enumerate() {
            let at_dep = At::Index(&at_deps, i);
            for key in ["scheme", "value"] {
                match dependency.get(key) {
                    Some(Value::String(_)) => {}
                    Some(_) => return Err(At::Key(&at_dep, key).error("must be a string")),
                    None => return Err(at_dep.error(format!("key '{key}' is missing"))),
                }
            }
        }
    }
    if let Some(value) = system.get("constraints") {
        check_constraint(value, &At::Key(at, "constraints"))?;
    }
    let at_shell = At::Key(at, "shell");
    if let Some(options) = system.get("shell").and_then(|shell| shell.get("options"))
        && !options.is_object()
    {
        let message = format!("must be a mapping, found {}", kind(options));
        return Err(At::Key(&at_shell, "options").error(message));
    }
    Ok(())
}

fn check_constraint(value: &Value, at: &At) -> Result<(), JobspecError> {
    let Value::Object(map) = value else {
        return Err(at.error(format!("must be a mapping, found {}", kind(value))));
    };
    for (operator, values) in map {
        let at_op = At::Key(at, operator);
        let known = ["and", "or", "not", "properties", "hostlist", "ranks"];
        if !known.contains(&operator.as_str()) {
            return Err(at_op.error(format!(
                "unknown constraint operator: {operator}; use {}",
                known.join(", ")
            )));
        }
        let Value::Array(values) = values else {
            return Err(at_op.error(format!("must be a list, found {}", kind(values))));
        };
        for (i, value) in values.iter().enumerate() {
            let at_value = At::Index(&at_op, i);
            match (operator.as_str(), value.as_str()) {
                ("and" | "or" | "not", _) => check_constraint(value, &at_value)?,
                (_, None) => {
                    return Err(at_value.error(format!("must be a string, found {}", kind(value))));
                }
                ("properties", Some(name)) => {
                    if let Some(c) = name.chars().find(|c| "&'\"`|()".contains(*c)) {
                        let message =
                            format!("character {c:?} is not allowed in property '{name}'");
                        return Err(at_value.error(message));
                    }
                }
                ("hostlist", Some(text)) => {
                    Hostlist::from_str(text).map_err(|e| at_value.error(e.to_string()))?;
                }
                (_, Some(text)) => {
                    Idset::from_str(text).map_err(|e| at_value.error(e.to_string()))?;
                }
            }
        }
    }
    Ok(())
}

fn attributes(value: Value, version: u32) -> Result<Attributes, JobspecError> {
    let at = At::Key(&At::Root, "attributes");
    let mut map = object(value, &at)?;
    let at_system = At::Key(&at, "system");
    let system = match map.shift_remove("system") {
        Some(value) => object(value, &at_system)?,
        None if version == 1 => return Err(at.error("key 'system' is missing")),
        None => Map::new(),
    };
    let user = match map.shift_remove("user") {
        Some(Value::Null) | None => None,
        Some(value) => Some(object(value, &At::Key(&at, "user"))?),
    };
    if let Some(key) = map.keys().next() {
        return Err(at.error(format!(
            "unknown key '{key}'; attributes are system and user"
        )));
    }
    let at_duration = At::Key(&at_system, "duration");
    match system.get("duration") {
        None if version == 1 => return Err(at_system.error("key 'duration' is missing")),
        None => {}
        Some(value) => match value.as_f64() {
            None => {
                let message = format!("must be a number of seconds, found {}", kind(value));
                return Err(at_duration.error(message));
            }
            Some(d) if d < 0. => {
                return Err(at_duration.error(format!("must not be negative, found {d}")));
            }
            Some(_) => {}
        },
    }
    check_system(&system, &at_system)?;
    Ok(Attributes {
        system,
        user,
        other: Map::new(),
    })
}

/// The whole request must be one that version 1 can count.
fn check_v1(jobspec: &Jobspec) -> Result<(), JobspecError> {
    fn fixed(level: &[Resource], at: &At) -> Result<(), JobspecError> {
        for (i, resource) in level.iter().enumerate() {
            let at = At::Index(at, i);
            if !matches!(resource.count, Count::Fixed(_)) {
                return Err(At::Key(&at, "count").error("must be an integer in version 1"));
            }
            fixed(&resource.with, &At::Key(&at, "with"))?;
        }
        Ok(())
    }
    fixed(&jobspec.resources, &At::Key(&At::Root, "resources"))?;
    for (i, task) in jobspec.tasks.iter().enumerate() {
        if matches!(task.count, TaskCount::PerResource { .. }) {
            let place = format!("tasks[{i}].count");
            return Err(JobspecError::new(
                place,
                "version 1 takes per_slot or total",
            ));
        }
    }
    Ok(())
}

impl Resource {
    /// Checks a list of resource vertices, the `resources` of a jobspec.
    pub fn list_from_value(value: Value) -> Result<Vec<Resource>, JobspecError> {
        resources(value, &At::Key(&At::Root, "resources"))
    }
}

impl Jobspec {
    /// Checks a document and takes it apart.
    pub fn from_value(value: Value) -> Result<Jobspec, JobspecError> {
        let root = At::Root;
        let mut map = object(value, &root)?;
        let version = positive(
            &required(&mut map, "version", &root)?,
            &At::Key(&root, "version"),
        )?;
        let resources = resources(
            required(&mut map, "resources", &root)?,
            &At::Key(&root, "resources"),
        )?;
        if resources.is_empty() {
            return Err(JobspecError::new("resources", "must not be empty"));
        }
        let at_tasks = At::Key(&root, "tasks");
        let tasks = array(required(&mut map, "tasks", &root)?, &at_tasks)?
            .into_iter()
            .enumerate()
            .map(|(i, value)| task(value, &At::Index(&at_tasks, i)))
            .collect::<Result<Vec<_>, _>>()?;
        if tasks.is_empty() {
            return Err(at_tasks.error("must not be empty"));
        }
        let attributes = attributes(required(&mut map, "attributes", &root)?, version)?;
        if let Some(key) = map.keys().next() {
            return Err(root.error(format!(
                "unknown key '{key}'; a jobspec has resources, tasks, attributes and version"
            )));
        }
        let jobspec = Jobspec {
            resources,
            tasks,
            attributes,
            version,
        };
        if version == 1 {
            check_v1(&jobspec)?;
        }
        Ok(jobspec)
    }
}

impl FromStr for Jobspec {
    type Err = JobspecError;

    fn from_str(text: &str) -> Result<Jobspec, JobspecError> {
        let value = serde_json::from_str(text)
            .map_err(|e| JobspecError::new("", format!("not valid JSON: {e}")))?;
        Jobspec::from_value(value)
    }
}
