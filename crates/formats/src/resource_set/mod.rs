//! Concrete resources: *R* version 1 of RFC 20.
//!
//! A [`ResourceSet`] is a list of execution targets (ranks) in ascending order, each with its
//! host, cores and gpus. What a target holds is shared: ten thousand equal nodes have one
//! [`Children`], and set operations compute the result for each pair of shared values once. A
//! target without any resource is never kept, so an empty set is a set without targets. All
//! operations are linear merges over ranks.
//!
//! `decode` reads JSON, `fault` says where it is wrong, `encode` writes it, `ops` is the algebra,
//! [`verify`] compares a node with what it should have, [`config`] makes a set of configuration
//! entries, [`hwloc`] of a node's XML topology. [`jgf`] (RFC 40) and [`treepool`] (RFC 49) are
//! typed views of the scheduler's own data.

pub mod config;
mod decode;
mod encode;
mod fault;
mod host;
pub mod hwloc;
pub mod jgf;
mod ops;
pub mod treepool;
pub mod verify;

pub use fault::{Fault, ResourceSetError};
pub use host::HostName;
pub use ops::{Overlap, PropertyError, RerankError, is_local_property, property_fault};

use crate::{Hostlist, Idset};
use serde_json::Value;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// The resources a target holds: ids by type. An id set that is empty counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Children {
    /// Logical ids of cores.
    pub cores: Idset,
    /// Ids of gpus.
    pub gpus: Idset,
    /// Types other than core and gpu, which RFC 20 does not define.
    pub other: BTreeMap<String, Idset>,
}

/// What one execution target holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The broker rank.
    pub rank: u32,
    /// Its host.
    pub host: HostName,
    /// Shared by targets that hold the same.
    pub children: Arc<Children>,
}

/// A set of concrete resources.
///
/// ```
/// use formats::{Idset, ResourceSet};
///
/// let mut all = ResourceSet::new();
/// for rank in 0..4 {
///     all.add(rank, &format!("n{rank}"), &Idset::from_range(0, 7), &Idset::new());
/// }
/// let part = all.on_ranks(&"1-2".parse()?);
/// assert_eq!(all.difference(&part).to_string(), "rank[0,3]/core[0-7]");
/// assert_eq!((part.nnodes(), part.ncores()), (2, 16));
///
/// let r = serde_json::to_string(&part)?;
/// assert_eq!(r.parse::<ResourceSet>()?, part);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceSet {
    /// Ascending by rank, none without resources.
    targets: Vec<Target>,
    /// Seconds since the epoch from which the set is valid; 0 is unset.
    pub starttime: f64,
    /// Seconds since the epoch until which the set is valid; 0 is unset.
    pub expiration: f64,
    /// How many slots an allocation holds; `None` for an inventory. Parts of a set have none.
    pub nslots: Option<u32>,
    /// Ranks by property. Kept to the ranks of the set.
    pub properties: BTreeMap<String, Idset>,
    /// The scheduler's own data, passed along unread.
    pub scheduling: Option<Arc<Value>>,
}

impl Children {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cores.is_empty() && self.gpus.is_empty() && self.other.values().all(Idset::is_empty)
    }

    /// The ids of a type, if there are any.
    pub fn get(&self, kind: &str) -> Option<&Idset> {
        let ids = match kind {
            "core" => &self.cores,
            "gpu" => &self.gpus,
            kind => self.other.get(kind)?,
        };
        (!ids.is_empty()).then_some(ids)
    }

    /// Types with their ids: cores first, then by name. No type is without ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Idset)> {
        let from = |range| self.other.range::<str, (Bound<&str>, Bound<&str>)>(range);
        let before = from((Bound::Unbounded, Bound::Excluded("gpu")));
        let after = from((Bound::Excluded("gpu"), Bound::Unbounded));
        [("core", &self.cores)]
            .into_iter()
            .chain(before.map(|(kind, ids)| (kind.as_str(), ids)))
            .chain([("gpu", &self.gpus)])
            .chain(after.map(|(kind, ids)| (kind.as_str(), ids)))
            .filter(|(_, ids)| !ids.is_empty())
    }
}

impl Target {
    /// Logical ids of cores.
    pub fn cores(&self) -> &Idset {
        &self.children.cores
    }

    /// Ids of gpus.
    pub fn gpus(&self) -> &Idset {
        &self.children.gpus
    }
}

impl ResourceSet {
    /// The empty set.
    pub fn new() -> ResourceSet {
        ResourceSet::default()
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// The targets by ascending rank.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    fn find(&self, rank: u32) -> Result<usize, usize> {
        self.targets.binary_search_by_key(&rank, |t| t.rank)
    }

    /// The target of a rank.
    pub fn get(&self, rank: u32) -> Option<&Target> {
        self.find(rank).ok().map(|at| &self.targets[at])
    }

    /// Whether a rank is in the set.
    pub fn contains_rank(&self, rank: u32) -> bool {
        self.find(rank).is_ok()
    }

    /// Adds resources to a rank, joining them with what is there. The host of a rank that is in
    /// the set stays.
    pub fn add(&mut self, rank: u32, host: &str, cores: &Idset, gpus: &Idset) {
        let children = Children {
            cores: cores.clone(),
            gpus: gpus.clone(),
            other: BTreeMap::new(),
        };
        self.add_target(rank, host.into(), Arc::new(children));
    }

    pub(crate) fn add_target(&mut self, rank: u32, host: HostName, mut children: Arc<Children>) {
        if children.is_empty() {
            return;
        }
        // Neighbours are often alike.
        if let Some(last) = self.targets.last().filter(|t| t.children == children) {
            children = last.children.clone();
        }
        match self.find(rank) {
            Ok(at) => {
                let target = &mut self.targets[at];
                target.children = Arc::new(target.children.union(&children));
            }
            Err(at) => {
                let target = Target {
                    rank,
                    host,
                    children,
                };
                self.targets.insert(at, target);
            }
        }
    }

    /// All ranks.
    pub fn ranks(&self) -> Idset {
        self.targets.iter().map(|t| t.rank).collect()
    }

    /// Hosts in the order of ranks.
    pub fn nodelist(&self) -> Hostlist {
        self.targets.iter().map(|t| &t.host).collect()
    }

    /// How many targets.
    pub fn nnodes(&self) -> usize {
        self.targets.len()
    }

    /// How many cores on all targets.
    pub fn ncores(&self) -> usize {
        self.targets.iter().map(|t| t.cores().len()).sum()
    }

    /// How many gpus on all targets.
    pub fn ngpus(&self) -> usize {
        self.targets.iter().map(|t| t.gpus().len()).sum()
    }

    /// How many resources of a type the set holds: `node`, `core`, `gpu` or another child type.
    pub fn count(&self, kind: &str) -> usize {
        let of = |t: &Target| t.children.get(kind).map_or(0, Idset::len);
        match kind {
            "node" => self.nnodes(),
            _ => self.targets.iter().map(of).sum(),
        }
    }

    /// The properties of one rank.
    pub fn properties_of(&self, rank: u32) -> impl Iterator<Item = &str> {
        self.properties
            .iter()
            .filter(move |(_, on)| on.contains(rank))
            .map(|(p, _)| p.as_str())
    }

    /// Whether a rank has a property.
    pub fn has_property(&self, rank: u32, property: &str) -> bool {
        self.properties
            .get(property)
            .is_some_and(|on| on.contains(rank))
    }

    /// Targets grouped by equal resources, in the order of each group's lowest rank.
    pub fn groups(&self) -> Vec<(Idset, &Children)> {
        encode::groups(&self.targets)
    }
}
