//! Objects in memory: decoded directories and raw value blobs, each cache bounded by bytes.
//!
//! A directory is decoded once, when it is loaded, or never, when a commit made it here. Any
//! object may be dropped at any time, since content has it; work that was stalled for objects
//! keeps them in a [`Pinned`] set until it is done, so eviction cannot make it stall again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use content::BlobRef;

use crate::treeobj::Dir;

/// A reference that is needed and not in memory, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    Dir(BlobRef),
    Val(BlobRef),
}

impl Need {
    /// The reference.
    pub fn blobref(&self) -> BlobRef {
        match self {
            Need::Dir(r) | Need::Val(r) => *r,
        }
    }
}

/// An object in memory.
#[derive(Clone, Debug)]
pub enum Object {
    Dir(Arc<Dir>),
    Val(Bytes),
    /// A directory was needed, but the blob is none.
    NotDir,
}

/// Objects a stalled piece of work has waited for.
pub type Pinned = HashMap<Need, Object>;

/// Where the cores look objects up.
pub trait Objects {
    /// The directory, if in memory; `Some(None)` if the blob is no directory.
    fn dir(&mut self, blobref: &BlobRef) -> Option<Option<Arc<Dir>>>;
    /// The value blob, if in memory.
    fn val(&mut self, blobref: &BlobRef) -> Option<Bytes>;
}

struct Lru<T> {
    entries: HashMap<BlobRef, (T, usize, u64)>,
    order: BTreeMap<u64, BlobRef>,
    clock: u64,
    bytes: usize,
    limit: usize,
    /// The last object that is larger than all the others may be together: to load it for each use would cost more.
    large: Option<(BlobRef, T, usize)>,
    keeps_large: bool,
}

impl<T: Clone> Lru<T> {
    fn new(limit: usize, keeps_large: bool) -> Lru<T> {
        Lru {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            bytes: 0,
            limit,
            large: None,
            keeps_large,
        }
    }

    fn get(&mut self, r: &BlobRef) -> Option<T> {
        if let Some((large, value, _)) = &self.large
            && large == r
        {
            return Some(value.clone());
        }
        let (value, _, tick) = self.entries.get_mut(r)?;
        // Moving an entry on every use would cost two tree operations each time; an entry used
        // lately is far from eviction anyway.
        if self.clock - *tick > 256 {
            self.order.remove(tick);
            self.clock += 1;
            *tick = self.clock;
            self.order.insert(*tick, *r);
        }
        Some(value.clone())
    }

    fn insert(&mut self, r: BlobRef, value: T, weight: usize) {
        if weight > self.limit {
            self.large = self.keeps_large.then_some((r, value, weight));
            return;
        }
        if self.entries.contains_key(&r) {
            return;
        }
        self.clock += 1;
        self.bytes += weight;
        self.order.insert(self.clock, r);
        self.entries.insert(r, (value, weight, self.clock));
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some((_, weight, _)) = self.entries.remove(&oldest) {
                self.bytes -= weight;
            }
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
        self.large = None;
    }

    fn contains(&self, r: &BlobRef) -> bool {
        self.entries.contains_key(r) || self.large.as_ref().is_some_and(|(large, ..)| large == r)
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        let large = self.large.iter().map(|(_, _, size)| *size);
        self.entries.values().map(|(_, size, _)| *size).chain(large)
    }
}

/// The two caches of a kvs module.
pub struct Store {
    dirs: Lru<Arc<Dir>>,
    vals: Lru<Bytes>,
}

impl Store {
    /// Caches of `limit` bytes each; one directory more may be larger.
    pub fn new(limit: usize) -> Store {
        Store {
            dirs: Lru::new(limit, true),
            vals: Lru::new(limit, false),
        }
    }

    /// Enters a decoded directory.
    pub fn insert_dir(&mut self, r: BlobRef, dir: Arc<Dir>) {
        let weight = dir.weight();
        self.dirs.insert(r, dir, weight);
    }

    /// Enters a value blob.
    pub fn insert_val(&mut self, r: BlobRef, data: Bytes) {
        let weight = data.len() + 64;
        self.vals.insert(r, data, weight);
    }

    /// Takes in a blob that was loaded for `need`.
    pub fn loaded(&mut self, need: Need, blob: Bytes) -> Object {
        match need {
            Need::Val(r) => {
                self.insert_val(r, blob.clone());
                Object::Val(blob)
            }
            Need::Dir(r) => match Dir::decode(&blob) {
                Ok(dir) => {
                    let dir = Arc::new(dir);
                    self.insert_dir(r, dir.clone());
                    Object::Dir(dir)
                }
                Err(_) => Object::NotDir,
            },
        }
    }

    /// Drops all objects.
    pub fn clear(&mut self) {
        self.dirs.clear();
        self.vals.clear();
    }

    /// The bytes each object takes.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.dirs.sizes().chain(self.vals.sizes())
    }

    /// Whether an object is in memory.
    pub fn contains(&self, r: &BlobRef) -> bool {
        self.dirs.contains(r) || self.vals.contains(r)
    }

    /// A view that also sees the pinned objects.
    pub fn with<'a>(&'a mut self, pinned: &'a Pinned) -> View<'a> {
        View {
            store: self,
            pinned,
        }
    }
}

/// A store with pinned objects over it.
pub struct View<'a> {
    store: &'a mut Store,
    pinned: &'a Pinned,
}

impl Objects for View<'_> {
    fn dir(&mut self, r: &BlobRef) -> Option<Option<Arc<Dir>>> {
        if let Some(dir) = self.store.dirs.get(r) {
            return Some(Some(dir));
        }
        match self.pinned.get(&Need::Dir(*r))? {
            Object::Dir(dir) => Some(Some(dir.clone())),
            _ => Some(None),
        }
    }

    fn val(&mut self, r: &BlobRef) -> Option<Bytes> {
        if let Some(data) = self.store.vals.get(r) {
            return Some(data);
        }
        match self.pinned.get(&Need::Val(*r))? {
            Object::Val(data) => Some(data.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use content::HashAlg;

    #[test]
    fn eviction_keeps_to_the_limit_and_pins_survive_it() {
        let mut store = Store::new(1000);
        let mut pinned = Pinned::new();
        let refs: Vec<_> = (0..20u8).map(|i| HashAlg::Sha1.hash(&[i])).collect();
        for r in &refs {
            let got = store.loaded(Need::Val(*r), Bytes::from(vec![0; 100]));
            pinned.insert(Need::Val(*r), got);
        }
        assert!(store.sizes().sum::<usize>() <= 1000);
        let none = Pinned::new();
        assert!(store.with(&none).val(&refs[0]).is_none());
        assert!(store.with(&none).val(&refs[19]).is_some());
        assert!(store.with(&pinned).val(&refs[0]).is_some());
    }

    #[test]
    fn the_last_large_directory_stays() {
        let mut store = Store::new(1000);
        let none = Pinned::new();
        let dir = |first: u8| {
            let name = |i: u8| Arc::from(format!("{:03}", first as usize + i as usize));
            let entries = (0..50)
                .map(|i| (name(i), crate::TreeObj::val(b"x")))
                .collect();
            let dir = Arc::new(Dir::from_sorted(entries));
            (HashAlg::Sha1.hash(&dir.encode()), dir)
        };
        let dirs = [dir(0), dir(100)];
        for (r, dir) in &dirs {
            store.insert_dir(*r, dir.clone());
            store.insert_dir(HashAlg::Sha1.hash(b""), Arc::default());
            assert!(store.with(&none).dir(r).is_some() && store.contains(r));
        }
        assert!(store.with(&none).dir(&dirs[0].0).is_none());
    }

    #[test]
    fn a_blob_that_is_no_directory_is_remembered_as_such() {
        let mut store = Store::new(1000);
        let r = HashAlg::Sha1.hash(b"junk");
        let got = store.loaded(Need::Dir(r), Bytes::from_static(b"junk"));
        let pinned = Pinned::from([(Need::Dir(r), got)]);
        assert!(matches!(store.with(&pinned).dir(&r), Some(None)));
    }
}
