//! A store as a service: `content-backing`, which registers with `content` (RFC 10).
//!
//! Loads that arrive while others are under way are one question to the store, and stores that arrive while one is
//! written are one transaction. [`gc`] is what garbage collection asks.

mod gc;

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::collector::Collector;
use super::times::Times;
use super::writes::{Store, Write, Writes};
use super::{Backing, BackingError, Loaded, Removed};
use crate::many::{self, Part};
use crate::roots::Roots;
use crate::{BlobRef, HashAlg, batch};

/// Loads that are one question.
const LOADS_AT_ONCE: usize = 256;
/// Questions under way.
const QUESTIONS: usize = 2;

/// A request to load one blob.
struct Load {
    request: Message,
    since: Instant,
    blobref: BlobRef,
}

/// A request that is answered when something is written.
struct Writer {
    request: Message,
    since: Instant,
    digest: Option<Bytes>,
}

/// What a piece of work has come to.
enum Done<'a> {
    Loaded(Vec<Load>, Result<Loaded, BackingError>),
    LoadedMany(Message, Vec<BlobRef>, Result<Loaded, BackingError>),
    Stored(Vec<Writer>, Result<(), BackingError>),
    Checkpointed(Writer, Result<(), BackingError>),
    Removed(Vec<BlobRef>, Result<Removed, BackingError>),
    /// A step of the sweep of this cycle.
    Sweep(u64, gc::Step<'a>),
    Answered(Message, Result<Value, RpcError>),
}

struct Server<'a, S> {
    handle: Handle,
    alg: HashAlg,
    store: &'a S,
    load_time: Times,
    store_time: Times,
    loads: Vec<Load>,
    /// Questions for `loads` under way.
    questions: usize,
    writes: Writes<Writer>,
    collector: Collector,
    sweep: Option<gc::Sweep<'a>>,
    work: FuturesUnordered<BoxFuture<'a, Done<'a>>>,
}

/// Serves `store` until the module ends.
pub(super) async fn serve(
    mut ctx: Context,
    store: impl Backing,
    register: bool,
) -> Result<(), ModuleError> {
    let handle = ctx.handle.clone();
    let hash = handle.getattr("content.hash").await;
    let hash = hash.map_or_else(|_| Ok(HashAlg::default()), |name| name.parse());
    let mut server = Server {
        handle: handle.clone(),
        alg: hash.map_err(|e| ModuleError::new("attribute content.hash", e))?,
        store: &store,
        load_time: Times::default(),
        store_time: Times::default(),
        loads: Vec::new(),
        questions: 0,
        writes: Writes::default(),
        collector: Collector::default(),
        sweep: None,
        work: FuturesUnordered::new(),
    };
    let mut requests = handle.register("content-backing").await?;
    if register {
        let offer = json!({
            "name": ctx.name,
            "durable": store.is_durable(),
            "batches": true,
        });
        handle
            .call::<client::Empty>("content.register-backing", Node::Any, &offer)
            .await?;
    }
    let mut open = true;
    while open || !server.work.is_empty() {
        tokio::select! {
            msg = requests.recv(), if open => match msg {
                Some(msg) => {
                    server.handle_message(msg);
                    while let Some(msg) = requests.try_recv() {
                        server.handle_message(msg);
                    }
                }
                None => open = false,
            },
            msg = ctx.inbox.recv(), if open => match msg {
                Some(msg) => server.handle_message(msg),
                None => open = false,
            },
            Some(done) = server.work.next() => server.handle_done(done),
        }
        if !open {
            server.end_sweep(&RpcError::errno(libc::ENOSYS));
        }
        server.start_loads();
        server.start_write();
        server.step_sweep();
    }
    if register {
        // It may have gone before.
        let _ = handle
            .rpc("content.unregister-backing", Node::Any, &json!({}))
            .await;
    }
    drop(server);
    store.close().await;
    Ok(())
}

fn not_stored(blobref: BlobRef) -> RpcError {
    RpcError::new(libc::ENOENT, format!("content {blobref} is not stored"))
}

impl<'a, S: Backing> Server<'a, S> {
    fn handle_message(&mut self, msg: Message) {
        if !msg.is_request() || msg.method() == "disconnect" {
            return;
        }
        if let Err(e) = self.handle_request(&msg) {
            self.handle.respond_error(&msg, &e);
        }
    }

    fn handle_request(&mut self, msg: &Message) -> Result<(), RpcError> {
        match msg.method() {
            "stats-get" => {
                self.handle_stats(msg);
                return Ok(());
            }
            "gc-status" => {
                self.handle_gc_status(msg);
                return Ok(());
            }
            _ => msg.require_owner()?,
        }
        match msg.method() {
            "load" => self.handle_load(msg),
            "load-batch" => self.handle_load_batch(msg),
            "validate" => self.handle_validate(msg),
            "store" => {
                let data = msg.payload().cloned().unwrap_or_default();
                let blobref = self.alg.hash(&data);
                let digest = Bytes::copy_from_slice(blobref.raw());
                self.store(msg, vec![(blobref, data)], Roots::default(), Some(digest));
                Ok(())
            }
            "store-batch" => self.handle_store_batch(msg),
            "checkpoint-get" => {
                self.handle_checkpoint_get(msg);
                Ok(())
            }
            "namespaces" => {
                self.handle_namespaces(msg);
                Ok(())
            }
            "checkpoint-put" => self.handle_checkpoint_put(msg),
            "gc-begin" => self.handle_gc_begin(msg),
            "gc-mark" => self.handle_gc_mark(msg),
            "gc-sweep" => self.handle_gc_sweep(msg),
            "gc-abort" => self.handle_gc_abort(msg),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }

    fn handle_load(&mut self, msg: &Message) -> Result<(), RpcError> {
        let blobref = BlobRef::of_request(self.alg, msg)?;
        self.loads.push(Load {
            request: msg.clone(),
            since: Instant::now(),
            blobref,
        });
        Ok(())
    }

    /// Asks for blobs that wait to be loaded.
    fn start_loads(&mut self) {
        while self.questions < QUESTIONS && !self.loads.is_empty() {
            let rest = self.loads.split_off(self.loads.len().min(LOADS_AT_ONCE));
            let loads = std::mem::replace(&mut self.loads, rest);
            let mut blobrefs: Vec<_> = loads.iter().map(|load| load.blobref).collect();
            blobrefs.sort_unstable();
            blobrefs.dedup();
            let store = self.store;
            self.questions += 1;
            self.work.push(Box::pin(async move {
                Done::Loaded(loads, store.load(blobrefs).await)
            }));
        }
    }

    fn handle_loaded(&mut self, loads: Vec<Load>, result: Result<Loaded, BackingError>) {
        self.questions -= 1;
        let loaded = match result {
            Ok(loaded) => loaded,
            Err(e) => {
                let e = RpcError::from(e);
                for load in &loads {
                    self.handle.respond_error(&load.request, &e);
                }
                return;
            }
        };
        let found: HashMap<_, _> = loaded.blobs.into_iter().collect();
        for load in loads {
            match found.get(&load.blobref) {
                Some(Ok(data)) => {
                    let data = Some(data).filter(|d| !d.is_empty());
                    self.handle.respond_raw(&load.request, data.cloned());
                }
                Some(Err(e)) => {
                    let e = RpcError::new(e.errno(), e.to_string());
                    self.handle.respond_error(&load.request, &e);
                }
                None if loaded.is_complete => {
                    let e = not_stored(load.blobref);
                    self.handle.respond_error(&load.request, &e);
                }
                None => {
                    self.loads.push(load);
                    continue;
                }
            }
            self.load_time.add(load.since.elapsed());
        }
    }

    fn handle_load_batch(&mut self, msg: &Message) -> Result<(), RpcError> {
        let payload = msg.payload().map_or(&[][..], |p| &p[..]);
        let blobrefs = many::decode_request(self.alg, payload)
            .ok_or_else(|| RpcError::proto("content-backing.load-batch: a digest is cut short"))?;
        let mut once = blobrefs.clone();
        once.sort_unstable();
        once.dedup();
        let (store, msg) = (self.store, msg.clone());
        self.work.push(Box::pin(async move {
            Done::LoadedMany(msg, blobrefs, store.load(once).await)
        }));
        Ok(())
    }

    fn handle_loaded_many(
        &self,
        msg: &Message,
        blobrefs: &[BlobRef],
        result: Result<Loaded, BackingError>,
    ) {
        let loaded = match result {
            Ok(loaded) => loaded,
            Err(e) => return self.handle.respond_error(msg, &e.into()),
        };
        let found: HashMap<_, _> = loaded.blobs.into_iter().collect();
        let part = |blobref| match found.get(blobref) {
            Some(Ok(data)) => Part::Found(data.clone()),
            Some(Err(e)) => Part::Damaged(e.to_string()),
            None if loaded.is_complete => Part::Missing,
            None => Part::Later,
        };
        let parts: Vec<_> = blobrefs.iter().map(part).collect();
        let answer = Some(many::encode_answer(&parts)).filter(|a| !a.is_empty());
        self.handle.respond_raw(msg, answer);
    }

    fn handle_validate(&mut self, msg: &Message) -> Result<(), RpcError> {
        let blobref = BlobRef::of_request(self.alg, msg)?;
        let (store, msg) = (self.store, msg.clone());
        self.work.push(Box::pin(async move {
            let found = match store.contains(blobref).await {
                Ok(true) => Ok(Value::Null),
                Ok(false) => Err(RpcError::errno(libc::ENOENT)),
                Err(e) => Err(e.into()),
            };
            Done::Answered(msg, found)
        }));
        Ok(())
    }

    fn handle_store_batch(&mut self, msg: &Message) -> Result<(), RpcError> {
        let payload = msg.payload().cloned().unwrap_or_default();
        let (roots, blobs) = batch::decode(payload)
            .ok_or_else(|| RpcError::proto("content-backing.store-batch: a blob is cut short"))?;
        let roots = Roots::decode(&roots)?;
        let blobs = blobs.into_iter().map(|data| (self.alg.hash(&data), data));
        self.store(msg, blobs.collect(), roots, None);
        Ok(())
    }

    fn store(
        &mut self,
        msg: &Message,
        blobs: Vec<(BlobRef, Bytes)>,
        roots: Roots,
        digest: Option<Bytes>,
    ) {
        for (blobref, _) in &blobs {
            self.collector.stored(blobref);
        }
        let writer = Writer {
            request: msg.clone(),
            since: Instant::now(),
            digest,
        };
        self.writes.add(Write::Store(Store {
            blobs,
            roots,
            requests: vec![writer],
        }));
    }

    fn handle_checkpoint_get(&mut self, msg: &Message) {
        let (store, msg) = (self.store, msg.clone());
        self.work.push(Box::pin(async move {
            let found = match store.checkpoints().await {
                Ok(list) if list.is_empty() => Err(RpcError::errno(libc::ENOENT)),
                Ok(list) => Ok(json!({ "value": list })),
                Err(e) => Err(e.into()),
            };
            Done::Answered(msg, found)
        }));
    }

    fn handle_namespaces(&mut self, msg: &Message) {
        let (store, msg) = (self.store, msg.clone());
        self.work.push(Box::pin(async move {
            let found = store.namespaces().await.map_err(RpcError::from);
            let value = |roots: Roots| Value::Object(roots.into());
            Done::Answered(
                msg,
                found.map(|roots| json!({ "namespaces": value(roots) })),
            )
        }));
    }

    fn handle_checkpoint_put(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Put {
            value: Map<String, Value>,
        }
        let Put { value } = msg.json()?;
        let writer = Writer {
            request: msg.clone(),
            since: Instant::now(),
            digest: None,
        };
        self.writes.add(Write::Checkpoint(value.into(), writer));
        Ok(())
    }

    /// Starts the next write, if none is under way.
    fn start_write(&mut self) {
        let collector = &self.collector;
        let Some(write) = self.writes.next(|b| collector.is_condemned(b)) else {
            return;
        };
        let store = self.store;
        self.work.push(match write {
            Write::Store(Store {
                blobs,
                roots,
                requests,
            }) => Box::pin(
                async move { Done::Stored(requests, store.store_batch(blobs, roots).await) },
            ),
            Write::Checkpoint(value, writer) => {
                Box::pin(
                    async move { Done::Checkpointed(writer, store.checkpoint_put(value).await) },
                )
            }
            Write::Remove(blobs) => Box::pin(async move {
                let removed = store.remove(blobs.clone()).await;
                Done::Removed(blobs, removed)
            }),
        });
    }

    fn handle_stored(&mut self, writers: Vec<Writer>, result: Result<(), BackingError>) {
        self.writes.done();
        let result = result.map_err(RpcError::from);
        for Writer {
            request,
            since,
            digest,
        } in writers
        {
            self.store_time.add(since.elapsed());
            match &result {
                Ok(()) => self.handle.respond_raw(&request, digest),
                Err(e) => self.handle.respond_error(&request, e),
            }
        }
    }

    fn handle_done(&mut self, done: Done<'a>) {
        match done {
            Done::Loaded(loads, result) => self.handle_loaded(loads, result),
            Done::LoadedMany(msg, blobrefs, result) => {
                self.handle_loaded_many(&msg, &blobrefs, result);
            }
            Done::Stored(writers, result) => self.handle_stored(writers, result),
            Done::Checkpointed(writer, result) => {
                self.writes.done();
                match result {
                    Ok(()) => self.handle.respond_ok(&writer.request),
                    Err(e) => self.handle.respond_error(&writer.request, &e.into()),
                }
            }
            Done::Removed(blobs, result) => self.handle_removed(&blobs, result),
            Done::Sweep(cycle, step) => self.handle_sweep_step(cycle, step),
            Done::Answered(msg, Ok(Value::Null)) => self.handle.respond_ok(&msg),
            Done::Answered(msg, Ok(value)) => self.handle.respond(&msg, &value),
            Done::Answered(msg, Err(e)) => self.handle.respond_error(&msg, &e),
        }
    }

    fn handle_stats(&mut self, msg: &Message) {
        let (load, put) = (self.load_time.to_json(), self.store_time.to_json());
        let (store, msg, gc) = (self.store, msg.clone(), self.gc_status());
        self.work.push(Box::pin(async move {
            let stats = async {
                let mut stats = store.describe();
                stats["object_count"] = store.count().await?.into();
                stats["load_time"] = load;
                stats["store_time"] = put;
                stats["checkpoints"] = store.checkpoints().await?.into();
                stats["gc"] = gc;
                Ok(stats)
            };
            let stats: Result<Value, BackingError> = stats.await;
            Done::Answered(msg, stats.map_err(RpcError::from))
        }));
    }
}
