//! Reading all keys below a root, without I/O.
//!
//! The caller asks for the next [`Step`] and brings the blobs it is told to load, in any order; loads may be under way
//! while others are asked for. What was met last goes on first, so that what is kept does not grow with the tree:
//! directories on the way down, and values whose blobs are being loaded.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kvs::treeobj::Dir;
use kvs::{BlobRef, Symlink, TreeObj};

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    Load(Load),
    Found(Found),
}

/// A blob that is needed.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) blobref: BlobRef,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    Dir(Arc<str>),
    Part { value: u64, index: usize },
}

/// A key and what is there.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: Arc<str>,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// A directory; what is in it follows.
    Dir,
    /// A directory that cannot be read.
    LostDir(Fault),
    Link(Arc<Symlink>),
    /// A value that is held in place; none if its text is not base64.
    Value(Option<Bytes>),
    /// A value that is the concatenation of blobs.
    Blobs(Arc<Vec<BlobRef>>, Vec<Result<Bytes, Fault>>),
}

/// Why a blob cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it is not stored")]
    Missing,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Unread(String),
}

impl Fault {
    /// Nobody will ever read it.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Fault::Unread(_))
    }
}

enum Todo {
    Object(Arc<str>, TreeObj),
    Parts { value: u64, next: usize },
    Lost(Arc<str>, Fault),
    Complete(u64),
}

/// A value whose blobs are being loaded.
struct Value {
    key: Arc<str>,
    refs: Arc<Vec<BlobRef>>,
    parts: Vec<Option<Result<Bytes, Fault>>>,
    left: usize,
}

/// A walk through a tree.
pub(crate) struct Walk {
    separator: char,
    todo: Vec<Todo>,
    values: HashMap<u64, Value>,
    last: u64,
}

impl Walk {
    /// A walk from a root directory; `separator` stands between the parts of a key.
    pub(crate) fn new(root: BlobRef, separator: char) -> Walk {
        Walk {
            separator,
            todo: vec![Todo::Object("".into(), TreeObj::DirRef(root))],
            values: HashMap::new(),
            last: 0,
        }
    }

    /// What to do next; none if that depends on loads under way, or if all is done.
    pub(crate) fn step(&mut self) -> Option<Step> {
        let found = |key, what| Some(Step::Found(Found { key, what }));
        match self.todo.pop()? {
            Todo::Object(key, TreeObj::Val(text)) => {
                let data = TreeObj::Val(text).data().map(Bytes::from);
                found(key, What::Value(data))
            }
            Todo::Object(key, TreeObj::Symlink(link)) => found(key, What::Link(link)),
            Todo::Object(key, TreeObj::Dir(dir)) => {
                self.enter(&key, &dir);
                found(key, What::Dir)
            }
            Todo::Object(key, TreeObj::DirRef(blobref)) => Some(Step::Load(Load {
                blobref,
                purpose: Purpose::Dir(key),
            })),
            Todo::Object(key, TreeObj::ValRef(refs)) => {
                self.last += 1;
                let left = refs.len();
                let value = Value {
                    key,
                    parts: vec![None; left],
                    refs,
                    left,
                };
                self.values.insert(self.last, value);
                self.part(self.last, 0)
            }
            Todo::Parts { value, next } => self.part(value, next),
            Todo::Lost(key, fault) => found(key, What::LostDir(fault)),
            Todo::Complete(value) => {
                let value = self.values.remove(&value)?;
                let parts = value.parts.into_iter().flatten().collect();
                found(value.key, What::Blobs(value.refs, parts))
            }
        }
    }

    fn part(&mut self, value: u64, index: usize) -> Option<Step> {
        let refs = &self.values.get(&value)?.refs;
        if index + 1 < refs.len() {
            let next = index + 1;
            self.todo.push(Todo::Parts { value, next });
        }
        Some(Step::Load(Load {
            blobref: refs[index],
            purpose: Purpose::Part { value, index },
        }))
    }

    fn enter(&mut self, key: &str, dir: &Dir) {
        let start = self.todo.len();
        for (name, object) in dir.iter() {
            let key = match key {
                "" => name.clone(),
                _ => format!("{key}{}{name}", self.separator).into(),
            };
            self.todo.push(Todo::Object(key, object.clone()));
        }
        self.todo[start..].reverse();
    }

    /// A blob has come, or is not to be had.
    pub(crate) fn loaded(&mut self, load: Load, blob: Result<Bytes, Fault>) {
        match load.purpose {
            Purpose::Dir(key) => {
                let decode = |blob: Bytes| Dir::decode(&blob);
                let dir = blob.map(decode);
                self.todo.push(match dir {
                    Ok(Ok(dir)) => Todo::Object(key, TreeObj::Dir(dir.into())),
                    Ok(Err(e)) => Todo::Lost(key, Fault::Damaged(e.to_string())),
                    Err(fault) => Todo::Lost(key, fault),
                });
            }
            Purpose::Part { value, index } => {
                let Some(entry) = self.values.get_mut(&value) else {
                    return;
                };
                if entry.parts[index].replace(blob).is_none() {
                    entry.left -= 1;
                }
                if entry.left == 0 {
                    self.todo.push(Todo::Complete(value));
                }
            }
        }
    }
}
