//! `flux submit`: submit a job, or copies of it, and perhaps wait for them.

use clap::Parser;

use crate::args::Args;
use crate::bulk::{self, Bulk, Job};
use crate::error::Outcome;
use crate::submit::{Common, Tasks};

/// Submit a job.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    tasks: Tasks,
    #[command(flatten)]
    bulk: Bulk,
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options {
        common,
        tasks,
        bulk,
        command,
    } = args.parse_or(2)?;
    let job = Job {
        common,
        tasks,
        bulk,
        command,
    };
    let copies = job.copies()?;
    if let Some(first) = copies.first().filter(|c| c.job.common.dry_run) {
        crate::output::outln!("{}", first.request()?.text());
        return Ok(0);
    }
    bulk::submit(&copies)
}
