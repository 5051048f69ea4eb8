//! The in-memory blob cache of one rank: bounded by bytes, least recently used goes first.
//!
//! Only blobs that are stored below (backing store on rank 0, the parent elsewhere) are entered,
//! so any entry may be dropped at any time.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::BlobRef;

struct Entry {
    data: Bytes,
    /// Key of this entry in `order`.
    tick: u64,
}

/// The cache.
pub(super) struct Cache {
    entries: HashMap<BlobRef, Entry>,
    /// Entries by time of last use.
    order: BTreeMap<u64, BlobRef>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

impl Cache {
    /// A cache that keeps at most `limit` bytes of blobs.
    pub(super) fn new(limit: usize) -> Cache {
        Cache {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            bytes: 0,
            limit,
        }
    }

    /// The blob, if cached; it becomes the most recently used.
    pub(super) fn get(&mut self, blobref: &BlobRef) -> Option<Bytes> {
        let entry = self.entries.get_mut(blobref)?;
        self.order.remove(&entry.tick);
        self.clock += 1;
        entry.tick = self.clock;
        self.order.insert(entry.tick, *blobref);
        Some(entry.data.clone())
    }

    /// Enters a blob, dropping the least recently used ones beyond the limit. A blob larger than
    /// the whole cache is not kept.
    pub(super) fn insert(&mut self, blobref: BlobRef, data: Bytes) {
        if data.len() > self.limit || self.entries.contains_key(&blobref) {
            return;
        }
        self.clock += 1;
        self.bytes += data.len();
        self.order.insert(self.clock, blobref);
        self.entries.insert(
            blobref,
            Entry {
                data,
                tick: self.clock,
            },
        );
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some(e) = self.entries.remove(&oldest) {
                self.bytes -= e.data.len();
            }
        }
    }

    /// Drops every entry.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of blobs held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashAlg;

    fn blob(n: u8, len: usize) -> (BlobRef, Bytes) {
        let data = vec![n; len];
        (HashAlg::Sha1.hash(&data), data.into())
    }

    #[test]
    fn least_recently_used_goes_first() {
        let mut c = Cache::new(30);
        let blobs: Vec<_> = (0..4).map(|n| blob(n, 10)).collect();
        for (r, d) in &blobs[..3] {
            c.insert(*r, d.clone());
        }
        assert!(c.get(&blobs[0].0).is_some());
        c.insert(blobs[3].0, blobs[3].1.clone());
        assert_eq!((c.len(), c.bytes()), (3, 30));
        assert!(c.get(&blobs[1].0).is_none());
        assert!(c.get(&blobs[0].0).is_some());
        let (huge, data) = blob(9, 31);
        c.insert(huge, data);
        assert!(c.get(&huge).is_none());
        assert_eq!(c.len(), 3);
        c.clear();
        assert_eq!(c.len(), 0);
    }
}
