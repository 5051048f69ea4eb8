//! The walk that finds what a request may have.
//!
//! Depth first over the tree, a level of the request at a time. A vertex that no entry of the
//! level names is passed through as long as nothing was matched above it; one that is named must
//! have what the entry contains. What a vertex finds below it is either chosen from at once, if the
//! vertex itself was named, or handed up to be chosen from there.

use super::evals::{Evals, Group, Pick};
use super::nodes::NodeSet;
use super::policy::{Order, Policy};
use super::seen::Seen;
use super::share::Share;
use crate::graph::{Graph, SLOT, Vertex, Word};
use crate::plan::{Ledger, Time, Window};
use crate::request::Entry;
use std::collections::BinaryHeap;

/// What availability is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// What is free in a window.
    At(Window),
    /// What there is at all, if nobody had anything and all were up.
    Ever,
}

pub(super) struct Search<'a> {
    pub(super) graph: &'a Graph,
    pub(super) ledger: &'a Ledger,
    pub(super) policy: Policy,
    pub(super) mode: Mode,
    pub(super) allowed: Option<&'a NodeSet>,
    pub(super) flexible: bool,
    pub(super) node: Option<Word>,
    pub(super) picks: Vec<Pick>,
    /// Whether nothing is looked at beyond what may be taken.
    pub(super) ordered: bool,
    /// What the vertices around the current one weigh.
    pub(super) inside: i64,
    /// Whose children are looked at.
    pub(super) above: Vertex,
    /// Where it has been, if that may be come to again.
    pub(super) seen: Seen,
    /// What a search in vain lacked.
    pub(super) lack: Lack,
    /// The labels that were met; picks have their numbers plus 1.
    pub(super) labels: Vec<Box<str>>,
    /// Vertices looked at, and those that would do.
    pub(super) visits: (u64, u64),
}

/// What a search in vain lacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// So many nodes at least have to become free.
    pub nodes: u64,
    /// It is in vain until then at least.
    pub until: Time,
}

impl Lack {
    /// Of a search of which nothing is known.
    pub(super) const UNKNOWN: Lack = Lack {
        nodes: 1,
        until: Time::MIN,
    };
    /// Of a search in which nothing can succeed.
    pub(super) const HOPELESS: Lack = Lack {
        nodes: u64::MAX,
        until: Time::MAX,
    };

    /// Of two searches of which one would do.
    pub(super) fn or(self, other: Lack) -> Lack {
        Lack {
            nodes: self.nodes.min(other.nodes),
            until: self.until.min(other.until),
        }
    }
}

/// What a level of the request means for a vertex.
enum Role<'a> {
    /// Its children make slots.
    Slots(&'a [Entry]),
    /// It is what an entry names; `None` while that is still to come.
    Inside(&'a [Entry], Option<&'a Entry>),
}

/// What a vertex that would do has.
pub(super) struct Found {
    free: u32,
    score: i64,
    exclusive: bool,
    /// Whether an entry named it.
    pub(super) named: bool,
    label: u16,
    inner: (u32, u32),
}

impl<'a> Search<'a> {
    /// Searches from the root; what was chosen, as picks at the end of the list.
    pub(super) fn run(&mut self, level: &[Entry]) -> Option<(u32, u32)> {
        self.picks.clear();
        self.inside = 0;
        self.seen = Seen::default();
        let root = self.graph.root();
        let asked = self.asks_exclusive(root, level);
        let mut evals = Evals::default();
        let found = self.visit(root, level, true, asked, &mut evals)?;
        self.offer(root, &found, &mut evals);
        self.choose(level, &mut evals, self.policy.order)
    }

    fn asks_exclusive(&self, v: Vertex, level: &[Entry]) -> bool {
        let kind = self.graph.kind(v);
        level
            .iter()
            .any(|e| e.kind == kind && e.exclusive == Some(true))
    }

    /// Makes a found vertex a candidate.
    pub(super) fn offer(&mut self, v: Vertex, found: &Found, evals: &mut Evals) {
        let at = self.picks.len() as u32;
        self.picks.push(Pick {
            vertex: v,
            amount: found.free,
            exclusive: found.exclusive,
            label: found.label,
            inner: found.inner,
        });
        let group = Group {
            score: found.score,
            count: u64::from(found.free),
            picks: (at, at + 1),
        };
        evals.add(self.graph.kind(v), group);
    }

    /// Chooses what each entry asks for; the chosen picks are copied to the end of the list.
    pub(super) fn choose(
        &mut self,
        level: &[Entry],
        evals: &mut Evals,
        order: Order,
    ) -> Option<(u32, u32)> {
        let start = self.picks.len() as u32;
        for (i, entry) in level.iter().enumerate() {
            // Sibling slots are alternatives: they are counted together.
            if entry.kind == SLOT && level[i + 1..].iter().any(|e| e.kind == SLOT) {
                continue;
            }
            let limit = evals.total(entry.kind).min(u64::from(u32::MAX)) as u32;
            let count = u64::from(entry.count.at_most(limit)?);
            if count == 0 {
                continue;
            }
            evals.sort(entry.kind, order);
            let best = evals.best(entry.kind, count)?;
            for group in &evals.find(entry.kind)?.groups[best] {
                let (from, to) = group.picks;
                self.picks.extend_from_within(from as usize..to as usize);
            }
        }
        Some((start, self.picks.len() as u32))
    }

    #[inline]
    pub(super) fn visit(
        &mut self,
        v: Vertex,
        level: &[Entry],
        pristine: bool,
        outer: bool,
        out: &mut Evals,
    ) -> Option<Found> {
        match self.graph.is_tree() {
            true => self.visit_anew(v, level, pristine, outer, out),
            false => self.visit_once(v, level, pristine, outer, out),
        }
    }

    pub(super) fn visit_anew(
        &mut self,
        v: Vertex,
        level: &[Entry],
        pristine: bool,
        outer: bool,
        out: &mut Evals,
    ) -> Option<Found> {
        self.visits.0 += 1;
        if self.graph.is_leaf(v) {
            return self.visit_leaf(v, level, pristine, outer);
        }
        let role = self.role(v, level, pristine)?;
        let exclusive = outer || self.asks_exclusive(v, level);
        let free = self.admit(v, level, exclusive)?;
        let weight = self.policy.weight(self.graph, v, self.node);
        self.inside += weight;
        let mut below = Evals::default();
        match role {
            Role::Slots(slots) => self.fill_slots(v, slots, &mut below),
            Role::Inside(next, matched) => {
                self.explore(v, next, matched.is_none(), exclusive, 1, &mut below);
            }
        }
        self.inside -= weight;
        let kind = self.graph.kind(v);
        let matched = level.iter().find(|e| e.kind == kind);
        let inner = match matched {
            Some(entry) => {
                let order = match self.policy.order {
                    Order::Runs => Order::Descending,
                    order => order,
                };
                Some(self.choose(&entry.with, &mut below, order)?)
            }
            None => None,
        };
        self.visits.1 += 1;
        if matched.is_none_or(|e| e.with.is_empty()) {
            out.merge(below);
        }
        Some(Found {
            free,
            score: self.policy.score(self.graph, v, self.inside),
            exclusive,
            named: matched.is_some(),
            label: matched
                .and_then(|e| e.label.as_deref())
                .map_or(0, |l| self.label(l)),
            inner: inner.unwrap_or((0, 0)),
        })
    }

    /// As [`Search::visit`] where nothing is below: most vertices.
    fn visit_leaf(
        &mut self,
        v: Vertex,
        level: &[Entry],
        pristine: bool,
        outer: bool,
    ) -> Option<Found> {
        let kind = self.graph.kind(v);
        let Some(entry) = level.iter().find(|e| e.kind == kind) else {
            self.visits.1 += u64::from(pristine);
            return None;
        };
        if !entry.with.is_empty() || (level.len() > 1 && self.is_ambiguous(kind, level)) {
            return None;
        }
        let exclusive = outer || entry.exclusive == Some(true);
        let plain = self.allowed.is_none() && self.graph.all_up() && !self.ledger.is_busy(v);
        let free = match plain && entry.exclusive != Some(false) {
            true => self.graph.size(v),
            false => self.admit(v, level, exclusive)?,
        };
        self.visits.1 += 1;
        Some(Found {
            free,
            score: self.policy.score(self.graph, v, self.inside),
            exclusive,
            named: true,
            label: entry.label.as_deref().map_or(0, |l| self.label(l)),
            inner: (0, 0),
        })
        .filter(|f| f.free > 0)
    }

    fn label(&mut self, label: &str) -> u16 {
        let known = self.labels.iter().position(|l| **l == *label);
        let place = known.unwrap_or_else(|| {
            self.labels.push(label.into());
            self.labels.len() - 1
        });
        u16::try_from(place + 1).unwrap_or(0)
    }

    fn role<'l>(&self, v: Vertex, level: &'l [Entry], pristine: bool) -> Option<Role<'l>> {
        let kind = self.graph.kind(v);
        let named = level.iter().find(|e| e.kind == kind);
        if self.is_ambiguous(kind, level) {
            return None;
        }
        let slots = match named {
            Some(entry) => entry.with.as_slice(),
            None => level,
        };
        let is_slot = |e: &&Entry| e.kind == SLOT;
        let makes = |e: &Entry| e.with.iter().all(|part| self.has_child(v, part.kind));
        let fits = match self.flexible {
            true => slots.iter().filter(is_slot).any(makes),
            false => slots.iter().rfind(is_slot).is_some_and(makes),
        };
        if fits {
            return Some(Role::Slots(slots));
        }
        match named {
            Some(entry) => Some(Role::Inside(&entry.with, named)),
            None => pristine.then_some(Role::Inside(level, None)),
        }
    }

    /// Whether siblings ask for the same: what goes to which would be open.
    fn is_ambiguous(&self, kind: Word, level: &[Entry]) -> bool {
        let named = level.iter().filter(|e| e.kind == kind).count();
        let slots = level.iter().filter(|e| e.kind == SLOT).count();
        let slots = if self.flexible { slots.min(1) } else { slots };
        named + slots > 1
    }

    fn has_child(&self, v: Vertex, kind: Word) -> bool {
        self.graph.children(v).any(|c| self.graph.kind(c) == kind)
    }

    /// How much of a vertex may be used, if it and what is below it may be.
    pub(super) fn admit(&self, v: Vertex, level: &[Entry], exclusive: bool) -> Option<u32> {
        let kind = self.graph.kind(v);
        let constrained = |set: &NodeSet| set.concerns(kind) && !set.contains(self.graph, v);
        if self.allowed.is_some_and(constrained) {
            return None;
        }
        let Mode::At(window) = self.mode else {
            return self.admit_ever(v, level, exclusive);
        };
        if !self.graph.is_up(v) {
            return None;
        }
        let free = match self.ledger.is_busy(v) {
            true => self.ledger.free(self.graph, v, window),
            false => self.graph.size(v),
        };
        if free == 0 {
            return None;
        }
        if self.policy.node_exclusive
            && Some(kind) == self.node
            && !self.ledger.is_untouched(v, window)
        {
            return None;
        }
        for entry in level.iter().filter(|e| e.kind == kind || e.kind == SLOT) {
            if entry.kind != SLOT {
                if exclusive && entry.exclusive == Some(false) {
                    return None;
                }
                if exclusive && !self.ledger.is_untouched(v, window) {
                    return None;
                }
            }
            let enough = self.ledger.may_have(self.graph, v, window, &entry.demand);
            let is_alternative = self.flexible && entry.kind == SLOT;
            if !enough && !is_alternative {
                return None;
            }
        }
        Some(free)
    }

    fn admit_ever(&self, v: Vertex, level: &[Entry], exclusive: bool) -> Option<u32> {
        let kind = self.graph.kind(v);
        let refused = |e: &Entry| e.kind == kind && exclusive && e.exclusive == Some(false);
        if level.iter().any(refused) {
            return None;
        }
        Some(self.graph.size(v)).filter(|size| *size > 0)
    }

    /// Visits the children; the candidates among them and below them.
    fn explore(
        &mut self,
        v: Vertex,
        level: &[Entry],
        pristine: bool,
        exclusive: bool,
        slots: u64,
        out: &mut Evals,
    ) {
        if self.policy.first {
            return self.explore_until(v, level, pristine, exclusive, slots, out);
        }
        let graph = self.graph;
        for child in graph.children(v) {
            self.above = v;
            let found = self.visit(child, level, pristine, exclusive, out);
            if let Some(found) = found.filter(|f| f.named) {
                self.offer(child, &found, out);
            }
        }
    }

    /// As [`Search::explore`], but ends once there is enough of everything: vertices with jobs come
    /// first, those with the most to spare before others; then the rest, last made first.
    fn explore_until(
        &mut self,
        v: Vertex,
        level: &[Entry],
        pristine: bool,
        exclusive: bool,
        slots: u64,
        out: &mut Evals,
    ) {
        let graph = self.graph;
        // Of many children a few are looked at: a heap costs less than sorting them. Leaves all weigh the same.
        let weighed = |c| (self.ledger.weight(c), graph.uniq(c), c);
        let row = graph.row_below(v);
        let mut heap: BinaryHeap<(u32, u64, Vertex)> = match row {
            Some(_) => BinaryHeap::new(),
            None => graph.children(v).map(weighed).collect(),
        };
        let mut row = row.into_iter().flatten().rev().map(Vertex);
        let mut shares: Vec<(Word, u64, Share)> = level
            .iter()
            .map(|e| (e.kind, 0, Share::of(e.most())))
            .collect();
        while let Some(child) = row.next().or_else(|| heap.pop().map(|c| c.2)) {
            let kind = graph.kind(child);
            let has_enough = |s: &(Word, u64, Share)| s.0 == kind && s.2.shares() >= slots;
            if shares.iter().any(has_enough) {
                continue;
            }
            self.above = v;
            let Some(found) = self.visit(child, level, pristine, exclusive, out) else {
                continue;
            };
            if found.named {
                self.offer(child, &found, out);
            }
            for (kind, seen, share) in &mut shares {
                let total = out.total(*kind);
                if total > *seen {
                    share.add(total - *seen);
                    *seen = total;
                }
            }
            if shares.iter().all(|s| s.2.shares() >= slots) {
                break;
            }
        }
    }

    fn fill_slots(&mut self, v: Vertex, level: &[Entry], out: &mut Evals) {
        let mut slots = level.iter().filter(|e| e.kind == SLOT);
        match (slots.next(), slots.next()) {
            (Some(slot), None) => self.fill(v, slot, out),
            (Some(_), Some(_)) => self.fill_alternatives(v, level, out),
            (None, _) => {}
        }
    }

    /// As many slots of one shape as the children of a vertex make.
    fn fill(&mut self, v: Vertex, slot: &Entry, out: &mut Evals) {
        let parts = self.parts(v, &slot.with, slot.most());
        let fits = |part: &Entry| {
            let limit = parts.total(part.kind).min(u64::from(u32::MAX)) as u32;
            let count = u64::from(part.count.at_most(limit).unwrap_or(0));
            let mut share = Share::of(count);
            let groups = parts.find(part.kind).map_or(&[][..], |l| &l.groups);
            groups.iter().for_each(|g| share.add(g.count));
            (count, if count == 0 { 0 } else { share.shares() })
        };
        let counts: Vec<(u64, u64)> = slot.with.iter().map(fits).collect();
        let mut slots = counts.iter().map(|c| c.1).min().unwrap_or(0);
        if self.ordered {
            // The best are made first, and nobody takes more than are asked for.
            slots = slots.min(slot.most());
        }
        let mut next = vec![0; counts.len()];
        for _ in 0..slots {
            let shape = slot
                .with
                .iter()
                .zip(&counts)
                .map(|(part, c)| (part.kind, c.0));
            self.bundle(shape.zip(&mut next), &parts, out);
        }
    }

    /// The candidates for parts of slots, all exclusive, in order of preference.
    pub(super) fn parts(&mut self, v: Vertex, shape: &[Entry], slots: u64) -> Evals {
        let mut parts = Evals::default();
        self.explore(v, shape, false, true, slots, &mut parts);
        let order = match self.policy.order {
            Order::Ascending if self.policy.score == super::policy::Score::Id => Order::Ascending,
            _ => Order::Descending,
        };
        for i in 0..parts.lists.len() {
            parts.sort(parts.lists[i].kind, order);
        }
        parts
    }

    /// Makes one slot of the next candidates of each type; whether there were enough.
    pub(super) fn bundle<'b>(
        &mut self,
        shape: impl Iterator<Item = ((Word, u64), &'b mut usize)>,
        parts: &Evals,
        out: &mut Evals,
    ) -> bool {
        let start = self.picks.len();
        let mut score = 1;
        for ((kind, count), next) in shape {
            let groups = parts.find(kind).map_or(&[][..], |l| &l.groups);
            let mut have = 0;
            while have < count {
                let Some(group) = groups.get(*next) else {
                    self.picks.truncate(start);
                    return false;
                };
                *next += 1;
                have += group.count;
                score += group.score;
                self.picks
                    .extend_from_within(group.picks.0 as usize..group.picks.1 as usize);
            }
        }
        let picks = (start as u32, self.picks.len() as u32);
        out.add(
            SLOT,
            Group {
                score,
                count: 1,
                picks,
            },
        );
        true
    }
}
