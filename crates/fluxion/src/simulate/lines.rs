//! Our own traces: a JSON object on each line.
//!
//! | key | meaning |
//! |---|---|
//! | `id` | a number; by default the line's |
//! | `submit` | when, in seconds |
//! | `duration` | how long the job runs, in seconds |
//! | `walltime` | after how long it is stopped; by default `duration` |
//! | `nodes` | that many whole nodes, or with `cores` so many cores and `gpus` on each |
//! | `cores` | without `nodes`: that many cores, wherever they are |
//! | `gpus` | alone: that many gpus, wherever they are |
//! | `jobspec` | instead of the three: a jobspec, whose duration is not looked at |

use super::trace::LONGEST;
use super::{Fault, Job, Shape, Trace};
use crate::plan::Time;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<u64>,
    submit: f64,
    duration: f64,
    walltime: Option<f64>,
    #[serde(default)]
    nodes: u32,
    #[serde(default)]
    cores: u32,
    #[serde(default)]
    gpus: u32,
    jobspec: Option<Map<String, Value>>,
}

/// Reads a text.
pub fn read(text: &str) -> Result<Trace, Fault> {
    let mut trace = Trace::default();
    for (i, text) in text.lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let line = i + 1;
        let parsed: Line =
            serde_json::from_str(text).map_err(|e| Fault::new(line, e.to_string()))?;
        let job = job(parsed, line).map_err(|message| Fault::new(line, message))?;
        trace.jobs.push(job);
    }
    Ok(trace)
}

fn job(line: Line, number: usize) -> Result<Job, String> {
    let walltime = line.walltime.unwrap_or(line.duration);
    for (key, value) in [
        ("submit", line.submit),
        ("duration", line.duration),
        ("walltime", walltime),
    ] {
        if !(0.0..=LONGEST).contains(&value) {
            return Err(format!("{key} must be from 0 to {LONGEST}, found {value}"));
        }
    }
    Ok(Job {
        id: line.id.unwrap_or(number as u64),
        line: number,
        submit: line.submit as Time,
        duration: line.duration.ceil() as Time,
        walltime: (walltime.ceil() as Time).max(1),
        shape: shape(line)?,
    })
}

fn shape(line: Line) -> Result<Shape, String> {
    let counts = (line.nodes, line.cores, line.gpus);
    if let Some(jobspec) = line.jobspec {
        return match counts {
            (0, 0, 0) => with_system(jobspec),
            _ => Err("nodes, cores and gpus stand instead of jobspec, not beside it".into()),
        };
    }
    match counts {
        (0, 0, 0) => Err("one of jobspec, nodes, cores and gpus is needed".into()),
        (0, 0, gpus) => Ok(Shape::Gpus(gpus)),
        (0, cores, 0) => Ok(Shape::Processors(cores)),
        (0, _, _) => Err("cores and gpus together need nodes".into()),
        (nodes, 0, 0) => Ok(Shape::Nodes(nodes)),
        (_, 0, _) => Err("gpus of nodes need cores beside them".into()),
        (nodes, cores, gpus) => Ok(Shape::PerNode { nodes, cores, gpus }),
    }
}

/// A jobspec that has the place of its duration.
fn with_system(mut jobspec: Map<String, Value>) -> Result<Shape, String> {
    let attributes = jobspec.entry("attributes").or_insert_with(|| json!({}));
    let attributes = attributes
        .as_object_mut()
        .ok_or("jobspec.attributes must be an object")?;
    let system = attributes.entry("system").or_insert_with(|| json!({}));
    if !system.is_object() {
        return Err("jobspec.attributes.system must be an object".into());
    }
    Ok(Shape::Jobspec(Box::new(Value::Object(jobspec))))
}
