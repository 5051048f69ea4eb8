//! Job queues, RFC 33: the `queues` and `policy` tables of the configuration, and a queue's status.
//!
//! [`Queues::from_config`] checks what can be checked without knowing the resources: names, limits,
//! defaults, virtual queues and their parents. A missing `queues` table stands for one anonymous
//! queue. Tables of the scheduler are kept unread.

use crate::resource_set::property_fault;
use crate::{Hostlist, fsd};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The queues of an instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queues {
    /// For all queues, unless one says otherwise.
    pub policy: Policy,
    /// By name; empty when there is only the anonymous queue.
    pub named: BTreeMap<String, Queue>,
}

/// One named queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queue {
    /// Its members.
    pub members: Members,
    /// Over the common policy, and over that of its parent.
    pub policy: Policy,
    /// The queue whose resources it uses, if it is virtual.
    pub parent: Option<String>,
}

/// Which resources a queue has.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Members {
    /// Every resource, by saying nothing or `hosts = "all"`.
    #[default]
    All,
    /// `hosts`: these carry the property [`membership_property`].
    Hosts(Hostlist),
    /// `requires`: resources with all of these properties.
    Requires(Vec<String>),
}

/// What a queue allows and adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// What jobs get that say nothing.
    pub defaults: Defaults,
    /// How large jobs may be.
    pub limits: Limits,
    /// Who may submit.
    pub access: Access,
    /// The scheduler's own.
    pub scheduler: Option<Value>,
}

/// Jobspec attributes for jobs that leave them out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults {
    /// Seconds.
    pub duration: Option<f64>,
    /// The default queue.
    pub queue: Option<String>,
}

/// The largest and smallest jobs; nothing is no limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Seconds.
    pub duration: Option<f64>,
    /// The most of each.
    pub max: Size,
    /// The least of each.
    pub min: Size,
}

/// Numbers of resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Nodes.
    pub nnodes: Option<Bound>,
    /// Cores.
    pub ncores: Option<Bound>,
    /// Gpus.
    pub ngpus: Option<Bound>,
}

/// A bound on a number of resources; -1 in the configuration lifts the one that would be inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub enum Bound {
    /// Any number.
    Unlimited,
    /// This many.
    At(u32),
}

impl TryFrom<i64> for Bound {
    type Error = String;

    fn try_from(n: i64) -> Result<Bound, String> {
        match n {
            -1 => Ok(Bound::Unlimited),
            n => u32::try_from(n)
                .map(Bound::At)
                .map_err(|_| format!("a size is -1 (unlimited) or 0 to {}, found {n}", u32::MAX)),
        }
    }
}

/// Who may use a queue: everybody, or those that either list names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Access {
    /// Names of users.
    pub allow_user: Option<Vec<String>>,
    /// Names of groups.
    pub allow_group: Option<Vec<String>>,
}

/// The answer to what a queue is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Jobs may be submitted.
    pub enable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_reason: Option<String>,
    /// Jobs are being scheduled.
    pub start: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// What keeps a started queue from scheduling: `scheduler`, `parent` or another word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// The parent of a virtual queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct QueuesError {
    /// Such as `queues.debug.policy.limits.duration`.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

/// The property that the hosts of a queue have.
pub fn membership_property(queue: &str) -> String {
    format!("+{queue}")
}

fn error(place: impl Into<String>, message: impl Into<String>) -> QueuesError {
    QueuesError {
        place: place.into(),
        message: message.into(),
    }
}

/// A table whose keys are all read or refused.
struct Table {
    place: String,
    map: Map<String, Value>,
}

impl Table {
    fn new(place: String, value: Value) -> Result<Self, QueuesError> {
        match value {
            Value::Object(map) => Ok(Table { place, map }),
            _ => Err(error(place, "must be a table")),
        }
    }

    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }

    fn table(&mut self, key: &str) -> Result<Option<Self>, QueuesError> {
        let place = self.at(key);
        let value = self.map.shift_remove(key);
        value.map(|value| Table::new(place, value)).transpose()
    }

    fn read<T: for<'de> Deserialize<'de>>(&mut self, key: &str) -> Result<Option<T>, QueuesError> {
        let Some(value) = self.map.shift_remove(key) else {
            return Ok(None);
        };
        let read = serde_json::from_value(value);
        read.map(Some)
            .map_err(|e| error(self.at(key), e.to_string()))
    }

    fn duration(&mut self, key: &str) -> Result<Option<f64>, QueuesError> {
        let text: Option<String> = self.read(key)?;
        let parsed = text.map(|text| fsd::parse(&text)).transpose();
        parsed.map_err(|e| error(self.at(key), e.to_string()))
    }

    /// All keys must have been taken.
    fn end(&self) -> Result<(), QueuesError> {
        match self.map.keys().next() {
            Some(key) => Err(error(self.at(key), "unknown key")),
            None => Ok(()),
        }
    }
}

impl Policy {
    fn from_table(mut table: Table) -> Result<Policy, QueuesError> {
        let mut policy = Policy::default();
        if let Some(mut jobspec) = table.table("jobspec")? {
            if let Some(mut defaults) = jobspec.table("defaults")? {
                if let Some(mut system) = defaults.table("system")? {
                    policy.defaults = Defaults {
                        duration: system.duration("duration")?,
                        queue: system.read("queue")?,
                    };
                    system.end()?;
                }
                defaults.end()?;
            }
            jobspec.end()?;
        }
        if let Some(mut limits) = table.table("limits")? {
            policy.limits.duration = limits.duration("duration")?;
            if let Some(mut size) = limits.table("job-size")? {
                policy.limits.max = size.read("max")?.unwrap_or_default();
                policy.limits.min = size.read("min")?.unwrap_or_default();
                size.end()?;
            }
            limits.end()?;
        }
        policy.access = table.read("access")?.unwrap_or_default();
        policy.scheduler = table.map.shift_remove("scheduler");
        table.end()?;
        Ok(policy)
    }

    /// This policy, and what it leaves open from `base`.
    pub fn over(&self, base: &Policy) -> Policy {
        let size = |own: Size, base: Size| Size {
            nnodes: own.nnodes.or(base.nnodes),
            ncores: own.ncores.or(base.ncores),
            ngpus: own.ngpus.or(base.ngpus),
        };
        let restricts = self.access != Access::default();
        Policy {
            defaults: Defaults {
                duration: self.defaults.duration.or(base.defaults.duration),
                queue: self.defaults.queue.clone().or(base.defaults.queue.clone()),
            },
            limits: Limits {
                duration: self.limits.duration.or(base.limits.duration),
                max: size(self.limits.max, base.limits.max),
                min: size(self.limits.min, base.limits.min),
            },
            access: if restricts {
                &self.access
            } else {
                &base.access
            }
            .clone(),
            scheduler: self.scheduler.clone().or(base.scheduler.clone()),
        }
    }
}

impl Queue {
    fn from_table(mut table: Table) -> Result<Queue, QueuesError> {
        let policy = match table.table("policy")? {
            Some(policy) => Policy::from_table(policy)?,
            None => Policy::default(),
        };
        let parent = match table.map.shift_remove("parent") {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err(error(table.at("parent"), "must be a string")),
        };
        let hosts: Option<String> = table.read("hosts")?;
        let requires: Option<Vec<String>> = table.read("requires")?;
        table.end()?;
        let place = &table.place;
        if policy.defaults.queue.is_some() {
            let place = format!("{place}.policy.jobspec.defaults.system.queue");
            return Err(error(
                place,
                "only the common policy names the default queue",
            ));
        }
        if parent.is_some() {
            let own = [("hosts", hosts.is_some()), ("requires", requires.is_some())];
            if let Some((key, _)) = own.into_iter().find(|(_, there)| *there) {
                let place = format!("{place}.{key}");
                let what = format!(
                    "a virtual queue must not set '{key}': it has the resources of its parent"
                );
                return Err(error(place, what));
            }
            if policy.scheduler.is_some() {
                let place = format!("{place}.policy.scheduler");
                let what = "a virtual queue must not set 'policy.scheduler': \
                            it is scheduled as its parent is";
                return Err(error(place, what));
            }
        }
        let members = match (hosts, requires) {
            (Some(_), Some(_)) => {
                return Err(error(
                    place,
                    "has both 'hosts' and 'requires'; one of them says it",
                ));
            }
            (None, None) => Members::All,
            (Some(all), None) if all == "all" => Members::All,
            (Some(hosts), None) => {
                let place = format!("{place}.hosts");
                let list: Hostlist = hosts.parse().map_err(|e| error(&place, format!("{e}")))?;
                if list.is_empty() {
                    return Err(error(place, "names no host"));
                }
                Members::Hosts(list)
            }
            (None, Some(properties)) => {
                if let Some(c) = properties.iter().find_map(|p| property_fault(p)) {
                    let place = format!("{place}.requires");
                    return Err(error(place, format!("{c:?} is not allowed in a property")));
                }
                Members::Requires(properties)
            }
        };
        Ok(Queue {
            members,
            policy,
            parent,
        })
    }
}

impl Queues {
    /// Reads the tables `queues` and `policy` of a configuration; others are passed over.
    pub fn from_config(config: &Value) -> Result<Queues, QueuesError> {
        let mut queues = Queues::default();
        if let Some(policy) = config.get("policy") {
            queues.policy = Policy::from_table(Table::new("policy".into(), policy.clone())?)?;
        }
        if let Some(named) = config.get("queues") {
            let table = Table::new("queues".into(), named.clone())?;
            for (name, value) in &table.map {
                let queue = Queue::from_table(Table::new(table.at(name), value.clone())?)?;
                queues.named.insert(name.clone(), queue);
            }
        }
        for (name, queue) in &queues.named {
            let Some(parent) = &queue.parent else {
                continue;
            };
            let place = format!("queues.{name}.parent");
            let what = match queues.named.get(parent) {
                None => format!("parent queue '{parent}' is not configured"),
                Some(_) if parent == name => "the parent queue is itself".to_owned(),
                Some(queue) if queue.parent.is_some() => {
                    format!("parent queue '{parent}' is itself a virtual queue")
                }
                Some(_) => continue,
            };
            return Err(error(place, what));
        }
        if let Some(default) = &queues.policy.defaults.queue
            && !queues.named.contains_key(default)
        {
            let place = "policy.jobspec.defaults.system.queue";
            return Err(error(place, format!("there is no queue '{default}'")));
        }
        Ok(queues)
    }

    /// The queue for a job that names `wanted` or none. `Ok(None)` is the anonymous queue.
    pub fn assign(&self, wanted: Option<&str>) -> Result<Option<&str>, QueuesError> {
        let place = "attributes.system.queue";
        match wanted.or(self.policy.defaults.queue.as_deref()) {
            None if self.named.is_empty() => Ok(None),
            None => Err(error(
                place,
                "no queue is named and there is no default queue",
            )),
            Some(name) => match self.named.get_key_value(name) {
                Some((name, _)) => Ok(Some(name)),
                None => Err(error(place, format!("there is no queue '{name}'"))),
            },
        }
    }

    /// The whole policy of a queue: its own over its parent's over the common one.
    pub fn policy(&self, queue: Option<&str>) -> Policy {
        let Some(queue) = queue.and_then(|name| self.named.get(name)) else {
            return self.policy.clone();
        };
        let parent = queue.parent.as_ref().and_then(|name| self.named.get(name));
        match parent {
            Some(parent) => queue.policy.over(&parent.policy).over(&self.policy),
            None => queue.policy.over(&self.policy),
        }
    }

    /// Whether any policy says who may submit.
    pub fn restricts_access(&self) -> bool {
        let own = self.named.values().map(|queue| &queue.policy);
        let mut all = own.chain([&self.policy]);
        all.any(|policy| policy.access != Access::default())
    }

    /// Properties that jobs of a queue require.
    pub fn properties(&self, name: &str) -> Vec<String> {
        let Some(queue) = self.named.get(name) else {
            return Vec::new();
        };
        match (&queue.parent, &queue.members) {
            (Some(parent), _) => self.properties(parent),
            (None, Members::All) => Vec::new(),
            (None, Members::Hosts(_)) => vec![membership_property(name)],
            (None, Members::Requires(properties)) => properties.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Value {
        json!({
            "policy": {
                "jobspec": {"defaults": {"system": {"duration": "1h", "queue": "batch"}}},
                "limits": {"duration": "4h", "job-size": {"max": {"nnodes": 8, "ngpus": 4}, "min": {"nnodes": 1}}},
                "scheduler": {"depth": 4},
            },
            "queues": {
                "batch": {"hosts": "n[0-3]"},
                "debug": {"requires": ["debug"], "policy": {"limits": {"duration": "30m"}, "access": {"allow-user": ["fred"]}}},
                "standby": {"parent": "batch", "policy": {"limits": {"job-size": {"max": {"nnodes": 2}}}}},
                "any": {"hosts": "all"},
            },
            "resource": {"x": 1},
        })
    }

    #[test]
    fn policies_are_inherited() {
        let queues = Queues::from_config(&config()).unwrap();
        let debug = queues.policy(Some("debug"));
        assert_eq!(debug.limits.duration, Some(1800.));
        assert_eq!(
            (debug.limits.max.nnodes, debug.limits.max.ngpus),
            (Some(Bound::At(8)), Some(Bound::At(4)))
        );
        assert_eq!(debug.access.allow_user, Some(vec!["fred".into()]));
        let standby = queues.policy(Some("standby"));
        assert_eq!(
            (standby.limits.max.nnodes, standby.limits.duration),
            (Some(Bound::At(2)), Some(14400.))
        );
        assert_eq!(queues.properties("standby"), ["+batch"]);
        assert_eq!(queues.properties("debug"), ["debug"]);
        assert!(queues.properties("any").is_empty());
        assert_eq!(queues.assign(None), Ok(Some("batch")));
        assert!(queues.assign(Some("no")).is_err());
        assert_eq!(Queues::default().assign(None), Ok(None));
    }

    #[test]
    fn faults_name_their_place() {
        let fault = |pointer: &str, value: Value| {
            let mut config = config();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[key] = value;
            Queues::from_config(&config).unwrap_err().to_string()
        };
        for (pointer, value, want) in [
            (
                "/queues/batch/hosts",
                json!(1),
                "queues.batch.hosts: invalid type: integer `1`, expected a string",
            ),
            (
                "/queues/batch/hosts",
                json!(""),
                "queues.batch.hosts: names no host",
            ),
            (
                "/queues/batch/requires",
                json!(["a"]),
                "queues.batch: has both 'hosts' and 'requires'; one of them says it",
            ),
            (
                "/queues/debug/requires",
                json!(["a|b"]),
                "queues.debug.requires: '|' is not allowed in a property",
            ),
            (
                "/queues/standby/parent",
                json!("none"),
                "queues.standby.parent: parent queue 'none' is not configured",
            ),
            (
                "/queues/debug/parent",
                json!("batch"),
                "queues.debug.requires: a virtual queue must not set 'requires': it has the resources of its parent",
            ),
            (
                "/queues/standby/policy",
                json!({"scheduler": {}}),
                "queues.standby.policy.scheduler: a virtual queue must not set 'policy.scheduler': it is scheduled as its parent is",
            ),
            (
                "/queues/any",
                json!({"parent": "standby"}),
                "queues.any.parent: parent queue 'standby' is itself a virtual queue",
            ),
            ("/queues/any/typo", json!(1), "queues.any.typo: unknown key"),
            (
                "/policy/limits/duration",
                json!("x"),
                "policy.limits.duration: 'x' is not a duration; give a number with an optional unit ms, s, m, h or d, or infinity",
            ),
            (
                "/policy/limits/job-size",
                json!({"max": {"nodes": 1}}),
                "policy.limits.job-size.max: unknown field `nodes`, expected one of `nnodes`, `ncores`, `ngpus`",
            ),
            (
                "/policy/limits/job-size",
                json!({"max": {"nnodes": -2}}),
                "policy.limits.job-size.max: a size is -1 (unlimited) or 0 to 4294967295, found -2",
            ),
            (
                "/policy/jobspec/defaults/system/bank",
                json!("x"),
                "policy.jobspec.defaults.system.bank: unknown key",
            ),
            (
                "/policy/jobspec/defaults/system/queue",
                json!("none"),
                "policy.jobspec.defaults.system.queue: there is no queue 'none'",
            ),
        ] {
            assert_eq!(fault(pointer, value), want);
        }
    }

    #[test]
    fn status_keeps_what_it_does_not_know() {
        let status = json!({"enable": true, "start": false, "stop_reason": "parent queue 'batch' is stopped",
            "blocked": "parent", "parent": "batch", "extra": 1});
        let read: Status = serde_json::from_value(status.clone()).unwrap();
        assert_eq!(read.blocked.as_deref(), Some("parent"));
        assert_eq!(serde_json::to_value(read).unwrap(), status);
    }
}
