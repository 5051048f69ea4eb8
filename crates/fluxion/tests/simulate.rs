//! The simulator: traces computed by hand, and what holds of all.

use fluxion::queue::{Policy, Settings};
use fluxion::simulate::generate::{Kind, Wish, generate};
use fluxion::simulate::{Job, Outcome, Placement, Record, Shape, Simulation, Summary, lines, swf};
use fluxion::{Context, Options, read};
use formats::Idset;
use proptest::prelude::*;
use serde_json::json;

const POLICIES: [Policy; 4] = [
    Policy::Fcfs,
    Policy::Easy,
    Policy::Conservative,
    Policy::Hybrid,
];

fn machine(nodes: u32, cores: u32) -> Context {
    let ids = |count: u32| Idset::from_range(0, count - 1).to_string();
    let r = json!({"version": 1, "execution": {
        "R_lite": [{"rank": ids(nodes), "children": {"core": ids(cores)}}],
        "nodelist": [format!("n[0-{}]", nodes - 1)], "starttime": 0, "expiration": 0}});
    let options = Options {
        prune: "ALL:core,ALL:node".into(),
        horizon: i64::MAX / 4,
        ..Options::default()
    };
    Context::load(&r.to_string(), read::Format::Rv1, options).expect("a right R")
}

fn settings(policy: Policy) -> Settings {
    Settings {
        policy,
        ..Settings::default()
    }
}

/// A job of so many nodes: when it comes, how long it runs, when it is stopped.
fn job(id: u64, nodes: u32, submit: i64, duration: i64, walltime: i64) -> Job {
    Job {
        id,
        line: 0,
        submit,
        duration,
        walltime,
        shape: Shape::Nodes(nodes),
    }
}

fn simulate<'a>(context: Context, policy: Policy, jobs: &'a [Job]) -> Simulation<'a> {
    let mut simulation = Simulation::new(context, settings(policy), jobs, Placement::Cores)
        .expect("these jobs can be asked for");
    while simulation.step().is_some() {}
    simulation
}

/// When a job ran, if it did.
fn ran(record: &Record) -> Option<(i64, i64)> {
    match record.outcome {
        Outcome::Ran { start, end } => Some((start, end)),
        _ => None,
    }
}

fn starts(policy: Policy, jobs: &[Job]) -> Vec<Option<i64>> {
    let simulation = simulate(machine(4, 1), policy, jobs);
    let records = simulation.records().iter();
    records.map(|r| Some(ran(r)?.0)).collect()
}

/// On four nodes: the first leaves one, the second needs all, and of those that follow one is too
/// long to go before it and one is not.
fn mixed() -> Vec<Job> {
    vec![
        job(1, 3, 0, 60, 100),
        job(2, 4, 10, 50, 50),
        job(3, 1, 20, 90, 90),
        job(4, 1, 30, 20, 70),
        job(5, 2, 200, 30, 30),
    ]
}

#[test]
fn first_come_first_served_by_hand() {
    // 2 waits for the end of 1; 3 and 4 share the machine when 2 is done; 5 waits for neither.
    let expected = [0, 60, 110, 110, 200].map(Some);
    assert_eq!(starts(Policy::Fcfs, &mixed()), expected);
}

#[test]
fn easy_by_hand() {
    // 2 is promised 100, by the walltime of 1. Until then there is room for 4 but not for 3, which
    // would run to 110; 2 starts when 1 ends early.
    let jobs = mixed();
    assert_eq!(starts(Policy::Easy, &jobs), [0, 60, 110, 30, 200].map(Some));
    let simulation = simulate(machine(4, 1), Policy::Easy, &jobs);
    let records = simulation.records();
    assert_eq!(records[1].promised, Some(100));
    let backfilled: Vec<u64> = records
        .iter()
        .filter(|r| r.backfilled)
        .map(|r| r.job.id)
        .collect();
    assert_eq!(backfilled, [4]);
}

#[test]
fn jobs_are_stopped_by_their_walltime_and_denied_if_the_machine_is_too_small() {
    for policy in POLICIES {
        let jobs = [
            job(1, 4, 0, 100, 40),
            job(2, 5, 1, 10, 10),
            job(3, 4, 2, 0, 1),
        ];
        let simulation = simulate(machine(4, 1), policy, &jobs);
        let outcomes: Vec<Outcome> = simulation.records().iter().map(|r| r.outcome).collect();
        let ran = |start, end| Outcome::Ran { start, end };
        assert_eq!(outcomes, [ran(0, 40), Outcome::Denied, ran(40, 40)]);
        assert_eq!(Summary::of(&simulation).stopped, 1);
    }
}

#[test]
fn processors_may_become_whole_nodes() {
    let shape = Shape::Processors(5);
    let jobs = [Job {
        shape,
        ..job(1, 0, 0, 10, 10)
    }];
    for (placement, amount) in [(Placement::Cores, 5), (Placement::WholeNodes(4), 8)] {
        let context = machine(4, 4);
        let mut simulation = Simulation::new(context, settings(Policy::Fcfs), &jobs, placement)
            .expect("the job can be asked for");
        simulation.step();
        assert_eq!(simulation.records()[0].amount, amount);
    }
}

#[test]
fn a_summary_of_a_made_trace() {
    let wish = Wish {
        kind: Kind::Mixed,
        jobs: 300,
        days: 2,
        load: 0.9,
        processors: 64,
        seed: 7,
    };
    let jobs = generate(&wish);
    let summaries = [Policy::Fcfs, Policy::Easy].map(|policy| {
        let simulation = simulate(machine(8, 8), policy, &jobs);
        Summary::of(&simulation)
    });
    let text = serde_json::to_string_pretty(&summaries).expect("a summary is plain");
    insta::assert_snapshot!(text);
}

#[test]
fn requested_amounts_count_before_used_ones() {
    let text = "; Version: 2.2\n\n\
        1 0 5 100 4 -1 -1 8 120 -1 1 1 1 1 1 1 -1 -1\n\
        2 7 5 100 4 1.5 -1 -1 -1 -1 1 1 1 1 1 1 -1 -1\n\
        3 9 -1 -1 -1 -1 -1 8 120 -1 5 1 1 1 1 1 -1 -1\n";
    let trace = swf::read(text).expect("a right trace");
    assert_eq!(trace.skipped, 1, "the third never ran");
    let of = |j: &Job| {
        (
            j.id,
            j.line,
            j.submit,
            j.duration,
            j.walltime,
            j.shape.clone(),
        )
    };
    let jobs: Vec<_> = trace.jobs.iter().map(of).collect();
    let expected = [
        (1, 3, 0, 100, 120, Shape::Processors(8)),
        (2, 4, 7, 100, 100, Shape::Processors(4)),
    ];
    assert_eq!(jobs, expected);
}

#[test]
fn faults_of_traces_have_a_line() {
    let good = "1 0 5 100 4 -1 -1 8 120 -1 1 1 1 1 1 1 -1 -1\n";
    for (bad, expected) in [
        ("1 2 3", "line 2: a job has 18 fields, found 3"),
        (
            "1 0 5 x 4 -1 -1 8 120 -1 1 1 1 1 1 1 -1 -1",
            "line 2: field 4 (run time) is no number in range, found 'x'",
        ),
        (
            "1 -3 5 9 4 -1 -1 8 120 -1 1 1 1 1 1 1 -1 -1",
            "line 2: field 2 (submit time) is negative",
        ),
        (
            "1 0 5 9 4 -1 -1 5e9 120 -1 1 1 1 1 1 1 -1 -1",
            "line 2: 5000000000 processors are too many",
        ),
    ] {
        let fault = swf::read(&format!("{good}{bad}\n")).expect_err(bad);
        assert_eq!(fault.to_string(), expected);
    }
    let good = r#"{"submit": 0, "duration": 1, "cores": 1}"#;
    for (bad, expected) in [
        (
            r#"{"submit": 0, "duration": 1}"#,
            "one of jobspec, nodes, cores and gpus is needed",
        ),
        (
            r#"{"submit": -1, "duration": 1, "cores": 1}"#,
            "submit must be from 0 to 100000000000, found -1",
        ),
        (
            r#"{"submit": 0, "duration": 1, "cores": 1, "gpus": 1}"#,
            "cores and gpus together need nodes",
        ),
        (
            r#"{"submit": 0, "duration": 1, "cores": 1, "jobspec": {}}"#,
            "nodes, cores and gpus stand instead of jobspec, not beside it",
        ),
        (
            r#"{"submit": 0, "duration": 1, "jobspec": {"attributes": 1}}"#,
            "jobspec.attributes must be an object",
        ),
        (
            r#"{"submit": 0}"#,
            "missing field `duration` at line 1 column 13",
        ),
    ] {
        let fault = lines::read(&format!("{good}\n{bad}\n")).expect_err(bad);
        assert_eq!(fault.to_string(), format!("line 2: {expected}"));
    }
}

#[test]
fn our_traces_ask_in_every_way() {
    let text = r#"
        {"submit": 0.5, "duration": 1.5, "cores": 6}
        {"submit": 1, "duration": 5, "nodes": 2}
        {"submit": 2, "duration": 5, "walltime": 9, "nodes": 2, "cores": 3}
        {"submit": 3, "duration": 5, "jobspec": {"version": 1, "resources": [{"type": "slot", "count": 2, "label": "a", "with": [{"type": "core", "count": 2}]}], "tasks": [{"command": ["app"], "slot": "a", "count": {"per_slot": 1}}]}}
    "#;
    let trace = lines::read(text).expect("a right trace");
    let simulation = simulate(machine(4, 4), Policy::Fcfs, &trace.jobs);
    let records = simulation.records().iter();
    let got: Vec<_> = records.map(|r| (ran(r), r.amount)).collect();
    let expected = [
        (Some((0, 2)), 6),
        (Some((1, 6)), 8),
        (Some((2, 7)), 6),
        (Some((6, 11)), 4),
    ];
    assert_eq!(got, expected);
}

#[test]
fn jobs_that_cannot_be_asked_for_are_named() {
    let text = r#"{"id": 9, "submit": 0, "duration": 1, "jobspec": {"version": 1}}"#;
    let trace = lines::read(text).expect("a right trace");
    let error = Simulation::new(
        machine(1, 1),
        settings(Policy::Fcfs),
        &trace.jobs,
        Placement::Cores,
    )
    .err()
    .expect("nothing is asked for");
    assert_eq!(
        error.to_string(),
        "line 1: job 9: jobspec: key 'resources' is missing"
    );
}

#[test]
fn a_made_trace_has_the_load_it_shall_have() {
    let wish = Wish {
        kind: Kind::Capacity,
        jobs: 2000,
        days: 7,
        load: 0.7,
        processors: 1024,
        seed: 3,
    };
    let jobs = generate(&wish);
    let work = |j: &Job| match j.shape {
        Shape::Processors(n) => f64::from(n) * j.duration as f64,
        _ => 0.,
    };
    let load = jobs.iter().map(work).sum::<f64>() / (1024. * 7. * 86_400.);
    assert!((0.68..=0.7).contains(&load), "{load}");
    assert!(jobs.iter().all(|j| j.walltime >= j.duration));
    assert!(jobs.is_sorted_by_key(|j| j.submit));
    assert_eq!(jobs, generate(&wish), "the same seed makes the same trace");
    assert_eq!(
        swf::read(&swf::write(&jobs, &["x".into()])).map(|t| t.jobs.len()),
        Ok(2000)
    );
}

fn jobs(shape: impl Strategy<Value = Shape>) -> impl Strategy<Value = Vec<Job>> {
    let one = (shape, 0..300i64, 0..80i64, 1..120i64);
    proptest::collection::vec(one, 1..40).prop_map(|list| {
        let job = |(i, (shape, submit, duration, walltime))| Job {
            id: i as u64,
            line: 0,
            submit,
            duration,
            walltime,
            shape,
        };
        list.into_iter().enumerate().map(job).collect()
    })
}

fn shapes() -> impl Strategy<Value = Shape> {
    let per_node = (1..5u32, 1..4u32).prop_map(|(nodes, cores)| Shape::PerNode {
        nodes,
        cores,
        gpus: 0,
    });
    prop_oneof![
        (1..17u32).prop_map(Shape::Processors),
        (1..5u32).prop_map(Shape::Nodes),
        per_node,
    ]
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in "([0-9 .;e+-]{0,60}\n|[^\n]{0,30}\n){0,8}") {
        let _ = swf::read(&text);
        let _ = lines::read(&text);
    }

    #[test]
    fn what_is_written_is_read_again(
        jobs in jobs((1..1000u32).prop_map(Shape::Processors)),
        fields in proptest::collection::vec(proptest::num::f64::ANY, 18),
    ) {
        let plain = |j: &Job| Job { line: 0, ..j.clone() };
        let read = swf::read(&swf::write(&jobs, &[])).expect("what we wrote");
        prop_assert_eq!(read.jobs.iter().map(plain).collect::<Vec<_>>(), jobs);
        let words: Vec<String> = fields.iter().map(f64::to_string).collect();
        let _ = swf::read(&words.join(" "));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every job runs once, after it came, for as long as it should; usage is what the jobs that
    /// run have, and never more than there is; in the end all is free.
    #[test]
    fn nothing_is_had_twice(jobs in jobs(shapes()), which in 0..4usize) {
        let mut simulation =
            Simulation::new(machine(4, 4), settings(POLICIES[which]), &jobs, Placement::Cores).expect("right jobs");
        while simulation.step().is_some() {
            let context = simulation.context();
            let graph = context.graph();
            let core = graph.words().find("core").expect("there are cores");
            let mut taken = vec![0; graph.len()];
            for job in context.jobs().values().filter(|j| !j.term.reserved) {
                for hold in job.holds() {
                    let below = graph.subtree(hold.vertex);
                    let cores = below.filter(|v| graph.kind(fluxion::graph::Vertex(*v)) == core);
                    cores.for_each(|v| taken[v as usize] += 1);
                }
            }
            prop_assert!(taken.iter().all(|n| *n <= 1), "{taken:?}");
        }
        for record in simulation.records() {
            let (start, end) = ran(record).expect("the machine is large enough");
            prop_assert!(start >= record.job.submit);
            prop_assert_eq!(end - start, record.job.duration.min(record.job.walltime));
            prop_assert!(record.amount > 0);
        }
        for (at, busy) in simulation.usage() {
            let during = |r: &&Record| ran(r).is_some_and(|(s, e)| s <= *at && *at < e);
            let given: i64 = simulation.records().iter().filter(during).map(|r| r.amount).sum();
            let instant = |r: &Record| ran(r) == Some((*at, *at));
            prop_assert!(*busy <= 16);
            prop_assert!(*busy == given || simulation.records().iter().any(instant));
        }
        prop_assert!(simulation.context().jobs().is_empty());
    }

    /// Whoever is first in line starts no later than it was first told.
    #[test]
    fn the_first_in_line_is_never_delayed(jobs in jobs(shapes()), which in 1..4usize) {
        let simulation = simulate(machine(4, 4), POLICIES[which], &jobs);
        for record in simulation.records() {
            let (start, _) = ran(record).expect("the machine is large enough");
            prop_assert!(record.promised.is_none_or(|promised| start <= promised), "{record:?}");
        }
    }
}
