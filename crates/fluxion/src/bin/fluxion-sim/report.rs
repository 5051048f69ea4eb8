//! Tables for people and programs.

use crate::Run;
use fluxion::simulate::{Outcome, Summary, bounded_slowdown};
use serde_json::json;
use std::time::Duration;

/// A number of seconds in the unit that suits it.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 100. => format!("{s:.0} s"),
        s if s < 6000. => format!("{:.1} min", s / 60.),
        s if s < 360_000. => format!("{:.1} h", s / 3600.),
        s => format!("{:.1} d", s / 86_400.),
    }
}

type Row = (&'static str, fn(&Summary) -> String);

const ROWS: [Row; 17] = [
    ("jobs", |s| s.jobs.to_string()),
    ("ran", |s| s.ran.to_string()),
    ("denied", |s| s.denied.to_string()),
    ("waiting", |s| s.waiting.to_string()),
    ("stopped", |s| s.stopped.to_string()),
    ("backfilled", |s| s.backfilled.to_string()),
    ("makespan", |s| span(s.makespan as f64)),
    ("utilisation", |s| format!("{:.1} %", 100. * s.utilisation)),
    ("wait, mean", |s| span(s.wait.mean)),
    ("wait, median", |s| span(s.wait.median)),
    ("wait, p95", |s| span(s.wait.p95)),
    ("wait, p99", |s| span(s.wait.p99)),
    ("wait, max", |s| span(s.wait.max)),
    ("slowdown, mean", |s| {
        format!("{:.1}", s.bounded_slowdown.mean)
    }),
    ("slowdown, median", |s| {
        format!("{:.1}", s.bounded_slowdown.median)
    }),
    ("slowdown, p95", |s| {
        format!("{:.1}", s.bounded_slowdown.p95)
    }),
    ("decisions", |s| s.decisions.to_string()),
];

fn per_decision(run: &Run) -> Duration {
    run.took.div_f64(run.summary.decisions.max(1) as f64)
}

/// Room for any span of time, so that tables of the same numbers look the same.
const CELL: usize = 9;

/// A column for each policy.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut line = |title: &str, cell: &dyn Fn(&Run) -> String| {
        lines.push(
            [title.to_owned()]
                .into_iter()
                .chain(runs.iter().map(cell))
                .collect(),
        );
    };
    line("", &|r| r.name.to_owned());
    for (title, cell) in ROWS {
        line(title, &|r| cell(&r.summary));
    }
    line("per decision", &|r| format!("{:.1?}", per_decision(r)));
    line("slowest step", &|r| format!("{:.1?}", r.slowest));
    line("took", &|r| format!("{:.2?}", r.took));
    let columns = runs.len() + 1;
    let width = |c: usize| {
        lines
            .iter()
            .map(|l| l[c].chars().count())
            .fold(CELL, usize::max)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        out += &format!("{:<1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            out += &format!("  {cell:>width$}");
        }
        out.push('\n');
    }
    out
}

/// A line with an object for each policy.
pub(crate) fn json(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        let took = run.took.as_secs_f64();
        let line = json!({"policy": run.name, "summary": run.summary, "seconds": took,
            "seconds_per_decision": per_decision(run).as_secs_f64(),
            "slowest_step": run.slowest.as_secs_f64()});
        out += &format!("{line}\n");
    }
    out
}

/// A line for each job and policy; cells that do not apply are empty.
pub(crate) fn csv(runs: &[Run]) -> String {
    let mut out = String::from(
        "policy,id,submit,duration,walltime,amount,start,end,wait,bounded_slowdown,promised,backfilled\n",
    );
    for run in runs {
        for record in &run.records {
            let job = record.job;
            let ran = match record.outcome {
                Outcome::Ran { start, end } => {
                    let slowdown = bounded_slowdown(job, start);
                    format!("{start},{end},{},{slowdown:.3}", start - job.submit)
                }
                Outcome::Denied | Outcome::Waits => ",,,".into(),
            };
            let promised = record.promised.map_or(String::new(), |p| p.to_string());
            out += &format!(
                "\"{}\",{},{},{},{},{},{ran},{promised},{}\n",
                run.name,
                job.id,
                job.submit,
                job.duration,
                job.walltime,
                record.amount,
                record.backfilled
            );
        }
    }
    out
}
