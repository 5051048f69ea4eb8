//! `flux job-exec-override`: begin and end jobs that only pretend to run (`exec.test.override` in their jobspec).

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use formats::jobid::JobId;
use serde_json::json;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::Outcome;

/// Begin and end jobs that only pretend to run.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    event: Event,
}

#[derive(Subcommand)]
enum Event {
    /// Let a job begin
    Start {
        /// The job
        jobid: JobId,
    },
    /// Let a job end
    Finish {
        /// The job
        jobid: JobId,
        /// Its wait status
        #[arg(default_value_t = 0)]
        status: i32,
    },
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { event } = args.parse()?;
    let request = match event {
        Event::Start { jobid } => json!({ "event": "start", "jobid": jobid }),
        Event::Finish { jobid, status } => {
            json!({ "event": "finish", "jobid": jobid, "status": status })
        }
    };
    block_on(async {
        let handle = Handle::open(None).await?;
        handle.rpc("job-exec.override", Node::Any, &request).await?;
        Ok(0)
    })
}
