//! Candidates found in a search, and the choice among them.

use super::order::sort;
use super::policy::Order;
use crate::graph::{Vertex, Word};
use smallvec::SmallVec;
use std::ops::Range;

/// A vertex that is part of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) vertex: Vertex,
    /// How much of it.
    pub(super) amount: u32,
    pub(super) exclusive: bool,
    /// The number of the label it was asked for with, or 0.
    pub(super) label: u16,
    /// What was chosen below it: a range of picks.
    pub(super) inner: (u32, u32),
}

/// A candidate: a vertex, or a slot made of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) score: i64,
    pub(super) count: u64,
    /// A range of picks.
    pub(super) picks: (u32, u32),
}

/// The candidates of a type.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) kind: Word,
    pub(super) groups: Vec<Group>,
    /// Their counts, summed up.
    pub(super) total: u64,
}

/// The candidates of all types.
#[derive(Debug, Clone, Default)]
pub(super) struct Evals {
    pub(super) lists: SmallVec<[List; 2]>,
    /// Whether the best come first already.
    pub(super) sorted: bool,
}

impl Evals {
    pub(super) fn find(&self, kind: Word) -> Option<&List> {
        self.lists.iter().find(|l| l.kind == kind)
    }

    pub(super) fn total(&self, kind: Word) -> u64 {
        self.find(kind).map_or(0, |l| l.total)
    }

    /// The number of candidates.
    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(|l| l.groups.len()).sum()
    }

    fn list(&mut self, kind: Word) -> &mut List {
        let place = match self.lists.iter().position(|l| l.kind == kind) {
            Some(place) => place,
            None => {
                let (groups, total) = (Vec::new(), 0);
                self.lists.push(List {
                    kind,
                    groups,
                    total,
                });
                self.lists.len() - 1
            }
        };
        &mut self.lists[place]
    }

    pub(super) fn add(&mut self, kind: Word, group: Group) {
        let list = self.list(kind);
        list.total += group.count;
        list.groups.push(group);
    }

    /// Takes over what was found below.
    pub(super) fn merge(&mut self, below: Evals) {
        for list in below.lists {
            if self.lists.iter().all(|l| l.kind != list.kind) {
                self.lists.push(list);
                continue;
            }
            let own = self.list(list.kind);
            own.total += list.total;
            own.groups.extend(list.groups);
        }
    }

    /// Puts the candidates of a type in the order of preference.
    pub(super) fn sort(&mut self, kind: Word, order: Order) {
        if self.sorted {
            return;
        }
        if let Some(list) = self.lists.iter_mut().find(|l| l.kind == kind) {
            list.sort(order);
        }
    }

    /// The groups, in order, that make up a count of a type.
    pub(super) fn best(&self, kind: Word, count: u64) -> Option<Range<usize>> {
        let list = self.find(kind)?;
        let mut left = count;
        let mut taken = 0;
        while left > 0 {
            left = left.saturating_sub(list.groups.get(taken)?.count);
            taken += 1;
        }
        Some(0..taken)
    }
}

impl List {
    fn sort(&mut self, order: Order) {
        match order {
            Order::Ascending => sort(&mut self.groups, &|a, b| a.score < b.score),
            Order::Descending => sort(&mut self.groups, &|a, b| a.score > b.score),
            Order::Runs => {
                let mut scores: Vec<i64> = self.groups.iter().map(|g| g.score).collect();
                scores.sort_unstable();
                scores.dedup();
                let mut heads: Vec<i64> = Vec::new();
                for (i, score) in scores.iter().enumerate() {
                    if i == 0 || scores[i - 1] + 1 != *score {
                        heads.push(*score);
                    }
                }
                let run = |score: i64| heads.partition_point(|h| *h <= score);
                sort(&mut self.groups, &|a, b| run(a.score) > run(b.score));
            }
        }
    }
}
