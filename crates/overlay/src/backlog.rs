//! How much waits for each peer, for the broker to see before it adds more.
//!
//! The bounds are on bytes, per peer. Up to [`Bounds::soft`] anything goes. Beyond it the router
//! refuses new requests for that peer, so that callers hear of the overload while responses and
//! events, which nobody may drop, still go. Beyond [`Bounds::hard`] the peer is cut off: it restarts
//! and catches up, and the broker keeps its memory for the others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::transport::Peer;

/// Bytes that may wait for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// With more than this, new requests for it are refused.
    pub soft: usize,
    /// With more than this, it is cut off.
    pub hard: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            soft: 64 << 20,
            hard: 256 << 20,
        }
    }
}

/// Frames a connection has not taken yet, in order, with their sizes.
#[derive(Debug)]
pub struct Queue<F> {
    frames: VecDeque<(F, usize)>,
    bytes: usize,
}

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<F> Queue<F> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The frame that goes next.
    pub fn front(&self) -> Option<&F> {
        self.frames.front().map(|(frame, _)| frame)
    }

    /// A frame has to wait.
    pub fn push(&mut self, frame: F, bytes: usize) {
        self.bytes += bytes;
        self.frames.push_back((frame, bytes));
    }

    /// Take the frame that goes next, and its size.
    pub fn pop(&mut self) -> Option<(F, usize)> {
        let (frame, bytes) = self.frames.pop_front()?;
        self.bytes -= bytes;
        Some((frame, bytes))
    }
}

/// Counters shared by the broker and its driver.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bounds: Bounds,
    parent: AtomicUsize,
    children: HashMap<u32, AtomicUsize>,
}

impl Backlog {
    pub(crate) fn new(children: &[u32], bounds: Bounds) -> Self {
        Self(Arc::new(Counters {
            bounds,
            parent: AtomicUsize::new(0),
            children: children.iter().map(|r| (*r, AtomicUsize::new(0))).collect(),
        }))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.0.bounds
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_keep_order_and_count() {
        let mut queue = Queue::default();
        queue.push('a', 3);
        queue.push('b', 4);
        assert_eq!((queue.front(), queue.bytes()), (Some(&'a'), 7));
        assert_eq!((queue.pop(), queue.bytes()), (Some(('a', 3)), 4));
        assert_eq!((queue.pop(), queue.pop()), (Some(('b', 4)), None));
        assert!(queue.is_empty() && queue.bytes() == 0);
    }
}
