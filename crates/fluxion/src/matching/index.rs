//! All vertices of a type in the order a policy prefers them, and which of them have something left.
//!
//! Scores do not depend on who holds what, so the order is made once. A tree of maxima over it says
//! where the next vertex with enough left is, so that a search passes over full ones without looking.

use super::policy::{Order, Policy, Score};
use crate::graph::{Graph, Vertex, Word};
use crate::plan::{Hold, Ledger};

/// Children of an inner place of the tree.
const FAN: usize = 16;

/// Vertices of a type, best first.
#[derive(Debug, Clone)]
pub struct Index {
    kind: Word,
    /// Whether no two vertices are equally good.
    unique: bool,
    /// Places to vertices.
    order: Vec<u32>,
    /// Ordinals to places.
    place: Vec<u32>,
    left: Maxima,
}

/// What is left of a vertex that nobody has anything of.
pub(super) const UNTOUCHED: u32 = u32::MAX;

impl Index {
    /// The vertices of a type as a policy prefers them; none if it does not go by ids.
    pub fn new(graph: &Graph, ledger: &Ledger, policy: Policy, kind: Word) -> Option<Index> {
        if policy.score != Score::Id || policy.order == Order::Runs {
            return None;
        }
        let node = graph.words().find("node");
        let vertices = graph.of_kind(kind);
        let score = |v: &u32| {
            let above = graph.ancestors(Vertex(*v));
            let inside = above.map(|a| policy.weight(graph, a, node)).sum();
            match Some(kind) == node && policy.node_centric {
                // Also right for nodes alone: of the same ids, any may come first.
                true => policy.weight(graph, Vertex(*v), node),
                false => policy.score(graph, Vertex(*v), inside),
            }
        };
        let mut scored: Vec<(i64, u32)> = vertices.iter().map(|v| (score(v), *v)).collect();
        match policy.order {
            Order::Ascending => scored.sort_by_key(|s| s.0),
            _ => scored.sort_by_key(|s| std::cmp::Reverse(s.0)),
        }
        let unique = scored.is_sorted_by(|a, b| a.0 != b.0);
        let order: Vec<u32> = scored.into_iter().map(|s| s.1).collect();
        let mut place = vec![0; order.len()];
        for (i, v) in order.iter().enumerate() {
            place[graph.ordinal(Vertex(*v)) as usize] = i as u32;
        }
        let left = order.iter().map(|v| left_of(graph, ledger, Vertex(*v)));
        Some(Index {
            kind,
            unique,
            left: Maxima::new(left.collect()),
            order,
            place,
        })
    }

    /// The type.
    pub fn kind(&self) -> Word {
        self.kind
    }

    /// Whether no two vertices are equally good.
    pub(super) fn is_unique(&self) -> bool {
        self.unique
    }

    /// The first vertex, at a place or after it, that has so much left.
    pub(super) fn next(&self, from: usize, need: u32) -> Option<(usize, Vertex)> {
        let place = self.left.next(from, need)?;
        Some((place, Vertex(self.order[place])))
    }

    /// The place of a vertex.
    pub(super) fn place(&self, graph: &Graph, v: Vertex) -> usize {
        self.place[graph.ordinal(v) as usize] as usize
    }

    /// Notes that holds came or went.
    pub fn refresh(&mut self, graph: &Graph, ledger: &Ledger, holds: &[Hold]) {
        let vertices = graph.of_kind(self.kind);
        let mut last = None;
        for hold in holds {
            let own = (graph.kind(hold.vertex) == self.kind).then_some(hold.vertex);
            let around = own.or_else(|| {
                graph
                    .ancestors(hold.vertex)
                    .find(|a| graph.kind(*a) == self.kind)
            });
            if let Some(v) = around {
                if last != Some(v) {
                    self.set(graph, ledger, v);
                }
                last = Some(v);
                continue;
            }
            let below = graph.subtree(hold.vertex);
            let first = vertices.partition_point(|v| *v < below.start);
            for v in vertices[first..].iter().take_while(|v| **v < below.end) {
                self.set(graph, ledger, Vertex(*v));
            }
        }
    }

    fn set(&mut self, graph: &Graph, ledger: &Ledger, v: Vertex) {
        let place = self.place(graph, v);
        self.left.set(place, left_of(graph, ledger, v));
    }
}

/// How much a vertex has left now: 0 if it is taken, else one more than what is left of the type it
/// counts first, or [`UNTOUCHED`].
fn left_of(graph: &Graph, ledger: &Ledger, v: Vertex) -> u32 {
    let taken = |v: Vertex| ledger.is_busy(v) && ledger.is_taken(graph, v);
    if taken(v) || graph.ancestors(v).any(taken) {
        return 0;
    }
    if !ledger.is_busy(v) || !ledger.is_present(v) {
        return UNTOUCHED;
    }
    match counted_first(graph, ledger, v) {
        Some(kind) => {
            let spare = ledger
                .spare(graph, v, kind)
                .clamp(0, i64::from(UNTOUCHED) - 2);
            spare as u32 + 1
        }
        None => 1,
    }
}

/// The type that [`left_of`] is about.
pub(super) fn counted_first(graph: &Graph, ledger: &Ledger, v: Vertex) -> Option<Word> {
    ledger.filters().at(graph.kind(v)).first().copied()
}

/// A list of numbers that is searched for the next great one.
#[derive(Debug, Clone)]
struct Maxima {
    /// The numbers, then the maxima of each [`FAN`] of them, and so on.
    levels: Vec<Vec<u32>>,
}

impl Maxima {
    fn new(numbers: Vec<u32>) -> Maxima {
        let mut levels = vec![numbers];
        while let Some(below) = levels.last().filter(|l| l.len() > 1) {
            let above = below
                .chunks(FAN)
                .map(|c| c.iter().copied().max().unwrap_or(0));
            levels.push(above.collect());
        }
        Maxima { levels }
    }

    fn set(&mut self, place: usize, number: u32) {
        self.levels[0][place] = number;
        let mut at = place / FAN;
        for i in 1..self.levels.len() {
            let below = &self.levels[i - 1];
            let chunk = &below[at * FAN..below.len().min((at + 1) * FAN)];
            let max = chunk.iter().copied().max().unwrap_or(0);
            if self.levels[i][at] == max {
                return;
            }
            self.levels[i][at] = max;
            at /= FAN;
        }
    }

    /// The first place, not before `from`, with at least `need`.
    fn next(&self, from: usize, need: u32) -> Option<usize> {
        let (mut level, mut at) = (0, from);
        loop {
            let numbers = &self.levels[level];
            let end = numbers.len().min((at / FAN + 1) * FAN);
            match (at..end).find(|i| numbers[*i] >= need) {
                Some(found) if level == 0 => return Some(found),
                Some(found) => {
                    level -= 1;
                    at = found * FAN;
                }
                None if level + 1 == self.levels.len() => return None,
                None => {
                    level += 1;
                    at = at / FAN + 1;
                    if at >= self.levels[level].len() {
                        return None;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_finds(
            mut numbers in proptest::collection::vec(0..9u32, 1..700),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..9u32), 0..60),
            asks in proptest::collection::vec((0..700usize, 0..10u32), 30),
        ) {
            let mut maxima = Maxima::new(numbers.clone());
            for (place, number) in changes {
                let place = place.index(numbers.len());
                numbers[place] = number;
                maxima.set(place, number);
            }
            for (from, need) in asks.into_iter().filter(|a| a.0 < numbers.len()) {
                let found = (from..numbers.len()).find(|i| numbers[*i] >= need);
                prop_assert_eq!(maxima.next(from, need), found);
            }
        }
    }
}
