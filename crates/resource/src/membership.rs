//! Queues made of hosts (`queues.NAME.hosts`, RFC 33): these get a property that jobs of the queue require.
//!
//! Such properties start with `+`: they are of this instance only (RFC 20), whoever may have defined the set.

use std::collections::BTreeMap;

use formats::queues::{Members, Queues, membership_property};
use formats::{Hostlist, Idset, ResourceSet};
use serde_json::Value;

/// The hosts of each queue that names them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership(BTreeMap<String, Hostlist>);

impl Membership {
    /// What the tables `queues` and `policy` say.
    pub fn from_config(config: &Value) -> Result<Self, String> {
        let queues = Queues::from_config(config).map_err(|e| e.to_string())?;
        let named = queues.named.into_iter();
        let named = named.filter_map(|(name, queue)| match queue.members {
            Members::Hosts(hosts) => Some((name, hosts)),
            _ => None,
        });
        Ok(Self(named.collect()))
    }

    /// Mark the hosts in a set, in place of those that were marked for these queues before.
    pub fn mark(&self, set: &mut ResourceSet) -> Result<(), String> {
        for (name, hosts) in &self.0 {
            set.properties.remove(&membership_property(name));
            let place = format!("queues.{name}.hosts");
            let mut ranks = Idset::new();
            for host in hosts.iter() {
                let targets = set.targets().iter();
                let on_host = targets.filter(|t| t.host == *host);
                let before = ranks.len();
                ranks.extend(on_host.map(|t| t.rank));
                if ranks.len() == before {
                    return Err(format!(
                        "{place}: there is no host '{host}' among the resources"
                    ));
                }
            }
            set.set_property(&membership_property(name), &ranks)
                .map_err(|e| format!("{place}: {e}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> ResourceSet {
        let mut set = ResourceSet::new();
        for (rank, host) in ["a", "b", "c"].iter().enumerate() {
            set.add(rank as u32, host, &Idset::from_range(0, 1), &Idset::new());
        }
        for name in ["+x", "+other"] {
            set.set_property(name, &Idset::from_range(1, 1)).unwrap();
        }
        set.set_property("kept", &Idset::from_range(1, 1)).unwrap();
        set
    }

    fn marked(queues: Value) -> Result<ResourceSet, String> {
        let mut set = set();
        Membership::from_config(&json!({ "queues": queues }))?.mark(&mut set)?;
        Ok(set)
    }

    #[test]
    fn hosts_of_a_queue_have_its_property() {
        let set =
            marked(json!({"x": {"hosts": "a,c"}, "y": {"hosts": "all"}, "z": {"parent": "x"}}));
        let set = set.unwrap();
        let of = |rank| set.properties_of(rank).collect::<Vec<_>>();
        assert_eq!(
            (of(0), of(1), of(2)),
            (vec!["+x"], vec!["+other", "kept"], vec!["+x"])
        );
    }

    #[test]
    fn unknown_hosts_are_named() {
        let why = marked(json!({"x": {"hosts": "a,d"}})).unwrap_err();
        assert_eq!(
            why,
            "queues.x.hosts: there is no host 'd' among the resources"
        );
    }
}
