//! `flux post-job-event`: add an event of one's own to the eventlog of an active job.

use clap::Parser;
use client::{Handle, Node};
use serde_json::json;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::jobid::JobIdArg;
use crate::pairs::tree;

/// Add an event to the eventlog of an active job.
#[derive(Parser)]
struct Options {
    /// The job
    id: JobIdArg,
    /// The name of the event
    name: String,
    /// The event's context; dots in keys nest, values may be JSON
    #[arg(
        value_name = "KEY=VALUE",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    context: Vec<String>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { id, name, context } = args.parse()?;
    let mut request = json!({ "id": id.id, "name": name });
    if !context.is_empty() {
        request["context"] = tree("post-job-event", &context)?.into();
    }
    block_on(async {
        let handle = Handle::open(None).await?;
        let topic = "job-manager.post-event.post";
        match handle.rpc(topic, Node::Any, &request).await {
            Ok(_) => Ok(0),
            Err(e) if e.errno == libc::ENOENT => Err(Failure::new(format!("No such job {}", id))),
            Err(e) => Err(e.into()),
        }
    })
}
