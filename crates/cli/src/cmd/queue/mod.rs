//! `flux queue`: look at queues, enable and disable submission, start and stop scheduling.

mod info;
mod list;

use clap::{Args as ClapArgs, Parser, Subcommand};
use client::{Handle, Node};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::Args;
use crate::environment::{block_on, within};
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

/// Queues.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List queues
    List(list::List),
    /// Say whether queues take jobs and run them
    Status(Target),
    /// Let jobs be submitted
    Enable {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        change: Change,
    },
    /// Refuse new jobs
    Disable {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        reason: Reason,
    },
    /// Schedule jobs
    Start {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        change: Change,
    },
    /// Do not schedule jobs
    Stop {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        reason: Reason,
    },
    /// Wait until no job is left
    Drain {
        /// Give up after this long
        #[arg(short, long, value_name = "DURATION", value_parser = formats::fsd::parse)]
        timeout: Option<f64>,
    },
    /// Wait until no job runs
    Idle {
        /// Give up after this long
        #[arg(short, long, value_name = "DURATION", value_parser = formats::fsd::parse)]
        timeout: Option<f64>,
        /// Print the number of pending jobs only if there are any
        #[arg(long)]
        quiet: bool,
    },
}

#[derive(ClapArgs)]
struct Target {
    #[arg(short = 'q', long = "queue", value_name = "NAME", hide = true)]
    old: Option<String>,
    /// Also print counts of what is waiting
    #[arg(short, long)]
    verbose: bool,
    /// Queue
    #[arg(value_name = "QUEUE")]
    queue: Option<String>,
}

impl Target {
    fn name(&self) -> Result<Option<&str>, Failure> {
        match (&self.old, &self.queue) {
            (Some(old), Some(queue)) => Err(Failure::new(format!(
                "Conflicting queues specified as --queue={old} and {queue}"
            ))),
            (old, queue) => Ok(queue.as_deref().or(old.as_deref())),
        }
    }
}

#[derive(ClapArgs)]
struct Change {
    /// All queues, if none is named
    #[arg(short, long)]
    all: bool,
    /// Print errors only
    #[arg(long)]
    quiet: bool,
}

#[derive(ClapArgs)]
struct Reason {
    /// Do not keep this state over a restart
    #[arg(long)]
    nocheckpoint: bool,
    /// Why
    #[arg(short, long, value_name = "REASON")]
    message: Option<String>,
}

/// `job-manager.queue-status`.
#[derive(Debug, Clone, Deserialize)]
struct Status {
    enable: bool,
    start: bool,
    disable_reason: Option<String>,
    stop_reason: Option<String>,
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    blocked: Option<String>,
}

async fn status_of(handle: &Handle, name: Option<&str>) -> Result<Status, Failure> {
    let request = name.map_or(json!({}), |name| json!({ "name": name }));
    handle
        .call("job-manager.queue-status", Node::Rank(0), &request)
        .await
        .context("status")
}

async fn names(handle: &Handle) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        queues: Vec<String>,
    }
    let rpc = handle.rpc_raw("job-manager.queue-list", Node::Any, None);
    let answer: Answer = rpc.await.context("list")?.json()?;
    Ok(answer.queues)
}

fn enabled(status: &Status) -> String {
    match (status.enable, &status.disable_reason) {
        (true, _) => "Job submission is enabled".to_owned(),
        (false, reason) => {
            let reason = reason.as_deref().unwrap_or("");
            format!("Job submission is disabled: {reason}")
        }
    }
}

fn started(status: &Status) -> String {
    match (status.start, &status.stop_reason) {
        (true, _) => "Scheduling is started".to_owned(),
        (false, Some(reason)) => format!("Scheduling is stopped: {reason}"),
        (false, None) => "Scheduling is stopped".to_owned(),
    }
}

/// Print lines about one queue, or all.
async fn print(
    handle: &Handle,
    target: &Target,
    lines: &[fn(&Status) -> String],
) -> Result<(), Failure> {
    let name = target.name()?;
    let all = names(handle).await?;
    let shown: Vec<Option<String>> = match name {
        Some(name) if !target.verbose => vec![Some(name.to_owned())],
        name if all.is_empty() => vec![name.map(str::to_owned)],
        _ => all.into_iter().map(Some).collect(),
    };
    for name in shown {
        let status = status_of(handle, name.as_deref()).await?;
        let label = name.map_or_else(String::new, |name| format!("{name}: "));
        for line in lines {
            outln!("{label}{}", line(&status));
        }
    }
    Ok(())
}

async fn print_counts(handle: &Handle) -> Result<(), Failure> {
    let rpc = handle.rpc_raw("job-manager.alloc-query", Node::Any, None);
    let counts: Value = rpc.await.context("alloc-query")?.json()?;
    outln!("{} alloc requests queued", counts["queue_length"]);
    outln!(
        "{} alloc requests pending to scheduler",
        counts["alloc_pending"]
    );
    outln!("{} running jobs", counts["running"]);
    Ok(())
}

async fn enable(
    handle: &Handle,
    target: &Target,
    change: &Change,
    on: bool,
    reason: Option<&str>,
) -> Outcome {
    let mut request = json!({"enable": on, "all": change.all});
    if let Some(name) = target.name()? {
        request["name"] = json!(name);
    }
    if let Some(reason) = reason {
        request["reason"] = json!(reason);
    }
    let rpc = handle.rpc("job-manager.queue-enable", Node::Rank(0), &request);
    rpc.await.context("enable")?;
    if !change.quiet {
        print(handle, target, &[enabled]).await?;
    }
    Ok(0)
}

async fn start(
    handle: &Handle,
    target: &Target,
    change: &Change,
    on: bool,
    reason: Option<&Reason>,
) -> Outcome {
    let name = target.name()?;
    if name.is_none() && !change.all && !names(handle).await?.is_empty() {
        return Err(Failure::new(
            "Named queues are defined. Specify queues or use --all.",
        ));
    }
    let nocheckpoint = reason.is_some_and(|r| r.nocheckpoint);
    let mut request = json!({"start": on, "all": change.all, "nocheckpoint": nocheckpoint});
    if let Some(name) = name {
        request["name"] = json!(name);
    }
    if let Some(reason) = reason.and_then(|r| r.message.as_ref()) {
        request["reason"] = json!(reason);
    }
    let rpc = handle.rpc("job-manager.queue-start", Node::Rank(0), &request);
    rpc.await.context("start")?;
    if !change.quiet {
        print(handle, target, &[started]).await?;
        if target.verbose {
            print_counts(handle).await?;
        }
    }
    Ok(0)
}

/// A request that is answered when the queue is in a state.
async fn settle(
    handle: &Handle,
    what: &str,
    timeout: Option<f64>,
) -> Result<wire::Message, Failure> {
    let rpc = handle.rpc_raw(&format!("job-manager.{what}"), Node::Any, None);
    match within(timeout, rpc).await {
        Some(answer) => answer.context(what),
        None => Err(Failure::new(format!("{what}: timeout"))),
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse_or(2)?;
    if let Command::List(list) = command {
        return list.run();
    }
    block_on(async {
        let handle = &Handle::open(None).await?;
        match command {
            Command::List(_) => Ok(0),
            Command::Status(target) => {
                print(handle, &target, &[enabled, started]).await?;
                if target.verbose {
                    print_counts(handle).await?;
                }
                Ok(0)
            }
            Command::Enable { target, change } => {
                enable(handle, &target, &change, true, None).await
            }
            Command::Disable {
                target,
                change,
                reason,
            } => {
                let why = reason
                    .message
                    .as_deref()
                    .unwrap_or("disabled by administrator");
                enable(handle, &target, &change, false, Some(why)).await
            }
            Command::Start { target, change } => start(handle, &target, &change, true, None).await,
            Command::Stop {
                target,
                change,
                reason,
            } => start(handle, &target, &change, false, Some(&reason)).await,
            Command::Drain { timeout } => {
                settle(handle, "drain", timeout).await?;
                Ok(0)
            }
            Command::Idle { timeout, quiet } => {
                let answer: Value = settle(handle, "idle", timeout).await?.json()?;
                let pending = answer["pending"].as_i64().unwrap_or(0);
                if !quiet || pending > 0 {
                    outln!("{pending} jobs");
                }
                Ok(0)
            }
        }
    })
}
