//! URIs of instances, and how users name instances: by job path, process, job of another resource manager, or URI.
//!
//! What names an instance is `SCHEME:WHAT[?WORD&WORD…]`, without a scheme a path of job ids. Each scheme has a file
//! here and a line in [`SCHEMES`]. URIs of jobs come as remote ones (`ssh://HOST/PATH`) and are turned into local ones
//! on their host.

mod jobid;
mod lsf;
mod pid;
mod slurm;

use std::process::{Output, Stdio};

use crate::error::Failure;

/// The schemes that are resolved, and what they are for.
pub(crate) const SCHEMES: &[(&str, &str)] = &[
    ("jobid", "a job, by a path of job ids"),
    ("lsf", "the Flux instance of an LSF job"),
    ("pid", "the instance of a process on this host"),
    ("slurm", "the Flux instance of a Slurm job"),
];

/// This host's name.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// A path without query and doubled slashes.
fn clean(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<_> = path.split('/').filter(|p| !p.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

/// `ssh://HOST/PATH` as `local://PATH`.
pub(crate) fn to_local(uri: &str) -> String {
    match uri
        .strip_prefix("ssh://")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((_, path)) => format!("local://{}", clean(path)),
        None => uri.to_owned(),
    }
}

/// `local://PATH` as `ssh://HOST/PATH` with this host's name.
pub(crate) fn to_remote(uri: &str) -> String {
    match uri.strip_prefix("local://") {
        Some(path) => format!("ssh://{}{}", hostname(), clean(path)),
        None => uri.to_owned(),
    }
}

/// An instance's own URI as it is reached from behind `flux proxy` to another host.
pub(crate) fn behind_proxy(uri: String) -> String {
    let host = std::env::var("FLUX_PROXY_REMOTE");
    on_host(uri, host.ok().as_deref())
}

fn on_host(uri: String, host: Option<&str>) -> String {
    match (uri.strip_prefix("local://"), host) {
        (Some(path), Some(host)) => format!("ssh://{host}{path}"),
        _ => uri,
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

/// The words after the question mark of a target.
struct Query<'a> {
    words: Vec<&'a str>,
    /// Give the local form, also of what is asked on the way.
    local: bool,
}

impl Query<'_> {
    fn has(&self, word: &str) -> bool {
        // A word may have a value, as in `local=1`.
        self.words.iter().any(|w| w.split('=').next() == Some(word))
    }
}

/// Split a target into scheme, what it names, and query.
fn parse(target: &str) -> Result<(&str, &str, Query<'_>), Failure> {
    let (rest, words) = match target.split_once('?') {
        Some((rest, words)) => (rest, words.split('&').collect()),
        None => (target, Vec::new()),
    };
    let mut query = Query {
        words,
        local: std::env::var_os("FLUX_URI_RESOLVE_LOCAL").is_some(),
    };
    if query.has("local") && query.has("remote") {
        return Err(Failure::new(
            "only one of 'local' and 'remote' can be asked for",
        ));
    }
    query.local |= query.has("local");
    let (scheme, what) = rest.split_once(':').unwrap_or(("jobid", rest));
    Ok((scheme, what, query))
}

/// The URI of the instance that `target` names.
pub(crate) async fn resolve(target: &str) -> Result<String, Failure> {
    let (scheme, what, query) = parse(target)?;
    let uri = match scheme {
        // Not for us to change, but for what the environment says.
        "local" | "ssh" => match std::env::var_os("FLUX_URI_RESOLVE_LOCAL") {
            Some(_) => return Ok(to_local(target)),
            None => return Ok(target.to_owned()),
        },
        "jobid" => jobid::resolve(what, &query).await?,
        "lsf" => lsf::resolve(first_part(what)?, query.has("is_compute")).await?,
        "pid" => pid::of_process(first_part(what)?)?,
        "slurm" => slurm::resolve(first_part(what)?).await?,
        other => {
            let known: Vec<_> = SCHEMES.iter().map(|s| s.0).collect();
            return Err(Failure::new(format!(
                "unknown URI scheme '{other}'; there are {}, local and ssh",
                known.join(", ")
            )));
        }
    };
    Ok(match (query.local, query.has("remote")) {
        (_, true) => to_remote(&uri),
        (true, _) => to_local(&uri),
        _ => uri,
    })
}

fn first_part(what: &str) -> Result<&str, Failure> {
    what.split('/')
        .find(|p| !p.is_empty())
        .ok_or_else(|| Failure::new("nothing follows the URI scheme"))
}

/// Run a command of another resource manager and take its output. `FLUX_URI` is not passed on: it would name the
/// instance of the caller.
async fn output(argv: &[&str]) -> Result<Output, Failure> {
    tokio::process::Command::new(argv[0])
        .args(&argv[1..])
        .env_remove("FLUX_URI")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| Failure::new(format!("{}: {e}", argv[0])))
}

/// The output of a command that succeeded.
async fn text(argv: &[&str], failure: impl Fn() -> Failure) -> Result<String, Failure> {
    let output = output(argv).await?;
    if !output.status.success() {
        return Err(failure());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
        let behind = |uri: &str, host| on_host(uri.to_owned(), host);
        assert_eq!(behind("local:///a", Some("u@h")), "ssh://u@h/a");
        assert_eq!(behind("local:///a", None), "local:///a");
        assert_eq!(behind("ssh://x/a", Some("h")), "ssh://x/a");
        assert_eq!(to_local("ssh://h//a//b?x"), "local:///a/b");
        assert_eq!(to_remote("local:///a"), format!("ssh://{}/a", hostname()));
    }

    #[test]
    fn targets() {
        for (target, want) in [
            ("f123", "jobid f123 []"),
            ("/?local", "jobid / [\"local\"]"),
            ("pid:12?remote&x=1", "pid 12 [\"remote\", \"x=1\"]"),
            ("jobid:f1/f2", "jobid f1/f2 []"),
        ] {
            let (scheme, what, query) = parse(target).ok().unwrap();
            assert_eq!(format!("{scheme} {what} {:?}", query.words), want);
        }
        assert!(parse("x?local&remote").is_err());
    }
}
