//! The broker module `kvs-watch`, on every rank: lookups that answer again on each change.
//!
//! A monitor follows the root of each namespace that is watched, through setroot events. An
//! event names the keys it changed; watchers are indexed by key, so an event costs as much as
//! there are watchers it concerns. Each watcher looks its key up in the local kvs module under
//! exactly the roots it was woken for, one after the other, so responses come in commit order. A
//! watcher of appended data asks only for what it has not sent yet.
//!
//! A namespace that is removed ends its watches with ENOTSUP, a cancelled watch ends with
//! ENODATA, as upstream's do.

mod monitor;
mod watcher;

use std::collections::HashMap;

use crate::flags::*;
use crate::key::normalize;
use crate::module::lookup::Behalf;
use crate::treeobj::TreeObj;
use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError};
use content::BlobRef;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use monitor::{Id, Keys, Monitor, Root};
use serde::Deserialize;
use serde_json::json;
use watcher::{LookupAnswer, Next, Watcher, check_flags};
use wire::Text;

enum Done {
    GotRoot(String, u64, Result<Message, RpcError>),
    LookedUp(Id, Result<Message, RpcError>),
    Nothing,
}

struct Module {
    handle: Handle,
    monitors: HashMap<String, Monitor>,
    watchers: HashMap<Id, Watcher>,
    by_rpc: HashMap<(Option<Text>, u32), Id>,
    next_id: u64,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Runs the module until its inbox ends.
pub async fn main(ctx: Context) -> Result<(), ModuleError> {
    let mut inbox = ctx.inbox;
    let mut module = Module {
        handle: ctx.handle,
        monitors: HashMap::new(),
        watchers: HashMap::new(),
        by_rpc: HashMap::new(),
        next_id: 0,
        work: FuturesUnordered::new(),
    };
    loop {
        tokio::select! {
            // What happens is a function of what arrives. There is no more work than there are requests.
            biased;
            Some(done) = module.work.next() => module.handle_done(done),
            msg = inbox.recv() => match msg {
                Some(msg) => module.handle_message(&msg),
                None => break,
            },
        }
    }
    for watcher in module.watchers.values() {
        let gone = RpcError::errno(libc::ENOSYS);
        module.handle.respond_error(&watcher.request, &gone);
    }
    Ok(())
}

#[derive(Deserialize)]
struct LookupRequest {
    namespace: String,
    key: String,
    flags: u32,
}

impl Module {
    fn handle_message(&mut self, msg: &Message) {
        if msg.is_event() {
            self.handle_event(msg);
            return;
        }
        let result = match msg.topic().strip_prefix("kvs-watch.").unwrap_or_default() {
            "lookup" => self.handle_lookup(msg),
            "cancel" => self.handle_cancel(msg),
            "disconnect" => {
                self.handle_disconnect(msg);
                Ok(())
            }
            "stats-get" => {
                self.handle_stats(msg);
                Ok(())
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        if let Err(e) = result {
            self.handle.respond_error(msg, &e);
        }
    }

    fn handle_lookup(&mut self, msg: &Message) -> Result<(), RpcError> {
        let req: LookupRequest = msg.json()?;
        check_flags(req.flags, msg.is_streaming())?;
        let id = self.next_id;
        self.next_id += 1;
        let key = normalize(&req.key).into_owned();
        match self.monitors.get(&req.namespace) {
            None => self.start_monitor(&req.namespace),
            // Others may wait for the namespace to come.
            Some(monitor) if monitor.current.is_none() && req.flags & WATCH_EXISTING != 0 => {
                let generation = monitor.generation;
                self.ask_root(&req.namespace, generation, false);
            }
            Some(_) => {}
        }
        let Some(monitor) = self.monitors.get_mut(&req.namespace) else {
            return Ok(());
        };
        monitor.insert(id, &key, req.flags & WATCH_FULL != 0);
        let current = monitor.current;
        self.by_rpc
            .insert((msg.sender().cloned(), msg.matchtag()), id);
        let watcher = Watcher::new(msg.clone(), req.namespace, key, req.flags);
        self.watchers.insert(id, watcher);
        if let Some((root, owner)) = current {
            self.wake(id, root, owner);
        }
        Ok(())
    }

    /// Follows a namespace: subscribes, then learns where its root is now.
    fn start_monitor(&mut self, name: &str) {
        let generation = self.next_id;
        self.next_id += 1;
        self.monitors
            .insert(name.to_owned(), Monitor::new(generation));
        self.ask_root(name, generation, true);
    }

    /// Asks where the root of a namespace is, from where on events tell of it.
    fn ask_root(&mut self, name: &str, generation: u64, subscribe: bool) {
        if let Some(monitor) = self.monitors.get_mut(name) {
            monitor.asked += 1;
        }
        let (handle, name) = (self.handle.clone(), name.to_owned());
        self.work.push(Box::pin(async move {
            let answer = async {
                if subscribe {
                    handle.subscribe(&format!("kvs.namespace-{name}-")).await?;
                }
                let request = json!({"namespace": name, "flags": 0});
                handle.rpc("kvs.getroot", Node::Any, &request).await
            };
            let answer = answer.await;
            Done::GotRoot(name, generation, answer)
        }));
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::GotRoot(name, generation, answer) => {
                let live = self
                    .monitors
                    .get(&name)
                    .is_some_and(|m| m.generation == generation);
                if live {
                    self.handle_root(&name, answer);
                }
            }
            Done::LookedUp(id, answer) => self.handle_looked_up(id, answer),
            Done::Nothing => {}
        }
    }

    fn handle_root(&mut self, name: &str, answer: Result<Message, RpcError>) {
        #[derive(Deserialize)]
        struct Answer {
            rootref: BlobRef,
            rootseq: i64,
            owner: i64,
        }
        let created = self.monitors.get_mut(name).and_then(|monitor| {
            monitor.asked -= 1;
            monitor.created.take()
        });
        match answer.and_then(|msg| msg.json::<Answer>()) {
            Ok(a) => {
                let root = Root {
                    rootref: a.rootref,
                    seq: a.rootseq,
                };
                let known = self.monitors.get(name).is_some_and(|m| m.current.is_some());
                // If events came first they are newer.
                if !known {
                    self.set_root(name, root, a.owner as u32, None);
                }
            }
            Err(_) if let Some((root, owner)) = created => self.set_root(name, root, owner, None),
            Err(e) => {
                // Who waits for a key to be created also waits for its namespace.
                let ids = self.watchers_of(name);
                for id in ids {
                    let waits = self.watchers.get(&id).is_some_and(|w| {
                        let may_come = w.flags & (WAITCREATE | WATCH_EXISTING) == WAITCREATE;
                        may_come && !w.responded && e.errno == libc::ENOTSUP
                    });
                    if !waits {
                        self.fail(id, &e);
                    }
                }
            }
        }
    }

    fn watchers_of(&self, name: &str) -> Vec<Id> {
        self.monitors
            .get(name)
            .map_or_else(Vec::new, Monitor::watchers)
    }

    fn handle_event(&mut self, msg: &Message) {
        #[derive(Deserialize)]
        struct Event {
            namespace: String,
            #[serde(default)]
            rootseq: i64,
            rootref: Option<BlobRef>,
            #[serde(default)]
            owner: i64,
            #[serde(default)]
            keys: Keys,
        }
        let Ok(e) = msg.json::<Event>() else { return };
        let root = e.rootref.map(|rootref| Root {
            rootref,
            seq: e.rootseq,
        });
        let owner = e.owner as u32;
        if msg.topic().ends_with("-removed") {
            let gone = RpcError::explained(
                libc::ENOTSUP,
                format!("KVS namespace {} was removed", e.namespace),
            );
            for id in self.watchers_of(&e.namespace) {
                self.fail(id, &gone);
            }
        } else if let Some(root) = root {
            if msg.topic().ends_with("-setroot") {
                self.set_root(&e.namespace, root, owner, Some(&e.keys));
            } else if msg.topic().ends_with("-created") {
                match self.monitors.get_mut(&e.namespace) {
                    Some(monitor) if monitor.asked > 0 => monitor.created = Some((root, owner)),
                    _ => self.set_root(&e.namespace, root, owner, None),
                }
            }
        }
    }

    /// The root of a namespace moved; `keys` are those that changed, if it is known.
    fn set_root(&mut self, name: &str, root: Root, owner: u32, keys: Option<&Keys>) {
        let Some(monitor) = self.monitors.get_mut(name) else {
            return;
        };
        let ids = monitor.advance(root, owner, keys);
        for id in ids {
            self.wake(id, root, owner);
        }
    }

    /// Lets a watcher look at this root.
    fn wake(&mut self, id: Id, root: Root, owner: u32) {
        let Some(w) = self.watchers.get_mut(&id) else {
            return;
        };
        if root.seq <= w.seen {
            return;
        }
        if let Err(e) = w.request.require_user(owner) {
            self.fail(id, &e);
            return;
        }
        w.seen = root.seq;
        if w.flags & (WATCH_APPEND | STREAM) != 0 {
            // The latest root has everything the ones before it have.
            w.queue.clear();
        }
        w.queue.push_back(root);
        self.pump(id);
    }

    /// Starts the next lookup of a watcher, one at a time.
    fn pump(&mut self, id: Id) {
        let Some(w) = self.watchers.get_mut(&id) else {
            return;
        };
        if w.in_flight {
            return;
        }
        let Some(root) = w.queue.pop_front() else {
            return;
        };
        w.in_flight = true;
        let cred = w.request.credentials();
        let mut request = json!({
            "key": w.key,
            "flags": w.flags & (READDIR | READLINK | TREEOBJ),
            "as": Behalf { userid: cred.userid, rolemask: cred.rolemask },
        });
        if w.first_done {
            request["rootdir"] = json!(TreeObj::DirRef(root.rootref));
            request["rootseq"] = json!(root.seq);
        } else {
            request["namespace"] = json!(w.namespace);
        }
        let topic = if w.flags & (WATCH_APPEND | STREAM) != 0 {
            request["start"] = json!(w.sent);
            "kvs.lookup-appended"
        } else {
            "kvs.lookup-plus"
        };
        let rpc = self.handle.rpc(topic, Node::Any, &request);
        self.work
            .push(Box::pin(async move { Done::LookedUp(id, rpc.await) }));
    }

    fn handle_looked_up(&mut self, id: Id, answer: Result<Message, RpcError>) {
        let Some(w) = self.watchers.get_mut(&id) else {
            return;
        };
        w.in_flight = false;
        let next = match answer.and_then(|msg| msg.json::<LookupAnswer>()) {
            Ok(answer) => w.handle_answer(&self.handle, answer),
            Err(e) => Next::Fail(e),
        };
        match next {
            Next::Wait => self.pump(id),
            Next::Finish => self.remove(id),
            Next::Fail(e) => self.fail(id, &e),
        }
    }

    fn handle_cancel(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            matchtag: u32,
        }
        let req: Request = msg.json()?;
        if let Some(&id) = self.by_rpc.get(&(msg.sender().cloned(), req.matchtag)) {
            self.fail(id, &RpcError::errno(libc::ENODATA));
        }
        Ok(())
    }

    fn handle_disconnect(&mut self, msg: &Message) {
        let gone: Vec<Id> = self
            .watchers
            .iter()
            .filter(|(_, w)| w.request.sender() == msg.sender())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.remove(id);
        }
    }

    /// Ends a watch with an error response.
    fn fail(&mut self, id: Id, e: &RpcError) {
        if let Some(w) = self.watchers.get(&id) {
            self.handle.respond_error(&w.request, e);
        }
        self.remove(id);
    }

    fn remove(&mut self, id: Id) {
        let Some(w) = self.watchers.remove(&id) else {
            return;
        };
        self.by_rpc
            .remove(&(w.request.sender().cloned(), w.request.matchtag()));
        let Some(monitor) = self.monitors.get_mut(&w.namespace) else {
            return;
        };
        if monitor.remove(id, &w.key) {
            self.monitors.remove(&w.namespace);
            let (handle, topic) = (
                self.handle.clone(),
                format!("kvs.namespace-{}-", w.namespace),
            );
            self.work.push(Box::pin(async move {
                // Fails only if the broker goes down.
                let _ = handle.unsubscribe(&topic).await;
                Done::Nothing
            }));
        }
    }

    fn handle_stats(&self, msg: &Message) {
        let namespaces: serde_json::Map<String, serde_json::Value> = self
            .monitors
            .iter()
            .map(|(name, m)| (name.clone(), m.stats()))
            .collect();
        let answer = json!({
            "watchers": self.watchers.len(),
            "namespace-count": self.monitors.len(),
            "namespaces": namespaces,
        });
        self.handle.respond(msg, &answer);
    }
}
