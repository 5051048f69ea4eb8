//! The broker module `job-list`: which jobs there are (RFC 21, 43).
//!
//! It follows the job manager's event journal from its beginning and keeps a table of all jobs;
//! the primary eventlogs are the truth, this is a view. Requests wait until the journal's
//! backlog has been read.
//!
//! Of jobs that became inactive long ago it makes blocks, which the job manager stores: after a restart they are taken
//! from there instead of the journal.
//!
//! [`job`], [`table`], [`block`], [`shelf`], [`constraint`] and [`attrs`] are the core, without I/O.

pub mod attrs;
pub mod block;
pub mod constraint;
pub mod job;
pub mod shelf;
pub mod table;

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError, RpcStream};
use formats::job::ACTIVE;
use formats::job_schema::JobKey;
use formats::queues::Queues;
use formats::{Event, Idset, JobId, JobState};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use attrs::{Attr, View};
use block::Block;
use constraint::Constraint;
use job::Job;
use table::Table;

/// Jobs in one response of a streamed listing.
const CHUNK: usize = 256;
/// Time between updates to those who watch statistics.
const STATS_PERIOD: Duration = Duration::from_millis(500);
/// Wait before the journal is asked for again after the job manager went away.
const RETRY: Duration = Duration::from_millis(200);

/// Inactive jobs of a block, without the module argument `block=N`.
const BLOCK: usize = 1000;
/// Blocks that are loaded at one time.
const WINDOW: usize = 16;

/// A `list-id` request that waits for its job to reach a state.
struct Waiter {
    request: Message,
    attrs: Vec<Attr>,
    /// Any of these states; 0 is any past NEW.
    states: u32,
}

enum Done {
    /// A job that is not in the table exists in the KVS, or not.
    Checked(u64, Waiter, Result<(), RpcError>),
}

struct Module {
    handle: Handle,
    table: Table,
    /// Inactive jobs of a block.
    block: usize,
    /// The journal's backlog was read.
    ready: bool,
    deferred: Vec<Message>,
    waiters: HashMap<u64, Vec<Waiter>>,
    /// Test hook: events held back since `job-state-pause`.
    paused: Option<Vec<JournalItem>>,
    /// Open `job-stats` streams, and whether there is news for them.
    stats_watchers: Vec<Message>,
    stats_changed: bool,
    /// Guests see their own jobs only.
    private: bool,
    queues: Queues,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Runs the module until its inbox ends.
pub async fn main(ctx: Context) -> Result<(), ModuleError> {
    let mut inbox = ctx.inbox;
    let config: Value = ctx
        .handle
        .call("config.get", Node::Any, &json!({}))
        .await
        .unwrap_or_default();
    let mut module = Module {
        private: config["access"]["private-mode"].as_bool().unwrap_or(false),
        queues: Queues::from_config(&config).map_err(|e| ModuleError::invalid(e.to_string()))?,
        handle: ctx.handle,
        table: Table::default(),
        block: block_size(&ctx.args)?,
        ready: false,
        deferred: Vec::new(),
        waiters: HashMap::new(),
        paused: None,
        stats_watchers: Vec::new(),
        stats_changed: false,
        work: FuturesUnordered::new(),
    };
    module.handle.subscribe("job-purge-inactive").await?;
    let mut journal = module.follow();
    let mut retry = None;
    let mut timer = tokio::time::interval(STATS_PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let watched = module.stats_changed && !module.stats_watchers.is_empty();
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => module.handle_message(msg),
                None => return Ok(()),
            },
            item = journal.next(), if retry.is_none() => match item {
                Some(Ok(msg)) => module.handle_journal(&msg).await,
                // The job manager is not there, or went away: begin anew when it is back.
                Some(Err(_)) | None => retry = Some(Box::pin(tokio::time::sleep(RETRY))),
            },
            () = elapsed(&mut retry) => {
                retry = None;
                module.table = Table::default();
                module.ready = false;
                journal = module.follow();
            }
            Some(done) = module.work.next() => module.handle_done(done),
            _ = timer.tick(), if watched => module.send_stats(),
        }
    }
}

fn block_size(args: &[String]) -> Result<usize, ModuleError> {
    // What is logged is not up to this module.
    let mut args = args.iter().filter(|arg| !arg.starts_with("log-level="));
    let Some(arg) = args.next() else {
        return Ok(BLOCK);
    };
    let size = arg.strip_prefix("block=").map(str::parse);
    match size.ok_or_else(|| ModuleError::unknown_argument(arg))? {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(ModuleError::invalid(format!(
            "{arg:?}: a block is of one job at least"
        ))),
    }
}

/// Resolves when the timer is set and has run down.
async fn elapsed(timer: &mut Option<Pin<Box<tokio::time::Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

#[derive(Deserialize)]
struct JournalItem {
    id: Value,
    events: Vec<Event>,
    jobspec: Option<Value>,
    #[serde(rename = "R")]
    resources: Option<Value>,
    /// Where the jobs are that the journal leaves out.
    archived: Option<Vec<Segment>>,
}

/// Inactive jobs in the store.
#[derive(Deserialize)]
struct Segment {
    key: String,
    /// Places of jobs that are gone.
    purged: Idset,
}

#[derive(Deserialize)]
struct ListRequest {
    max_entries: i64,
    attrs: Vec<String>,
    #[serde(default)]
    since: f64,
    #[serde(default)]
    constraint: Value,
    // Fields of the older protocol, which had no constraint.
    userid: Option<i64>,
    states: Option<i64>,
    results: Option<i64>,
    name: Option<String>,
    queue: Option<String>,
}

#[derive(Serialize)]
struct ListAnswer<'a> {
    jobs: &'a [View<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

impl Module {
    fn follow(&self) -> RpcStream {
        self.handle.stream(
            "job-manager.events-journal",
            Node::Any,
            &json!({"full": true, "archived": false}),
        )
    }

    async fn handle_journal(&mut self, msg: &Message) {
        // What cannot be read is passed over: the job manager logs its own mistakes, and one bad
        // record must not hide all other jobs.
        let Ok(item) = msg.json::<JournalItem>() else {
            return;
        };
        if let Some(segments) = item.archived {
            return self.load(segments).await;
        }
        match &mut self.paused {
            Some(held) => held.push(item),
            None => self.take_in(item),
        }
        while let Some(block) = self.table.pack(self.block) {
            self.handle
                .notify_raw("job-manager.archive", Node::Any, Some(block));
        }
    }

    /// Take the jobs of these segments in.
    async fn load(&mut self, segments: Vec<Segment>) {
        let handle = &self.handle;
        let read = futures::stream::iter(segments).map(|segment| async move {
            let bytes = kvs::client::get(handle, Some(kvs::PRIMARY), &segment.key).await;
            (segment, bytes)
        });
        let mut read = read.buffered(WINDOW);
        while let Some((Segment { key, purged }, bytes)) = read.next().await {
            let block = bytes.map_err(|e| e.to_string());
            let block = block.and_then(|b| Block::decode(b.into()).map_err(|e| e.to_string()));
            match block {
                Ok(block) => self.table.shelve(block, &purged),
                // Those who list jobs have to do without.
                Err(why) => handle.say("job-list", libc::LOG_ERR as u8, &format!("{key}: {why}")),
            }
        }
        self.stats_changed = true;
    }

    fn take_in(&mut self, item: JournalItem) {
        match item.id.as_u64() {
            Some(id) => {
                self.table
                    .apply(id, &item.events, item.jobspec, item.resources);
                self.stats_changed = true;
                if self.waiters.contains_key(&id) {
                    self.check_waiters(id);
                }
            }
            // The sentinel: the table is complete.
            None => {
                self.ready = true;
                for msg in std::mem::take(&mut self.deferred) {
                    self.handle_message(msg);
                }
            }
        }
    }

    fn handle_message(&mut self, msg: Message) {
        if msg.is_event() {
            self.handle_purge(&msg);
            return;
        }
        let method = msg.topic().strip_prefix("job-list.").unwrap_or_default();
        if !self.ready && !matches!(method, "disconnect" | "stats-get" | "config-reload") {
            self.deferred.push(msg);
            return;
        }
        let result = match method {
            "list" => self.handle_list(&msg),
            "list-id" => self.handle_list_id(&msg),
            "list-attrs" => {
                let mut names: Vec<&str> = Attr::ALL.iter().map(|a| a.name()).collect();
                names.push("all");
                self.handle.respond(&msg, &json!({ "attrs": names }));
                Ok(())
            }
            "config-reload" => self.reload(&msg).map(|()| self.handle.respond_ok(&msg)),
            "job-stats" => self.handle_stats(&msg),
            "job-stats-cancel" => self.handle_stats_cancel(&msg),
            "job-state-pause" => msg.require_owner().map(|()| {
                self.paused.get_or_insert_default();
                self.handle.respond_ok(&msg);
            }),
            "job-state-unpause" => msg.require_owner().map(|()| {
                for held in self.paused.take().unwrap_or_default() {
                    self.take_in(held);
                }
                self.handle.respond_ok(&msg);
            }),
            "disconnect" => {
                self.stats_watchers.retain(|w| !w.is_same_rpc(&msg, None));
                self.deferred.retain(|w| !w.is_same_rpc(&msg, None));
                for waiting in self.waiters.values_mut() {
                    waiting.retain(|w| !w.request.is_same_rpc(&msg, None));
                }
                self.waiters.retain(|_, waiting| !waiting.is_empty());
                Ok(())
            }
            "stats-get" => {
                let waiting: usize = self.waiters.values().map(Vec::len).sum();
                let answer = json!({
                    "jobs": self.table.len(),
                    "idsync": {"lookups": self.work.len(), "waits": waiting},
                    "stats_watchers": self.stats_watchers.len(),
                });
                self.handle.respond(&msg, &answer);
                Ok(())
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        if let Err(e) = result {
            self.handle.respond_error(&msg, &e);
        }
    }

    fn reload(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let config: Value = msg.json()?;
        self.queues =
            Queues::from_config(&config).map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?;
        self.private = config["access"]["private-mode"].as_bool().unwrap_or(false);
        let watchers = std::mem::take(&mut self.stats_watchers);
        for watcher in watchers {
            match self.require_stats(&watcher) {
                Ok(()) => self.stats_watchers.push(watcher),
                Err(e) => self.handle.respond_error(&watcher, &e),
            }
        }
        Ok(())
    }

    fn handle_purge(&mut self, msg: &Message) {
        #[derive(Deserialize)]
        struct Purge {
            jobs: Vec<u64>,
        }
        if let Ok(purge) = msg.json::<Purge>() {
            self.table.purge(&purge.jobs);
            self.stats_changed = true;
        }
    }

    /// Whether the sender may see jobs of this user.
    fn visible(&self, msg: &Message, job: &Job) -> bool {
        !self.private || msg.userid() == job.userid || msg.require_role(wire::ROLE_ADMIN).is_ok()
    }

    fn handle_list(&mut self, msg: &Message) -> Result<(), RpcError> {
        let req: ListRequest = msg.json()?;
        let invalid = |text: &str| RpcError::proto(format!("invalid payload: {text}"));
        let max =
            usize::try_from(req.max_entries).map_err(|_| invalid("max_entries < 0 not allowed"))?;
        if req.since < 0.0 {
            return Err(invalid("since < 0.0 not allowed"));
        }
        let attrs =
            attrs::parse(&req.attrs).map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?;
        let constraint = Constraint::parse(&combined(&req))
            .map_err(|e| invalid(&format!("constraint object invalid: {e}")))?
            .with_virtual_queues(&self.queues);
        let mut jobs = self
            .table
            .list(&constraint, req.since, if self.private { 0 } else { max })
            .filter(|job| self.visible(msg, job))
            .take(if max == 0 { usize::MAX } else { max });
        let respond = |jobs: &[Cow<'_, Job>], version: Option<u32>| {
            let jobs: Vec<View<'_>> = jobs.iter().map(|job| View { job, attrs: &attrs }).collect();
            let jobs = &jobs[..];
            self.handle.respond(msg, &ListAnswer { jobs, version });
        };
        if !msg.is_streaming() {
            respond(&jobs.collect::<Vec<_>>(), None);
            return Ok(());
        }
        let mut version = Some(1);
        loop {
            let chunk: Vec<_> = jobs.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Err(RpcError::errno(libc::ENODATA));
            }
            respond(&chunk, version.take());
        }
    }

    fn handle_list_id(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: u64,
            attrs: Vec<String>,
            #[serde(default)]
            state: u32,
        }
        let req: Request = msg.json()?;
        if req.state & !(ACTIVE | JobState::Inactive.bit()) != 0 {
            return Err(RpcError::proto("invalid payload: invalid state specified"));
        }
        let attrs =
            attrs::parse(&req.attrs).map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?;
        let waiter = Waiter {
            request: msg.clone(),
            attrs,
            states: req.state,
        };
        match self.table.get(req.id) {
            Some(job) if !self.visible(msg, &job) => Err(RpcError::errno(libc::ENOENT)),
            Some(job) if waiter.is_satisfied(&job) => {
                self.answer(&waiter, &job);
                Ok(())
            }
            Some(_) => {
                self.waiters.entry(req.id).or_default().push(waiter);
                Ok(())
            }
            None => {
                // It may be too new to have come through the journal.
                let handle = self.handle.clone();
                self.work.push(Box::pin(async move {
                    let key = JobId(req.id).key(JobKey::Eventlog);
                    let found = kvs::client::get_treeobj(&handle, Some(kvs::PRIMARY), &key).await;
                    Done::Checked(req.id, waiter, found.map(drop))
                }));
                Ok(())
            }
        }
    }

    fn handle_done(&mut self, done: Done) {
        let Done::Checked(id, waiter, found) = done;
        match found {
            Ok(()) => {
                self.waiters.entry(id).or_default().push(waiter);
                self.check_waiters(id);
            }
            Err(e) => self.handle.respond_error(&waiter.request, &e),
        }
    }

    fn check_waiters(&mut self, id: u64) {
        let Some(job) = self.table.get(id) else {
            return;
        };
        let Some(waiting) = self.waiters.remove(&id) else {
            return;
        };
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|w| w.is_satisfied(&job));
        for waiter in ready {
            if self.visible(&waiter.request, &job) {
                self.answer(&waiter, &job);
            } else {
                self.handle
                    .respond_error(&waiter.request, &RpcError::errno(libc::ENOENT));
            }
        }
        if !rest.is_empty() {
            self.waiters.insert(id, rest);
        }
    }

    fn answer(&self, waiter: &Waiter, job: &Job) {
        #[derive(Serialize)]
        struct Answer<'a> {
            job: View<'a>,
        }
        let job = View {
            job,
            attrs: &waiter.attrs,
        };
        self.handle.respond(&waiter.request, &Answer { job });
    }

    /// Where jobs are private, what tells of all jobs is for the owner and administrators alone.
    fn require_stats(&self, msg: &Message) -> Result<(), RpcError> {
        match self.private {
            true => msg
                .require_role(wire::ROLE_ADMIN)
                .map_err(|_| RpcError::new(libc::EPERM, "not permitted: jobs are private here")),
            false => Ok(()),
        }
    }

    fn handle_stats(&mut self, msg: &Message) -> Result<(), RpcError> {
        self.require_stats(msg)?;
        self.handle.respond(msg, &self.table.stats());
        if msg.is_streaming() {
            self.stats_watchers.push(msg.clone());
        }
        Ok(())
    }

    fn handle_stats_cancel(&mut self, msg: &Message) -> Result<(), RpcError> {
        let tag = msg.cancelled()?;
        let handle = &self.handle;
        self.stats_watchers.retain(|w| {
            let same = w.is_same_rpc(msg, Some(tag));
            if same {
                handle.respond_error(w, &RpcError::errno(libc::ENODATA));
            }
            !same
        });
        Ok(())
    }

    fn send_stats(&mut self) {
        self.stats_changed = false;
        let stats = self.table.stats();
        for watcher in &self.stats_watchers {
            self.handle.respond(watcher, &stats);
        }
    }
}

impl Waiter {
    /// A job that has ended will not reach another state, so it satisfies any.
    fn is_satisfied(&self, job: &Job) -> bool {
        match job.state {
            JobState::New => false,
            JobState::Inactive => true,
            _ => self.states == 0 || job.states & self.states != 0,
        }
    }
}

/// The request's constraint, or the one its older fields amount to.
fn combined(req: &ListRequest) -> Value {
    if !req.constraint.is_null() {
        return req.constraint.clone();
    }
    let mut all = Vec::new();
    if let Some(userid) = req.userid.filter(|u| *u as u32 != wire::USERID_UNKNOWN) {
        all.push(json!({"userid": [userid]}));
    }
    for (op, value) in [("name", &req.name), ("queue", &req.queue)] {
        if let Some(value) = value {
            all.push(json!({ op: [value] }));
        }
    }
    for (op, value) in [("states", req.states), ("results", req.results)] {
        if let Some(value) = value.filter(|v| *v != 0) {
            all.push(json!({ op: [value] }));
        }
    }
    json!({ "and": all })
}
