//! The `sim` program: many runs, one line for each that fails, a record of all in JSON.
//!
//! `sim FIRST LAST SIZE FAULTS` runs the seeds from FIRST up to LAST with trees of 2 to SIZE brokers;
//! `sim one SEED SIZE FAULTS` runs a single one again and prints what happened.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::{Outcome, Plan, run};

fn size_of(seed: u64, largest: u32) -> u32 {
    2 + (seed % u64::from(largest.saturating_sub(1).max(1))) as u32
}

fn many(first: u64, last: u64, largest: u32, faults: u32) -> ExitCode {
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let total = Mutex::new((Outcome::default(), 0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return;
            }
            let size = size_of(seed, largest);
            let outcome = run(&Plan::random(seed, size, faults));
            if let Some((text, _)) = &outcome.violation {
                println!("sim one {seed} {size} {faults}: {text}");
            }
            // The totals are sound whatever happened to who added to them.
            let mut total = total.lock().unwrap_or_else(|e| e.into_inner());
            total.0.lives += outcome.lives;
            total.0.frames += outcome.frames;
            total.0.answers += outcome.answers;
            total.0.events += outcome.events;
            total.0.faults += outcome.faults;
            total.1 += u32::from(outcome.violation.is_some());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (total, failed) = total.into_inner().unwrap_or_else(|e| e.into_inner());
    let record = serde_json::json!({
        "seeds": last.saturating_sub(first),
        "largest": largest,
        "faults": total.faults,
        "lives": total.lives,
        "frames": total.frames,
        "requests": total.answers,
        "events": total.events,
        "failed": failed,
        "seconds": start.elapsed().as_secs_f64(),
    });
    println!("{record}");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(seed: u64, size: u32, faults: u32) -> ExitCode {
    let start = Instant::now();
    let outcome = run(&Plan::random(seed, size, faults));
    match &outcome.violation {
        Some((text, history)) => {
            println!("{}\n{text}", history.join("\n"));
            ExitCode::FAILURE
        }
        None => {
            println!("{outcome:?} in {:?}", start.elapsed());
            ExitCode::SUCCESS
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|a| a.parse::<u64>().ok());
    let numbers = [number(0), number(1), number(2), number(3)];
    match (args.first().map(String::as_str), numbers) {
        (Some("one"), [_, Some(seed), Some(size), Some(faults)]) if size > 0 => {
            one(seed, size as u32, faults as u32)
        }
        (_, [Some(first), Some(last), Some(size), Some(faults)]) if size > 0 => {
            many(first, last, size as u32, faults as u32)
        }
        _ => {
            eprintln!("Usage: sim FIRST LAST SIZE FAULTS | sim one SEED SIZE FAULTS");
            ExitCode::FAILURE
        }
    }
}
