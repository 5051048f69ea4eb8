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
