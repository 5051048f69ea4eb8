//! KVS tree objects (RFC 11).
//!
//! Objects are immutable and shared: cloning one costs a reference count. A value keeps its
//! base64 text as it came, so an object read and written again is the same, byte for byte.
//! The encoding is canonical (compact, keys sorted, as upstream's), so equal content has equal
//! blob references everywhere.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use content::BlobRef;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

const VERSION: i64 = 1;

/// A tree object.
#[derive(Clone, Debug, PartialEq)]
pub enum TreeObj {
    /// A value: the base64 text of its bytes.
    Val(Arc<str>),
    /// A value whose content is the concatenation of blobs; at least one.
    ValRef(Arc<Vec<BlobRef>>),
    /// A directory held in place.
    Dir(Arc<Dir>),
    /// A directory stored as a blob. RFC 11 allows several; nothing has ever written more than
    /// one, and more than one is refused on reading.
    DirRef(BlobRef),
    /// A symbolic link, possibly into another namespace.
    Symlink(Arc<Symlink>),
}

/// Target of a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    pub namespace: Option<String>,
    pub target: String,
}

/// Entries of a directory, sorted by name (bytewise).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dir {
    entries: Vec<(Arc<str>, TreeObj)>,
}

/// Why a blob is not a directory.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a tree object: {0}")]
    Json(#[from] serde_json::Error),
    #[error("tree object is a {0}, not a directory")]
    NotDir(&'static str),
}

impl TreeObj {
    /// A value object holding these bytes.
    pub fn val(data: &[u8]) -> TreeObj {
        TreeObj::Val(BASE64.encode(data).into())
    }

    /// An empty directory.
    pub fn empty_dir() -> TreeObj {
        TreeObj::Dir(Arc::new(Dir::default()))
    }

    /// The object's type as it is spelled in its encoding.
    pub fn type_name(&self) -> &'static str {
        match self {
            TreeObj::Val(_) => "val",
            TreeObj::ValRef(_) => "valref",
            TreeObj::Dir(_) => "dir",
            TreeObj::DirRef(_) => "dirref",
            TreeObj::Symlink(_) => "symlink",
        }
    }

    /// Number of entries, references, or one.
    pub fn count(&self) -> usize {
        match self {
            TreeObj::Val(_) | TreeObj::Symlink(_) | TreeObj::DirRef(_) => 1,
            TreeObj::ValRef(refs) => refs.len(),
            TreeObj::Dir(dir) => dir.len(),
        }
    }

    /// The bytes of a value object; `None` for other types or if the text is not base64.
    pub fn data(&self) -> Option<Vec<u8>> {
        match self {
            TreeObj::Val(text) => BASE64.decode(text.as_bytes()).ok(),
            _ => None,
        }
    }

    /// Canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            TreeObj::Dir(dir) => return dir.encode_into(out),
            TreeObj::Val(text) => {
                out.extend_from_slice(b"{\"data\":");
                encode_str(text, out);
            }
            TreeObj::ValRef(refs) => {
                out.extend_from_slice(b"{\"data\":[");
                for (i, r) in refs.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    encode_ref(r, out);
                }
                out.push(b']');
            }
            TreeObj::DirRef(r) => {
                out.extend_from_slice(b"{\"data\":[");
                encode_ref(r, out);
                out.push(b']');
            }
            TreeObj::Symlink(link) => {
                out.extend_from_slice(b"{\"data\":{");
                if let Some(ns) = &link.namespace {
                    out.extend_from_slice(b"\"namespace\":");
                    encode_str(ns, out);
                    out.push(b',');
                }
                out.extend_from_slice(b"\"target\":");
                encode_str(&link.target, out);
                out.push(b'}');
            }
        }
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(self.type_name().as_bytes());
        out.extend_from_slice(b"\",\"ver\":1}");
    }
}

impl Dir {
    /// Reads a stored directory.
    pub fn decode(blob: &[u8]) -> Result<Dir, DecodeError> {
        match serde_json::from_slice(blob)? {
            TreeObj::Dir(dir) => Ok(Arc::unwrap_or_clone(dir)),
            other => Err(DecodeError::NotDir(other.type_name())),
        }
    }

    /// Takes entries that are sorted by name, without duplicates.
    pub fn from_sorted(entries: Vec<(Arc<str>, TreeObj)>) -> Dir {
        debug_assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        Dir { entries }
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&TreeObj> {
        let i = self
            .entries
            .binary_search_by(|(n, _)| (**n).cmp(name))
            .ok()?;
        Some(&self.entries[i].1)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &TreeObj)> {
        self.entries.iter().map(|(name, obj)| (name, obj))
    }

    /// Canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 128 * self.entries.len());
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"data\":{");
        for (i, (name, obj)) in self.entries.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            encode_str(name, out);
            out.push(b':');
            obj.encode_into(out);
        }
        out.extend_from_slice(b"},\"type\":\"dir\",\"ver\":1}");
    }

    /// Estimate of the memory this directory takes, for cache accounting.
    #[cfg(feature = "module")]
    pub(crate) fn weight(&self) -> usize {
        let of = |obj: &TreeObj| match obj {
            TreeObj::Val(text) => text.len(),
            TreeObj::ValRef(refs) => 33 * refs.len(),
            TreeObj::Dir(dir) => dir.weight(),
            TreeObj::DirRef(_) => 0,
            TreeObj::Symlink(link) => link.target.len() + 48,
        };
        64 + self
            .entries
            .iter()
            .map(|(n, o)| 80 + n.len() + of(o))
            .sum::<usize>()
    }
}

fn encode_ref(r: &BlobRef, out: &mut Vec<u8>) {
    use std::io::Write;
    // Writing to a vector does not fail.
    let _ = write!(out, "\"{r}\"");
}

/// JSON string in the form upstream writes: only what must be escaped is, hex digits upper case.
fn encode_str(s: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut start = 0;
    for (i, &b) in bytes.iter().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..i]);
        start = i + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(format!("\\u{b:04X}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

impl Serialize for TreeObj {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(Some(3))?;
        match self {
            TreeObj::Val(text) => m.serialize_entry("data", &**text)?,
            TreeObj::ValRef(refs) => m.serialize_entry("data", &**refs)?,
            TreeObj::DirRef(r) => m.serialize_entry("data", &[r])?,
            TreeObj::Dir(dir) => m.serialize_entry("data", &DirData(dir))?,
            TreeObj::Symlink(link) => m.serialize_entry("data", &SymlinkData(link))?,
        }
        m.serialize_entry("type", self.type_name())?;
        m.serialize_entry("ver", &VERSION)?;
        m.end()
    }
}

struct DirData<'a>(&'a Dir);

impl Serialize for DirData<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.entries.iter().map(|(name, obj)| (&**name, obj)))
    }
}

struct SymlinkData<'a>(&'a Symlink);

impl Serialize for SymlinkData<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        if let Some(ns) = &self.0.namespace {
            m.serialize_entry("namespace", ns)?;
        }
        m.serialize_entry("target", &self.0.target)?;
        m.end()
    }
}

/// The `data` member before the type is known: keys are sorted, so data comes first.
enum RawData {
    Text(String),
    Refs(Vec<BlobRef>),
    Map(Vec<(Arc<str>, RawEntry)>),
}

enum RawEntry {
    Text(String),
    Obj(TreeObj),
}

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RawEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tree object or a link target")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<RawEntry, E> {
                Ok(RawEntry::Text(s.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawEntry, A::Error> {
                TreeObjVisitor.visit_map(map).map(RawEntry::Obj)
            }
        }
        d.deserialize_any(V)
    }
}

impl<'de> Deserialize<'de> for RawData {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RawData;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of blobrefs, or an object")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<RawData, E> {
                Ok(RawData::Text(s.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawData, A::Error> {
                let mut refs = Vec::with_capacity(seq.size_hint().unwrap_or(0));
                while let Some(r) = seq.next_element()? {
                    refs.push(r);
                }
                Ok(RawData::Refs(refs))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawData, A::Error> {
                let mut entries: Vec<(Arc<str>, RawEntry)> = Vec::new();
                while let Some((name, entry)) = map.next_entry::<String, RawEntry>()? {
                    entries.push((name.into(), entry));
                }
                Ok(RawData::Map(entries))
            }
        }
        d.deserialize_any(V)
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Ver,
    Type,
    Data,
}

struct TreeObjVisitor;

impl TreeObjVisitor {
    fn build<E: de::Error>(kind: &str, data: RawData) -> Result<TreeObj, E> {
        match (kind, data) {
            ("val", RawData::Text(text)) => Ok(TreeObj::Val(text.into())),
            ("valref", RawData::Refs(refs)) if !refs.is_empty() => {
                Ok(TreeObj::ValRef(Arc::new(refs)))
            }
            ("dirref", RawData::Refs(refs)) => match refs[..] {
                [r] => Ok(TreeObj::DirRef(r)),
                _ => Err(E::custom(format!(
                    "dirref has {} blobrefs, not one",
                    refs.len()
                ))),
            },
            ("dir", RawData::Map(raw)) => {
                let mut entries = Vec::with_capacity(raw.len());
                for (name, entry) in raw {
                    match entry {
                        RawEntry::Obj(obj) => entries.push((name, obj)),
                        RawEntry::Text(_) => {
                            return Err(E::custom(format!(
                                "directory entry `{name}` is not a tree object"
                            )));
                        }
                    }
                }
                // Stored directories come sorted; what clients send may not be. Of two entries
                // of one name the last counts, as in any JSON object.
                if !entries.is_sorted_by(|a, b| a.0 < b.0) {
                    entries.reverse();
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                    entries.dedup_by(|b, a| a.0 == b.0);
                }
                Ok(TreeObj::Dir(Arc::new(Dir { entries })))
            }
            ("symlink", RawData::Map(raw)) => {
                let (mut target, mut namespace) = (None, None);
                for (name, entry) in raw {
                    let RawEntry::Text(text) = entry else {
                        continue;
                    };
                    match &*name {
                        "target" => target = Some(text),
                        "namespace" => namespace = Some(text),
                        _ => {}
                    }
                }
                let target = target.ok_or_else(|| E::custom("symlink has no target"))?;
                Ok(TreeObj::Symlink(Arc::new(Symlink { namespace, target })))
            }
            ("val" | "valref" | "dirref" | "dir" | "symlink", _) => {
                Err(E::custom(format!("data of a {kind} has the wrong type")))
            }
            _ => Err(E::custom(format!("unknown tree object type `{kind}`"))),
        }
    }
}

impl<'de> Visitor<'de> for TreeObjVisitor {
    type Value = TreeObj;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tree object {ver, type, data}")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TreeObj, A::Error> {
        let (mut ver, mut kind, mut data) = (None::<i64>, None::<String>, None::<RawData>);
        while let Some(name) = map.next_key::<Field>()? {
            match name {
                Field::Ver => ver = Some(map.next_value()?),
                Field::Type => kind = Some(map.next_value()?),
                Field::Data => data = Some(map.next_value()?),
            }
        }
        match (ver, kind, data) {
            (Some(VERSION), Some(kind), Some(data)) => Self::build(&kind, data),
            (Some(ver), Some(_), Some(_)) => Err(de::Error::custom(format!(
                "tree object version {ver} is not supported"
            ))),
            _ => Err(de::Error::custom(
                "tree object lacks one of ver, type, data",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for TreeObj {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(TreeObjVisitor)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use content::HashAlg;
    use proptest::prelude::*;

    fn parse(text: &str) -> TreeObj {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn examples_of_rfc_11() {
        for text in [
            r#"{"data":["sha1-aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"],"type":"valref","ver":1}"#,
            r#"{"data":"NDIyMgA=","type":"val","ver":1}"#,
            r#"{"data":["sha1-aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"],"type":"dirref","ver":1}"#,
            r#"{"data":{"a":{"data":"","type":"val","ver":1},"b":{"data":{},"type":"dir","ver":1}},"type":"dir","ver":1}"#,
            r#"{"data":{"target":"a.b"},"type":"symlink","ver":1}"#,
            r#"{"data":{"namespace":"x","target":"a.b"},"type":"symlink","ver":1}"#,
        ] {
            let obj = parse(text);
            assert_eq!(String::from_utf8(obj.encode()).unwrap(), text);
            assert_eq!(serde_json::to_string(&obj).unwrap(), text);
        }
        // The empty directory's reference, as upstream reports it for an empty namespace.
        assert_eq!(
            HashAlg::Sha1
                .hash(&TreeObj::empty_dir().encode())
                .to_string(),
            "sha1-c0a9faf907dda6216fd73bf81d0b3b21a1a8cb91"
        );
    }

    #[test]
    fn a_directory_may_have_entries_named_like_members() {
        let obj = parse(
            r#"{"ver":1,"type":"dir","data":{"target":{"ver":1,"type":"val","data":"eA=="}}}"#,
        );
        let TreeObj::Dir(dir) = obj else {
            panic!("not a dir")
        };
        assert_eq!(dir.get("target").unwrap().data().unwrap(), b"x");
        assert!(dir.get("none").is_none());
    }

    #[test]
    fn bad_objects_are_refused() {
        for (text, why) in [
            (r#"{"ver":2,"type":"val","data":""}"#, "version 2"),
            (r#"{"ver":1,"type":"val"}"#, "lacks one of"),
            (r#"{"ver":1,"type":"val","data":[]}"#, "wrong type"),
            (r#"{"ver":1,"type":"valref","data":[]}"#, "wrong type"),
            (r#"{"ver":1,"type":"dirref","data":[]}"#, "0 blobrefs"),
            (
                r#"{"ver":1,"type":"hdir","data":""}"#,
                "unknown tree object type",
            ),
            (
                r#"{"ver":1,"type":"dir","data":{"a":"b"}}"#,
                "`a` is not a tree object",
            ),
            (r#"{"ver":1,"type":"symlink","data":{}}"#, "no target"),
            (r#"{"ver":1,"type":"val","data":"","x":1}"#, "unknown field"),
            (r#"[]"#, "tree object"),
        ] {
            let e = serde_json::from_str::<TreeObj>(text)
                .unwrap_err()
                .to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
    }

    pub(crate) fn any_treeobj() -> impl Strategy<Value = TreeObj> {
        let blobref = any::<u64>().prop_map(|n| HashAlg::Sha1.hash(&n.to_le_bytes()));
        let leaf = prop_oneof![
            any::<Vec<u8>>().prop_map(|d| TreeObj::val(&d)),
            prop::collection::vec(blobref.clone(), 1..4).prop_map(|r| TreeObj::ValRef(r.into())),
            blobref.prop_map(TreeObj::DirRef),
            (any::<Option<String>>(), any::<String>()).prop_map(|(namespace, target)| {
                TreeObj::Symlink(Arc::new(Symlink { namespace, target }))
            }),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|m| {
                let entries = m.into_iter().map(|(k, v)| (Arc::from(k), v)).collect();
                TreeObj::Dir(Arc::new(Dir::from_sorted(entries)))
            })
        })
    }

    proptest! {
        #[test]
        fn round_trip(obj in any_treeobj()) {
            let bytes = obj.encode();
            prop_assert_eq!(&serde_json::from_slice::<TreeObj>(&bytes).unwrap(), &obj);
            let text = serde_json::to_string(&obj).unwrap();
            prop_assert_eq!(serde_json::from_str::<TreeObj>(&text).unwrap(), obj);
        }
    }
}
