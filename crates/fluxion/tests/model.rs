//! The matcher against a model that tries everything: nodes with cores, each core a list of jobs.

use fluxion::graph::Vertex;
use fluxion::request::{self, Request};
use fluxion::{Context, Match, MatchError, Op, Options, read};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const NODES: usize = 6;
const CORES: usize = 4;

/// What a job asks for.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// Whole nodes.
    Whole(usize),
    /// Nodes that are shared, with so many cores of each.
    Shared(usize, usize),
    /// Cores that are together in a node.
    Cores(usize),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Now(Ask, i64),
    Later(Ask, i64),
    /// Cancels one of the jobs that are there.
    Cancel(usize),
    /// Takes a node down or up.
    Mark(usize, bool),
}

impl Ask {
    fn jobspec(self, duration: i64) -> String {
        let slot = |count: usize| json!([{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": count}]}]);
        let resources: Value = match self {
            Ask::Whole(n) => {
                json!([{"type": "node", "count": n, "exclusive": true, "with": slot(1)}])
            }
            Ask::Shared(n, c) => json!([{"type": "node", "count": n, "with": slot(c)}]),
            Ask::Cores(c) => slot(c),
        };
        json!({"version": 1, "resources": resources, "attributes": {"system": {"duration": duration}},
            "tasks": [{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}]})
        .to_string()
    }

    fn nodes(self) -> usize {
        match self {
            Ask::Whole(n) | Ask::Shared(n, _) => n,
            Ask::Cores(_) => 1,
        }
    }

    /// Whether a node with so many free cores would do.
    fn fits(self, free: usize) -> bool {
        match self {
            Ask::Whole(_) => free == CORES,
            Ask::Shared(_, c) | Ask::Cores(c) => free >= c,
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        (1..=NODES).prop_map(Ask::Whole),
        (1..=3usize, 1..=CORES).prop_map(|(n, c)| Ask::Shared(n, c)),
        (1..=CORES).prop_map(Ask::Cores),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (ask(), 1..50i64).prop_map(|(a, d)| Step::Now(a, d)),
        3 => (ask(), 1..50i64).prop_map(|(a, d)| Step::Later(a, d)),
        3 => any::<usize>().prop_map(Step::Cancel),
        1 => (0..NODES, any::<bool>()).prop_map(|(n, up)| Step::Mark(n, up)),
    ]
}

/// Which cores a job has when, and whether it runs already.
#[derive(Debug, Clone)]
struct Has {
    cores: BTreeSet<(usize, usize)>,
    from: i64,
    to: i64,
}

#[derive(Debug, Default)]
struct Model {
    jobs: BTreeMap<i64, Has>,
    down: BTreeSet<usize>,
}

impl Model {
    fn free(&self, node: usize, from: i64, to: i64) -> usize {
        let taken = |core: &usize| {
            let has = |h: &&Has| h.from < to && from < h.to && h.cores.contains(&(node, *core));
            self.jobs.values().any(|h| has(&h))
        };
        (0..CORES).filter(|core| !taken(core)).count()
    }

    /// The nodes that would do.
    fn fitting(&self, ask: Ask, from: i64, to: i64) -> Vec<usize> {
        let up = (0..NODES).filter(|n| !self.down.contains(n));
        up.filter(|n| ask.fits(self.free(*n, from, to))).collect()
    }

    fn can(&self, ask: Ask, from: i64, duration: i64) -> bool {
        self.fitting(ask, from, from + duration).len() >= ask.nodes()
    }

    fn earliest(&self, ask: Ask, duration: i64) -> Option<i64> {
        let ends = self.jobs.values().map(|h| h.to);
        let moments: BTreeSet<i64> = ends.chain([0]).collect();
        moments.into_iter().find(|t| self.can(ask, *t, duration))
    }
}

fn machine(policy: &str) -> Context {
    let r = json!({"version": 1, "execution": {"R_lite": [{"rank": format!("0-{}", NODES - 1),
        "children": {"core": format!("0-{}", CORES - 1)}}], "nodelist": [format!("n[0-{}]", NODES - 1)],
        "starttime": 0, "expiration": 0}});
    let options = Options {
        policy: policy.into(),
        ..Options::default()
    };
    Context::load(&r.to_string(), read::Format::Rv1, options).expect("a right R")
}

fn request(context: &Context, ask: Ask, duration: i64) -> Request {
    let jobspec = request::parse(&ask.jobspec(duration)).expect("a right jobspec");
    context.request(&jobspec).expect("a right jobspec")
}

/// The cores of a match, those of whole nodes too.
fn cores(context: &Context, found: &Match) -> BTreeSet<(usize, usize)> {
    let graph = context.graph();
    let mut cores = BTreeSet::new();
    found.selection.walk(graph, |step| {
        if graph.kind_text(step.vertex) == "core" && step.exclusive {
            let node = graph.parent(step.vertex).expect("cores are in nodes");
            cores.insert((graph.rank(node) as usize, graph.id(step.vertex) as usize));
        }
    });
    cores
}

fn node_of(context: &Context, rank: usize) -> Vertex {
    context.graph().of_rank(rank as i64)[0]
}

fn play(policy: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut context = machine(policy);
    let mut model = Model::default();
    for (id, step) in (1..).zip(steps) {
        match *step {
            Step::Cancel(which) => {
                let known: Vec<i64> = model.jobs.keys().copied().collect();
                if let Some(job) = known.get(which.checked_rem(known.len()).unwrap_or(0)) {
                    model.jobs.remove(job);
                    context.cancel(*job).expect("the model knows it");
                }
            }
            Step::Mark(node, up) => {
                match up {
                    true => model.down.remove(&node),
                    false => model.down.insert(node),
                };
                let v = node_of(&context, node);
                context.mark(v, up);
            }
            Step::Now(ask, duration) | Step::Later(ask, duration) => {
                let later = matches!(step, Step::Later(..));
                let expected = match later {
                    true => model
                        .earliest(ask, duration)
                        .filter(|_| ask.nodes() + model.down.len() <= NODES),
                    false => Some(0).filter(|_| model.can(ask, 0, duration)),
                };
                let op = if later {
                    Op::AllocateOrElseReserve
                } else {
                    Op::Allocate
                };
                let request = request(&context, ask, duration);
                let found = context.submit(op, id, &request, 0);
                prop_assert_eq!(
                    found.as_ref().ok().map(|f| f.start),
                    expected,
                    "{:?} of {:?}",
                    ask,
                    &model
                );
                let Ok(found) = found else { continue };
                let fitting = model.fitting(ask, found.start, found.start + duration);
                check(&context, policy, ask, &found, &fitting, &model)?;
                let has = Has {
                    cores: cores(&context, &found),
                    from: found.start,
                    to: found.end,
                };
                model.jobs.insert(id, has);
            }
        }
    }
    for job in model.jobs.keys() {
        context.cancel(*job).expect("the model knows it");
    }
    prop_assert_eq!(context.ledger().busy(), 0);
    Ok(())
}

fn check(
    context: &Context,
    policy: &str,
    ask: Ask,
    found: &Match,
    fitting: &[usize],
    model: &Model,
) -> Result<(), TestCaseError> {
    let cores = cores(context, found);
    let used: BTreeSet<usize> = cores.iter().map(|c| c.0).collect();
    prop_assert!(used.iter().all(|n| fitting.contains(n)));
    prop_assert_eq!(used.len(), ask.nodes());
    for node in &used {
        let count = cores.iter().filter(|c| c.0 == *node).count();
        let wanted = match ask {
            Ask::Whole(_) => CORES,
            Ask::Shared(_, c) | Ask::Cores(c) => c,
        };
        prop_assert_eq!(count, wanted);
    }
    for has in model.jobs.values() {
        let meets = has.from < found.end && found.start < has.to;
        prop_assert!(
            !meets || has.cores.is_disjoint(&cores),
            "{:?} is had twice",
            has
        );
    }
    // The best under the order of the policy, where one is: nodes by their numbers.
    let best: Option<BTreeSet<usize>> = match policy {
        "lonode" => Some(fitting.iter().take(ask.nodes()).copied().collect()),
        "hinode" => Some(fitting.iter().rev().take(ask.nodes()).copied().collect()),
        "low" if !matches!(ask, Ask::Cores(_)) => {
            Some(fitting.iter().take(ask.nodes()).copied().collect())
        }
        "high" if !matches!(ask, Ask::Cores(_)) => {
            Some(fitting.iter().rev().take(ask.nodes()).copied().collect())
        }
        _ => None,
    };
    if let Some(best) = best {
        prop_assert_eq!(used, best);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_trying_everything_would(
        steps in proptest::collection::vec(step(), 1..40),
        policy in prop::sample::select(vec!["first", "low", "high", "lonode", "hinode", "locality", "variation"]),
    ) {
        play(policy, &steps)?;
    }
}

#[test]
fn a_request_that_never_fits_is_told_apart() {
    let mut context = machine("low");
    let never = request(&context, Ask::Cores(CORES + 1), 10);
    let found = context.submit(Op::AllocateOrElseReserve, 1, &never, 0);
    assert!(matches!(found, Err(MatchError::Unsatisfiable)), "{found:?}");
    let busy = request(&context, Ask::Whole(NODES), 10);
    context
        .submit(Op::Allocate, 2, &busy, 0)
        .expect("all is free");
    let found = context.submit(Op::AllocateWithSatisfiability, 3, &busy, 0);
    assert!(matches!(found, Err(MatchError::Busy)), "{found:?}");
}
