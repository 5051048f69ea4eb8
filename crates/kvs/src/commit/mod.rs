//! Applying transactions to a root directory: commit without I/O.
//!
//! All transactions given are applied one after the other to one tree of changes that lies over
//! the stored tree; then each changed directory is encoded and hashed once, however many
//! transactions touched it. A transaction that fails leaves no trace: the others are applied
//! without it.
//!
//! The result does not depend on how transactions were merged, and the new objects are those
//! upstream would write: values whose base64 text is longer than a blobref move to a blob of
//! their own, appended values always do.

mod error;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use content::{BlobRef, HashAlg};

use crate::flags;
use crate::key::normalize;
use crate::store::{Need, Objects};
use crate::treeobj::{Dir, TreeObj};
use crate::txn::Op;
pub use error::Error;

/// Longer base64 text is stored as a blob: then the reference is the shorter of the two.
const INLINE_LIMIT: usize = 72;
/// Links on the way to a key that may follow one another.
const LINK_DEPTH_LIMIT: usize = 10;

/// What a commit came to.
#[derive(Debug)]
pub enum Outcome {
    /// These objects are needed first.
    Missing(Vec<Need>),
    Done(Committed),
}

/// The new root and what must be stored before it counts.
#[derive(Debug)]
pub struct Committed {
    pub root: BlobRef,
    /// For each transaction, whether it is part of the new root.
    pub results: Vec<Result<(), Error>>,
    /// New directories, decoded, with their blobs.
    pub dirs: Vec<(BlobRef, Arc<Dir>, Bytes)>,
    /// New value blobs.
    pub vals: Vec<(BlobRef, Bytes)>,
}

/// Applies the transactions in order to `root` in namespace `namespace`.
pub fn commit(
    objects: &mut dyn Objects,
    alg: HashAlg,
    namespace: &str,
    root: BlobRef,
    txns: &[&[Op]],
) -> Outcome {
    let mut results = vec![Ok(()); txns.len()];
    loop {
        let base = match objects.dir(&root) {
            Some(Some(dir)) => dir,
            Some(None) => {
                let results = vec![Err(Error::Damaged(root)); txns.len()];
                return Outcome::Done(Committed {
                    root,
                    results,
                    dirs: vec![],
                    vals: vec![],
                });
            }
            None => return Outcome::Missing(vec![Need::Dir(root)]),
        };
        let mut tree = Tree {
            objects,
            alg,
            namespace,
            missing: Vec::new(),
            vals: Vec::new(),
            dirs: Vec::new(),
        };
        let mut top = Overlay::over(&base, Some(root));
        let failed = tree.apply_all(&mut top, txns, &results);
        if !tree.missing.is_empty() {
            let mut missing = tree.missing;
            missing.sort_unstable_by_key(Need::blobref);
            missing.dedup();
            return Outcome::Missing(missing);
        }
        if let Some((i, e)) = failed {
            // Start over without it. Failing transactions are rare; applying is cheap.
            results[i] = Err(e);
            continue;
        }
        let root = tree.finish(top);
        let (dirs, vals) = (tree.dirs, tree.vals);
        return Outcome::Done(Committed {
            root,
            results,
            dirs,
            vals,
        });
    }
}

/// A directory with changes over it.
struct Overlay {
    base: Arc<Dir>,
    /// Where `base` is stored, if it is.
    origin: Option<BlobRef>,
    changes: BTreeMap<Arc<str>, Change>,
}

enum Change {
    Remove,
    Put(TreeObj),
    Sub(Box<Overlay>),
}

impl Overlay {
    fn over(base: &Arc<Dir>, origin: Option<BlobRef>) -> Overlay {
        Overlay {
            base: base.clone(),
            origin,
            changes: BTreeMap::new(),
        }
    }
}

/// How far applying an operation got.
enum Step {
    Applied,
    /// An object it needs is missing; it is recorded.
    Stalled,
    /// A link was met: go on at this key instead.
    Redirect(String),
}

struct Tree<'a> {
    objects: &'a mut dyn Objects,
    alg: HashAlg,
    namespace: &'a str,
    missing: Vec<Need>,
    vals: Vec<(BlobRef, Bytes)>,
    dirs: Vec<(BlobRef, Arc<Dir>, Bytes)>,
}

impl Tree<'_> {
    /// Applies all transactions that have not failed before. Goes on past missing objects, so
    /// that all of them are found in one pass. Returns the first transaction that fails.
    fn apply_all(
        &mut self,
        top: &mut Overlay,
        txns: &[&[Op]],
        results: &[Result<(), Error>],
    ) -> Option<(usize, Error)> {
        for (i, ops) in txns.iter().enumerate() {
            if results[i].is_err() {
                continue;
            }
            for op in *ops {
                if let Err(e) = self.apply(top, op) {
                    return Some((i, e));
                }
            }
        }
        None
    }

    fn apply(&mut self, top: &mut Overlay, op: &Op) -> Result<(), Error> {
        // What is stored later must be valid when it is accepted.
        if let Some(obj) = &op.dirent {
            check_base64(obj, &op.key)?;
        }
        let mut key = normalize(&op.key).into_owned();
        if key.is_empty() {
            return Err(Error::EmptyKey(op.key.clone()));
        }
        for _ in 0..=LINK_DEPTH_LIMIT {
            if key == "." {
                return Err(Error::Root);
            }
            match self.link(top, &key, op)? {
                Step::Applied | Step::Stalled => return Ok(()),
                Step::Redirect(to) => key = normalize(&to).into_owned(),
            }
        }
        Err(Error::Loop(op.key.clone()))
    }

    /// Walks to the key's directory and makes the change there.
    fn link(&mut self, top: &mut Overlay, key: &str, op: &Op) -> Result<Step, Error> {
        let (path, name) = match key.rsplit_once('.') {
            Some((path, name)) => (Some(path), name),
            None => (None, key),
        };
        let mut dir = top;
        let mut rest = key;
        for part in path.into_iter().flat_map(|p| p.split('.')) {
            rest = &rest[part.len() + 1..];
            match self.enter(dir, part, op.dirent.is_none())? {
                Enter::Sub => {}
                Enter::Absent => return Ok(Step::Applied),
                Enter::Stalled => return Ok(Step::Stalled),
                Enter::Link(link) => {
                    if link
                        .namespace
                        .as_ref()
                        .is_some_and(|ns| ns != self.namespace)
                    {
                        return Err(Error::CrossNamespace(op.key.clone()));
                    }
                    return Ok(Step::Redirect(format!("{}.{rest}", link.target)));
                }
            }
            dir = match dir.changes.get_mut(part) {
                Some(Change::Sub(sub)) => &mut **sub,
                // `enter` has just put it there.
                _ => unreachable!("entered directory is in the overlay"),
            };
        }
        match &op.dirent {
            None => {
                dir.changes.insert(name.into(), Change::Remove);
            }
            Some(obj) if op.flags & flags::APPEND != 0 => {
                let obj = self.append(dir, name, key, obj)?;
                dir.changes.insert(name.into(), Change::Put(obj));
            }
            Some(obj) => {
                dir.changes.insert(name.into(), Change::Put(obj.clone()));
            }
        }
        Ok(Step::Applied)
    }

    /// Makes sure that `name` is an overlay directory in `dir`, creating it unless `existing`.
    fn enter(&mut self, dir: &mut Overlay, name: &str, existing: bool) -> Result<Enter, Error> {
        let current = match dir.changes.get(name) {
            Some(Change::Sub(_)) => return Ok(Enter::Sub),
            Some(Change::Put(obj)) => Some(obj),
            Some(Change::Remove) => None,
            None => dir.base.get(name),
        };
        let sub = match current {
            Some(TreeObj::Dir(inner)) => Overlay::over(inner, None),
            Some(TreeObj::DirRef(r)) => match self.objects.dir(r) {
                Some(Some(inner)) => Overlay::over(&inner, Some(*r)),
                Some(None) => return Err(Error::Damaged(*r)),
                None => {
                    self.missing.push(Need::Dir(*r));
                    return Ok(Enter::Stalled);
                }
            },
            Some(TreeObj::Symlink(link)) => return Ok(Enter::Link(link.clone())),
            // A value in the way gives way to a directory, except to removals.
            Some(TreeObj::Val(_) | TreeObj::ValRef(_)) | None if existing => {
                return Ok(Enter::Absent);
            }
            Some(TreeObj::Val(_) | TreeObj::ValRef(_)) | None => {
                Overlay::over(&Arc::default(), None)
            }
        };
        dir.changes.insert(name.into(), Change::Sub(Box::new(sub)));
        Ok(Enter::Sub)
    }

    /// The object to put for an append.
    fn append(
        &mut self,
        dir: &Overlay,
        name: &str,
        key: &str,
        obj: &TreeObj,
    ) -> Result<TreeObj, Error> {
        let TreeObj::Val(text) = obj else {
            return Err(Error::AppendType(obj.type_name()));
        };
        let current = match dir.changes.get(name) {
            Some(Change::Sub(_)) => return Err(Error::AppendDir(key.to_owned())),
            Some(Change::Put(obj)) => Some(obj),
            Some(Change::Remove) => None,
            None => dir.base.get(name),
        };
        let mut refs = match current {
            None => return Ok(obj.clone()),
            Some(TreeObj::ValRef(refs)) => {
                let mut all = Vec::with_capacity(refs.len() + 1);
                all.extend_from_slice(refs);
                all
            }
            Some(TreeObj::Val(first)) => {
                vec![
                    self.store_val(first)
                        .ok_or_else(|| Error::Base64(key.to_owned()))?,
                ]
            }
            Some(TreeObj::Symlink(_)) => return Err(Error::AppendLink(key.to_owned())),
            Some(TreeObj::Dir(_) | TreeObj::DirRef(_)) => {
                return Err(Error::AppendDir(key.to_owned()));
            }
        };
        refs.push(
            self.store_val(text)
                .ok_or_else(|| Error::Base64(key.to_owned()))?,
        );
        Ok(TreeObj::ValRef(Arc::new(refs)))
    }

    fn store_val(&mut self, text: &str) -> Option<BlobRef> {
        let data = Bytes::from(BASE64.decode(text.as_bytes()).ok()?);
        let blobref = self.alg.hash(&data);
        self.vals.push((blobref, data));
        Some(blobref)
    }

    /// Encodes a directory with its changes, deepest first. Returns its reference.
    fn finish(&mut self, dir: Overlay) -> BlobRef {
        if let (Some(origin), true) = (dir.origin, dir.changes.is_empty()) {
            return origin;
        }
        let mut entries = Vec::with_capacity(dir.base.len() + dir.changes.len());
        let mut old = dir.base.iter().peekable();
        for (name, change) in dir.changes {
            while let Some((n, obj)) = old.next_if(|(n, _)| **n < name) {
                entries.push((n.clone(), self.stored(obj)));
            }
            old.next_if(|(n, _)| **n == name);
            match change {
                Change::Remove => {}
                Change::Put(obj) => {
                    let obj = self.stored(&obj);
                    entries.push((name, obj));
                }
                Change::Sub(sub) => {
                    let blobref = self.finish(*sub);
                    entries.push((name, TreeObj::DirRef(blobref)));
                }
            }
        }
        for (n, obj) in old {
            entries.push((n.clone(), self.stored(obj)));
        }
        let dir = Arc::new(Dir::from_sorted(entries));
        let blob = Bytes::from(dir.encode());
        let blobref = self.alg.hash(&blob);
        self.dirs.push((blobref, dir, blob));
        blobref
    }

    /// The object in the form a stored directory holds it.
    fn stored(&mut self, obj: &TreeObj) -> TreeObj {
        match obj {
            TreeObj::Val(text) if text.len() > INLINE_LIMIT => match self.store_val(text) {
                Some(blobref) => TreeObj::ValRef(Arc::new(vec![blobref])),
                // What comes in is checked; this was stored by something else. Leave it alone.
                None => obj.clone(),
            },
            TreeObj::Dir(inner) => TreeObj::DirRef(self.finish(Overlay::over(inner, None))),
            other => other.clone(),
        }
    }
}

/// Every value in the object must be base64.
fn check_base64(obj: &TreeObj, key: &str) -> Result<(), Error> {
    match obj {
        TreeObj::Val(_) if obj.data().is_none() => Err(Error::Base64(key.to_owned())),
        TreeObj::Dir(dir) => dir
            .iter()
            .try_for_each(|(_, inner)| check_base64(inner, key)),
        _ => Ok(()),
    }
}

enum Enter {
    Sub,
    Absent,
    Stalled,
    Link(Arc<crate::treeobj::Symlink>),
}

#[cfg(test)]
mod tests;
