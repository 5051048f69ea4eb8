//! Who holds what, when.
//!
//! Only vertices that something happens to have a state here. A job's holds are entered together:
//! for each held vertex the span, and for everything above it that a job is there and how much of
//! each counted type it uses. A hold on a whole subtree is entered at its top alone: nobody gets
//! past it. What may be reached on several ways is counted at the end of each.

use super::{Filters, Time, Timeline};
use crate::graph::{Graph, Vertex, Word};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A job's number.
pub type JobId = i64;

/// An exclusive hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// What is held.
    pub vertex: Vertex,
    /// How much of it.
    pub amount: u32,
    /// Whether everything below is held with it. Nothing below is reached otherwise, then: [`Graph::is_closed`].
    pub whole: bool,
}

impl Hold {
    /// How much of a type it takes.
    pub fn amount_of(&self, graph: &Graph, kind: Word) -> i64 {
        if self.whole {
            graph.total(self.vertex, kind)
        } else if graph.kind(self.vertex) == kind {
            i64::from(graph.size(self.vertex))
        } else {
            0
        }
    }
}

/// When a job has its holds, and whether it has them yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The job.
    pub job: JobId,
    /// Since when.
    pub start: Time,
    /// Until when.
    pub end: Time,
    /// Whether this is a plan for later.
    pub reserved: bool,
}

/// When something is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Since when.
    pub start: Time,
    /// Until when.
    pub end: Time,
    /// Whether it begins now: then what a job has counts as taken though its time be over.
    pub now: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    term: Term,
    amount: u32,
    whole: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    /// Who holds it; who begins first comes first.
    held: SmallVec<[Held; 1]>,
    /// How many jobs have something below.
    users: Timeline,
    /// How many of them are not just planned.
    present: u32,
    /// What is used below, of each type counted here.
    used: SmallVec<[Timeline; 2]>,
    /// The part of it that is not just planned.
    taken: SmallVec<[i64; 2]>,
}

impl State {
    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.present == 0 && self.users.is_empty()
    }
}

/// The amounts of counted types, by their place in [`Filters::all`].
type Tally = SmallVec<[i64; 4]>;

/// The states of the vertices of a graph.
#[derive(Debug, Clone)]
pub struct Ledger {
    filters: Filters,
    /// For each vertex its state's number plus 1, or 0.
    place: Vec<u32>,
    states: Vec<State>,
    spare: Vec<u32>,
    /// When jobs end, and at how many nodes at most something becomes free then.
    ends: BTreeMap<(Time, JobId), u64>,
    /// What was left below vertices when a job last came to them.
    weights: Vec<u32>,
}

impl Ledger {
    /// Nothing is held.
    pub fn new(graph: &Graph, filters: Filters) -> Ledger {
        Ledger {
            filters,
            place: vec![0; graph.len()],
            states: Vec::new(),
            spare: Vec::new(),
            ends: BTreeMap::new(),
            weights: vec![u32::MAX; graph.len()],
        }
    }

    /// What is counted where.
    pub fn filters(&self) -> &Filters {
        &self.filters
    }

    /// How many vertices something happens to.
    pub fn busy(&self) -> usize {
        self.states.len() - self.spare.len()
    }

    fn state(&self, v: Vertex) -> Option<&State> {
        match self.place[v.0 as usize] {
            0 => None,
            n => Some(&self.states[n as usize - 1]),
        }
    }

    fn state_mut(&mut self, v: Vertex) -> &mut State {
        let place = &mut self.place[v.0 as usize];
        if *place == 0 {
            *place = self.spare.pop().unwrap_or_else(|| {
                self.states.push(State::default());
                self.states.len() as u32
            });
        }
        &mut self.states[*place as usize - 1]
    }

    fn settle(&mut self, v: Vertex) {
        let place = self.place[v.0 as usize];
        if place != 0 && self.states[place as usize - 1].is_idle() {
            self.states[place as usize - 1] = State::default();
            self.place[v.0 as usize] = 0;
            self.spare.push(place);
        }
    }

    /// Enters the holds of a job, which are in preorder.
    pub fn enter(&mut self, graph: &Graph, term: Term, holds: &[Hold]) {
        let node = graph.words().find("node");
        let nodes = |h: &Hold| node.map_or(1, |node| h.amount_of(graph, node).max(1) as u64);
        self.ends
            .insert((term.end, term.job), holds.iter().map(nodes).sum());
        for hold in holds {
            let entry = Held {
                term,
                amount: hold.amount,
                whole: hold.whole,
            };
            let held = &mut self.state_mut(hold.vertex).held;
            let place = held.partition_point(|h| h.term.start <= term.start);
            held.insert(place, entry);
        }
        self.count(graph, term, holds, 1);
        for hold in holds {
            if hold.whole {
                let inner = graph
                    .subtree(hold.vertex)
                    .map(Vertex)
                    .filter(|v| !graph.is_leaf(*v));
                inner.for_each(|v| self.weights[v.0 as usize] = 0);
            } else {
                self.weigh(graph, hold.vertex);
            }
        }
    }

    /// Notes what is left below a vertex.
    fn weigh(&mut self, graph: &Graph, v: Vertex) {
        let shown = self.filters.shown(graph.kind(v));
        let Some(last) = shown.last().filter(|_| !graph.is_leaf(v)) else {
            return;
        };
        let taken = self.state(v).and_then(|s| s.taken.get(shown.len() - 1));
        let left = graph.total(v, *last) - taken.copied().unwrap_or(0);
        self.weights[v.0 as usize] = left.clamp(0, i64::from(u32::MAX) - 1) as u32;
    }

    /// Takes holds of a job, as they were entered, away again.
    pub fn leave(&mut self, graph: &Graph, term: Term, holds: &[Hold]) {
        for hold in holds {
            let held = &mut self.state_mut(hold.vertex).held;
            if let Some(i) = held.iter().position(|h| h.term.job == term.job) {
                held.remove(i);
            }
        }
        self.count(graph, term, holds, -1);
        for hold in holds {
            self.settle(hold.vertex);
        }
    }

    /// Walks up from the holds and adds to everything above them.
    fn count(&mut self, graph: &Graph, term: Term, holds: &[Hold], sign: i64) {
        if !graph.is_tree() {
            return self.count_around(graph, term, holds, sign);
        }
        let counted = self.filters.all().len();
        let zero = || Tally::from_elem(0, counted);
        let mut open: Vec<(Vertex, Tally)> = Vec::new();
        let mut path: SmallVec<[Vertex; 8]> = SmallVec::new();
        for hold in holds {
            let mut above = zero();
            for (amount, kind) in above.iter_mut().zip(self.filters.all()) {
                *amount = hold.amount_of(graph, *kind);
            }
            while let Some((top, _)) = open.last() {
                if graph.subtree(*top).contains(&hold.vertex.0) {
                    break;
                }
                self.close(graph, term, sign, &mut open);
            }
            let known = open.last().map(|(top, _)| *top);
            path.clear();
            path.extend(
                graph
                    .ancestors(hold.vertex)
                    .take_while(|p| Some(*p) != known),
            );
            for v in path.iter().rev() {
                open.push((*v, zero()));
            }
            if let Some((_, tally)) = open.last_mut() {
                tally.iter_mut().zip(&above).for_each(|(t, a)| *t += a);
            }
        }
        while !open.is_empty() {
            self.close(graph, term, sign, &mut open);
        }
    }

    fn close(&mut self, graph: &Graph, term: Term, sign: i64, open: &mut Vec<(Vertex, Tally)>) {
        let Some((v, tally)) = open.pop() else { return };
        self.count_at(graph, term, sign, v, &tally);
        if let Some((_, above)) = open.last_mut() {
            above.iter_mut().zip(&tally).for_each(|(a, t)| *a += t);
        }
    }

    /// Adds to everything that contains holds, by whatever way.
    fn count_around(&mut self, graph: &Graph, term: Term, holds: &[Hold], sign: i64) {
        let all = self.filters.all();
        let mut around: BTreeMap<Vertex, Tally> = BTreeMap::new();
        for hold in holds {
            for v in graph.containers(hold.vertex) {
                let tally = around.entry(v);
                let tally = tally.or_insert_with(|| Tally::from_elem(0, all.len()));
                for (amount, kind) in tally.iter_mut().zip(all) {
                    *amount += hold.amount_of(graph, *kind);
                }
            }
        }
        for (v, tally) in around {
            self.count_at(graph, term, sign, v, &tally);
        }
    }

    /// Adds that a job is there, with what it uses below.
    fn count_at(&mut self, graph: &Graph, term: Term, sign: i64, v: Vertex, tally: &Tally) {
        let kind = graph.kind(v);
        let counted = self.filters.at(kind).len();
        let places: SmallVec<[usize; 4]> = (self.filters.at(kind).iter())
            .filter_map(|w| self.filters.all().iter().position(|a| a == w))
            .collect();
        let state = self.state_mut(v);
        if state.used.len() < counted {
            state.used.resize_with(counted, Timeline::default);
            state.taken.resize(counted, 0);
        }
        state.users.add(term.start, term.end, sign);
        if !term.reserved {
            state.present = state.present.wrapping_add_signed(sign as i32);
        }
        for (i, place) in places.iter().enumerate() {
            let amount = sign * tally[*place];
            state.used[i].add(term.start, term.end, amount);
            if !term.reserved {
                state.taken[i] += amount;
            }
        }
        if sign > 0 {
            self.weigh(graph, v);
        }
        self.settle(v);
    }

    /// How much of a vertex nobody holds in a window.
    pub fn free(&self, graph: &Graph, v: Vertex, window: Window) -> u32 {
        let size = graph.size(v);
        let Some(state) = self.state(v) else {
            return size;
        };
        let counts = |h: &&Held| {
            h.term.start < window.end
                && (window.start < h.term.end || (window.now && !h.term.reserved))
        };
        let overlapping = || state.held.iter().filter(counts);
        // Most holds are on all there is, and most vertices have none at a moment.
        if overlapping().any(|h| h.amount >= size) {
            return 0;
        }
        // Enough to look at each moment a hold begins.
        let at = |t: Time| -> u32 {
            let meets =
                |h: &&Held| h.term.start <= t && (t < h.term.end || window.now && !h.term.reserved);
            overlapping().filter(meets).map(|h| h.amount).sum()
        };
        let moments = overlapping().map(|h| h.term.start.max(window.start));
        size.saturating_sub(moments.map(at).max().unwrap_or(0))
    }

    /// Whether nobody has anything of a vertex, or of what is below it, in a window.
    pub fn is_untouched(&self, v: Vertex, window: Window) -> bool {
        let Some(state) = self.state(v) else {
            return true;
        };
        if window.now && (state.present > 0 || state.held.iter().any(|h| !h.term.reserved)) {
            return false;
        }
        let overlaps = |h: &Held| h.term.start < window.end && window.start < h.term.end;
        !state.held.iter().any(overlaps) && state.users.max(window.start, window.end) == 0
    }

    /// The earliest moment, not before a window, since which a vertex may be had for as long as the window is, as far as
    /// holds on all of it, users below it if it has to be untouched, and what is counted tell.
    pub fn not_before(
        &self,
        graph: &Graph,
        v: Vertex,
        window: Window,
        untouched: bool,
        demand: &[(Word, i64)],
    ) -> Option<Time> {
        let Some(state) = self.state(v) else {
            return Some(window.start);
        };
        let (size, duration) = (graph.size(v), window.end.saturating_sub(window.start));
        let counted = self.filters.at(graph.kind(v));
        let mut at = window.start;
        loop {
            let before = at;
            for held in state.held.iter().filter(|h| untouched || h.amount >= size) {
                if held.term.start >= at.saturating_add(duration) {
                    break;
                }
                at = at.max(held.term.end);
            }
            if untouched {
                at = state.users.first_fit(at, duration, 0)?;
            }
            for (kind, need) in demand {
                let place = counted.iter().position(|c| c == kind);
                if let Some(used) = place.and_then(|i| state.used.get(i)) {
                    at = used.first_fit(at, duration, graph.total(v, *kind) - need)?;
                }
            }
            if at == before {
                return Some(at);
            }
        }
    }

    /// Whether what is below a vertex may have a demand in a window, as far as that is counted.
    pub fn may_have(
        &self,
        graph: &Graph,
        v: Vertex,
        window: Window,
        demand: &[(Word, i64)],
    ) -> bool {
        let counted = self.filters.at(graph.kind(v));
        let state = self.state(v);
        demand.iter().all(|(kind, need)| {
            let Some(i) = counted.iter().position(|c| c == kind) else {
                return true;
            };
            let total = graph.total(v, *kind);
            let used = state.and_then(|s| s.used.get(i));
            total - used.map_or(0, |u| u.max(window.start, window.end)) >= *need
        })
    }

    /// What is in use below a vertex at a moment: (type, used, total) of what it was asked to count.
    pub fn usage(&self, graph: &Graph, v: Vertex, at: Time) -> Vec<(Word, i64, i64)> {
        let state = self.state(v);
        let kinds = self.filters.shown(graph.kind(v)).iter().enumerate();
        kinds
            .map(|(i, kind)| {
                let used = state.and_then(|s| s.used.get(i)).map_or(0, |u| u.at(at));
                (*kind, used, graph.total(v, *kind))
            })
            .collect()
    }

    /// How much of the last counted type was left below a vertex when a job last came to it; the
    /// greatest number if none ever did.
    pub fn weight(&self, v: Vertex) -> u32 {
        self.weights[v.0 as usize]
    }

    /// How much of a counted type below a vertex no present job has.
    pub fn spare(&self, graph: &Graph, v: Vertex, kind: Word) -> i64 {
        let place = self
            .filters
            .at(graph.kind(v))
            .iter()
            .position(|c| *c == kind);
        let taken = place.and_then(|i| self.state(v)?.taken.get(i).copied());
        graph.total(v, kind) - taken.unwrap_or(0)
    }

    /// Whether present jobs hold all of a vertex.
    pub fn is_taken(&self, graph: &Graph, v: Vertex) -> bool {
        let held = self.state(v).map_or(&[][..], |s| &s.held);
        let present = held.iter().filter(|h| !h.term.reserved);
        let amount: u64 = present.map(|h| u64::from(h.amount)).sum();
        amount > 0 && amount >= u64::from(graph.size(v))
    }

    /// Whether present jobs have anything of a vertex or below it.
    pub fn is_present(&self, v: Vertex) -> bool {
        let present = |s: &State| s.present > 0 || s.held.iter().any(|h| !h.term.reserved);
        self.state(v).is_some_and(present)
    }

    /// Whether something happens to a vertex.
    pub fn is_busy(&self, v: Vertex) -> bool {
        self.place[v.0 as usize] != 0
    }

    /// The jobs that hold a vertex itself: present ones, then planned ones.
    pub fn holders(&self, v: Vertex, reserved: bool) -> impl Iterator<Item = (JobId, bool)> + '_ {
        let held = self.state(v).map_or(&[][..], |s| &s.held);
        held.iter()
            .filter(move |h| h.term.reserved == reserved)
            .map(|h| (h.term.job, h.whole))
    }

    /// The earliest moment, not before `from`, at which everything the root counts would do.
    pub fn first_fit(
        &self,
        graph: &Graph,
        from: Time,
        duration: i64,
        demand: &[(Word, i64)],
    ) -> Option<Time> {
        let root = graph.root();
        let counted = self.filters.at(graph.kind(root));
        let state = self.state(root);
        let mut at = from;
        loop {
            let before = at;
            for (kind, need) in demand {
                let Some(i) = counted.iter().position(|c| c == kind) else {
                    continue;
                };
                let limit = graph.total(root, *kind) - need;
                let Some(used) = state.and_then(|s| s.used.get(i)) else {
                    if limit < 0 {
                        return None;
                    }
                    continue;
                };
                at = used.first_fit(at, duration, limit)?;
            }
            if at == before {
                return Some(at);
            }
        }
    }

    /// The first moment after `at` by which something became free at so many nodes.
    pub fn next_end(&self, at: Time, nodes: u64) -> Option<Time> {
        let mut freed = 0;
        let mut later = self.ends.range((at + 1, JobId::MIN)..);
        let enough = |(_, nodes_of): &(&(Time, JobId), &u64)| {
            freed += **nodes_of;
            freed >= nodes
        };
        later.find(enough).map(|((end, _), _)| *end)
    }

    /// A job that has no holds left is no longer waited for.
    pub fn forget(&mut self, term: Term) {
        self.ends.remove(&(term.end, term.job));
    }
}
