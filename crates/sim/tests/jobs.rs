//! Jobs under crashes, seeded, and runs in which something is wrong on purpose.

use sim::jobs::{Fault, Outcome, Part, Plan, Sabotage, run};

fn holds(plan: &Plan) -> Outcome {
    let outcome = run(plan);
    if let Some((text, history)) = &outcome.violation {
        panic!("{}\n{text}", history.join("\n"));
    }
    outcome
}

#[test]
fn jobs_end_once_and_none_is_lost() {
    let mut total = Outcome::default();
    for seed in 0..12 {
        total += &holds(&Plan::random(seed));
    }
    assert!(
        total.faults > 10 && total.jobs > 60 && total.shells > 60,
        "{total:?}"
    );
}

#[test]
fn a_run_is_a_function_of_its_plan() {
    for seed in [3, 29] {
        let plan = Plan {
            history: usize::MAX,
            ..Plan::random(seed)
        };
        assert_eq!(run(&plan), run(&plan));
    }
}

/// Seeds that failed once: events that were posted twice, a free without an alloc, and a job that failed because an
/// earlier life of job-exec had made its namespace. And a job that was asked for before and after job-exec said hello, one that
/// waited for a scheduler that had gone, and one that waited for a scheduler whose manager had gone before it was looked at.
#[test]
fn what_was_found() {
    for at in [54, 60, 63] {
        holds(&Plan::short(at, Fault::Unload(Part::Exec)));
    }
    for at in [34, 36] {
        holds(&Plan::short(at, Fault::Module(Part::Manager)));
    }
    holds(&Plan::short(82, Fault::Module(Part::Ingest)));
    for seed in [29, 90, 94, 108, 113, 167, 184, 207] {
        holds(&Plan {
            commands: false,
            ..Plan::random(seed)
        });
    }
}

/// What the runs of some seeds find.
fn found(sabotage: Sabotage, fault: Fault) -> String {
    let violation = |seed| {
        let plan = Plan {
            faults: [250, 450, 650].map(|at| (at, fault)).into(),
            sabotage: Some(sabotage),
            programs: 3,
            jobs: 4,
            ..Plan::random(seed)
        };
        run(&plan).violation.map(|(text, _)| text)
    };
    let texts: Vec<String> = (0..6).filter_map(violation).collect();
    assert!(!texts.is_empty(), "{sabotage:?} was not found");
    texts.join("\n")
}

#[test]
fn a_store_that_forgets_is_found() {
    found(Sabotage::Forgets, Fault::Broker);
}

#[test]
fn a_second_shell_is_found() {
    let fault = Fault::Module(Part::Exec);
    assert!(found(Sabotage::StartsTwice, fault).contains("was started twice"));
}

#[test]
fn shared_cores_are_found() {
    let fault = Fault::Module(Part::Ingest);
    assert!(found(Sabotage::SharesCores, fault).contains("belongs to the jobs"));
}
