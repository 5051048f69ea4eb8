//! The algebra of resource sets.
//!
//! Results keep host names, times and scheduler data of the first operand, and properties on the
//! ranks that are left; the number of slots belongs to one allocation and is dropped.

use super::{Children, HostName, ResourceSet, Target};
use crate::{Constraint, Hostlist, Idset};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Two sets that should be disjoint are not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank}: both sets have {children}")]
#[allow(missing_docs)] // their messages say it
pub struct Overlap {
    pub rank: u32,
    pub children: String,
}

/// Why ranks cannot follow a list of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum RerankError {
    #[error("{given} hosts are given for {expected} targets")]
    Count { given: usize, expected: usize },
    #[error("host {0} is not in the resource set")]
    NotFound(String),
}

/// Why a property cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum PropertyError {
    #[error("invalid character '{c}' in property \"{name}\"")]
    Character { name: String, c: char },
    #[error("rank{s} {0} not found in target resource list", s = if .0.len() > 1 { "s" } else { "" })]
    UnknownRanks(Idset),
}

/// The first character of a property's name that RFC 20 forbids.
pub fn property_fault(name: &str) -> Option<char> {
    name.chars().find(|c| "!&'\"^`|()".contains(*c))
}

/// Whether a property tells of an instance rather than of its resources: jobs do not get it (RFC 20).
pub fn is_local_property(name: &str) -> bool {
    name.starts_with('+')
}

impl Children {
    fn zip(&self, other: &Children, op: fn(&Idset, &Idset) -> Idset) -> Children {
        let none = Idset::new();
        let mut more = BTreeMap::new();
        for kind in self.other.keys().chain(other.other.keys()) {
            let ids = |c: &Children| c.other.get(kind).unwrap_or(&none).clone();
            let ids = op(&ids(self), &ids(other));
            if !ids.is_empty() {
                more.insert(kind.clone(), ids);
            }
        }
        Children {
            cores: op(&self.cores, &other.cores),
            gpus: op(&self.gpus, &other.gpus),
            other: more,
        }
    }

    /// What either has.
    pub fn union(&self, other: &Children) -> Children {
        self.zip(other, Idset::union)
    }

    /// What both have.
    pub fn intersection(&self, other: &Children) -> Children {
        self.zip(other, Idset::intersection)
    }

    /// What this has and `other` has not.
    pub fn difference(&self, other: &Children) -> Children {
        self.zip(other, Idset::difference)
    }
}

/// An operation on shared values that is computed once for each pair.
struct Memo {
    op: fn(&Children, &Children) -> Children,
    /// Results by address of the operands, which the caller's sets keep in place.
    known: HashMap<(*const Children, *const Children), Arc<Children>>,
    last: Option<((*const Children, *const Children), Arc<Children>)>,
}

impl Memo {
    fn new(op: fn(&Children, &Children) -> Children) -> Memo {
        Memo {
            op,
            known: HashMap::new(),
            last: None,
        }
    }

    fn apply(&mut self, a: &Arc<Children>, b: &Arc<Children>) -> Arc<Children> {
        let key = (Arc::as_ptr(a), Arc::as_ptr(b));
        if let Some((_, result)) = self.last.as_ref().filter(|(last, _)| *last == key) {
            return result.clone();
        }
        let result = self
            .known
            .entry(key)
            .or_insert_with(|| Arc::new((self.op)(a, b)))
            .clone();
        self.last = Some((key, result.clone()));
        result
    }
}

/// Walks two lists of targets by rank.
fn merge<'a>(
    a: &'a [Target],
    b: &'a [Target],
    mut take: impl FnMut(Option<&'a Target>, Option<&'a Target>),
) {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let (x, y) = (a.peek().map(|t| t.rank), b.peek().map(|t| t.rank));
        match (x, y) {
            (None, None) => return,
            (Some(x), Some(y)) if x == y => take(a.next(), b.next()),
            (Some(x), y) if y.is_none_or(|y| x < y) => take(a.next(), None),
            _ => take(None, b.next()),
        }
    }
}

impl ResourceSet {
    /// These targets with what the set says besides.
    fn with_targets(&self, targets: Vec<Target>) -> ResourceSet {
        let scheduling = self.scheduling.clone().filter(|_| !targets.is_empty());
        let mut set = ResourceSet {
            targets,
            properties: self.properties.clone(),
            scheduling,
            nslots: None,
            ..*self
        };
        set.trim_properties();
        set
    }

    /// Restricts the properties to the ranks of the set.
    pub(super) fn trim_properties(&mut self) {
        if self.properties.is_empty() {
            return;
        }
        let ranks = self.ranks();
        self.properties.retain(|_, on| {
            *on = on.intersection(&ranks);
            !on.is_empty()
        });
    }

    fn in_ranks(&self, ranks: &Idset) -> Vec<Target> {
        let mut targets = Vec::new();
        for &(first, last) in ranks.ranges() {
            let from = self.targets.partition_point(|t| t.rank < first);
            let to = self.targets.partition_point(|t| t.rank <= last);
            targets.extend_from_slice(&self.targets[from..to]);
        }
        targets
    }

    /// The part of the set on the given ranks.
    pub fn on_ranks(&self, ranks: &Idset) -> ResourceSet {
        self.with_targets(self.in_ranks(ranks))
    }

    /// The part of the set whose targets satisfy `keep`.
    pub fn filter(&self, mut keep: impl FnMut(&Target) -> bool) -> ResourceSet {
        let kept = self.targets.iter().filter(|t| keep(t)).cloned();
        self.with_targets(kept.collect())
    }

    /// The part of the set on ranks with a property.
    pub fn with_property(&self, property: &str) -> ResourceSet {
        let none = Idset::new();
        self.on_ranks(self.properties.get(property).unwrap_or(&none))
    }

    /// The part of the set on ranks that satisfy an RFC 31 constraint.
    pub fn satisfying(&self, constraint: &Constraint) -> ResourceSet {
        self.on_ranks(&constraint.ranks_of(self))
    }

    /// The part of each target that `ids` names: what both have, whatever the ranks.
    pub fn with_ids(&self, ids: &Children) -> ResourceSet {
        let ids = Arc::new(ids.clone());
        let mut both = Memo::new(Children::intersection);
        let targets = self.targets.iter().map(|t| Target {
            children: both.apply(&t.children, &ids),
            ..t.clone()
        });
        self.with_targets(targets.filter(|t| !t.children.is_empty()).collect())
    }

    /// Adds all of `other`, which may have what is there already. The hosts of ranks in both
    /// sets stay as they are if they are known; scheduler data is taken if there was none.
    pub fn merge(&mut self, other: &ResourceSet) {
        let mut union = Memo::new(Children::union);
        let mut targets = Vec::with_capacity(self.targets.len() + other.targets.len());
        merge(&self.targets, &other.targets, |a, b| {
            targets.extend(match (a, b) {
                (Some(a), Some(b)) => Some(Target {
                    rank: a.rank,
                    host: if a.host.is_empty() { &b.host } else { &a.host }.clone(),
                    children: union.apply(&a.children, &b.children),
                }),
                (a, b) => a.or(b).cloned(),
            });
        });
        self.targets = targets;
        for (property, on) in &other.properties {
            let mine = self.properties.entry(property.clone()).or_default();
            *mine = mine.union(on);
        }
        self.scheduling = self.scheduling.take().or_else(|| other.scheduling.clone());
        self.nslots = None;
    }

    /// Adds all of `other`, which must not have anything that is there already.
    pub fn append(&mut self, other: &ResourceSet) -> Result<(), Overlap> {
        let mut both = Memo::new(Children::intersection);
        let mut overlap = None;
        merge(&self.targets, &other.targets, |a, b| {
            if let (Some(a), Some(b), None) = (a, b, &overlap) {
                let common = both.apply(&a.children, &b.children);
                if !common.is_empty() {
                    let (rank, children) = (a.rank, common.to_string());
                    overlap = Some(Overlap { rank, children });
                }
            }
        });
        match overlap {
            Some(overlap) => Err(overlap),
            None => {
                self.merge(other);
                Ok(())
            }
        }
    }

    /// What is in either set.
    pub fn union(&self, other: &ResourceSet) -> ResourceSet {
        let mut out = self.clone();
        out.merge(other);
        out
    }

    /// What is in both sets. A rank that has another host in the other set is not the same
    /// target; a target without a host may be any.
    pub fn intersection(&self, other: &ResourceSet) -> ResourceSet {
        let mut both = Memo::new(Children::intersection);
        let mut targets = Vec::new();
        merge(&self.targets, &other.targets, |a, b| {
            let (Some(a), Some(b)) = (a, b) else { return };
            if a.host.is_empty() || b.host.is_empty() || a.host == b.host {
                let children = both.apply(&a.children, &b.children);
                if !children.is_empty() {
                    let a = a.clone();
                    targets.push(Target { children, ..a });
                }
            }
        });
        self.with_targets(targets)
    }

    /// What is in this set and not in `other`.
    pub fn difference(&self, other: &ResourceSet) -> ResourceSet {
        let mut rest = Memo::new(Children::difference);
        let mut targets = Vec::new();
        merge(&self.targets, &other.targets, |a, b| {
            let Some(a) = a else { return };
            let children = match b {
                Some(b) => rest.apply(&a.children, &b.children),
                None => a.children.clone(),
            };
            if !children.is_empty() {
                let a = a.clone();
                targets.push(Target { children, ..a });
            }
        });
        let mut set = self.with_targets(targets);
        set.scheduling = self.scheduling.clone();
        set
    }

    /// Takes ranks out of the set.
    pub fn remove_ranks(&mut self, ranks: &Idset) {
        self.targets.retain(|t| !ranks.contains(t.rank));
        self.trim_properties();
    }

    /// Gives the targets new ranks; those that get the same rank are joined.
    pub fn rerank(&self, mut new_rank: impl FnMut(&Target) -> u32) -> ResourceSet {
        let mut moved: Vec<(u32, &Target)> =
            self.targets.iter().map(|t| (new_rank(t), t)).collect();
        let mut out = self.clone();
        out.nslots = None;
        for on in out.properties.values_mut() {
            let there = moved.iter().filter(|(_, t)| on.contains(t.rank));
            *on = there.map(|(rank, _)| *rank).collect();
        }
        moved.sort_by_key(|(rank, _)| *rank);
        out.targets = Vec::with_capacity(moved.len());
        for (rank, target) in moved {
            out.add_target(rank, target.host.clone(), target.children.clone());
        }
        out
    }

    /// Numbers ranks from 0 in their order, and cores of each target too. Ids of gpus stay.
    pub fn remap(&self) -> ResourceSet {
        let mut next = 0..;
        let mut out = self.rerank(|_| next.next().unwrap_or(u32::MAX));
        let mut known: HashMap<*const Children, Arc<Children>> = HashMap::new();
        for target in &mut out.targets {
            let old = target.children.clone();
            let new = known.entry(Arc::as_ptr(&old)).or_insert_with(|| {
                let mut children = Children::clone(&old);
                children.cores = from_zero(&children.cores);
                for ids in children.other.values_mut() {
                    *ids = from_zero(ids);
                }
                Arc::new(children)
            });
            target.children = new.clone();
        }
        out
    }

    /// Gives each target the place of its host in `hosts` as rank. If several targets are on one
    /// host, they take its places in the order of their ranks.
    pub fn rerank_by_hosts(&self, hosts: &Hostlist) -> Result<ResourceSet, RerankError> {
        let (given, expected) = (hosts.len(), self.targets.len());
        if given != expected {
            return Err(RerankError::Count { given, expected });
        }
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, target) in self.targets.iter().enumerate().rev() {
            places.entry(&target.host).or_default().push(i);
        }
        let mut ranks = vec![0; expected];
        for (rank, host) in hosts.iter().enumerate() {
            let place = places.get_mut::<str>(host.as_ref()).and_then(Vec::pop);
            match place {
                Some(i) => ranks[i] = rank as u32,
                None => return Err(RerankError::NotFound(host.to_string())),
            }
        }
        let mut ranks = ranks.into_iter();
        Ok(self.rerank(|t| ranks.next().unwrap_or(t.rank)))
    }

    /// Names the hosts of all targets, in the order of ranks.
    pub fn assign_hosts(&mut self, hosts: &Hostlist) -> Result<(), RerankError> {
        let (given, expected) = (hosts.len(), self.targets.len());
        if given != expected {
            return Err(RerankError::Count { given, expected });
        }
        for (target, host) in self.targets.iter_mut().zip(hosts.iter()) {
            target.host = HostName::from(&*host);
        }
        Ok(())
    }

    /// Takes away what only one instance knows resources by; see [`is_local_property`].
    pub fn remove_local_properties(&mut self) {
        self.properties.retain(|name, _| !is_local_property(name));
    }

    /// Gives ranks a property, besides those that have it.
    pub fn set_property(&mut self, name: &str, ranks: &Idset) -> Result<(), PropertyError> {
        if let Some(c) = property_fault(name) {
            let name = name.to_owned();
            return Err(PropertyError::Character { name, c });
        }
        let unknown = ranks.difference(&self.ranks());
        if !unknown.is_empty() {
            return Err(PropertyError::UnknownRanks(unknown));
        }
        if !ranks.is_empty() {
            let on = self.properties.entry(name.to_owned()).or_default();
            *on = on.union(ranks);
        }
        Ok(())
    }
}

/// As many ids, counted from 0.
fn from_zero(ids: &Idset) -> Idset {
    match u32::try_from(ids.len()) {
        Ok(n @ 1..) => Idset::from_range(0, n - 1),
        _ => Idset::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ids(text: &str) -> Idset {
        text.parse().unwrap()
    }

    fn set(targets: &[(u32, &str, &str)]) -> ResourceSet {
        let mut set = ResourceSet::new();
        for (rank, host, cores) in targets {
            set.add(*rank, host, &ids(cores), &Idset::new());
        }
        set
    }

    #[test]
    fn parts() {
        let mut r = set(&[
            (19, "a", "0-3"),
            (20, "b", "0-3"),
            (21, "c", "0-1"),
            (23, "d", "0-3"),
        ]);
        r.set_property("ssd", &ids("19,23")).unwrap();
        r.nslots = Some(4);
        r.expiration = 5.;
        let ssd = r.with_property("ssd");
        assert_eq!(
            (ssd.ranks(), ssd.expiration, ssd.nslots),
            (ids("19,23"), 5., None)
        );
        let part = r.on_ranks(&ids("20-22"));
        assert_eq!(part.nodelist().to_string(), "b,c");
        assert!(part.properties.is_empty());
        assert!(r.with_property("none").is_empty());
        let first = Children {
            cores: ids("2-9"),
            ..Children::default()
        };
        assert_eq!(r.with_ids(&first).to_string(), "rank[19-20,23]/core[2-3]");
    }

    #[test]
    fn new_ranks() {
        let mut r = set(&[(3, "a", "2-3"), (5, "b", "7,9")]);
        r.add(5, "", &Idset::new(), &ids("4"));
        r.set_property("p", &ids("5")).unwrap();
        let mapped = r.remap();
        assert_eq!(mapped.to_string(), "rank0/core[0-1] rank1/core[0-1],gpu4");
        assert_eq!(mapped.properties["p"], ids("1"));
        let turned = r.rerank_by_hosts(&"b,a".parse().unwrap()).unwrap();
        assert_eq!(turned.nodelist().to_string(), "b,a");
        assert_eq!(turned.properties["p"], ids("0"));
        let fails = |hosts: &str| {
            r.rerank_by_hosts(&hosts.parse().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(fails("a"), "1 hosts are given for 2 targets");
        assert_eq!(fails("a,c"), "host c is not in the resource set");
        // Several targets on one host.
        let r = set(&[(0, "n", "0"), (1, "n", "1"), (2, "m", "2")]);
        let turned = r.rerank_by_hosts(&"m,n,n".parse().unwrap()).unwrap();
        assert_eq!(turned.to_string(), "rank0/core2 rank1/core0 rank2/core1");
        assert_eq!(r.rerank(|_| 0).to_string(), "rank0/core[0-2]");
    }

    #[test]
    fn appended_sets_are_disjoint() {
        let mut a = set(&[(0, "a", "0-1"), (1, "b", "0")]);
        a.append(&set(&[(1, "b", "1"), (2, "c", "0")])).unwrap();
        assert_eq!(a.to_string(), "rank[0-1]/core[0-1] rank2/core0");
        let e = a.append(&set(&[(1, "b", "1-2")])).unwrap_err();
        assert_eq!(e.to_string(), "rank 1: both sets have core1");
        assert_eq!(a.ncores(), 5);
    }

    #[test]
    fn other_hosts_are_other_targets() {
        let (a, b) = (
            set(&[(0, "a", "0"), (1, "b", "0")]),
            set(&[(0, "a", "0"), (1, "c", "0")]),
        );
        assert_eq!(a.intersection(&b).ranks(), ids("0"));
        let any = set(&[(1, "", "0")]);
        assert_eq!(a.intersection(&any).nodelist().to_string(), "b");
    }

    #[test]
    fn scheduler_data_goes_along() {
        let mut a = set(&[(0, "a", "0")]);
        let b = a.clone();
        a.scheduling = Some(Arc::new(serde_json::json!({"writer": "x"})));
        assert_eq!(b.union(&a).scheduling, a.scheduling);
        assert_eq!(a.difference(&b).scheduling, a.scheduling);
        assert_eq!(a.on_ranks(&ids("1")).scheduling, None);
    }

    #[test]
    fn properties_are_checked() {
        let mut a = set(&[(0, "a", "0")]);
        let mut fails =
            |name: &str, ranks: &str| a.set_property(name, &ids(ranks)).unwrap_err().to_string();
        assert_eq!(fails("a^", "0"), "invalid character '^' in property \"a^\"");
        assert_eq!(
            fails("a", "0-2"),
            "ranks 1-2 not found in target resource list"
        );
        assert_eq!(fails("a", "7"), "rank 7 not found in target resource list");
    }

    type Model = BTreeSet<(u32, &'static str, u32)>;

    fn model(set: &ResourceSet) -> Model {
        let of = |t: &Target, kind, ids: &Idset| {
            ids.iter().map(|id| (t.rank, kind, id)).collect::<Vec<_>>()
        };
        let all = set.targets().iter().flat_map(|t| {
            let other = t.children.get("x").cloned().unwrap_or_default();
            [
                of(t, "core", t.cores()),
                of(t, "gpu", t.gpus()),
                of(t, "x", &other),
            ]
            .concat()
        });
        all.collect()
    }

    fn sets() -> impl Strategy<Value = ResourceSet> {
        let target = (0u64..16, 0u64..4, 0u64..2);
        let targets = prop::collection::btree_map(0u32..8, target, 0..6);
        (targets, prop::collection::vec(0u32..8, 0..5)).prop_map(|(m, on)| {
            let bits = |b: u64| (0..8).filter(|i| b >> i & 1 == 1).collect::<Idset>();
            let mut set = ResourceSet::new();
            for (rank, (cores, gpus, other)) in m {
                let (cores, gpus) = (bits(cores), bits(gpus));
                let other = BTreeMap::from([("x".to_owned(), bits(other))]);
                let other = other
                    .into_iter()
                    .filter(|(_, ids)| !ids.is_empty())
                    .collect();
                let children = Children { cores, gpus, other };
                set.add_target(rank, HostName::from(&*format!("n{rank}")), children.into());
            }
            let on = on.into_iter().collect::<Idset>().intersection(&set.ranks());
            set.set_property("p", &on).unwrap();
            set
        })
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_resources(a in sets(), b in sets(), ranks in prop::collection::vec(0u32..8, 0..6)) {
            let (ma, mb) = (model(&a), model(&b));
            prop_assert_eq!(model(&a.union(&b)), ma.union(&mb).copied().collect::<Model>());
            prop_assert_eq!(model(&a.intersection(&b)), ma.intersection(&mb).copied().collect::<Model>());
            prop_assert_eq!(model(&a.difference(&b)), ma.difference(&mb).copied().collect::<Model>());
            let mut appended = a.clone();
            match appended.append(&b) {
                Ok(()) => prop_assert_eq!(&appended, &a.union(&b)),
                Err(_) => prop_assert!(!ma.is_disjoint(&mb)),
            }
            let ranks: Idset = ranks.into_iter().collect();
            let on: Model = ma.iter().filter(|(r, ..)| ranks.contains(*r)).copied().collect();
            prop_assert_eq!(model(&a.on_ranks(&ranks)), on.clone());
            let mut rest = a.clone();
            rest.remove_ranks(&ranks);
            prop_assert_eq!(model(&rest), ma.difference(&on).copied().collect::<Model>());
            prop_assert_eq!(rest.union(&a.on_ranks(&ranks)), a.clone());
            for set in [a.union(&b), a.difference(&b), rest, a.remap()] {
                prop_assert!(set.properties.values().all(|on| on.is_subset(&set.ranks())));
                prop_assert!(set.targets().windows(2).all(|t| t[0].rank < t[1].rank));
                prop_assert_eq!(set.to_value().to_string().parse::<ResourceSet>().unwrap(), set);
            }
        }
    }
}
