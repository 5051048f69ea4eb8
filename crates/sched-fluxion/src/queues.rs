//! What configuration and arguments say about queues.

use std::collections::BTreeMap;

use client::module::ModuleError;
use fluxion::queue::{Policy, Settings};
use serde_json::{Map, Value, json};

use crate::options::{argument, text};

/// The table of the configuration.
const TABLE: &str = "sched-fluxion-qmanager";
/// The queue there is if none is configured.
pub const DEFAULT: &str = "default";

/// What is said of a queue, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    policy: Option<String>,
    queue_params: Option<String>,
    policy_params: Option<String>,
}

impl Said {
    fn or(&self, general: &Said) -> Said {
        let first = |a: &Option<String>, b: &Option<String>| a.clone().or_else(|| b.clone());
        Said {
            policy: first(&self.policy, &general.policy),
            queue_params: first(&self.queue_params, &general.queue_params),
            policy_params: first(&self.policy_params, &general.policy_params),
        }
    }

    fn slot(&mut self, key: &str) -> Option<&mut Option<String>> {
        Some(match key {
            "queue-policy" => &mut self.policy,
            "queue-params" => &mut self.queue_params,
            "policy-params" => &mut self.policy_params,
            _ => return None,
        })
    }

    /// As `params` tells it.
    fn to_value(&self) -> Map<String, Value> {
        let text = |t: &Option<String>| json!(t.as_deref().unwrap_or_default());
        Map::from_iter([
            (
                "queue-policy".to_owned(),
                json!(self.policy.as_deref().unwrap_or("fcfs")),
            ),
            ("queue-params".to_owned(), text(&self.queue_params)),
            ("policy-params".to_owned(), text(&self.policy_params)),
        ])
    }

    /// As [`Settings`] reads it.
    fn table(&self) -> Result<Value, ModuleError> {
        let list = |text: &Option<String>| -> Result<Value, ModuleError> {
            let pairs = text
                .iter()
                .flat_map(|t| t.split(','))
                .filter(|p| !p.is_empty());
            let pairs = pairs.map(|p| argument(p).map(|(k, v)| (k.to_owned(), json!(v))));
            Ok(Value::Object(pairs.collect::<Result<_, _>>()?))
        };
        Ok(json!({
            "queue-policy": self.policy.as_deref().unwrap_or("fcfs"),
            "queue-params": list(&self.queue_params)?,
            "policy-params": list(&self.policy_params)?,
        }))
    }
}

/// The queues of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    general: Said,
    queues: BTreeMap<String, Said>,
    /// Virtual queues (RFC 33), and whose jobs theirs are.
    parents: BTreeMap<String, String>,
    /// What was left as it was.
    warnings: Vec<String>,
}

impl Configured {
    /// Reads the configuration, then arguments, which go before it.
    pub fn read(config: &Value, args: &[String]) -> Result<Configured, ModuleError> {
        let mut read = Configured::default();
        read.read_queues(config)?;
        let table = config.get(TABLE).and_then(Value::as_object);
        for (key, value) in table.into_iter().flatten() {
            let value = match value {
                Value::Object(pairs) => {
                    let pairs: Vec<_> = pairs
                        .iter()
                        .map(|(k, v)| format!("{k}={}", text(v)))
                        .collect();
                    pairs.join(",")
                }
                other => text(other),
            };
            let wrong = |e| ModuleError::new(&format!("[{TABLE}]"), e);
            read.set(key, value).map_err(wrong)?;
        }
        // What is logged is not up to this module.
        for arg in args.iter().filter(|arg| !arg.starts_with("log-level=")) {
            let (key, value) = argument(arg)?;
            read.set(key, value.to_owned())?;
        }
        if read.queues.is_empty() {
            read.queues.insert(DEFAULT.into(), Said::default());
        }
        for said in read.queues.values_mut() {
            *said = said.or(&read.general);
        }
        read.tables()?;
        Ok(read)
    }

    fn read_queues(&mut self, config: &Value) -> Result<(), ModuleError> {
        let Some(queues) = config.get("queues").and_then(Value::as_object) else {
            return Ok(());
        };
        let parent = |queue: &Value| {
            queue
                .get("parent")
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        for (name, queue) in queues {
            let Some(of) = parent(queue) else {
                self.queues.insert(name.clone(), Said::default());
                continue;
            };
            match queues.get(&of).map(parent) {
                Some(None) => drop(self.parents.insert(name.clone(), of)),
                Some(Some(_)) => {
                    let why = format!("queues.{name}.parent: {of} is itself a virtual queue");
                    return Err(ModuleError::invalid(why));
                }
                None => {
                    let why = format!("queues.{name}.parent: there is no queue {of}");
                    return Err(ModuleError::invalid(why));
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), ModuleError> {
        if let Some(general) = key.strip_suffix("-per-queue") {
            for one in value.split_whitespace() {
                let (name, value) = one.split_once(':').ok_or_else(|| {
                    ModuleError::invalid(format!("{key}: {one:?}: must be QUEUE:VALUE"))
                })?;
                let said = self.queues.get_mut(name);
                let said = said.ok_or_else(|| ModuleError {
                    errno: libc::ENOENT,
                    text: format!("{key}: there is no queue {name}"),
                })?;
                let slot = said.slot(general).ok_or_else(|| unknown(key))?;
                match general == "queue-policy" && Policy::from_name(value).is_none() {
                    true => self.warnings.push(unknown_policy(value)),
                    false => *slot = Some(value.to_owned()),
                }
            }
            return Ok(());
        }
        let slot = self.general.slot(key).ok_or_else(|| unknown(key))?;
        match key == "queue-policy" && Policy::from_name(&value).is_none() {
            true => self.warnings.push(unknown_policy(&value)),
            false => *slot = Some(value),
        }
        Ok(())
    }

    /// The queues as [`Settings`] reads them. They have been read once: nothing is wrong with them.
    pub fn tables(&self) -> Result<BTreeMap<String, Value>, ModuleError> {
        let mut tables = BTreeMap::new();
        for (name, said) in &self.queues {
            let table = said.table()?;
            Settings::from_value(&table)
                .map_err(|e| ModuleError::new(&format!("queue {name}"), e))?;
            tables.insert(name.clone(), table);
        }
        Ok(tables)
    }

    /// What was left as it was, and should be told.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The queue a job that names one, or none, waits in.
    pub fn resolve<'a>(&'a self, name: Option<&'a str>) -> &'a str {
        let name = name.unwrap_or(DEFAULT);
        self.parents.get(name).map_or(name, String::as_str)
    }

    /// As `params` tells it.
    pub fn to_value(&self) -> Value {
        let mut value = self.general.to_value();
        for (name, said) in &self.queues {
            value.insert(name.clone(), Value::Object(said.to_value()));
        }
        Value::Object(value)
    }
}

/// What is said of a policy that leaves the default.
fn unknown_policy(name: &str) -> String {
    format!("Unknown queuing policy ({name}): the default is used")
}

fn unknown(key: &str) -> ModuleError {
    ModuleError::invalid(format!("{key}: unknown option"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: Value, args: &[&str]) -> Result<Configured, ModuleError> {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        Configured::read(&config, &args)
    }

    #[test]
    fn each_queue_has_its_own() {
        let config = json!({
            "queues": {"debug": {}, "batch": {}, "fast": {"parent": "batch"}},
            TABLE: {
                "queue-policy": "easy",
                "queue-params": {"queue-depth": 8},
                "queue-policy-per-queue": "debug:fcfs batch:hybrid",
                "policy-params-per-queue": "batch:reservation-depth=4,max-reservation-depth=9",
            },
        });
        let queues = read(config, &["queue-params=queue-depth=16"]).unwrap();
        let value = queues.to_value();
        assert_eq!(value["debug"]["queue-policy"], "fcfs");
        assert_eq!(value["debug"]["queue-params"], "queue-depth=16");
        assert_eq!(
            value["batch"]["policy-params"],
            "reservation-depth=4,max-reservation-depth=9"
        );
        assert_eq!(value["queue-policy"], "easy");
        assert_eq!(
            (queues.resolve(Some("fast")), queues.resolve(None)),
            ("batch", "default")
        );
        let batch = Settings::from_value(&queues.tables().unwrap()["batch"]).unwrap();
        assert_eq!(
            (batch.policy, batch.depths.reservation, batch.depths.queue),
            (Policy::Hybrid, 4, 16)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let odd = read(json!({}), &["queue-policy=foo"]).unwrap();
        assert_eq!(odd.warnings().len(), 1);
        assert_eq!(
            read(json!({}), &["queue-policy=foo"]).unwrap().to_value()["queue-policy"],
            "fcfs"
        );
        for (config, args) in [
            (
                json!({TABLE: {"queue-params": {"max-queue-depth": -1}}}),
                vec![],
            ),
            (json!({TABLE: {"queues": "debug batch"}}), vec![]),
            (json!({}), vec!["queue-params=queue-depth"]),
            (json!({}), vec!["queue-policy-per-queue=debug:fcfs"]),
            (json!({"queues": {"a": {"parent": "b"}}}), vec![]),
        ] {
            assert!(read(config.clone(), &args).is_err(), "{config} {args:?}");
        }
    }
}
