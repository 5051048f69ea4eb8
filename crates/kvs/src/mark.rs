//! All that is referred to from some roots, for garbage collection: marking without I/O.
//!
//! Directories have to be loaded, values only named. An exception are values in the directory `archive` of a root:
//! flux-archive(1) names the blobs of files in their text.

use std::collections::HashSet;

use bytes::Bytes;
use content::BlobRef;

use crate::store::Need;
use crate::treeobj::{DecodeError, Dir, TreeObj};

/// The directory whose values name blobs.
const ARCHIVES: &str = "archive";

/// What is read in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Root,
    Dir,
    /// A directory of archives.
    Archives,
    /// A value that names blobs.
    Text,
}

/// A blob that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    pub blobref: BlobRef,
    kind: Kind,
}

/// What a blob refers to.
#[derive(Debug, Default)]
pub struct Content {
    loads: Vec<Load>,
    named: Vec<BlobRef>,
}

/// What has been marked, and what has to be read for it.
#[derive(Default)]
pub struct Marker {
    todo: Vec<Load>,
    seen: HashSet<Load>,
    marks: Vec<BlobRef>,
}

impl Marker {
    /// Marks what is below this.
    pub fn add(&mut self, root: Need) {
        match root {
            Need::Dir(blobref) => self.visit(Load {
                blobref,
                kind: Kind::Root,
            }),
            Need::Val(blobref) => self.marks.push(blobref),
        }
    }

    fn visit(&mut self, load: Load) {
        if self.seen.insert(load) {
            self.marks.push(load.blobref);
            self.todo.push(load);
        }
    }

    /// Blobs to load next, at most so many.
    pub fn next(&mut self, most: usize) -> Vec<Load> {
        let left = self.todo.len().saturating_sub(most);
        self.todo.split_off(left)
    }

    /// Takes what a blob refers to.
    pub fn take(&mut self, content: Content) {
        self.marks.extend(content.named);
        for load in content.loads {
            self.visit(load);
        }
    }

    /// What has been marked since this was asked last.
    pub fn marks(&mut self) -> Vec<BlobRef> {
        std::mem::take(&mut self.marks)
    }

    /// How many marks wait to be taken.
    pub fn waiting(&self) -> usize {
        self.marks.len()
    }
}

impl Load {
    /// What the blob refers to. This takes its time if it is a large directory.
    pub fn read(&self, blob: &Bytes) -> Result<Content, DecodeError> {
        let mut content = Content::default();
        match self.kind {
            Kind::Text => content.scan(blob),
            kind => content.enter(&Dir::decode(blob)?, kind),
        }
        Ok(content)
    }
}

impl Content {
    fn enter(&mut self, dir: &Dir, kind: Kind) {
        for (name, object) in dir.iter() {
            let below = match kind {
                Kind::Root if **name == *ARCHIVES => Kind::Archives,
                Kind::Archives => Kind::Archives,
                _ => Kind::Dir,
            };
            match object {
                TreeObj::DirRef(blobref) => self.loads.push(Load {
                    blobref: *blobref,
                    kind: below,
                }),
                TreeObj::Dir(inner) => self.enter(inner, below),
                TreeObj::ValRef(refs) if kind == Kind::Archives => {
                    let load = |blobref: &BlobRef| Load {
                        blobref: *blobref,
                        kind: Kind::Text,
                    };
                    self.loads.extend(refs.iter().map(load));
                }
                TreeObj::ValRef(refs) => self.named.extend(refs.iter()),
                TreeObj::Val(_) if kind == Kind::Archives => {
                    self.scan(&object.data().unwrap_or_default());
                }
                TreeObj::Val(_) | TreeObj::Symlink(_) => {}
            }
        }
    }

    /// Takes whatever looks like the name of a blob.
    fn scan(&mut self, text: &[u8]) {
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
        let words = text.split(|b| !is_part(b));
        let words = words.filter_map(|word| std::str::from_utf8(word).ok());
        self.named
            .extend(words.filter_map(|word| word.parse::<BlobRef>().ok()));
    }
}

/// What these objects of a transaction refer to.
pub fn references<'a>(objects: impl IntoIterator<Item = &'a TreeObj>) -> Vec<Need> {
    let mut found = Vec::new();
    let mut left: Vec<&TreeObj> = objects.into_iter().collect();
    while let Some(object) = left.pop() {
        match object {
            TreeObj::DirRef(blobref) => found.push(Need::Dir(*blobref)),
            TreeObj::ValRef(refs) => found.extend(refs.iter().map(|r| Need::Val(*r))),
            TreeObj::Dir(dir) => left.extend(dir.iter().map(|(_, inner)| inner)),
            TreeObj::Val(_) | TreeObj::Symlink(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use content::HashAlg;
    use std::collections::HashMap;
    use std::sync::Arc;

    fn name(text: &str) -> BlobRef {
        HashAlg::Sha1.hash(text.as_bytes())
    }

    fn dir(entries: &[(&str, TreeObj)]) -> Arc<Dir> {
        let entries = entries.iter().map(|(name, o)| ((*name).into(), o.clone()));
        Arc::new(Dir::from_sorted(entries.collect()))
    }

    fn valref(texts: &[&str]) -> TreeObj {
        TreeObj::ValRef(Arc::new(texts.iter().map(|t| name(t)).collect()))
    }

    /// All that is marked from this root, with the number of loads.
    fn mark(blobs: &HashMap<BlobRef, Bytes>, root: BlobRef) -> (HashSet<BlobRef>, usize) {
        let (mut marker, mut marked, mut loads) = (Marker::default(), HashSet::new(), 0);
        marker.add(Need::Dir(root));
        loop {
            marked.extend(marker.marks());
            let next = marker.next(2);
            if next.is_empty() {
                return (marked, loads);
            }
            for load in next {
                loads += 1;
                marker.take(load.read(&blobs[&load.blobref]).unwrap());
            }
        }
    }

    #[test]
    fn all_below_a_root_is_marked_and_read_once() {
        let mut blobs = HashMap::new();
        let mut store = |data: Vec<u8>| {
            let blobref = HashAlg::Sha1.hash(&data);
            blobs.insert(blobref, Bytes::from(data));
            TreeObj::DirRef(blobref)
        };
        let leaf = store(dir(&[("v", valref(&["one", "two"]))]).encode());
        let list = format!("[{{\"data\":[0,4,\"{}\"]}}]", name("file"));
        let text = store(list.clone().into_bytes());
        let TreeObj::DirRef(text) = text else {
            unreachable!("it was just made");
        };
        let archives = dir(&[
            ("long", TreeObj::ValRef(Arc::new(vec![text]))),
            (
                "short",
                TreeObj::val(format!("\"{}\"", name("small")).as_bytes()),
            ),
        ]);
        let inner = dir(&[
            ("archive", TreeObj::Dir(archives.clone())),
            ("x", leaf.clone()),
        ]);
        let archives = store(archives.encode());
        let root = store(
            dir(&[
                ("a", leaf.clone()),
                ("archive", archives),
                ("b", leaf),
                ("c", TreeObj::Dir(inner)),
            ])
            .encode(),
        );
        let TreeObj::DirRef(root) = root else {
            unreachable!("it was just made");
        };
        let (marked, loads) = mark(&blobs, root);
        for text in ["one", "two", "file", "small"] {
            assert!(marked.contains(&name(text)), "{text}");
        }
        assert!(blobs.keys().all(|b| marked.contains(b)));
        assert_eq!((marked.len(), loads), (8, 4));
    }

    #[test]
    fn a_blob_that_is_no_directory_is_refused() {
        let mut marker = Marker::default();
        marker.add(Need::Dir(name("junk")));
        let [load] = marker.next(9)[..] else {
            panic!("one is to be loaded");
        };
        assert!(load.read(&Bytes::from_static(b"junk")).is_err());
    }

    #[test]
    fn transactions_refer_to_blobs() {
        let inner = dir(&[("d", TreeObj::DirRef(name("d"))), ("v", TreeObj::val(b"v"))]);
        let objects = [TreeObj::Dir(inner), valref(&["x", "y"])];
        let found: HashSet<_> = references(&objects).into_iter().collect();
        let needs = [
            Need::Dir(name("d")),
            Need::Val(name("x")),
            Need::Val(name("y")),
        ];
        assert_eq!(found, needs.into_iter().collect());
    }
}
