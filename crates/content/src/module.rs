//! The broker module `content` (RFC 10), on every rank.
//!
//! Rank 0 keeps blobs in a backing store. A store request is acknowledged when the transaction
//! that holds its blob is committed; all blobs that arrive while one transaction commits make up
//! the next. Where the file goes away with the instance (no `statedir` that stays), it is written behind: the
//! acknowledgement does not wait for it. Other ranks cache, and fault loads and pass stores to their parent, so a store is
//! acknowledged only after rank 0 has the blob.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use client::module::{Context, ModuleError};
use client::services::attr::SetAttr;
use client::{Handle, Message, Node, RpcError};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::backing::{Backing, BackingError, Durability, Memory, Sqlite};
use crate::cache::Cache;
use crate::{BlobRef, HashAlg, batch};

/// Blobs larger than this are refused with EFBIG.
const BLOB_LIMIT: usize = 1 << 30;
/// Cached bytes on one rank.
const CACHE_LIMIT: usize = 64 << 20;

/// Blobs that may wait for a file nobody depends on before their writers have to wait too.
const WRITE_BEHIND_LIMIT: usize = 10_000;

/// What a finished piece of work means for the module.
enum Done {
    Loaded(BlobRef, Result<Bytes, RpcError>),
    /// Rank 0: the transaction in flight ended.
    Stored(Result<(), RpcError>),
    /// Other ranks: the parent acknowledged these blobs.
    Relayed(
        Vec<(BlobRef, Bytes)>,
        Result<(), RpcError>,
        Message,
        Option<BlobRef>,
    ),
    Nothing,
}

/// A requester of a store, and what it gets: its digest, or nothing for a batch.
struct StoreWaiter {
    request: Message,
    digest: Option<BlobRef>,
}

/// Rank 0: group commit.
struct Groups {
    backing: Arc<dyn Backing>,
    /// The file goes away with the instance: nothing is gained by waiting for it.
    write_behind: bool,
    /// Blobs for the next transaction.
    queued: HashMap<BlobRef, Bytes>,
    /// KVS root that is valid once the next transaction is committed.
    queued_root: Option<Value>,
    queued_waiters: Vec<Waiting>,
    /// Blobs in the transaction that is being committed, if any.
    in_flight: Option<(HashMap<BlobRef, Bytes>, Vec<Waiting>)>,
}

/// What is answered when a transaction ends.
enum Waiting {
    Store(StoreWaiter),
    Flush(Message),
    Checkpoint(Message, Value),
}

struct Module {
    handle: Handle,
    alg: HashAlg,
    cache: Cache,
    /// Load requests waiting for a blob that is on its way.
    loads: HashMap<BlobRef, Vec<Message>>,
    groups: Option<Groups>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

fn rpc_error(e: BackingError) -> RpcError {
    RpcError::new(e.errno(), e.to_string())
}

/// Runs the module until its inbox ends.
///
/// Arguments: `memory` keeps blobs in memory instead of a file (rank 0).
pub async fn main(mut ctx: Context) -> Result<(), ModuleError> {
    let handle = ctx.handle.clone();
    let alg = match handle.getattr("content.hash").await {
        Ok(name) => name
            .parse()
            .map_err(|e| ModuleError::new("attribute content.hash", e))?,
        Err(_) => {
            let alg = HashAlg::default();
            // Others read the attribute; without it they fall back on the same default.
            let attr = SetAttr {
                name: "content.hash",
                value: alg.name(),
                force: false,
            };
            let _ = handle.ask(Node::Any, &attr).await;
            alg
        }
    };
    let groups = if handle.rank() == 0 {
        let (backing, durability) = open_backing(&handle, &ctx.args).await?;
        Some(Groups {
            backing,
            write_behind: durability == Durability::Off,
            queued: HashMap::new(),
            queued_root: None,
            queued_waiters: Vec::new(),
            in_flight: None,
        })
    } else {
        None
    };
    let mut module = Module {
        handle,
        alg,
        cache: Cache::new(CACHE_LIMIT),
        loads: HashMap::new(),
        groups,
        work: FuturesUnordered::new(),
    };
    loop {
        tokio::select! {
            msg = ctx.inbox.recv() => match msg {
                Some(msg) => {
                    module.handle_message(&msg);
                    while let Some(msg) = ctx.inbox.try_recv() {
                        module.handle_message(&msg);
                    }
                }
                None => break,
            },
            Some(done) = module.work.next() => module.handle_done(done),
        }
        module.start_group();
    }
    // Whoever still waits for a store gets it: finish what is queued.
    module.start_group();
    while let Some(done) = module.work.next().await {
        module.handle_done(done);
        module.start_group();
    }
    if let Some(groups) = module.groups {
        groups.backing.close().await;
    }
    Ok(())
}

async fn open_backing(
    handle: &Handle,
    args: &[String],
) -> Result<(Arc<dyn Backing>, Durability), ModuleError> {
    if args.iter().any(|a| a == "memory") {
        return Ok((Arc::new(Memory::default()), Durability::Off));
    }
    let (dir, durability) = match handle.getattr("statedir").await {
        // What is removed with the instance need not survive a crash of the machine.
        Ok(dir) => match handle.getattr("statedir-cleanup").await.as_deref() {
            Ok("1") => (dir, Durability::Off),
            _ => (dir, Durability::Full),
        },
        Err(_) => (handle.getattr("rundir").await?, Durability::Off),
    };
    let path = PathBuf::from(dir).join("content.sqlite");
    let store = Sqlite::open(&path, durability)
        .await
        .map_err(|e| ModuleError::new("opening the content store", e))?;
    Ok((Arc::new(store), durability))
}

impl Module {
    fn handle_message(&mut self, msg: &Message) {
        if !msg.is_request() {
            return;
        }
        if let Err(e) = self.handle_request(msg) {
            self.handle.respond_error(msg, &e);
        }
    }

    /// Handles a request, or says what is wrong with it.
    fn handle_request(&mut self, msg: &Message) -> Result<(), RpcError> {
        let method = msg.topic().strip_prefix("content.").unwrap_or_default();
        if method == "disconnect" {
            return Ok(());
        }
        msg.require_owner()?;
        match method {
            "load" => self.handle_load(msg),
            "store" => self.handle_store(msg),
            "store-batch" => self.handle_store_batch(msg),
            "validate" => self.handle_validate(msg),
            "flush" => self.handle_flush(msg),
            "dropcache" => {
                self.cache.clear();
                self.handle.respond_ok(msg);
                Ok(())
            }
            "checkpoint-get" => self.handle_checkpoint_get(msg),
            "checkpoint-put" => self.handle_checkpoint_put(msg),
            "stats-get" => self.handle_stats(msg),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }

    fn digest(&self, msg: &Message) -> Result<BlobRef, RpcError> {
        let raw = msg.payload().map_or(&[][..], |p| &p[..]);
        BlobRef::from_raw(self.alg, raw).map_err(|e| RpcError::proto(e.to_string()))
    }

    fn handle_load(&mut self, msg: &Message) -> Result<(), RpcError> {
        let blobref = self.digest(msg)?;
        if let Some(data) = self
            .cache
            .get(&blobref)
            .or_else(|| self.uncommitted(&blobref))
        {
            self.respond_blob(msg, data);
            return Ok(());
        }
        let waiters = self.loads.entry(blobref).or_default();
        waiters.push(msg.clone());
        if waiters.len() > 1 {
            return Ok(());
        }
        self.work.push(match &self.groups {
            Some(groups) => {
                let backing = groups.backing.clone();
                Box::pin(async move {
                    let result = match backing.load(blobref).await {
                        Ok(Some(data)) => Ok(data),
                        Ok(None) => Err(RpcError::new(
                            libc::ENOENT,
                            format!("content {blobref} is not stored"),
                        )),
                        Err(e) => Err(rpc_error(e)),
                    };
                    Done::Loaded(blobref, result)
                })
            }
            None => {
                let raw = Bytes::copy_from_slice(blobref.raw());
                let rpc = self
                    .handle
                    .rpc_raw("content.load", Node::Upstream, Some(raw));
                Box::pin(async move {
                    let result = rpc.await.map(|m| m.payload().cloned().unwrap_or_default());
                    Done::Loaded(blobref, result)
                })
            }
        });
        Ok(())
    }

    /// A blob that is in a transaction not committed yet: readable, though not acknowledged.
    fn uncommitted(&self, blobref: &BlobRef) -> Option<Bytes> {
        let groups = self.groups.as_ref()?;
        let in_flight = groups.in_flight.as_ref().map(|(blobs, _)| blobs);
        groups
            .queued
            .get(blobref)
            .or_else(|| in_flight?.get(blobref))
            .cloned()
    }

    fn respond_blob(&self, msg: &Message, data: Bytes) {
        let payload = if data.is_empty() { None } else { Some(data) };
        self.handle.respond_raw(msg, payload);
    }

    fn handle_store(&mut self, msg: &Message) -> Result<(), RpcError> {
        let data = msg.payload().cloned().unwrap_or_default();
        let blobref = self.checked(&data)?;
        let waiter = StoreWaiter {
            request: msg.clone(),
            digest: Some(blobref),
        };
        self.store(vec![(blobref, data)], waiter);
        Ok(())
    }

    fn handle_store_batch(&mut self, msg: &Message) -> Result<(), RpcError> {
        let payload = msg.payload().cloned().unwrap_or_default();
        let (root, blobs) = batch::decode(payload)
            .ok_or_else(|| RpcError::proto("content.store-batch: a blob is cut short"))?;
        let blobs = blobs
            .into_iter()
            .map(|data| Ok((self.checked(&data)?, data)))
            .collect::<Result<Vec<_>, RpcError>>()?;
        if let Some(groups) = &mut self.groups
            && !root.is_empty()
        {
            groups.queued_root = Some(serde_json::from_slice(&root)?);
        }
        self.store(
            blobs,
            StoreWaiter {
                request: msg.clone(),
                digest: None,
            },
        );
        Ok(())
    }

    fn checked(&self, data: &Bytes) -> Result<BlobRef, RpcError> {
        if data.len() > BLOB_LIMIT {
            return Err(RpcError::new(
                libc::EFBIG,
                format!(
                    "blob of {} bytes exceeds the limit of {BLOB_LIMIT}",
                    data.len()
                ),
            ));
        }
        Ok(self.alg.hash(data))
    }

    fn store(&mut self, mut blobs: Vec<(BlobRef, Bytes)>, waiter: StoreWaiter) {
        // What is cached is stored below.
        blobs.retain(|(r, _)| self.cache.get(r).is_none());
        let idle = self.groups.as_ref().is_none_or(|g| g.queued_root.is_none());
        if blobs.is_empty() && idle {
            self.respond_store(&waiter);
            return;
        }
        match &mut self.groups {
            Some(groups) => {
                groups.queued.extend(blobs);
                if groups.write_behind && groups.queued.len() < WRITE_BEHIND_LIMIT {
                    self.respond_store(&waiter);
                } else {
                    groups.queued_waiters.push(Waiting::Store(waiter));
                }
            }
            None => {
                let rpc = match waiter.digest {
                    Some(_) => self.handle.rpc_raw(
                        "content.store",
                        Node::Upstream,
                        Some(blobs[0].1.clone()),
                    ),
                    None => {
                        let payload = batch::encode(&[], blobs.iter().map(|(_, data)| data));
                        self.handle
                            .rpc_raw("content.store-batch", Node::Upstream, Some(payload))
                    }
                };
                self.work.push(Box::pin(async move {
                    let result = rpc.await.map(drop);
                    Done::Relayed(blobs, result, waiter.request, waiter.digest)
                }));
            }
        }
    }

    fn respond_store(&self, waiter: &StoreWaiter) {
        let digest = waiter.digest.map(|r| Bytes::copy_from_slice(r.raw()));
        self.handle.respond_raw(&waiter.request, digest);
    }

    /// Starts the next transaction if none is in flight and something is queued.
    fn start_group(&mut self) {
        let Some(groups) = &mut self.groups else {
            return;
        };
        if groups.in_flight.is_some() || groups.queued_waiters.is_empty() {
            return;
        }
        let blobs = std::mem::take(&mut groups.queued);
        let waiters = std::mem::take(&mut groups.queued_waiters);
        let batch = blobs
            .iter()
            .map(|(blobref, data)| (*blobref, data.clone()))
            .collect();
        groups.in_flight = Some((blobs, waiters));
        let root = groups.queued_root.take();
        let backing = groups.backing.clone();
        self.work.push(Box::pin(async move {
            Done::Stored(backing.store_batch(batch, root).await.map_err(rpc_error))
        }));
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Loaded(blobref, result) => {
                if let Ok(data) = &result {
                    self.cache.insert(blobref, data.clone());
                }
                for msg in self.loads.remove(&blobref).unwrap_or_default() {
                    match &result {
                        Ok(data) => self.respond_blob(&msg, data.clone()),
                        Err(e) => self.handle.respond_error(&msg, e),
                    }
                }
            }
            Done::Stored(result) => self.handle_stored(result),
            Done::Relayed(blobs, result, request, digest) => match result {
                Ok(()) => {
                    for (blobref, data) in blobs {
                        self.cache.insert(blobref, data);
                    }
                    self.respond_store(&StoreWaiter { request, digest });
                }
                Err(e) => self.handle.respond_error(&request, &e),
            },
            Done::Nothing => {}
        }
    }

    fn handle_stored(&mut self, result: Result<(), RpcError>) {
        let Some((blobs, waiters)) = self.groups.as_mut().and_then(|g| g.in_flight.take()) else {
            return;
        };
        if result.is_ok() {
            for (blobref, data) in blobs {
                self.cache.insert(blobref, data);
            }
        }
        for waiting in waiters {
            match (&result, waiting) {
                (Ok(()), Waiting::Store(waiter)) => self.respond_store(&waiter),
                (Ok(()), Waiting::Flush(msg)) => self.handle.respond_ok(&msg),
                (Ok(()), Waiting::Checkpoint(msg, value)) => self.put_checkpoint(msg, value),
                (Err(e), Waiting::Store(StoreWaiter { request: msg, .. }))
                | (Err(e), Waiting::Flush(msg) | Waiting::Checkpoint(msg, _)) => {
                    self.handle.respond_error(&msg, e);
                }
            }
        }
    }

    fn handle_validate(&mut self, msg: &Message) -> Result<(), RpcError> {
        let blobref = self.digest(msg)?;
        if self.cache.get(&blobref).is_some() {
            self.handle.respond_ok(msg);
            return Ok(());
        }
        let (handle, msg) = (self.handle.clone(), msg.clone());
        match &self.groups {
            Some(groups) => {
                let backing = groups.backing.clone();
                self.work.push(Box::pin(async move {
                    match backing.contains(blobref).await {
                        Ok(true) => handle.respond_ok(&msg),
                        Ok(false) => handle.respond_error(
                            &msg,
                            &RpcError::new(
                                libc::ENOENT,
                                format!("content {blobref} is not stored"),
                            ),
                        ),
                        Err(e) => handle.respond_error(&msg, &rpc_error(e)),
                    }
                    Done::Nothing
                }));
            }
            None => self.relay(&msg),
        }
        Ok(())
    }

    /// Passes a request to the parent as it is, and its answer back.
    fn relay(&mut self, msg: &Message) {
        let (handle, msg) = (self.handle.clone(), msg.clone());
        let rpc = handle.rpc_raw(msg.topic(), Node::Upstream, msg.payload().cloned());
        self.work.push(Box::pin(async move {
            match rpc.await {
                Ok(answer) => handle.respond_raw(&msg, answer.payload().cloned()),
                Err(e) => handle.respond_error(&msg, &e),
            }
            Done::Nothing
        }));
    }

    /// Answers when every blob whose store was requested before is stored.
    fn handle_flush(&mut self, msg: &Message) -> Result<(), RpcError> {
        match &mut self.groups {
            Some(groups) => groups.queued_waiters.push(Waiting::Flush(msg.clone())),
            // Nothing is dirty here: a store is not acknowledged before rank 0 has it.
            None => self.handle.respond_ok(msg),
        }
        Ok(())
    }

    fn handle_checkpoint_get(&mut self, msg: &Message) -> Result<(), RpcError> {
        let Some(groups) = &self.groups else {
            self.relay(msg);
            return Ok(());
        };
        let backing = groups.backing.clone();
        let (handle, msg) = (self.handle.clone(), msg.clone());
        self.work.push(Box::pin(async move {
            match backing.checkpoints().await {
                Ok(list) if list.is_empty() => handle
                    .respond_error(&msg, &RpcError::new(libc::ENOENT, "there is no checkpoint")),
                Ok(list) => handle.respond(&msg, &json!({"value": list})),
                Err(e) => handle.respond_error(&msg, &rpc_error(e)),
            }
            Done::Nothing
        }));
        Ok(())
    }

    fn handle_checkpoint_put(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(serde::Deserialize)]
        struct Request {
            value: Value,
        }
        let request: Request = msg.json()?;
        match &mut self.groups {
            // What the checkpoint refers to must be stored before it.
            Some(groups) => {
                groups
                    .queued_waiters
                    .push(Waiting::Checkpoint(msg.clone(), request.value));
            }
            None => self.relay(msg),
        }
        Ok(())
    }

    fn put_checkpoint(&mut self, msg: Message, value: Value) {
        let Some(groups) = &self.groups else { return };
        let (backing, handle) = (groups.backing.clone(), self.handle.clone());
        self.work.push(Box::pin(async move {
            match backing.checkpoint_put(value).await {
                Ok(()) => handle.respond_ok(&msg),
                Err(e) => handle.respond_error(&msg, &rpc_error(e)),
            }
            Done::Nothing
        }));
    }

    fn handle_stats(&mut self, msg: &Message) -> Result<(), RpcError> {
        let dirty = self.groups.as_ref().map_or(0, |g| {
            g.queued.len() + g.in_flight.as_ref().map_or(0, |(blobs, _)| blobs.len())
        });
        let payload = json!({
            "count": self.cache.len() + dirty,
            "valid": self.cache.len() + dirty,
            "dirty": dirty,
            "size": self.cache.bytes(),
            "flush-batch-count": usize::from(self.groups.as_ref().is_some_and(|g| g.in_flight.is_some())),
            "mmap": Value::Null,
        });
        self.handle.respond(msg, &payload);
        Ok(())
    }
}
