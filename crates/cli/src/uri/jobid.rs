//! `jobid:PATH`: the instance that is a job, or an ancestor; PATH is made of job ids, `..`, `.` and a leading `/`.

use client::{Handle, Node};
use formats::job::JobState;
use serde_json::{Value, json};

use super::{Query, local_or_remote, to_local};
use crate::attach::{decode_events, watch_events};
use crate::error::{Context, Failure, rpc_text};

/// The URI of the instance at `path`.
pub(super) async fn resolve(path: &str, query: &Query<'_>) -> Result<String, Failure> {
    of_path(path, query.local, query.has("wait")).await
}

/// A path of job ids from this instance, or with a leading slash from the root.
async fn of_path(path: &str, local: bool, wait: bool) -> Result<String, Failure> {
    let mut handle = Handle::open(None).await?;
    let mut uri = handle.getattr("local-uri").await?;
    let mut host: Option<String> = None;
    let root = path.starts_with('/').then_some("/");
    let parts = path.split('/').filter(|p| !p.is_empty() && *p != ".");
    let mut parts = root.into_iter().chain(parts).peekable();
    while let Some(part) = parts.next() {
        uri = match part {
            "/" => loop {
                let (here, up) = parent(&handle).await?;
                match up {
                    Some(up) => handle = Handle::open(Some(&local_or_remote(&up))).await?,
                    None => break here,
                }
            },
            ".." => {
                let (here, up) = parent(&handle).await?;
                let up = up.unwrap_or(here);
                match &host {
                    // The parent's local URI means something on that job's host only.
                    Some(host) => up.replacen("local://", &format!("ssh://{host}"), 1),
                    None => up,
                }
            }
            id => {
                let uri = of_job(&handle, id, wait).await?;
                let authority = uri.strip_prefix("ssh://").and_then(|r| r.split_once('/'));
                host = authority.map(|(host, _)| host.to_owned());
                uri
            }
        };
        if parts.peek().is_some() {
            let open = if local {
                to_local(&uri)
            } else {
                local_or_remote(&uri)
            };
            handle = Handle::open(Some(&open)).await.context(part)?;
        }
    }
    Ok(uri)
}

/// The URI of an instance and of its parent, if it has one.
async fn parent(handle: &Handle) -> Result<(String, Option<String>), Failure> {
    let uri = handle.getattr("local-uri").await?;
    let level = handle.getattr("instance-level").await?;
    match level.as_str() {
        "0" => Ok((uri, None)),
        _ => Ok((
            uri,
            Some(handle.getattr("parent-uri").await.context("parent-uri")?),
        )),
    }
}

/// The URI a job has announced.
async fn of_job(handle: &Handle, text: &str, wait: bool) -> Result<String, Failure> {
    let id = crate::jobid::parse(text)
        .map_err(|_| Failure::new(format!("{text} is not a valid jobid")))?;
    let none = || Failure::new(format!("URI not found for job {text}"));
    let fail = |e: wire::RpcError| match e.errno {
        libc::ENOENT => Failure::new(format!("jobid {text} not found")),
        _ => Failure::new(format!("{text}: {}", rpc_text(&e))),
    };
    if wait {
        let mut events = watch_events(handle, id, "eventlog");
        while let Some(answer) = events.next().await {
            for event in decode_events(&answer.map_err(fail)?)? {
                match (
                    event.name.as_str(),
                    event.get("uri").and_then(Value::as_str),
                ) {
                    ("memo", Some(uri)) => return Ok(uri.to_owned()),
                    ("finish", _) => return Err(none()),
                    _ => {}
                }
            }
        }
        return Err(none());
    }
    let request = json!({ "id": id, "attrs": ["state", "annotations"] });
    let answer: Value = handle
        .call("job-list.list-id", Node::Any, &request)
        .await
        .map_err(fail)?;
    let job = &answer["job"];
    if job["state"].as_u64() != Some(u64::from(JobState::Run.bit())) {
        return Err(Failure::new(format!("jobid {text} is not running")));
    }
    let uri = job["annotations"]["user"]["uri"].as_str();
    Ok(uri.ok_or_else(none)?.to_owned())
}
