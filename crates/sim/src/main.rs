//! The `sim` program: many runs, one line for each that fails, a record of all in JSON.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use overlay::topology::Shape;
use sim::{Plan, jobs, kvs, run};

const USAGE: &str = "Usage:
  sim FIRST LAST SIZE FAULTS    run the seeds from FIRST up to LAST, each with 1 to SIZE brokers
  sim one SEED SIZE FAULTS      run one of them again with exactly SIZE brokers, and print all that happened
  sim kvs FIRST LAST SIZE       the same for the key-value store
  sim kvs one SEED SIZE
  sim jobs FIRST LAST           the same for jobs
  sim jobs one SEED
  sim jobs sweep                a few jobs, with each fault after each message
  sim jobs short N              one of these runs again
  sim boot SHAPE SIZE...        start trees of these sizes (SHAPE: kary:K, mincrit, binomial)";

fn size_of(seed: u64, largest: u32) -> u32 {
    1 + (seed % u64::from(largest)) as u32
}

/// Run these seeds on all cores: what came of them together, and how many failed.
fn each<T>(
    seeds: std::ops::Range<u64>,
    run: impl Fn(u64) -> T + Sync,
    violation: impl Fn(u64, &T) -> Option<String> + Sync,
) -> (T, u32)
where
    T: Default + for<'a> std::ops::AddAssign<&'a T> + Send,
{
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new((T::default(), 0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed);
            let failed = violation(seed, &outcome);
            if let Some(text) = &failed {
                println!("{text}");
            }
            // The totals are sound whatever happened to who added to them.
            let mut total = total.lock().unwrap_or_else(|e| e.into_inner());
            total.0 += &outcome;
            total.1 += u32::from(failed.is_some());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_else(|e| e.into_inner())
}

fn many(first: u64, last: u64, largest: u32, faults: u32) -> ExitCode {
    let start = Instant::now();
    let plan = |seed| Plan::random(seed, size_of(seed, largest), faults);
    let (total, failed) = each(
        first..last,
        |seed| run(&plan(seed)),
        |seed, outcome| {
            let (text, _) = outcome.violation.as_ref()?;
            let size = size_of(seed, largest);
            Some(format!("sim one {seed} {size} {faults}: {text}"))
        },
    );
    let record = serde_json::json!({
        "seeds": last.saturating_sub(first),
        "largest": largest,
        "faults": total.faults,
        "lives": total.lives,
        "frames": total.frames,
        "requests": total.answers,
        "refused": total.refusals,
        "overruns": total.overruns,
        "events": total.events,
        "failed": failed,
        "seconds": start.elapsed().as_secs_f64(),
    });
    println!("{record}");
    exit_code(failed == 0)
}

fn many_kvs(first: u64, last: u64, largest: u32) -> ExitCode {
    let start = Instant::now();
    let plan = |seed| kvs::Plan::random(seed, size_of(seed, largest));
    let (total, failed) = each(
        first..last,
        |seed| kvs::run(&plan(seed)),
        |seed, outcome| {
            let (text, _) = outcome.violation.as_ref()?;
            let size = size_of(seed, largest);
            Some(format!("sim kvs one {seed} {size}: {text}"))
        },
    );
    let record = serde_json::json!({
        "seeds": last.saturating_sub(first),
        "largest": largest,
        "messages": total.messages,
        "crashes": total.crashes,
        "commits": total.commits,
        "lost": total.lost,
        "reads": total.reads,
        "seen": total.seen,
        "failed": failed,
        "seconds": start.elapsed().as_secs_f64(),
    });
    println!("{record}");
    exit_code(failed == 0)
}

fn one_kvs(seed: u64, size: u32) -> ExitCode {
    let plan = kvs::Plan {
        history: usize::MAX,
        ..kvs::Plan::random(seed, size)
    };
    let outcome = kvs::run(&plan);
    match &outcome.violation {
        Some((text, history)) => println!("{}\n{text}", history.join("\n")),
        None => println!("{outcome:?}"),
    }
    exit_code(outcome.violation.is_none())
}

fn record_of_jobs(start: Instant, runs: u64, total: &jobs::Outcome, failed: u32) -> ExitCode {
    let record = serde_json::json!({
        "runs": runs,
        "messages": total.messages,
        "faults": total.faults,
        "jobs": total.jobs,
        "events": total.events,
        "shells": total.shells,
        "failed": failed,
        "seconds": start.elapsed().as_secs_f64(),
    });
    println!("{record}");
    exit_code(failed == 0)
}

fn many_jobs(first: u64, last: u64) -> ExitCode {
    let start = Instant::now();
    let (total, failed) = each(
        first..last,
        |seed| jobs::run(&jobs::Plan::random(seed)),
        |seed, outcome| {
            let (text, _) = outcome.violation.as_ref()?;
            Some(format!("sim jobs one {seed}: {text}"))
        },
    );
    record_of_jobs(start, last.saturating_sub(first), &total, failed)
}

fn sweep_jobs() -> ExitCode {
    let start = Instant::now();
    let plans = jobs::Plan::sweep();
    let (total, failed) = each(
        0..plans.len() as u64,
        |n| jobs::run(&plans[n as usize]),
        |n, outcome| {
            Some(format!(
                "sim jobs short {n}: {}",
                outcome.violation.as_ref()?.0
            ))
        },
    );
    record_of_jobs(start, plans.len() as u64, &total, failed)
}

fn one_jobs(plan: jobs::Plan) -> ExitCode {
    let plan = jobs::Plan {
        history: usize::MAX,
        ..plan
    };
    let outcome = jobs::run(&plan);
    match &outcome.violation {
        Some((text, history)) => println!("{}\n{text}", history.join("\n")),
        None => println!("{outcome:?}"),
    }
    exit_code(outcome.violation.is_none())
}

fn exit_code(good: bool) -> ExitCode {
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn one(seed: u64, size: u32, faults: u32) -> ExitCode {
    let start = Instant::now();
    let plan = Plan {
        history: usize::MAX,
        ..Plan::random(seed, size, faults)
    };
    let outcome = run(&plan);
    match &outcome.violation {
        Some((text, history)) => println!("{}\n{text}", history.join("\n")),
        None => println!("{outcome:?} in {:?}", start.elapsed()),
    }
    exit_code(outcome.violation.is_none())
}

fn boot(shape: Shape, sizes: &[u32]) -> ExitCode {
    for size in sizes {
        let boot = match sim::boot::boot(*size, shape) {
            Ok(boot) => boot,
            Err(violation) => {
                println!("{violation}");
                return ExitCode::FAILURE;
            }
        };
        let record = serde_json::json!({
            "shape": shape.to_string(),
            "brokers": size,
            "frames": boot.frames,
            "simulated_seconds": boot.simulated.as_secs_f64(),
            "seconds": boot.real.as_secs_f64(),
            "microseconds_per_broker": boot.real.as_secs_f64() * 1e6 / f64::from(*size),
        });
        println!("{record}");
    }
    ExitCode::SUCCESS
}

fn numbers<T: std::str::FromStr>(words: &[&str]) -> Option<Vec<T>> {
    words.iter().map(|w| w.parse().ok()).collect()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["boot", shape, sizes @ ..] => {
            let sizes = numbers::<u32>(sizes).filter(|sizes| !sizes.contains(&0));
            let shape = shape.parse().ok();
            sizes.zip(shape).map(|(sizes, shape)| boot(shape, &sizes))
        }
        ["kvs", "one", rest @ ..] => match numbers::<u32>(rest).as_deref() {
            Some([seed, size]) if *size > 0 => Some(one_kvs(u64::from(*seed), *size)),
            _ => None,
        },
        ["kvs", rest @ ..] => match numbers::<u64>(rest).as_deref() {
            Some([first, last, size]) if *size > 0 => Some(many_kvs(*first, *last, *size as u32)),
            _ => None,
        },
        ["jobs", "sweep"] => Some(sweep_jobs()),
        ["jobs", "one", seed] => {
            let seed = seed.parse().ok();
            seed.map(|seed| one_jobs(jobs::Plan::random(seed)))
        }
        ["jobs", "short", n] => {
            let plan = n.parse().ok();
            let plan = plan.and_then(|n: usize| jobs::Plan::sweep().into_iter().nth(n));
            plan.map(one_jobs)
        }
        ["jobs", first, last] => match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => Some(many_jobs(first, last)),
            _ => None,
        },
        ["one", rest @ ..] => match numbers::<u64>(rest).as_deref() {
            Some([seed, size, faults]) if *size > 0 => {
                Some(one(*seed, *size as u32, *faults as u32))
            }
            _ => None,
        },
        rest => match numbers::<u64>(rest).as_deref() {
            Some([first, last, size, faults]) if *size > 0 => {
                Some(many(*first, *last, *size as u32, *faults as u32))
            }
            _ => None,
        },
    };
    done.unwrap_or_else(|| {
        eprintln!("{USAGE}");
        ExitCode::FAILURE
    })
}
