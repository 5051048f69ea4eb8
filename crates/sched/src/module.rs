//! The modules `sched-simple` and `sched-fifo` (first come, first served in priority order) and `sched-backfill` (EASY:
//! those behind the head of the queue may begin if they end before it can), by RFC 27 and 28.
//!
//! Jobs that wait are annotated with the time at which they are expected to begin (`sched.t_estimate`), the head of the queue
//! also with the reason (`sched.reason_pending`). Under `sched-backfill` only the head has an estimate, and jobs that overtook
//! it name it (`sched.backfill`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, btree_map};
use std::time::{Duration, SystemTime};

use client::module::{Context, ModuleError, ModuleResult};
use client::services::job_manager::Presence;
use client::{Handle, Inbox, Node, RpcStream};
use formats::constraint::Constraint;
use formats::eventlog;
use formats::idset::Idset;
use formats::jobid::JobId;
use formats::jobspec::Jobspec;
use formats::resource_set::ResourceSet;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use wire::{Message, RpcError};

use crate::acquire::{Update, ranks};
use crate::forecast::{Claim, Forecast, Running};
use crate::manager::{self, kind};
use crate::pool::{NoFit, Pool};
use crate::settings::Settings;

/// Estimates are made this long after something has changed, or later: they may take a twentieth of the time.
const CALM: Duration = Duration::from_millis(100);

/// Jobs whose beginning is estimated, from the head of the queue.
const ESTIMATED: usize = 100;

/// Kinds of requests of which one that failed makes the others of a pass hopeless.
const HOPELESS: usize = 64;

/// Debug flags, as upstream's test files set them (`flux module debug`).
mod pretend {
    /// Requests are denied.
    pub(super) const DENY: u32 = 1;
    /// All jobs that wait are annotated with the reason and their place in the queue, and none with an estimate.
    pub(super) const PLACES: u32 = 2;
    /// New ends of jobs are refused.
    pub(super) const KEEP_ENDS: u32 = 4;
}

type Key = (Reverse<i64>, JobId);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Fifo,
    Backfill,
}

/// What a waiting job is annotated with.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Note {
    /// Whether the job is known to wait for resources.
    waits: bool,
    ahead: Option<usize>,
    estimate: Option<f64>,
}

impl Note {
    /// The annotations that make `self` into `next`; nothing if it is the same.
    fn changes(&self, next: &Self) -> Option<Map<String, Value>> {
        let mut changes = Map::new();
        if self.waits != next.waits {
            let reason = next.waits.then(|| NoFit::Busy.to_string());
            changes.insert("reason_pending".into(), json!(reason));
        }
        if self.ahead != next.ahead {
            changes.insert("jobs_ahead".into(), json!(next.ahead));
        }
        if self.estimate != next.estimate {
            changes.insert("t_estimate".into(), json!(next.estimate));
        }
        (!changes.is_empty()).then_some(changes)
    }
}

struct Pending {
    request: Message,
    claim: Claim,
    note: Note,
}

impl Pending {
    /// Say what is new about a job that goes on waiting.
    fn annotate(&mut self, handle: &Handle, id: JobId, next: Note) {
        if let Some(changes) = self.note.changes(&next) {
            let value = json!({ "sched": changes });
            manager::answer(
                handle,
                &self.request,
                id,
                kind::ANNOTATE,
                ("annotations", value),
            );
            self.note = next;
        }
    }
}

struct Scheduler {
    handle: Handle,
    name: String,
    policy: Policy,
    settings: Settings,
    pool: Pool,
    running: Running,
    /// Counts changes of what is free, and of when something will be.
    changes: u64,
    /// The changes, the head of the queue, and when it can begin.
    shadow: Option<(u64, JobId, Option<f64>)>,
    /// The job that was told when it begins, as the head of the queue.
    promised: Option<JobId>,
    /// When estimates are made anew.
    estimates: Option<Instant>,
    /// How long they took.
    estimating: Duration,
    /// When the instance's own resources end; 0 is never.
    expiration: f64,
    queue: BTreeMap<Key, Pending>,
    keys: BTreeMap<JobId, Key>,
    /// The manager that has been told of this scheduler; nothing when it has gone.
    manager: Option<Presence>,
}

/// Entry point of `sched-simple`, and of `sched-fifo`, which is the same.
pub async fn fifo(ctx: Context) -> ModuleResult {
    serve(ctx, Policy::Fifo).await
}

/// Entry point of `sched-backfill`.
pub async fn backfill(ctx: Context) -> ModuleResult {
    serve(ctx, Policy::Backfill).await
}

async fn serve(ctx: Context, policy: Policy) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        name,
        args,
    } = ctx;
    let settings = Settings::from_args(&args)?;
    let mut resources = handle.stream("resource.acquire", Node::Any, &json!({}));
    let mut early = Vec::new();
    let first = tokio::select! {
        first = first(&mut resources) => first?,
        // An instance may end before its resources are known.
        () = manager::collect(&mut inbox, &mut early) => return Ok(()),
    };
    let (all, up) = first;
    let mut sched = Scheduler {
        handle,
        name,
        policy,
        settings,
        expiration: all.expiration,
        pool: Pool::new(all, up),
        running: Running::default(),
        changes: 0,
        shadow: None,
        promised: None,
        estimates: None,
        estimating: Duration::ZERO,
        queue: BTreeMap::new(),
        keys: BTreeMap::new(),
        manager: None,
    };
    early.iter().for_each(|msg| sched.message(msg));
    sched.schedule();
    loop {
        if sched.manager.is_none() {
            match hello(&mut sched).await {
                Ok(manager) => sched.manager = Some(manager),
                Err(e) if manager::is_absence(&e) => {}
                Err(e) => return Err(e),
            }
        }
        let estimates = sched.estimates;
        tokio::select! {
            () = tokio::time::sleep(manager::AGAIN), if sched.manager.is_none() => {}
            () = Presence::gone(&mut sched.manager) => sched.orphan(&mut inbox),
            msg = inbox.recv() => match msg {
                Some(msg) => {
                    sched.message(&msg);
                    while let Some(msg) = inbox.try_recv() {
                        sched.message(&msg);
                    }
                }
                None => return Ok(()),
            },
            update = resources.next() => match update {
                Some(Ok(msg)) => sched.update(&msg)?,
                Some(Err(e)) => return Err(ModuleError::new("resource.acquire", e)),
                None => return Err(ModuleError::invalid("resource.acquire ended")),
            },
            () = tokio::time::sleep_until(estimates.unwrap_or_else(Instant::now)), if estimates.is_some() => {
                sched.estimate();
                continue;
            }
        }
        sched.schedule();
    }
}

/// What the instance has, and which ranks may be used.
async fn first(resources: &mut RpcStream) -> Result<(ResourceSet, Idset), ModuleError> {
    let first = match resources.next().await {
        Some(Ok(msg)) => msg.json::<Update>()?,
        Some(Err(e)) => return Err(ModuleError::new("resource.acquire", e)),
        None => return Err(ModuleError::invalid("resource.acquire gave nothing")),
    };
    let all = first.resources.unwrap_or(Value::Null);
    let all = ResourceSet::try_from(all).map_err(|e| ModuleError::new("resource.acquire", e))?;
    let up = match first.up.as_deref() {
        Some(text) => ranks(text, || all.ranks())?,
        None => Idset::new(),
    };
    Ok((all, up))
}

/// Learn which jobs hold resources, then say that allocations can be asked for.
async fn hello(sched: &mut Scheduler) -> Result<Presence, ModuleError> {
    let (manager, holders) = manager::hello(&sched.handle, sched.settings.partial_ok).await?;
    sched.pool.release_all();
    sched.running.clear();
    for holder in holders {
        let set = ResourceSet::try_from(holder.r);
        let mut set = set.map_err(|e| ModuleError::new("sched-hello", e))?;
        if let Some(freed) = holder.free {
            let all = set.ranks();
            set.remove_ranks(&ranks(&freed, || all)?);
        }
        sched.debug(|| {
            let id = holder.id.f58();
            let (priority, userid, t_submit) = (holder.priority, holder.userid, holder.t_submit);
            format!("hello: id={id} priority={priority} userid={userid} t_submit={t_submit:.1}")
        });
        sched.pool.take(&set);
        sched.running.add(holder.id, set);
    }
    sched.changes += 1;
    manager::ready(&sched.handle, &sched.settings.depth.to_value()).await?;
    let text = format!(
        "ready: queue-depth={} {}",
        sched.settings.depth,
        sched.pool.all()
    );
    sched.handle.say(&sched.name, libc::LOG_DEBUG as u8, &text);
    Ok(manager)
}

fn now() -> f64 {
    eventlog::timestamp(SystemTime::now())
}

impl Scheduler {
    fn debug(&self, text: impl FnOnce() -> String) {
        if self.settings.verbose {
            self.handle.say(&self.name, libc::LOG_DEBUG as u8, &text());
        }
    }

    fn pretends(&self, flag: u32) -> bool {
        self.handle.debug_flags() & flag != 0
    }

    fn update(&mut self, msg: &Message) -> ModuleResult {
        let update: Update = msg.json()?;
        let ranks = |text: &str| ranks(text, Idset::new);
        if let Some(text) = update.up {
            self.pool.set_up(&ranks(&text)?);
        }
        if let Some(text) = update.down {
            self.pool.set_down(&ranks(&text)?);
        }
        if let Some(text) = update.shrink {
            self.pool.shrink(&ranks(&text)?);
        }
        if let Some(expiration) = update.expiration {
            self.expiration = expiration;
        }
        self.changes += 1;
        Ok(())
    }

    fn message(&mut self, msg: &Message) {
        if !msg.is_request() {
            return;
        }
        let result = match msg.topic() {
            "sched.alloc" => self.enqueue(msg),
            "sched.free" => self.free(msg),
            "sched.cancel" => self.cancel(msg),
            "sched.prioritize" => self.prioritize(msg),
            "sched.expiration" => self.expire(msg),
            "sched.resource-status" => {
                let mut all = self.pool.all().clone();
                all.scheduling = None;
                let status = json!({
                    "all": all.to_value(),
                    "allocated": self.pool.allocated().to_value(),
                    "down": self.pool.down().to_value(),
                });
                self.handle.respond(msg, &status);
                Ok(())
            }
            "feasibility.check" => {
                self.handle.respond_result(msg, self.feasible(msg));
                Ok(())
            }
            topic if topic.strip_suffix(".stats-get") == Some(&self.name) => {
                self.handle
                    .respond(msg, &json!({ "pending_jobs": self.queue.len() }));
                Ok(())
            }
            topic if topic.ends_with(".disconnect") => Ok(()),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        if let Err(e) = result {
            self.handle.respond_error(msg, &e);
        }
    }

    /// Without the job manager that asked, nothing that was asked counts; what is held, its next life tells.
    fn orphan(&mut self, inbox: &mut Inbox) {
        for msg in manager::without_managers(inbox) {
            self.message(&msg);
        }
        self.queue.clear();
        self.keys.clear();
        self.manager = None;
    }

    fn enqueue(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            priority: i64,
            jobspec: Value,
        }
        let Request {
            id,
            priority,
            jobspec,
        } = msg.json()?;
        match parse(jobspec) {
            Ok(claim) => {
                let pending = Pending {
                    request: msg.clone(),
                    claim,
                    note: Note::default(),
                };
                self.keys.insert(id, (Reverse(priority), id));
                self.queue.insert((Reverse(priority), id), pending);
            }
            Err(why) => self.deny(msg, id, why),
        }
        Ok(())
    }

    fn deny(&self, request: &Message, id: JobId, why: String) {
        manager::answer(&self.handle, request, id, kind::DENY, ("note", why.into()));
    }

    fn free(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            #[serde(rename = "R")]
            r: Value,
            #[serde(default, rename = "final")]
            is_final: bool,
        }
        let Request { id, r, is_final } = msg.json()?;
        let set = ResourceSet::try_from(r).map_err(|e| RpcError::proto(e.to_string()))?;
        self.debug(|| {
            let last = if is_final { " (final)" } else { "" };
            format!("free: {set}{last}")
        });
        self.pool.release(&set);
        self.running.free(id, &set, is_final);
        self.changes += 1;
        Ok(())
    }

    fn cancel(&mut self, msg: &Message) -> Result<(), RpcError> {
        let id = manager::cancelled(msg)?;
        let pending = self
            .keys
            .remove(&id)
            .and_then(|key| self.queue.remove(&key));
        if let Some(mut pending) = pending {
            pending.annotate(&self.handle, id, Note::default());
            let nothing = ("", Value::Null);
            manager::answer(&self.handle, &pending.request, id, kind::CANCEL, nothing);
        }
        Ok(())
    }

    fn prioritize(&mut self, msg: &Message) -> Result<(), RpcError> {
        for (id, priority) in manager::prioritized(msg)? {
            let Some(key) = self.keys.get_mut(&id) else {
                continue;
            };
            if let Some(pending) = self.queue.remove(key) {
                *key = (Reverse(priority), id);
                self.queue.insert(*key, pending);
            }
        }
        Ok(())
    }

    /// A job that runs has another end.
    fn expire(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            expiration: f64,
        }
        let Request { id, expiration } = msg.json()?;
        if expiration < 0.0 {
            let why = format!("expiration: {expiration} is before all time");
            return Err(RpcError::new(libc::EINVAL, why));
        }
        if self.pretends(pretend::KEEP_ENDS) {
            let why = "Rejecting expiration update for testing";
            return Err(RpcError::new(libc::EINVAL, why));
        }
        self.running.set_end(id, expiration);
        self.changes += 1;
        self.handle.respond_ok(msg);
        Ok(())
    }

    fn feasible(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            jobspec: Value,
        }
        let invalid = |why: String| RpcError::new(libc::EINVAL, why);
        let Request { jobspec } = msg.json()?;
        let claim = parse(jobspec).map_err(invalid)?;
        self.pool
            .check(&claim.counts, claim.constraint.as_ref())
            .map_err(|e| invalid(e.to_string()))?;
        Ok(json!({}))
    }

    /// Allocate from the head of the queue until one has to wait, then, if that is the policy, what fits around it.
    fn schedule(&mut self) {
        if self.manager.is_none() {
            return;
        }
        while let Some((key, _)) = self.queue.first_key_value() {
            let key = *key;
            if self.try_alloc(key, None) {
                continue;
            }
            if self.policy == Policy::Backfill {
                self.fill_around(key);
            }
            break;
        }
        self.annotate();
    }

    /// Whether the job does not wait any more: it has its resources, or never can.
    fn try_alloc(&mut self, key: Key, overtakes: Option<JobId>) -> bool {
        let is_denied = self.pretends(pretend::DENY);
        let btree_map::Entry::Occupied(entry) = self.queue.entry(key) else {
            return true;
        };
        let id = key.1;
        let claim = &entry.get().claim;
        let outcome = match is_denied {
            true => Err(NoFit::Never("DEBUG_FAIL_ALLOC".to_owned())),
            false => self.pool.alloc(&claim.counts, claim.constraint.as_ref()),
        };
        let outcome = match outcome {
            Err(NoFit::Busy) => return false,
            outcome => outcome,
        };
        let Pending {
            request,
            claim,
            note,
        } = entry.remove();
        self.keys.remove(&id);
        match outcome {
            Ok(mut set) => {
                set.starttime = now();
                set.expiration = match claim.duration {
                    d if d <= 0.0 => self.expiration,
                    d => set.starttime + d,
                };
                let mut notes = note.changes(&Note::default()).unwrap_or_default();
                notes.insert("resource_summary".into(), set.to_string().into());
                if let Some(head) = overtakes {
                    notes.insert("backfill".into(), head.f58().into());
                }
                let answer = json!({
                    "id": id,
                    "type": kind::SUCCESS,
                    "annotations": { "sched": notes },
                    "R": set.to_value(),
                });
                self.handle.respond(&request, &answer);
                self.running.add(id, set);
                self.changes += 1;
            }
            Err(never) => self.deny(&request, id, never.to_string()),
        }
        true
    }

    /// When the head of the queue can begin at last, if those that run use all their time.
    fn shadow(&mut self, head: Key) -> Option<f64> {
        let state = (self.changes, head.1);
        if let Some((changes, id, shadow)) = self.shadow
            && (changes, id) == state
        {
            return shadow;
        }
        let claim = &self.queue.get(&head)?.claim;
        let placed = Forecast::new(&self.pool, &self.running, now()).place(claim);
        let shadow = placed.ok().flatten();
        self.shadow = Some((state.0, state.1, shadow));
        shadow
    }

    /// Begin jobs behind the head that end before it can begin. Requests like one that found no place are not tried again.
    fn fill_around(&mut self, head: Key) {
        let Some(shadow) = self.shadow(head) else {
            return;
        };
        let now = now();
        let in_time = |claim: &Claim| claim.duration > 0.0 && now + claim.duration <= shadow;
        let mut hopeless: Vec<Claim> = Vec::new();
        let candidates: Vec<Key> = self.queue.keys().skip(1).copied().collect();
        for key in candidates {
            let Some(Pending { claim, .. }) = self.queue.get(&key) else {
                continue;
            };
            if !in_time(claim) || hopeless.iter().any(|other| other.is_like(claim)) {
                continue;
            }
            let claim = claim.clone();
            if !self.try_alloc(key, Some(head.1)) && hopeless.len() < HOPELESS {
                hopeless.push(claim);
            }
        }
        // What began is back before the head begins.
        if let Some((changes, ..)) = &mut self.shadow {
            *changes = self.changes;
        }
    }

    /// Tell at once what costs little, and see to it that the rest is told in time.
    fn annotate(&mut self) {
        let head = self.queue.first_key_value().map(|(key, _)| *key);
        if self.policy == Policy::Backfill {
            self.promise(head);
        }
        if head.is_none() {
            return;
        }
        let places = self.pretends(pretend::PLACES);
        let told = if places { usize::MAX } else { 1 };
        for (place, (key, pending)) in self.queue.iter_mut().take(told).enumerate() {
            let next = Note {
                waits: true,
                ahead: places.then_some(place),
                estimate: pending.note.estimate,
            };
            pending.annotate(&self.handle, key.1, next);
        }
        if self.policy == Policy::Fifo && !places && self.estimates.is_none() {
            self.estimates = Some(Instant::now() + CALM.max(self.estimating * 20));
        }
    }

    /// The head of the queue alone is told when it begins.
    fn promise(&mut self, head: Option<Key>) {
        let shadow = head.and_then(|head| self.shadow(head));
        let promised = std::mem::replace(&mut self.promised, head.map(|head| head.1));
        let former = promised.filter(|id| Some(*id) != self.promised);
        let former = former.and_then(|id| self.keys.get(&id).copied());
        for (key, estimate) in former
            .map(|key| (key, None))
            .into_iter()
            .chain(head.map(|key| (key, shadow)))
        {
            if let Some(pending) = self.queue.get_mut(&key) {
                let next = Note {
                    estimate,
                    ..pending.note
                };
                pending.annotate(&self.handle, key.1, next);
            }
        }
    }

    fn estimate(&mut self) {
        self.estimates = None;
        let began = Instant::now();
        let forecast = Forecast::new(&self.pool, &self.running, now());
        let claims = self
            .queue
            .values()
            .take(ESTIMATED)
            .map(|pending| &pending.claim);
        let starts = forecast.starts(claims);
        let starts = starts.into_iter().chain(std::iter::repeat(None));
        for ((key, pending), start) in self.queue.iter_mut().zip(starts) {
            let next = Note {
                estimate: start,
                ..pending.note
            };
            pending.annotate(&self.handle, key.1, next);
        }
        self.estimating = began.elapsed();
    }
}

/// What a jobspec asks the scheduler for.
fn parse(jobspec: Value) -> Result<Claim, String> {
    let jobspec = Jobspec::from_value(jobspec).map_err(|e| e.to_string())?;
    let counts = jobspec.resource_counts().map_err(|e| e.to_string())?;
    let constraint = match jobspec.constraints() {
        Some(value) => Some(Constraint::from_value(value).map_err(|e| e.to_string())?),
        None => None,
    };
    Ok(Claim {
        counts,
        constraint,
        duration: jobspec.duration(),
    })
}
