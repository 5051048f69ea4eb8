//! `flux job hostpids`: where the tasks of a running job are, by host and process id.

use std::time::Duration;

use clap::Args;
use client::{Handle, Node};
use formats::proctable::{self, Process};
use formats::{Event, Idset, JobId, fsd};
use serde_json::{Value, json};

use crate::args::with_line_ends;
use crate::attach;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

#[derive(Args)]
pub(super) struct Hostpids {
    /// What goes between two processes
    #[arg(short, long, value_name = "STRING", default_value = ",")]
    delimiter: String,
    /// Tasks, by their ranks
    #[arg(short, long, value_name = "IDSET", default_value = "all")]
    ranks: String,
    /// Give up after so long
    #[arg(short, long, value_name = "DURATION")]
    timeout: Option<String>,
    /// The job
    jobid: JobId,
}

/// Wait until all tasks run; the name of the shells' service, and where the leader is.
async fn leader(handle: &Handle, id: JobId) -> Result<(String, u32), Failure> {
    let mut stream = attach::watch_events(handle, id, "guest.exec.eventlog");
    let mut leader = None;
    while let Some(answer) = stream.next().await {
        let answer = match answer {
            Err(e) if e.errno == libc::ENOENT => {
                return Err(Failure::new(format!("no such job: {}", id.f58())));
            }
            answer => answer.context("waiting for the job's tasks")?,
        };
        for event in attach::decode_events(&answer)? {
            let text = |event: &Event| Some(event.get("service")?.as_str()?.to_owned());
            let rank = |event: &Event| event.get("leader-rank").and_then(Value::as_u64);
            match event.name.as_str() {
                "shell.init" => leader = text(&event).zip(rank(&event)),
                "shell.start" => {
                    attach::cancel_watch(&stream);
                    let known = leader.map(|(service, rank)| (service, rank as u32));
                    return known.ok_or_else(|| Failure::new("the job has no leader shell"));
                }
                _ => {}
            }
        }
    }
    Err(Failure::new("the job has ended before all its tasks ran"))
}

async fn processes(handle: &Handle, id: JobId) -> Result<Vec<Process>, Failure> {
    let (service, rank) = leader(handle, id).await?;
    let topic = format!("{service}.proctable");
    let answer: Result<Value, _> = handle.call(&topic, Node::Rank(rank), &json!({})).await;
    let table = match answer {
        Err(e) if e.errno == libc::ENOSYS => return Err(Failure::new("the job does not run")),
        answer => answer.context("processes of the job")?,
    };
    proctable::decode(&table).map_err(|e| Failure::new(e.to_string()))
}

impl Hostpids {
    pub(super) async fn run(&self, handle: &Handle) -> Outcome {
        fn wrong(e: impl std::fmt::Display) -> Failure {
            Failure::new(e.to_string())
        }
        let wanted: Option<Idset> = match self.ranks.as_str() {
            "all" => None,
            text => Some(text.parse().map_err(wrong).context("--ranks")?),
        };
        let limit = match &self.timeout {
            None => Duration::MAX,
            Some(text) => {
                let seconds = fsd::parse(text).map_err(wrong).context("--timeout")?;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
        };
        let asked = tokio::time::timeout(limit, processes(handle, self.jobid)).await;
        let mut processes = asked.map_err(|_| Failure::new("timeout"))??;
        processes.retain(|p| wanted.as_ref().is_none_or(|ranks| ranks.contains(p.task)));
        processes.sort_unstable_by_key(|p| p.task);
        let shown = processes.iter().map(|p| format!("{}:{}", p.host, p.pid));
        outln!(
            "{}",
            shown
                .collect::<Vec<_>>()
                .join(&with_line_ends(&self.delimiter))
        );
        Ok(0)
    }
}
