//! A batch of jobs: its records go into the store in one commit, then the manager is told of them.

use std::time::Duration;

use client::{Handle, Node};
use formats::Urgency;
use formats::eventlog::Event;
use formats::job_schema::JobKey;
use formats::jobid::JobId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wire::{Message, RpcError};

/// Jobs in one commit: bounds the size of a KVS transaction.
pub(super) const MOST: usize = 1000;

/// A job that waits for its batch.
pub(super) struct Accepted {
    pub(super) request: Message,
    pub(super) signed: String,
    /// Without environment.
    pub(super) jobspec: Box<RawValue>,
    pub(super) urgency: Urgency,
    pub(super) flags: i32,
    pub(super) id: JobId,
    pub(super) submit: Event,
}

/// A job as the manager is told of it.
#[derive(Serialize)]
struct Announced {
    id: JobId,
    userid: u32,
    urgency: Urgency,
    flags: i32,
    t_submit: f64,
    jobspec: Box<RawValue>,
}

/// What happened to the jobs of one batch.
pub(super) type Outcome = Vec<(Message, Result<JobId, RpcError>)>;

/// How often, and how long in between, to announce jobs to a manager that is not there.
const AGAIN: (u32, Duration) = (100, Duration::from_millis(100));

/// Store the records of a batch and announce it to the manager.
pub(super) async fn deliver(handle: Handle, batch: Vec<Accepted>) -> Outcome {
    let mut txn = kvs::Txn::new();
    let mut jobs = Vec::with_capacity(batch.len());
    let mut requests = Vec::with_capacity(batch.len());
    for job in batch {
        txn.put_raw(&job.id.key(JobKey::J), job.signed.as_bytes());
        txn.put_raw(&job.id.key(JobKey::Jobspec), job.jobspec.get().as_bytes());
        // Not appended: an earlier life may have stored a job of this id, and have ended before it told anybody.
        txn.put_raw(
            &job.id.key(JobKey::Eventlog),
            job.submit.encode().as_bytes(),
        );
        jobs.push(Announced {
            id: job.id,
            userid: job.request.userid(),
            urgency: job.urgency,
            flags: job.flags,
            t_submit: job.submit.timestamp,
            jobspec: job.jobspec,
        });
        requests.push((job.request, job.id));
    }
    let all_failed = |requests: Vec<(Message, JobId)>, e: RpcError| {
        requests
            .into_iter()
            .map(|(request, _)| (request, Err(e.clone())))
            .collect()
    };
    if let Err(e) = kvs::client::commit(&handle, Some(kvs::PRIMARY), &txn).await {
        return all_failed(requests, e);
    }
    #[derive(Deserialize, Default)]
    struct Answer {
        /// Jobs the manager refuses, with the reason.
        #[serde(default)]
        errors: Vec<(u64, String)>,
    }
    #[derive(Serialize)]
    struct Request {
        jobs: Vec<Announced>,
    }
    let request = Request { jobs };
    let (mut tries, pause) = AGAIN;
    let announced = loop {
        let answer = handle.call::<Answer>("job-manager.submit", Node::Rank(0), &request);
        match answer.await {
            // The manager is being replaced: the jobs are stored, and its next life knows them or is told.
            Err(e) if matches!(e.errno, libc::ENOSYS | libc::EHOSTUNREACH) && tries > 0 => {
                tries -= 1;
                tokio::time::sleep(pause).await;
            }
            answer => break answer,
        }
    };
    let errors = match announced {
        Ok(answer) => answer.errors,
        Err(e) => return all_failed(requests, e),
    };
    let refused = |id: JobId| errors.iter().find(|(bad, _)| *bad == id.0);
    if !errors.is_empty() {
        let mut txn = kvs::Txn::new();
        for (id, _) in &errors {
            txn.unlink(&JobId(*id).kvs_path());
        }
        // A record that stays is refused again when it is met.
        let _ = kvs::client::commit(&handle, Some(kvs::PRIMARY), &txn).await;
    }
    requests
        .into_iter()
        .map(|(request, id)| match refused(id) {
            Some((_, why)) => (request, Err(RpcError::new(libc::EINVAL, why.clone()))),
            None => (request, Ok(id)),
        })
        .collect()
}
