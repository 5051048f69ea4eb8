//! File archives, RFC 37: file system objects in JSON, in a dictionary by path or in a list.
//!
//! [`Archive::from_value`] checks every object, so that whoever unpacks one need not: paths stay
//! below the directory they are unpacked in, data fits its encoding, regions do not overlap.

use crate::iodata::{base64_decode, base64_encode};
use serde_json::{Map, Value, json};

const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// File system objects, and whether they make a dictionary or a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Archive {
    /// In the order they are unpacked.
    pub entries: Vec<Entry>,
    /// Whether paths are keys or members.
    pub container: Container,
}

/// How an archive holds its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Each path once.
    Dictionary,
    /// In order; a later entry of a path replaces an earlier one.
    List,
}

/// A file system object.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Relative, without `.` and `..`.
    pub path: String,
    /// Permission bits, `0o7777` at most.
    pub permissions: u32,
    /// Seconds since the Unix epoch.
    pub mtime: Option<i64>,
    /// Seconds since the Unix epoch.
    pub ctime: Option<i64>,
    /// What it is.
    pub object: Object,
}

/// What an entry is, and its content.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Always empty in an archive.
    Directory,
    /// With its target.
    Symlink(String),
    /// An empty file, or a sparse one without data, of that many bytes.
    Empty(u64),
    /// A file with a JSON value.
    Json(Value),
    /// A file with UTF-8 content.
    Text(String),
    /// A file with any content.
    Binary(Vec<u8>),
    /// A file of `size` bytes whose regions are in the content store; what is between is zero.
    Blobs {
        /// Of the whole file, in bytes.
        size: u64,
        /// Ascending, without overlap.
        regions: Vec<Region>,
    },
}

/// A part of a file and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The first byte in the file.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
    /// As RFC 10 writes it, `sha1-…`.
    pub blobref: String,
}

/// What is wrong with an archive, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("archive{place}: {message}")]
pub struct ArchiveError {
    /// Such as `["a"].data[1]`.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

/// Whether a path stays below the directory it is taken from.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// One object being read.
struct Reader<'a> {
    place: &'a str,
    map: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn error(&self, key: &str, message: impl Into<String>) -> ArchiveError {
        let dot = if key.is_empty() { "" } else { "." };
        ArchiveError {
            place: format!("{}{dot}{key}", self.place),
            message: message.into(),
        }
    }

    fn number(&self, key: &str) -> Result<Option<i64>, ArchiveError> {
        match self.map.get(key) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(n) => Ok(Some(n)),
                None => Err(self.error(key, "must be an integer")),
            },
        }
    }

    fn size(&self) -> Result<Option<u64>, ArchiveError> {
        let size = self.number("size")?.map(u64::try_from);
        let size = size.transpose();
        size.map_err(|_| self.error("size", "must not be negative"))
    }

    fn without(&self, keys: &[&str], what: &str) -> Result<(), ArchiveError> {
        match keys.iter().find(|key| self.map.contains_key(**key)) {
            Some(key) => Err(self.error(key, format!("a {what} has none"))),
            None => Ok(()),
        }
    }

    fn string(&self, key: &str) -> Result<&str, ArchiveError> {
        match self.map.get(key) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(self.error(key, "must be a string")),
            None => Err(self.error("", format!("key '{key}' is missing"))),
        }
    }

    /// Data whose length must be the size, if that is there.
    fn sized(&self, len: usize) -> Result<(), ArchiveError> {
        match self.size()? {
            Some(size) if size != len as u64 => {
                Err(self.error("size", format!("is {size}, but the data has {len} bytes")))
            }
            _ => Ok(()),
        }
    }

    fn regular(&self) -> Result<Object, ArchiveError> {
        let encoding = match self.map.get("encoding") {
            None => None,
            Some(_) => Some(self.string("encoding")?),
        };
        match (encoding, self.map.get("data")) {
            (None, None) => Ok(Object::Empty(self.size()?.unwrap_or(0))),
            (None, Some(json)) => {
                self.without(&["size"], "file with JSON content")?;
                Ok(Object::Json(json.clone()))
            }
            (Some("utf-8"), _) => {
                let text = self.string("data")?;
                self.sized(text.len())?;
                Ok(Object::Text(text.to_owned()))
            }
            (Some("base64"), _) => {
                let bytes = base64_decode(self.string("data")?)
                    .ok_or_else(|| self.error("data", "is not valid base64"))?;
                self.sized(bytes.len())?;
                Ok(Object::Binary(bytes))
            }
            (Some("blobvec"), data) => {
                let size = self.size()?;
                let size = size.ok_or_else(|| self.error("", "key 'size' is missing"))?;
                Ok(Object::Blobs {
                    size,
                    regions: self.regions(size, data)?,
                })
            }
            (Some(other), _) => {
                let message = format!("'{other}' is unknown; use utf-8, base64 or blobvec");
                Err(self.error("encoding", message))
            }
        }
    }

    fn regions(&self, size: u64, data: Option<&Value>) -> Result<Vec<Region>, ArchiveError> {
        let list = data.and_then(Value::as_array);
        let list = list.ok_or_else(|| self.error("data", "must be a list of regions"))?;
        let mut end = 0;
        let mut regions = Vec::with_capacity(list.len());
        for (i, region) in list.iter().enumerate() {
            let key = format!("data[{i}]");
            let parts = region.as_array().map(Vec::as_slice);
            let Some([offset, length, Value::String(blobref)]) = parts else {
                return Err(self.error(&key, "must be [offset, size, blobref]"));
            };
            let (Some(offset), Some(length)) = (offset.as_u64(), length.as_u64()) else {
                return Err(self.error(&key, "offset and size must not be negative"));
            };
            if offset < end {
                return Err(self.error(&key, "overlaps the region before it"));
            }
            end = offset.saturating_add(length);
            if end > size {
                return Err(self.error(&key, format!("ends behind the file, at {end}")));
            }
            regions.push(Region {
                offset,
                size: length,
                blobref: blobref.clone(),
            });
        }
        Ok(regions)
    }

    fn entry(&self, path: &str) -> Result<Entry, ArchiveError> {
        if !is_plain(path) {
            let message = format!("{path:?} is not a relative path without . and ..");
            return Err(self.error("", message));
        }
        let mode = self.number("mode")?;
        let mode = mode.ok_or_else(|| self.error("", "key 'mode' is missing"))?;
        let mode = u32::try_from(mode).map_err(|_| self.error("mode", "is out of range"))?;
        let object = match mode & TYPE_MASK {
            DIRECTORY => {
                self.without(&["size", "encoding", "data"], "directory")?;
                Object::Directory
            }
            SYMLINK => {
                self.without(&["size", "encoding"], "symbolic link")?;
                Object::Symlink(self.string("data")?.to_owned())
            }
            REGULAR => self.regular()?,
            _ => {
                let message = "is none of a regular file, a directory and a symbolic link";
                return Err(self.error("mode", message));
            }
        };
        Ok(Entry {
            path: path.to_owned(),
            permissions: mode & 0o7777,
            mtime: self.number("mtime")?,
            ctime: self.number("ctime")?,
            object,
        })
    }
}

impl Entry {
    /// An object without times.
    pub fn new(path: impl Into<String>, permissions: u32, object: Object) -> Entry {
        Entry {
            path: path.into(),
            permissions,
            mtime: None,
            ctime: None,
            object,
        }
    }

    /// The object in JSON, without its path: what a dictionary holds.
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let kind = match self.object {
            Object::Directory => DIRECTORY,
            Object::Symlink(_) => SYMLINK,
            _ => REGULAR,
        };
        map.insert("mode".into(), json!(kind | self.permissions));
        if let Some(mtime) = self.mtime {
            map.insert("mtime".into(), json!(mtime));
        }
        if let Some(ctime) = self.ctime {
            map.insert("ctime".into(), json!(ctime));
        }
        let mut put = |data: Value, encoding: Option<&str>, size: Option<u64>| {
            map.insert("data".into(), data);
            if let Some(encoding) = encoding {
                map.insert("encoding".into(), json!(encoding));
            }
            if let Some(size) = size {
                map.insert("size".into(), json!(size));
            }
        };
        match &self.object {
            Object::Directory => {}
            Object::Symlink(target) => put(json!(target), None, None),
            Object::Empty(size) => drop(map.insert("size".into(), json!(size))),
            Object::Json(value) => put(value.clone(), None, None),
            Object::Text(text) => put(json!(text), Some("utf-8"), Some(text.len() as u64)),
            Object::Binary(bytes) => put(
                json!(base64_encode(bytes)),
                Some("base64"),
                Some(bytes.len() as u64),
            ),
            Object::Blobs { size, regions } => put(
                regions
                    .iter()
                    .map(|r| json!([r.offset, r.size, r.blobref]))
                    .collect(),
                Some("blobvec"),
                Some(*size),
            ),
        }
        map
    }
}

impl Archive {
    /// Checks an archive and takes it apart.
    pub fn from_value(value: &Value) -> Result<Archive, ArchiveError> {
        let object = |place: &str, value: &Value, path: Option<&str>| {
            let fault = |message: &str| ArchiveError {
                place: place.to_owned(),
                message: message.to_owned(),
            };
            let map = value
                .as_object()
                .ok_or_else(|| fault("must be a mapping"))?;
            let reader = Reader { place, map };
            match path {
                Some(path) => reader.entry(path),
                None => reader.entry(reader.string("path")?),
            }
        };
        let (entries, container): (Result<_, _>, _) = match value {
            Value::Object(map) => (
                map.iter()
                    .map(|(path, entry)| object(&format!("[{path:?}]"), entry, Some(path)))
                    .collect(),
                Container::Dictionary,
            ),
            Value::Array(list) => (
                list.iter()
                    .enumerate()
                    .map(|(i, entry)| object(&format!("[{i}]"), entry, None))
                    .collect(),
                Container::List,
            ),
            _ => {
                return Err(ArchiveError {
                    place: String::new(),
                    message: "must be a mapping or a list".into(),
                });
            }
        };
        Ok(Archive {
            entries: entries?,
            container,
        })
    }

    /// The archive in JSON.
    pub fn to_value(&self) -> Value {
        match self.container {
            Container::Dictionary => self
                .entries
                .iter()
                .map(|entry| (entry.path.clone(), Value::from(entry.to_map())))
                .collect::<Map<_, _>>()
                .into(),
            Container::List => self
                .entries
                .iter()
                .map(|entry| {
                    let mut map = entry.to_map();
                    map.insert("path".into(), json!(entry.path));
                    Value::from(map)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_of_the_rfc() {
        let list = json!([
            {"path": "appdata/phase1", "mode": 16893, "mtime": 1677604007, "ctime": 1677604007},
            {"path": "src", "mode": 41471, "data": "../projects/one"},
            {"path": "data/empty", "mode": 33204, "size": 0, "mtime": 1677604909, "ctime": 1677604909},
            {"path": "config.json", "mode": 33204, "data": {"resource": {"exclude": "node42"}}},
            {"path": "data.csv", "mode": 33204, "encoding": "utf-8", "size": 28,
                "data": "iteration,density\n1,35435.55"},
            {"path": "vectors.dat", "mode": 33204, "encoding": "base64", "size": 37,
                "data": "MzU0MzUuNTU1CjIsMzU2NjU1LjMzMgozLDU0NTQ1NDUuNTAwCg=="},
            {"path": "kernel8.img", "mode": 33261, "encoding": "blobvec", "size": 3000,
                "data": [[0, 1024, "sha1-d4a0"], [2048, 952, "sha1-3eb8"]]},
        ]);
        let archive = Archive::from_value(&list).unwrap();
        assert_eq!(archive.container, Container::List);
        assert_eq!(archive.entries[0].object, Object::Directory);
        assert_eq!(archive.entries[6].permissions, 0o755);
        assert_eq!(archive.to_value(), list);
    }

    #[test]
    fn faults_name_their_place() {
        for (entry, want) in [
            (json!({}), r#"archive["a"]: key 'mode' is missing"#),
            (
                json!({"mode": "x"}),
                r#"archive["a"].mode: must be an integer"#,
            ),
            (
                json!({"mode": 4480}),
                r#"archive["a"].mode: is none of a regular file, a directory and a symbolic link"#,
            ),
            (
                json!({"mode": 16893, "size": 1}),
                r#"archive["a"].size: a directory has none"#,
            ),
            (
                json!({"mode": 41471}),
                r#"archive["a"]: key 'data' is missing"#,
            ),
            (
                json!({"mode": 33204, "encoding": "gzip", "data": ""}),
                r#"archive["a"].encoding: 'gzip' is unknown; use utf-8, base64 or blobvec"#,
            ),
            (
                json!({"mode": 33204, "encoding": "base64", "data": "x"}),
                r#"archive["a"].data: is not valid base64"#,
            ),
            (
                json!({"mode": 33204, "encoding": "utf-8", "data": "abc", "size": 2}),
                r#"archive["a"].size: is 2, but the data has 3 bytes"#,
            ),
            (
                json!({"mode": 33204, "encoding": "blobvec", "size": 4, "data": [[0, 2, "s"], [1, 2, "s"]]}),
                r#"archive["a"].data[1]: overlaps the region before it"#,
            ),
            (
                json!({"mode": 33204, "encoding": "blobvec", "size": 4, "data": [[0, 5, "s"]]}),
                r#"archive["a"].data[0]: ends behind the file, at 5"#,
            ),
        ] {
            let fault = Archive::from_value(&json!({ "a": entry })).unwrap_err();
            assert_eq!(fault.to_string(), want);
        }
        for path in ["", "/a", "../a", "a/../b", "./a", "a//b", "a/", "a\0"] {
            assert!(
                Archive::from_value(&json!({ path: {"mode": 33204} })).is_err(),
                "{path:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn round_trips(text: String, bytes: Vec<u8>, sparse: u64, list: bool, mode in 0u32..0o10000) {
            let objects = [
                Object::Text(text),
                Object::Binary(bytes),
                Object::Empty(sparse >> 1),
                Object::Json(json!([1, {"a": null}])),
            ];
            let entries = objects.into_iter().enumerate();
            let entries = entries.map(|(i, o)| Entry::new(format!("d/{i}"), mode, o)).collect();
            let container = if list { Container::List } else { Container::Dictionary };
            let archive = Archive { entries, container };
            prop_assert_eq!(Archive::from_value(&archive.to_value()).unwrap(), archive);
        }
    }
}
