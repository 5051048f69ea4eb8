//! Module `job-ingest`: takes submissions on every rank (RFC 14, 16, 19, 25).
//!
//! A request is decoded once, and goes through the [`pipeline`]. Valid jobs get their id here; all that have arrived
//! while an earlier batch was on its way form the next batch: one KVS commit with their records,
//! then one announcement to the manager. A submitter is answered after both, so what is
//! acknowledged is stored. Jobs that the manager refuses leave no record.

mod batch;
mod config;
mod pipeline;
mod plugins;
mod sign;
mod worker;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use client::module::{Context, ModuleError, ModuleResult};
use client::{Handle, Inbox, Node};
use formats::Urgency;
use formats::eventlog::{self, Event};
use formats::jobid::{Fluid, JobId};
use formats::queues::Queues;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Deserialize;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wire::{Message, RpcError};

use batch::{Accepted, Outcome};
use config::Settings;
use pipeline::{Candidate, Pipeline, Tallies};

/// Submit flags (upstream's `enum job_submit_flags`).
pub const FLAG_DEBUG: i32 = 2;
/// The submitter will ask for the result with `job-manager.wait`.
pub const FLAG_WAITABLE: i32 = 4;
/// Skip validation (owner only).
pub const FLAG_NOVALIDATE: i32 = 8;

/// A request at the end of the pipeline.
type Judged = (Candidate, Result<(), RpcError>);

struct Ingest {
    handle: Handle,
    /// Milliseconds since 1970 that job ids count from.
    epoch: u64,
    ids: Fluid,
    /// Arguments of the module.
    args: Vec<String>,
    pipeline: Arc<Pipeline>,
    tallies: Arc<Tallies>,
    /// The workers of pipelines.
    workers: JoinSet<()>,
    /// Requests that wait for a worker or the scheduler.
    judged: FuturesUnordered<BoxFuture<'static, Judged>>,
    /// Jobs that make a batch.
    batch_count: usize,
    waiting: Vec<Accepted>,
    in_flight: Option<BoxFuture<'static, Outcome>>,
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    // Wrong arguments are found before anything is waited for.
    Settings::parse(&json!({}), &args).map_err(ModuleError::invalid)?;
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
    let mut workers = JoinSet::new();
    let (pipeline, batch_count) =
        configure(&config, &args, &handle, &mut workers).map_err(ModuleError::invalid)?;
    let mut ingest = Ingest {
        handle,
        epoch,
        ids,
        args,
        pipeline,
        tallies: Arc::default(),
        workers,
        judged: FuturesUnordered::new(),
        batch_count,
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
            Some(judged) = ingest.judged.next() => ingest.accept(judged),
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
    ingest.finish().await;
    Ok(())
}

/// The pipeline of a configuration, and the number of jobs that make a batch.
fn configure(
    config: &Value,
    args: &[String],
    handle: &Handle,
    workers: &mut JoinSet<()>,
) -> Result<(Arc<Pipeline>, usize), String> {
    let queues = Queues::from_config(config).map_err(|e| e.to_string())?;
    let settings = Settings::parse(config, args)?;
    let pipeline = Pipeline::new(&settings, queues, handle, workers)?;
    Ok((Arc::new(pipeline), settings.batch_count))
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
            "job-ingest.submit" => match candidate(&msg) {
                Ok(job) => self.judge(job),
                Err(e) => self.handle.respond_error(&msg, &e),
            },
            "job-ingest.stats-get" => {
                let pipeline = self.pipeline.describe(&self.tallies);
                self.handle.respond(&msg, &json!({ "pipeline": pipeline }));
            }
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
        let invalid = |why| RpcError::new(libc::EINVAL, why);
        let workers = &mut self.workers;
        (self.pipeline, self.batch_count) =
            configure(&msg.json()?, &self.args, &self.handle, workers).map_err(invalid)?;
        // Those whose processes have ended.
        while self.workers.try_join_next().is_some() {}
        Ok(())
    }

    /// Take a request through the pipeline: at once, unless a step waits for others.
    fn judge(&mut self, mut job: Candidate) {
        let (handle, pipeline) = (self.handle.clone(), Arc::clone(&self.pipeline));
        let tallies = Arc::clone(&self.tallies);
        let mut judged: BoxFuture<'static, Judged> = Box::pin(async move {
            let result = pipeline.process(&handle, &tallies, &mut job).await;
            (job, result)
        });
        match (&mut judged).now_or_never() {
            Some(judged) => self.accept(judged),
            None => self.judged.push(judged),
        }
    }

    /// A request has gone through the pipeline.
    fn accept(&mut self, (job, result): Judged) {
        let now = self.now();
        let id = result.and_then(|()| {
            let id = self.ids.next(now);
            id.map_err(|e| RpcError::new(libc::EAGAIN, format!("cannot make a job id: {e}")))
        });
        let Candidate {
            request,
            signed,
            jobspec,
            urgency,
            flags,
        } = job;
        let id = match id {
            Ok(id) => id,
            Err(e) => return self.handle.respond_error(&request, &e),
        };
        // JSON values always encode.
        let jobspec = to_raw_value(&redacted(jobspec)).expect("a JSON value encodes");
        let context = json!({
            "userid": request.userid(), "urgency": urgency, "flags": flags, "version": 1,
        });
        let submit =
            Event::new(eventlog::timestamp(SystemTime::now()), "submit").with_context(context);
        self.waiting.push(Accepted {
            request,
            signed,
            jobspec,
            urgency,
            flags,
            id,
            submit,
        });
    }

    /// Send the next batch on its way, if none is.
    fn launch(&mut self) {
        if self.in_flight.is_some() || self.waiting.len() < self.batch_count.max(1) {
            return;
        }
        let batch: Vec<_> = self
            .waiting
            .drain(..self.waiting.len().min(batch::MOST))
            .collect();
        self.in_flight = Some(Box::pin(batch::deliver(self.handle.clone(), batch)));
    }

    /// Answer all that was asked, and see the workers off.
    async fn finish(mut self) {
        while let Some(judged) = self.judged.next().await {
            self.accept(judged);
        }
        self.batch_count = 0;
        self.launch();
        while let Some(flight) = self.in_flight.take() {
            let outcome = flight.await;
            self.answer(outcome);
            self.launch();
        }
        drop(self.pipeline);
        self.workers.join_all().await;
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

/// The job that a request asks for.
fn candidate(msg: &Message) -> Result<Candidate, RpcError> {
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
        let text = format!("unknown submit flags {flags:#x}");
        return Err(RpcError::new(libc::EPROTO, text));
    }
    if flags & (FLAG_WAITABLE | FLAG_NOVALIDATE) != 0 && !msg.is_owner() {
        let text = "only the instance owner can submit with flags waitable or novalidate";
        return Err(RpcError::new(libc::EINVAL, text));
    }
    let text = sign::unwrap(&signed, msg.userid(), msg.is_owner())?;
    let jobspec = serde_json::from_str(&text)
        .map_err(|e| RpcError::new(libc::EINVAL, format!("jobspec: {e}")))?;
    Ok(Candidate {
        request: msg.clone(),
        signed,
        jobspec,
        urgency,
        flags,
    })
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
