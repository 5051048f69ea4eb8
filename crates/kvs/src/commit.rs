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

/// Longer base64 text is stored as a blob: then the reference is the shorter of the two.
const INLINE_LIMIT: usize = 72;
/// Links on the way to a key that may follow one another.
const LINK_DEPTH_LIMIT: usize = 10;

/// Why a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the root directory cannot be replaced")]
    Root,
    #[error("key `{0}` is empty")]
    EmptyKey(String),
    #[error("only a value can be appended: {0}")]
    AppendType(&'static str),
    #[error("`{0}` is a directory and cannot be appended to")]
    AppendDir(String),
    #[error("`{0}` is a symbolic link and cannot be appended to")]
    AppendLink(String),
    #[error("value of `{0}` is not base64")]
    Base64(String),
    #[error("`{0}` leads through a link into another namespace")]
    CrossNamespace(String),
    #[error("`{0}` leads through too many symbolic links")]
    Loop(String),
    #[error("stored object {0} is damaged: it should be a directory")]
    Damaged(BlobRef),
}

impl Error {
    /// The errno a requester sees.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Root | Error::EmptyKey(_) | Error::CrossNamespace(_) => libc::EINVAL,
            Error::AppendType(_) | Error::Base64(_) => libc::EPROTO,
            Error::AppendDir(_) => libc::EISDIR,
            Error::AppendLink(_) => libc::EOPNOTSUPP,
            Error::Loop(_) => libc::ELOOP,
            Error::Damaged(_) => libc::ENOTRECOVERABLE,
        }
    }
}

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
mod tests {
    use super::*;
    use crate::store::{Pinned, Store};
    use crate::txn::Txn;
    use crate::walk::{self, NamespaceRoot, Namespaces};
    use proptest::prelude::*;

    struct NoNamespaces;
    impl Namespaces for NoNamespaces {
        fn root(&self, _: &str) -> NamespaceRoot {
            NamespaceRoot::Unknown
        }
    }

    /// A KVS in memory: nothing is ever missing unless the test takes it away.
    struct Kvs {
        store: Store,
        root: BlobRef,
    }

    impl Kvs {
        fn new() -> Kvs {
            let mut store = Store::new(1 << 24);
            let root = HashAlg::Sha1.hash(&TreeObj::empty_dir().encode());
            store.insert_dir(root, Arc::default());
            Kvs { store, root }
        }

        fn commit(&mut self, txns: &[Txn]) -> Vec<Result<(), Error>> {
            let none = Pinned::new();
            let ops: Vec<&[Op]> = txns.iter().map(Txn::ops).collect();
            let mut view = self.store.with(&none);
            match commit(&mut view, HashAlg::Sha1, "primary", self.root, &ops) {
                Outcome::Missing(m) => panic!("missing {m:?}"),
                Outcome::Done(done) => {
                    self.root = done.root;
                    for (r, dir, blob) in done.dirs {
                        assert_eq!(HashAlg::Sha1.hash(&blob), r);
                        self.store.insert_dir(r, dir);
                    }
                    for (r, data) in done.vals {
                        self.store.insert_val(r, data);
                    }
                    done.results
                }
            }
        }

        fn put(&mut self, key: &str, value: &str) {
            assert_eq!(self.commit(&[txn(|t| t.put(key, value))]), [Ok(())]);
        }

        fn lookup(&mut self, key: &str, flags: u32) -> walk::Outcome {
            let none = Pinned::new();
            walk::lookup(
                &mut self.store.with(&none),
                &NoNamespaces,
                self.root,
                key,
                flags,
            )
        }

        fn get(&mut self, key: &str) -> Option<String> {
            match self.lookup(key, 0) {
                walk::Outcome::Found(obj) => Some(String::from_utf8(obj.data().unwrap()).unwrap()),
                walk::Outcome::NotFound => None,
                other => panic!("{key}: {other:?}"),
            }
        }

        fn type_of(&mut self, key: &str) -> &'static str {
            match self.lookup(key, flags::TREEOBJ) {
                walk::Outcome::Found(obj) => obj.type_name(),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    fn txn(f: impl FnOnce(&mut Txn) -> &mut Txn) -> Txn {
        let mut t = Txn::new();
        f(&mut t);
        t
    }

    #[test]
    fn put_get_unlink() {
        let mut kvs = Kvs::new();
        let empty = kvs.root;
        kvs.put("a.b.c", "hello");
        kvs.put("a.d", &"x".repeat(100));
        assert_eq!(kvs.get("a.b.c").unwrap(), "hello");
        assert_eq!(kvs.get("a.d").unwrap().len(), 100);
        assert_eq!(
            (kvs.type_of("a.b.c"), kvs.type_of("a.d")),
            ("val", "valref")
        );
        assert_eq!(kvs.get("a.b.c.below"), None);
        assert_eq!(kvs.get("nothing.here"), None);
        assert_eq!(
            kvs.lookup("a.b", 0),
            walk::Outcome::Failed(walk::Error::IsDir)
        );
        // A value gives way to a directory.
        kvs.put("a.d.e", "1");
        assert_eq!(kvs.get("a.d.e").unwrap(), "1");
        // Removing below what does not exist changes nothing.
        let before = kvs.root;
        kvs.commit(&[txn(|t| t.unlink("no.such.key").unlink("a.b.c.x"))]);
        assert_eq!(kvs.root, before);
        kvs.commit(&[txn(|t| t.unlink("a"))]);
        assert_eq!(kvs.root, empty);
    }

    #[test]
    fn append_makes_a_list_of_blobs() {
        let mut kvs = Kvs::new();
        for (i, want) in [(1, "val"), (2, "valref"), (3, "valref")] {
            kvs.commit(&[txn(|t| t.append("log", format!("{i}\n").as_bytes()))]);
            assert_eq!(kvs.type_of("log"), want);
        }
        assert_eq!(kvs.get("log").unwrap(), "1\n2\n3\n");
        let none = Pinned::new();
        let more = walk::lookup_appended(
            &mut kvs.store.with(&none),
            &NoNamespaces,
            kvs.root,
            "log",
            1,
        )
        .unwrap();
        assert_eq!(more.count, 3);
        assert_eq!(more.values, [TreeObj::val(b"2\n"), TreeObj::val(b"3\n")]);
        // Several appends in one commit, and merged from several transactions.
        kvs.commit(&[
            txn(|t| t.append("log", b"4\n").append("log", b"5\n")),
            txn(|t| t.append("log", b"6\n")),
        ]);
        assert_eq!(kvs.get("log").unwrap(), "1\n2\n3\n4\n5\n6\n");
    }

    #[test]
    fn a_failed_transaction_leaves_no_trace_and_harms_no_other() {
        let mut kvs = Kvs::new();
        kvs.put("dir.x", "1");
        let results = kvs.commit(&[
            txn(|t| t.put("a", "1")),
            txn(|t| t.put("b", "1").append("dir", b"no")),
            txn(|t| t.put("c", "1")),
            txn(|t| t.put(".", "1")),
        ]);
        assert_eq!(results[0], Ok(()));
        assert_eq!(results[1], Err(Error::AppendDir("dir".into())));
        assert_eq!(results[2], Ok(()));
        assert_eq!(results[3], Err(Error::Root));
        assert_eq!(kvs.get("a").as_deref(), Some("1"));
        assert_eq!(kvs.get("b"), None);
        assert_eq!(kvs.get("c").as_deref(), Some("1"));
    }

    #[test]
    fn bad_values_are_refused_where_they_come_in() {
        let mut kvs = Kvs::new();
        let bad = TreeObj::Val("not base64!".into());
        let results = kvs.commit(&[txn(|t| t.put_treeobj("a", bad))]);
        assert_eq!(results, [Err(Error::Base64("a".into()))]);
        let results = kvs.commit(&[txn(|t| t.put_treeobj("", TreeObj::val(b"")))]);
        assert_eq!(results[0].as_ref().unwrap_err().errno(), libc::EINVAL);
    }

    #[test]
    fn links() {
        let mut kvs = Kvs::new();
        kvs.put("a.b.c", "deep");
        let link = |from: &'static str, to: &'static str| txn(move |t| t.symlink(from, None, to));
        kvs.commit(&[
            link("l", "a.b"),
            link("m", "l.c"),
            link("loop", "loop"),
            link("r", "."),
        ]);
        assert_eq!(kvs.get("l.c").unwrap(), "deep");
        assert_eq!(kvs.get("m").unwrap(), "deep");
        assert_eq!(kvs.get("r.a.b.c").unwrap(), "deep");
        assert_eq!(
            kvs.lookup("loop", 0),
            walk::Outcome::Failed(walk::Error::Loop)
        );
        assert_eq!(kvs.type_of("m"), "symlink");
        assert!(matches!(
            kvs.lookup("m", flags::READLINK),
            walk::Outcome::Found(TreeObj::Symlink(_))
        ));
        assert_eq!(
            kvs.lookup("a", flags::READLINK),
            walk::Outcome::Failed(walk::Error::NotLink)
        );
        assert_eq!(
            kvs.lookup("m", flags::READDIR),
            walk::Outcome::Failed(walk::Error::NotDir)
        );
        // Writing goes through links too.
        kvs.put("l.new", "1");
        assert_eq!(kvs.get("a.b.new").unwrap(), "1");
        let r = kvs.commit(&[txn(|t| t.put("loop.x", "1"))]);
        assert_eq!(r, [Err(Error::Loop("loop.x".into()))]);
        kvs.commit(&[txn(|t| t.symlink("far", Some("other"), "x"))]);
        assert_eq!(
            kvs.lookup("far", 0),
            walk::Outcome::MissingNamespace("other".into())
        );
        let r = kvs.commit(&[txn(|t| t.put("far.x", "1"))]);
        assert_eq!(r, [Err(Error::CrossNamespace("far.x".into()))]);
    }

    #[test]
    fn directories_given_whole_are_unrolled() {
        let mut kvs = Kvs::new();
        let long = TreeObj::val(&[7; 200]);
        let inner = Dir::from_sorted(vec![("x".into(), long)]);
        let outer = Dir::from_sorted(vec![("in".into(), TreeObj::Dir(inner.into()))]);
        kvs.commit(&[txn(|t| t.put_treeobj("d", TreeObj::Dir(outer.into())))]);
        assert_eq!(kvs.type_of("d"), "dirref");
        assert_eq!(kvs.type_of("d.in"), "dirref");
        assert_eq!(kvs.type_of("d.in.x"), "valref");
        kvs.commit(&[txn(|t| t.mkdir("e").put("e.f", "1").mkdir("d"))]);
        assert_eq!(kvs.get("e.f").unwrap(), "1");
        assert_eq!(kvs.get("d.in.x"), None);
    }

    #[test]
    fn missing_objects_are_all_reported_at_once() {
        let mut kvs = Kvs::new();
        kvs.put("a.x", "1");
        kvs.put("b.x", "1");
        let top = {
            let none = Pinned::new();
            kvs.store.with(&none).dir(&kvs.root).unwrap().unwrap()
        };
        let mut bare = Store::new(1 << 20);
        bare.insert_dir(kvs.root, top);
        let t = txn(|t| t.put("a.y", "1").put("b.y", "1").put("a.z", "1"));
        let none = Pinned::new();
        match commit(
            &mut bare.with(&none),
            HashAlg::Sha1,
            "primary",
            kvs.root,
            &[t.ops()],
        ) {
            Outcome::Missing(m) => assert_eq!(m.len(), 1, "a and b are equal: {m:?}"),
            other => panic!("{other:?}"),
        }
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let key = prop::collection::vec("[abc]", 1..4).prop_map(|p| p.join("."));
        (key, 0..5u8, "[a-z]{0,80}").prop_map(|(key, what, text)| {
            let mut t = Txn::new();
            match what {
                0 => t.unlink(&key),
                1 => t.append(&key, text.as_bytes()),
                2 => t.mkdir(&key),
                _ => t.put(&key, &text),
            };
            t.into_ops().remove(0)
        })
    }

    proptest! {
        /// Merging transactions gives the root that committing them one by one gives.
        #[test]
        fn merging_changes_nothing(ops in prop::collection::vec(any_op(), 1..20)) {
            let (mut merged, mut single) = (Kvs::new(), Kvs::new());
            let txns: Vec<Txn> = ops.into_iter().map(|op| Txn::from(vec![op])).collect();
            let results = merged.commit(&txns);
            let one_by_one: Vec<_> = txns
                .iter()
                .map(|t| single.commit(std::slice::from_ref(t)).remove(0))
                .collect();
            prop_assert_eq!(results, one_by_one);
            prop_assert_eq!(merged.root, single.root);
        }
    }
}
