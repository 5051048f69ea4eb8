//! Module `job-exec`, on rank 0: runs jobs that have resources (RFC 32).
//!
//! Each job is one task that owns its state ([`job::run`]): it prepares the guest namespace, starts
//! a job shell on every rank through `rexec`, waits for them, and hands the resources back. This
//! module routes requests and exceptions to those tasks.
//!
//! Invariants: each `start` request ends with one final `release`; no shell outlives the module.

mod barrier;
mod guest;
mod job;
mod mock;

use std::collections::HashMap;

use client::module::{Context, ModuleResult};
use client::{Handle, Node};
use formats::jobid::JobId;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use wire::{Message, RpcError};

/// What a job's task is told.
#[derive(Debug)]
pub(crate) enum Control {
    /// A fatal exception: end it.
    Cancel,
    /// A shell enters the barrier.
    Barrier(Message),
    /// The allocation ends at this time (seconds since 1970, 0 is never).
    Expiration(f64),
}

/// What all jobs have in common.
#[derive(Clone)]
pub(crate) struct Site {
    handle: Handle,
    /// The job shell.
    shell: String,
}

struct Exec {
    site: Site,
    jobs: HashMap<JobId, UnboundedSender<Control>>,
    tasks: FuturesUnordered<JoinHandle<JobId>>,
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle, mut inbox, ..
    } = ctx;
    handle.subscribe("job-exception").await?;
    handle
        .rpc(
            "job-manager.exec-hello",
            Node::Any,
            &json!({ "service": "job-exec" }),
        )
        .await?;
    let shell = handle.getattr("conf.shell_path").await?;
    let site = Site { handle, shell };
    let mut exec = Exec {
        site,
        jobs: HashMap::new(),
        tasks: FuturesUnordered::new(),
    };
    loop {
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => exec.message(&msg),
                None => break,
            },
            Some(ended) = exec.tasks.next(), if !exec.tasks.is_empty() => exec.ended(ended),
        }
    }
    for control in exec.jobs.values() {
        // A task that has ended meanwhile needs no telling.
        let _ = control.send(Control::Cancel);
    }
    while let Some(ended) = exec.tasks.next().await {
        exec.ended(ended);
    }
    Ok(())
}

impl Exec {
    fn ended(&mut self, ended: Result<JobId, tokio::task::JoinError>) {
        if let Ok(id) = ended {
            self.jobs.remove(&id);
        }
    }

    fn message(&mut self, msg: &Message) {
        if msg.is_event() {
            self.exception(msg);
            return;
        }
        if !msg.is_request() {
            return;
        }
        let result = match msg.method() {
            "start" => self.start(msg),
            "shell-barrier" => self.barrier(msg),
            "expiration" => self.expiration(msg),
            "stats-get" => {
                self.site
                    .handle
                    .respond(msg, &json!({ "jobs": self.jobs.len() }));
                Ok(())
            }
            "disconnect" => Ok(()),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        if let Err(e) = result {
            self.site.handle.respond_error(msg, &e);
        }
    }

    fn start(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let start: job::Start = msg.json()?;
        let id = start.id;
        let (control, rx) = unbounded_channel();
        self.jobs.insert(id, control);
        let (site, request) = (self.site.clone(), msg.clone());
        self.tasks.push(tokio::spawn(async move {
            job::run(site, request, start, rx).await;
            id
        }));
        Ok(())
    }

    fn control(&self, id: JobId, control: Control) -> Result<(), RpcError> {
        let gone = || RpcError::new(libc::ENOENT, format!("job {} is not running", id.f58()));
        let tx = self.jobs.get(&id).ok_or_else(gone)?;
        tx.send(control).map_err(|_| gone())
    }

    fn barrier(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
        }
        let Request { id } = msg.json()?;
        self.control(id, Control::Barrier(msg.clone()))
    }

    fn expiration(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            expiration: f64,
        }
        msg.require_owner()?;
        let Request { id, expiration } = msg.json()?;
        self.control(id, Control::Expiration(expiration))?;
        self.site.handle.respond_ok(msg);
        Ok(())
    }

    fn exception(&mut self, msg: &Message) {
        #[derive(Deserialize)]
        struct Exception {
            id: JobId,
            severity: i64,
        }
        let Ok(Exception { id, severity }) = msg.json() else {
            return;
        };
        if severity == 0 {
            // A job that is not (or no longer) here has nothing to end.
            let _ = self.control(id, Control::Cancel);
        }
    }
}

/// Answers to a `start` request.
#[derive(Clone)]
pub(crate) struct Reporter {
    handle: Handle,
    request: Message,
    id: JobId,
}

impl Reporter {
    pub(crate) fn new(handle: Handle, request: Message, id: JobId) -> Self {
        Self {
            handle,
            request,
            id,
        }
    }

    fn send(&self, kind: &str, data: Value) {
        self.handle.respond(
            &self.request,
            &json!({ "id": self.id, "type": kind, "data": data }),
        );
    }

    pub(crate) fn started(&self) {
        self.send("start", json!({}));
    }

    pub(crate) fn exception(&self, kind: &str, note: &str) {
        self.send(
            "exception",
            json!({ "severity": 0, "type": kind, "note": note }),
        );
    }

    pub(crate) fn finished(&self, status: i32) {
        self.send("finish", json!({ "status": status }));
    }

    pub(crate) fn released(&self) {
        self.send("release", json!({ "ranks": "all", "final": true }));
    }
}
