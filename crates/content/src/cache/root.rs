//! Rank 0: blobs on their way to the store, the store itself, and what waits for it.
//!
//! Invariants: what is acknowledged is in a committed transaction of a durable store, or in memory here until it is in
//! one that is not; one transaction is in flight at a time; what a failed transaction held and was acknowledged before
//! stays here and goes into the next.

use std::collections::HashMap;

use bytes::Bytes;
use client::services::attr::SetAttr;
use client::{Handle, Message, Node, RpcError};
use serde::Deserialize;

use super::{Done, Module, StoreWaiter};
use crate::roots::Roots;
use crate::{BlobRef, batch};

/// Bytes that may wait for a store that is written behind.
const WRITE_BEHIND_LIMIT: usize = 16 << 20;

/// What is answered when a transaction ends.
pub(super) enum Waiting {
    Store(StoreWaiter),
    Flush(Message),
    Checkpoint(Message),
}

impl Waiting {
    fn request(&self) -> &Message {
        match self {
            Self::Store(waiter) => &waiter.request,
            Self::Flush(msg) | Self::Checkpoint(msg) => msg,
        }
    }
}

/// The store that has registered.
struct Backing {
    name: String,
    /// What it has acknowledged is there after a crash.
    durable: bool,
    /// It takes many blobs and a root in one request. Stores of others may not.
    batches: bool,
}

struct Dirty {
    data: Bytes,
    /// Somebody relies on it.
    acknowledged: bool,
}

/// A transaction on its way.
struct Flight {
    blobs: HashMap<BlobRef, Dirty>,
    waiting: Vec<Waiting>,
}

/// Blobs that are not in the store.
#[derive(Default)]
pub(super) struct Root {
    backing: Option<Backing>,
    queued: HashMap<BlobRef, Dirty>,
    bytes: usize,
    /// KVS roots that are valid once the next transaction is committed.
    roots: Roots,
    waiting: Vec<Waiting>,
    flight: Option<Flight>,
    /// What the store says it suffers from, as it was logged.
    trouble: Option<i32>,
}

/// Without a store.
pub(super) fn no_backing() -> RpcError {
    RpcError::new(libc::ENOSYS, "no content backing store is loaded")
}

impl Root {
    pub(super) fn has_backing(&self) -> bool {
        self.backing.is_some()
    }

    /// What the store suffers from, if it takes nothing.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.map(|errno| RpcError::errno(errno).to_string())
    }

    /// Whether the store is one of ours, which can say what garbage it has.
    pub(super) fn collects_garbage(&self) -> bool {
        self.backing.as_ref().is_some_and(|b| b.batches)
    }

    /// A blob that is not in the store yet.
    pub(super) fn dirty(&self, blobref: &BlobRef) -> Option<Bytes> {
        let flying = || self.flight.as_ref()?.blobs.get(blobref);
        let dirty = self.queued.get(blobref).or_else(flying)?;
        Some(dirty.data.clone())
    }

    pub(super) fn dirty_count(&self) -> usize {
        self.queued.len() + self.flight.as_ref().map_or(0, |f| f.blobs.len())
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_busy(&self) -> bool {
        self.flight.is_some()
    }

    /// Queue blobs; the waiter comes back if it need not wait.
    pub(super) fn store(
        &mut self,
        blobs: Vec<(BlobRef, Bytes)>,
        roots: Roots,
        waiter: StoreWaiter,
    ) -> Option<StoreWaiter> {
        let acknowledged = match &self.backing {
            None => true,
            Some(backing) => !backing.durable && self.bytes < WRITE_BEHIND_LIMIT,
        };
        for (blobref, data) in blobs {
            self.bytes += data.len();
            let entry = Dirty { data, acknowledged };
            if let Some(before) = self.queued.insert(blobref, entry) {
                self.bytes -= before.data.len();
                if let Some(now) = self.queued.get_mut(&blobref) {
                    now.acknowledged |= before.acknowledged;
                }
            }
        }
        self.roots.merge(roots);
        if acknowledged {
            return Some(waiter);
        }
        self.waiting.push(Waiting::Store(waiter));
        None
    }

    /// Answer this when all that is here is in the store.
    pub(super) fn wait(&mut self, waiting: Waiting) -> Result<(), RpcError> {
        if self.backing.is_none() {
            return Err(no_backing());
        }
        self.waiting.push(waiting);
        Ok(())
    }

    /// Take what is queued as the next transaction, if it is time for one.
    fn next_flight(&mut self) -> Option<(Roots, Vec<Bytes>)> {
        let backing = self.backing.as_ref()?;
        let due = !self.waiting.is_empty() || self.bytes >= WRITE_BEHIND_LIMIT;
        if self.flight.is_some() || !due {
            return None;
        }
        let blobs = std::mem::take(&mut self.queued);
        let waiting = std::mem::take(&mut self.waiting);
        let data = blobs.values().map(|dirty| dirty.data.clone()).collect();
        self.flight = Some(Flight { blobs, waiting });
        // A file that goes away with the instance is never started from.
        let mut roots = std::mem::take(&mut self.roots);
        if !backing.durable {
            roots = Roots::default();
        }
        Some((roots, data))
    }

    /// The transaction failed: what was acknowledged waits for the next.
    fn put_back(&mut self, blobs: HashMap<BlobRef, Dirty>, all: bool) {
        for (blobref, mut dirty) in blobs {
            dirty.acknowledged |= all;
            if dirty.acknowledged {
                self.bytes += dirty.data.len();
                if let Some(newer) = self.queued.insert(blobref, dirty) {
                    self.bytes -= newer.data.len();
                }
            }
        }
    }
}

/// The store cannot be asked any more.
fn is_gone(e: &RpcError) -> bool {
    matches!(e.errno, libc::ENOSYS | libc::EHOSTUNREACH)
}

/// Put all of this into the store at once, or one by one where it cannot.
async fn put(handle: Handle, batches: bool, roots: Roots, blobs: Vec<Bytes>) -> Done {
    if batches {
        let payload = batch::encode(&roots.encode(), blobs.iter());
        let topic = "content-backing.store-batch";
        let stored = handle.rpc_raw(topic, Node::Any, Some(payload)).await;
        return Done::Stored(stored.map(drop));
    }
    let store = |blob: Bytes| handle.rpc_raw("content-backing.store", Node::Any, Some(blob));
    let stored = futures::future::try_join_all(blobs.into_iter().map(store)).await;
    Done::Stored(stored.map(drop))
}

impl Module {
    /// Starts the next transaction if none is in flight and something asks for one.
    pub(super) fn start_group(&mut self) {
        let Some(root) = &mut self.root else { return };
        let Some((roots, blobs)) = root.next_flight() else {
            return;
        };
        let batches = root.backing.as_ref().is_some_and(|b| b.batches);
        let work = put(self.handle.clone(), batches, roots, blobs);
        self.work.push(Box::pin(work));
    }

    pub(super) fn handle_stored(&mut self, result: Result<(), RpcError>) {
        let Some(root) = &mut self.root else { return };
        let Some(flight) = root.flight.take() else {
            return;
        };
        let bytes: usize = flight.blobs.values().map(|d| d.data.len()).sum();
        root.bytes -= bytes;
        match result {
            Ok(()) => {
                if root.trouble.take().is_some() {
                    self.handle
                        .say("content", 4, "the content store works again");
                }
                for (blobref, dirty) in flight.blobs {
                    self.cache.insert(blobref, dirty.data);
                }
                for waiting in flight.waiting {
                    self.stored(waiting);
                }
            }
            Err(e) if is_gone(&e) => {
                root.put_back(flight.blobs, true);
                let name = root.backing.take().map(|b| b.name).unwrap_or_default();
                let text = format!("content store {name} is gone: blobs stay in memory");
                self.handle.say("content", 4, &text);
                self.without_backing(flight.waiting);
            }
            Err(e) => {
                if root.trouble.replace(e.errno) != Some(e.errno) {
                    let text = format!("the content store takes nothing: {e}");
                    self.handle.say("content", 3, &text);
                }
                root.put_back(flight.blobs, false);
                for waiting in flight.waiting {
                    self.handle.respond_error(waiting.request(), &e);
                }
            }
        }
    }

    fn stored(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Store(waiter) => self.respond_store(&waiter),
            Waiting::Flush(msg) => self.handle.respond_ok(&msg),
            Waiting::Checkpoint(msg) => self.put_checkpoint(&msg),
        }
    }

    /// Hand a checkpoint on to where it is kept.
    pub(super) fn put_checkpoint(&mut self, msg: &Message) {
        match self.below("checkpoint-put") {
            Some(below) => self.relay(below, msg),
            None => self.handle.respond_error(msg, &no_backing()),
        }
    }

    /// Answer who waited for a store that is not there any more.
    fn without_backing(&mut self, waiting: Vec<Waiting>) {
        for waiting in waiting {
            match waiting {
                Waiting::Store(waiter) => self.respond_store(&waiter),
                other => self.handle.respond_error(other.request(), &no_backing()),
            }
        }
    }

    pub(super) fn handle_register(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: String,
            #[serde(default)]
            durable: bool,
            #[serde(default)]
            batches: bool,
        }
        msg.require_owner()?;
        let request: Request = msg.json()?;
        let Some(root) = &mut self.root else {
            let text = "content backing store can only be registered on rank 0";
            return Err(RpcError::new(libc::EINVAL, text));
        };
        if let Some(backing) = &root.backing {
            let text = format!("content backing store {} is already active", backing.name);
            return Err(RpcError::new(libc::EBUSY, text));
        }
        let (handle, msg) = (self.handle.clone(), msg.clone());
        let name = request.name.clone();
        // Taken as registered at once, so that there are never two; refused below if it is another than before.
        root.backing = Some(Backing {
            name: request.name,
            durable: request.durable,
            batches: request.batches,
        });
        self.work.push(Box::pin(async move {
            match handle.getattr("content.backing-module").await {
                Ok(before) if before != name => {
                    let text = format!(
                        "content backing store cannot be changed on the fly: it is {before}"
                    );
                    Done::Registered(msg, Err(RpcError::new(libc::EINVAL, text)))
                }
                Ok(_) => Done::Registered(msg, Ok(())),
                Err(_) => {
                    let attr = SetAttr {
                        name: "content.backing-module",
                        value: &name,
                        force: false,
                    };
                    // Where it cannot be set nobody reads it.
                    let _ = handle.ask(Node::Any, &attr).await;
                    Done::Registered(msg, Ok(()))
                }
            }
        }));
        Ok(())
    }

    pub(super) fn registered(&mut self, msg: &Message, result: Result<(), RpcError>) {
        match result {
            Ok(()) => self.handle.respond_ok(msg),
            Err(e) => {
                if let Some(root) = &mut self.root {
                    root.backing = None;
                }
                self.handle.respond_error(msg, &e);
                return;
            }
        }
        for msg in self.held.take().unwrap_or_default() {
            self.handle_message(&msg);
        }
    }

    pub(super) fn handle_unregister(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let inactive = || RpcError::new(libc::EINVAL, "content backing store is not active");
        let root = self.root.as_mut().ok_or_else(inactive)?;
        root.backing.take().ok_or_else(inactive)?;
        let waiting = std::mem::take(&mut root.waiting);
        for dirty in root.queued.values_mut() {
            dirty.acknowledged = true;
        }
        self.without_backing(waiting);
        self.handle.respond_ok(msg);
        Ok(())
    }
}
