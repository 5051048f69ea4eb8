//! Shapes of the broker tree (`tbon.topo`): pure arithmetic on ranks.

use std::fmt;
use std::str::FromStr;

/// Shape of a tree over ranks `0..size`, rank 0 at the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    shape: Shape,
    size: u32,
}

/// A family of trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Every interior broker has `k` children; `k` = 0 is flat.
    Kary(u32),
    /// Binomial tree: the parent is the rank with its lowest set bit cleared.
    Binomial,
}

/// The text is not a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown topology {0:?}: expected kary:K or binomial")]
pub struct TopologyError(String);

impl FromStr for Shape {
    type Err = TopologyError;

    fn from_str(s: &str) -> Result<Self, TopologyError> {
        match s.split_once(':') {
            None if s == "binomial" => Ok(Self::Binomial),
            Some(("kary", k)) => k
                .parse()
                .map(Self::Kary)
                .map_err(|_| TopologyError(s.to_owned())),
            _ => Err(TopologyError(s.to_owned())),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kary(k) => write!(f, "kary:{k}"),
            Self::Binomial => f.write_str("binomial"),
        }
    }
}

impl Topology {
    /// A tree of `size` brokers; `size` is at least 1.
    pub fn new(shape: Shape, size: u32) -> Self {
        Self {
            shape,
            size: size.max(1),
        }
    }

    /// Number of brokers.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The broker above `rank`; `None` for the root.
    pub fn parent(&self, rank: u32) -> Option<u32> {
        match (rank, self.shape) {
            (0, _) => None,
            (_, Shape::Kary(0)) => Some(0),
            (r, Shape::Kary(k)) => Some((r - 1) / k),
            (r, Shape::Binomial) => Some(r & (r - 1)),
        }
    }

    /// The brokers directly below `rank`, ascending.
    pub fn children(&self, rank: u32) -> Vec<u32> {
        let below = |r: &u32| *r < self.size;
        match self.shape {
            Shape::Kary(0) if rank == 0 => (1..self.size).collect(),
            Shape::Kary(0) => Vec::new(),
            Shape::Kary(k) => {
                let first = u64::from(rank) * u64::from(k) + 1;
                (first..first + u64::from(k))
                    .take_while(|r| *r < u64::from(self.size))
                    .map(|r| r as u32)
                    .collect()
            }
            Shape::Binomial => {
                let low = if rank == 0 { 32 } else { rank.trailing_zeros() };
                (0..low)
                    .filter_map(|i| 1u32.checked_shl(i).map(|b| rank | b))
                    .filter(below)
                    .collect()
            }
        }
    }

    /// Hops from the root.
    pub fn level(&self, rank: u32) -> u32 {
        let mut level = 0;
        let mut at = rank;
        while let Some(up) = self.parent(at) {
            at = up;
            level += 1;
        }
        level
    }

    /// Largest level of the tree.
    pub fn max_level(&self) -> u32 {
        match self.shape {
            Shape::Kary(_) => self.level(self.size - 1),
            Shape::Binomial => (0..self.size).map(|r| self.level(r)).max().unwrap_or(0),
        }
    }

    /// Brokers in the subtree of `rank`, without `rank` itself.
    pub fn descendants(&self, rank: u32) -> u32 {
        self.children(rank)
            .into_iter()
            .map(|c| 1 + self.descendants(c))
            .sum()
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
        assert_eq!(Topology::new(Shape::Kary(0), 4).children(0), [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn parents_and_children_agree(k in 0u32..6, size in 1u32..200, binomial: bool) {
            let shape = if binomial { Shape::Binomial } else { Shape::Kary(k) };
            let t = Topology::new(shape, size);
            for rank in 0..size {
                for child in t.children(rank) {
                    prop_assert_eq!(t.parent(child), Some(rank));
                }
                if let Some(up) = t.parent(rank) {
                    prop_assert!(t.children(up).contains(&rank));
                }
            }
            prop_assert_eq!(t.descendants(0), size - 1);
            prop_assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
        }
    }
}
