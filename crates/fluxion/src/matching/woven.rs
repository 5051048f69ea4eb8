//! Selections of graphs in which vertices have several parents.
//!
//! In a selection each vertex has one place: below the parent by which a search came to it. So a selection is a tree, though not
//! a part of the graph's.

use super::selection::Selected;
use crate::graph::{Graph, Vertex, Word};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// What contains vertices in a selection, of those whose place in the graph's tree is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ways(BTreeMap<Vertex, Vertex>);

impl Ways {
    /// Of a selection in which each is where it is in the tree.
    pub(super) fn new() -> Ways {
        Ways::default()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn parent(&self, graph: &Graph, v: Vertex) -> Option<Vertex> {
        self.0.get(&v).copied().or_else(|| graph.parent(v))
    }

    /// Whether what contains a vertex, or that vertex itself, is another.
    #[cold]
    pub(super) fn lead(&self, graph: &Graph, top: Vertex, v: Vertex) -> bool {
        std::iter::successors(Some(v), |v| self.parent(graph, *v)).any(|a| a == top)
    }
}

/// By which parents vertices of a list are come to: that in the tree, unless only another is listed.
pub(super) fn ways_among(graph: &Graph, chosen: &[Selected]) -> FxHashMap<Vertex, Vertex> {
    let mut ways = FxHashMap::default();
    if graph.is_tree() {
        return ways;
    }
    let listed: FxHashSet<Vertex> = chosen.iter().map(|s| s.vertex).collect();
    for v in listed.iter().copied().filter(|v| graph.is_shared(*v)) {
        ways.extend(
            graph
                .parents(v)
                .find(|p| listed.contains(p))
                .map(|p| (v, p)),
        );
    }
    ways
}

/// What was chosen and what contains it, depth first.
pub(super) fn arrange(
    graph: &Graph,
    chosen: Vec<Selected>,
    whole: &[Word],
    ways: &FxHashMap<Vertex, Vertex>,
) -> (Vec<Selected>, Ways) {
    let elsewhere = ways.iter().filter(|(v, p)| graph.parent(**v) != Some(**p));
    let mut plan = Plan {
        graph,
        ways: Ways(elsewhere.map(|(v, p)| (*v, *p)).collect()),
        items: FxHashMap::default(),
        below: FxHashMap::default(),
    };
    for selected in chosen {
        plan.add(selected);
    }
    let items = plan.lay_out(whole);
    let Plan { mut ways, .. } = plan;
    let listed: FxHashSet<Vertex> = items.iter().map(|s| s.vertex).collect();
    ways.0.retain(|v, _| listed.contains(v));
    (items, ways)
}

struct Plan<'g> {
    graph: &'g Graph,
    ways: Ways,
    items: FxHashMap<Vertex, Selected>,
    /// What each contains.
    below: FxHashMap<Vertex, Vec<Vertex>>,
}

impl Plan<'_> {
    /// Adds a vertex, and what contains it.
    fn add(&mut self, selected: Selected) {
        let mut v = selected.vertex;
        let is_new = !self.items.contains_key(&v);
        self.items.insert(v, selected);
        while let Some(above) = self.ways.parent(self.graph, v).filter(|_| is_new) {
            self.below.entry(above).or_default().push(v);
            if self.items.contains_key(&above) {
                break;
            }
            let between = Selected {
                vertex: above,
                amount: self.graph.size(above),
                exclusive: false,
                whole: false,
                label: None,
            };
            self.items.insert(above, between);
            v = above;
        }
    }

    /// Adds what is directly below a vertex that is taken whole.
    fn add_below(&mut self, v: Vertex) {
        for child in self.graph.children(v).collect::<Vec<_>>() {
            let above = match self.items.contains_key(&child) {
                true => self.ways.parent(self.graph, child),
                false => Some(v),
            };
            if above != Some(v) {
                continue;
            }
            if self.graph.parent(child) != Some(v) {
                self.ways.0.insert(child, v);
            }
            self.add(Selected {
                vertex: child,
                amount: self.graph.size(child),
                exclusive: true,
                whole: true,
                label: None,
            });
        }
    }

    fn lay_out(&mut self, whole: &[Word]) -> Vec<Selected> {
        let graph = self.graph;
        let mut items = Vec::with_capacity(self.items.len());
        let is_top = |v: &Vertex| graph.parent(*v).is_none();
        let mut open: Vec<Vertex> = self.items.keys().copied().filter(is_top).collect();
        open.sort_unstable_by_key(|v| std::cmp::Reverse(*v));
        while let Some(v) = open.pop() {
            let Some(mut item) = self.items.get(&v).cloned() else {
                continue;
            };
            item.whole |= whole.contains(&graph.kind(v));
            if item.whole {
                item.exclusive = true;
                item.amount = graph.size(v);
                item.whole = graph.is_closed(v);
                if !item.whole {
                    self.add_below(v);
                }
            }
            if !item.whole {
                let mut below = self.below.remove(&v).unwrap_or_default();
                below.sort_by_cached_key(|c| std::cmp::Reverse(graph.place_below(v, *c)));
                open.extend(below);
            }
            items.push(item);
        }
        items
    }
}
