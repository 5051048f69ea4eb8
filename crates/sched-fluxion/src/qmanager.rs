//! Module `sched-fluxion-qmanager`: the job manager's scheduler (RFC 27), with the graph in `sched-fluxion-resource`.
//!
//! What is told here goes into the next [`Round`]; one is under way at a time. A request to allocate is answered when a
//! round has decided it, so one that is cancelled meanwhile may still succeed.

use std::collections::{BTreeMap, HashMap};

use client::module::{Context, ModuleError, ModuleResult};
use client::services::job_manager::Presence;
use client::{Handle, Inbox, Node, Rpc, RpcStream};
use formats::jobid::JobId;
use sched::manager::{self, kind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::options::configuration;
use crate::queues::Configured;
use crate::round::{Add, Free, Open, Outcome, Round, Running, Started};
use crate::source::failure;

/// Its name.
pub const NAME: &str = "sched-fluxion-qmanager";
const SCHEDULE: &str = "sched-fluxion-resource.schedule";
const NOTIFY: &str = "sched-fluxion-resource.notify";

/// A job that waits.
struct Pending {
    request: Message,
    queue: String,
    /// Whether the job was told when it starts.
    estimated: bool,
}

/// Why allocations cannot be asked for.
enum Unready {
    Manager(ModuleError),
    Graph(RpcError),
}

impl From<ModuleError> for Unready {
    fn from(e: ModuleError) -> Unready {
        Unready::Manager(e)
    }
}

/// How often things happened in a queue.
#[derive(Debug, Default, Clone, Serialize)]
struct Counts {
    pending: u64,
    running: u64,
    reserved: u64,
    rejected: u64,
    complete: u64,
    cancelled: u64,
    reprioritized: u64,
}

struct Scheduler {
    handle: Handle,
    queues: Configured,
    /// The job manager that has been told of this scheduler; nothing when it has gone.
    manager: Option<Presence>,
    pending: HashMap<JobId, Pending>,
    /// Jobs with resources, and their queues.
    running: HashMap<JobId, String>,
    next: Round,
    /// Whether there is something to do in the next round.
    due: bool,
    under_way: Option<Rpc>,
    counts: BTreeMap<String, Counts>,
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    let queues = Configured::read(&configuration(&handle).await?, &args)?;
    for warning in queues.warnings() {
        handle.say(NAME, 4, warning);
    }
    let mut resources = handle.stream(NOTIFY, Node::Any, &json!({}));
    let mut early = Vec::new();
    let known = tokio::select! {
        biased;
        // From here on the module counts as loaded: resources may take a while.
        () = manager::collect(&mut inbox, &mut early) => return Ok(()),
        known = resources.next() => known,
    };
    if !heard(&handle, known) {
        return Ok(());
    }
    handle.say(NAME, 7, "handshaking with sched-fluxion-resource completed");
    let mut sched = Scheduler {
        handle,
        queues,
        manager: None,
        pending: HashMap::new(),
        running: HashMap::new(),
        next: Round::default(),
        due: false,
        under_way: None,
        counts: BTreeMap::new(),
    };
    early.iter().for_each(|msg| sched.message(msg));
    sched.run(&mut inbox, &mut resources).await
}

/// Resources are gone when nothing more is told of them; whether there are any.
fn heard(handle: &Handle, told: Option<Result<Message, RpcError>>) -> bool {
    let told = told.unwrap_or_else(|| Err(RpcError::errno(libc::ENODATA)));
    told.inspect_err(|e| handle.say(NAME, 3, &failure(NOTIFY, e).text))
        .is_ok()
}

/// The answer to a call, if one is under way.
async fn answered(call: &mut Option<Rpc>) -> Result<Message, RpcError> {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

impl Scheduler {
    async fn run(mut self, inbox: &mut Inbox, resources: &mut RpcStream) -> ModuleResult {
        loop {
            if self.manager.is_none() {
                match self.hello().await {
                    Ok(manager) => {
                        self.manager = Some(manager);
                        self.handle
                            .say(NAME, 7, "handshaking with job-manager completed");
                    }
                    Err(Unready::Manager(e)) if manager::is_absence(&e) => {}
                    Err(Unready::Manager(e)) => return Err(e),
                    Err(Unready::Graph(e)) => return self.without_graph(&e),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(manager::AGAIN), if self.manager.is_none() => {}
                () = Presence::gone(&mut self.manager) => self.orphan(inbox),
                msg = inbox.recv() => match msg {
                    Some(msg) => {
                        self.message(&msg);
                        while let Some(msg) = inbox.try_recv() {
                            self.message(&msg);
                        }
                    }
                    None => return Ok(()),
                },
                told = resources.next() => {
                    if !heard(&self.handle, told) {
                        return Ok(());
                    }
                    self.due = true;
                }
                answer = answered(&mut self.under_way) => {
                    self.under_way = None;
                    match answer {
                        Ok(answer) => self.outcome(answer.json()?),
                        Err(e) => return self.without_graph(&e),
                    }
                }
            }
            self.start_round();
        }
    }

    fn start_round(&mut self) {
        if self.manager.is_some() && self.due && self.under_way.is_none() {
            self.due = false;
            let round = std::mem::take(&mut self.next);
            self.under_way = Some(self.handle.rpc(SCHEDULE, Node::Any, &round));
        }
    }

    /// The graph is gone, and this with it.
    fn without_graph(&self, error: &RpcError) -> ModuleResult {
        self.handle.say(NAME, 3, &failure(SCHEDULE, error).text);
        Ok(())
    }

    /// Learns which jobs hold resources and has the graph know it, then says that allocations can be asked for.
    async fn hello(&mut self) -> Result<Presence, Unready> {
        let (manager, holders) = manager::hello(&self.handle, true).await?;
        self.running = holders
            .iter()
            .map(|h| (h.id, self.queue_of_r(&h.r)))
            .collect();
        let running = holders.into_iter().map(|h| Running {
            id: h.id,
            r: h.r,
            free: h.free,
        });
        let open = Open {
            queues: self.queues.tables()?,
            running: running.collect(),
        };
        let round = Round {
            open: Some(open),
            ..Round::default()
        };
        let outcome = self.handle.call(SCHEDULE, Node::Any, &round).await;
        let outcome: Outcome = outcome.map_err(Unready::Graph)?;
        for (id, why) in outcome.lost {
            self.running.remove(&id);
            let note = format!("its resources cannot be had any more: {why}");
            self.handle.say(NAME, 3, &format!("job {id}: {note}"));
            let raise =
                json!({ "id": id, "type": "scheduler-restart", "severity": 0, "note": note });
            self.handle.notify("job-manager.raise", Node::Any, &raise);
        }
        for (id, queue) in &self.running {
            let text = format!("requeue success (queue={queue} id={})", id.0);
            self.handle.say(NAME, 7, &text);
        }
        manager::ready(&self.handle, &json!({ "mode": "unlimited" })).await?;
        Ok(manager)
    }

    /// The queue of a job that runs, if its R says which that was.
    fn queue_of_r(&self, r: &Value) -> String {
        let queue = r.pointer("/attributes/system/scheduler/queue");
        self.queues
            .resolve(queue.and_then(Value::as_str))
            .to_owned()
    }

    /// Without the job manager that asked, nothing that was asked counts; what is held, its next life tells.
    fn orphan(&mut self, inbox: &mut Inbox) {
        for msg in manager::without_managers(inbox) {
            self.message(&msg);
        }
        self.pending.clear();
        self.running.clear();
        self.next = Round::default();
        self.due = false;
        self.under_way = None;
        self.manager = None;
    }

    fn message(&mut self, msg: &Message) {
        if !msg.is_request() || msg.method() == "disconnect" {
            return;
        }
        let result = match msg.topic() {
            "sched.alloc" => self.alloc(msg),
            "sched.free" => self.free(msg),
            "sched.cancel" => self.cancel(msg),
            "sched.prioritize" => self.prioritize(msg),
            "sched.expiration" => self.extend(msg),
            "sched.resource-status" => {
                self.resource_status(msg);
                Ok(())
            }
            "sched-fluxion-qmanager.params" => {
                self.handle
                    .respond(msg, &json!({ "params": self.queues.to_value() }));
                Ok(())
            }
            "sched-fluxion-qmanager.stats-get" => {
                self.handle.respond(msg, &self.stats());
                Ok(())
            }
            "sched-fluxion-qmanager.stats-clear" => {
                self.handle.respond_ok(msg);
                Ok(())
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        if let Err(e) = result {
            self.handle.respond_error(msg, &e);
        }
    }

    fn count(&mut self, queue: &str) -> &mut Counts {
        self.counts.entry(queue.to_owned()).or_default()
    }

    fn alloc(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            priority: i64,
            t_submit: f64,
            jobspec: Box<RawValue>,
        }
        let Request {
            id,
            priority,
            t_submit,
            jobspec,
        } = msg.json()?;
        let queue = self
            .queues
            .resolve(queue_of(&jobspec).as_deref())
            .to_owned();
        self.count(&queue).pending += 1;
        let pending = Pending {
            request: msg.clone(),
            queue: queue.clone(),
            estimated: false,
        };
        self.pending.insert(id, pending);
        self.next.add.push(Add {
            id,
            queue,
            priority,
            t_submit,
            jobspec,
        });
        self.due = true;
        Ok(())
    }

    fn free(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            #[serde(rename = "R")]
            r: Value,
            #[serde(default, rename = "final")]
            last: bool,
        }
        let Request { id, r, last } = msg.json()?;
        if last && let Some(queue) = self.running.remove(&id) {
            self.count(&queue).complete += 1;
        }
        self.next.free.push(Free { id, r, last });
        self.due = true;
        Ok(())
    }

    fn cancel(&mut self, msg: &Message) -> Result<(), RpcError> {
        let id = manager::cancelled(msg)?;
        // One that is not there has been answered.
        if self.pending.contains_key(&id) {
            match self.next.add.iter().position(|add| add.id == id) {
                // The graph has not heard of it.
                Some(at) => {
                    self.next.add.remove(at);
                    self.dropped(id);
                }
                None => {
                    self.next.drop.push(id);
                    self.due = true;
                }
            }
        }
        Ok(())
    }

    fn prioritize(&mut self, msg: &Message) -> Result<(), RpcError> {
        for (id, priority) in manager::prioritized(msg)? {
            if let Some(pending) = self.pending.get(&id) {
                let queue = pending.queue.clone();
                self.count(&queue).reprioritized += 1;
                self.next.prioritize.push((id, priority));
                self.due = true;
            }
        }
        Ok(())
    }

    fn extend(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            expiration: f64,
        }
        let Request { id, expiration } = msg.json()?;
        self.next.extend.push((id, expiration));
        self.due = true;
        self.handle.respond_ok(msg);
        Ok(())
    }

    fn resource_status(&self, msg: &Message) {
        let (handle, msg) = (self.handle.clone(), msg.clone());
        let asked = handle.rpc("sched-fluxion-resource.status", Node::Any, &json!({}));
        tokio::spawn(async move {
            match asked.await {
                Ok(answer) => handle.respond_raw(&msg, answer.payload().cloned()),
                Err(e) => handle.respond_error(&msg, &e),
            }
        });
    }

    fn answer(&self, request: &Message, id: JobId, kind: u32, key: &str, value: Value) {
        manager::answer(&self.handle, request, id, kind, (key, value));
    }

    fn outcome(&mut self, outcome: Outcome) {
        for started in outcome.started {
            self.started(started);
        }
        for (id, note) in outcome.denied {
            if let Some(pending) = self.pending.remove(&id) {
                self.count(&pending.queue).rejected += 1;
                self.answer(&pending.request, id, kind::DENY, "note", note.into());
            }
        }
        for id in outcome.dropped {
            self.dropped(id);
        }
        for known in outcome.outlook {
            let Some(pending) = self.pending.get_mut(&known.id) else {
                continue;
            };
            let mut notes = json!({ "reason_pending": known.reason });
            if known.at.is_some() || pending.estimated {
                notes["t_estimate"] = json!(known.at.map(|at| at as f64));
                notes["selection_type"] = json!(known.at.map(|_| "reserved"));
            }
            let first = known.at.is_some()
                && !std::mem::replace(&mut pending.estimated, known.at.is_some());
            let (request, queue) = (pending.request.clone(), pending.queue.clone());
            if first {
                self.count(&queue).reserved += 1;
            }
            self.answer(
                &request,
                known.id,
                kind::ANNOTATE,
                "annotations",
                json!({ "sched": notes }),
            );
        }
    }

    fn started(&mut self, Started { id, r, turn }: Started) {
        #[derive(Serialize)]
        struct Answer<'a> {
            id: JobId,
            #[serde(rename = "type")]
            kind: u32,
            annotations: Value,
            #[serde(rename = "R")]
            r: &'a RawValue,
        }
        // It waits: nothing else takes a job from here while a round is under way.
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        let sched = json!({ "t_estimate": null, "reason_pending": null, "selection_type": turn });
        let answer = Answer {
            id,
            kind: kind::SUCCESS,
            annotations: json!({ "sched": sched }),
            r: &r,
        };
        self.handle.respond(&pending.request, &answer);
        self.count(&pending.queue).running += 1;
        self.running.insert(id, pending.queue);
    }

    fn dropped(&mut self, id: JobId) {
        if let Some(pending) = self.pending.remove(&id) {
            self.count(&pending.queue).cancelled += 1;
            self.answer(&pending.request, id, kind::CANCEL, "", Value::Null);
        }
    }

    fn stats(&self) -> Value {
        let mut queues = serde_json::Map::new();
        for (name, table) in self.queues.tables().unwrap_or_default() {
            let of = |id: &JobId| id.f58_ascii();
            let pending: Vec<_> = self
                .pending
                .iter()
                .filter(|p| p.1.queue == name)
                .map(|p| of(p.0))
                .collect();
            let running: Vec<_> = self
                .running
                .iter()
                .filter(|r| *r.1 == name)
                .map(|r| of(r.0))
                .collect();
            let settings = fluxion::queue::Settings::from_value(&table).unwrap_or_default();
            let stats = json!({
                "policy": table["queue-policy"],
                "queue_depth": settings.depths.queue,
                "queue_parameters": table["queue-params"],
                "policy_parameters": table["policy-params"],
                "action_counts": self.counts.get(&name).cloned().unwrap_or_default(),
                "pending_queues": { "pending": pending, "pending_provisional": [], "blocked": [] },
                "scheduled_queues": { "running": running, "rejected": [], "canceled": [] },
            });
            queues.insert(name, stats);
        }
        json!({ "queues": queues })
    }
}

/// The queue a jobspec names. What else is wrong with it is seen later.
fn queue_of(jobspec: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct System {
        queue: Option<String>,
    }
    #[derive(Deserialize)]
    struct Attributes {
        system: Option<System>,
    }
    #[derive(Deserialize)]
    struct Jobspec {
        attributes: Option<Attributes>,
    }
    let jobspec: Jobspec = serde_json::from_str(jobspec.get()).ok()?;
    jobspec.attributes?.system?.queue
}
