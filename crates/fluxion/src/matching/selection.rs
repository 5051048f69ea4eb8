//! What a match chose, as a part of the tree.

use super::evals::Pick;
use super::woven::{self, Ways};
use crate::graph::{Graph, Vertex, Word};
use crate::plan::Hold;
use rustc_hash::FxHashMap;

/// A vertex of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The vertex.
    pub vertex: Vertex,
    /// How much of it.
    pub amount: u32,
    /// Whether nobody else may have it.
    pub exclusive: bool,
    /// Whether everything below it belongs to it.
    pub whole: bool,
    /// The label it was asked for with.
    pub label: Option<Box<str>>,
}

/// Vertices from the root down to what was chosen, depth first. Shared ones are there because
/// something below them is exclusive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    items: Vec<Selected>,
    /// What contains vertices here that have their place in the tree elsewhere.
    ways: Ways,
}

/// A vertex on the way through a selection.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The vertex.
    pub vertex: Vertex,
    /// How much of it.
    pub amount: u32,
    /// Whether nobody else may have it.
    pub exclusive: bool,
    /// Whether what contains it is exclusive.
    pub exclusive_above: bool,
    /// How many vertices are above it.
    pub depth: usize,
    /// The label it was asked for with.
    pub label: Option<&'a str>,
}

impl Selection {
    /// What picks choose.
    pub(super) fn chosen(picks: &[Pick], top: (u32, u32), labels: &[Box<str>]) -> Vec<Selected> {
        let mut chosen = Vec::new();
        let mut open = vec![top];
        while let Some((from, to)) = open.pop() {
            for pick in &picks[from as usize..to as usize] {
                let label = pick
                    .label
                    .checked_sub(1)
                    .map(|i| labels[usize::from(i)].clone());
                chosen.push(Selected {
                    vertex: pick.vertex,
                    amount: pick.amount,
                    exclusive: pick.exclusive,
                    whole: false,
                    label,
                });
                if pick.inner.0 < pick.inner.1 {
                    open.push(pick.inner);
                }
            }
        }
        chosen
    }

    /// The selection of vertices in any order. Of types in `whole` every vertex is taken whole.
    pub fn from_chosen(graph: &Graph, chosen: Vec<Selected>, whole: &[Word]) -> Selection {
        let ways = woven::ways_among(graph, &chosen);
        Selection::of(graph, chosen, whole, &ways)
    }

    /// As [`Selection::from_chosen`], where vertices with two parents were come to by these.
    pub(super) fn of(
        graph: &Graph,
        mut chosen: Vec<Selected>,
        whole: &[Word],
        ways: &FxHashMap<Vertex, Vertex>,
    ) -> Selection {
        chosen.sort_by_key(|s| s.vertex);
        chosen.dedup_by(|next, first| {
            let same = next.vertex == first.vertex;
            if same {
                first.exclusive |= next.exclusive;
                first.whole |= next.whole;
            }
            same
        });
        let (items, ways) = match graph.is_tree() {
            true => (in_tree(graph, chosen, whole), Ways::new()),
            false => woven::arrange(graph, chosen, whole, ways),
        };
        let mut selection = Selection { items, ways };
        selection.drop_idle(graph);
        selection
    }

    /// Removes shared vertices that nothing exclusive is in.
    fn drop_idle(&mut self, graph: &Graph) {
        let mut next_exclusive = None;
        let mut keep = vec![false; self.items.len()];
        for (i, item) in self.items.iter().enumerate().rev() {
            if item.exclusive {
                next_exclusive = Some(item.vertex);
            }
            keep[i] = next_exclusive.is_some_and(|v| self.is_inside(graph, item.vertex, v));
        }
        let mut keep = keep.into_iter();
        self.items.retain(|_| keep.next().unwrap_or(false));
    }

    /// What contains a vertex here.
    pub fn above(&self, graph: &Graph, v: Vertex) -> Option<Vertex> {
        self.ways.parent(graph, v)
    }

    /// Whether a vertex is here another, or in it.
    #[inline]
    fn is_inside(&self, graph: &Graph, top: Vertex, v: Vertex) -> bool {
        match self.ways.is_empty() {
            true => graph.subtree(top).contains(&v.0),
            false => self.ways.lead(graph, top, v),
        }
    }

    /// The same with every vertex exclusive.
    pub(crate) fn all_exclusive(mut self) -> Selection {
        self.items.iter_mut().for_each(|s| s.exclusive = true);
        self
    }

    /// Whether nothing was chosen.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The vertices; those below whole ones are not listed.
    pub fn items(&self) -> &[Selected] {
        &self.items
    }

    /// The exclusive vertices, in preorder. Nobody comes to what is below one, so that what may be come to by another way is
    /// held for itself.
    pub fn holds(&self, graph: &Graph) -> Vec<Hold> {
        let exclusive = || self.items.iter().filter(|s| s.exclusive);
        let hold = |s: &Selected| Hold {
            vertex: s.vertex,
            amount: s.amount,
            whole: s.whole,
        };
        let mut holds: Vec<Hold> = exclusive().map(hold).collect();
        if !graph.is_tree() {
            let shared = exclusive().flat_map(|s| graph.shared_below(s.vertex));
            holds.extend(shared.map(|vertex| Hold {
                vertex,
                amount: graph.size(vertex),
                whole: false,
            }));
            holds.sort_by_key(|h| (h.vertex, std::cmp::Reverse((h.whole, h.amount))));
            holds.dedup_by_key(|h| h.vertex);
        }
        holds
    }

    /// Calls `visit` for every vertex, those below whole ones too, contents before what contains
    /// them.
    pub fn walk<'a>(&'a self, graph: &Graph, mut visit: impl FnMut(Step<'a>)) {
        let mut open: Vec<Step> = Vec::new();
        let mut enter = |mut step: Step<'a>, visit: &mut dyn FnMut(Step<'a>)| {
            while let Some(top) = open.last() {
                if self.is_inside(graph, top.vertex, step.vertex) {
                    break;
                }
                open.pop().into_iter().for_each(&mut *visit);
            }
            step.depth = open.len();
            step.exclusive_above = open.last().is_some_and(|top| top.exclusive);
            open.push(step);
        };
        let step = |vertex, amount, exclusive, label| Step {
            vertex,
            amount,
            exclusive,
            exclusive_above: false,
            depth: 0,
            label,
        };
        for item in &self.items {
            enter(
                step(
                    item.vertex,
                    item.amount,
                    item.exclusive,
                    item.label.as_deref(),
                ),
                &mut visit,
            );
            if item.whole {
                for below in graph.subtree(item.vertex).skip(1).map(Vertex) {
                    enter(step(below, graph.size(below), true, None), &mut visit);
                }
            }
        }
        open.into_iter().rev().for_each(visit);
    }
}

/// What was chosen and what contains it, in preorder.
fn in_tree(graph: &Graph, chosen: Vec<Selected>, whole: &[Word]) -> Vec<Selected> {
    let mut items: Vec<Selected> = Vec::with_capacity(chosen.len() + 8);
    // Those the current vertex is in.
    let mut path: Vec<Vertex> = Vec::new();
    let mut covered = 0;
    for selected in chosen {
        let v = selected.vertex;
        if v.0 < covered {
            continue;
        }
        while path
            .last()
            .is_some_and(|top| !graph.subtree(*top).contains(&v.0))
        {
            path.pop();
        }
        let known = path.last().copied();
        let first = path.len();
        path.extend(graph.ancestors(v).take_while(|p| Some(*p) != known));
        path[first..].reverse();
        let between = path[first..].iter().map(|p| Selected {
            vertex: *p,
            amount: graph.size(*p),
            exclusive: false,
            whole: false,
            label: None,
        });
        for mut item in between.chain([selected]) {
            if whole.contains(&graph.kind(item.vertex)) {
                item.whole = true;
            }
            let is_whole = item.whole;
            if is_whole {
                item.exclusive = true;
                item.amount = graph.size(item.vertex);
                covered = graph.subtree(item.vertex).end;
            }
            items.push(item);
            if is_whole {
                break;
            }
        }
        path.push(v);
    }
    items
}
