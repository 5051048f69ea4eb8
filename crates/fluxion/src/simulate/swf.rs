//! The Standard Workload Format: a line of 18 numbers for each job, -1 for what is not known.
//!
//! Of requested and used amounts the requested ones count, unless they are not known.

use super::trace::LONGEST;
use super::{Fault, Job, Shape, Trace};
use crate::plan::Time;
use std::fmt::Write;

const FIELDS: usize = 18;

/// The fields that are used, by their places in a line.
const NUMBER: usize = 0;
const SUBMIT: usize = 1;
const RUN_TIME: usize = 3;
const USED: usize = 4;
const REQUESTED: usize = 7;
const REQUESTED_TIME: usize = 8;

fn name(field: usize) -> &'static str {
    match field {
        NUMBER => "job number",
        SUBMIT => "submit time",
        RUN_TIME => "run time",
        USED => "allocated processors",
        REQUESTED => "requested processors",
        REQUESTED_TIME => "requested time",
        _ => "not used",
    }
}

/// Reads a text.
pub fn read(text: &str) -> Result<Trace, Fault> {
    let mut trace = Trace::default();
    for (i, line) in text.lines().enumerate() {
        let line_text = line.trim();
        if line_text.is_empty() || line_text.starts_with(';') {
            continue;
        }
        match job(line_text, i + 1)? {
            Some(job) => trace.jobs.push(job),
            None => trace.skipped += 1,
        }
    }
    Ok(trace)
}

fn numbers(text: &str, line: usize) -> Result<[f64; FIELDS], Fault> {
    let count = text.split_whitespace().count();
    if count != FIELDS {
        let message = format!("a job has {FIELDS} fields, found {count}");
        return Err(Fault::new(line, message));
    }
    let mut fields = [0.; FIELDS];
    for (i, word) in text.split_whitespace().enumerate() {
        let number = word.parse().ok().filter(|n: &f64| n.abs() <= LONGEST);
        let message = || {
            let what = name(i);
            format!(
                "field {} ({what}) is no number in range, found '{word}'",
                i + 1
            )
        };
        fields[i] = number.ok_or_else(|| Fault::new(line, message()))?;
    }
    Ok(fields)
}

/// A line's job, unless its size or its run time is not known.
fn job(text: &str, line: usize) -> Result<Option<Job>, Fault> {
    let fields = numbers(text, line)?;
    for field in [NUMBER, SUBMIT] {
        if fields[field] < 0. {
            let message = format!("field {} ({}) is negative", field + 1, name(field));
            return Err(Fault::new(line, message));
        }
    }
    let known = |field: usize| Some(fields[field]).filter(|n| *n > 0.);
    let Some(processors) = known(REQUESTED).or(known(USED)) else {
        return Ok(None);
    };
    if processors > f64::from(u32::MAX) {
        return Err(Fault::new(
            line,
            format!("{processors} processors are too many"),
        ));
    }
    if fields[RUN_TIME] < 0. {
        return Ok(None);
    }
    let duration = fields[RUN_TIME].ceil() as Time;
    let walltime = known(REQUESTED_TIME).map_or(duration, |t| t.ceil() as Time);
    Ok(Some(Job {
        id: fields[NUMBER] as u64,
        line,
        submit: fields[SUBMIT] as Time,
        duration,
        walltime: walltime.max(1),
        shape: Shape::Processors(processors.ceil() as u32),
    }))
}

/// Writes jobs that ask for processors; the others are left out.
pub fn write(jobs: &[Job], comments: &[String]) -> String {
    let mut out = String::new();
    for comment in comments {
        out += &format!("; {comment}\n");
    }
    for job in jobs {
        let Shape::Processors(n) = job.shape else {
            continue;
        };
        let Job {
            id,
            submit,
            duration,
            walltime,
            ..
        } = job;
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{id} {submit} -1 {duration} {n} -1 -1 {n} {walltime} -1 1 -1 -1 -1 -1 -1 -1 -1"
        );
    }
    out
}
