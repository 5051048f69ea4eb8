//! Policies on a small machine.

use super::*;
use crate::context::Options;
use crate::read::Format;
use crate::request;
use proptest::prelude::*;
use serde_json::json;

fn machine(nodes: u32) -> Context {
    let r = json!({"version": 1, "execution": {"R_lite": [{"rank": format!("0-{}", nodes - 1), "children": {"core": "0"}}],
        "nodelist": [format!("n[0-{}]", nodes - 1)], "starttime": 0, "expiration": 0}});
    let options = Options {
        policy: "lonodex".into(),
        ..Options::default()
    };
    Context::load(&r.to_string(), Format::Rv1, options).expect("a right R")
}

fn nodes(context: &Context, count: u32, duration: i64) -> Request {
    let text = json!({"version": 1, "resources": [{"type": "node", "count": count, "with": [{"type": "slot", "count": 1,
        "label": "task", "with": [{"type": "core", "count": 1}]}]}], "tasks": [{"command": ["app"], "slot": "task",
        "count": {"per_slot": 1}}], "attributes": {"system": {"duration": duration}}});
    let jobspec = request::parse(&text.to_string()).expect("a right jobspec");
    context.request(&jobspec).expect("a right jobspec")
}

fn settings(policy: Policy) -> Settings {
    Settings {
        policy,
        ..Settings::default()
    }
}

fn started(changes: &[Change<Match>]) -> Vec<JobId> {
    let start = |c: &Change<Match>| match c {
        Change::Start(job, _) => Some(*job),
        _ => None,
    };
    changes.iter().filter_map(start).collect()
}

/// Four nodes; jobs as (nodes, seconds), the first with the number 1.
fn run(policy: Policy, jobs: &[(u32, i64)]) -> (Vec<JobId>, Queue<Context>) {
    let mut context = machine(4);
    let mut queue = Queue::new(settings(policy));
    for (i, (count, duration)) in jobs.iter().enumerate() {
        let request = nodes(&context, *count, *duration);
        queue.enqueue(i as JobId + 1, 16, i as u64, request);
    }
    (started(&queue.run(&mut context, 0)), queue)
}

/// Three nodes are taken; the second job needs four, the third would delay the fourth, which fits.
const MIXED: [(u32, i64); 4] = [(3, 100), (4, 50), (1, 500), (1, 80)];

#[test]
fn nobody_passes_in_fcfs() {
    let (started, queue) = run(Policy::Fcfs, &MIXED);
    assert_eq!(started, [1]);
    let reasons: Vec<Reason> = queue.jobs().filter_map(|j| Some(j.1?.reason)).collect();
    assert_eq!(
        reasons,
        [Reason::Resources, Reason::Priority, Reason::Priority]
    );
}

#[test]
fn easy_protects_the_first() {
    let (started, queue) = run(Policy::Easy, &MIXED);
    assert_eq!(started, [1, 4]);
    let first = queue.jobs().next().and_then(|j| j.1?.estimate);
    assert_eq!(first, Some(100));
}

#[test]
fn conservative_knows_when_all_start() {
    let (started, queue) = run(Policy::Conservative, &MIXED);
    assert_eq!(started, [1, 4]);
    let estimates: Vec<_> = queue.jobs().map(|j| j.1.and_then(|o| o.estimate)).collect();
    assert_eq!(estimates, [Some(100), Some(150)]);
}

#[test]
fn what_can_never_run_is_denied() {
    let mut context = machine(4);
    let mut queue = Queue::new(settings(Policy::Easy));
    let mut request = nodes(&context, 1, 10);
    request.variants[0][0].with[0].with[0].count = formats::Count::Fixed(2);
    queue.enqueue(1, 16, 0, request);
    assert_eq!(
        queue.run(&mut context, 0),
        [Change::Deny(1)],
        "nodes have one core each"
    );
    assert!(queue.is_empty());
}

#[test]
fn a_job_that_is_cancelled_gives_up_its_reservation() {
    let mut context = machine(4);
    let mut queue = Queue::new(settings(Policy::Easy));
    for (job, (count, duration)) in MIXED.into_iter().enumerate() {
        let request = nodes(&context, count, duration);
        queue.enqueue(job as JobId + 1, 16, job as u64, request);
    }
    queue.run(&mut context, 0);
    assert!(queue.dequeue(&mut context, 2));
    assert!(!context.jobs().contains_key(&2));
    let _ = context.cancel(4);
    queue.resources_changed();
    assert_eq!(started(&queue.run(&mut context, 1)), [3]);
}

#[test]
fn priority_goes_before_time() {
    let mut context = machine(2);
    let mut queue = Queue::new(settings(Policy::Fcfs));
    for job in 1..=3 {
        let request = nodes(&context, 2, 10);
        queue.enqueue(job, 16, job as u64, request);
    }
    assert!(queue.prioritize(3, 17));
    assert_eq!(started(&queue.run(&mut context, 0)), [3]);
    assert_eq!(queue.run(&mut context, 0), [], "nothing has changed");
}

/// Jobs beyond what a run looks at are told so once, wherever they come or go.
#[test]
fn jobs_beyond_the_depth_are_told_so_once() {
    let mut context = machine(2);
    let mut easy = settings(Policy::Easy);
    easy.depths.queue = 2;
    let mut queue = Queue::new(easy);
    let mut told = |queue: &mut Queue<Context>| -> Vec<JobId> {
        let beyond = |c: &Change<Match>| match c {
            Change::Outlook(job, outlook) if outlook.reason == Reason::Depth => Some(*job),
            _ => None,
        };
        queue
            .run(&mut context, 0)
            .iter()
            .filter_map(beyond)
            .collect()
    };
    let request = nodes(&machine(2), 2, 10);
    for job in 1..=5 {
        queue.enqueue(job, 16, job as u64, request.clone());
    }
    assert_eq!(told(&mut queue), [3, 4, 5]);
    queue.enqueue(6, 16, 6, request.clone());
    assert_eq!(told(&mut queue), [6], "1 runs, and 2 and 3 are looked at");
    queue.enqueue(7, 17, 7, request);
    assert_eq!(told(&mut queue), [3], "7 is now the first");
    assert!(queue.prioritize(5, 18));
    assert_eq!(told(&mut queue), [2]);
    assert!(queue.prioritize(5, 16));
    assert_eq!(told(&mut queue), [5]);
    for (job, outlook) in queue.jobs() {
        let depth = outlook.map(|o| o.reason) == Some(Reason::Depth);
        assert_eq!(depth, ![7, 2].contains(&job), "{job}");
    }
}

proptest! {
    /// Whatever comes after a job, conservative backfilling never gives it a later estimate, and
    /// easy never the first.
    #[test]
    fn nobody_who_is_protected_is_delayed(
        jobs in proptest::collection::vec((1..5u32, 1..200i64), 1..14),
        more in proptest::collection::vec((1..5u32, 1..200i64), 0..8),
        easy in any::<bool>(),
    ) {
        let policy = if easy { Policy::Easy } else { Policy::Conservative };
        let estimates = |jobs: &[(u32, i64)]| -> Vec<(JobId, Option<Time>)> {
            let (_, queue) = run(policy, jobs);
            queue.jobs().map(|(job, o)| (job, o.and_then(|o| o.estimate))).collect()
        };
        let before = estimates(&jobs);
        let all: Vec<_> = jobs.iter().chain(&more).copied().collect();
        let after = estimates(&all);
        let protected = if easy { 1 } else { before.len() };
        for (job, estimate) in before.iter().take(protected) {
            prop_assert!(after.contains(&(*job, *estimate)), "{job} of {before:?} in {after:?}");
        }
    }

    /// All jobs that can run do run in the end, and nothing is ever held twice.
    #[test]
    fn every_queue_empties(
        jobs in proptest::collection::vec((1..5u32, 1..60i64, 0..3u32), 1..20),
        which in 0..4usize,
    ) {
        let policy = [Policy::Fcfs, Policy::Easy, Policy::Conservative, Policy::Hybrid][which];
        let mut context = machine(4);
        let mut queue = Queue::new(settings(policy));
        for (i, (count, duration, priority)) in jobs.iter().enumerate() {
            let request = nodes(&context, *count, *duration);
            queue.enqueue(i as JobId, *priority, i as u64, request);
        }
        let (mut now, mut done) = (0, 0);
        let mut running: Vec<(Time, JobId)> = Vec::new();
        while done < jobs.len() {
            for change in queue.run(&mut context, now) {
                if let Change::Start(job, found) = change {
                    running.push((found.end, job));
                }
            }
            let held: u32 = running.iter().map(|(_, job)| jobs[*job as usize].0).sum();
            prop_assert!(held <= 4);
            running.sort_unstable();
            prop_assert!(!running.is_empty(), "nothing runs and {} wait", queue.len());
            let (end, job) = running.remove(0);
            now = end;
            context.cancel(job).expect("it runs");
            queue.resources_changed();
            done += 1;
        }
        prop_assert!(queue.is_empty());
        prop_assert_eq!(context.ledger().busy(), 0);
    }

    /// What stands is what deciding everything anew would find.
    #[test]
    fn what_was_decided_stands(
        events in proptest::collection::vec((0..4u8, 1..5u32, 1..60i64, 0..3u32), 1..60),
        which in 0..4usize,
        depth in 1..6usize,
    ) {
        let policy = [Policy::Fcfs, Policy::Easy, Policy::Conservative, Policy::Hybrid][which];
        let mut settings = settings(policy);
        settings.depths.queue = depth;
        settings.depths.reservation = 2;
        let mut anew = (machine(4), Queue::new(settings));
        let mut kept = (machine(4), Queue::new(settings));
        let mut running: Vec<(Time, JobId)> = Vec::new();
        let mut now = 0;
        for (job, (event, count, duration, priority)) in (1i64..).zip(events) {
            now += i64::from(event);
            let over = running.iter().position(|r| r.0 <= now).filter(|_| event == 0);
            let over = over.map(|i| running.swap_remove(i).1);
            for (context, queue) in [&mut anew, &mut kept] {
                match over {
                    Some(over) => {
                        context.cancel(over).expect("it runs");
                        queue.resources_changed();
                    }
                    None if event == 1 => drop(queue.prioritize(job / 2, priority)),
                    None => queue.enqueue(job, 1, job as u64, nodes(context, count, duration)),
                }
            }
            anew.1.resources_changed();
            loop {
                let changes = anew.1.run(&mut anew.0, now);
                let start = started(&changes);
                prop_assert_eq!(&started(&kept.1.run(&mut kept.0, now)), &start);
                if start.is_empty() {
                    break;
                }
                running.extend(start.iter().map(|id| (anew.0.jobs()[id].term.end, *id)));
                anew.1.resources_changed();
            }
            prop_assert_eq!(kept.1.jobs().collect::<Vec<_>>(), anew.1.jobs().collect::<Vec<_>>());
        }
    }
}
