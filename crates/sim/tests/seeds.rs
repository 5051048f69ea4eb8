//! Seeded runs: a failing one prints its plan and the last of its history.

use overlay::topology::Shape;
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
        total += &check(&Plan::random(seed, 1 + (seed % 16) as u32, 40));
    }
    assert!(
        total.faults > 4000 && total.answers > 20_000 && total.events > 20_000,
        "{total:?}"
    );
    assert!(
        total.refusals > 1000 && total.overruns > 100,
        "no queue was full: {total:?}"
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

#[test]
fn trees_boot_with_a_few_frames_per_broker() {
    for shape in [Shape::Kary(0), Shape::Kary(2), Shape::Binomial] {
        let boot = sim::boot::boot(2000, shape).unwrap();
        assert!(boot.frames < 5 * 2000, "{shape}: {boot:?}");
    }
}
