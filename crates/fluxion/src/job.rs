//! What a job has of a graph.

use crate::graph::{Graph, Vertex};
use crate::plan::{Hold, Term};
use std::collections::HashSet;

/// What a job has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// When.
    pub term: Term,
    pub(crate) holds: Vec<Hold>,
}

impl Job {
    /// What it holds, in preorder.
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// The vertices it holds, those below them that it holds with them, and those above.
    pub fn touched(&self, graph: &Graph) -> HashSet<Vertex> {
        let mut touched = HashSet::new();
        for hold in &self.holds {
            touched.insert(hold.vertex);
            if hold.whole {
                touched.extend(graph.subtree(hold.vertex).map(Vertex));
            }
            for v in graph.containers(hold.vertex) {
                touched.insert(v);
            }
        }
        touched
    }
}

/// Holds without what is at or below vertices.
pub(crate) fn without(graph: &Graph, holds: &[Hold], tops: &[Vertex]) -> Vec<Hold> {
    let mut left = Vec::with_capacity(holds.len());
    for hold in holds {
        let v = hold.vertex;
        if tops.iter().any(|top| graph.contains(*top, v)) {
            continue;
        }
        if hold.whole && tops.iter().any(|top| graph.subtree(v).contains(&top.0)) {
            left.push(Hold {
                whole: false,
                ..*hold
            });
            left.extend(without(graph, &holds_below(graph, v), tops));
        } else {
            left.push(*hold);
        }
    }
    left
}

/// The children of a vertex, each held whole.
fn holds_below(graph: &Graph, v: Vertex) -> Vec<Hold> {
    let whole = |vertex| Hold {
        vertex,
        amount: graph.size(vertex),
        whole: true,
    };
    graph.children(v).map(whole).collect()
}

/// Holds without those on listed vertices.
pub(crate) fn without_listed(graph: &Graph, holds: &[Hold], listed: &HashSet<u32>) -> Vec<Hold> {
    let mut left = Vec::with_capacity(holds.len());
    for hold in holds.iter().filter(|h| !listed.contains(&h.vertex.0)) {
        if hold.whole && graph.subtree(hold.vertex).any(|v| listed.contains(&v)) {
            left.push(Hold {
                whole: false,
                ..*hold
            });
            left.extend(without_listed(
                graph,
                &holds_below(graph, hold.vertex),
                listed,
            ));
        } else {
            left.push(*hold);
        }
    }
    left
}
