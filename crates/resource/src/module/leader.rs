//! Rank 0: holds the inventory and serves schedulers, administrators and the curious.

mod drains;
mod liveness;
mod verify;

use std::path::PathBuf;

use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError, RpcStream};
use formats::resource_event::{Method, ResourceDefine, ResourceEvent, ResourceUpdate, Restart};
use formats::{Hostlist, Idset, ResourceSet};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kvs::Txn;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use liveness::{Group, Liveness};

use super::reload;
use super::reslog::{Reslog, now};
use super::source::{self, Parent, Start};
use super::{Arguments, Reduce, ReduceAnswer, answer_topology, check_config, look};
use crate::discover::Local;
use crate::drain::Drained;
use crate::inventory::Inventory;
use crate::membership::Membership;
use crate::targets;

/// The scheduler that holds the resources, and what it was told.
struct Acquired {
    request: Message,
    /// The first response was sent.
    started: bool,
    up: Idset,
    removed: Idset,
}

enum Done {
    Looked(Result<Local, ModuleError>),
    /// The resource set is stored.
    Defined(Result<(), RpcError>),
    /// A drain or undrain event is stored.
    Posted(Option<Message>, Result<(), RpcError>),
    Reloaded(Message, Result<ResourceSet, RpcError>),
    Allocated(Result<Value, RpcError>),
    Expiration(Parent, Option<f64>),
    /// The brokers in a group of the broker's own now; none when it has no more to say.
    Group(Group, RpcStream, Option<Idset>),
    Nothing,
}

struct Leader {
    handle: Handle,
    log: Reslog,
    hosts: Hostlist,
    membership: Membership,
    inventory: Inventory,
    /// The set as JSON, made once.
    set_value: Option<Value>,
    /// The set is stored, so it may be handed out.
    stored: bool,
    /// What ranks found, while the set is being discovered.
    discovered: Option<ResourceSet>,
    /// How ranks are compared with the set, if they are.
    verify: Option<verify::Standard>,
    /// Members of the broker's group `broker.online`, as far as it told.
    group: Idset,
    liveness: Liveness,
    expiration: f64,
    acquired: Option<Acquired>,
    muted: bool,
    /// Requests waiting for this many online targets.
    waitups: Vec<(usize, Message)>,
    /// Requests waiting for the job manager to say what is allocated.
    sched_status: Vec<Message>,
    /// Requests that need the resource set, from before it is defined.
    held: Vec<Message>,
    /// A reload in progress is answered when the new set is stored.
    reload: Option<Message>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

pub(super) async fn run(ctx: Context) -> Result<(), ModuleError> {
    let mut inbox = ctx.inbox;
    let args = Arguments::parse(&ctx.args)?;
    let start = source::find(&ctx.handle).await?;
    let mut leader = Leader::new(ctx.handle, start, &args)?;
    if leader.verify.is_some() {
        let own = look().await?.as_target(0);
        leader.verify(&own);
    }
    loop {
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => leader.handle_message(&msg),
                None => return Ok(()),
            },
            Some(done) = leader.work.next() => leader.handle_done(done)?,
        }
    }
}

impl Leader {
    fn new(handle: Handle, start: Start, args: &Arguments) -> Result<Leader, ModuleError> {
        let mut leader = Leader {
            log: Reslog::new(handle.clone(), start.config.journal_max),
            handle,
            hosts: start.hosts,
            membership: start.membership,
            inventory: Inventory {
                brokers_return: start.brokers_return,
                ..Inventory::default()
            },
            set_value: None,
            stored: false,
            discovered: None,
            verify: None,
            group: Idset::new(),
            liveness: match args.force_up {
                true => Liveness::AllOnline,
                false if start.recovery => Liveness::NoneOnline,
                false => Liveness::Watched,
            },
            expiration: start.expiration,
            acquired: None,
            muted: false,
            waitups: Vec::new(),
            sched_status: Vec::new(),
            held: Vec::new(),
            reload: None,
            work: FuturesUnordered::new(),
        };
        let mut drained = Drained::default();
        for event in start.events {
            drained.replay(&event, &leader.hosts);
            leader.log.restore(event);
        }
        leader.inventory.drained = drained;
        let size = leader.handle.size();
        leader.log.note(&ResourceEvent::Restart(Restart {
            ranks: Idset::from_range(0, size.max(1) - 1),
            nodelist: leader.hosts.clone(),
            ..Restart::default()
        }));
        if let Some(exclude) = &start.config.exclude {
            let none = ResourceSet::new();
            let set = start.defined.as_ref().map_or(&none, |(set, _)| set);
            leader.inventory.excluded = targets::parse(exclude, set)
                .map_err(|e| ModuleError::new("configuration key resource.exclude", e))?;
        }
        let config = start.config.verification();
        let config = config.map_err(|e| ModuleError::invalid(e.to_string()))?;
        leader.verify = match (&start.defined, config) {
            (Some(_), Some(config)) if !args.noverify => {
                verify::Standard::new(config, start.in_job, start.config.verify.is_some())
            }
            _ => None,
        };
        match start.defined {
            Some((set, method)) => leader.define(set, method)?,
            None => {
                leader.discovered = Some(ResourceSet::new());
                leader
                    .work
                    .push(Box::pin(async { Done::Looked(look().await) }));
            }
        }
        if let Some(parent) = start.parent {
            leader.watch_parent(parent);
        }
        leader.watch_brokers();
        Ok(leader)
    }

    fn watch_parent(&mut self, mut parent: Parent) {
        self.work.push(Box::pin(async move {
            let next = parent.next_expiration().await;
            Done::Expiration(parent, next)
        }));
    }

    fn handle_message(&mut self, msg: &Message) {
        // An instance starts its initial program before all nodes have been looked at.
        let needs_set = matches!(
            msg.topic(),
            "resource.status"
                | "resource.sched-status"
                | "resource.get"
                | "resource.drain"
                | "resource.undrain"
        );
        if needs_set && self.inventory.defined.is_none() {
            self.held.push(msg.clone());
            return;
        }
        if !msg.is_request() {
            return;
        }
        if let Err(e) = self.handle_request(msg) {
            self.handle.respond_error(msg, &e);
        }
    }

    fn handle_request(&mut self, msg: &Message) -> Result<(), RpcError> {
        match msg.topic().strip_prefix("resource.").unwrap_or_default() {
            "status" => return self.handle_status(msg),
            "sched-status" => {
                self.handle_sched_status(msg);
                return Ok(());
            }
            "topo-get" => {
                let (handle, msg) = (self.handle.clone(), msg.clone());
                self.work.push(Box::pin(async move {
                    answer_topology(handle, msg).await;
                    Done::Nothing
                }));
                return Ok(());
            }
            "disconnect" => {
                self.handle_disconnect(msg);
                return Ok(());
            }
            _ => msg.require_owner()?,
        }
        match msg.topic().strip_prefix("resource.").unwrap_or_default() {
            "reduce" => self.handle_reduce(msg),
            "acquire" => self.handle_acquire(msg),
            "acquire-cancel" => self.handle_acquire_cancel(msg),
            "acquire-mute" => {
                self.muted = true;
                self.handle.respond_ok(msg);
                Ok(())
            }
            "get" => self.handle_get(msg),
            "drain" => self.handle_drain(msg),
            "undrain" => self.handle_undrain(msg),
            "reload" => self.handle_reload(msg),
            "config-reload" => {
                check_config(&msg.json()?)?;
                self.handle.respond_ok(msg);
                Ok(())
            }
            "expiration-update" => self.handle_expiration_update(msg),
            "monitor-waitup" => self.handle_waitup(msg),
            "monitor-force-down" => self.handle_force_down(msg),
            "journal" => {
                if !msg.is_streaming() {
                    return Err(RpcError::proto("resource.journal needs a streaming RPC"));
                }
                self.log.add_reader(msg, self.set_value.as_ref());
                Ok(())
            }
            "journal-cancel" => {
                self.log.remove_reader(msg, Some(msg.cancelled()?));
                Ok(())
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }

    fn handle_done(&mut self, done: Done) -> Result<(), ModuleError> {
        match done {
            Done::Looked(local) => {
                let own = local?.as_target(0);
                self.add_discovered(&own);
            }
            Done::Defined(result) => self.handle_defined(result),
            Done::Posted(msg, result) => {
                if let Some(msg) = msg {
                    match result {
                        Ok(()) => self.handle.respond_ok(&msg),
                        Err(e) => self.handle.respond_error(&msg, &e),
                    }
                }
            }
            Done::Reloaded(msg, result) => self.handle_reloaded(msg, result),
            Done::Allocated(answer) => self.handle_allocated(answer),
            Done::Expiration(parent, Some(expiration)) => {
                self.set_expiration(expiration, None);
                self.watch_parent(parent);
            }
            Done::Group(group, stream, Some(members)) => {
                match group {
                    Group::Online => self.handle_group(members),
                    Group::Torpid => self.handle_torpid(members),
                }
                self.watch_group(group, stream);
            }
            Done::Expiration(_, None) | Done::Group(_, _, None) | Done::Nothing => {}
        }
        Ok(())
    }

    // --- what there is ---

    /// Takes a resource set in: stored with the event that says so, in one commit.
    fn define(&mut self, mut set: ResourceSet, method: Method) -> Result<(), RpcError> {
        let marked = self.membership.mark(&mut set);
        marked.map_err(|why| RpcError::new(libc::EINVAL, why))?;
        if self.expiration > 0.0 {
            set.expiration = self.expiration;
        }
        let value = set.to_value();
        let mut txn = Txn::new();
        txn.put("resource.R", &value.to_string());
        let event = ResourceEvent::ResourceDefine(ResourceDefine {
            method: method.clone(),
            extra: Map::new(),
        });
        let event = event.to_event(now());
        self.stored = false;
        let stored = self.log.post(event, txn, Some(&value));
        self.set_value = Some(value);
        if self.liveness == Liveness::AllOnline {
            self.inventory.online = set.ranks();
        }
        self.inventory.defined = Some((set, method));
        self.work
            .push(Box::pin(async move { Done::Defined(stored.await) }));
        Ok(())
    }

    fn handle_defined(&mut self, result: Result<(), RpcError>) {
        let reload = self.reload.take();
        match &result {
            Ok(()) => {
                self.stored = true;
                self.first_acquire_response();
                self.notify();
                for msg in std::mem::take(&mut self.held) {
                    self.handle_message(&msg);
                }
            }
            Err(e) => {
                if let Some(acquired) = self.acquired.take() {
                    self.handle.respond_error(&acquired.request, e);
                }
            }
        }
        if let Some(msg) = reload {
            match result {
                Ok(()) => self.handle.respond_ok(&msg),
                Err(e) => self.handle.respond_error(&msg, &e),
            }
        }
    }

    fn handle_reduce(&mut self, msg: &Message) -> Result<(), RpcError> {
        let reduce: Reduce = msg.json()?;
        let discover = self.discovered.is_some() || self.verify.is_some();
        self.handle.respond(msg, &ReduceAnswer { discover });
        if let Some(resources) = &reduce.resources {
            self.add_discovered(resources);
            self.verify(resources);
        }
        // Nothing runs on a rank before it has been looked at.
        let looked_at = reduce.resources.as_ref().map(ResourceSet::ranks);
        match self.verify {
            Some(_) => self.add_online(&reduce.online.intersection(&looked_at.unwrap_or_default())),
            None => self.add_online(&reduce.online),
        }
        Ok(())
    }

    /// When all ranks have told what they have, that is the set.
    fn add_discovered(&mut self, found: &ResourceSet) {
        let Some(all) = &mut self.discovered else {
            return;
        };
        all.merge(found);
        if all.nnodes() == self.handle.size() as usize
            && let Some(set) = self.discovered.take()
            && let Err(e) = self.define(set, Method::DynamicDiscovery)
        {
            let failed = std::future::ready(Done::Looked(Err(e.into())));
            self.work.push(Box::pin(failed));
        }
    }

    // --- schedulers ---

    fn handle_acquire(&mut self, msg: &Message) -> Result<(), RpcError> {
        if self.acquired.is_some() {
            return Err(RpcError::new(
                libc::EBUSY,
                "a scheduler holds the resources already",
            ));
        }
        self.acquired = Some(Acquired {
            request: msg.clone(),
            started: false,
            up: Idset::new(),
            removed: Idset::new(),
        });
        self.first_acquire_response();
        Ok(())
    }

    fn first_acquire_response(&mut self) {
        let Some(acquired) = &mut self.acquired else {
            return;
        };
        if !self.stored || acquired.started {
            return;
        }
        let Some(set) = self.inventory.schedulable() else {
            return;
        };
        acquired.started = true;
        acquired.up = self.inventory.usable();
        if self.inventory.shrinks() {
            acquired.removed = self.inventory.lost.clone();
        }
        let response = json!({"resources": set, "up": acquired.up});
        self.handle.respond(&acquired.request, &response);
    }

    /// Tells the scheduler what changed, if something did.
    fn notify(&mut self) {
        let Some(acquired) = &mut self.acquired else {
            return;
        };
        if !acquired.started || self.muted {
            return;
        }
        let change = self.inventory.change_since(&acquired.up, &acquired.removed);
        if change.is_empty() {
            return;
        }
        acquired.up = self.inventory.usable();
        acquired.removed = acquired.removed.union(&change.shrink);
        let mut response = json!({});
        for (key, ids) in [
            ("up", change.up),
            ("down", change.down),
            ("shrink", change.shrink),
        ] {
            if !ids.is_empty() {
                response[key] = json!(ids);
            }
        }
        self.handle.respond(&acquired.request, &response);
    }

    fn handle_acquire_cancel(&mut self, msg: &Message) -> Result<(), RpcError> {
        let tag = msg.cancelled()?;
        if let Some(acquired) = self
            .acquired
            .take_if(|a| a.request.is_same_rpc(msg, Some(tag)))
        {
            let e = RpcError::errno(libc::ECANCELED);
            self.handle.respond_error(&acquired.request, &e);
        }
        Ok(())
    }

    fn handle_disconnect(&mut self, msg: &Message) {
        self.acquired.take_if(|a| a.request.is_same_rpc(msg, None));
        self.log.remove_reader(msg, None);
        self.waitups.retain(|(_, w)| !w.is_same_rpc(msg, None));
        self.sched_status.retain(|w| !w.is_same_rpc(msg, None));
    }

    // --- administrators ---

    fn targets(&self, text: &str) -> Result<Idset, RpcError> {
        let none = ResourceSet::new();
        let set = self
            .inventory
            .defined
            .as_ref()
            .map_or(&none, |(set, _)| set);
        targets::parse_in(text, set, self.handle.size())
            .map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))
    }

    /// Hosts of these ranks.
    fn nodelist(&self, ranks: &Idset) -> Hostlist {
        ranks
            .iter()
            .filter_map(|rank| self.hosts.nth(rank as usize))
            .collect()
    }

    fn handle_reload(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            path: PathBuf,
            xml: bool,
            force: bool,
        }
        let req: Request = msg.json()?;
        if self.acquired.is_some() {
            return Err(RpcError::new(
                libc::EBUSY,
                "resources are busy (unload scheduler?)",
            ));
        }
        let (msg, size) = (msg.clone(), self.handle.size());
        self.work.push(Box::pin(async move {
            let result = reload::read(&req.path, req.xml, size, req.force).await;
            Done::Reloaded(msg, result)
        }));
        Ok(())
    }

    fn handle_reloaded(&mut self, msg: Message, result: Result<ResourceSet, RpcError>) {
        match result {
            Ok(set) => {
                self.discovered = None;
                // Whoever loads a set by hand knows what they do.
                self.verify = None;
                match self.define(set, Method::Reload) {
                    Ok(()) => self.reload = Some(msg),
                    Err(e) => self.handle.respond_error(&msg, &e),
                }
            }
            Err(e) => self.handle.respond_error(&msg, &e),
        }
    }

    fn handle_expiration_update(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            expiration: f64,
        }
        let req: Request = msg.json()?;
        self.set_expiration(req.expiration, Some(msg.clone()));
        Ok(())
    }

    fn set_expiration(&mut self, expiration: f64, msg: Option<Message>) {
        self.expiration = expiration;
        let Some((set, _)) = &mut self.inventory.defined else {
            return;
        };
        set.expiration = expiration;
        let value = set.to_value();
        let mut txn = Txn::new();
        txn.put("resource.R", &value.to_string());
        self.set_value = Some(value);
        let event = ResourceEvent::ResourceUpdate(ResourceUpdate {
            expiration,
            extra: Map::new(),
        });
        let stored = self.log.post(event.to_event(now()), txn, None);
        self.work
            .push(Box::pin(async move { Done::Posted(msg, stored.await) }));
        if let Some(acquired) = self.acquired.as_ref().filter(|a| a.started) {
            self.handle
                .respond(&acquired.request, &json!({"expiration": expiration}));
        }
    }

    fn handle_waitup(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            up: i64,
        }
        let req: Request = msg.json()?;
        match usize::try_from(req.up) {
            Ok(up) if up <= self.handle.size() as usize => {
                if self.inventory.online.len() == up {
                    self.handle.respond_ok(msg);
                } else {
                    self.waitups.push((up, msg.clone()));
                }
                Ok(())
            }
            _ => Err(RpcError::proto("up value is out of range")),
        }
    }

    /// Ranks are gone: the broker tells so, or a test pretends.
    fn handle_force_down(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            ranks: Idset,
        }
        let req: Request = msg.json()?;
        let online = self.inventory.online.difference(&req.ranks);
        self.set_online(online);
        self.handle.respond_ok(msg);
        Ok(())
    }

    // --- the curious ---

    fn handle_get(&mut self, msg: &Message) -> Result<(), RpcError> {
        match (&self.set_value, &self.inventory.defined) {
            (Some(value), Some((_, method))) => {
                self.handle
                    .respond(msg, &json!({"R": value, "method": method.as_str()}));
                Ok(())
            }
            _ => Err(RpcError::new(
                libc::ENOENT,
                "the resource set is not defined yet",
            )),
        }
    }

    fn handle_status(&mut self, msg: &Message) -> Result<(), RpcError> {
        let Some((set, _)) = &self.inventory.defined else {
            return Err(RpcError::new(
                libc::ENOENT,
                "the resource set is not defined yet",
            ));
        };
        let mut value = set.to_value();
        if let Some(map) = value.as_object_mut() {
            map.remove("scheduling");
        }
        let answer = json!({
            "R": value,
            "drain": self.inventory.drained.to_value(),
            "online": self.inventory.online,
            "offline": self.inventory.offline(),
            "exclude": self.inventory.excluded,
            "torpid": self.inventory.torpid,
        });
        self.handle.respond(msg, &answer);
        Ok(())
    }

    /// One question to the job manager answers all requests that wait.
    fn handle_sched_status(&mut self, msg: &Message) {
        self.sched_status.push(msg.clone());
        if self.sched_status.len() > 1 {
            return;
        }
        let rpc = self
            .handle
            .rpc("job-manager.resource-status", Node::Any, &json!({}));
        self.work.push(Box::pin(async move {
            Done::Allocated(rpc.await.and_then(|msg| msg.json()))
        }));
    }

    fn handle_allocated(&mut self, answer: Result<Value, RpcError>) {
        let waiting = std::mem::take(&mut self.sched_status);
        let answer = answer
            .or_else(|e| {
                if e.errno == libc::ENOSYS {
                    Ok(Value::Null)
                } else {
                    Err(e)
                }
            })
            .and_then(|allocated| self.sched_status_value(&allocated["allocated"]));
        for msg in waiting {
            match &answer {
                Ok(answer) => self.handle.respond(&msg, answer),
                Err(e) => self.handle.respond_error(&msg, e),
            }
        }
    }

    fn sched_status_value(&self, allocated: &Value) -> Result<Value, RpcError> {
        let Some(mut all) = self.inventory.schedulable() else {
            return Err(RpcError::new(
                libc::ENOENT,
                "the resource set is not defined yet",
            ));
        };
        all.scheduling = None;
        if self.inventory.shrinks() {
            all.remove_ranks(&self.inventory.lost);
        }
        let down = all.on_ranks(&all.ranks().difference(&self.inventory.usable()));
        let mut used = match allocated {
            Value::Null => ResourceSet::new(),
            value => ResourceSet::try_from(value.clone())
                .map_err(|e| RpcError::proto(format!("job-manager.resource-status: {e}")))?,
        };
        let ranks = used.ranks();
        for (property, on) in &all.properties {
            let on = on.intersection(&ranks);
            if !on.is_empty() {
                used.properties.insert(property.clone(), on);
            }
        }
        Ok(json!({"all": all, "down": down, "allocated": used}))
    }
}
