//! The barrier of the shells of a job.
//!
//! Shells meet twice: before they start tasks, so that services are there when they are needed,
//! and after, so that the leader can announce that all tasks run. A job of one shell has no
//! barrier.
//!
//! # What job-exec does
//!
//! A shell sends the request `job-exec.shell-barrier {"id":jobid, "rank":broker_rank}` to the
//! nearest job-exec (node `Any`). job-exec keeps the request until every rank of the job's R
//! has sent one and then answers all of them with an empty success; the next requests are the
//! next barrier. When a shell exits while others wait, or has exited before, the waiting ones
//! are answered with EIO: job-exec has then raised the job's exception, so the shell ends
//! without another word. Upstream's shells send the request without matchtag (RPC flag
//! NORESPONSE) and still expect an answer that copies the topic; ours use a matchtag.

use crate::{Fatal, info::JobInfo};
use client::{Handle, Node};
use serde_json::json;
use std::time::Duration;

/// What is said of a job-exec that is not there, has just gone, or does not know the job yet.
const ABSENT: [i32; 3] = [libc::ENOSYS, libc::EHOSTUNREACH, libc::ENOENT];

/// How long, and how often, to look for a job-exec that is being replaced.
const AGAIN: (u32, Duration) = (100, Duration::from_millis(100));

/// Waits for the shells of all nodes.
pub async fn enter(handle: &Handle, info: &JobInfo) -> Result<(), Fatal> {
    if info.size() == 1 {
        return Ok(());
    }
    let request = json!({"id": info.id, "rank": info.here().broker_rank});
    let (mut tries, pause) = AGAIN;
    loop {
        let entered = handle.rpc("job-exec.shell-barrier", Node::Any, &request);
        match entered.await {
            Ok(_) => return Ok(()),
            // The job's exception says why: an empty message keeps the shell silent.
            Err(e) if e.errno == libc::EIO => return Err(Fatal::new("")),
            // Its next life counts anew: all shells come again.
            Err(e) if ABSENT.contains(&e.errno) && tries > 0 => {
                tries -= 1;
                tokio::time::sleep(pause).await;
            }
            Err(e) => return Err(Fatal::new(format!("shell barrier: {e}"))),
        }
    }
}
