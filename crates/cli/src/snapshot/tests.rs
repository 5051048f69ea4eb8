//! Round trips: a tree is stored and walked, an archive is written and read.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use bytes::Bytes;
use kvs::{BlobRef, HashAlg, Symlink, TreeObj};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::archive::{self, Body, Entry, Stamp, Writer};
use super::compression::{self, Compression};
use super::walk::Step;
use super::{Clash, Fault, Node, Tree, Walk, What};

const ALG: HashAlg = HashAlg::Sha1;

/// Blobs by their references.
#[derive(Default)]
struct Blobs(HashMap<BlobRef, Bytes>);

impl Blobs {
    fn store(&mut self, blob: &[u8]) -> BlobRef {
        let blobref = ALG.hash(blob);
        self.0.insert(blobref, Bytes::copy_from_slice(blob));
        blobref
    }

    fn seal(&mut self, tree: Tree) -> BlobRef {
        let sealed: Vec<_> = tree.seal(ALG).collect();
        self.0.extend(sealed.iter().cloned());
        sealed.last().unwrap().0
    }

    /// All that a walk finds; `pick` says which of the loads under way ends next.
    fn walk(&self, root: BlobRef, most: usize, mut pick: impl FnMut(usize) -> usize) -> Keys {
        let (mut walk, mut loads, mut keys) = (Walk::new(root, '/'), Vec::new(), Keys::new());
        loop {
            while loads.len() < most {
                match walk.step() {
                    Some(Step::Load(load)) => loads.push(load),
                    Some(Step::Found(found)) => {
                        keys.push((found.key.to_string(), found.what));
                    }
                    None => break,
                }
            }
            if loads.is_empty() {
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                return keys;
            }
            let load = loads.swap_remove(pick(loads.len()));
            let blob = self.0.get(&load.blobref).cloned().ok_or(Fault::Missing);
            walk.loaded(load, blob);
        }
    }
}

type Keys = Vec<(String, What)>;

fn name() -> impl Strategy<Value = String> {
    "[a-c]{1,2}"
}

fn path() -> impl Strategy<Value = Vec<String>> {
    vec(name(), 1..4)
}

fn body() -> impl Strategy<Value = Body> {
    let parts = vec(vec(any::<u8>(), 0..700).prop_map(Bytes::from), 0..3);
    let link = (proptest::option::of("[a-z]{1,9}"), "[a-z.]{1,150}");
    prop_oneof![
        parts.prop_map(Body::Value),
        link.prop_map(|(namespace, target)| Body::Link(Symlink { namespace, target })),
    ]
}

/// As it is after an archive: in one part.
fn joined(body: &Body) -> Body {
    match body {
        Body::Value(parts) => Body::Value(vec![parts.concat().into()]),
        link => link.clone(),
    }
}

fn compressions() -> impl Strategy<Value = Compression> {
    use Compression::{Bzip2, Gzip, Lz4, None, Xz, Zstd};
    proptest::sample::select(vec![None, Gzip, Bzip2, Xz, Zstd, Lz4])
}

fn write(entries: &[(String, Body)], compression: Compression) -> Vec<u8> {
    let stamp = Stamp {
        mtime: 7,
        ..Stamp::default()
    };
    let mut writer = Writer::new(compression.writer(Vec::new()).unwrap(), stamp);
    for (path, body) in entries {
        writer.append(path, body).unwrap();
    }
    writer.finish().unwrap().finish().unwrap()
}

fn read(bytes: Vec<u8>, limit: Option<u64>) -> std::io::Result<Vec<Result<Entry, (String, u64)>>> {
    let mut entries = Vec::new();
    archive::read(compression::reader(Cursor::new(bytes))?, limit, |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

proptest! {
    #[test]
    fn archives_keep_everything(
        entries in vec(("[a-z/é]{1,220}", body()), 0..6),
        compression in compressions(),
    ) {
        let read = read(write(&entries, compression), None).unwrap();
        let expected = entries.iter().map(|(path, body)| Ok(Entry {
            path: path.clone(),
            body: joined(body),
            mtime: 7,
        }));
        prop_assert_eq!(read, expected.collect::<Vec<_>>());
    }

    #[test]
    fn junk_is_refused_or_read(junk in vec(any::<u8>(), 0..2000), magic in 0usize..6) {
        let heads: [&[u8]; 6] = [b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"];
        // Whether it is an error does not matter; that it ends does.
        let _ = read([heads[magic], &junk].concat(), Some(1 << 20));
    }

    #[test]
    fn trees_are_walked_as_they_were_made(
        keys in btree_map(path(), vec(vec(any::<u8>(), 0..9), 0..4), 0..30),
        most in 1usize..9,
        picks in vec(any::<prop::sample::Index>(), 200),
    ) {
        let (mut blobs, mut tree, mut expected) = (Blobs::default(), Tree::default(), BTreeMap::new());
        for (path, parts) in &keys {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let object = match parts.is_empty() {
                true => TreeObj::val(b"short"),
                false => TreeObj::ValRef(parts.iter().map(|p| blobs.store(p)).collect::<Vec<_>>().into()),
            };
            // A value where a directory is needed is in the way.
            if tree.insert(&path, Node::Object(object), Clash::Refuse).is_ok() {
                let value = if parts.is_empty() { b"short".to_vec() } else { parts.concat() };
                expected.insert(path.join("/"), value);
            }
        }
        let root = blobs.seal(tree);
        let mut picks = picks.iter().cycle();
        let found = blobs.walk(root, most, |len| picks.next().unwrap().index(len));
        let values = found.into_iter().filter_map(|(key, what)| match what {
            What::Value(data) => Some((key, data.unwrap().to_vec())),
            What::Blobs(_, parts) => {
                let parts: Vec<Bytes> = parts.into_iter().map(Result::unwrap).collect();
                Some((key, parts.concat()))
            }
            What::Dir => None,
            other => panic!("{key}: {other:?}"),
        });
        prop_assert_eq!(values.collect::<BTreeMap<_, _>>(), expected);
    }
}

#[test]
fn what_is_lost_has_a_name() {
    let mut blobs = Blobs::default();
    let (good, lost) = (blobs.store(b"good"), ALG.hash(b"lost"));
    let mut tree = Tree::default();
    let mut put = |path: &[&str], object| {
        tree.insert(path, Node::Object(object), Clash::Refuse)
            .unwrap();
    };
    put(&["d", "v"], TreeObj::ValRef(vec![good, lost].into()));
    put(&["dir"], TreeObj::DirRef(lost));
    put(&["odd"], TreeObj::DirRef(good));
    put(&["val"], TreeObj::Val("no base64".into()));
    let root = blobs.seal(tree);
    let found: BTreeMap<_, _> = blobs.walk(root, 2, |_| 0).into_iter().collect();
    let What::Blobs(refs, parts) = &found["d/v"] else {
        panic!("{found:?}")
    };
    assert_eq!(**refs, [good, lost]);
    assert_eq!(parts[..], [Ok(Bytes::from("good")), Err(Fault::Missing)]);
    assert!(matches!(found["dir"], What::LostDir(Fault::Missing)));
    assert!(matches!(found["odd"], What::LostDir(Fault::Damaged(_))));
    assert!(matches!(found["val"], What::Value(None)));
    let nothing = blobs.walk(lost, 1, |_| 0);
    assert!(matches!(nothing[..], [(_, What::LostDir(Fault::Missing))]));
}

#[test]
fn a_stored_tree_is_changed_where_it_is_opened() {
    let mut blobs = Blobs::default();
    let mut tree = Tree::default();
    for path in [["a", "x"], ["a", "y"], ["b", "z"]] {
        let node = Node::Object(TreeObj::val(b"1"));
        tree.insert(&path, node, Clash::Refuse).unwrap();
    }
    let root = blobs.seal(tree);
    let dir = |blobref: BlobRef| kvs::treeobj::Dir::decode(&blobs.0[&blobref]).unwrap();
    let mut tree = Tree::of(&dir(root));
    let (len, blobref) = tree.closed(&["a", "x"]).unwrap();
    assert_eq!(len, 1);
    tree.open(&["a"], &dir(blobref));
    assert!(tree.closed(&["a", "x"]).is_none() && tree.has(&["a", "x"]));
    assert!(tree.remove(&["a", "x"]).is_some());
    let link = Node::Object(TreeObj::val(b"2"));
    tree.insert(&["a", "y", "deep"], link, Clash::Replace)
        .unwrap();
    let refused = Node::Object(TreeObj::val(b"3"));
    let refused = tree.insert(&["a", "y", "deep", "er"], refused, Clash::Refuse);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "a.y.deep is not a directory"
    );
    let root = blobs.seal(tree);
    let keys: Vec<_> = blobs
        .walk(root, 3, |_| 0)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["", "a", "a/y", "a/y/deep", "b", "b/z"]);
}

#[test]
fn values_beyond_the_limit_are_only_named() {
    let entries = [("big", 10), ("small", 3)]
        .map(|(path, len)| (path.to_owned(), Body::Value(vec![vec![0; len].into()])));
    let read = read(write(&entries, Compression::None), Some(5)).unwrap();
    assert_eq!(read[0], Err(("big".to_owned(), 10)));
    assert_eq!(read[1].as_ref().unwrap().path, "small");
}

#[test]
fn an_archive_that_is_cut_short_is_refused() {
    let entries = [("key".to_owned(), Body::Value(vec![vec![1; 5000].into()]))];
    let whole = write(&entries, Compression::Gzip);
    let cut = whole[..whole.len() - 10].to_vec();
    assert!(read(cut, None).is_err());
    let plain = write(&entries, Compression::None);
    for len in [0, 600, 3000, plain.len() - 2 * 512] {
        assert!(read(plain[..len].to_vec(), None).is_err(), "{len}");
    }
}
