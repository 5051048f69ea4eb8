//! The barrier of the shells of a job.
//!
//! Shells meet twice: before they start tasks, so that services are there when they are needed,
//! and after, so that the leader can announce that all tasks run. A job of one shell has no
//! barrier.
//!
//! # What job-exec does
//!
//! A shell sends the request `job-exec.shell-barrier {"id":jobid, "rank":broker_rank, "round":n}` to
//! the nearest job-exec (node `Any`), with the number of barriers it has passed. job-exec keeps the
//! request until every rank of the job's R has sent one and then answers all of them with an empty
//! success. When a shell exits while others wait, or has exited before, the waiting ones
//! are answered with EIO: job-exec has then raised the job's exception, so the shell ends
//! without another word. Upstream's shells send the request without matchtag (RPC flag
//! NORESPONSE) and without a round, and still expect an answer that copies the topic; ours use a matchtag.
//!
//! A shell that was without its broker for a while says which barriers it has passed
//! (`"passed":n`): others may not have heard that all had come.

use crate::{Fatal, patience::Patience, startup::Shell};
use client::{Handle, Node};
use serde_json::{Value, json};
use std::time::Duration;

/// What is said of a job-exec that is not there, has just gone, or does not know the job yet.
const ABSENT: [i32; 3] = [libc::ENOSYS, libc::EHOSTUNREACH, libc::ENOENT];

/// How long, and how often, to look for a job-exec that is being replaced.
const AGAIN: (u32, Duration) = (100, Duration::from_millis(100));

/// A shell's place at the barriers.
pub struct Barrier {
    handle: Handle,
    patience: Patience,
    id: u64,
    rank: u32,
    /// There is nobody to wait for.
    alone: bool,
}

impl Barrier {
    pub fn of(shell: &Shell) -> Barrier {
        Barrier {
            handle: shell.handle.clone(),
            patience: shell.patience.clone(),
            id: shell.info.id.0,
            rank: shell.info.here().broker_rank,
            alone: shell.info.size() == 1,
        }
    }

    /// Waits for the shells of all nodes, having passed `round` barriers.
    pub async fn enter(&self, round: u64) -> Result<(), Fatal> {
        if self.alone {
            return Ok(());
        }
        let request = json!({"id": self.id, "rank": self.rank, "round": round});
        match self.ask(&request).await {
            Ok(()) => Ok(()),
            // The job's exception says why: an empty message keeps the shell silent.
            Err(e) if e.errno == libc::EIO => Err(Fatal::new("")),
            Err(e) => Err(Fatal::new(format!("shell barrier: {e}"))),
        }
    }

    /// Tells a new job-exec how far this shell is.
    pub async fn passed(&self, rounds: u64) {
        if !self.alone && rounds > 0 {
            let request = json!({"id": self.id, "rank": self.rank, "passed": rounds});
            // A job-exec that does not answer will not be there for others either.
            let _ = self.ask(&request).await;
        }
    }

    async fn ask(&self, request: &Value) -> Result<(), wire::RpcError> {
        let (mut tries, pause) = AGAIN;
        let mut attempts = self.patience.attempts();
        loop {
            let topic = "job-exec.shell-barrier";
            let Err(e) = self.handle.rpc(topic, Node::Any, request).await else {
                return Ok(());
            };
            if attempts.go_on_after(&e).await {
                continue;
            }
            if !ABSENT.contains(&e.errno) || tries == 0 {
                return Err(e);
            }
            tries -= 1;
            tokio::time::sleep(pause).await;
        }
    }
}
