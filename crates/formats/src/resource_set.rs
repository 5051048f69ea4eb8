//! Concrete resources: *R* version 1 of RFC 20.
//!
//! In memory a [`ResourceSet`] maps each execution target (rank) to its host, cores and gpus.
//! In JSON, targets with equal resources share one `R_lite` entry. A target without any core
//! or gpu is never kept, so an empty set is a set without targets. All operations are linear
//! merges over ranks.

use crate::{Hostlist, Idset};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

/// What one execution target holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub host: Arc<str>,
    pub cores: Idset,
    pub gpus: Idset,
}

/// A set of concrete resources.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceSet {
    pub targets: BTreeMap<u32, Target>,
    /// Seconds since the epoch from which the set is valid; 0 is unset.
    pub starttime: f64,
    /// Seconds since the epoch until which the set is valid; 0 is unset.
    pub expiration: f64,
    /// How many slots an allocation holds; `None` for an inventory.
    pub nslots: Option<u32>,
    /// Ranks by property. Kept to the ranks of the set.
    pub properties: BTreeMap<String, Idset>,
    /// The scheduler's own data, passed along unread.
    pub scheduling: Option<Value>,
}

/// Why JSON is not an R.
#[derive(Debug, thiserror::Error)]
pub enum ResourceSetError {
    #[error("R: {0}")]
    Json(#[from] serde_json::Error),
    #[error("R: version {0} is not supported; version 1 is")]
    Version(i64),
    #[error("R: rank {0} appears in two R_lite entries with different hosts")]
    Host(u32),
    #[error("R: execution.nodelist: {0}")]
    Nodelist(#[from] crate::hostlist::HostlistError),
    #[error("R: execution.nodelist names {hosts} hosts for {ranks} ranks")]
    NodelistLength { hosts: usize, ranks: usize },
    #[error("R: execution.properties: {property:?} names ranks {ranks}, which are not in the set")]
    PropertyRanks { property: String, ranks: Idset },
    #[error("R: execution.properties: {property:?} contains the reserved character {c:?}")]
    PropertyName { property: String, c: char },
}

#[derive(Deserialize)]
struct RawR {
    version: i64,
    execution: RawExecution,
    scheduling: Option<Value>,
}

#[derive(Deserialize)]
struct RawExecution {
    #[serde(rename = "R_lite")]
    r_lite: Vec<RawEntry>,
    #[serde(default)]
    nodelist: Vec<String>,
    nslots: Option<u32>,
    #[serde(default)]
    properties: BTreeMap<String, Idset>,
    #[serde(default)]
    starttime: f64,
    #[serde(default)]
    expiration: f64,
}

#[derive(Deserialize)]
struct RawEntry {
    rank: Idset,
    children: RawChildren,
}

#[derive(Deserialize)]
struct RawChildren {
    #[serde(default)]
    core: Idset,
    #[serde(default)]
    gpu: Idset,
}

impl Target {
    pub fn is_empty(&self) -> bool {
        self.cores.is_empty() && self.gpus.is_empty()
    }
}

impl TryFrom<RawR> for ResourceSet {
    type Error = ResourceSetError;

    fn try_from(raw: RawR) -> Result<ResourceSet, ResourceSetError> {
        if raw.version != 1 {
            return Err(ResourceSetError::Version(raw.version));
        }
        let exec = raw.execution;
        let unnamed: Arc<str> = Arc::from("");
        let mut targets: BTreeMap<u32, Target> = BTreeMap::new();
        for entry in exec.r_lite {
            for rank in entry.rank.iter() {
                let target = targets.entry(rank).or_insert_with(|| Target {
                    host: unnamed.clone(),
                    cores: Idset::new(),
                    gpus: Idset::new(),
                });
                target.cores = target.cores.union(&entry.children.core);
                target.gpus = target.gpus.union(&entry.children.gpu);
            }
        }
        let mut hosts = Hostlist::new();
        for part in &exec.nodelist {
            hosts.append_str(part)?;
        }
        if !hosts.is_empty() {
            if hosts.len() != targets.len() {
                let (hosts, ranks) = (hosts.len(), targets.len());
                return Err(ResourceSetError::NodelistLength { hosts, ranks });
            }
            for (target, host) in targets.values_mut().zip(hosts.iter()) {
                target.host = host.into();
            }
        }
        let ranks: Idset = targets.keys().copied().collect();
        for (property, on) in &exec.properties {
            if let Some(c) = property.chars().find(|c| "!&'\"^`|()".contains(*c)) {
                return Err(ResourceSetError::PropertyName {
                    property: property.clone(),
                    c,
                });
            }
            let unknown = on.difference(&ranks);
            if !unknown.is_empty() {
                let property = property.clone();
                return Err(ResourceSetError::PropertyRanks {
                    property,
                    ranks: unknown,
                });
            }
        }
        targets.retain(|_, target| !target.is_empty());
        let kept: Idset = targets.keys().copied().collect();
        let mut properties = exec.properties;
        properties.retain(|_, on| {
            *on = on.intersection(&kept);
            !on.is_empty()
        });
        Ok(ResourceSet {
            targets,
            starttime: exec.starttime,
            expiration: exec.expiration,
            nslots: exec.nslots,
            properties,
            scheduling: raw.scheduling,
        })
    }
}

impl FromStr for ResourceSet {
    type Err = ResourceSetError;

    fn from_str(text: &str) -> Result<ResourceSet, ResourceSetError> {
        serde_json::from_str::<RawR>(text)?.try_into()
    }
}

impl TryFrom<Value> for ResourceSet {
    type Error = ResourceSetError;

    fn try_from(value: Value) -> Result<ResourceSet, ResourceSetError> {
        serde_json::from_value::<RawR>(value)?.try_into()
    }
}

impl<'de> Deserialize<'de> for ResourceSet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<ResourceSet, D::Error> {
        RawR::deserialize(d)?
            .try_into()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for ResourceSet {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(s)
    }
}

impl ResourceSet {
    pub fn new() -> ResourceSet {
        ResourceSet::default()
    }

    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Adds resources to a rank, joining them with what is there.
    pub fn add(&mut self, rank: u32, host: &str, cores: &Idset, gpus: &Idset) {
        if cores.is_empty() && gpus.is_empty() {
            return;
        }
        match self.targets.get_mut(&rank) {
            Some(target) => {
                target.cores = target.cores.union(cores);
                target.gpus = target.gpus.union(gpus);
            }
            None => {
                let target = Target {
                    host: host.into(),
                    cores: cores.clone(),
                    gpus: gpus.clone(),
                };
                self.targets.insert(rank, target);
            }
        }
    }

    pub fn ranks(&self) -> Idset {
        self.targets.keys().copied().collect()
    }

    /// Hosts in the order of ranks.
    pub fn nodelist(&self) -> Hostlist {
        self.targets.values().map(|t| &t.host).collect()
    }

    pub fn nnodes(&self) -> usize {
        self.targets.len()
    }

    pub fn ncores(&self) -> usize {
        self.targets.values().map(|t| t.cores.len()).sum()
    }

    pub fn ngpus(&self) -> usize {
        self.targets.values().map(|t| t.gpus.len()).sum()
    }

    /// The properties of one rank.
    pub fn properties_of(&self, rank: u32) -> impl Iterator<Item = &str> {
        self.properties
            .iter()
            .filter(move |(_, on)| on.contains(rank))
            .map(|(p, _)| p.as_str())
    }

    /// An empty set with the times, slots and scheduler data of this one.
    fn like(&self) -> ResourceSet {
        ResourceSet {
            targets: BTreeMap::new(),
            properties: BTreeMap::new(),
            scheduling: self.scheduling.clone(),
            ..*self
        }
    }

    /// Restricts the properties to the ranks of the set.
    fn trim_properties(mut self, from: &BTreeMap<String, Idset>) -> ResourceSet {
        if !from.is_empty() {
            let ranks = self.ranks();
            for (property, on) in from {
                let on = on.intersection(&ranks);
                if !on.is_empty() {
                    self.properties.insert(property.clone(), on);
                }
            }
        }
        self
    }

    /// The part of the set on the given ranks.
    pub fn on_ranks(&self, ranks: &Idset) -> ResourceSet {
        let mut out = self.like();
        for &(first, last) in ranks.ranges() {
            let part = self.targets.range(first..=last);
            out.targets
                .extend(part.map(|(rank, target)| (*rank, target.clone())));
        }
        out.trim_properties(&self.properties)
    }

    /// The part of the set whose targets satisfy `keep`.
    pub fn filter(&self, mut keep: impl FnMut(u32, &Target) -> bool) -> ResourceSet {
        let mut out = self.like();
        let kept = self
            .targets
            .iter()
            .filter(|(rank, target)| keep(**rank, target));
        out.targets = kept.map(|(rank, target)| (*rank, target.clone())).collect();
        out.trim_properties(&self.properties)
    }

    /// The part of the set on ranks with a property.
    pub fn with_property(&self, property: &str) -> ResourceSet {
        match self.properties.get(property) {
            Some(ranks) => self.on_ranks(ranks),
            None => self.like(),
        }
    }

    /// Adds all resources of `other`; the hosts of ranks in both sets stay as they are.
    pub fn append(&mut self, other: &ResourceSet) {
        for (rank, target) in &other.targets {
            self.add(*rank, &target.host, &target.cores, &target.gpus);
        }
        for (property, on) in &other.properties {
            let mine = self.properties.entry(property.clone()).or_default();
            *mine = mine.union(on);
        }
    }

    pub fn union(&self, other: &ResourceSet) -> ResourceSet {
        let mut out = self.clone();
        out.append(other);
        out
    }

    fn combine(
        &self,
        other: &ResourceSet,
        op: impl Fn(&Target, Option<&Target>) -> Option<Target>,
    ) -> ResourceSet {
        let mut out = self.like();
        for (rank, target) in &self.targets {
            let result = op(target, other.targets.get(rank));
            if let Some(result) = result.filter(|t| !t.is_empty()) {
                out.targets.insert(*rank, result);
            }
        }
        out.trim_properties(&self.properties)
    }

    pub fn intersection(&self, other: &ResourceSet) -> ResourceSet {
        self.combine(other, |a, b| {
            let b = b?;
            let (cores, gpus) = (a.cores.intersection(&b.cores), a.gpus.intersection(&b.gpus));
            Some(Target {
                host: a.host.clone(),
                cores,
                gpus,
            })
        })
    }

    /// What is in this set and not in `other`.
    pub fn difference(&self, other: &ResourceSet) -> ResourceSet {
        self.combine(other, |a, b| {
            let Some(b) = b else { return Some(a.clone()) };
            let (cores, gpus) = (a.cores.difference(&b.cores), a.gpus.difference(&b.gpus));
            Some(Target {
                host: a.host.clone(),
                cores,
                gpus,
            })
        })
    }

    /// Takes ranks out of the set.
    pub fn remove_ranks(&mut self, ranks: &Idset) {
        self.targets.retain(|rank, _| !ranks.contains(*rank));
        self.properties.retain(|_, on| {
            *on = on.difference(ranks);
            !on.is_empty()
        });
    }

    /// Gives the targets new ranks: `new_rank` maps each old rank.
    pub fn rerank(&self, mut new_rank: impl FnMut(u32, &Target) -> u32) -> ResourceSet {
        let map: BTreeMap<u32, u32> = self
            .targets
            .iter()
            .map(|(rank, target)| (*rank, new_rank(*rank, target)))
            .collect();
        let mut out = self.like();
        for (rank, target) in &self.targets {
            out.add(map[rank], &target.host, &target.cores, &target.gpus);
        }
        out.properties = self
            .properties
            .iter()
            .map(|(p, on)| {
                (
                    p.clone(),
                    on.iter().filter_map(|r| map.get(&r).copied()).collect(),
                )
            })
            .collect();
        out
    }

    /// Targets grouped by equal resources, in the order of each group's lowest rank.
    fn groups(&self) -> Vec<(Idset, &Target)> {
        let mut at: HashMap<(&Idset, &Idset), usize> = HashMap::new();
        let mut groups: Vec<(Vec<u32>, &Target)> = Vec::new();
        for (rank, target) in &self.targets {
            let group = *at.entry((&target.cores, &target.gpus)).or_insert_with(|| {
                groups.push((Vec::new(), target));
                groups.len() - 1
            });
            groups[group].0.push(*rank);
        }
        groups
            .into_iter()
            .map(|(ranks, target)| (ranks.into_iter().collect(), target))
            .collect()
    }

    pub fn to_value(&self) -> Value {
        let r_lite: Vec<Value> = self
            .groups()
            .into_iter()
            .map(|(ranks, target)| {
                let mut children = Map::new();
                children.insert("core".into(), json!(target.cores));
                if !target.gpus.is_empty() {
                    children.insert("gpu".into(), json!(target.gpus));
                }
                json!({"rank": ranks, "children": children})
            })
            .collect();
        let mut execution = Map::new();
        execution.insert("R_lite".into(), r_lite.into());
        execution.insert("starttime".into(), json!(self.starttime));
        execution.insert("expiration".into(), json!(self.expiration));
        if let Some(nslots) = self.nslots {
            execution.insert("nslots".into(), json!(nslots));
        }
        let hosts = self.nodelist();
        if self.targets.values().any(|t| !t.host.is_empty()) {
            execution.insert("nodelist".into(), json!([hosts]));
        }
        if !self.properties.is_empty() {
            execution.insert("properties".into(), json!(self.properties));
        }
        let mut r = Map::new();
        r.insert("version".into(), json!(1));
        r.insert("execution".into(), execution.into());
        if let Some(scheduling) = &self.scheduling {
            r.insert("scheduling".into(), scheduling.clone());
        }
        r.into()
    }
}

/// The short form shown to users: `rank[0-1]/core[0-3],gpu0 rank2/core0`.
impl fmt::Display for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (ranks, target)) in self.groups().into_iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "rank{}/", ranks.to_string_brackets())?;
            if !target.cores.is_empty() {
                write!(f, "core{}", target.cores.to_string_brackets())?;
            }
            if !target.gpus.is_empty() {
                let comma = if target.cores.is_empty() { "" } else { "," };
                write!(f, "{comma}gpu{}", target.gpus.to_string_brackets())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const R: &str = r#"{"version":1,"execution":{"R_lite":[
        {"rank":"19-20","children":{"core":"0-47","gpu":"0-7"}},
        {"rank":"21,23","children":{"core":"0-3"}}],
        "starttime":1676560554.0,"expiration":1676562354.0,"nslots":32,
        "nodelist":["node[186-188]","node190"],"properties":{"ssd":"19,23"}},
        "scheduling":{"graph":[1]}}"#;

    fn r() -> ResourceSet {
        R.parse().expect("valid R in a test")
    }

    #[test]
    fn reads_and_writes_r() {
        let r = r();
        assert_eq!(r.ranks().to_string(), "19-21,23");
        assert_eq!((r.nnodes(), r.ncores(), r.ngpus()), (4, 104, 16));
        assert_eq!(&*r.targets[&23].host, "node190");
        assert_eq!(
            r.to_string(),
            "rank[19-20]/core[0-47],gpu[0-7] rank[21,23]/core[0-3]"
        );
        let want = concat!(
            r#"{"version":1,"execution":{"R_lite":[{"rank":"19-20","children":{"core":"0-47","gpu":"0-7"}},"#,
            r#"{"rank":"21,23","children":{"core":"0-3"}}],"starttime":1676560554.0,"expiration":1676562354.0,"#,
            r#""nslots":32,"nodelist":["node[186-188,190]"],"properties":{"ssd":"19,23"}},"scheduling":{"graph":[1]}}"#
        );
        assert_eq!(serde_json::to_string(&r).unwrap(), want);
        assert_eq!(want.parse::<ResourceSet>().unwrap(), r);
    }

    #[test]
    fn parts() {
        let r = r();
        let ssd = r.with_property("ssd");
        assert_eq!(ssd.ranks().to_string(), "19,23");
        assert_eq!(
            r.on_ranks(&"20-22".parse().unwrap()).nodelist().to_string(),
            "node[187-188]"
        );
        assert!(r.on_ranks(&"20-22".parse().unwrap()).properties.is_empty());
        assert!(r.with_property("none").is_empty());
        let packed = r.rerank(|rank, _| rank - 19);
        assert_eq!(packed.ranks().to_string(), "0-2,4");
        assert_eq!(packed.properties["ssd"].to_string(), "0,4");
    }

    #[test]
    fn errors_name_the_place() {
        let bad = |from: &str, to: &str| {
            R.replace(from, to)
                .parse::<ResourceSet>()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            bad("\"version\":1", "\"version\":2"),
            "R: version 2 is not supported; version 1 is"
        );
        assert_eq!(
            bad("node190", "node[190-191]"),
            "R: execution.nodelist names 5 hosts for 4 ranks"
        );
        assert_eq!(
            bad("\"19,23\"", "\"22\""),
            "R: execution.properties: \"ssd\" names ranks 22, which are not in the set"
        );
        assert!(bad("0-47", "47-0").starts_with("R: idset '47-0'"));
    }

    fn sets() -> impl Strategy<Value = ResourceSet> {
        prop::collection::btree_map(0u32..8, (0u64..16, 0u64..4), 0..6).prop_map(|m| {
            let bits = |b: u64| (0..8).filter(|i| b >> i & 1 == 1).collect::<Idset>();
            let mut set = ResourceSet::new();
            for (rank, (cores, gpus)) in m {
                set.add(rank, &format!("n{rank}"), &bits(cores), &bits(gpus));
            }
            set
        })
    }

    proptest! {
        #[test]
        fn algebra(a in sets(), b in sets()) {
            let both = a.intersection(&b);
            prop_assert_eq!(a.difference(&b).union(&both), a.clone());
            prop_assert_eq!(a.union(&b).difference(&b), a.difference(&b));
            prop_assert_eq!(a.union(&b).ncores() + both.ncores(), a.ncores() + b.ncores());
            prop_assert_eq!(a.to_value().to_string().parse::<ResourceSet>().unwrap(), a);
        }
    }
}
