//! What a match chose, as a part of the tree.

use super::evals::Pick;
use crate::graph::{Graph, Vertex, Word};
use crate::plan::Hold;

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

/// Vertices from the root down to what was chosen, in preorder. Shared ones are there because
/// something below them is exclusive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    items: Vec<Selected>,
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
    /// The selection that picks make. Of types in `whole` every vertex is taken whole.
    pub(super) fn new(
        graph: &Graph,
        picks: &[Pick],
        top: (u32, u32),
        whole: &[Word],
        labels: &[Box<str>],
    ) -> Selection {
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
        Selection::from_chosen(graph, chosen, whole)
    }

    /// As [`Selection::new`], of vertices in any order.
    pub fn from_chosen(graph: &Graph, mut chosen: Vec<Selected>, whole: &[Word]) -> Selection {
        chosen.sort_by_key(|s| s.vertex);
        chosen.dedup_by(|next, first| {
            let same = next.vertex == first.vertex;
            if same {
                first.exclusive |= next.exclusive;
                first.whole |= next.whole;
            }
            same
        });
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
        let mut selection = Selection { items };
        selection.drop_idle(graph);
        selection
    }

    /// Removes shared vertices that nothing exclusive is in.
    fn drop_idle(&mut self, graph: &Graph) {
        let mut next_exclusive = u32::MAX;
        let mut keep = vec![false; self.items.len()];
        for (i, item) in self.items.iter().enumerate().rev() {
            if item.exclusive {
                next_exclusive = item.vertex.0;
            }
            keep[i] = graph.subtree(item.vertex).contains(&next_exclusive);
        }
        let mut keep = keep.into_iter();
        self.items.retain(|_| keep.next().unwrap_or(false));
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

    /// The exclusive vertices.
    pub fn holds(&self) -> Vec<Hold> {
        let exclusive = self.items.iter().filter(|s| s.exclusive);
        exclusive
            .map(|s| Hold {
                vertex: s.vertex,
                amount: s.amount,
                whole: s.whole,
            })
            .collect()
    }

    /// Calls `visit` for every vertex, those below whole ones too, contents before what contains
    /// them.
    pub fn walk<'a>(&'a self, graph: &Graph, mut visit: impl FnMut(Step<'a>)) {
        let mut open: Vec<Step> = Vec::new();
        let mut enter = |mut step: Step<'a>, visit: &mut dyn FnMut(Step<'a>)| {
            while let Some(top) = open.last() {
                if graph.subtree(top.vertex).contains(&step.vertex.0) {
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
