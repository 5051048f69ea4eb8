//! Searches that look at the best vertices first and stop when there is enough.
//!
//! A walk over the whole graph compares everything that would do. Where the order of preference is
//! known beforehand, an [`Index`] is followed instead: for one kind of vertex, for slots of one
//! vertex each, and, if nodes decide, for whatever is inside nodes.

use super::evals::{Evals, Group};
use super::index::{Index, UNTOUCHED, counted_first};
use super::nodes::NodeSet;
use super::policy::Policy;
use super::search::{Lack, Mode, Search};
use crate::graph::{Graph, SLOT, Vertex, Word};
use crate::plan::{Time, Window};
use crate::request::Entry;

/// Types with fewer vertices are walked.
const WORTH: usize = 16;
/// With so many vertices an index is followed also if there are equals, which it leaves in preorder.
const MANY: usize = 256;

/// How a request is searched in the order of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The request is for vertices of this type.
    Direct(Word),
    /// For slots of one vertex of this type each.
    Single(Word),
    /// For something inside vertices of this type.
    Inside(Word),
}

impl Way {
    /// Whether an index leads to what a walk would choose, or there is so much to walk that it need
    /// not.
    pub(super) fn may_follow(self, index: &Index, graph: &Graph) -> bool {
        let many = graph.of_kind(index.kind()).len() >= MANY;
        many || (index.is_unique() && !matches!(self, Way::Inside(_)))
    }

    pub(super) fn kind(self) -> Word {
        match self {
            Way::Direct(kind) | Way::Single(kind) | Way::Inside(kind) => kind,
        }
    }

    /// How a level of a request may be searched, if not by a walk.
    pub(super) fn of(level: &[Entry], graph: &Graph, policy: Policy) -> Option<Way> {
        let [entry] = level else { return None };
        let is_many = |kind: Word| {
            let many = graph.of_kind(kind).len() >= WORTH && graph.kind(graph.root()) != kind;
            many && graph.is_apart(kind)
        };
        if entry.kind != SLOT && is_many(entry.kind) {
            return Some(Way::Direct(entry.kind));
        }
        if policy.first {
            return None;
        }
        if let (SLOT, [part]) = (entry.kind, entry.with.as_slice())
            && part.count == formats::Count::Fixed(1)
            && is_many(part.kind)
            && graph.home(part.kind).is_some()
        {
            return Some(Way::Single(part.kind));
        }
        let node = graph.words().find("node").filter(|node| is_many(*node))?;
        let parts = if entry.kind == SLOT {
            entry.with.as_slice()
        } else {
            level
        };
        let is_inside = |part: &Entry| {
            let first = graph.of_kind(part.kind).first();
            first.is_some_and(|v| graph.ancestors(Vertex(*v)).any(|a| graph.kind(a) == node))
        };
        (policy.node_centric && parts.iter().all(is_inside)).then_some(Way::Inside(node))
    }
}

impl Search<'_> {
    /// As [`Search::run`], by an index.
    pub(super) fn run_ordered(
        &mut self,
        level: &[Entry],
        way: Way,
        index: &Index,
    ) -> Option<(u32, u32)> {
        self.picks.clear();
        self.ordered = self.graph.of_kind(index.kind()).len() >= MANY;
        let mut evals = Evals::default();
        let wanted = level.first().map_or(0, Entry::most);
        let least = self.least(level);
        let need = self.need(level, way, index);
        let listed = self.listed(index);
        if need == 0 && listed.is_none() && matches!(way, Way::Direct(_)) {
            self.count(level, way, index)?;
        }
        let mut place = 0;
        let mut listed = listed.as_ref().map(|l| l.iter());
        loop {
            let v = match &mut listed {
                Some(list) => *list.next()?,
                None => {
                    let Some((at, v)) = index.next(place, need) else {
                        break;
                    };
                    place = at + 1;
                    v
                }
            };
            if let Some(inside) = self.enter(v, level) {
                self.inside = inside;
                self.take(v, level, way, &mut evals);
                if evals.total(level[0].kind) >= wanted {
                    break;
                }
            }
            let left = self.graph.of_kind(index.kind()).len() - place;
            let direct = listed.is_none() && matches!(way, Way::Direct(_));
            if direct && need > 0 && evals.total(level[0].kind) + (left as u64) < least {
                return None;
            }
            let at_end = match &listed {
                Some(list) => list.len() == 0,
                None => place >= self.graph.of_kind(index.kind()).len(),
            };
            if at_end {
                break;
            }
        }
        if matches!(way, Way::Direct(kind) if Some(kind) == self.node) {
            self.lack.nodes = least.saturating_sub(evals.total(level[0].kind)).max(1);
        }
        // What comes from inside nodes has an order of its own.
        evals.sorted = !matches!(way, Way::Inside(_));
        self.choose(level, &mut evals, self.policy.order)
    }

    /// How many vertices that are looked for directly there must be at least. Those of other sizes
    /// than 1 may be fewer.
    fn least(&self, level: &[Entry]) -> u64 {
        match level.first() {
            Some(entry) if self.graph.is_plain(entry.kind) => u64::from(entry.count.min()),
            _ => 0,
        }
    }

    /// Whether as many vertices as are looked for directly may be had, before anything is chosen
    /// inside them.
    pub(super) fn count(&mut self, level: &[Entry], way: Way, index: &Index) -> Option<()> {
        let (least, need) = (self.least(level), self.need(level, way, index));
        let all = self.graph.of_kind(index.kind()).len();
        let exclusive = level[0].exclusive == Some(true);
        let mut above = None;
        let mut found = 0;
        let mut place = 0;
        let mut times = Vec::new();
        while found < least && place < all {
            let Some((at, v)) = index.next(place, need) else {
                break;
            };
            place = at + 1;
            let admitted =
                self.admit(v, level, exclusive).is_some() && self.lets_in(v, level, &mut above);
            found += u64::from(admitted);
            let Mode::At(window) = self.mode else {
                continue;
            };
            match admitted {
                true => times.push((window.start, v)),
                false => times.push((self.not_before(v, &level[0], window), v)),
            }
        }
        if found >= least {
            return Some(());
        }
        self.lack = Lack {
            nodes: least - found,
            until: self.together(times, least, &level[0]),
        };
        None
    }

    /// The earliest moment since which so many vertices might do together; `times` says when each might at the earliest.
    fn together(&self, mut times: Vec<(Time, Vertex)>, least: u64, entry: &Entry) -> Time {
        let last = usize::try_from(least - 1).unwrap_or(usize::MAX);
        let Mode::At(window) = self.mode else {
            return Time::MAX;
        };
        while last < times.len() {
            let start = times.select_nth_unstable_by_key(last, |t| t.0).1.0;
            if start == Time::MAX {
                break;
            }
            let moved = Window {
                start,
                end: start.saturating_add(window.end - window.start),
                now: false,
            };
            let mut ready = 0;
            for (time, v) in &mut times {
                if *time < start {
                    *time = self.not_before(*v, entry, moved);
                }
                ready += u64::from(*time == start);
                if ready >= least {
                    return start;
                }
            }
        }
        Time::MAX
    }

    /// The earliest moment, not before a window, since which a vertex that is looked for directly might do, for all that is
    /// known of it alone; the greatest if it never will.
    fn not_before(&self, v: Vertex, entry: &Entry, window: Window) -> Time {
        let excluded = |set: &NodeSet| set.concerns(entry.kind) && !set.contains(self.graph, v);
        if !self.graph.is_up(v) || self.allowed.is_some_and(excluded) {
            return Time::MAX;
        }
        let whole = self.policy.node_exclusive && Some(entry.kind) == self.node;
        let untouched = whole || entry.exclusive == Some(true);
        self.ledger
            .not_before(self.graph, v, window, untouched, &entry.demand)
            .unwrap_or(Time::MAX)
    }

    /// Whether everything above a vertex lets a search pass. Neighbours are often inside the same: `known` is the last one's
    /// parent, and what was said of it.
    fn lets_in(&self, v: Vertex, level: &[Entry], known: &mut Option<(Vertex, bool)>) -> bool {
        let Some(parent) = self.graph.parent(v) else {
            return true;
        };
        match *known {
            Some((of, lets)) if of == parent => lets,
            _ => {
                let lets = self.enter(v, level).is_some();
                *known = Some((parent, lets));
                lets
            }
        }
    }

    /// The vertices of an index that a constraint leaves, if they are few, best first.
    fn listed(&self, index: &Index) -> Option<Vec<Vertex>> {
        let set = self.allowed.filter(|set| set.concerns(index.kind()))?;
        let all = self.graph.of_kind(index.kind());
        if set.count(index.kind()) * 8 > all.len() {
            return None;
        }
        let mut list: Vec<Vertex> = set.vertices(self.graph, index.kind());
        list.sort_by_key(|v| index.place(self.graph, *v));
        Some(list)
    }

    /// How much a vertex of the index must have left to be looked at.
    fn need(&self, level: &[Entry], way: Way, index: &Index) -> u32 {
        let Mode::At(window) = self.mode else {
            return 0;
        };
        if !window.now {
            return 0;
        }
        let node_exclusive = self.policy.node_exclusive && Some(index.kind()) == self.node;
        let entry = &level[0];
        if node_exclusive || matches!(way, Way::Single(_)) || entry.exclusive == Some(true) {
            return UNTOUCHED;
        }
        let first = Vertex(self.graph.of_kind(index.kind())[0]);
        let counted = counted_first(self.graph, self.ledger, first);
        let demand = entry.demand.iter().find(|d| Some(d.0) == counted);
        demand.map_or(1, |d| {
            u32::try_from(d.1)
                .unwrap_or(UNTOUCHED - 2)
                .saturating_add(1)
        })
    }

    /// Whether everything above a vertex lets a search pass, and what that weighs.
    fn enter(&self, v: Vertex, level: &[Entry]) -> Option<i64> {
        let mut inside = 0;
        for a in self.graph.ancestors(v) {
            self.admit(a, level, false)?;
            inside += self.policy.weight(self.graph, a, self.node);
        }
        Some(inside)
    }

    fn take(&mut self, v: Vertex, level: &[Entry], way: Way, evals: &mut Evals) {
        match way {
            Way::Direct(_) => {
                if let Some(found) = self.visit(v, level, true, false, evals) {
                    self.offer(v, &found, evals);
                }
            }
            Way::Inside(_) => {
                self.visit(v, level, true, false, evals);
            }
            Way::Single(_) => {
                let mut parts = Evals::default();
                if let Some(found) = self.visit(v, &level[0].with, false, true, &mut parts) {
                    self.offer(v, &found, &mut parts);
                    let last = parts.lists.pop().and_then(|mut l| l.groups.pop());
                    if let Some(Group { score, picks, .. }) = last {
                        evals.add(
                            SLOT,
                            Group {
                                score: score + 1,
                                count: 1,
                                picks,
                            },
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::context::{Context, Options};
    use crate::graph::{Builder, NewVertex};
    use crate::look::Op;
    use crate::matching::Field;
    use crate::plan::Window;
    use crate::request;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    /// Racks of nodes, nodes of cores; ids of nodes are unique and as mixed as `seed` says.
    fn machine(policy: &str, seed: u64) -> Context {
        let mut builder = Builder::default();
        let contained = builder.subsystem("containment").expect("few words");
        let mut uniq = 0;
        let mut add = |kind: &str, id: i64, above: Option<u32>| {
            let v = builder
                .vertex(NewVertex::new(kind, kind, id, uniq))
                .expect("few vertices");
            uniq += 1;
            if let Some(above) = above {
                builder.edge(contained, above, v);
            }
            v
        };
        let root = add("cluster", 0, None);
        for rack in 0..10u64 {
            let above = add("rack", rack as i64, Some(root));
            for node in 0..30u64 {
                let id = ((rack * 30 + node) * (2 * seed + 1) * 7 + seed) % 300;
                let node = add("node", id as i64, Some(above));
                for core in 0..4 {
                    add("core", core, Some(node));
                }
            }
        }
        let options = Options {
            policy: policy.into(),
            ..Options::default()
        };
        let graph = builder.finish("containment").expect("a tree").0;
        Context::new(graph, options).expect("right options")
    }

    fn jobspec(resources: Value, duration: i64) -> String {
        json!({"version": 1, "resources": resources, "attributes": {"system": {"duration": duration}},
            "tasks": [{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}]})
        .to_string()
    }

    fn resources() -> impl Strategy<Value = Value> {
        let slot = |n: u32, with: Value| json!([{"type": "slot", "count": n, "label": "task", "with": with}]);
        let cores = move |n: u32| slot(1, json!([{"type": "core", "count": n}]));
        prop_oneof![
            (1..80u32, any::<bool>()).prop_map(move |(n, x)| {
                json!([{"type": "node", "count": n, "exclusive": x, "with": cores(1)}])
            }),
            (1..80u32, 1..5u32)
                .prop_map(move |(n, c)| json!([{"type": "node", "count": n, "with": cores(c)}])),
            (1..120u32).prop_map(move |n| slot(n, json!([{"type": "node", "count": 1}]))),
            (1..3u32, 1..5u32)
                .prop_map(move |(n, c)| slot(n, json!([{"type": "core", "count": c}]))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        /// Following an index finds what comparing everything finds. Cores of different nodes have
        /// the same ids, so for them it is how much that is compared, and whether it is free.
        #[test]
        fn it_is_what_a_walk_finds(
            jobs in proptest::collection::vec((resources(), 1..40i64, any::<bool>()), 1..14),
            policy in prop::sample::select(vec!["low", "high", "lonode", "hinode", "lonodex", "hinodex"]),
            seed in (0..40u64).prop_filter("ids stay unique", |s| !(2 * s + 1).is_multiple_of(3) && !(2 * s + 1).is_multiple_of(5)),
        ) {
            let mut context = machine(policy, seed);
            for (job, (resources, duration, cancel)) in (1i64..).zip(jobs) {
                let text = jobspec(resources, duration);
                let request = context.request(&request::parse(&text).expect("right")).expect("right");
                let _ = context.submit(Op::WithoutAllocating, 0, &request, 0);
                let window = Window { start: 0, end: duration, now: true };
                let field = context.field(None);
                let (mut few, mut many) = ((0, 0), (0, 0));
                let ordered = field.find(&request, window, &mut few).ok();
                let walked = Field { indices: &[], ..field }.find(&request, window, &mut many).ok();
                prop_assert!(few.0 <= many.0);
                match text.contains("\"node\"") {
                    true => prop_assert_eq!(&ordered, &walked, "{}", text),
                    false => {
                        let size = |s: &Option<crate::matching::Selection>| s.as_ref().map(|s| s.holds(context.graph()).len());
                        prop_assert_eq!(size(&ordered), size(&walked), "{}", text);
                    }
                }
                let op = if cancel { Op::AllocateOrElseReserve } else { Op::Allocate };
                let had = context.submit(op, job, &request, 0).is_ok();
                if cancel && had && job % 3 == 0 {
                    context.cancel(job).expect("it is there");
                }
            }
            let jobs: Vec<_> = context.jobs().keys().copied().collect();
            for job in jobs {
                context.cancel(job).expect("it is there");
            }
            prop_assert_eq!(context.ledger().busy(), 0);
        }

        /// A reservation begins at the first moment a job ends at which a walk finds what is asked for, or in a second if
        /// jobs that should have ended are all that is in the way.
        #[test]
        fn reservations_are_as_early_as_can_be(
            jobs in proptest::collection::vec((resources(), 1..40i64), 1..24),
            policy in prop::sample::select(vec!["first", "firstnodex", "high", "lonode", "hinodex"]),
        ) {
            let mut context = machine(policy, 0);
            let (mut ends, mut now) = (BTreeSet::new(), 0);
            for (job, (resources, duration)) in (1i64..).zip(jobs) {
                now += i64::from(job % 7 == 0);
                let text = jobspec(resources, duration);
                let request = context.request(&request::parse(&text).expect("right")).expect("right");
                let walk = Field { indices: &[], ..context.field(None) };
                let fits = |start: i64, now: bool| {
                    let window = Window { start, end: start + duration, now };
                    walk.find(&request, window, &mut (0, 0)).is_ok()
                };
                let later = ends.range(now + 2..).copied();
                let moments = || std::iter::once(now + 1).chain(later).find(|at| fits(*at, false));
                let expected = if fits(now, true) { Some(now) } else { moments() };
                let found = context.submit(Op::AllocateOrElseReserve, job, &request, now).ok();
                prop_assert_eq!(found.as_ref().map(|f| f.start), expected, "{}", text);
                ends.extend(found.map(|f| f.end));
            }
        }
    }
}
