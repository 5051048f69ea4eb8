//! Seeded runs: a failing one prints its plan and the last of its history.

use sim::{Outcome, Plan, run};

fn check(plan: &Plan) -> Outcome {
    let outcome = run(plan);
    if let Some((text, history)) = &outcome.violation {
        panic!("{text}\n{}", history.join("\n"));
    }
    outcome
}

#[test]
fn small_trees_survive_many_faults() {
    let mut total = Outcome::default();
    for seed in 0..200 {
        let outcome = check(&Plan::random(seed, 2 + (seed % 15) as u32, 40));
        total.faults += outcome.faults;
        total.answers += outcome.answers;
        total.events += outcome.events;
    }
    assert!(
        total.faults > 4000 && total.answers > 20_000 && total.events > 20_000,
        "{total:?}"
    );
}

#[test]
fn a_large_tree_survives_faults() {
    let outcome = check(&Plan::random(1, 500, 200));
    assert!(outcome.lives > 500, "{outcome:?}");
}

#[test]
fn a_run_is_a_function_of_its_plan() {
    let plan = Plan::random(7, 9, 60);
    assert_eq!(run(&plan), run(&plan));
}
