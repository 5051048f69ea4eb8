//! The broker module `content` (RFC 10), on every rank.
//!
//! Rank 0 has everything: in the store that has registered (`content.register-backing`), or in memory without one.
//! A store request is acknowledged when the transaction that holds its blob is committed; all blobs that arrive while
//! one transaction commits make up the next. A store whose file goes away with the instance is written behind: the
//! acknowledgement does not wait for it. Other ranks cache, and fault loads and pass stores to their parent, so a store
//! is acknowledged only after rank 0 has the blob. No cache keeps a store to itself because it has the blob: the store
//! counts from then on how long nobody has wanted it ([`collector`](crate::backing::collector)).

mod clean;
mod files;
mod root;

use std::collections::HashMap;

use bytes::Bytes;
use client::module::{Context, ModuleError};
use client::services::attr::SetAttr;
use client::{Handle, Message, Node, RpcError};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::roots::Roots;
use crate::{BlobRef, HashAlg, batch};
use clean::Cache;
use files::{Files, Mapped};
use root::{Root, Waiting};

/// Blobs larger than this are refused with EFBIG.
const BLOB_LIMIT: usize = 1 << 30;
/// Cached bytes on one rank, unless an argument says otherwise.
const CACHE_LIMIT: usize = 64 << 20;

/// What a finished piece of work means for the module.
enum Done {
    Loaded(BlobRef, Result<Bytes, RpcError>),
    /// Rank 0: a blob was read from its file, and is read again the next time.
    Read(BlobRef, Result<Bytes, RpcError>),
    /// Rank 0: a file was looked at, for the request of this tag.
    Mapped(Message, String, Result<Mapped, RpcError>),
    /// Rank 0: the transaction in flight ended.
    Stored(Result<(), RpcError>),
    /// Other ranks: the parent acknowledged these blobs.
    Relayed(Vec<(BlobRef, Bytes)>, Result<(), RpcError>, StoreWaiter),
    /// The request of a store to be registered, and whether it is.
    Registered(Message, Result<(), RpcError>),
    Nothing,
}

/// A requester of a store, and what it gets: its digest, or nothing for a batch.
struct StoreWaiter {
    request: Message,
    digest: Option<BlobRef>,
}

/// Module arguments.
#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    cache_limit: usize,
    blob_limit: usize,
    /// The store is loaded together with this module: nothing is served before it is there.
    await_backing: bool,
}

impl Arguments {
    fn parse(args: &[String]) -> Result<Self, ModuleError> {
        let mut parsed = Self {
            cache_limit: CACHE_LIMIT,
            blob_limit: BLOB_LIMIT,
            await_backing: false,
        };
        for arg in args {
            let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
            let number = || {
                let invalid = || ModuleError::invalid(format!("{name}: {value:?} is no number"));
                value.parse::<usize>().map_err(|_| invalid())
            };
            match name {
                "await-backing" => parsed.await_backing = true,
                "purge-target-size" => parsed.cache_limit = number()?,
                "blob-size-limit" => parsed.blob_limit = number()?,
                // The oldest go first, as many as need be, and transactions are as large as they get.
                "purge-old-entry" | "flush-batch-limit" => drop(number()?),
                _ => return Err(ModuleError::unknown_argument(arg)),
            }
        }
        Ok(parsed)
    }
}

struct Module {
    handle: Handle,
    alg: HashAlg,
    blob_limit: usize,
    cache: Cache,
    /// Load requests waiting for a blob that is on its way.
    loads: HashMap<BlobRef, Vec<Message>>,
    root: Option<Root>,
    /// Blobs that are parts of files (rank 0).
    files: Files,
    /// What has come before the store has.
    held: Option<Vec<Message>>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Runs the module until its inbox ends.
pub async fn main(mut ctx: Context) -> Result<(), ModuleError> {
    let handle = ctx.handle.clone();
    let args = Arguments::parse(&ctx.args)?;
    let alg = hash_algorithm(&handle).await?;
    let root = (handle.rank() == 0).then(Root::default);
    let chosen = handle.getattr("content.backing-module").await;
    let awaited = args.await_backing && root.is_some() && chosen.as_deref() != Ok("none");
    let mut module = Module {
        handle,
        alg,
        blob_limit: args.blob_limit,
        cache: Cache::new(args.cache_limit),
        loads: HashMap::new(),
        root,
        files: Files::default(),
        held: awaited.then(Vec::new),
        work: FuturesUnordered::new(),
    };
    loop {
        tokio::select! {
            // What happens is a function of what arrives. There is no more work than there are requests.
            biased;
            Some(done) = module.work.next() => module.handle_done(done),
            msg = ctx.inbox.recv() => match msg {
                Some(msg) => {
                    module.take(msg);
                    while let Some(msg) = ctx.inbox.try_recv() {
                        module.take(msg);
                    }
                }
                None => break,
            },
        }
        module.start_group();
    }
    // Whoever still waits for a store gets it: finish what is queued.
    module.start_group();
    while let Some(done) = module.work.next().await {
        module.handle_done(done);
        module.start_group();
    }
    Ok(())
}

async fn hash_algorithm(handle: &Handle) -> Result<HashAlg, ModuleError> {
    match handle.getattr("content.hash").await {
        Ok(name) => name
            .parse()
            .map_err(|e| ModuleError::new("attribute content.hash", e)),
        Err(_) => {
            let alg = HashAlg::default();
            // Others read the attribute; without it they fall back on the same default.
            let attr = SetAttr {
                name: "content.hash",
                value: alg.name(),
                force: false,
            };
            let _ = handle.ask(Node::Any, &attr).await;
            Ok(alg)
        }
    }
}

async fn load_below(
    handle: Handle,
    below: Option<(String, Node)>,
    blobref: BlobRef,
) -> Result<Bytes, RpcError> {
    let (topic, node) = below.ok_or_else(|| not_stored(blobref))?;
    let raw = Bytes::copy_from_slice(blobref.raw());
    let answer = handle.rpc_raw(&topic, node, Some(raw)).await?;
    Ok(answer.payload().cloned().unwrap_or_default())
}

fn not_stored(blobref: BlobRef) -> RpcError {
    RpcError::new(libc::ENOENT, format!("content {blobref} is not stored"))
}

impl Module {
    /// Takes a message, or holds it back until the store is there.
    fn take(&mut self, msg: Message) {
        match &mut self.held {
            Some(held) if msg.method() != "register-backing" => held.push(msg),
            _ => self.handle_message(&msg),
        }
    }

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
        match msg.method() {
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
            "checkpoint-get" | "namespaces" => self.ask_below(msg),
            "checkpoint-put" => self.handle_checkpoint_put(msg),
            "register-backing" => self.handle_register(msg),
            "unregister-backing" => self.handle_unregister(msg),
            "mmap-add" => self.handle_map(msg),
            "mmap-remove" => self.handle_unmap(msg),
            "stats-get" => {
                self.handle_stats(msg);
                Ok(())
            }
            "disconnect" => Ok(()),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }

    fn handle_load(&mut self, msg: &Message) -> Result<(), RpcError> {
        let blobref = BlobRef::of_request(self.alg, msg)?;
        let dirty = || self.root.as_ref()?.dirty(&blobref);
        if let Some(data) = self.cache.get(&blobref).or_else(dirty) {
            self.respond_blob(msg, data);
            return Ok(());
        }
        let (place, below) = (self.files.find(&blobref), self.below("load"));
        if place.is_none() && below.is_none() {
            return Err(not_stored(blobref));
        }
        let waiters = self.loads.entry(blobref).or_default();
        waiters.push(msg.clone());
        if waiters.len() > 1 {
            return Ok(());
        }
        let load = load_below(self.handle.clone(), below, blobref);
        self.work.push(match place {
            None => Box::pin(async move { Done::Loaded(blobref, load.await) }),
            Some(place) => Box::pin(async move {
                match place.read(blobref).await {
                    Ok(data) => Done::Read(blobref, Ok(data)),
                    // It may be stored as well.
                    Err(changed) => match load.await {
                        Ok(data) => Done::Loaded(blobref, Ok(data)),
                        Err(_) => Done::Read(blobref, Err(changed)),
                    },
                }
            }),
        });
        Ok(())
    }

    /// How what is not here is asked for: of the store if there is one, or of the parent.
    fn below(&self, method: &str) -> Option<(String, Node)> {
        match &self.root {
            None => Some((format!("content.{method}"), Node::Upstream)),
            Some(root) if root.has_backing() => {
                Some((format!("content-backing.{method}"), Node::Any))
            }
            Some(_) => None,
        }
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
        self.store(vec![(blobref, data)], Roots::default(), waiter);
        Ok(())
    }

    fn handle_store_batch(&mut self, msg: &Message) -> Result<(), RpcError> {
        let payload = msg.payload().cloned().unwrap_or_default();
        let (roots, blobs) = batch::decode(payload)
            .ok_or_else(|| RpcError::proto("content.store-batch: a blob is cut short"))?;
        let blobs = blobs
            .into_iter()
            .map(|data| Ok((self.checked(&data)?, data)))
            .collect::<Result<Vec<_>, RpcError>>()?;
        let roots = match self.root.is_some() {
            true => Roots::decode(&roots)?,
            false => Roots::default(),
        };
        let waiter = StoreWaiter {
            request: msg.clone(),
            digest: None,
        };
        self.store(blobs, roots, waiter);
        Ok(())
    }

    fn checked(&self, data: &Bytes) -> Result<BlobRef, RpcError> {
        let (len, limit) = (data.len(), self.blob_limit);
        if len > limit {
            let text = format!("blob of {len} bytes exceeds the limit of {limit}");
            return Err(RpcError::new(libc::EFBIG, text));
        }
        Ok(self.alg.hash(data))
    }

    /// `roots` (rank 0) is what these blobs make valid.
    fn store(&mut self, blobs: Vec<(BlobRef, Bytes)>, roots: Roots, waiter: StoreWaiter) {
        if blobs.is_empty() && roots.is_empty() {
            self.respond_store(&waiter);
            return;
        }
        if let Some(root) = &mut self.root {
            if let Some(waiter) = root.store(blobs, roots, waiter) {
                self.respond_store(&waiter);
            }
            return;
        }
        let (topic, payload) = match waiter.digest {
            Some(_) => ("content.store", blobs[0].1.clone()),
            None => (
                "content.store-batch",
                batch::encode(&[], blobs.iter().map(|(_, data)| data)),
            ),
        };
        let rpc = self.handle.rpc_raw(topic, Node::Upstream, Some(payload));
        self.work.push(Box::pin(async move {
            let result = rpc.await.map(drop);
            Done::Relayed(blobs, result, waiter)
        }));
    }

    fn respond_store(&self, waiter: &StoreWaiter) {
        let digest = waiter.digest.map(|r| Bytes::copy_from_slice(r.raw()));
        self.handle.respond_raw(&waiter.request, digest);
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Loaded(blobref, result) => {
                if let Ok(data) = &result {
                    self.cache.insert(blobref, data.clone());
                }
                self.answer_loads(blobref, &result);
            }
            Done::Read(blobref, result) => self.answer_loads(blobref, &result),
            Done::Mapped(msg, tag, result) => self.mapped(&msg, tag, result),
            Done::Stored(result) => self.handle_stored(result),
            Done::Relayed(blobs, result, waiter) => match result {
                Ok(()) => {
                    for (blobref, data) in blobs {
                        self.cache.insert(blobref, data);
                    }
                    self.respond_store(&waiter);
                }
                Err(e) => self.handle.respond_error(&waiter.request, &e),
            },
            Done::Registered(msg, result) => self.registered(&msg, result),
            Done::Nothing => {}
        }
    }

    fn answer_loads(&mut self, blobref: BlobRef, result: &Result<Bytes, RpcError>) {
        for msg in self.loads.remove(&blobref).unwrap_or_default() {
            match result {
                Ok(data) => self.respond_blob(&msg, data.clone()),
                Err(e) => self.handle.respond_error(&msg, e),
            }
        }
    }

    fn handle_validate(&mut self, msg: &Message) -> Result<(), RpcError> {
        let blobref = BlobRef::of_request(self.alg, msg)?;
        let dirty = || self.root.as_ref()?.dirty(&blobref);
        let cached = self.cache.get(&blobref).or_else(dirty).is_some();
        if cached || self.files.find(&blobref).is_some() {
            self.handle.respond_ok(msg);
            return Ok(());
        }
        let below = self.below("validate");
        self.relay(below.ok_or_else(|| not_stored(blobref))?, msg);
        Ok(())
    }

    /// Passes a request on as it is, and its answer back.
    fn relay(&mut self, (topic, node): (String, Node), msg: &Message) {
        let (handle, msg) = (self.handle.clone(), msg.clone());
        let rpc = handle.rpc_raw(&topic, node, msg.payload().cloned());
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
        match &mut self.root {
            Some(root) => root.wait(Waiting::Flush(msg.clone()))?,
            // Nothing is dirty here: a store is not acknowledged before rank 0 has it.
            None => self.handle.respond_ok(msg),
        }
        Ok(())
    }

    /// What the store alone knows.
    fn ask_below(&mut self, msg: &Message) -> Result<(), RpcError> {
        let below = self.below(msg.method());
        self.relay(below.ok_or_else(root::no_backing)?, msg);
        Ok(())
    }

    fn handle_checkpoint_put(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(rename = "value")]
            _value: serde_json::Map<String, Value>,
        }
        msg.json::<Request>()?;
        match &mut self.root {
            // What the checkpoint refers to must be stored before it.
            Some(root) => root.wait(Waiting::Checkpoint(msg.clone()))?,
            None => self.put_checkpoint(msg),
        }
        Ok(())
    }

    /// Answers with statistics; on rank 0 also with the store's of its garbage collection, if it has any.
    fn handle_stats(&mut self, msg: &Message) {
        let mut stats = self.stats();
        let collects = self.root.as_ref().is_some_and(Root::collects_garbage);
        if !collects {
            self.handle.respond(msg, &stats);
            return;
        }
        let (handle, msg) = (self.handle.clone(), msg.clone());
        self.work.push(Box::pin(async move {
            let request = json!({});
            let status = handle.call("content-backing.gc-status", Node::Any, &request);
            // A store that has just gone has nothing to say.
            stats["gc"] = status.await.unwrap_or(Value::Null);
            handle.respond(&msg, &stats);
            Done::Nothing
        }));
    }

    fn stats(&self) -> Value {
        let dirty = self.root.as_ref().map_or(0, Root::dirty_count);
        json!({
            "count": self.cache.len() + dirty,
            "valid": self.cache.len() + dirty,
            "dirty": dirty,
            "size": self.cache.bytes() + self.root.as_ref().map_or(0, Root::dirty_bytes),
            "flush-batch-count": usize::from(self.root.as_ref().is_some_and(Root::is_busy)),
            "store-error": self.root.as_ref().and_then(Root::trouble),
            "mmap": self.root.as_ref().map(|_| self.files.stats()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let parse = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            Arguments::parse(&args)
        };
        let parsed = parse(&["purge-target-size=100", "await-backing"]).unwrap();
        assert_eq!((parsed.cache_limit, parsed.await_backing), (100, true));
        assert!(!parse(&["purge-old-entry=1"]).unwrap().await_backing);
        for bad in ["purge-target-size=x", "blob-size-limit", "nonsense=1"] {
            let e = parse(&[bad]).unwrap_err();
            assert!(e.text.contains(bad.split('=').next().unwrap()), "{e}");
        }
    }
}
