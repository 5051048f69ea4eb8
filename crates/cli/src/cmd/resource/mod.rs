//! `flux resource`: look at an instance's resources, and take nodes out of service.

mod drain;
mod eventlog;
mod list;
mod status;

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use formats::{Idset, ResourceSet};
use serde_json::{Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::input;
use crate::resources::with_properties;

/// Look at resources, and take nodes out of service.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List resources by scheduling state
    List(list::List),
    /// Print counts of resources
    Info(list::Info),
    /// Print resources as R
    #[command(name = "R")]
    R(list::EmitR),
    /// List nodes by administrative state
    Status(status::Status),
    /// Take nodes out of service, or list those that are
    Drain(drain::Drain),
    /// Put nodes back in service
    Undrain(drain::Undrain),
    /// Replace the inventory
    Reload(Reload),
    /// Print the resource eventlog
    Eventlog(eventlog::Eventlog),
    #[command(hide = true)]
    AcquireMute,
}

#[derive(clap::Args)]
struct Reload {
    /// PATH is a directory of hwloc XML files
    #[arg(short, long)]
    xml: bool,
    /// Allow ranks the instance does not have
    #[arg(short, long)]
    force: bool,
    /// R, or a directory of <rank>.xml
    path: std::path::PathBuf,
}

impl Reload {
    async fn run(self, handle: &Handle) -> Outcome {
        let path = std::fs::canonicalize(&self.path).unwrap_or(self.path);
        let request = json!({"path": path, "xml": self.xml, "force": self.force});
        handle
            .rpc("resource.reload", Node::Rank(0), &request)
            .await?;
        Ok(0)
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse_or(2)?;
    block_on(async {
        let handle = async || Handle::open(None).await.map_err(Failure::from);
        match command {
            Command::List(c) => c.run().await,
            Command::Info(c) => c.run().await,
            Command::R(c) => c.run().await,
            Command::Status(c) => c.run().await,
            Command::Drain(c) => c.run().await,
            Command::Undrain(c) => c.run(&handle().await?).await,
            Command::Reload(c) => c.run(&handle().await?).await,
            Command::Eventlog(c) => c.run(&handle().await?).await,
            Command::AcquireMute => {
                let rpc = handle()
                    .await?
                    .rpc("resource.acquire-mute", Node::Rank(0), &json!({}));
                rpc.await?;
                Ok(0)
            }
        }
    })
}

/// The configuration of a queue's resources: its own table, or its parent's (RFC 33).
fn queue_table<'a>(config: &'a Value, name: &str) -> Result<&'a Value, Failure> {
    let queues = &config["queues"];
    let table = queues
        .get(name)
        .ok_or_else(|| Failure::new(format!("--queue: {name}: no such queue")))?;
    match table["parent"].as_str() {
        None => Ok(table),
        Some(parent) => queues.get(parent).ok_or_else(|| {
            Failure::new(format!(
                "--queue: queue '{name}': parent queue '{parent}' is not configured"
            ))
        }),
    }
}

/// The properties a queue's nodes must have.
fn requires(table: &Value) -> Vec<String> {
    let list = table["requires"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The ranks of queues.
pub(crate) fn queue_ranks(
    set: &ResourceSet,
    config: &Value,
    queues: &[String],
) -> Result<Idset, Failure> {
    queues.iter().try_fold(Idset::new(), |ranks, name| {
        let requires = requires(queue_table(config, name)?);
        Ok(ranks.union(&with_properties(set, &requires).ranks()))
    })
}

/// JSON from a file, or standard input.
fn read_json(path: Option<&std::path::Path>) -> Result<Value, Failure> {
    let (name, text) = input::text(path);
    let fault = |e: &dyn std::fmt::Display| Failure::new(format!("{name}: {e}"));
    let text = text.map_err(|e| fault(&e))?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|e| fault(&e))
}

/// The ranks that are up and not drained, excluded or torpid.
pub(crate) async fn available(handle: &Handle) -> Result<Idset, Failure> {
    status::available(handle).await
}
