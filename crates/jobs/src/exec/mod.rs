//! Module `job-exec`, on rank 0: runs jobs that have resources (RFC 32).
//!
//! Each job is one task that owns its state ([`job::run`]): it prepares the guest namespace, starts
//! a job shell on every rank through `rexec`, waits for them, and hands the resources back. This
//! module routes requests and exceptions to those tasks.
//!
//! Invariants: what was asked for by `start` ends with one final `release`, or with the module. Shells outlive the module: rexec
//! keeps them by label, and a `start` with `reattach` finds them again.

mod barrier;
mod bulk;
mod config;
mod ending;
mod guest;
mod job;
mod lost;
mod mock;
mod sharing;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::module::{Context, ModuleError, ModuleResult};
use client::services::job_manager::Presence;
use client::{Handle, Inbox, Node};
use formats::Idset;
use formats::jobid::JobId;
use formats::shared_shell;
use futures::stream::{self, FuturesUnordered, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wire::{Message, RpcError};

use crate::{rexec, shown};
use config::Config;
use guest::Promise;
use sharing::Sharing;

/// What a job's task is told.
#[derive(Debug)]
pub(crate) enum Control {
    /// A fatal exception: end it, with this signal at first. It may say with which wait status it counts as ended.
    Cancel(i32, Option<i32>),
    /// A job that only pretends to run begins or ends when it is told to.
    Override(Message),
    /// Somebody wants to know how it is.
    Stats(oneshot::Sender<Value>),
    /// A shell enters the barrier.
    Barrier(Message),
    /// The allocation ends at this time (seconds since 1970, 0 is never).
    Expiration(f64),
    /// The job cannot go on without these of its shells.
    Critical(Idset),
    /// Somebody asks for its namespace, which was not made yet.
    Namespace(Message),
    /// What it has left to the job manager is stored.
    Recorded,
}

/// What a job's task is told, in order.
pub(crate) struct Orders {
    handle: Handle,
    receiver: UnboundedReceiver<Control>,
    promise: Promise,
    /// Requests that the job will not do any more.
    late: Vec<Message>,
}

impl Orders {
    fn new(handle: Handle, receiver: UnboundedReceiver<Control>, promise: Promise) -> Self {
        Self {
            handle,
            receiver,
            promise,
            late: Vec::new(),
        }
    }

    /// The next; `None` when the service ends.
    pub(crate) async fn recv(&mut self) -> Option<Control> {
        self.receiver.recv().await
    }

    /// Whether the namespace can be asked for.
    fn promise(&self) -> Promise {
        self.promise.clone()
    }

    /// Wait until the job manager has stored what the job has left; false when the service ends before.
    async fn until_recorded(&mut self) -> bool {
        while let Some(order) = self.recv().await {
            match order {
                Control::Recorded => return true,
                order => self.late.extend(request_of(order)),
            }
        }
        false
    }
}

fn request_of(order: Control) -> Option<Message> {
    match order {
        Control::Barrier(request) | Control::Namespace(request) | Control::Override(request) => {
            Some(request)
        }
        _ => None,
    }
}

impl Drop for Orders {
    /// Whoever has asked for what will not be done is told so.
    fn drop(&mut self) {
        self.receiver.close();
        while let Ok(order) = self.receiver.try_recv() {
            self.late.extend(request_of(order));
        }
        for request in &self.late {
            let e = RpcError::new(libc::ENOENT, "the job has ended");
            self.handle.respond_error(request, &e);
        }
    }
}

/// What all jobs have in common.
#[derive(Clone)]
pub(crate) struct Site {
    handle: Handle,
    /// The job shell.
    shell: String,
    /// Whose instance this is, and whose programs jobs are.
    owner: u32,
    config: Arc<Config>,
    /// The instance is kept when it ends, so that it may come back.
    is_kept: bool,
    sharing: Arc<Sharing>,
}

/// How long brokers may be away, where nothing says otherwise.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

impl Site {
    /// How long jobs wait for a broker that is away, and shells for theirs.
    fn patience(&self) -> Duration {
        patience(&self.config, self.is_kept)
    }
}

fn patience(config: &Config, is_kept: bool) -> Duration {
    let unless_said = match is_kept {
        true => BROKER_TIMEOUT,
        false => Duration::ZERO,
    };
    config.broker_timeout.unwrap_or(unless_said)
}

/// Where this instance's shells share processes.
fn sharing(handle: &Handle, shell: &str, patience: Duration) -> Sharing {
    let cmdline = vec![shell.to_owned(), "--shared".to_owned()];
    let (env, label) = (rexec::environment(), shared_shell::NAME.to_owned());
    let command = rexec::request(cmdline, env, label, job::lasting(patience));
    Sharing::new(handle.clone(), command, patience)
}

/// A job that runs: the way to its task, and whose it is.
struct Running {
    control: UnboundedSender<Control>,
    userid: u32,
    promise: Promise,
}

struct Exec {
    site: Site,
    /// What the module was loaded with.
    args: Vec<String>,
    jobs: HashMap<JobId, Running>,
    /// Each ends with its job, and whether that goes on and has a namespace.
    tasks: FuturesUnordered<JoinHandle<(JobId, bool)>>,
    /// The manager that has been told of this service; nothing when it has gone.
    manager: Option<Presence>,
}

/// Namespaces that are kept at one time.
const WINDOW: usize = 64;

/// Wait before a job manager that is not there is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Tell the job manager that jobs can be started. It is looked at before it is spoken to: should it go in between, that is
/// noticed.
async fn hello(handle: &Handle) -> Result<Presence, RpcError> {
    let manager = Presence::watch(handle);
    let request = json!({ "service": "job-exec" });
    let answer = handle.rpc("job-manager.exec-hello", Node::Any, &request);
    answer.await.map(|_| manager)
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    handle.subscribe("job-exception").await?;
    let config: Value = handle.call("config.get", Node::Any, &json!({})).await?;
    let config = Config::parse(&config, &args).map_err(ModuleError::invalid)?;
    let is_kept = handle.getattr("statedir-cleanup").await.as_deref() == Ok("0");
    let shell = handle.getattr("conf.shell_path").await?;
    let owner = handle.getattr("security.owner").await?;
    let owner = owner
        .parse()
        .map_err(|e| ModuleError::invalid(format!("security.owner={owner}: {e}")))?;
    let sharing = sharing(&handle, &shell, patience(&config, is_kept));
    let site = Site {
        sharing: Arc::new(sharing),
        handle,
        shell,
        owner,
        config: Arc::new(config),
        is_kept,
    };
    let mut exec = Exec {
        site,
        args,
        jobs: HashMap::new(),
        tasks: FuturesUnordered::new(),
        manager: None,
    };
    loop {
        if exec.manager.is_none() && exec.tasks.is_empty() {
            match hello(&exec.site.handle).await {
                Ok(manager) => exec.manager = Some(manager),
                Err(e) if e.errno == libc::ENOSYS => {}
                Err(e) => return Err(e.into()),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN), if exec.manager.is_none() => {}
            () = Presence::gone(&mut exec.manager) => exec.orphan(&mut inbox),
            msg = inbox.recv() => match msg {
                Some(msg) => exec.message(&msg),
                None => break,
            },
            Some(ended) = exec.tasks.next(), if !exec.tasks.is_empty() => exec.ended(ended),
        }
    }
    exec.site.sharing.close().await;
    // What runs goes on: shells outlive this service, and its next life finds them.
    exec.jobs.clear();
    let mut left = Vec::new();
    while let Some(ended) = exec.tasks.next().await {
        left.extend(ended.ok().and_then(|(id, is_left)| is_left.then_some(id)));
    }
    let handle = &exec.site.handle;
    let kept = stream::iter(left).map(|id| guest::keep(handle, id));
    // An instance that ends has no KVS much longer.
    kept.buffer_unordered(WINDOW).for_each(|_| async {}).await;
    Ok(())
}

impl Exec {
    fn ended(&mut self, ended: Result<(JobId, bool), tokio::task::JoinError>) {
        if let Ok((id, _)) = ended {
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
            "critical-ranks" => self.critical(msg),
            "namespace" => self.namespace(msg),
            "recorded" => self.recorded(msg),
            "override" => self.override_mock(msg),
            "stats-get" => {
                self.stats(msg);
                Ok(())
            }
            "config-reload" => self.reload(msg),
            "disconnect" => Ok(()),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        if let Err(e) = result {
            self.site.handle.respond_error(msg, &e);
        }
    }

    /// What is said anew concerns jobs that start from now on.
    fn reload(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let config = Config::parse(&msg.json()?, &self.args);
        let config = config.map_err(|why| RpcError::new(libc::EINVAL, why))?;
        self.site.config = Arc::new(config);
        self.site.handle.respond_ok(msg);
        Ok(())
    }

    fn start(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let start: job::Start = msg.json()?;
        let id = start.id;
        if self.jobs.contains_key(&id) {
            // It was asked for while this service said hello, and again in answer to that: one of them is enough.
            return Ok(());
        }
        let (control, receiver) = unbounded_channel();
        let running = Running {
            control,
            userid: start.userid,
            promise: Promise::default(),
        };
        let handle = self.site.handle.clone();
        let orders = Orders::new(handle, receiver, running.promise.clone());
        self.jobs.insert(id, running);
        let (site, request) = (self.site.clone(), msg.clone());
        self.tasks.push(tokio::spawn(async move {
            (id, job::run(site, request, start, orders).await)
        }));
        Ok(())
    }

    /// Without the job manager that asked there is nobody to report to; its next life asks again. All it has asked is in
    /// the inbox by now, since messages keep their order: what was not begun is not begun.
    fn orphan(&mut self, inbox: &mut Inbox) {
        while let Some(msg) = inbox.try_recv() {
            if msg.method() != "start" {
                self.message(&msg);
            }
        }
        self.jobs.clear();
        self.manager = None;
    }

    fn control(&self, id: JobId, control: Control) -> Result<(), RpcError> {
        let gone = || RpcError::new(libc::ENOENT, format!("job {} is not running", shown(id)));
        let job = self.jobs.get(&id).ok_or_else(gone)?;
        job.control.send(control).map_err(|_| gone())
    }

    fn barrier(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
        }
        let Request { id } = msg.json()?;
        self.control(id, Control::Barrier(msg.clone()))
    }

    /// The KVS asks for a job's namespace, which its task has put off.
    fn namespace(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            namespace: String,
        }
        msg.require_owner()?;
        let Request { namespace } = msg.json()?;
        let none = || RpcError::new(libc::ENOENT, format!("{namespace} is not to be made"));
        let id = namespace
            .strip_prefix("job-")
            .and_then(|id| id.parse().ok());
        let id = JobId(id.ok_or_else(none)?);
        // A task that has made it does not read its orders while it waits for the KVS.
        let promised = self.jobs.get(&id).is_some_and(|job| job.promise.is_given());
        match promised {
            true => self.control(id, Control::Namespace(msg.clone())),
            false => Err(none()),
        }
    }

    /// The job manager has stored what a job has left.
    fn recorded(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
        }
        msg.require_owner()?;
        let Request { id } = msg.json()?;
        // A life of this service that has been told nothing has nothing to do.
        let _ = self.control(id, Control::Recorded);
        Ok(())
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

    fn critical(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            ranks: Idset,
        }
        let Request { id, ranks } = msg.json()?;
        let gone = || RpcError::new(libc::ENOENT, format!("job {} is not running", shown(id)));
        let job = self.jobs.get(&id).ok_or_else(gone)?;
        msg.require_user(job.userid)?;
        self.control(id, Control::Critical(ranks))?;
        self.site.handle.respond_ok(msg);
        Ok(())
    }

    /// Answer with statistics, for which each job is asked.
    fn stats(&self, msg: &Message) {
        let (handle, msg) = (self.site.handle.clone(), msg.clone());
        let mut stats = self
            .site
            .config
            .describe(&self.site.shell, self.site.patience());
        let asked: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(id, job)| {
                let (tell, told) = oneshot::channel();
                job.control.send(Control::Stats(tell)).ok()?;
                let id = id.f58_ascii();
                Some(async move { Some((id, told.await.ok()?)) })
            })
            .collect();
        tokio::spawn(async move {
            let jobs = futures::future::join_all(asked).await;
            let jobs: Map<String, Value> = jobs.into_iter().flatten().collect();
            stats["jobs"] = jobs.into();
            handle.respond(&msg, &stats);
        });
    }

    fn override_mock(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            jobid: JobId,
        }
        let Request { jobid } = msg.json()?;
        let unknown = || RpcError::new(libc::ENOENT, "Job not found");
        let job = self.jobs.get(&jobid).ok_or_else(unknown)?;
        if msg.userid() != job.userid {
            return Err(RpcError::new(libc::EPERM, "Permission denied"));
        }
        self.control(jobid, Control::Override(msg.clone()))
    }

    fn exception(&mut self, msg: &Message) {
        #[derive(Deserialize)]
        struct Exception {
            id: JobId,
            severity: i64,
            #[serde(rename = "type")]
            kind: String,
            wait_status: Option<i32>,
        }
        let Ok(exception) = msg.json::<Exception>() else {
            return;
        };
        let Exception {
            id, severity, kind, ..
        } = exception;
        if severity == 0 {
            // A job that is not (or no longer) here has nothing to end.
            let signum = match kind.as_str() {
                "timeout" => libc::SIGALRM,
                _ => self.site.config.ending.term_signal,
            };
            let _ = self.control(id, Control::Cancel(signum, exception.wait_status));
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

    pub(crate) fn id(&self) -> JobId {
        self.id
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

    pub(crate) fn reattached(&self) {
        self.send("reattached", json!({}));
    }

    pub(crate) fn exception(&self, kind: &str, note: &str) {
        self.send(
            "exception",
            json!({ "severity": 0, "type": kind, "note": note }),
        );
    }

    /// An exception that the job survives.
    pub(crate) fn mild_exception(&self, kind: &str, severity: i64, note: &str) {
        let data = json!({ "severity": severity, "type": kind, "note": note });
        self.send("exception", data);
    }

    pub(crate) fn finished(&self, status: i32) {
        self.send("finish", json!({ "status": status }));
    }

    pub(crate) fn released(&self) {
        self.send("release", json!({ "ranks": "all", "final": true }));
    }

    /// Released, and this text is to be stored in the job's guest directory, by key, with that.
    fn released_with(&self, record: &Map<String, Value>) {
        let data = json!({ "ranks": "all", "final": true, "record": record });
        self.send("release", data);
    }
}
