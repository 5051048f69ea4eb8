//! Writing R and the short form shown to users.

use super::{Children, ResourceSet, Target};
use crate::Idset;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;
use std::{collections::HashMap, fmt, sync::Arc};

/// Targets grouped by equal resources, in the order of each group's lowest rank. Only one
/// comparison by value for each shared value.
pub(super) fn groups(targets: &[Target]) -> Vec<(Idset, &Children)> {
    let mut by_address: HashMap<*const Children, usize> = HashMap::new();
    let mut by_value: HashMap<&Children, usize> = HashMap::new();
    let mut groups: Vec<(Vec<u32>, &Children)> = Vec::new();
    let mut last: Option<(*const Children, usize)> = None;
    for target in targets {
        let address = Arc::as_ptr(&target.children);
        let group = match last {
            Some((a, group)) if a == address => group,
            _ => *by_address.entry(address).or_insert_with(|| {
                *by_value.entry(&target.children).or_insert_with(|| {
                    groups.push((Vec::new(), &target.children));
                    groups.len() - 1
                })
            }),
        };
        last = Some((address, group));
        groups[group].0.push(target.rank);
    }
    let groups = groups.into_iter();
    groups
        .map(|(ranks, children)| (ranks.into_iter().collect(), children))
        .collect()
}

impl Serialize for Children {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

struct Entry<'a>(&'a Idset, &'a Children);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(2))?;
        map.serialize_entry("rank", self.0)?;
        map.serialize_entry("children", self.1)?;
        map.end()
    }
}

struct Execution<'a>(&'a ResourceSet);

impl Serialize for Execution<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let set = self.0;
        let groups = set.groups();
        let entries: Vec<Entry> = groups.iter().map(|(ranks, c)| Entry(ranks, c)).collect();
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("R_lite", &entries)?;
        if let Some(nslots) = set.nslots {
            map.serialize_entry("nslots", &nslots)?;
        }
        map.serialize_entry("starttime", &set.starttime)?;
        map.serialize_entry("expiration", &set.expiration)?;
        // As upstream does: all hosts or none.
        if set.targets.iter().all(|t| !t.host.is_empty()) {
            let hosts = set.nodelist().to_string();
            map.serialize_entry("nodelist", &[hosts])?;
        }
        if !set.properties.is_empty() {
            map.serialize_entry("properties", &set.properties)?;
        }
        map.end()
    }
}

impl Serialize for ResourceSet {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("execution", &Execution(self))?;
        if let Some(scheduling) = &self.scheduling {
            map.serialize_entry("scheduling", &**scheduling)?;
        }
        map.end()
    }
}

impl ResourceSet {
    /// The set as a JSON object.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("keys of R are strings")
    }
}

/// The short form shown to users: `rank[0-1]/core[0-3],gpu0 rank2/core0`.
impl fmt::Display for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (ranks, children)) in self.groups().into_iter().enumerate() {
            let space = if i > 0 { " " } else { "" };
            write!(f, "{space}rank{}/{children}", ranks.to_string_brackets())?;
        }
        Ok(())
    }
}

/// As in the short form of a set: `core[0-3],gpu0`.
impl fmt::Display for Children {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, ids)) in self.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{kind}{}", ids.to_string_brackets())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 20's example.
    const EXAMPLE: &str = r#"{"version": 1, "execution": {
        "R_lite": [{"rank": "19-22", "children": {"gpu": "0-7", "core": "0-47"}}],
        "starttime": 1676560554.0, "expiration": 1676562354.0, "nslots": 32,
        "nodelist": ["node[186-189]"]}}"#;

    #[test]
    fn the_example_of_the_rfc() {
        let set: ResourceSet = EXAMPLE.parse().unwrap();
        assert_eq!((set.nnodes(), set.ncores(), set.ngpus()), (4, 192, 32));
        assert_eq!(set.to_string(), "rank[19-22]/core[0-47],gpu[0-7]");
        insta::assert_snapshot!(serde_json::to_string(&set).unwrap(), @r#"{"version":1,"execution":{"R_lite":[{"rank":"19-22","children":{"core":"0-47","gpu":"0-7"}}],"nslots":32,"starttime":1676560554.0,"expiration":1676562354.0,"nodelist":["node[186-189]"]}}"#);
        assert_eq!(ResourceSet::try_from(set.to_value()).unwrap(), set);
    }

    #[test]
    fn equal_targets_share_an_entry() {
        let mut set = ResourceSet::new();
        let ids = |text: &str| text.parse::<Idset>().unwrap();
        for (rank, cores) in [(0, "0"), (1, "0-1"), (2, "0"), (5, "0")] {
            set.add(
                rank,
                "",
                &ids(cores),
                &ids(if rank == 5 { "3" } else { "" }),
            );
        }
        assert_eq!(
            set.to_string(),
            "rank[0,2]/core0 rank1/core[0-1] rank5/core0,gpu3"
        );
        assert!(set.to_value()["execution"].get("nodelist").is_none());
        assert_eq!(
            ResourceSet::new().to_value().to_string(),
            r#"{"version":1,"execution":{"R_lite":[],"starttime":0.0,"expiration":0.0,"nodelist":[""]}}"#
        );
    }
}
