//! What the policy of the queues adds to a jobspec (RFC 33): defaults, then the constraint of its queue.

use crate::queues::{Defaults, Queues};
use serde_json::{Map, Value, json};

/// Whether there is nothing to add to any jobspec.
pub fn is_empty(queues: &Queues) -> bool {
    queues.named.is_empty() && queues.policy.defaults == Defaults::default()
}

/// The attributes of the system in a jobspec.
fn system(jobspec: &mut Value) -> Result<&mut Map<String, Value>, String> {
    let system = jobspec.pointer_mut("/attributes/system");
    let system = system.and_then(Value::as_object_mut);
    system.ok_or_else(|| "jobspec: attributes.system: must be an object".to_owned())
}

/// The frobnicator `defaults`: the queue and the duration of a job that says nothing of them. An instance without queues
/// and defaults leaves it as it is.
pub fn set_defaults(queues: &Queues, jobspec: &mut Value) -> Result<(), String> {
    if is_empty(queues) {
        return Ok(());
    }
    let system = system(jobspec)?;
    let wanted = system.get("queue").and_then(Value::as_str);
    let queue = match (queues.assign(wanted), wanted) {
        (Ok(queue), _) => queue.map(str::to_owned),
        (Err(_), Some(name)) => return Err(invalid_queue(name)),
        (Err(_), None) => {
            return Err("no queue specified, and there is no default queue".to_owned());
        }
    };
    let defaults = queues.policy(queue.as_deref()).defaults;
    let duration = system.get("duration").and_then(Value::as_f64);
    if let Some(default) = defaults.duration.filter(|_| duration.unwrap_or(0.) == 0.) {
        system.insert("duration".to_owned(), json!(default));
    }
    if let Some(name) = queue {
        system.insert("queue".to_owned(), name.into());
    }
    Ok(())
}

/// The frobnicator `constraints`: a job runs on the resources of its queue.
pub fn set_constraints(queues: &Queues, jobspec: &mut Value) -> Result<(), String> {
    if queues.named.is_empty() {
        return Ok(());
    }
    let system = system(jobspec)?;
    let Some(name) = system.get("queue").and_then(Value::as_str) else {
        return Ok(());
    };
    if !queues.named.contains_key(name) {
        return Err(invalid_queue(name));
    }
    let properties = queues.properties(name);
    if !properties.is_empty() {
        constrain(system, properties);
    }
    Ok(())
}

fn invalid_queue(name: &str) -> String {
    format!("Invalid queue '{name}' specified")
}

/// Require these properties beside what is required already.
fn constrain(system: &mut Map<String, Value>, properties: Vec<String>) {
    let Some(old) = system.get_mut("constraints") else {
        system.insert(
            "constraints".to_owned(),
            json!({ "properties": properties }),
        );
        return;
    };
    match old.get_mut("properties").and_then(Value::as_array_mut) {
        Some(list) => {
            for property in properties.into_iter().map(Value::from) {
                if !list.contains(&property) {
                    list.push(property);
                }
            }
        }
        None => *old = json!({ "and": [old.take(), { "properties": properties }] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(config: Value, system: Value) -> Result<Value, String> {
        let queues = Queues::from_config(&config).unwrap();
        let mut jobspec = json!({ "attributes": { "system": system } });
        set_defaults(&queues, &mut jobspec)?;
        set_constraints(&queues, &mut jobspec)?;
        Ok(jobspec["attributes"]["system"].take())
    }

    fn config() -> Value {
        json!({
            "policy": {"jobspec": {"defaults": {"system": {"queue": "batch", "duration": "1m"}}}},
            "queues": {
                "batch": {"requires": ["b"]},
                "debug": {"policy": {"jobspec": {"defaults": {"system": {"duration": "2m"}}}}},
                "late": {"parent": "batch"},
            },
        })
    }

    #[test]
    fn defaults_and_constraints_are_added() {
        for (system, want) in [
            (
                json!({}),
                json!({"duration": 60., "queue": "batch", "constraints": {"properties": ["b"]}}),
            ),
            (
                json!({"duration": 5., "queue": "debug"}),
                json!({"duration": 5., "queue": "debug"}),
            ),
            (
                json!({"duration": 0, "queue": "debug"}),
                json!({"duration": 120., "queue": "debug"}),
            ),
            (
                json!({"duration": 1, "queue": "late", "constraints": {"properties": ["b", "x"]}}),
                json!({"duration": 1, "queue": "late", "constraints": {"properties": ["b", "x"]}}),
            ),
            (
                json!({"duration": 1, "constraints": {"hostlist": ["n1"]}}),
                json!({"duration": 1, "queue": "batch", "constraints":
                    {"and": [{"hostlist": ["n1"]}, {"properties": ["b"]}]}}),
            ),
        ] {
            assert_eq!(completed(config(), system), Ok(want));
        }
    }

    #[test]
    fn without_policy_nothing_changes() {
        let system = json!({"queue": "any"});
        assert_eq!(completed(json!({}), system.clone()), Ok(system));
    }

    #[test]
    fn unknown_queues_are_refused() {
        let unknown = completed(config(), json!({"queue": "x"})).unwrap_err();
        assert_eq!(unknown, "Invalid queue 'x' specified");
        let mut undecided = config();
        undecided["policy"] = json!({});
        assert!(
            completed(undecided, json!({}))
                .unwrap_err()
                .starts_with("no queue specified")
        );
    }
}
