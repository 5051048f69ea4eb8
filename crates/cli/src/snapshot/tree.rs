//! A tree of keys in memory, to be made or changed, without I/O.
//!
//! Directories that are stored stay references until a change goes through them; then they have to be opened.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::sync::Arc;

use bytes::Bytes;
use kvs::treeobj::Dir;
use kvs::{BlobRef, HashAlg, TreeObj};

type Entries = BTreeMap<Arc<str>, Node>;

/// What is at a key.
#[derive(Debug)]
pub(crate) enum Node {
    /// As it will be stored.
    Object(TreeObj),
    /// A directory that can be changed.
    Open(Entries),
}

/// What happens to a value where a directory is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    Refuse,
    Replace,
}

/// A key cannot be made because this, on the way to it, is no directory.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a directory")]
pub(crate) struct NotDir(String);

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    root: Entries,
}

fn opened(dir: &Dir) -> Entries {
    let entry =
        |(name, object): (&Arc<str>, &TreeObj)| (name.clone(), Node::Object(object.clone()));
    dir.iter().map(entry).collect()
}

impl Node {
    /// Entries, if it is a directory that is here.
    fn entries(&mut self) -> Option<&mut Entries> {
        if let Node::Object(TreeObj::Dir(dir)) = self {
            *self = Node::Open(opened(dir));
        }
        match self {
            Node::Open(entries) => Some(entries),
            Node::Object(_) => None,
        }
    }
}

impl Tree {
    /// The tree of a stored root directory.
    pub(crate) fn of(root: &Dir) -> Tree {
        Tree { root: opened(root) }
    }

    fn find(&mut self, path: &[&str]) -> Option<&mut Node> {
        let (last, dirs) = path.split_last()?;
        let mut entries = &mut self.root;
        for name in dirs {
            entries = entries.get_mut(*name)?.entries()?;
        }
        entries.get_mut(*last)
    }

    /// The first directory on the way to `path`, or there, that has to be opened: the length of its path, and its blob.
    pub(crate) fn closed(&mut self, path: &[&str]) -> Option<(usize, BlobRef)> {
        (1..=path.len()).find_map(|len| match self.find(&path[..len]) {
            Some(Node::Object(TreeObj::DirRef(blobref))) => Some((len, *blobref)),
            _ => None,
        })
    }

    /// Open a directory with what it has.
    pub(crate) fn open(&mut self, path: &[&str], dir: &Dir) {
        if let Some(node) = self.find(path) {
            *node = Node::Open(opened(dir));
        }
    }

    /// Whether there is anything.
    pub(crate) fn has(&mut self, path: &[&str]) -> bool {
        self.find(path).is_some()
    }

    /// Put something at a path, whose directories are made or open.
    pub(crate) fn insert(&mut self, path: &[&str], node: Node, clash: Clash) -> Result<(), NotDir> {
        let Some((last, dirs)) = path.split_last() else {
            return Err(NotDir("a key without a name".to_owned()));
        };
        let mut entries = &mut self.root;
        for (depth, name) in dirs.iter().enumerate() {
            if !entries.contains_key(*name) {
                entries.insert((*name).into(), Node::Open(Entries::new()));
            }
            // It has just been made if it was not there.
            let node = entries.get_mut(*name).expect("the entry is there");
            if node.entries().is_none() {
                match clash {
                    Clash::Refuse => return Err(NotDir(path[..=depth].join("."))),
                    Clash::Replace => *node = Node::Open(Entries::new()),
                }
            }
            entries = node.entries().expect("a directory that was just opened");
        }
        entries.insert((*last).into(), node);
        Ok(())
    }

    /// Take away what is at a path.
    pub(crate) fn remove(&mut self, path: &[&str]) -> Option<Node> {
        let (last, dirs) = path.split_last()?;
        let mut entries = &mut self.root;
        for name in dirs {
            entries = entries.get_mut(*name)?.entries()?;
        }
        entries.remove(*last)
    }

    /// The directories to store, each after those it refers to: the last is the root.
    pub(crate) fn seal(self, alg: HashAlg) -> Sealed {
        let root = Frame {
            name: "".into(),
            rest: self.root.into_iter(),
            done: Vec::new(),
        };
        Sealed {
            alg,
            frames: vec![root],
        }
    }
}

/// A directory that is being encoded.
struct Frame {
    name: Arc<str>,
    rest: IntoIter<Arc<str>, Node>,
    done: Vec<(Arc<str>, TreeObj)>,
}

/// The directories of a tree.
pub(crate) struct Sealed {
    alg: HashAlg,
    frames: Vec<Frame>,
}

impl Iterator for Sealed {
    type Item = (BlobRef, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let frame = self.frames.last_mut()?;
            match frame.rest.next() {
                Some((name, Node::Object(object))) => frame.done.push((name, object)),
                Some((name, Node::Open(entries))) => self.frames.push(Frame {
                    name,
                    rest: entries.into_iter(),
                    done: Vec::new(),
                }),
                None => {
                    let Frame { name, done, .. } = self.frames.pop()?;
                    let blob = Dir::from_sorted(done).encode();
                    let blobref = self.alg.hash(&blob);
                    if let Some(parent) = self.frames.last_mut() {
                        parent.done.push((name, TreeObj::DirRef(blobref)));
                    }
                    return Some((blobref, blob.into()));
                }
            }
        }
    }
}
