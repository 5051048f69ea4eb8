//! Module `job-ingest`: takes submissions on every rank (RFC 14, 16, 19, 25).
//!
//! A request is decoded and validated once. Valid jobs get their id here; all that have arrived
//! while an earlier batch was on its way form the next batch: one KVS commit with their records,
//! then one announcement to the manager. A submitter is answered after both, so what is
//! acknowledged is stored. Jobs that the manager refuses leave no record.

mod policy;
mod sign;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::module::{Context, ModuleError, ModuleResult};
use client::{Handle, Inbox, Node};
use formats::Urgency;
use formats::eventlog::{self, Event};
use formats::job_schema::JobKey;
use formats::jobid::{Fluid, JobId};
use formats::jobspec::Jobspec;
use formats::queues::Queues;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

/// Submit flags (upstream's `enum job_submit_flags`).
pub const FLAG_DEBUG: i32 = 2;
/// The submitter will ask for the result with `job-manager.wait`.
pub const FLAG_WAITABLE: i32 = 4;
/// Skip validation (owner only).
pub const FLAG_NOVALIDATE: i32 = 8;

/// Jobs in one commit: bounds the size of a KVS transaction.
const BATCH: usize = 1000;

/// A job that waits for its batch.
struct Accepted {
    request: Message,
    signed: String,
    /// Without environment.
    jobspec: Value,
    urgency: Urgency,
    flags: i32,
    id: JobId,
    submit: Event,
}

/// What happened to the jobs of one batch.
type Outcome = Vec<(Message, Result<JobId, RpcError>)>;

struct Ingest {
    handle: Handle,
    /// Milliseconds since 1970 that job ids count from.
    epoch: u64,
    ids: Fluid,
    queues: Queues,
    waiting: Vec<Accepted>,
    in_flight: Option<BoxFuture<'static, Outcome>>,
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle, mut inbox, ..
    } = ctx;
    let mut early = Vec::new();
    let epoch = tokio::select! {
        epoch = epoch(&handle) => epoch?,
        // An instance may end before rank 0 has answered.
        () = collect(&mut inbox, &mut early) => return Ok(()),
    };
    let ids =
        Fluid::new(handle.rank(), 0).map_err(|e| ModuleError::new("cannot make job ids", e))?;
    let config: Value = handle
        .call("config.get", Node::Any, &json!({}))
        .await
        .unwrap_or_default();
    let queues = Queues::from_config(&config).map_err(|e| ModuleError::invalid(e.to_string()))?;
    let mut ingest = Ingest {
        handle,
        epoch,
        ids,
        queues,
        waiting: Vec::new(),
        in_flight: None,
    };
    early.into_iter().for_each(|msg| ingest.message(msg));
    ingest.launch();
    loop {
        let flight = async {
            match &mut ingest.in_flight {
                Some(flight) => flight.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            outcome = flight => {
                ingest.in_flight = None;
                ingest.answer(outcome);
            }
            msg = inbox.recv() => match msg {
                Some(msg) => {
                    ingest.message(msg);
                    while let Some(msg) = inbox.try_recv() {
                        ingest.message(msg);
                    }
                }
                None => break,
            },
        }
        ingest.launch();
    }
    while let Some(flight) = ingest.in_flight.take() {
        let outcome = flight.await;
        ingest.answer(outcome);
        ingest.launch();
    }
    Ok(())
}

/// Keep what arrives; returns when the inbox ends.
async fn collect(inbox: &mut Inbox, into: &mut Vec<Message>) {
    while let Some(msg) = inbox.recv().await {
        into.push(msg);
    }
}

/// Milliseconds since the epoch that job ids count from: rank 0 decides, so that ids of all ranks
/// are comparable and larger than those of earlier lives of the instance.
async fn epoch(handle: &Handle) -> Result<u64, ModuleError> {
    #[derive(Deserialize)]
    struct Answer {
        epoch: u64,
    }
    if handle.rank() != 0 {
        let answer: Answer = handle
            .call("job-ingest.getinfo", Node::Rank(0), &json!({}))
            .await?;
        return Ok(answer.epoch);
    }
    #[derive(Deserialize)]
    struct Info {
        max_jobid: u64,
    }
    let info: Info = handle
        .call("job-manager.getinfo", Node::Any, &json!({}))
        .await?;
    let now = now_ms();
    // Also the first id is above that of an instance without jobs.
    let past = JobId(info.max_jobid).timestamp_ms() + 1;
    Ok(now.saturating_sub(past))
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

impl Ingest {
    /// Now, as job ids count.
    fn now(&self) -> u64 {
        now_ms().saturating_sub(self.epoch)
    }

    fn message(&mut self, msg: Message) {
        match msg.topic() {
            "job-ingest.submit" => match self.accept(&msg) {
                Ok(job) => self.waiting.push(job),
                Err(e) => self.handle.respond_error(&msg, &e),
            },
            "job-ingest.getinfo" => {
                let answer = json!({ "timestamp": self.now(), "epoch": self.epoch });
                self.handle.respond(&msg, &answer);
            }
            "job-ingest.config-reload" => match self.reload(&msg) {
                Ok(()) => self.handle.respond_ok(&msg),
                Err(e) => self.handle.respond_error(&msg, &e),
            },
            topic if topic.ends_with(".disconnect") => {}
            _ => self.handle.respond_enosys(&msg),
        }
    }

    fn reload(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        self.queues = Queues::from_config(&msg.json()?)
            .map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?;
        Ok(())
    }

    fn accept(&mut self, msg: &Message) -> Result<Accepted, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(rename = "J")]
            signed: String,
            #[serde(default)]
            urgency: Urgency,
            #[serde(default)]
            flags: i32,
        }
        let Request {
            signed,
            urgency,
            flags,
        } = msg.json()?;
        check_urgency(urgency, msg.is_owner())?;
        if flags & !(FLAG_DEBUG | FLAG_WAITABLE | FLAG_NOVALIDATE | 1) != 0 {
            return Err(RpcError::new(
                libc::EPROTO,
                format!("unknown submit flags {flags:#x}"),
            ));
        }
        if flags & (FLAG_WAITABLE | FLAG_NOVALIDATE) != 0 && !msg.is_owner() {
            let text = "only the instance owner can submit with flags waitable or novalidate";
            return Err(RpcError::new(libc::EINVAL, text));
        }
        let text = sign::unwrap(&signed, msg.userid())?;
        let mut jobspec: Value = serde_json::from_str(&text)
            .map_err(|e| RpcError::new(libc::EINVAL, format!("jobspec: {e}")))?;
        policy::complete(&self.queues, &mut jobspec)
            .map_err(|why| RpcError::new(libc::EINVAL, why))?;
        if flags & FLAG_NOVALIDATE == 0 {
            let invalid = |e: &dyn std::fmt::Display| RpcError::new(libc::EINVAL, e.to_string());
            let parsed = Jobspec::from_value(jobspec.clone()).map_err(|e| invalid(&e))?;
            parsed.resource_counts().map_err(|e| invalid(&e))?;
        }
        let now = self.now();
        let id = self
            .ids
            .next(now)
            .map_err(|e| RpcError::new(libc::EAGAIN, format!("cannot make a job id: {e}")))?;
        let context = json!({
            "userid": msg.userid(), "urgency": urgency, "flags": flags, "version": 1,
        });
        let submit =
            Event::new(eventlog::timestamp(SystemTime::now()), "submit").with_context(context);
        Ok(Accepted {
            request: msg.clone(),
            signed,
            jobspec: redacted(jobspec),
            urgency,
            flags,
            id,
            submit,
        })
    }

    /// Send the next batch on its way, if none is.
    fn launch(&mut self) {
        if self.in_flight.is_some() || self.waiting.is_empty() {
            return;
        }
        let batch: Vec<_> = self
            .waiting
            .drain(..self.waiting.len().min(BATCH))
            .collect();
        self.in_flight = Some(Box::pin(deliver(self.handle.clone(), batch)));
    }

    fn answer(&self, outcome: Outcome) {
        for (request, result) in outcome {
            match result {
                Ok(id) => self.handle.respond(&request, &json!({ "id": id })),
                Err(e) => self.handle.respond_error(&request, &e),
            }
        }
    }
}

/// Who may use an urgency (RFC 30).
pub(crate) fn check_urgency(urgency: Urgency, owner: bool) -> Result<(), RpcError> {
    if !urgency.is_for_guests() && !owner {
        let text = format!(
            "only the instance owner can use an urgency above {}",
            Urgency::DEFAULT
        );
        return Err(RpcError::new(libc::EINVAL, text));
    }
    Ok(())
}

/// The jobspec without its environment, which only the shell needs; it takes it from the request
/// as signed.
fn redacted(mut jobspec: Value) -> Value {
    if let Some(system) = jobspec
        .pointer_mut("/attributes/system")
        .and_then(Value::as_object_mut)
    {
        system.shift_remove("environment");
    }
    jobspec
}

/// How often, and how long in between, to announce jobs to a manager that is not there.
const AGAIN: (u32, Duration) = (100, Duration::from_millis(100));

/// Store the records of a batch and announce it to the manager.
async fn deliver(handle: Handle, batch: Vec<Accepted>) -> Outcome {
    let mut txn = kvs::Txn::new();
    let mut jobs = Vec::with_capacity(batch.len());
    let mut requests = Vec::with_capacity(batch.len());
    for job in batch {
        txn.put_raw(&job.id.key(JobKey::J), job.signed.as_bytes());
        txn.put_raw(
            &job.id.key(JobKey::Jobspec),
            job.jobspec.to_string().as_bytes(),
        );
        txn.append(
            &job.id.key(JobKey::Eventlog),
            job.submit.encode().as_bytes(),
        );
        jobs.push(json!({
            "id": job.id,
            "userid": job.request.userid(),
            "urgency": job.urgency,
            "flags": job.flags,
            "t_submit": job.submit.timestamp,
            "jobspec": job.jobspec,
        }));
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
    let request = json!({ "jobs": jobs });
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
