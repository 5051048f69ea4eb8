//! Slots of several shapes beside each other: as many as possible are made, of whatever shapes.

use super::evals::Evals;
use super::search::Search;
use crate::graph::{SLOT, Vertex, Word};
use crate::request::Entry;
use rustc_hash::FxHashMap;

/// How many slots are made at one vertex.
const MOST: u64 = 4096;

/// How much is left of each type.
type Left = Vec<u64>;

/// The best that can be made of what is left: how many slots, the shape of the next one, and what
/// is left then.
#[derive(Debug, Clone, Default)]
struct Best {
    slots: u64,
    shape: Option<usize>,
    left: Left,
}

struct Mix<'a> {
    shapes: Vec<&'a Entry>,
    kinds: Vec<Word>,
    known: FxHashMap<Left, Best>,
}

impl Mix<'_> {
    /// What one slot of a shape takes, if there is enough for one.
    fn after(&self, shape: &Entry, left: &Left) -> Option<Left> {
        let mut rest = left.clone();
        for part in &shape.with {
            let place = self.kinds.iter().position(|k| *k == part.kind)?;
            let limit = left[place].min(u64::from(u32::MAX)) as u32;
            let count = u64::from(part.count.at_most(limit)?);
            if count == 0 {
                return None;
            }
            rest[place] = rest[place].checked_sub(count)?;
        }
        Some(rest)
    }

    fn best(&mut self, left: &Left, depth: u64) -> Best {
        if let Some(known) = self.known.get(left) {
            return known.clone();
        }
        let mut best = Best::default();
        if depth < MOST {
            for i in 0..self.shapes.len() {
                let Some(rest) = self.after(self.shapes[i], left) else {
                    continue;
                };
                let slots = self.best(&rest, depth + 1).slots + 1;
                if best.shape.is_none() || slots > best.slots {
                    best = Best {
                        slots,
                        shape: Some(i),
                        left: rest,
                    };
                }
            }
        }
        self.known.insert(left.clone(), best.clone());
        best
    }
}

impl Search<'_> {
    /// As many slots of any of the shapes as the children of a vertex make.
    pub(super) fn fill_alternatives(&mut self, v: Vertex, level: &[Entry], out: &mut Evals) {
        let shapes: Vec<&Entry> = level.iter().filter(|e| e.kind == SLOT).collect();
        let wanted = shapes.last().map_or(0, |s| s.most());
        let mut union: Vec<Entry> = Vec::new();
        for part in shapes.iter().flat_map(|s| &s.with) {
            match union.iter_mut().find(|u| u.kind == part.kind) {
                None => union.push(part.clone()),
                Some(known) if known.count.min() < part.count.min() => *known = part.clone(),
                Some(_) => {}
            }
        }
        union.sort_by_key(|part| part.kind);
        let parts = self.parts(v, &union, wanted);
        let kinds: Vec<Word> = union.iter().map(|u| u.kind).collect();
        let mut left: Left = kinds.iter().map(|k| parts.total(*k)).collect();
        let mut mix = Mix {
            shapes: shapes.clone(),
            kinds: kinds.clone(),
            known: FxHashMap::default(),
        };
        let mut next = vec![0; kinds.len()];
        loop {
            let best = mix.best(&left, 0);
            let Some(shape) = best.shape else { break };
            let mut at: Vec<(usize, u64)> = Vec::new();
            for part in &shapes[shape].with {
                let Some(place) = kinds.iter().position(|k| *k == part.kind) else {
                    continue;
                };
                let limit = parts.total(part.kind).min(u64::from(u32::MAX)) as u32;
                at.push((place, u64::from(part.count.at_most(limit).unwrap_or(0))));
            }
            let places = next.iter_mut().enumerate().filter_map(|(i, n)| {
                let count = at.iter().find(|a| a.0 == i)?.1;
                Some(((kinds[i], count), n))
            });
            if !self.bundle(places, &parts, out) {
                break;
            }
            left = best.left;
        }
    }
}
