//! What came of a simulation, in numbers.

use super::{Job, Outcome, Simulation};
use crate::plan::Time;
use serde::Serialize;

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[allow(missing_docs)] // their names say it
pub struct Spread {
    pub mean: f64,
    pub median: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Of values in any order; the smallest that so many percent are not above.
    pub fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let Some(max) = values.last().copied() else {
            return Spread::default();
        };
        let count = values.len();
        let at = |percent: usize| values[(count * percent).div_ceil(100).clamp(1, count) - 1];
        Spread {
            mean: values.iter().sum::<f64>() / count as f64,
            median: at(50),
            p95: at(95),
            p99: at(99),
            max,
        }
    }
}

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// All jobs.
    pub jobs: usize,
    /// Those that ran.
    pub ran: usize,
    /// Those the machine can never run.
    pub denied: usize,
    /// Those that still wait.
    pub waiting: usize,
    /// Those that started before one that had come earlier.
    pub backfilled: usize,
    /// Those that were stopped by their walltime.
    pub stopped: usize,
    /// From the first submission to the last end, in seconds.
    pub makespan: Time,
    /// What share of the machine was given to jobs in that time.
    pub utilisation: f64,
    /// How long jobs waited, in seconds.
    pub wait: Spread,
    /// Waiting and running for each second of running, of which at least 10 are counted.
    pub bounded_slowdown: Spread,
    /// How many times the queue ran.
    pub runs: u64,
    /// How many times it asked for resources.
    pub decisions: u64,
}

/// The bounded slowdown of a job that started then.
pub fn bounded_slowdown(job: &Job, start: Time) -> f64 {
    let (wait, run) = ((start - job.submit) as f64, job.runs() as f64);
    ((wait + run) / run.max(10.)).max(1.)
}

impl Summary {
    /// What has come of a simulation so far.
    pub fn of(simulation: &Simulation) -> Summary {
        let records = simulation.records();
        let (mut waits, mut slowdowns) = (Vec::new(), Vec::new());
        let (mut last, mut work, mut stopped) = (0, 0., 0);
        for record in records {
            let Outcome::Ran { start, end } = record.outcome else {
                continue;
            };
            waits.push((start - record.job.submit) as f64);
            slowdowns.push(bounded_slowdown(record.job, start));
            last = last.max(end);
            work += record.amount as f64 * (end - start) as f64;
            stopped += usize::from(record.job.duration > record.job.walltime);
        }
        let count = |outcome| records.iter().filter(|r| r.outcome == outcome).count();
        let first = records.first().map_or(0, |r| r.job.submit);
        let makespan = (last - first).max(0);
        let room = simulation.capacity() as f64 * makespan as f64;
        Summary {
            jobs: records.len(),
            ran: waits.len(),
            denied: count(Outcome::Denied),
            waiting: count(Outcome::Waits),
            backfilled: records.iter().filter(|r| r.backfilled).count(),
            stopped,
            makespan,
            utilisation: if room > 0. { work / room } else { 0. },
            wait: Spread::of(waits),
            bounded_slowdown: Spread::of(slowdowns),
            runs: simulation.runs(),
            decisions: simulation.decisions(),
        }
    }
}
