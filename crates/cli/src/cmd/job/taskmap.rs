//! `flux job taskmap`: which tasks ran where.

use clap::Args;
use client::Handle;
use formats::{Hostlist, JobId, ResourceSet};

use super::lookup;
use crate::attach;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

#[derive(Args)]
pub(super) struct Taskmap {
    /// Print the tasks on a node
    #[arg(long, value_name = "NODEID")]
    taskids: Option<u32>,
    /// Print the number of tasks on a node
    #[arg(long, value_name = "NODEID")]
    ntasks: Option<u32>,
    /// Print the node a task is on
    #[arg(long, value_name = "TASKID")]
    nodeid: Option<u32>,
    /// Print the host a task is on
    #[arg(long, value_name = "TASKID")]
    hostname: Option<u32>,
    /// Print the map in another form: raw, pmi, hosts or multiline
    #[arg(long, value_name = "FORMAT")]
    to: Option<String>,
    /// A job, or a map
    #[arg(value_name = "JOBID|TASKMAP")]
    source: String,
}

/// The map a job's shell announced.
async fn of_job(handle: &Handle, id: JobId) -> Result<formats::Taskmap, Failure> {
    let mut stream = attach::watch_events(handle, id, "guest.exec.eventlog");
    while let Some(answer) = stream.next().await {
        let answer = match answer {
            Err(e) if e.errno == libc::ENOENT => {
                return Err(Failure::new("Unable to get job taskmap: no such job"));
            }
            answer => answer.context("waiting for shell.start event")?,
        };
        let events = attach::decode_events(&answer)?;
        if let Some(event) = events.iter().find(|e| e.name == "shell.start") {
            attach::cancel_watch(&stream);
            let map = event.get("taskmap").unwrap_or(&serde_json::Value::Null);
            return formats::Taskmap::from_value(map)
                .map_err(|e| Failure::new(format!("task map in shell.start event: {e}")));
        }
    }
    Err(Failure::new("No taskmap found for job"))
}

async fn hosts(handle: &Handle, id: JobId) -> Result<Hostlist, Failure> {
    let text = lookup(handle, id, "R", 0)
        .await
        .context("hosts of the job")?;
    let set: ResourceSet =
        serde_json::from_str(&text).map_err(|e| Failure::new(format!("hosts of the job: {e}")))?;
    Ok(set.nodelist())
}

/// A map as text: RFC 34, or the forms of PMI and of mpirun.
fn parse(text: &str) -> Result<formats::Taskmap, Failure> {
    let json = || {
        let value = serde_json::from_str(text).ok()?;
        formats::Taskmap::from_value(&value).ok()
    };
    let found = json().or_else(|| formats::Taskmap::from_pmi(text).ok());
    match found {
        Some(map) => Ok(map),
        None => formats::Taskmap::from_raw(text)
            .map_err(|e| Failure::new(format!("error decoding taskmap: {e}"))),
    }
}

impl Taskmap {
    pub(super) async fn run(self) -> Outcome {
        let job = match self.source.parse::<JobId>() {
            Ok(id) => Some((Handle::open(None).await?, id)),
            Err(_) => None,
        };
        let map = match &job {
            Some((handle, id)) => of_job(handle, *id).await?,
            None => parse(&self.source)?,
        };
        let on_node = |node: u32| match node < map.nnodes() {
            true => Ok(map.task_ids(node)),
            false => Err(Failure::new(format!("No taskids for node {node}"))),
        };
        let of_task = |task: u32| {
            map.node_of(task)
                .ok_or_else(|| Failure::new(format!("failed to get nodeid for task {task}")))
        };
        let need_job = |what: &str| {
            job.as_ref()
                .ok_or_else(|| Failure::new(format!("taskmap: can't use {what} without a jobid")))
        };
        if let Some(node) = self.taskids {
            outln!("{}", on_node(node)?);
        } else if let Some(node) = self.ntasks {
            outln!("{}", on_node(node)?.len());
        } else if let Some(task) = self.nodeid {
            outln!("{}", of_task(task)?);
        } else if let Some(task) = self.hostname {
            let node = of_task(task)?;
            let (handle, id) = need_job("--hostname")?;
            let host = hosts(handle, *id).await?.nth(node as usize);
            let missing = || Failure::new(format!("failed to get hostname for node {node}"));
            outln!("{}", host.ok_or_else(missing)?);
        } else {
            match self.to.as_deref() {
                None => outln!("{}", map.to_value()),
                Some("raw") => outln!("{}", map.to_raw()),
                Some("pmi") => outln!("{}", map.to_pmi()),
                Some("multiline") => {
                    for task in 0..map.ntasks() {
                        outln!("{task}: {}", of_task(task)?);
                    }
                }
                Some("hosts") => {
                    let (handle, id) = need_job("--to=hosts")?;
                    for (node, host) in hosts(handle, *id).await?.iter().enumerate() {
                        // A job's nodes are counted in u32.
                        outln!("{host}: {}", map.task_ids(node as u32));
                    }
                }
                Some(other) => return Err(Failure::new(format!("invalid value --to={other}"))),
            }
        }
        Ok(0)
    }
}
