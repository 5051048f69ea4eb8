//! Shapes of the broker tree (`tbon.topo`): arithmetic on ranks, done once per broker.
//!
//! Invariants: rank 0 is the root, every other rank has exactly one parent, and following parents
//! ends at the root: a table of parents that does not is refused. Copies share the table.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Children a router should have at most when `mincrit` chooses the number of routers.
const MINCRIT_FANOUT: u32 = 1024;

/// A family of trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Every interior broker has `k` children; `k` = 0 is flat.
    Kary(u32),
    /// At most three levels, with this many routers below the root; chosen by size if absent.
    Mincrit(Option<u32>),
    /// Binomial tree: the parent is the rank with its lowest set bit cleared.
    Binomial,
    /// The parents the configuration names; flat where it names none.
    Custom,
}

/// The text is not a topology, or the parents make none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// No such shape.
    #[error(
        "tbon.topo: unknown topology scheme {0:?}: use kary:K, mincrit, mincrit:K, binomial or custom"
    )]
    Unknown(String),
    /// The number after the colon is none.
    #[error("tbon.topo: {0}: {1:?} is not an integer >= 0")]
    Number(&'static str, String),
    /// Parents that lead nowhere.
    #[error("rank {rank}: following parents does not end at rank 0")]
    Loop {
        /// A rank on the loop, or below it.
        rank: u32,
    },
    /// A parent that does not exist, or one for rank 0.
    #[error("rank {rank}: rank {parent} cannot be its parent")]
    Parent {
        /// Whose parent.
        rank: u32,
        /// Which was named.
        parent: u32,
    },
}

impl FromStr for Shape {
    type Err = TopologyError;

    fn from_str(s: &str) -> Result<Self, TopologyError> {
        let number = |scheme, text: &str| {
            text.parse::<u32>()
                .map_err(|_| TopologyError::Number(scheme, text.to_owned()))
        };
        match s.split_once(':') {
            None if s == "binomial" => Ok(Self::Binomial),
            None if s == "custom" => Ok(Self::Custom),
            None if s == "mincrit" => Ok(Self::Mincrit(None)),
            None if s == "kary" => number("kary", "").map(Self::Kary),
            Some(("mincrit", "")) => Ok(Self::Mincrit(None)),
            Some(("mincrit", k)) => number("mincrit", k).map(|k| Self::Mincrit(Some(k))),
            Some(("kary", k)) => number("kary", k).map(Self::Kary),
            _ => Err(TopologyError::Unknown(s.to_owned())),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kary(k) => write!(f, "kary:{k}"),
            Self::Mincrit(None) => f.write_str("mincrit"),
            Self::Mincrit(Some(k)) => write!(f, "mincrit:{k}"),
            Self::Binomial => f.write_str("binomial"),
            Self::Custom => f.write_str("custom"),
        }
    }
}

/// Leaves per router of `size` brokers with `k` routers.
fn mincrit_fanout(size: u32, k: u32) -> u32 {
    (size.saturating_sub(k + 1)).div_ceil(k)
}

/// Routers that keep the leaves of each within bounds; none if the root can have all of them.
fn mincrit_routers(size: u32) -> u32 {
    if size <= MINCRIT_FANOUT + 1 {
        return 0;
    }
    (2..)
        .find(|k| mincrit_fanout(size, *k) <= MINCRIT_FANOUT)
        .unwrap_or(0)
}

impl Shape {
    fn parent(self, rank: u32, size: u32) -> u32 {
        match self {
            Self::Kary(0) | Self::Custom => 0,
            Self::Kary(k) => (rank - 1) / k,
            Self::Mincrit(k) => match k.unwrap_or_else(|| mincrit_routers(size)) {
                0 => 0,
                k if rank <= k => 0,
                k => (rank - k - 1) % k + 1,
            },
            Self::Binomial => rank & (rank - 1),
        }
    }
}

/// A tree over ranks `0..size`, rank 0 at the root.
///
/// ```
/// use overlay::topology::{Shape, Topology};
///
/// let tree = Topology::new("kary:2".parse::<Shape>().unwrap(), 7);
/// assert_eq!(tree.parent(5), Some(2));
/// assert_eq!(tree.children(2), [5, 6]);
/// assert_eq!(tree.next_hop(0, 5), Some(2));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Topology(Arc<Table>);

#[derive(PartialEq, Eq)]
struct Table {
    /// By rank; the root's is itself.
    parents: Vec<u32>,
    /// Children of all ranks, grouped by parent, ascending.
    children: Vec<u32>,
    /// Where a rank's children begin; one entry more than ranks.
    first: Vec<u32>,
    levels: Vec<u32>,
    descendants: Vec<u32>,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topology").field(&self.0.parents).finish()
    }
}

impl Topology {
    /// A tree of `size` brokers; `size` is at least 1. `custom` is flat here.
    pub fn new(shape: Shape, size: u32) -> Self {
        let parent = |rank| {
            if rank == 0 {
                0
            } else {
                shape.parent(rank, size)
            }
        };
        let parents: Vec<u32> = (0..size.max(1)).map(parent).collect();
        // In every shape a parent's rank is below its children's.
        Self(Arc::new(Table::new(parents).expect("shapes make trees")))
    }

    /// A tree with the parents given by rank; the first, rank 0's own, has to be `None`.
    pub fn custom(parents: &[Option<u32>]) -> Result<Self, TopologyError> {
        let size = parents.len().max(1) as u32;
        let mut ranks = vec![0; size as usize];
        for (rank, parent) in (0..).zip(parents) {
            match *parent {
                None => {}
                Some(parent) if rank == 0 || parent >= size || parent == rank => {
                    return Err(TopologyError::Parent { rank, parent });
                }
                Some(parent) => ranks[rank as usize] = parent,
            }
        }
        Table::new(ranks).map(|table| Self(Arc::new(table)))
    }

    /// Number of brokers.
    pub fn size(&self) -> u32 {
        self.0.parents.len() as u32
    }

    /// The broker above `rank`; `None` for the root.
    pub fn parent(&self, rank: u32) -> Option<u32> {
        let parent = self.0.parents.get(rank as usize).copied();
        parent.filter(|_| rank != 0)
    }

    /// The brokers directly below `rank`, ascending; none if there is no such rank.
    pub fn children(&self, rank: u32) -> &[u32] {
        let at = rank as usize;
        match self.0.first.get(at..at + 2) {
            Some(bounds) => &self.0.children[bounds[0] as usize..bounds[1] as usize],
            None => &[],
        }
    }

    /// Hops from the root.
    pub fn level(&self, rank: u32) -> u32 {
        self.0.levels.get(rank as usize).copied().unwrap_or(0)
    }

    /// Largest level of the tree.
    pub fn max_level(&self) -> u32 {
        self.0.levels.iter().copied().max().unwrap_or(0)
    }

    /// Brokers in the subtree of `rank`, without `rank` itself.
    pub fn descendants(&self, rank: u32) -> u32 {
        self.0.descendants.get(rank as usize).copied().unwrap_or(0)
    }

    /// Every rank of the subtree of `rank`, itself first.
    pub fn subtree(&self, rank: u32) -> Vec<u32> {
        let mut ranks = vec![rank];
        let mut at = 0;
        while at < ranks.len() {
            ranks.extend_from_slice(self.children(ranks[at]));
            at += 1;
        }
        ranks
    }

    /// Ranks with children, and rank 0: those an instance cannot do without.
    pub fn interior(&self) -> Vec<u32> {
        let interior = |rank: &u32| *rank == 0 || !self.children(*rank).is_empty();
        (0..self.size()).filter(interior).collect()
    }

    /// The child of `from` whose subtree holds `to`; `None` if `to` is not below `from`.
    ///
    /// Costs the depth of the tree.
    pub fn next_hop(&self, from: u32, to: u32) -> Option<u32> {
        let mut at = to;
        while let Some(up) = self.parent(at) {
            if up == from {
                return Some(at);
            }
            at = up;
        }
        None
    }
}

impl Table {
    fn new(parents: Vec<u32>) -> Result<Self, TopologyError> {
        let size = parents.len();
        let mut first = vec![0; size + 1];
        for parent in &parents[1..] {
            first[*parent as usize + 1] += 1;
        }
        for at in 0..size {
            first[at + 1] += first[at];
        }
        let mut free = first.clone();
        let mut children = vec![0; size - 1];
        for (rank, parent) in (1..).zip(&parents[1..]) {
            let at = &mut free[*parent as usize];
            children[*at as usize] = rank;
            *at += 1;
        }
        // From the root down, so that every level is known before those below it.
        let mut levels = vec![u32::MAX; size];
        levels[0] = 0;
        let mut order = vec![0];
        let mut at = 0;
        while at < order.len() {
            let rank = order[at] as usize;
            for child in &children[first[rank] as usize..first[rank + 1] as usize] {
                levels[*child as usize] = levels[rank] + 1;
                order.push(*child);
            }
            at += 1;
        }
        if let Some(rank) = levels.iter().position(|l| *l == u32::MAX) {
            return Err(TopologyError::Loop { rank: rank as u32 });
        }
        let mut descendants = vec![0; size];
        for rank in order[1..].iter().rev() {
            let parent = parents[*rank as usize] as usize;
            descendants[parent] += descendants[*rank as usize] + 1;
        }
        Ok(Self {
            parents,
            children,
            first,
            levels,
            descendants,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kary_tables() {
        let t = Topology::new(Shape::Kary(2), 7);
        assert_eq!(t.children(0), [1, 2]);
        assert_eq!(t.children(2), [5, 6]);
        assert_eq!(t.parent(6), Some(2));
        assert_eq!(t.next_hop(0, 6), Some(2));
        assert_eq!(t.next_hop(1, 6), None);
        assert_eq!((t.level(6), t.max_level(), t.descendants(0)), (2, 2, 6));
        assert_eq!(t.subtree(2), [2, 5, 6]);
        assert_eq!(t.interior(), [0, 1, 2]);
        assert_eq!(Topology::new(Shape::Kary(0), 4).children(0), [1, 2, 3]);
        assert_eq!((t.parent(99), t.children(99)), (None, &[][..]));
    }

    #[test]
    fn mincrit_tables() {
        let t = Topology::new(Shape::Mincrit(Some(2)), 8);
        assert_eq!(
            (t.children(0), t.children(1)),
            (&[1, 2][..], &[3, 5, 7][..])
        );
        assert_eq!(t.children(2), [4, 6]);
        assert_eq!(mincrit_routers(1025), 0);
        assert_eq!(mincrit_routers(1026), 2);
        assert_eq!(mincrit_routers(2051), 2);
        assert_eq!(mincrit_routers(2052), 3);
    }

    #[test]
    fn custom_tables() {
        let t = Topology::custom(&[None, None, Some(3), Some(1)]).unwrap();
        assert_eq!(
            (t.parent(2), t.level(2), t.next_hop(0, 2)),
            (Some(3), 3, Some(1))
        );
        let looped = Topology::custom(&[None, Some(2), Some(1)]);
        assert_eq!(looped.unwrap_err(), TopologyError::Loop { rank: 1 });
        for parents in [&[Some(1), None][..], &[None, Some(1)], &[None, Some(9)]] {
            let error = Topology::custom(parents).unwrap_err();
            assert!(matches!(error, TopologyError::Parent { .. }), "{error}");
        }
    }

    #[test]
    fn names() {
        for (text, shape) in [
            ("kary:3", Shape::Kary(3)),
            ("mincrit", Shape::Mincrit(None)),
            ("mincrit:4", Shape::Mincrit(Some(4))),
            ("custom", Shape::Custom),
        ] {
            assert_eq!(text.parse(), Ok(shape));
            assert_eq!(shape.to_string(), text);
        }
        for bad in [
            "",
            "kary",
            "kary:",
            "kary:-1",
            "kary:x",
            "mincrit:x",
            "ring",
            "binomial:2",
        ] {
            assert!(bad.parse::<Shape>().is_err(), "{bad}");
        }
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            (0u32..6).prop_map(Shape::Kary),
            proptest::option::of(0u32..6).prop_map(Shape::Mincrit),
            Just(Shape::Binomial),
            Just(Shape::Custom),
        ]
    }

    proptest! {
        #[test]
        fn parents_and_children_agree(shape in shapes(), size in 1u32..200) {
            let t = Topology::new(shape, size);
            for rank in 0..size {
                for child in t.children(rank) {
                    prop_assert_eq!(t.parent(*child), Some(rank));
                    prop_assert_eq!(t.level(*child), t.level(rank) + 1);
                }
                if let Some(up) = t.parent(rank) {
                    prop_assert!(t.children(up).contains(&rank));
                }
                prop_assert_eq!(t.subtree(rank).len() as u32, t.descendants(rank) + 1);
            }
            prop_assert_eq!(t.descendants(0), size - 1);
            prop_assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
        }

        #[test]
        fn any_parents_make_a_tree_or_an_error(parents in proptest::collection::vec(0u32..12, 0..12)) {
            let mut parents: Vec<Option<u32>> = parents.into_iter().map(Some).collect();
            parents.insert(0, None);
            if let Ok(t) = Topology::custom(&parents) {
                prop_assert_eq!(t.subtree(0).len(), parents.len());
                for (rank, parent) in (0..).zip(&parents) {
                    prop_assert_eq!(t.parent(rank), *parent);
                }
            }
        }
    }
}
