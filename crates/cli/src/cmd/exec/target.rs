//! Which brokers a command runs on: ranks of the instance, or the nodes of a job.

use std::collections::BTreeSet;

use client::{Handle, Node};
use formats::{Idset, JobId, JobState};
use serde_json::{Value, json};

use super::Options;
use crate::attach::{cancel_watch, decode_events, watch_events};
use crate::error::{Failure, rpc_text};

fn ids(text: &str) -> Result<Idset, Failure> {
    text.parse()
        .map_err(|_| Failure::new(format!("failed to decode idset '{text}': Invalid argument")))
}

/// Ranks the options name, of an instance of `size`.
pub(super) fn among(
    rank: &str,
    exclude: Option<&str>,
    size: u32,
) -> Result<BTreeSet<u32>, Failure> {
    let all = Idset::from_range(0, size - 1);
    let ranks = match rank {
        "all" => all.clone(),
        text => ids(text)?,
    };
    let unknown = ranks.difference(&all);
    if !unknown.is_empty() {
        let text = format!(
            "one or more --rank values are above {}: {unknown}",
            size - 1
        );
        return Err(Failure::new(text));
    }
    let without = exclude.map(ids).transpose()?.unwrap_or_default();
    let left: BTreeSet<u32> = ranks.difference(&without).iter().collect();
    if left.is_empty() {
        return Err(Failure::new("no ranks are left to run on"));
    }
    Ok(left)
}

/// A running job: the service of its shells, and the ranks they are on.
pub(super) struct Job {
    pub(super) service: String,
    ranks: Idset,
}

impl Job {
    pub(super) async fn find(handle: &Handle, jobid: &str) -> Result<Job, Failure> {
        let id: JobId = jobid
            .parse()
            .map_err(|_| Failure::new(format!("error parsing jobid: \"{jobid}\"")))?;
        let request = json!({ "id": id, "attrs": ["ranks", "state"] });
        let listed = handle.call::<Value>("job-list.list-id", Node::Any, &request);
        let listed = listed.await.map_err(|e| match e.errno {
            libc::ENOENT => Failure::new(format!("job {jobid} not found")),
            _ => Failure::new(format!("job {jobid}: {}", rpc_text(&e))),
        })?;
        if listed["job"]["state"].as_u64() != Some(JobState::Run as u64) {
            return Err(Failure::new(format!(
                "job {jobid} is not currently running"
            )));
        }
        let ranks = ids(listed["job"]["ranks"].as_str().unwrap_or_default())?;
        let mut events = watch_events(handle, id, "guest.exec.eventlog");
        loop {
            let failed = || Failure::new(format!("failed to get shell.init event for {jobid}"));
            let answer = events
                .next()
                .await
                .ok_or_else(failed)?
                .map_err(|_| failed())?;
            for event in decode_events(&answer)? {
                if event.name == "shell.init" {
                    let service = event.get("service").and_then(Value::as_str);
                    let service = format!("{}.rexec", service.ok_or_else(failed)?);
                    cancel_watch(&events);
                    return Ok(Job { service, ranks });
                }
            }
        }
    }

    /// The brokers of the job's nodes that the options name.
    pub(super) fn targets(&self, options: &Options) -> Result<BTreeSet<u32>, Failure> {
        let size = self.ranks.len() as u32;
        let places = among(&options.rank, options.exclude.as_deref(), size)?;
        let broker = |(place, rank)| places.contains(&(place as u32)).then_some(rank);
        Ok(self.ranks.iter().enumerate().filter_map(broker).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let some =
            |rank, exclude| among(rank, exclude, 4).map(|s| s.into_iter().collect::<Vec<_>>());
        assert_eq!(some("all", Some("0")).unwrap(), [1, 2, 3]);
        assert_eq!(some("1-2", None).unwrap(), [1, 2]);
        for (rank, exclude) in [("4", None), ("x", None), ("1", Some("1")), ("1", Some("y"))] {
            assert!(some(rank, exclude).is_err(), "{rank}");
        }
    }
}
