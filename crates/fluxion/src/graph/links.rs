//! Vertices that more than one other contains.
//!
//! Each has its place in the tree below one of its parents. Here are the edges from the others, so that a walk comes to it from
//! all sides, and what they mean for who contains what. A graph without such vertices has nothing here.

use super::{Graph, NOBODY, Vertex, Word};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

/// Edges beside those of the tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    /// All children, in order, of vertices with some that have their place elsewhere.
    rows: BTreeMap<u32, Box<[Vertex]>>,
    /// The parents beside that in the tree.
    parents: BTreeMap<u32, Vec<Vertex>>,
}

impl Links {
    pub(super) fn new(rows: Vec<(Vertex, Box<[Vertex]>)>, parent: &[u32]) -> Links {
        let mut links = Links::default();
        for (v, row) in rows {
            for c in row.iter().filter(|c| parent[c.at()] != v.0) {
                links.parents.entry(c.0).or_default().push(v);
            }
            links.rows.insert(v.0, row);
        }
        links.parents.values_mut().for_each(|p| p.sort_unstable());
        links
    }

    /// The number of edges.
    pub(super) fn len(&self) -> usize {
        self.parents.values().map(Vec::len).sum()
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// All children of a vertex, if some have their place elsewhere.
    #[inline]
    pub(super) fn row(&self, v: Vertex) -> Option<&[Vertex]> {
        match self.is_empty() {
            true => None,
            false => self.rows.get(&v.0).map(|row| &**row),
        }
    }

    /// Whether everything in a subtree has all its parents there, but for the top, and all its children.
    fn is_closed(&self, subtree: Range<u32>) -> bool {
        let below = subtree.start + 1..subtree.end;
        self.rows.range(subtree).next().is_none() && self.parents.range(below).next().is_none()
    }

    /// The parts of the tree that are reached from a vertex: its subtree first, then others that do not overlap.
    pub(super) fn reach(&self, v: u32, end: &[u32]) -> Vec<Range<u32>> {
        let whole = v..end[v as usize];
        let mut parts: BTreeMap<u32, u32> = BTreeMap::new();
        let mut open = vec![whole.clone()];
        while let Some(part) = open.pop() {
            for c in self.rows.range(part).flat_map(|(_, row)| row.iter()) {
                let known = parts.range(..=c.0).next_back();
                if whole.contains(&c.0) || known.is_some_and(|(_, end)| c.0 < *end) {
                    continue;
                }
                let found = c.0..end[c.at()];
                parts.retain(|start, _| !found.contains(start));
                parts.insert(found.start, found.end);
                open.push(found);
            }
        }
        let parts = parts.into_iter().map(|(start, end)| start..end);
        std::iter::once(whole).chain(parts).collect()
    }

    /// The vertices from which a link is reached, in order.
    pub(super) fn sharing(&self, parent: &[u32]) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut open: Vec<u32> = self.rows.keys().copied().collect();
        while let Some(v) = open.pop() {
            if v != NOBODY && found.insert(v) {
                open.push(parent[v as usize]);
                open.extend(self.parents.get(&v).into_iter().flatten().map(|p| p.0));
            }
        }
        found
    }

    /// Whether nothing around some vertices, or in them, has two parents.
    pub(super) fn leave_apart(&self, vertices: &[u32], parent: &[u32], end: &[u32]) -> bool {
        let around = |v: u32| {
            std::iter::successors(Some(v), |v| {
                Some(parent[*v as usize]).filter(|p| *p != NOBODY)
            })
        };
        let is_shared = |v: u32| self.parents.contains_key(&v);
        let is_apart = |v: &u32| self.is_closed(*v..end[*v as usize]) && !around(*v).any(is_shared);
        self.is_empty() || vertices.iter().all(is_apart)
    }
}

impl Graph {
    /// Whether no vertex has two parents.
    #[inline]
    pub fn is_tree(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether a vertex has two parents, or more.
    pub fn is_shared(&self, v: Vertex) -> bool {
        !self.is_tree() && self.links.parents.contains_key(&v.0)
    }

    /// Everything that contains it directly, its place in the tree first.
    pub fn parents(&self, v: Vertex) -> impl Iterator<Item = Vertex> + '_ {
        let others = self.links.parents.get(&v.0);
        self.parent(v)
            .into_iter()
            .chain(others.into_iter().flatten().copied())
    }

    /// What orders a vertex among its siblings below one of its parents.
    pub(crate) fn place_below(&self, parent: Vertex, v: Vertex) -> usize {
        let row = self.links.row(parent);
        row.map_or(v.at(), |row| row.iter().take_while(|c| **c != v).count())
    }

    /// Everything that contains it, directly or not, contents before what contains them in the tree.
    pub fn containers(&self, v: Vertex) -> Vec<Vertex> {
        if self.is_tree() {
            return self.ancestors(v).collect();
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<Vertex> = self.parents(v).collect();
        while let Some(v) = open.pop() {
            if found.insert(v) {
                open.extend(self.parents(v));
            }
        }
        found.into_iter().rev().collect()
    }

    /// Whether a vertex is another or contained in it.
    pub fn contains(&self, top: Vertex, v: Vertex) -> bool {
        self.subtree(top).contains(&v.0) || (!self.is_tree() && self.containers(v).contains(&top))
    }

    /// Whether what is below a vertex is reached through it alone, and is all in its subtree.
    pub fn is_closed(&self, v: Vertex) -> bool {
        self.is_tree() || self.links.is_closed(self.subtree(v))
    }

    /// Whether nothing around vertices of a type, or in them, has two parents.
    pub(crate) fn is_apart(&self, kind: Word) -> bool {
        let population = self.populations.get(usize::from(kind.0));
        population.is_some_and(|p| p.apart)
    }

    /// The vertices with two parents that are below a vertex.
    pub(crate) fn shared_below(&self, v: Vertex) -> Vec<Vertex> {
        if self.is_tree() {
            return Vec::new();
        }
        let reach = self.links.reach(v.0, &self.end);
        let shared = reach
            .into_iter()
            .flat_map(|part| self.links.parents.range(part));
        shared
            .map(|(c, _)| Vertex(*c))
            .filter(|c| *c != v)
            .collect()
    }

    /// Whether it is up, and so is all that contains it on some way to the root.
    pub fn is_usable(&self, v: Vertex) -> bool {
        if self.all_up() {
            return true;
        }
        if self.is_tree() {
            return self.is_up(v) && self.ancestors(v).all(|a| self.is_up(a));
        }
        let mut seen = BTreeSet::from([v]);
        let mut open = vec![v];
        while let Some(v) = open.pop() {
            if !self.is_up(v) {
                continue;
            }
            if self.parent(v).is_none() {
                return true;
            }
            open.extend(self.parents(v).filter(|p| seen.insert(*p)));
        }
        false
    }

    /// The vertices to which no way is left when some are removed; these among them.
    pub(crate) fn lost_without(&self, tops: &[Vertex]) -> HashSet<u32> {
        let below = tops.iter().flat_map(|top| self.subtree(*top));
        if self.is_tree() {
            return below.collect();
        }
        let removed: HashSet<Vertex> = tops.iter().copied().collect();
        let mut left = HashSet::new();
        let mut open = vec![self.root()];
        while let Some(v) = open.pop() {
            if !removed.contains(&v) && left.insert(v) {
                open.extend(self.children(v));
            }
        }
        let rooted = self.subtree(self.root());
        let lost = rooted.filter(|v| !left.contains(&Vertex(*v)));
        lost.chain(tops.iter().map(|top| top.0)).collect()
    }
}
