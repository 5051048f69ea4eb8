//! Module `job-manager`, on rank 0: states and events of all active jobs (RFC 21).
//!
//! Every change is an event: [`Manager::post`] applies it to the job (pure), puts it into the batch
//! for the KVS and the journal, and then [`Manager::act`] does what the new state calls for, which
//! may post further events. Batches are committed one after the other; while one is on its way the
//! next one gathers. The eventlog in the KVS is the truth: an instance that comes back replays it.
//!
//! Inactive jobs leave the manager; what they were is in the KVS and in job-list.

mod alloc;
mod archive;
mod batch;
mod bypass;
mod checkpoint;
mod config;
mod crew;
mod depend;
mod history;
mod housekeeping;
mod hush;
mod idle;
mod job;
mod jobtap;
mod journal;
mod kill;
mod lifetime;
mod limits;
mod past;
mod perilog;
mod procedure;
mod purge;
mod query;
mod queues;
mod raise;
mod release;
mod restart;
mod singleton;
mod start;
mod submit;
mod update;
mod wait;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use client::Handle;
use client::module::{Context, ModuleError, ModuleResult};
use formats::eventlog::{self, Event};
use formats::job::JobState;
use formats::jobid::JobId;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use batch::{After, Batch};
use job::{Alloc, Exec, Job};
use journal::{Journal, Listener};

type QueueKey = (std::cmp::Reverse<i64>, JobId);

/// Outcomes of asynchronous work.
enum Done {
    Committed(Vec<After>, Result<(), RpcError>),
    /// The time has come that a job's dependency of this description names.
    Due(JobId, String),
    /// The scheduler's answer to this question about a change.
    Asked(Box<update::Change>, &'static str, Result<(), RpcError>),
    /// The execution service does not take a job's new end.
    Unexpired(JobId, RpcError),
    /// The resources of the instance are these now; what follows them.
    Resources(Box<kvs::client::Watch>, Vec<u8>),
    /// A listener of the journal has been sent these inactive jobs.
    Told(Box<Listener>, HashSet<JobId>),
    /// A command for a job has ended on a rank.
    Ran(crew::Duty, JobId, u32, crew::End),
    /// Nodes of a job that have ended housekeeping are not to wait for others any more.
    Release(JobId),
    /// A time limit of a prolog or epilog is over.
    Limit(crew::Duty, JobId, perilog::Limit),
    /// What a prolog or epilog has come to, and on which hosts it failed; they are drained.
    Judged(JobId, String, Box<procedure::Verdict>),
    /// Something for a plugin has come up.
    Tapped(jobtap::News),
    /// An inactive job may have become too old to be kept.
    Aged,
    Nothing,
}

/// The module's state.
pub(crate) struct Manager {
    handle: Handle,
    jobs: HashMap<JobId, Job>,
    max_id: u64,
    batch: Batch,
    committing: bool,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    journal: Journal,
    waiting: depend::Waiting,
    /// Eligible jobs in SCHED state without an open alloc request.
    pending: BTreeSet<QueueKey>,
    sched: alloc::Scheduler,
    exec: start::ExecService,
    queues: queues::Queues,
    /// When the instance ends: 0 is never, nothing is not known.
    expiration: Option<f64>,
    waits: wait::Waits,
    idle_waiters: Vec<Message>,
    history: history::History,
    /// Guests learn of their own jobs alone.
    is_private: bool,
    past: past::Past,
    archive: archive::Archive,
    purge: purge::Purge,
    perilogs: perilog::Perilogs,
    housekeeping: housekeeping::Housekeeping,
    singletons: singleton::Singletons,
    taps: jobtap::Taps,
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle, mut inbox, ..
    } = ctx;
    let config: Value = handle
        .call("config.get", client::Node::Any, &json!({}))
        .await
        .unwrap_or_default();
    let (raw, plugins) = (config.clone(), jobtap::directives(&config));
    let plugins = plugins.map_err(ModuleError::invalid)?;
    let config = config::Config::parse(&config).map_err(ModuleError::invalid)?;
    let uri = handle.getattr("local-uri").await.ok();
    let mut manager = Manager {
        handle,
        jobs: HashMap::new(),
        max_id: 0,
        batch: Batch::default(),
        committing: false,
        work: FuturesUnordered::new(),
        journal: Journal::default(),
        waiting: depend::Waiting::default(),
        pending: BTreeSet::new(),
        sched: alloc::Scheduler::default(),
        exec: start::ExecService::default(),
        queues: queues::Queues::new(config.queues),
        expiration: None,
        waits: wait::Waits::default(),
        idle_waiters: Vec::new(),
        history: history::History::default(),
        is_private: config.is_private,
        past: past::Past::default(),
        archive: archive::Archive::default(),
        purge: purge::Purge::default(),
        perilogs: perilog::Perilogs::default(),
        housekeeping: housekeeping::Housekeeping::default(),
        singletons: singleton::Singletons::default(),
        taps: jobtap::Taps::default(),
    };
    manager.perilogs.config = config.perilogs;
    manager.housekeeping.config = config.housekeeping;
    let stop = config.table.stop_queues_on_restart;
    manager.restore_queues(stop).await?;
    manager
        .load_configured(plugins, raw, uri)
        .map_err(ModuleError::invalid)?;
    manager.restore().await?;
    manager.watch_lifetime();
    manager.purge.limits = config.table.purge;
    manager.keep_limits();
    loop {
        tokio::select! {
            // In one order, so that runs can be repeated.
            biased;
            Some(done) = manager.work.next(), if !manager.work.is_empty() => manager.done(done)?,
            msg = inbox.recv() => match msg {
                Some(msg) => {
                    manager.message(&msg);
                    while let Some(msg) = inbox.try_recv() {
                        manager.message(&msg);
                    }
                }
                None => break,
            },
        }
        manager.flush();
        manager.journal.flush(&manager.handle);
    }
    manager.save_queues();
    // What has been posted is stored before the module ends.
    while manager.committing || !manager.batch.is_empty() {
        manager.flush();
        if let Some(done) = manager.work.next().await {
            manager.done(done)?;
        }
        manager.journal.flush(&manager.handle);
    }
    Ok(())
}

/// Severities of log entries (RFC 5424).
const LOG_ERR: u8 = libc::LOG_ERR as u8;
const LOG_INFO: u8 = libc::LOG_INFO as u8;
const LOG_DEBUG: u8 = libc::LOG_DEBUG as u8;

fn log(handle: &Handle, severity: u8, text: &str) {
    handle.say("job-manager", severity, text);
}

fn now() -> f64 {
    eventlog::timestamp(SystemTime::now())
}

impl Manager {
    /// Post an event that happens now.
    fn post(&mut self, id: JobId, name: &str, context: Value) {
        let mut event = Event::new(now(), name);
        if !context.is_null() {
            event = event.with_context(context);
        }
        self.post_event(id, event);
    }

    fn post_event(&mut self, id: JobId, event: Event) {
        let Some(event) = self.taps.defer(id, event) else {
            return;
        };
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (before, turns) = (job.state, job.turns);
        let old_key = job.queue_key();
        job.apply(&event);
        // The submit event is stored by ingest.
        if event.name != "submit" {
            self.batch.event(id, &event);
        }
        self.journal.publish(job, &event);
        let has_turned = match event.name.as_str() {
            "priority" => before == JobState::Sched,
            "dependency-remove" => before == JobState::Depend,
            _ => false,
        };
        if job.state != before || has_turned {
            job.turns += 1;
            self.pending.remove(&old_key);
        }
        let (has_started, has_finished) = (event.name == "start", event.name == "finish");
        let told = (!self.taps.is_plain()).then(|| event.clone());
        job.events.push(event);
        if has_finished {
            self.begin_epilog(id);
        }
        if let Some(event) = told {
            self.tell(id, &event, before);
        }
        match self.jobs.get(&id) {
            Some(_) if self.taps.holds(id) => {}
            Some(job) if job.turns != turns => self.act(id),
            Some(job) if job.state == JobState::Cleanup => self.act_cleanup(id),
            _ => {}
        }
        if has_started {
            self.progress(id, depend::Progress::Started);
        }
    }

    /// Do what the state of `id` calls for.
    fn act(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (state, may_go_on) = (job.state, job.dependencies.is_empty());
        match state {
            JobState::New => {}
            JobState::Depend => {
                if may_go_on {
                    self.post(id, "depend", Value::Null);
                }
            }
            JobState::Priority => {
                let is_default = self.taps.has(jobtap::Builtin::PriorityDefault);
                if !is_default || self.is_tapped("job.state.priority") {
                    // A plugin has not said it yet.
                    return;
                }
                let Some(job) = self.jobs.get(&id) else {
                    return;
                };
                let priority = job.default_priority();
                self.post(id, "priority", json!({ "priority": priority }));
            }
            JobState::Sched if self.allocate_beside(id) => {}
            JobState::Sched => self.enqueue(id),
            JobState::Run => {
                self.begin_prolog(id);
                // The resources must be stored before shells can look for them.
                self.batch.after(After::Start(id));
            }
            JobState::Cleanup => self.act_cleanup(id),
            JobState::Inactive => self.retire(id),
        }
    }

    fn act_cleanup(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.state != JobState::Cleanup {
            return;
        }
        match job.alloc {
            Alloc::Queued => job.alloc = Alloc::None,
            // The answer to the cancellation comes back here.
            Alloc::Requested => return self.cancel_alloc(id),
            Alloc::None | Alloc::Granted => {}
        }
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.exec == Exec::Requested || job.perilogs > 0 {
            return;
        }
        if job.exec == Exec::None && restart::must_reattach(job) {
            // Its shells have to be seen to their end first.
            return self.start(id);
        }
        if job.alloc == Alloc::Granted {
            self.release(id);
            self.post(id, "free", Value::Null);
            return;
        }
        self.post(id, "clean", Value::Null);
    }

    /// A job has become inactive.
    fn retire(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        let ended = past::Ended::of(&job.events);
        self.past.add(id, ended);
        self.progress(id, depend::Progress::Ended(ended.outcome));
        self.next_singleton(&job);
        self.tell_destroyed(&job, true);
        self.waits.ended(&self.handle, &job);
        self.journal.retired(job);
        self.check_idle();
        self.keep_limits();
    }

    fn owner(&self, id: JobId) -> u32 {
        self.jobs.get(&id).map_or(0, |job| job.userid)
    }

    /// Commit what has gathered, unless a commit is on its way.
    fn flush(&mut self) {
        if self.committing || self.batch.is_empty() {
            return;
        }
        let (txn, after) = self.batch.take();
        if txn.is_empty() {
            return self.follow(after);
        }
        self.committing = true;
        let commit = kvs::client::commit(&self.handle, Some(kvs::PRIMARY), &txn);
        self.work.push(Box::pin(async move {
            Done::Committed(after, commit.await.map(drop))
        }));
    }

    /// Do what waited for a batch to be stored.
    fn follow(&mut self, after: Vec<After>) {
        for step in after {
            match step {
                After::Start(id) if self.launch_perilog(id) => {}
                After::Start(id) => self.start(id),
                After::Purged(ids) => self.purged(&ids),
                After::Epilog(id) => {
                    self.launch_perilog(id);
                }
                After::Housekeep(id) => self.housekeep(id),
                After::Recorded(id) => self.recorded(id),
                After::Tell(listener, ids) => self.tell_listener(listener, ids),
                After::Archived(number) => self.archive.stored(number),
                After::Respond(request, answer) if answer.is_null() => {
                    self.handle.respond_ok(&request);
                }
                After::Respond(request, answer) => self.handle.respond(&request, &answer),
            }
        }
    }

    fn done(&mut self, done: Done) -> ModuleResult {
        match done {
            Done::Committed(after, Ok(())) => {
                self.committing = false;
                self.follow(after);
                Ok(())
            }
            Done::Committed(_, Err(e)) => Err(ModuleError::new("cannot store job events", e)),
            Done::Due(id, description) => {
                self.settle(id, &description, depend::Verdict::Satisfied);
                Ok(())
            }
            Done::Asked(change, topic, answer) => {
                self.asked(*change, topic, answer);
                Ok(())
            }
            Done::Unexpired(id, e) => {
                self.unexpired(id, &e);
                Ok(())
            }
            Done::Resources(watch, text) => {
                self.resources(*watch, &text);
                Ok(())
            }
            Done::Told(listener, told) => {
                self.told(*listener, &told);
                Ok(())
            }
            Done::Ran(crew::Duty::Housekeeping, id, rank, _) => {
                self.housekept(id, rank);
                Ok(())
            }
            Done::Release(id) => {
                self.release_ready(id);
                Ok(())
            }
            Done::Ran(duty, id, rank, end) => {
                self.perilog_ran(duty, id, rank, &end);
                Ok(())
            }
            Done::Limit(duty, id, limit) => {
                self.perilog_limit(duty, id, limit);
                Ok(())
            }
            Done::Judged(id, hosts, verdict) => {
                self.finish_perilog(id, &hosts, &verdict);
                Ok(())
            }
            Done::Tapped(news) => {
                self.tapped(news);
                Ok(())
            }
            Done::Aged => {
                self.aged();
                Ok(())
            }
            Done::Nothing => Ok(()),
        }
    }

    fn message(&mut self, msg: &Message) {
        if msg.is_response() {
            match msg.method() {
                "alloc" => self.alloc_response(msg),
                "start" => self.start_response(msg),
                // Free and cancel have no answers that matter (RFC 27).
                _ => {}
            }
            return;
        }
        if !msg.is_request() {
            return;
        }
        match self.request(msg) {
            Ok(Some(Value::Null)) => self.handle.respond_ok(msg),
            Ok(Some(value)) => self.handle.respond(msg, &value),
            Ok(None) => {}
            Err(e) => self.handle.respond_error(msg, &e),
        }
    }

    /// Handle a request; `None` if it is answered later.
    fn request(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        match msg.method() {
            "submit" => self.submit(msg),
            "getinfo" => {
                self.require_openness(msg)?;
                Ok(Some(json!({ "max_jobid": self.max_id })))
            }
            "sched-hello" => self.sched_hello(msg),
            "sched-ready" => self.sched_ready(msg).map(Some),
            "exec-hello" => self.exec_hello(msg).map(Some),
            "events-journal" => self.follow_journal(msg).map(|()| None),
            "events-journal-cancel" => {
                self.journal.cancel(&self.handle, msg);
                Ok(None)
            }
            "raise" => self.raise_request(msg).map(Some),
            "raiseall" => self.raise_all(msg).map(Some),
            "kill" => self.kill(msg).map(Some),
            "killall" => self.kill_all(msg).map(Some),
            "urgency" => self.urgency(msg).map(Some),
            "update" => self.update(msg),
            "memo" => self.memo(msg),
            "housekeeping-kill" => self.housekeeping_kill(msg).map(Some),
            "purge" => self.purge_request(msg),
            "archive" => self.archive(msg),
            "purge-id" => self.purge_id(msg),
            "wait" => self.waits.wait(msg),
            "history.get" => self.history.get(msg).map(Some),
            "list" => self.list(msg).map(Some),
            "getattr" => self.getattr(msg),
            "resource-status" => self.resource_status().map(Some),
            "alloc-query" => Ok(Some(self.alloc_query())),
            "stats-get" => {
                self.require_openness(msg)?;
                Ok(Some(self.stats()))
            }
            "queue-list" => Ok(Some(self.queue_list())),
            "queue-status" => self.queue_status(msg).map(Some),
            "queue-enable" => self.queue_enable(msg).map(Some),
            "queue-start" => self.queue_start(msg).map(Some),
            "jobtap" => self.jobtap(msg).map(Some),
            "jobtap-query" => self.jobtap_query(msg).map(Some),
            "config-reload" => self.reload(msg).map(Some),
            "drain" => self.idle(msg, false),
            "idle" => self.idle(msg, true),
            "disconnect" => {
                self.disconnect(msg);
                Ok(None)
            }
            "post-event.post" if self.taps.has(jobtap::Builtin::PostEvent) => {
                self.post_event_request(msg).map(|()| Some(Value::Null))
            }
            _ => self.serve_by_plugin(msg),
        }
    }

    fn disconnect(&mut self, msg: &Message) {
        self.journal.disconnect(msg);
        self.waits.disconnect(msg);
        self.sched_disconnect(msg);
        self.idle_waiters.retain(|req| !req.is_same_rpc(msg, None));
    }
}
