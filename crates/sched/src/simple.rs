//! Module `sched-simple`: first come, first served in priority order, no backfill (RFC 27, 28).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use client::module::{Context, ModuleError, ModuleResult};
use client::services::job_manager::Presence;
use client::{Handle, Inbox, Node, RpcStream};
use formats::constraint::Constraint;
use formats::eventlog;
use formats::idset::Idset;
use formats::jobid::JobId;
use formats::jobspec::{Jobspec, ResourceCounts};
use formats::resource_set::ResourceSet;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::acquire::{Update, ranks};
use crate::manager::{self, kind};
use crate::pool::{NoFit, Pool};

type Key = (Reverse<i64>, JobId);

struct Pending {
    request: Message,
    counts: ResourceCounts,
    constraint: Option<Constraint>,
    duration: f64,
    annotated: bool,
}

struct Scheduler {
    handle: Handle,
    mode: Mode,
    pool: Pool,
    /// When the instance's own resources end; 0 is never.
    expiration: f64,
    queue: BTreeMap<Key, Pending>,
    keys: BTreeMap<JobId, Key>,
    /// The manager that has been told of this scheduler; nothing when it has gone.
    manager: Option<Presence>,
}

/// How many jobs the manager offers at a time (RFC 27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Unlimited,
    Limited(u32),
}

impl Mode {
    /// Module argument `mode=unlimited` or `mode=limited=N`.
    fn from_args(args: &[String]) -> Result<Self, ModuleError> {
        let mut mode = Self::Unlimited;
        // What is logged is not up to this module.
        for arg in args.iter().filter(|arg| !arg.starts_with("log-level=")) {
            let Some(text) = arg.strip_prefix("mode=") else {
                return Err(ModuleError::unknown_argument(arg));
            };
            let limit = text.strip_prefix("limited=").map(str::parse);
            mode = match (text, limit) {
                ("unlimited", _) => Self::Unlimited,
                (_, Some(Ok(limit))) if limit > 0 => Self::Limited(limit),
                _ => {
                    let why = format!("{arg:?}: a mode is unlimited or limited=N");
                    return Err(ModuleError::invalid(why));
                }
            };
        }
        Ok(mode)
    }

    /// What `sched-ready` says.
    fn to_value(self) -> Value {
        match self {
            Self::Unlimited => json!({ "mode": "unlimited" }),
            Self::Limited(limit) => json!({ "mode": "limited", "limit": limit }),
        }
    }
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    let mode = Mode::from_args(&args)?;
    let mut resources = handle.stream("resource.acquire", Node::Any, &json!({}));
    let mut early = Vec::new();
    let mut sched = tokio::select! {
        started = start(&handle, mode, &mut resources) => started?,
        // An instance may end before its resources are known.
        () = manager::collect(&mut inbox, &mut early) => return Ok(()),
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
        }
        sched.schedule();
    }
}

async fn start(
    handle: &Handle,
    mode: Mode,
    resources: &mut RpcStream,
) -> Result<Scheduler, ModuleError> {
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
    Ok(Scheduler {
        handle: handle.clone(),
        mode,
        expiration: all.expiration,
        pool: Pool::new(all, up),
        queue: BTreeMap::new(),
        keys: BTreeMap::new(),
        manager: None,
    })
}

/// Learn which jobs hold resources, then say that allocations can be asked for.
async fn hello(sched: &mut Scheduler) -> Result<Presence, ModuleError> {
    let (manager, holders) = manager::hello(&sched.handle).await?;
    sched.pool.release_all();
    for holder in holders {
        let set = ResourceSet::try_from(holder.r);
        let mut set = set.map_err(|e| ModuleError::new("sched-hello", e))?;
        if let Some(freed) = holder.free {
            let all = set.ranks();
            set.remove_ranks(&ranks(&freed, || all)?);
        }
        sched.pool.take(&set);
    }
    manager::ready(&sched.handle, &sched.mode.to_value()).await?;
    Ok(manager)
}

fn now() -> f64 {
    eventlog::timestamp(SystemTime::now())
}

impl Scheduler {
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
            "sched.expiration" => {
                self.handle.respond_ok(msg);
                Ok(())
            }
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

    fn answer(&self, request: &Message, id: JobId, kind: u32, key: &str, value: Value) {
        manager::answer(&self.handle, request, id, kind, (key, value));
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
            Ok((counts, constraint, duration)) => {
                let request = msg.clone();
                let pending = Pending {
                    request,
                    counts,
                    constraint,
                    duration,
                    annotated: false,
                };
                self.keys.insert(id, (Reverse(priority), id));
                self.queue.insert((Reverse(priority), id), pending);
            }
            Err(why) => self.answer(msg, id, kind::DENY, "note", why.into()),
        }
        Ok(())
    }

    fn free(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(rename = "R")]
            r: Value,
        }
        let Request { r } = msg.json()?;
        let set = ResourceSet::try_from(r).map_err(|e| RpcError::proto(e.to_string()))?;
        self.pool.release(&set);
        Ok(())
    }

    fn cancel(&mut self, msg: &Message) -> Result<(), RpcError> {
        let id = manager::cancelled(msg)?;
        let pending = self
            .keys
            .remove(&id)
            .and_then(|key| self.queue.remove(&key));
        if let Some(pending) = pending {
            self.answer(&pending.request, id, kind::CANCEL, "", Value::Null);
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

    fn feasible(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            jobspec: Value,
        }
        let invalid = |why: String| RpcError::new(libc::EINVAL, why);
        let Request { jobspec } = msg.json()?;
        let (counts, constraint, _) = parse(jobspec).map_err(invalid)?;
        self.pool
            .check(&counts, constraint.as_ref())
            .map_err(|e| invalid(e.to_string()))?;
        Ok(json!({}))
    }

    /// Allocate from the head of the queue until one has to wait.
    fn schedule(&mut self) {
        if self.manager.is_none() {
            return;
        }
        while let Some(mut entry) = self.queue.first_entry() {
            let id = entry.key().1;
            let pending = entry.get_mut();
            match self
                .pool
                .alloc(&pending.counts, pending.constraint.as_ref())
            {
                Ok(mut set) => {
                    let pending = entry.remove();
                    self.keys.remove(&id);
                    set.starttime = now();
                    set.expiration = match (pending.duration, self.expiration) {
                        (d, end) if d <= 0.0 => end,
                        (d, _) => set.starttime + d,
                    };
                    let answer = json!({
                        "id": id,
                        "type": kind::SUCCESS,
                        "annotations": { "sched": { "resource_summary": set.to_string(), "reason_pending": null } },
                        "R": set.to_value(),
                    });
                    self.handle.respond(&pending.request, &answer);
                }
                Err(NoFit::Busy) => {
                    if !pending.annotated {
                        pending.annotated = true;
                        let note =
                            json!({ "sched": { "reason_pending": NoFit::Busy.to_string() } });
                        let request = pending.request.clone();
                        self.answer(&request, id, kind::ANNOTATE, "annotations", note);
                    }
                    return;
                }
                Err(never) => {
                    let pending = entry.remove();
                    self.keys.remove(&id);
                    let note = never.to_string().into();
                    self.answer(&pending.request, id, kind::DENY, "note", note);
                }
            }
        }
    }
}

/// What a jobspec asks the scheduler for.
fn parse(jobspec: Value) -> Result<(ResourceCounts, Option<Constraint>, f64), String> {
    let jobspec = Jobspec::from_value(jobspec).map_err(|e| e.to_string())?;
    let counts = jobspec.resource_counts().map_err(|e| e.to_string())?;
    let constraint = match jobspec.constraints() {
        Some(value) => Some(Constraint::from_value(value).map_err(|e| e.to_string())?),
        None => None,
    };
    Ok((counts, constraint, jobspec.duration()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let of = |arg: &str| Mode::from_args(&[arg.to_owned()]);
        assert_eq!(of("mode=limited=3"), Ok(Mode::Limited(3)));
        assert_eq!(of("mode=unlimited"), Ok(Mode::Unlimited));
        assert_eq!(Mode::from_args(&[]), Ok(Mode::Unlimited));
        for bad in ["mode=limited=0", "mode=limited", "mode=x", "x"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
