//! URIs of instances, and how users name instances: by job path, process, or URI.
//!
//! URIs of jobs come as remote ones (`ssh://HOST/PATH`) and are turned into local ones on this host.

use client::{Handle, Node};
use formats::job::JobState;
use serde_json::{Value, json};

use crate::attach::{decode_events, watch_events};
use crate::error::{Context, Failure, rpc_text};

/// This host's name.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// `ssh://HOST/PATH` as `local://PATH`.
pub(crate) fn to_local(uri: &str) -> String {
    match uri
        .strip_prefix("ssh://")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((_, path)) => format!("local:///{path}"),
        None => uri.to_owned(),
    }
}

/// `local://PATH` as `ssh://HOST/PATH` with this host's name.
pub(crate) fn to_remote(uri: &str) -> String {
    match uri.strip_prefix("local://") {
        Some(path) => format!("ssh://{}{path}", hostname()),
        None => uri.to_owned(),
    }
}

/// The local form if the instance is on this host.
pub(crate) fn local_or_remote(uri: &str) -> String {
    let host = uri
        .strip_prefix("ssh://")
        .and_then(|rest| rest.split_once('/'));
    let here = hostname();
    match host {
        Some((authority, _)) if authority.rsplit('@').next() == Some(here.as_str()) => {
            to_local(uri)
        }
        _ => uri.to_owned(),
    }
}

/// Split the query words (`?local&wait`) off a target.
fn query(target: &str) -> (&str, Vec<&str>) {
    match target.split_once('?') {
        Some((path, words)) => (path, words.split('&').collect()),
        None => (target, Vec::new()),
    }
}

/// The URI of the instance that `target` names.
pub(crate) async fn resolve(target: &str) -> Result<String, Failure> {
    let (path, words) = query(target);
    let local = words.contains(&"local") || std::env::var_os("FLUX_URI_RESOLVE_LOCAL").is_some();
    let uri = match path.split_once(':') {
        Some(("local" | "ssh", _)) => path.to_owned(),
        Some(("pid", pid)) => of_process(pid)?,
        Some(("jobid", path)) => of_path(path, local, words.contains(&"wait")).await?,
        Some((scheme, _)) => {
            let known = "jobid, pid, local and ssh";
            return Err(Failure::new(format!(
                "unknown URI scheme '{scheme}'; there are {known}"
            )));
        }
        None => of_path(path, local, words.contains(&"wait")).await?,
    };
    Ok(match (local, words.contains(&"remote")) {
        (true, _) => to_local(&uri),
        (_, true) => to_remote(&uri),
        _ => uri,
    })
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

/// FLUX_URI in the environment of a process, or of a broker's child.
fn of_process(pid: &str) -> Result<String, Failure> {
    let pid: u32 = pid
        .parse()
        .map_err(|_| Failure::new(format!("'{pid}' is not a process id")))?;
    let fail = |e: std::io::Error| Failure::new(format!("pid {pid}: {e}"));
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).map_err(fail)?;
    let mut from = vec![pid];
    if comm.trim() == "flux-broker" {
        from = children(pid).map_err(fail)?;
        if from.is_empty() {
            let text = format!("pid {pid} is a flux-broker without a child process");
            return Err(Failure::new(text));
        }
    }
    let read = |pid: u32| -> Option<String> {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = environ
            .split(|b| *b == 0)
            .find_map(|v| v.strip_prefix(b"FLUX_URI="))?;
        String::from_utf8(value.to_vec()).ok()
    };
    from.into_iter()
        .find_map(read)
        .ok_or_else(|| Failure::new(format!("pid {pid} has no FLUX_URI")))
}

/// Children of all threads of a process.
fn children(pid: u32) -> std::io::Result<Vec<u32>> {
    let mut out = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        out.extend(
            text.split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let here = format!("ssh://u@{}/tmp/x", hostname());
        assert_eq!(local_or_remote(&here), "local:///tmp/x");
        assert_eq!(
            local_or_remote("ssh://elsewhere/tmp/x"),
            "ssh://elsewhere/tmp/x"
        );
        assert_eq!(to_local("ssh://h/a/b"), "local:///a/b");
        assert_eq!(to_remote("local:///a"), format!("ssh://{}/a", hostname()));
    }
}
