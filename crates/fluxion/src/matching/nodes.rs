//! Which nodes a constraint leaves, RFC 31.
//!
//! A constraint is worked out for all nodes at once, as sets of bits: properties, host names and
//! ranks have an index, and `and`, `or`, `not` are operations on words of 64 nodes.

use crate::graph::{Graph, Vertex, Word};
use formats::Constraint;
use rustc_hash::FxHashMap;

/// The types constraints apply to.
const KINDS: [&str; 2] = ["node", "storage_node"];

/// Some of the nodes of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSet {
    /// The type, where it begins, and the number of its vertices.
    kinds: [Option<(Word, usize, usize)>; 2],
    bits: Vec<u64>,
}

impl NodeSet {
    fn empty(graph: &Graph) -> NodeSet {
        let mut start = 0;
        let kinds = KINDS.map(|name| {
            let kind = graph.words().find(name)?;
            let len = graph.of_kind(kind).len();
            let from = start;
            start += len;
            Some((kind, from, len))
        });
        NodeSet {
            kinds,
            bits: vec![0; start.div_ceil(64)],
        }
    }

    /// Whether vertices of a type may be excluded.
    pub fn concerns(&self, kind: Word) -> bool {
        self.kinds.iter().flatten().any(|k| k.0 == kind)
    }

    fn place(&self, graph: &Graph, v: Vertex) -> Option<usize> {
        let kind = graph.kind(v);
        let of = self.kinds.iter().flatten().find(|k| k.0 == kind)?;
        Some(of.1 + graph.ordinal(v) as usize)
    }

    /// Whether a vertex is in it.
    pub fn contains(&self, graph: &Graph, v: Vertex) -> bool {
        let bit = |i: usize| self.bits[i / 64] >> (i % 64) & 1 == 1;
        self.place(graph, v).is_some_and(bit)
    }

    fn insert(&mut self, graph: &Graph, v: Vertex) {
        if let Some(i) = self.place(graph, v) {
            self.bits[i / 64] |= 1 << (i % 64);
        }
    }

    fn combine(mut self, other: &NodeSet, op: impl Fn(u64, u64) -> u64) -> NodeSet {
        let pairs = self.bits.iter_mut().zip(&other.bits);
        pairs.for_each(|(a, b)| *a = op(*a, *b));
        self
    }

    fn complement(mut self) -> NodeSet {
        self.bits.iter_mut().for_each(|word| *word = !*word);
        self
    }

    /// Those of a type in it, in preorder.
    pub fn vertices(&self, graph: &Graph, kind: Word) -> Vec<Vertex> {
        let all = graph.of_kind(kind).iter().copied().map(Vertex);
        all.filter(|v| self.contains(graph, *v)).collect()
    }

    /// How many of a type are in it.
    pub fn count(&self, kind: Word) -> usize {
        let Some((_, start, len)) = self.kinds.iter().flatten().find(|k| k.0 == kind) else {
            return 0;
        };
        let range = *start..*start + *len;
        let words = range.start / 64..range.end.div_ceil(64);
        words
            .map(|w| {
                let low = range.start.saturating_sub(w * 64).min(63);
                let high = (range.end - w * 64).min(64);
                let mask = (u64::MAX << low) & (u64::MAX >> (64 - high));
                (self.bits[w] & mask).count_ones() as usize
            })
            .sum()
    }
}

/// What constraints are looked up in. It is of one graph, and of one state of its properties.
#[derive(Debug, Clone)]
pub struct NodeIndex {
    empty: NodeSet,
    names: FxHashMap<String, Vec<Vertex>>,
    properties: FxHashMap<String, NodeSet>,
}

impl NodeIndex {
    /// Looks through the nodes of a graph.
    pub fn new(graph: &Graph) -> NodeIndex {
        let empty = NodeSet::empty(graph);
        let mut names: FxHashMap<String, Vec<Vertex>> = FxHashMap::default();
        let mut properties: FxHashMap<String, NodeSet> = FxHashMap::default();
        for kind in KINDS.iter().filter_map(|name| graph.words().find(name)) {
            for v in graph.of_kind(kind).iter().copied().map(Vertex) {
                names.entry(graph.name(v)).or_default().push(v);
                for name in graph.properties(v).into_iter().flatten().map(|p| p.0) {
                    let set = properties
                        .entry(name.clone())
                        .or_insert_with(|| empty.clone());
                    set.insert(graph, v);
                }
            }
        }
        NodeIndex {
            empty,
            names,
            properties,
        }
    }

    /// The nodes of a host name.
    pub fn named(&self, host: &str) -> &[Vertex] {
        self.names.get(host).map_or(&[], Vec::as_slice)
    }

    /// The nodes that satisfy a constraint.
    pub fn satisfying(&self, graph: &Graph, constraint: &Constraint) -> NodeSet {
        let all = || self.empty.clone().complement();
        let each = |list: &[Constraint]| -> Vec<NodeSet> {
            list.iter().map(|c| self.satisfying(graph, c)).collect()
        };
        let every = |list: &[Constraint]| {
            let sets = each(list);
            sets.iter().fold(all(), |a, b| a.combine(b, |x, y| x & y))
        };
        match constraint {
            Constraint::Properties(list) => list.iter().fold(all(), |set, p| {
                let mut with = self.properties.get(&p.name).unwrap_or(&self.empty).clone();
                for v in self.named(&p.name) {
                    with.insert(graph, *v);
                }
                let with = if p.absent { with.complement() } else { with };
                set.combine(&with, |x, y| x & y)
            }),
            Constraint::Hosts(hosts) => {
                let mut set = self.empty.clone();
                for v in hosts.iter().flat_map(|host| self.named(&host).to_vec()) {
                    set.insert(graph, v);
                }
                set
            }
            Constraint::Ranks(ranks) => {
                let mut set = self.empty.clone();
                for v in ranks.iter().flat_map(|rank| graph.of_rank(i64::from(rank))) {
                    set.insert(graph, *v);
                }
                set
            }
            Constraint::And(list) => every(list),
            Constraint::Not(list) => every(list).complement(),
            Constraint::Or(list) => {
                let sets = each(list);
                sets.iter()
                    .fold(self.empty.clone(), |a, b| a.combine(b, |x, y| x | y))
            }
        }
    }
}
