//! Vertices that more than one other contains, against a model that looks at every edge.
//!
//! A cluster has racks and tiers, and these have units, each of which may be in any of them; units have disks.

use fluxion::graph::{Builder, Graph, NewVertex, Vertex};
use fluxion::request::{self, Request};
use fluxion::{Context, Match, Op, Options};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Vertices by their numbers in files, which stay when a graph is edited.
type Set = BTreeSet<u64>;

/// How many racks and tiers there are; for each unit which of them have it, and how large its disks are.
#[derive(Debug, Clone)]
struct Shape {
    racks: u64,
    tiers: u64,
    units: Vec<(Vec<prop::sample::Index>, Vec<i64>)>,
}

fn shape() -> impl Strategy<Value = Shape> {
    let unit = (
        proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
        proptest::collection::vec(1..4i64, 1..5),
    );
    (1..4u64, 1..3u64, proptest::collection::vec(unit, 1..6)).prop_map(|(racks, tiers, units)| {
        Shape {
            racks,
            tiers,
            units,
        }
    })
}

/// Who holds what of which, by edges alone.
#[derive(Debug, Default)]
struct Model {
    kind: BTreeMap<u64, &'static str>,
    size: BTreeMap<u64, i64>,
    below: BTreeMap<u64, Vec<u64>>,
    down: Set,
    jobs: BTreeMap<i64, Has>,
}

/// What nobody else may have, and when.
#[derive(Debug, Clone)]
struct Has {
    own: Set,
    from: i64,
    to: i64,
}

impl Model {
    fn new(shape: &Shape) -> Model {
        let mut model = Model::default();
        let root = model.add("cluster", 1, &[]);
        let racks = (0..shape.racks).map(|_| "rack");
        let homes: Vec<&str> = racks.chain((0..shape.tiers).map(|_| "tier")).collect();
        let homes: Vec<u64> = homes
            .into_iter()
            .map(|kind| model.add(kind, 1, &[root]))
            .collect();
        for (inside, disks) in &shape.units {
            let inside: BTreeSet<u64> =
                inside.iter().map(|i| homes[i.index(homes.len())]).collect();
            let inside: Vec<u64> = inside.into_iter().collect();
            let unit = model.add("unit", 1, &inside);
            for size in disks {
                model.add("ssd", *size, &[unit]);
            }
        }
        model
    }

    fn add(&mut self, kind: &'static str, size: i64, inside: &[u64]) -> u64 {
        let v = self.kind.len() as u64;
        self.kind.insert(v, kind);
        self.size.insert(v, size);
        for above in inside {
            self.below.entry(*above).or_default().push(v);
        }
        v
    }

    fn graph(&self) -> Graph {
        let mut builder = Builder::default();
        let contained = builder.subsystem("containment").expect("few words");
        for (v, kind) in &self.kind {
            let new = NewVertex {
                size: self.size[v],
                ..NewVertex::new(kind, kind, *v as i64, *v)
            };
            builder.vertex(new).expect("few vertices");
        }
        for (above, row) in &self.below {
            for v in row {
                builder.edge(contained, *above as u32, *v as u32);
            }
        }
        builder.finish("containment").expect("no cycle").0
    }

    fn all(&self, kind: &str) -> Vec<u64> {
        let of = self.kind.iter().filter(|(_, k)| **k == kind);
        of.map(|(v, _)| *v).collect()
    }

    fn children(&self, v: u64) -> &[u64] {
        self.below.get(&v).map_or(&[], Vec::as_slice)
    }

    /// A vertex and all it contains.
    fn reach(&self, v: u64) -> Set {
        let mut found = Set::from([v]);
        let mut open = vec![v];
        while let Some(v) = open.pop() {
            open.extend(self.children(v).iter().filter(|c| found.insert(**c)));
        }
        found
    }

    fn owned(&self, from: i64, to: i64) -> Set {
        let meets = |h: &&Has| h.from < to && from < h.to;
        let jobs = self.jobs.values().filter(meets);
        jobs.flat_map(|h| h.own.iter().copied()).collect()
    }

    fn sum(&self, vertices: impl IntoIterator<Item = u64>) -> i64 {
        vertices.into_iter().map(|v| self.size[&v]).sum()
    }

    fn can(&self, ask: Ask, from: i64, duration: i64) -> bool {
        let owned = self.owned(from, from + duration);
        let open = |v: &u64| !owned.contains(v) && !self.down.contains(v);
        let untouched = |v: &u64| open(v) && self.reach(*v).is_disjoint(&owned);
        let racks = || self.all("rack").into_iter().filter(open);
        let tiers = || self.all("tier").into_iter().filter(open);
        let homes = || racks().chain(tiers());
        let of = |homes: Vec<u64>, kind: &str| -> Set {
            let below = homes.iter().flat_map(|h| self.children(*h).iter().copied());
            below
                .filter(open)
                .filter(|v| self.kind[v] == kind)
                .collect()
        };
        let enough = |unit: &u64, count: i64| self.sum(of(vec![*unit], "ssd")) >= count;
        let units = |homes: Vec<u64>| of(homes, "unit");
        match ask {
            Ask::InRack(count) => units(racks().collect()).iter().any(|u| enough(u, count)),
            Ask::InTier(count) => units(tiers().collect()).iter().any(|u| enough(u, count)),
            Ask::Disks(count) => {
                let units = units(homes().collect()).into_iter().collect();
                self.sum(of(units, "ssd")) >= count
            }
            Ask::Rack | Ask::RackSlot => self.all("rack").iter().any(untouched),
            Ask::Tier => self.all("tier").iter().any(untouched),
            Ask::Unit | Ask::UnitSlot => units(homes().collect()).iter().any(untouched),
        }
    }

    fn earliest(&self, ask: Ask, duration: i64) -> Option<i64> {
        let ends = self.jobs.values().map(|h| h.to);
        let moments: BTreeSet<i64> = ends.chain([0]).collect();
        moments.into_iter().find(|t| self.can(ask, *t, duration))
    }

    /// Takes vertices away to which only removed ones lead.
    fn remove(&mut self, top: u64) {
        self.below
            .values_mut()
            .for_each(|row| row.retain(|v| *v != top));
        let left = self.reach(0);
        self.kind.retain(|v, _| left.contains(v));
        self.below.retain(|v, _| left.contains(v));
        self.down.retain(|v| left.contains(v));
        self.jobs
            .values_mut()
            .for_each(|h| h.own.retain(|v| left.contains(v)));
    }
}

/// What a job asks for: disks of one unit, of any units, or something as a whole.
#[derive(Debug, Clone, Copy)]
enum Ask {
    InRack(i64),
    InTier(i64),
    Disks(i64),
    Rack,
    RackSlot,
    Tier,
    Unit,
    UnitSlot,
}

impl Ask {
    fn jobspec(self, duration: i64) -> String {
        let disks = |count: i64| json!([{"type": "ssd", "count": count, "exclusive": true}]);
        let within = |home: &str, count: i64| {
            let unit = json!([{"type": "unit", "count": 1, "with": disks(count)}]);
            json!([{"type": home, "count": 1, "with": unit}])
        };
        let whole = |kind: &str| json!([{"type": kind, "count": 1, "exclusive": true}]);
        let slot = |kind: &str| json!([{"type": "slot", "count": 1, "label": "task", "with": [{"type": kind, "count": 1}]}]);
        let resources: Value = match self {
            Ask::InRack(count) => within("rack", count),
            Ask::InTier(count) => within("tier", count),
            Ask::Disks(count) => disks(count),
            Ask::Rack => whole("rack"),
            Ask::RackSlot => slot("rack"),
            Ask::Tier => whole("tier"),
            Ask::Unit => whole("unit"),
            Ask::UnitSlot => slot("unit"),
        };
        json!({"version": 9999, "resources": resources, "attributes": {"system": {"duration": duration}},
            "tasks": [{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}]})
        .to_string()
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        (1..6i64).prop_map(Ask::InRack),
        (1..6i64).prop_map(Ask::InTier),
        (1..9i64).prop_map(Ask::Disks),
        Just(Ask::Rack),
        Just(Ask::RackSlot),
        Just(Ask::Tier),
        Just(Ask::Unit),
        Just(Ask::UnitSlot),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Now(Ask, i64),
    Later(Ask, i64),
    Cancel(prop::sample::Index),
    /// Has a job give back what is in a rack, tier or unit.
    Release(prop::sample::Index, prop::sample::Index),
    Mark(prop::sample::Index, bool),
    Remove(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<prop::sample::Index>;
    prop_oneof![
        6 => (ask(), 1..50i64).prop_map(|(a, d)| Step::Now(a, d)),
        4 => (ask(), 1..50i64).prop_map(|(a, d)| Step::Later(a, d)),
        3 => any().prop_map(Step::Cancel),
        2 => (any(), any()).prop_map(|(j, v)| Step::Release(j, v)),
        2 => (any(), proptest::bool::ANY).prop_map(|(v, up)| Step::Mark(v, up)),
        1 => any().prop_map(Step::Remove),
    ]
}

struct Play {
    context: Context,
    model: Model,
}

impl Play {
    fn new(shape: &Shape, policy: &str) -> Play {
        let model = Model::new(shape);
        let options = Options {
            policy: policy.into(),
            prune: "ALL:ssd,ALL:unit,cluster:rack".into(),
            ..Options::default()
        };
        let context = Context::new(model.graph(), options).expect("right options");
        Play { context, model }
    }

    fn at(&self, uniq: u64) -> Vertex {
        let graph = self.context.graph();
        let found = graph.vertices().find(|v| graph.uniq(*v) == uniq);
        found.expect("the model has no more than the graph")
    }

    /// None if there is nothing of a type any more.
    fn request(&self, ask: Ask, duration: i64) -> Option<Request> {
        let jobspec = request::parse(&ask.jobspec(duration)).expect("a right jobspec");
        self.context.request(&jobspec).ok()
    }

    fn some_job(&self, which: prop::sample::Index) -> Option<i64> {
        let jobs: Vec<i64> = self.model.jobs.keys().copied().collect();
        (!jobs.is_empty()).then(|| *which.get(&jobs))
    }

    /// A rack, tier or unit.
    fn some_inner(&self, which: prop::sample::Index) -> Option<u64> {
        let kinds = ["rack", "tier", "unit"];
        let inner: Vec<u64> = kinds.iter().flat_map(|k| self.model.all(k)).collect();
        (!inner.is_empty()).then(|| *which.get(&inner))
    }

    /// What a job holds: with what is whole, all below it.
    fn held(&self, job: i64) -> Set {
        let graph = self.context.graph();
        let mut held = Set::new();
        for hold in self.context.jobs()[&job].holds() {
            let uniq = graph.uniq(hold.vertex);
            match hold.whole {
                true => held.append(&mut self.model.reach(uniq)),
                false => drop(held.insert(uniq)),
            }
        }
        held
    }

    /// What is held with something around it, where nothing is counted.
    fn within_whole(&self, job: i64) -> Set {
        let whole = self.context.jobs()[&job].holds().iter().filter(|h| h.whole);
        let uniq = |h: &fluxion::plan::Hold| self.context.graph().uniq(h.vertex);
        whole.flat_map(|h| self.model.reach(uniq(h))).collect()
    }

    /// What a match is of: all that is below what is exclusive.
    fn own(&self, found: &Match) -> Set {
        let exclusive = found.selection.items().iter().filter(|s| s.exclusive);
        let uniq = |s: &fluxion::matching::Selected| self.context.graph().uniq(s.vertex);
        exclusive.flat_map(|s| self.model.reach(uniq(s))).collect()
    }

    fn ask(&mut self, id: i64, ask: Ask, duration: i64, later: bool) -> Result<(), TestCaseError> {
        let expected = match later {
            true => self.model.earliest(ask, duration),
            false => Some(0).filter(|_| self.model.can(ask, 0, duration)),
        };
        let op = match later {
            true => Op::AllocateOrElseReserve,
            false => Op::Allocate,
        };
        let request = self.request(ask, duration);
        let found = request.and_then(|r| self.context.submit(op, id, &r, 0).ok());
        let start = found.as_ref().map(|f| f.start);
        prop_assert_eq!(
            start,
            expected,
            "{:?} for {} of {:?}",
            ask,
            duration,
            &self.model
        );
        let Some(found) = found else { return Ok(()) };
        let own = self.own(&found);
        prop_assert!(self.model.owned(found.start, found.end).is_disjoint(&own));
        self.is_written_as_a_tree(&found)?;
        let has = Has {
            own,
            from: found.start,
            to: found.end,
        };
        self.model.jobs.insert(id, has);
        Ok(())
    }

    /// Each vertex once, after all it contains there, and below one that does contain it.
    fn is_written_as_a_tree(&self, found: &Match) -> Result<(), TestCaseError> {
        let graph = self.context.graph();
        let mut seen = Set::new();
        let mut wrong = None;
        found.selection.walk(graph, |step| {
            let v = graph.uniq(step.vertex);
            let above = found.selection.above(graph, step.vertex);
            let above = above.map(|a| graph.uniq(a));
            let contained = above.map_or(v == 0, |a| self.model.children(a).contains(&v));
            if !contained || above.is_some_and(|a| seen.contains(&a)) || !seen.insert(v) {
                wrong = Some((v, above));
            }
        });
        prop_assert_eq!(wrong, None);
        Ok(())
    }

    fn step(&mut self, id: i64, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Now(ask, duration) => self.ask(id, *ask, *duration, false)?,
            Step::Later(ask, duration) => self.ask(id, *ask, *duration, true)?,
            Step::Cancel(which) => {
                if let Some(job) = self.some_job(*which) {
                    self.model.jobs.remove(&job);
                    self.context.cancel(job).expect("the model knows it");
                }
            }
            Step::Release(which, top) => {
                let (Some(job), Some(top)) = (self.some_job(*which), self.some_inner(*top)) else {
                    return Ok(());
                };
                if self.context.jobs()[&job].term.reserved {
                    return Ok(());
                }
                let back = self.model.reach(top);
                let left: Set = self.held(job).difference(&back).copied().collect();
                let gone = self.context.release(job, &[self.at(top)]).expect("it runs");
                prop_assert_eq!(gone, left.is_empty());
                if gone {
                    self.model.jobs.remove(&job);
                    return Ok(());
                }
                prop_assert_eq!(self.held(job), left);
                let has = self.model.jobs.get_mut(&job).expect("it was chosen");
                has.own.retain(|v| !back.contains(v));
            }
            Step::Mark(which, up) => {
                if let Some(v) = self.some_inner(*which) {
                    match up {
                        true => self.model.down.remove(&v),
                        false => self.model.down.insert(v),
                    };
                    self.context.mark(self.at(v), *up);
                }
            }
            Step::Remove(which) => {
                if let Some(v) = self.some_inner(*which) {
                    let top = self.at(v);
                    self.model.remove(v);
                    self.context.shrink(&[top]).expect("it is not the root");
                    let left = self.context.jobs();
                    self.model.jobs.retain(|job, _| left.contains_key(job));
                }
            }
        }
        Ok(())
    }

    /// Totals and what is in use, everywhere and at every moment, are sums over the vertices of the model.
    fn counts_are_right(&self) -> Result<(), TestCaseError> {
        let graph = self.context.graph();
        prop_assert_eq!(graph.len(), self.model.kind.len());
        let mut moments: BTreeSet<i64> = self.model.jobs.values().map(|h| h.from).collect();
        moments.insert(0);
        for v in graph.vertices() {
            let mut below = self.model.reach(graph.uniq(v));
            below.remove(&graph.uniq(v));
            for at in &moments {
                let running = self
                    .model
                    .jobs
                    .iter()
                    .filter(|(_, h)| h.from <= *at && *at < h.to);
                let running: Vec<i64> = running.map(|(job, _)| *job).collect();
                let held: Vec<u64> = running.iter().flat_map(|job| self.held(*job)).collect();
                let is_within = running
                    .iter()
                    .any(|job| self.within_whole(*job).contains(&graph.uniq(v)));
                for (kind, used, total) in self.context.usage(v, None, *at) {
                    let of = |v: &u64| self.model.kind[v] == kind && below.contains(v);
                    prop_assert_eq!(total, self.model.sum(below.iter().copied().filter(of)));
                    if !is_within {
                        prop_assert_eq!(used, self.model.sum(held.iter().copied().filter(of)));
                    }
                }
            }
        }
        for job in self.model.jobs.keys() {
            prop_assert!(self.held(*job).is_subset(&self.model.jobs[job].own));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn jobs_get_what_a_look_at_every_edge_gives_them(
        shape in shape(),
        steps in proptest::collection::vec(step(), 1..30),
        policy in prop::sample::select(vec!["first", "low", "high", "locality", "variation"]),
    ) {
        let mut play = Play::new(&shape, policy);
        for (id, step) in (1..).zip(&steps) {
            play.step(id, step)?;
            play.counts_are_right()?;
        }
        for job in std::mem::take(&mut play.model.jobs).into_keys() {
            play.context.cancel(job).expect("the model knows it");
        }
        prop_assert_eq!(play.context.ledger().busy(), 0);
    }
}
