//! The key-value store under crashes, seeded, and runs in which something is wrong on purpose.

use sim::kvs::{Outcome, Plan, Sabotage, run};

#[test]
fn what_is_acknowledged_stays_and_is_seen_whole() {
    let mut total = Outcome::default();
    for seed in 0..40 {
        let outcome = run(&Plan::random(seed, 1 + (seed % 12) as u32));
        if let Some((text, history)) = &outcome.violation {
            panic!("{text}\n{}", history.join("\n"));
        }
        total += &outcome;
    }
    let Outcome {
        crashes,
        commits,
        reads,
        seen,
        ..
    } = total;
    assert!(
        crashes > 150 && commits > 800 && reads > 2000 && seen > 2000,
        "{total:?}"
    );
}

#[test]
fn a_run_is_a_function_of_its_plan() {
    for seed in 0..3 {
        let plan = Plan::random(seed, 9);
        assert_eq!(run(&plan), run(&plan));
    }
}

/// What the runs of some seeds find.
fn found(sabotage: Sabotage) -> String {
    let violation = |seed| {
        let plan = Plan {
            faults: 6,
            sabotage: Some(sabotage),
            ..Plan::random(seed, 6)
        };
        run(&plan).violation.map(|(text, _)| text)
    };
    let texts: Vec<String> = (0..24).filter_map(violation).collect();
    assert!(
        texts.len() > 2,
        "{sabotage:?} was found {} times",
        texts.len()
    );
    texts.join("\n")
}

#[test]
fn a_store_that_forgets_is_found() {
    assert!(found(Sabotage::Forgets).contains("version"));
}

#[test]
fn a_store_that_tears_is_found() {
    found(Sabotage::Tears);
}

#[test]
fn lost_events_are_found() {
    assert!(found(Sabotage::LosesEvents).contains("watcher"));
}
