//! `flux job`: look at, wait for and act on jobs by id.

mod attach;
mod convert;
mod eventlog;
mod hostpids;
mod info;
mod kill;
mod list;
mod manage;
mod submit;
mod taskmap;
mod wait;

pub(crate) use kill::signal;
pub(crate) use wait::ended;

use clap::{Parser, Subcommand};
use client::Handle;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};

/// Look at, wait for and act on jobs.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Follow a job's output, give it input, and exit as it does
    Attach(attach::Attach),
    /// Print a job's eventlog
    Eventlog(eventlog::Eventlog),
    /// Wait for an event of a job
    WaitEvent(eventlog::WaitEvent),
    /// Wait for jobs and exit with their largest exit code
    Status(wait::Status),
    /// Wait for waitable jobs
    Wait(wait::Wait),
    /// Print something stored of a job
    Info(info::Info),
    /// Send a signal to jobs
    Kill(kill::Kill),
    /// Send a signal to many jobs
    Killall(kill::Killall),
    /// Raise an exception on jobs
    Raise(kill::Raise),
    /// Raise an exception on many jobs
    Raiseall(kill::Raiseall),
    /// Print job ids in another form
    Id(convert::Id),
    /// Print the KVS namespaces of jobs
    Namespace(convert::Namespace),
    #[command(hide = true)]
    List(list::List),
    #[command(hide = true)]
    ListInactive(list::ListInactive),
    #[command(hide = true)]
    ListIds(list::ListIds),
    /// Print the ids of jobs submitted last
    Last(list::Last),
    /// Print counts of jobs
    Stats,
    /// Set a job's urgency
    Urgency(manage::Urgency),
    /// Submit a jobspec
    Submit(submit::Submit),
    /// Attach data to a job
    Memo(manage::Memo),
    /// Remove inactive jobs for good
    Purge(manage::Purge),
    /// Print the hosts and process ids of a running job's tasks
    Hostpids(hostpids::Hostpids),
    /// Print where a job's tasks ran
    Taskmap(taskmap::Taskmap),
    /// Print how long a job may still run
    Timeleft(manage::Timeleft),
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse()?;
    match command {
        Command::Id(c) => return c.run(),
        Command::Namespace(c) => return c.run(),
        _ => {}
    }
    block_on(async {
        let handle = async || Handle::open(None).await.map_err(Failure::from);
        match command {
            Command::Attach(c) => c.run(&handle().await?).await,
            Command::Eventlog(c) => c.run(&handle().await?).await,
            Command::WaitEvent(c) => c.run(&handle().await?).await,
            Command::Status(c) => c.run(&handle().await?).await,
            Command::Wait(c) => c.run(&handle().await?).await,
            Command::Info(c) => c.run(&handle().await?).await,
            Command::Kill(c) => c.run(&handle().await?).await,
            Command::Killall(c) => c.run(&handle().await?).await,
            Command::Raise(c) => c.run(&handle().await?).await,
            Command::Raiseall(c) => c.run(&handle().await?).await,
            Command::List(c) => c.run(&handle().await?).await,
            Command::ListInactive(c) => c.run(&handle().await?).await,
            Command::ListIds(c) => c.run(&handle().await?).await,
            Command::Last(c) => c.run(&handle().await?).await,
            Command::Stats => info::stats(&handle().await?).await,
            Command::Urgency(c) => c.run(&handle().await?).await,
            Command::Submit(c) => c.run(&handle().await?).await,
            Command::Memo(c) => c.run(&handle().await?).await,
            Command::Purge(c) => c.run(&handle().await?).await,
            Command::Hostpids(c) => c.run(&handle().await?).await,
            // A task map given as text needs no instance.
            Command::Taskmap(c) => c.run().await,
            Command::Timeleft(c) => c.run(&handle().await?).await,
            Command::Id(_) | Command::Namespace(_) => Ok(0),
        }
    })
}

/// `job-info.lookup` of one key.
async fn lookup(
    handle: &Handle,
    id: formats::JobId,
    key: &str,
    flags: u32,
) -> Result<String, wire::RpcError> {
    let request = serde_json::json!({"id": id, "keys": [key], "flags": flags});
    let answer: serde_json::Value = handle
        .call("job-info.lookup", client::Node::Any, &request)
        .await?;
    match answer.get(key).and_then(serde_json::Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => Err(wire::RpcError::new(
            libc::EPROTO,
            format!("job-info.lookup: no {key}"),
        )),
    }
}

/// [`lookup`] with updates applied.
const CURRENT: u32 = 2;

/// A job's jobspec, with updates applied.
pub(crate) async fn jobspec(handle: &Handle, id: formats::JobId) -> Result<String, wire::RpcError> {
    lookup(handle, id, "jobspec", CURRENT).await
}
