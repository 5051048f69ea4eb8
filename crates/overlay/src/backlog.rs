//! How much waits for each peer, for the broker to see before it adds more.
//!
//! The bound is on bytes, per peer. Up to [`SOFT`] anything goes. Beyond it the router refuses new
//! requests for that peer, so that callers hear of the overload while responses and events, which
//! nobody may drop, still go. Beyond [`HARD`] the peer is cut off: it restarts and catches up, and
//! the broker keeps its memory for the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::transport::Peer;

/// Bytes waiting for a peer from which new requests for it are refused.
pub const SOFT: usize = 64 << 20;
/// Bytes waiting for a peer from which it is cut off.
pub const HARD: usize = 256 << 20;

/// Counters shared by the broker and its driver.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    parent: AtomicUsize,
    children: HashMap<u32, AtomicUsize>,
}

impl Backlog {
    pub(crate) fn new(children: &[u32]) -> Self {
        Self(Arc::new(Counters {
            parent: AtomicUsize::new(0),
            children: children.iter().map(|r| (*r, AtomicUsize::new(0))).collect(),
        }))
    }

    fn counter(&self, peer: Peer) -> Option<&AtomicUsize> {
        match peer {
            Peer::Parent => Some(&self.0.parent),
            Peer::Child(rank) => self.0.children.get(&rank),
        }
    }

    pub(crate) fn add(&self, peer: Peer, bytes: usize) {
        if let Some(counter) = self.counter(peer) {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&self, peer: Peer, bytes: usize) {
        if let Some(counter) = self.counter(peer) {
            counter.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, peer: Peer) -> usize {
        self.counter(peer).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}
