//! Which resources are free, and where a request fits.
//!
//! Nodes with the most free cores are taken first (worst fit), lower ranks first among equals, so
//! that work spreads over the instance. Cost of an allocation: O(ranks · log ranks).

use std::collections::{BTreeMap, BinaryHeap};

use formats::constraint::Constraint;
use formats::idset::Idset;
use formats::jobspec::ResourceCounts;
use formats::resource_set::{HostName, ResourceSet, Target};

/// Why a request cannot be allocated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoFit {
    /// Not now.
    #[error("insufficient resources")]
    Busy,
    /// Not with all resources of the instance free and up.
    #[error("unsatisfiable request: {0}")]
    Never(String),
}

/// The resources of an instance.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    all: ResourceSet,
    up: Idset,
    free: BTreeMap<u32, Node>,
}

/// What a target has left, or has in all.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    host: HostName,
    cores: Idset,
    gpus: Idset,
}

impl From<&Target> for Node {
    fn from(target: &Target) -> Node {
        Node {
            host: target.host.clone(),
            cores: target.cores().clone(),
            gpus: target.gpus().clone(),
        }
    }
}

/// Targets as nodes, all they have.
fn nodes(set: &ResourceSet) -> BTreeMap<u32, Node> {
    let targets = set.targets().iter();
    targets.map(|t| (t.rank, Node::from(t))).collect()
}

/// What one node must give for a number of slots.
fn fits(target: &Node, counts: &ResourceCounts, slots: u32) -> bool {
    target.cores.len() >= (slots * counts.slot_size) as usize
        && target.gpus.len() >= (slots * counts.slot_gpus) as usize
}

/// Slots that a node can hold.
fn capacity(target: &Node, counts: &ResourceCounts) -> u32 {
    let by = |have: usize, need: u32| match need {
        0 => u32::MAX,
        need => have as u32 / need,
    };
    by(target.cores.len(), counts.slot_size).min(by(target.gpus.len(), counts.slot_gpus))
}

fn first(ids: &Idset, count: usize) -> Idset {
    ids.iter().take(count).collect()
}

impl Pool {
    /// All of `all` is free; the ranks of `up` may be used.
    pub fn new(all: ResourceSet, up: Idset) -> Self {
        let free = nodes(&all);
        Self { all, up, free }
    }

    /// Ranks became usable.
    pub fn set_up(&mut self, ranks: &Idset) {
        self.up = self.up.union(ranks);
    }

    /// Ranks became unusable; what runs there goes on.
    pub fn set_down(&mut self, ranks: &Idset) {
        self.up = self.up.difference(ranks);
    }

    /// Ranks left for good.
    pub fn shrink(&mut self, ranks: &Idset) {
        self.all.remove_ranks(ranks);
        self.up = self.up.difference(ranks);
        self.free.retain(|rank, _| !ranks.contains(*rank));
    }

    /// All resources.
    pub fn all(&self) -> &ResourceSet {
        &self.all
    }

    /// Those of ranks that may not be used.
    pub fn down(&self) -> ResourceSet {
        self.all.on_ranks(&self.all.ranks().difference(&self.up))
    }

    /// Those in use.
    pub fn allocated(&self) -> ResourceSet {
        let mut free = ResourceSet::new();
        for (rank, node) in &self.free {
            free.add(*rank, &node.host, &node.cores, &node.gpus);
        }
        self.all.difference(&free)
    }

    /// Mark `set` as used (a job that ran before this scheduler).
    pub fn take(&mut self, set: &ResourceSet) {
        for used in set.targets() {
            if let Some(free) = self.free.get_mut(&used.rank) {
                free.cores = free.cores.difference(used.cores());
                free.gpus = free.gpus.difference(used.gpus());
            }
        }
    }

    /// Mark `set` as free again. What the instance does not have (any more) stays out.
    pub fn release(&mut self, set: &ResourceSet) {
        for used in set.targets() {
            let rank = used.rank;
            let (Some(free), Some(all)) = (self.free.get_mut(&rank), self.all.get(rank)) else {
                continue;
            };
            free.cores = free.cores.union(used.cores()).intersection(all.cores());
            free.gpus = free.gpus.union(used.gpus()).intersection(all.gpus());
        }
    }

    /// Mark everything as free.
    pub fn release_all(&mut self) {
        self.free = nodes(&self.all);
    }

    /// Allocate `counts` on ranks that satisfy `constraint`.
    pub fn alloc(
        &mut self,
        counts: &ResourceCounts,
        constraint: Option<&Constraint>,
    ) -> Result<ResourceSet, NoFit> {
        let eligible = self.eligible(constraint);
        let usable: Vec<u32> = eligible.intersection(&self.up).iter().collect();
        let Some(plan) = plan(&usable, &self.free, &self.all, counts) else {
            self.check_among(&eligible, counts)?;
            return Err(NoFit::Busy);
        };
        let mut set = ResourceSet::new();
        for (rank, slots) in plan {
            let free = &self.free[&rank];
            let (cores, gpus) = if counts.exclusive {
                (free.cores.clone(), free.gpus.clone())
            } else {
                (
                    first(&free.cores, (slots * counts.slot_size) as usize),
                    first(&free.gpus, (slots * counts.slot_gpus) as usize),
                )
            };
            set.add(rank, &free.host, &cores, &gpus);
        }
        set.nslots = Some(counts.nslots);
        self.describe(&mut set);
        self.take(&set);
        Ok(set)
    }

    /// A job's resources have the properties they have here, but for those of this instance alone, and the graph they are
    /// part of (RFC 20).
    fn describe(&self, set: &mut ResourceSet) {
        let ranks = set.ranks();
        for (name, having) in &self.all.properties {
            let having = having.intersection(&ranks);
            if !having.is_empty() {
                set.properties.insert(name.clone(), having);
            }
        }
        set.remove_local_properties();
        set.scheduling = self.all.scheduling.clone();
    }

    /// Whether `counts` could ever be allocated.
    pub fn check(
        &self,
        counts: &ResourceCounts,
        constraint: Option<&Constraint>,
    ) -> Result<(), NoFit> {
        self.check_among(&self.eligible(constraint), counts)
    }

    fn check_among(&self, eligible: &Idset, counts: &ResourceCounts) -> Result<(), NoFit> {
        let all = nodes(&self.all);
        let ranks: Vec<u32> = eligible.iter().collect();
        if plan(&ranks, &all, &self.all, counts).is_some() {
            return Ok(());
        }
        let total =
            |f: fn(&Node) -> usize| -> usize { ranks.iter().map(|rank| f(&all[rank])).sum() };
        let need_cores = counts.nslots * counts.slot_size;
        let need_gpus = counts.nslots * counts.slot_gpus;
        let why = if counts.nnodes as usize > ranks.len() {
            format!(
                "{} nodes are requested, {} are eligible",
                counts.nnodes,
                ranks.len()
            )
        } else if need_cores as usize > total(|t| t.cores.len()) {
            format!(
                "{need_cores} cores are requested, {} are there",
                total(|t| t.cores.len())
            )
        } else if need_gpus as usize > total(|t| t.gpus.len()) {
            format!(
                "{need_gpus} GPUs are requested, {} are there",
                total(|t| t.gpus.len())
            )
        } else {
            format!(
                "no node can hold the slots requested ({} cores, {} GPUs each)",
                counts.slot_size, counts.slot_gpus
            )
        };
        Err(NoFit::Never(why))
    }

    /// Ranks that satisfy `constraint`.
    fn eligible(&self, constraint: Option<&Constraint>) -> Idset {
        match constraint {
            Some(constraint) => constraint.ranks_of(&self.all),
            None => self.all.ranks(),
        }
    }
}

/// How many slots each rank gives, ascending; `None` if they do not fit.
fn plan(
    ranks: &[u32],
    free: &BTreeMap<u32, Node>,
    all: &ResourceSet,
    counts: &ResourceCounts,
) -> Option<BTreeMap<u32, u32>> {
    let whole = |rank: u32| {
        !counts.exclusive || all.get(rank).is_some_and(|t| free[&rank] == Node::from(t))
    };
    let mut candidates: Vec<u32> = ranks.iter().copied().filter(|rank| whole(*rank)).collect();
    if let Some(base) = counts.nslots.checked_div(counts.nnodes) {
        let extra = (counts.nslots % counts.nnodes) as usize;
        candidates.retain(|rank| fits(&free[rank], counts, base.max(1)));
        if candidates.len() < counts.nnodes as usize {
            return None;
        }
        // A stable sort keeps lower ranks first among nodes with as many free cores.
        candidates.sort_by_key(|rank| std::cmp::Reverse(free[rank].cores.len()));
        candidates.truncate(counts.nnodes as usize);
        let slots = |i: usize| base + u32::from(i < extra);
        let fitting = candidates
            .iter()
            .enumerate()
            .all(|(i, rank)| fits(&free[rank], counts, slots(i)));
        return fitting.then(|| {
            candidates
                .iter()
                .enumerate()
                .map(|(i, rank)| (*rank, slots(i)))
                .collect()
        });
    }
    let mut heap: BinaryHeap<(usize, std::cmp::Reverse<u32>, u32)> = candidates
        .iter()
        .map(|rank| {
            (
                free[rank].cores.len(),
                std::cmp::Reverse(*rank),
                capacity(&free[rank], counts),
            )
        })
        .filter(|(_, _, capacity)| *capacity > 0)
        .collect();
    let mut chosen = BTreeMap::new();
    for _ in 0..counts.nslots {
        let (cores, rank, left) = heap.pop()?;
        *chosen.entry(rank.0).or_insert(0) += 1;
        if left > 1 {
            heap.push((
                cores.saturating_sub(counts.slot_size as usize),
                rank,
                left - 1,
            ));
        }
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instance(nodes: u32, cores: u32) -> Pool {
        let mut all = ResourceSet::new();
        for rank in 0..nodes {
            all.add(
                rank,
                &format!("n{rank}"),
                &Idset::from_range(0, cores - 1),
                &Idset::new(),
            );
        }
        Pool::new(all, Idset::from_range(0, nodes - 1))
    }

    fn request(nnodes: u32, nslots: u32, slot_size: u32) -> ResourceCounts {
        ResourceCounts {
            nnodes,
            nslots,
            slot_size,
            slot_gpus: 0,
            exclusive: false,
        }
    }

    fn shape(set: &ResourceSet) -> String {
        let one = |t: &Target| format!("{}:{}", t.rank, t.cores());
        set.targets().iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn spreads_and_fills() {
        let mut pool = instance(2, 4);
        let mut alloc = |n, s, c| pool.alloc(&request(n, s, c), None).map(|s| shape(&s));
        assert_eq!(alloc(0, 1, 1).unwrap(), "0:0");
        assert_eq!(alloc(0, 1, 1).unwrap(), "1:0");
        assert_eq!(alloc(2, 2, 2).unwrap(), "0:1-2 1:1-2");
        assert_eq!(alloc(0, 2, 1).unwrap(), "0:3 1:3");
        assert_eq!(alloc(0, 1, 1), Err(NoFit::Busy));
        assert!(matches!(alloc(3, 3, 1), Err(NoFit::Never(_))));
        assert!(matches!(alloc(0, 9, 1), Err(NoFit::Never(_))));
        assert!(matches!(alloc(0, 1, 5), Err(NoFit::Never(_))));
    }

    #[test]
    fn exclusive_wants_whole_nodes() {
        let mut pool = instance(2, 4);
        let one = pool.alloc(&request(0, 1, 1), None).unwrap();
        let whole = ResourceCounts {
            exclusive: true,
            ..request(1, 1, 1)
        };
        assert_eq!(shape(&pool.alloc(&whole, None).unwrap()), "1:0-3");
        assert_eq!(pool.alloc(&whole, None), Err(NoFit::Busy));
        pool.release(&one);
        assert_eq!(shape(&pool.alloc(&whole, None).unwrap()), "0:0-3");
    }

    #[test]
    fn properties_go_with_the_resources() {
        let mut all = instance(2, 1).all;
        for (name, ranks) in [("fast", "0-1"), ("big", "1"), ("+batch", "0-1")] {
            all.properties
                .insert(name.to_owned(), ranks.parse().unwrap());
        }
        all.scheduling = Some(std::sync::Arc::new(serde_json::json!({"graph": {}})));
        let mut pool = Pool::new(all, Idset::from_range(0, 1));
        let mut next = || pool.alloc(&request(0, 1, 1), None).unwrap().to_value();
        let (first, second) = (next(), next());
        assert_eq!(
            first["execution"]["properties"],
            serde_json::json!({"fast": "0"})
        );
        let both = serde_json::json!({"fast": "1", "big": "1"});
        assert_eq!(second["execution"]["properties"], both);
        assert_eq!(second["scheduling"], serde_json::json!({"graph": {}}));
    }

    #[test]
    fn what_is_where() {
        let mut pool = instance(2, 4);
        assert!(pool.allocated().targets().is_empty());
        let one = pool.alloc(&request(0, 1, 2), None).unwrap();
        assert_eq!(shape(&pool.allocated()), shape(&one));
        pool.set_down(&Idset::from_range(1, 1));
        assert_eq!(
            (pool.down().ranks(), pool.all().nnodes()),
            (Idset::from_range(1, 1), 2)
        );
        pool.release(&one);
        assert!(pool.allocated().targets().is_empty());
    }

    #[test]
    fn down_ranks_are_left_out() {
        let mut pool = instance(2, 1);
        pool.set_down(&Idset::from_range(0, 0));
        assert_eq!(shape(&pool.alloc(&request(1, 1, 1), None).unwrap()), "1:0");
        assert_eq!(pool.alloc(&request(1, 1, 1), None), Err(NoFit::Busy));
        pool.set_up(&Idset::from_range(0, 0));
        assert_eq!(shape(&pool.alloc(&request(1, 1, 1), None).unwrap()), "0:0");
    }

    proptest! {
        /// Nothing is handed out twice, and all comes back.
        #[test]
        fn conserves(requests in proptest::collection::vec((0u32..3, 1u32..5, 1u32..3), 1..40)) {
            let mut pool = instance(3, 4);
            let mut held: Vec<ResourceSet> = Vec::new();
            for (nodes, slots, size) in requests {
                let counts = request(nodes, slots.max(nodes), size);
                match pool.alloc(&counts, None) {
                    Ok(set) => {
                        let want = (counts.nslots * size) as usize;
                        prop_assert_eq!(set.ncores(), want);
                        prop_assert!(held.iter().all(|h| h.intersection(&set).is_empty()));
                        held.push(set);
                    }
                    Err(_) if !held.is_empty() => pool.release(&held.remove(0)),
                    Err(_) => {}
                }
            }
            held.iter().for_each(|set| pool.release(set));
            prop_assert_eq!(&pool.free, &nodes(&pool.all));
        }
    }
}
