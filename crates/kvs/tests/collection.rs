//! Garbage collection against a naive model: commits, readers of old roots, programs between storing and committing,
//! and crashes, while cycles go on step by step. The cores are those of the product; the store is a map.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use content::backing::Removed;
use content::backing::collector::Collector;
use kvs::commit::{self, Outcome};
use kvs::mark::{Marker, references};
use kvs::store::{Need, Objects};
use kvs::{BlobRef, Dir, HashAlg, Op, TreeObj, Txn};
use proptest::prelude::*;

const GRACE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Blobs(HashMap<BlobRef, Bytes>);

impl Objects for Blobs {
    fn dir(&mut self, blobref: &BlobRef) -> Option<Option<Arc<Dir>>> {
        let blob = self.0.get(blobref).expect("what a commit reads is there");
        Some(Dir::decode(blob).ok().map(Arc::new))
    }

    fn val(&mut self, blobref: &BlobRef) -> Option<Bytes> {
        self.0.get(blobref).cloned()
    }
}

/// A cycle under way.
struct Cycle {
    number: u64,
    marker: Marker,
    /// Names the store has still to show, once all is marked.
    names: Option<Vec<BlobRef>>,
}

/// Somebody relies on what is below this until then.
struct Hold {
    need: Need,
    until: Instant,
}

struct World {
    blobs: Blobs,
    collector: Collector,
    now: Instant,
    empty: BlobRef,
    root: BlobRef,
    /// A commit that is stored, and is not the root yet.
    storing: Option<BlobRef>,
    holds: Vec<Hold>,
    referenced: HashSet<Need>,
    /// Of them, those that the cycle under way marks.
    marking: HashSet<Need>,
    cycle: Option<Cycle>,
}

#[derive(Clone, Debug)]
enum Act {
    /// A commit is stored; the one before becomes the root first.
    Put(u8, u8),
    Unlink(u8),
    /// What somebody holds comes to this key.
    Link(u8, prop::sample::Index),
    /// The commit that is stored becomes the root.
    Land,
    /// A program stores a value and will commit it.
    Store(u8),
    Tick(u8),
    Begin,
    Step,
    /// The broker is killed and starts again.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..6u8, 0..4u8).prop_map(|(k, v)| Act::Put(k, v)),
        2 => (0..6u8).prop_map(Act::Unlink),
        2 => (0..6u8, any::<prop::sample::Index>()).prop_map(|(k, i)| Act::Link(k, i)),
        3 => Just(Act::Land),
        1 => (0..4u8).prop_map(Act::Store),
        3 => (0..50u8).prop_map(Act::Tick),
        3 => Just(Act::Begin),
        8 => Just(Act::Step),
        1 => Just(Act::Crash),
    ]
}

fn value(n: u8) -> Bytes {
    format!("{n}").repeat(100).into_bytes().into()
}

/// Keys in three directories, one of them deep.
fn key(n: u8) -> String {
    ["a.x", "a.y", "b.x", "b.y", "c.d.e", "c.d.f"][usize::from(n)].to_owned()
}

impl World {
    fn new() -> World {
        let empty = Bytes::from(TreeObj::empty_dir().encode());
        let root = HashAlg::Sha1.hash(&empty);
        World {
            blobs: Blobs(HashMap::from([(root, empty)])),
            collector: Collector::default(),
            now: Instant::now(),
            empty: root,
            root,
            storing: None,
            holds: Vec::new(),
            referenced: HashSet::new(),
            marking: HashSet::new(),
            cycle: None,
        }
    }

    fn store(&mut self, blobref: BlobRef, blob: Bytes) {
        self.collector.stored(&blobref);
        self.blobs.0.insert(blobref, blob);
    }

    fn hold(&mut self, need: Need) {
        let until = self.now + GRACE;
        self.holds.push(Hold { need, until });
    }

    fn land(&mut self) {
        if let Some(root) = self.storing.take() {
            self.hold(Need::Dir(self.root));
            self.root = root;
        }
    }

    fn commit(&mut self, txn: &Txn) {
        self.land();
        let ops: &[Op] = txn.ops();
        let objects = ops.iter().filter_map(|op| op.dirent.as_ref());
        self.referenced.extend(references(objects));
        let outcome = commit::commit(&mut self.blobs, HashAlg::Sha1, "primary", self.root, &[ops]);
        let Outcome::Done(done) = outcome else {
            panic!("all is in memory");
        };
        for (blobref, _, blob) in done.dirs {
            self.store(blobref, blob);
        }
        for (blobref, blob) in done.vals {
            self.store(blobref, blob);
        }
        self.storing = Some(done.root);
    }

    fn begin(&mut self) {
        let number = self.collector.begin(self.now, GRACE);
        let mut marker = Marker::default();
        let roots = [self.empty, self.root].into_iter().chain(self.storing);
        // Those of a cycle that was given up, too.
        self.marking.extend(self.referenced.drain());
        let roots = roots.map(Need::Dir).chain(self.marking.iter().copied());
        roots.for_each(|root| marker.add(root));
        self.cycle = Some(Cycle {
            number,
            marker,
            names: None,
        });
    }

    /// Reads a blob or two, or shows the store a few names.
    fn step(&mut self) {
        let Some(cycle) = &mut self.cycle else { return };
        match &mut cycle.names {
            None => {
                let loads = cycle.marker.next(2);
                for load in &loads {
                    // What a transaction has named may be gone.
                    if let Some(blob) = self.blobs.0.get(&load.blobref) {
                        cycle.marker.take(load.read(blob).unwrap());
                    }
                }
                self.collector
                    .mark(cycle.number, &cycle.marker.marks())
                    .unwrap();
                if loads.is_empty() {
                    let mut names: Vec<_> = self.blobs.0.keys().copied().collect();
                    names.sort_unstable();
                    cycle.names = Some(names);
                }
            }
            Some(names) => {
                let some = names.split_off(names.len().saturating_sub(3));
                let is_last = names.is_empty();
                let mut doomed = self.collector.examine(cycle.number, some).unwrap();
                doomed.retain(|blobref| self.collector.is_condemned(blobref));
                for blobref in &doomed {
                    self.blobs.0.remove(blobref);
                }
                let count = doomed.len() as u64;
                self.collector.removed(&doomed, Removed { count, bytes: 0 });
                if is_last {
                    self.collector.finish(cycle.number).unwrap();
                    self.marking.clear();
                    self.cycle = None;
                }
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Put(k, v) => {
                let mut txn = Txn::new();
                txn.put_raw(&key(k), &value(v));
                self.commit(&txn);
            }
            Act::Unlink(k) => {
                let mut txn = Txn::new();
                txn.unlink(&key(k));
                self.commit(&txn);
            }
            Act::Link(k, index) => {
                if self.holds.is_empty() {
                    return;
                }
                let object = match self.holds[index.index(self.holds.len())].need {
                    Need::Dir(blobref) => TreeObj::DirRef(blobref),
                    Need::Val(blobref) => TreeObj::ValRef(Arc::new(vec![blobref])),
                };
                let mut txn = Txn::new();
                txn.put_treeobj(&format!("link.k{k}"), object);
                self.commit(&txn);
            }
            Act::Land => self.land(),
            Act::Store(v) => {
                let blob = value(v);
                let blobref = HashAlg::Sha1.hash(&blob);
                self.store(blobref, blob);
                self.hold(Need::Val(blobref));
            }
            Act::Tick(seconds) => self.now += Duration::from_secs(seconds.into()),
            Act::Begin => self.begin(),
            Act::Step => self.step(),
            Act::Crash => {
                // A commit that was not acknowledged may be lost, references with it.
                self.storing = None;
                self.collector = Collector::default();
                self.referenced.clear();
                self.marking.clear();
                self.cycle = None;
                self.holds.clear();
            }
        }
    }

    /// What can be reached from these, which must be there.
    fn reachable(&self, from: impl IntoIterator<Item = Need>) -> HashSet<BlobRef> {
        let mut found = HashSet::new();
        let mut left: Vec<Need> = from.into_iter().collect();
        while let Some(need) = left.pop() {
            let blobref = need.blobref();
            let blob = self.blobs.0.get(&blobref);
            let blob = blob.unwrap_or_else(|| panic!("{need:?} is wanted and gone"));
            if found.insert(blobref) && matches!(need, Need::Dir(_)) {
                let dir = Dir::decode(blob).unwrap();
                left.extend(references(dir.iter().map(|(_, object)| object)));
            }
        }
        found
    }

    /// All that somebody wants is there.
    fn check(&mut self) {
        let now = self.now;
        self.holds.retain(|hold| now < hold.until);
        let roots = [self.empty, self.root].into_iter().chain(self.storing);
        let held = self.holds.iter().map(|hold| hold.need);
        self.reachable(roots.map(Need::Dir).chain(held));
    }

    fn whole_cycle(&mut self) {
        self.begin();
        while self.cycle.is_some() {
            self.step();
            self.check();
        }
    }
}

proptest! {
    #[test]
    fn what_is_wanted_stays_and_the_rest_goes(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
            world.check();
        }
        world.land();
        for _ in 0..2 {
            world.whole_cycle();
            world.now += GRACE;
        }
        world.whole_cycle();
        let live = world.reachable([Need::Dir(world.empty), Need::Dir(world.root)]);
        let there: HashSet<_> = world.blobs.0.keys().copied().collect();
        prop_assert_eq!(there, live);
    }
}
