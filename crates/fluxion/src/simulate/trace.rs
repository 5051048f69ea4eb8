//! What a trace consists of.

use crate::plan::Time;
use serde_json::{Value, json};

/// The greatest moment and duration in a trace, in seconds.
pub(super) const LONGEST: f64 = 1e11;

/// A job of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its number in the trace.
    pub id: u64,
    /// The line it is from; 0 if it is from no text.
    pub line: usize,
    /// When it is submitted.
    pub submit: Time,
    /// How long it runs if nobody stops it.
    pub duration: Time,
    /// After how long it is stopped, which is all that schedulers know; at least 1.
    pub walltime: Time,
    /// What it asks for.
    pub shape: Shape,
}

impl Job {
    /// How long it runs.
    pub fn runs(&self) -> Time {
        self.duration.min(self.walltime)
    }

    /// Its jobspec as a JSON value.
    pub(super) fn jobspec(&self, placement: Placement) -> Value {
        let resources = match &self.shape {
            Shape::Jobspec(jobspec) => {
                let mut jobspec = jobspec.as_ref().clone();
                jobspec["attributes"]["system"]["duration"] = json!(self.walltime);
                return jobspec;
            }
            shape => shape.resources(placement),
        };
        let tasks = json!([{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}]);
        let attributes = json!({"system": {"duration": self.walltime}});
        json!({"version": 1, "resources": resources, "tasks": tasks, "attributes": attributes})
    }
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// So many processors, wherever they are.
    Processors(u32),
    /// So many gpus, wherever they are.
    Gpus(u32),
    /// So many nodes that nobody else uses.
    Nodes(u32),
    /// So many cores and gpus on each of so many nodes.
    PerNode {
        /// How many nodes.
        nodes: u32,
        /// Cores of each, at least 1.
        cores: u32,
        /// Gpus of each.
        gpus: u32,
    },
    /// What a jobspec says: an object whose `attributes.system` is one.
    Jobspec(Box<Value>),
}

/// Where processors are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// One by one.
    Cores,
    /// In nodes of so many, which go whole.
    WholeNodes(u32),
}

fn slots(count: u32, with: &[(&str, u32)]) -> Value {
    let part = |(kind, count): &(&str, u32)| json!({"type": kind, "count": count});
    let with: Vec<Value> = with.iter().filter(|w| w.1 > 0).map(part).collect();
    json!({"type": "slot", "count": count, "label": "task", "with": with})
}

/// Nodes with all that is in them.
fn whole(count: u32) -> Value {
    let with = [slots(1, &[("core", 1)])];
    json!([{"type": "node", "count": count, "exclusive": true, "with": with}])
}

impl Shape {
    fn resources(&self, placement: Placement) -> Value {
        match (self, placement) {
            (Shape::Processors(n), Placement::Cores) => json!([slots(*n, &[("core", 1)])]),
            (Shape::Processors(n), Placement::WholeNodes(per)) => whole(n.div_ceil(per.max(1))),
            (Shape::Gpus(n), _) => json!([slots(*n, &[("gpu", 1)])]),
            (Shape::Nodes(n), _) => whole(*n),
            (Shape::PerNode { nodes, cores, gpus }, _) => {
                let slot = slots(1, &[("core", *cores), ("gpu", *gpus)]);
                json!([{"type": "node", "count": nodes, "with": [slot]}])
            }
            (Shape::Jobspec(jobspec), _) => jobspec["resources"].clone(),
        }
    }
}

/// Jobs in the order of their text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// How many were left out because the trace does not know how long or how large they were.
    pub skipped: usize,
}

/// What is wrong with a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
#[allow(missing_docs)] // their messages say it
pub struct Fault {
    pub line: usize,
    pub message: String,
}

impl Fault {
    pub(super) fn new(line: usize, message: impl Into<String>) -> Fault {
        Fault {
            line,
            message: message.into(),
        }
    }
}
