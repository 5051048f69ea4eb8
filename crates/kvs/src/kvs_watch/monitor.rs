//! What is known of one watched namespace, and who watches what in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use content::BlobRef;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// Names a watcher.
pub(super) type Id = u64;
/// The keys a setroot event names.
pub(super) type Keys = BTreeMap<String, IgnoredAny>;

/// A root, by reference and sequence number.
#[derive(Clone, Copy)]
pub(super) struct Root {
    pub(super) rootref: BlobRef,
    pub(super) seq: i64,
}

/// A namespace that is followed.
pub(super) struct Monitor {
    /// Tells answers to an earlier monitor of the same name apart.
    pub(super) generation: u64,
    /// The root and the namespace's owner; known once the namespace was seen.
    pub(super) current: Option<(Root, u32)>,
    /// Questions for the root under way.
    pub(super) asked: u32,
    /// Meanwhile the namespace was created, with this root. The answer has what it was created for besides.
    pub(super) created: Option<(Root, u32)>,
    watchers: BTreeSet<Id>,
    by_key: HashMap<String, BTreeSet<Id>>,
    /// Watchers that look at every commit.
    full: BTreeSet<Id>,
}

impl Monitor {
    pub(super) fn new(generation: u64) -> Monitor {
        Monitor {
            generation,
            current: None,
            asked: 0,
            created: None,
            watchers: BTreeSet::new(),
            by_key: HashMap::new(),
            full: BTreeSet::new(),
        }
    }

    /// Adds a watcher of `key`, or, if `full`, of every commit.
    pub(super) fn insert(&mut self, id: Id, key: &str, full: bool) {
        self.watchers.insert(id);
        if full {
            self.full.insert(id);
        } else {
            self.by_key.entry(key.to_owned()).or_default().insert(id);
        }
    }

    /// Removes a watcher of `key`; tells whether it was the last of all.
    pub(super) fn remove(&mut self, id: Id, key: &str) -> bool {
        self.watchers.remove(&id);
        self.full.remove(&id);
        if let Some(ids) = self.by_key.get_mut(key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_key.remove(key);
            }
        }
        self.watchers.is_empty()
    }

    /// All watchers.
    pub(super) fn watchers(&self) -> Vec<Id> {
        self.watchers.iter().copied().collect()
    }

    /// Moves the root forward and returns the watchers that have to look at it: those of `keys`, the ones that changed,
    /// or all if that is not known.
    pub(super) fn advance(&mut self, root: Root, owner: u32, keys: Option<&Keys>) -> Vec<Id> {
        let first = match self.current {
            Some((now, _)) if now.seq >= root.seq => return Vec::new(),
            Some(_) => false,
            None => true,
        };
        self.current = Some((root, owner));
        match keys {
            // Watchers that came before the first root have not looked yet.
            Some(keys) if !first => {
                let concerned = keys.keys().filter_map(|k| self.by_key.get(k)).flatten();
                concerned.chain(&self.full).copied().collect()
            }
            _ => self.watchers(),
        }
    }

    pub(super) fn stats(&self) -> Value {
        let (owner, seq, rootref) = match self.current {
            Some((root, owner)) => (i64::from(owner as i32), root.seq, root.rootref.to_string()),
            None => (-1, -1, "(null)".to_owned()),
        };
        json!({
            "owner": owner, "rootseq": seq, "rootref": rootref, "watchers": self.watchers.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use content::HashAlg;

    fn root(seq: i64) -> Root {
        Root {
            rootref: HashAlg::Sha1.hash(b""),
            seq,
        }
    }

    #[test]
    fn a_root_wakes_those_it_concerns() {
        let mut m = Monitor::new(0);
        m.insert(1, "a", false);
        m.insert(2, "b", false);
        m.insert(3, "b", true);
        let keys = |k: &str| Keys::from([(k.to_owned(), IgnoredAny)]);
        let woken = |m: &mut Monitor, seq, k: Option<&str>| {
            let mut ids = m.advance(root(seq), 0, k.map(keys).as_ref());
            ids.sort_unstable();
            ids
        };
        assert_eq!(woken(&mut m, 5, Some("a")), [1, 2, 3], "the first root");
        assert_eq!(woken(&mut m, 5, Some("a")), [0; 0], "not again");
        assert_eq!(woken(&mut m, 4, None), [0; 0], "an older one");
        assert_eq!(woken(&mut m, 6, Some("a")), [1, 3]);
        assert_eq!(woken(&mut m, 7, Some("b")), [2, 3]);
        assert_eq!(woken(&mut m, 8, None), [1, 2, 3]);
        assert!(!m.remove(1, "a") && !m.remove(2, "b"));
        assert_eq!(woken(&mut m, 9, Some("a")), [3]);
        assert!(m.remove(3, "b"));
    }
}
