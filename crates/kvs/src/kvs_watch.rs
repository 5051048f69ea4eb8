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

use std::collections::{HashMap, HashSet, VecDeque};

use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError};
use content::BlobRef;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use wire::Text;

use crate::flags::*;
use crate::key::normalize;
use crate::module::lookup::Behalf;
use crate::treeobj::TreeObj;

type Id = u64;
/// The keys a setroot event names.
type Keys = HashMap<String, IgnoredAny>;

/// A root, by reference and sequence number.
#[derive(Clone, Copy)]
struct Root {
    rootref: BlobRef,
    seq: i64,
}

/// What a watcher follows.
struct Monitor {
    /// Tells answers to an earlier monitor of the same name apart.
    generation: u64,
    /// Known once the namespace was seen.
    current: Option<(Root, u32)>,
    watchers: HashSet<Id>,
    by_key: HashMap<String, HashSet<Id>>,
    /// Watchers that look at every commit.
    full: HashSet<Id>,
}

struct Watcher {
    request: Message,
    namespace: String,
    key: String,
    flags: u32,
    /// Roots to look at, oldest first.
    queue: VecDeque<Root>,
    in_flight: bool,
    /// The last root queued.
    seen: i64,
    /// The first lookup goes to the namespace's current root, which may be newer than the one
    /// that caused it; roots up to that are not looked at again.
    first_done: bool,
    first_seq: i64,
    responded: bool,
    sentinel_sent: bool,
    previous: Option<TreeObj>,
    /// Blobs of an appended value that were sent.
    sent: usize,
}

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
            msg = inbox.recv() => match msg {
                Some(msg) => module.handle_message(&msg),
                None => return Ok(()),
            },
            Some(done) = module.work.next() => module.handle_done(done),
        }
    }
}

#[derive(Deserialize)]
struct LookupRequest {
    namespace: String,
    key: String,
    flags: u32,
}

/// Answers of lookup-plus and lookup-appended.
#[derive(Deserialize)]
struct LookupAnswer {
    errno: Option<i32>,
    rootseq: i64,
    val: Option<TreeObj>,
    #[serde(default)]
    is_val: bool,
    #[serde(default)]
    count: usize,
    #[serde(default)]
    values: Vec<TreeObj>,
}

/// How a watcher goes on after a lookup.
enum Next {
    Wait,
    /// It has had all it asked for; nothing more is sent.
    Finish,
    Fail(RpcError),
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
        if !self.monitors.contains_key(&req.namespace) {
            self.start_monitor(&req.namespace);
        }
        let Some(monitor) = self.monitors.get_mut(&req.namespace) else {
            return Ok(());
        };
        monitor.watchers.insert(id);
        if req.flags & WATCH_FULL != 0 {
            monitor.full.insert(id);
        } else {
            monitor.by_key.entry(key.clone()).or_default().insert(id);
        }
        let current = monitor.current;
        self.by_rpc
            .insert((msg.sender().cloned(), msg.matchtag()), id);
        let watcher = Watcher {
            request: msg.clone(),
            namespace: req.namespace,
            key,
            flags: req.flags,
            queue: VecDeque::new(),
            in_flight: false,
            seen: -1,
            first_done: false,
            first_seq: -1,
            responded: false,
            sentinel_sent: false,
            previous: None,
            sent: 0,
        };
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
        self.monitors.insert(
            name.to_owned(),
            Monitor {
                generation,
                current: None,
                watchers: HashSet::new(),
                by_key: HashMap::new(),
                full: HashSet::new(),
            },
        );
        let (handle, name) = (self.handle.clone(), name.to_owned());
        self.work.push(Box::pin(async move {
            let answer = async {
                handle.subscribe(&format!("kvs.namespace-{name}-")).await?;
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
            Err(e) => {
                // Who waits for a key to be created also waits for its namespace.
                let ids = self.watchers_of(name);
                for id in ids {
                    let waits = self.watchers.get(&id).is_some_and(|w| {
                        w.flags & WAITCREATE != 0 && !w.responded && e.errno == libc::ENOTSUP
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
            .map_or_else(Vec::new, |m| m.watchers.iter().copied().collect())
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
            let gone = RpcError::new(
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
                self.set_root(&e.namespace, root, owner, None);
            }
        }
    }

    /// The root of a namespace moved; `keys` are those that changed, if it is known.
    fn set_root(&mut self, name: &str, root: Root, owner: u32, keys: Option<&Keys>) {
        let Some(monitor) = self.monitors.get_mut(name) else {
            return;
        };
        let first = match monitor.current {
            Some((now, _)) if now.seq >= root.seq => return,
            Some(_) => false,
            None => true,
        };
        monitor.current = Some((root, owner));
        let mut ids: Vec<Id> = match keys {
            // Watchers that came before the first root have not looked yet.
            Some(keys) if !first => {
                let by_key = &monitor.by_key;
                keys.keys()
                    .filter_map(|k| by_key.get(k))
                    .flatten()
                    .copied()
                    .collect()
            }
            _ => monitor.watchers.iter().copied().collect(),
        };
        if keys.is_some() && !first {
            ids.extend(&monitor.full);
        }
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
        monitor.watchers.remove(&id);
        monitor.full.remove(&id);
        if let Some(ids) = monitor.by_key.get_mut(&w.key) {
            ids.remove(&id);
            if ids.is_empty() {
                monitor.by_key.remove(&w.key);
            }
        }
        if monitor.watchers.is_empty() {
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
            .map(|(name, m)| {
                let value = json!({
                    "owner": m.current.map_or(-1, |(_, owner)| i64::from(owner as i32)),
                    "rootseq": m.current.map_or(-1, |(root, _)| root.seq),
                    "rootref": m.current.map_or("(null)".to_owned(), |(r, _)| r.rootref.to_string()),
                    "watchers": m.watchers.len(),
                });
                (name.clone(), value)
            })
            .collect();
        let answer = json!({
            "watchers": self.watchers.len(),
            "namespace-count": self.monitors.len(),
            "namespaces": namespaces,
        });
        self.handle.respond(msg, &answer);
    }
}

impl Watcher {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sends what an answer brought, if anything.
    fn handle_answer(&mut self, handle: &Handle, answer: LookupAnswer) -> Next {
        let first = !self.first_done;
        if !first && answer.rootseq <= self.first_seq {
            return Next::Wait;
        }
        if first {
            self.first_done = true;
            self.first_seq = answer.rootseq;
        }
        if let Some(errno) = answer.errno {
            if self.has(WAITCREATE) && !self.responded {
                self.send_sentinel(handle);
                return Next::Wait;
            }
            return Next::Fail(RpcError::errno(errno));
        }
        if self.has(WATCH_APPEND | STREAM) {
            if let Err(e) = self.send_appended(handle, &answer) {
                return Next::Fail(e);
            }
            self.send_sentinel(handle);
            if self.has(STREAM) {
                return Next::Fail(RpcError::errno(libc::ENODATA));
            }
        } else if let Some(val) = answer.val {
            let same = self.previous.as_ref() == Some(&val);
            if !(same && self.has(WATCH_FULL | WATCH_UNIQ)) {
                self.send(handle, &val);
            }
            if self.has(WATCH_FULL | WATCH_UNIQ) {
                self.previous = Some(val);
            }
        }
        // Without WATCH a lookup is answered once, when the key exists.
        if self.has(WATCH) {
            Next::Wait
        } else {
            Next::Finish
        }
    }

    fn send(&mut self, handle: &Handle, val: &TreeObj) {
        handle.respond(&self.request, &json!({ "val": val }));
        self.responded = true;
    }

    fn send_appended(&mut self, handle: &Handle, a: &LookupAnswer) -> Result<(), RpcError> {
        let invalid = |what: &str| {
            let text = format!("{}: value watched for appended data was {what}", self.key);
            Err(RpcError::new(libc::EINVAL, text))
        };
        if self.responded && a.is_val {
            return invalid("overwritten");
        }
        if a.count < self.sent {
            return invalid("truncated");
        }
        for val in &a.values {
            self.send(handle, val);
        }
        self.sent = a.count;
        Ok(())
    }

    fn send_sentinel(&mut self, handle: &Handle) {
        if self.has(WATCH_INITIAL_SENTINEL) && !self.sentinel_sent {
            handle.respond_ok(&self.request);
            self.sentinel_sent = true;
        }
    }
}

fn check_flags(flags: u32, streaming: bool) -> Result<(), RpcError> {
    let has = |flag| flags & flag != 0;
    if has(WATCH | STREAM) && !streaming {
        return Err(RpcError::proto(
            "watching and streaming need a streaming RPC",
        ));
    }
    let invalid = |text: &str| Err(RpcError::new(libc::EINVAL, text));
    if has(WATCH) && has(STREAM) {
        return invalid("a lookup cannot watch and stream at once");
    }
    if !has(WATCH) && has(WATCH_FULL | WATCH_UNIQ | WATCH_APPEND | WATCH_INITIAL_SENTINEL) {
        return invalid("flags that say how to watch need the WATCH flag");
    }
    if has(WATCH_INITIAL_SENTINEL) && !has(WATCH_APPEND) {
        return invalid("WATCH_INITIAL_SENTINEL needs WATCH_APPEND");
    }
    Ok(())
}
