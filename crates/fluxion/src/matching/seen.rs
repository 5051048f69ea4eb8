//! What a search knows of vertices that it may come to on several ways.
//!
//! What was found in such a vertex is offered once, to the parent by which it was found. Where it was found in vain, as the same
//! part of a request, it is not looked at again, so that the ways need not be counted.

use super::evals::Evals;
use super::search::{Found, Search};
use crate::graph::Vertex;
use crate::request::Entry;
use rustc_hash::{FxHashMap, FxHashSet};

/// A vertex, the level of the request, whether nothing was matched above, and whether something exclusive is.
type Visit = (Vertex, *const Entry, bool, bool);

/// The vertices with several parents that a search has been at.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By which parent something was found in them.
    pub(super) ways: FxHashMap<Vertex, Vertex>,
    /// The same vertices, in the order in which they were left.
    trail: Vec<Vertex>,
    vain: FxHashSet<Visit>,
}

impl Search<'_> {
    /// Visits a vertex of a graph in which some have several parents.
    #[cold]
    pub(super) fn visit_once(
        &mut self,
        v: Vertex,
        level: &[Entry],
        pristine: bool,
        outer: bool,
        out: &mut Evals,
    ) -> Option<Found> {
        let visit = (v, level.as_ptr(), pristine, outer);
        let is_shared = self.graph.is_shared(v);
        if is_shared && (self.seen.ways.contains_key(&v) || self.seen.vain.contains(&visit)) {
            return None;
        }
        let (above, mark, before) = (self.above, self.seen.trail.len(), out.len());
        let found = self.visit_anew(v, level, pristine, outer, out);
        if found.as_ref().is_some_and(|f| f.named) || out.len() > before {
            if is_shared {
                self.seen.ways.insert(v, above);
                self.seen.trail.push(v);
            }
            return found;
        }
        for inner in self.seen.trail.drain(mark..) {
            self.seen.ways.remove(&inner);
        }
        if is_shared {
            self.seen.vain.insert(visit);
        }
        found
    }
}
