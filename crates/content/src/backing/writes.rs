//! What is to be written, in an order, without I/O.
//!
//! One write is under way at a time, so that a blob that is stored again while it is being removed is there in the end.
//! Stores that wait for their turn are one transaction. Removals are small and take turns with the rest.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;

use crate::BlobRef;
use crate::roots::Roots;

/// Bytes of blobs in one transaction, if there are several stores.
const MOST_BYTES: usize = 16 << 20;
/// Blobs that are removed in one transaction.
const MOST_REMOVALS: usize = 500;

/// Something to write; `R` is who asked for it.
#[derive(Debug, PartialEq)]
pub(super) enum Write<R> {
    Store(Store<R>),
    Checkpoint(Value, R),
    Remove(Vec<BlobRef>),
}

/// Stores of one transaction.
#[derive(Debug, PartialEq)]
pub(super) struct Store<R> {
    pub(super) blobs: Vec<(BlobRef, Bytes)>,
    pub(super) roots: Roots,
    pub(super) requests: Vec<R>,
}

/// What waits.
#[derive(Debug)]
pub(super) struct Writes<R> {
    waiting: VecDeque<Write<R>>,
    removals: VecDeque<BlobRef>,
    under_way: bool,
    /// The last one was a removal.
    removed: bool,
}

impl<R> Default for Writes<R> {
    fn default() -> Self {
        Writes {
            waiting: VecDeque::new(),
            removals: VecDeque::new(),
            under_way: false,
            removed: false,
        }
    }
}

impl<R> Writes<R> {
    pub(super) fn add(&mut self, write: Write<R>) {
        match write {
            Write::Remove(blobs) => self.removals.extend(blobs),
            other => self.waiting.push_back(other),
        }
    }

    /// Whether something is being removed, or will be.
    pub(super) fn is_removing(&self) -> bool {
        !self.removals.is_empty() || (self.under_way && self.removed)
    }

    /// What was to be removed stays.
    pub(super) fn forget_removals(&mut self) {
        self.removals.clear();
    }

    /// The next to write, once the one before is done. A blob is only removed if it still `may` be.
    pub(super) fn next(&mut self, may: impl Fn(&BlobRef) -> bool) -> Option<Write<R>> {
        if self.under_way {
            return None;
        }
        let next = match self.removed && !self.waiting.is_empty() {
            true => self.next_waiting(),
            false => self.next_removal(may).or_else(|| self.next_waiting()),
        }?;
        self.removed = matches!(next, Write::Remove(_));
        self.under_way = true;
        Some(next)
    }

    /// The one under way has come to its end.
    pub(super) fn done(&mut self) {
        self.under_way = false;
    }

    fn next_removal(&mut self, may: impl Fn(&BlobRef) -> bool) -> Option<Write<R>> {
        let mut blobs = Vec::new();
        while blobs.len() < MOST_REMOVALS
            && let Some(blobref) = self.removals.pop_front()
        {
            if may(&blobref) {
                blobs.push(blobref);
            }
        }
        (!blobs.is_empty()).then_some(Write::Remove(blobs))
    }

    fn next_waiting(&mut self) -> Option<Write<R>> {
        let mut store = match self.waiting.pop_front()? {
            Write::Store(store) => store,
            other => return Some(other),
        };
        let mut bytes: usize = store.blobs.iter().map(|(_, data)| data.len()).sum();
        while bytes < MOST_BYTES
            && let Some(Write::Store(more)) = self.waiting.front_mut()
        {
            bytes += more.blobs.iter().map(|(_, data)| data.len()).sum::<usize>();
            store.blobs.append(&mut more.blobs);
            store.requests.append(&mut more.requests);
            store.roots.merge(std::mem::take(&mut more.roots));
            self.waiting.pop_front();
        }
        Some(Write::Store(store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashAlg;
    use serde_json::json;

    fn store(n: u8, roots: Roots) -> Write<u8> {
        let data = Bytes::from(vec![n]);
        Write::Store(Store {
            blobs: vec![(HashAlg::Sha1.hash(&data), data)],
            roots,
            requests: vec![n],
        })
    }

    fn blob(n: u32) -> BlobRef {
        HashAlg::Sha1.hash(&n.to_le_bytes())
    }

    #[test]
    fn stores_merge_up_to_a_checkpoint() {
        let mut w = Writes::default();
        w.add(store(1, Roots::of("a", json!(1))));
        w.add(store(2, Roots::of("a", json!(2))));
        w.add(store(3, Roots::default()));
        w.add(Write::Checkpoint(json!("c"), 4));
        w.add(store(5, Roots::default()));
        let Some(Write::Store(first)) = w.next(|_| true) else {
            panic!("stores come first");
        };
        assert_eq!(
            (first.requests, first.roots),
            (vec![1, 2, 3], Roots::of("a", json!(2)))
        );
        assert_eq!(first.blobs.len(), 3);
        assert_eq!(w.next(|_| true), None, "one at a time");
        w.done();
        assert_eq!(w.next(|_| true), Some(Write::Checkpoint(json!("c"), 4)));
        w.done();
        assert_eq!(w.next(|_| true), Some(store(5, Roots::default())));
        w.done();
        assert_eq!(w.next(|_| true), None);
    }

    #[test]
    fn removals_are_small_and_take_turns() {
        let mut w = Writes::default();
        w.add(Write::Remove((0..600).map(blob).collect()));
        w.add(store(1, Roots::default()));
        w.add(Write::Checkpoint(json!(0), 2));
        // Blob 0 is wanted again.
        let may = |b: &BlobRef| *b != blob(0);
        let mut order = Vec::new();
        while let Some(write) = w.next(may) {
            order.push(match write {
                Write::Store(_) => 0,
                Write::Checkpoint(..) => 1,
                Write::Remove(blobs) => blobs.len(),
            });
            w.done();
        }
        assert_eq!(order, [500, 0, 99, 1]);
        assert!(!w.is_removing());
        w.add(Write::Remove(vec![blob(1)]));
        w.forget_removals();
        assert_eq!(w.next(|_| true), None);
    }
}
