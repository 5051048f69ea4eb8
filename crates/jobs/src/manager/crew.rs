//! A command that the manager runs on nodes of a job through rexec (RFC 42): prolog, epilog, housekeeping.
//!
//! Each rank is a future of its own, which logs what the command writes and ends with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use client::{Handle, Node};
use formats::Hostlist;
use formats::idset::Idset;
use formats::job::WaitStatus;
use formats::jobid::JobId;
use formats::subprocess::{ExecRequest, ExecResponse, KillRequest, Target};
use serde_json::{Map, Value};
use wire::RpcError;

use super::hush::Hush;
use super::{LOG_ERR, LOG_INFO, log};
use crate::rexec;
use crate::shown;

/// Wait before a command is tried again whose label is still in use.
const AGAIN: Duration = Duration::from_millis(100);

/// What a command is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Duty {
    Prolog,
    Epilog,
    Housekeeping,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Duty::Prolog => "prolog",
            Duty::Epilog => "epilog",
            Duty::Housekeeping => "housekeeping",
        })
    }
}

/// How it ended on one rank.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// With this wait status.
    Exited(i32),
    /// It could not be run, or its node is out of reach.
    Lost(RpcError),
}

/// A command for a job.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) duty: Duty,
    pub(super) id: JobId,
    request: Arc<ExecRequest>,
    hush: Hush,
}

/// The words of a `command` of the configuration.
pub(super) fn words(command: &Value, duty: Duty) -> Result<Vec<String>, String> {
    let list = command.as_array().ok_or("command must be an array")?;
    let words = list.iter().map(|word| word.as_str().map(str::to_owned));
    let words = words.collect::<Option<Vec<String>>>();
    words
        .filter(|words| !words.is_empty())
        .ok_or_else(|| format!("malformed {duty} command: it must be a list of words"))
}

/// The name under which rexec knows the command of a job.
fn label(duty: Duty, id: JobId) -> String {
    format!("{duty}-{}", id.dec())
}

/// The environment of a command: that of the instance, and what it is run for.
fn environment(duty: Duty, id: JobId, userid: u32, ranks: &Idset) -> HashMap<String, String> {
    let mut env = rexec::environment();
    let shown = match duty {
        Duty::Housekeeping => id.dec(),
        Duty::Prolog | Duty::Epilog => shown(id),
    };
    env.insert("FLUX_JOB_ID".to_owned(), shown);
    env.insert("FLUX_JOB_USERID".to_owned(), userid.to_string());
    env.insert("FLUX_JOB_RANKS".to_owned(), ranks.to_string());
    env
}

impl Order {
    pub(super) fn new(
        duty: Duty,
        command: &[String],
        id: JobId,
        userid: u32,
        ranks: &Idset,
    ) -> Self {
        let env = environment(duty, id, userid, ranks);
        let request = rexec::request(command.to_vec(), env, label(duty, id), Map::new());
        let request = Arc::new(request);
        Self {
            duty,
            id,
            request,
            hush: Hush::default(),
        }
    }

    /// With lines that are not logged.
    pub(super) fn hushed(self, hush: Hush) -> Self {
        Self { hush, ..self }
    }

    /// Run the command on a rank to its end. One that an earlier life of this module has started there ends first.
    pub(super) async fn run(self, handle: Handle, rank: u32) -> End {
        let host = host(&handle, rank).await;
        let name = format!("{}: {}: {host} (rank {rank})", shown(self.id), self.duty);
        loop {
            let end = self.attempt(&handle, rank, &name).await;
            if matches!(&end, End::Lost(e) if e.errno == libc::EEXIST) {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            if let Some(why) = complaint(&end) {
                log(&handle, LOG_ERR, &format!("{name}: {why}"));
            }
            return end;
        }
    }

    async fn attempt(&self, handle: &Handle, rank: u32, name: &str) -> End {
        let mut stream = handle.stream("rexec.exec", Node::Rank(rank), &*self.request);
        let mut end = End::Lost(RpcError::errno(libc::ECONNRESET));
        while let Some(answer) = stream.next().await {
            match answer.and_then(|msg| msg.json()) {
                Ok(ExecResponse::Output { io, .. }) => {
                    let stream = &io.stream;
                    let severity = match stream.as_str() {
                        "stderr" => LOG_ERR,
                        _ => LOG_INFO,
                    };
                    let text = String::from_utf8_lossy(&io.data);
                    for line in text.lines().filter(|line| !self.hush.is_for(line)) {
                        log(handle, severity, &format!("{name}: {stream}: {line}"));
                    }
                }
                Ok(ExecResponse::Finished { status }) => end = End::Exited(status),
                Ok(_) => {}
                Err(e) => return End::Lost(e),
            }
        }
        end
    }

    /// Send a signal to the command where it runs.
    pub(super) fn kill(&self, handle: &Handle, ranks: &Idset, signum: i32) {
        let target = Target::label(label(self.duty, self.id));
        let request = KillRequest { target, signum };
        for rank in ranks.iter() {
            handle.notify("rexec.kill", Node::Rank(rank), &request);
        }
    }
}

/// What went wrong, if anything did.
fn complaint(end: &End) -> Option<String> {
    match end {
        End::Exited(0) => None,
        End::Exited(status) => match WaitStatus(*status).signal() {
            Some(signal) => Some(format!("killed by signal {signal}")),
            None => Some("nonzero exit code".to_owned()),
        },
        End::Lost(e) => Some(format!("error launching process: {e}")),
    }
}

/// The host name of a rank.
async fn host(handle: &Handle, rank: u32) -> String {
    hosts(handle, &Idset::from_range(rank, rank)).await
}

/// The host names of ranks, as a host list.
pub(super) async fn hosts(handle: &Handle, ranks: &Idset) -> String {
    let all = handle.getattr("hostlist").await.unwrap_or_default();
    let all: Hostlist = all.parse().unwrap_or_default();
    let names = ranks.iter().filter_map(|rank| all.nth(rank as usize));
    let list: Hostlist = names.collect();
    match list.is_empty() {
        true => "unknown".to_owned(),
        false => list.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_are_lists_of_words() {
        let of = |command| words(&command, Duty::Prolog);
        assert_eq!(of(json!(["a", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(of(json!("a")).unwrap_err(), "command must be an array");
        for bad in [json!([]), json!(["a", 1])] {
            let why = of(bad).unwrap_err();
            assert!(why.starts_with("malformed prolog command"), "{why}");
        }
    }

    #[test]
    fn complaints() {
        assert_eq!(complaint(&End::Exited(0)), None);
        assert_eq!(complaint(&End::Exited(256)).unwrap(), "nonzero exit code");
        assert_eq!(complaint(&End::Exited(15)).unwrap(), "killed by signal 15");
        let lost = complaint(&End::Lost(RpcError::errno(libc::ENOENT))).unwrap();
        assert!(lost.starts_with("error launching process"), "{lost}");
    }
}
