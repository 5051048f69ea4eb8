//! Resources written out in the configuration: the array `resource.config`.
//!
//! Hosts get ranks in the order in which they are first named; entries add up. Faults name
//! their entry: `resource.config[1].cores: ...`.

use super::{ResourceSet, property_fault};
use crate::{Hostlist, Idset};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// Why configuration entries do not make a resource set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resource.config{place}: {message}")]
#[allow(missing_docs)] // their messages say it
pub struct ConfigError {
    pub place: String,
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hosts: String,
    cores: Option<String>,
    gpus: Option<String>,
    #[serde(default)]
    properties: Vec<String>,
}

fn error(place: impl Into<String>, message: impl ToString) -> ConfigError {
    ConfigError {
        place: place.into(),
        message: message.to_string(),
    }
}

impl ResourceSet {
    /// The set that the value of `resource.config` describes.
    ///
    /// ```
    /// use formats::ResourceSet;
    ///
    /// let set = ResourceSet::from_config(&serde_json::json!([
    ///     {"hosts": "n[0-2]", "cores": "0-3"},
    ///     {"hosts": "n[1-2]", "gpus": "0", "properties": ["big"]},
    /// ]))?;
    /// assert_eq!(set.to_string(), "rank0/core[0-3] rank[1-2]/core[0-3],gpu0");
    /// # Ok::<(), formats::resource_set::config::ConfigError>(())
    /// ```
    pub fn from_config(entries: &Value) -> Result<ResourceSet, ConfigError> {
        let entries = entries
            .as_array()
            .ok_or_else(|| error("", "must be an array"))?;
        let mut set = ResourceSet::new();
        let mut hosts: Vec<String> = Vec::new();
        let mut ranks: HashMap<String, u32> = HashMap::new();
        for (i, value) in entries.iter().enumerate() {
            let entry = Entry::deserialize(value).map_err(|e| error(format!("[{i}]"), e))?;
            let at = |key: &str, e: &dyn ToString| error(format!("[{i}].{key}"), e.to_string());
            let list: Hostlist = entry.hosts.parse().map_err(|e| at("hosts", &e))?;
            if list.is_empty() {
                return Err(at("hosts", &"names no host"));
            }
            let ids = |key: &str, text: &Option<String>| -> Result<Idset, ConfigError> {
                let ids = text.as_deref().unwrap_or("").parse();
                ids.map_err(|e: crate::idset::IdsetError| at(key, &e))
            };
            let (cores, gpus) = (ids("cores", &entry.cores)?, ids("gpus", &entry.gpus)?);
            let mut on = Idset::new();
            for host in list.iter() {
                let host = host.to_string();
                let rank = match ranks.get(&host) {
                    Some(rank) => *rank,
                    None => {
                        let rank = hosts.len() as u32;
                        ranks.insert(host.clone(), rank);
                        hosts.push(host.clone());
                        rank
                    }
                };
                if let Some(t) = set.get(rank) {
                    for (key, new, old) in [("cores", &cores, t.cores()), ("gpus", &gpus, t.gpus())]
                    {
                        let twice = new.intersection(old);
                        if !twice.is_empty() {
                            let why = format!("{host} has {twice} from an earlier entry");
                            return Err(at(key, &why));
                        }
                    }
                }
                set.add(rank, &host, &cores, &gpus);
                on.insert(rank);
            }
            for (n, property) in entry.properties.iter().enumerate() {
                if let Some(c) = property_fault(property) {
                    let why = format!("character {c:?} is not allowed in property {property:?}");
                    return Err(at(&format!("properties[{n}]"), &why));
                }
                let all = set.properties.entry(property.clone()).or_default();
                *all = all.union(&on);
            }
        }
        if hosts.is_empty() {
            return Err(error("", "no hosts configured"));
        }
        let without = (0..)
            .zip(&hosts)
            .filter(|(rank, _)| set.get(*rank).is_none());
        let without: Hostlist = without.map(|(_, host)| host).collect();
        match without.is_empty() {
            true => Ok(set),
            false => Err(error("", format!("{without} assigned no resources"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_name_their_entry() {
        let fails = |v: Value| ResourceSet::from_config(&v).unwrap_err().to_string();
        insta::assert_snapshot!([
            json!({}),
            json!([]),
            json!([{"cores": "0"}]),
            json!([{"hosts": "a", "cpus": "0"}]),
            json!([{"hosts": "a["}]),
            json!([{"hosts": ""}]),
            json!([{"hosts": "a", "cores": "0"}, {"hosts": "b[0-1]", "properties": ["p"]}]),
            json!([{"hosts": "a", "cores": "x"}]),
            json!([{"hosts": "a", "cores": "0-1"}, {"hosts": "a", "cores": "1"}]),
            json!([{"hosts": "a", "cores": "0", "properties": ["x", "a&b"]}]),
        ].map(fails).join("\n"), @r#"
        resource.config: must be an array
        resource.config: no hosts configured
        resource.config[0]: missing field `hosts`
        resource.config[0]: unknown field `cpus`, expected one of `hosts`, `cores`, `gpus`, `properties`
        resource.config[0].hosts: hostlist 'a[': brackets do not match
        resource.config[0].hosts: names no host
        resource.config: b[0-1] assigned no resources
        resource.config[0].cores: idset 'x': 'x' is not an id or a range such as 2-5
        resource.config[1].cores: a has 1 from an earlier entry
        resource.config[0].properties[1]: character '&' is not allowed in property "a&b"
        "#);
    }
}
