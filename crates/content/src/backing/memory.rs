//! Blobs in memory: for tests and for instances that keep nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use serde_json::Value;

use super::{Backing, BackingError, MAX_CHECKPOINTS};
use crate::BlobRef;

#[derive(Default)]
struct State {
    blobs: HashMap<BlobRef, Bytes>,
    checkpoints: VecDeque<Value>,
    root: Option<Value>,
}

/// The store. Its lock is held for a table operation only, never across an await.
#[derive(Default)]
pub struct Memory(Mutex<State>);

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every operation leaves the table whole at each step, so poisoning tells nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backing for Memory {
    fn load(&self, blobref: BlobRef) -> BoxFuture<'_, Result<Option<Bytes>, BackingError>> {
        ready(Ok(self.state().blobs.get(&blobref).cloned())).boxed()
    }

    fn contains(&self, blobref: BlobRef) -> BoxFuture<'_, Result<bool, BackingError>> {
        ready(Ok(self.state().blobs.contains_key(&blobref))).boxed()
    }

    fn store_batch(
        &self,
        batch: Vec<(BlobRef, Bytes)>,
        root: Option<Value>,
    ) -> BoxFuture<'_, Result<(), BackingError>> {
        let mut state = self.state();
        state.blobs.extend(batch);
        state.root = root.or(state.root.take());
        drop(state);
        ready(Ok(())).boxed()
    }

    fn checkpoints(&self) -> BoxFuture<'_, Result<Vec<Value>, BackingError>> {
        let state = self.state();
        ready(Ok(state
            .root
            .iter()
            .chain(&state.checkpoints)
            .cloned()
            .collect()))
        .boxed()
    }

    fn checkpoint_put(&self, value: Value) -> BoxFuture<'_, Result<(), BackingError>> {
        let mut state = self.state();
        state.root = None;
        state.checkpoints.push_front(value);
        state.checkpoints.truncate(MAX_CHECKPOINTS);
        ready(Ok(())).boxed()
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        ready(Ok(self.state().blobs.len() as u64)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}
