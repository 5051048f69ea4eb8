//! Where a graph comes from.

use super::Machine;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use fluxion::graph::Builder;
use fluxion::read::{Format, instance, jgf, rv1};
use fluxion::{Context, Error, write};
use serde_json::Value;

use crate::options::Options;
use crate::perf::Tally;
use crate::r::{promises_graph, renumber};

/// What hwloc sees on ranks, as XML.
pub type Topologies = BTreeMap<u32, String>;

/// Whether the graph of an R is to be used.
pub fn has_graph(r: &Value, options: &Options) -> bool {
    options.load_format != "rv1exec_force" && promises_graph(&r["scheduling"])
}

impl Machine {
    fn new(context: Context, options: &Options, begin: Instant) -> Machine {
        let now = Instant::now();
        Machine {
            context,
            // Checked when the options were read.
            format: write::Format::from_name(&options.match_format)
                .unwrap_or(write::Format::Rv1Nosched),
            endless: true,
            succeeded: Tally::default(),
            failed: Tally::default(),
            overhead: HashMap::new(),
            ranks: Vec::new(),
            fit: HashSet::new(),
            loaded: (now, now - begin),
            reset: now,
        }
    }

    /// From the text of a file.
    pub fn from_text(text: &str, options: &Options) -> Result<Machine, Error> {
        let begin = Instant::now();
        let format = Format::from_name(&options.load_format).unwrap_or(Format::Rv1);
        let builder = format.read_allowed(text, &options.allowed())?;
        Machine::of(builder, options, begin)
    }

    /// From the R of an instance: the graph in it, or else what its nodes have, or of what hwloc sees in them if `topologies` are
    /// given.
    pub fn from_r(
        mut r: Value,
        topologies: Option<&Topologies>,
        options: &Options,
    ) -> Result<Machine, Error> {
        let begin = Instant::now();
        let mut ranks = Vec::new();
        let builder = match topologies {
            _ if has_graph(&r, options) => {
                let mut scheduling = r["scheduling"].take();
                ranks = renumber(&r, &mut scheduling);
                jgf::read(&scheduling.to_string())?
            }
            Some(topologies) => {
                let execution = rv1::Execution::of(&r)?;
                instance::read(&execution, topologies, &options.allowed())?
            }
            None => rv1::read(&r.to_string())?,
        };
        let mut machine = Machine::of(builder, options, begin)?;
        machine.ranks = ranks;
        if let Some(end) = r["execution"]["expiration"].as_f64() {
            machine.set_expiration(end);
        }
        Ok(machine)
    }

    fn of(builder: Builder, options: &Options, begin: Instant) -> Result<Machine, Error> {
        let context = options.context();
        let graph = builder.finish(&context.subsystem)?.0;
        Ok(Machine::new(Context::new(graph, context)?, options, begin))
    }
}
