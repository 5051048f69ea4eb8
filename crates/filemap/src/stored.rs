//! Archives in the KVS: a list of file system objects at `archive.NAME`. Under `archive.NAME_blobs` are references to the
//! blobs of large files, where the archive is to outlive garbage collection.

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use client::{Handle, Message, Node, RpcError};
use content::BlobRef;
use formats::archive::{Archive, Entry, Object, Region};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kvs::calls::{Found, Lookup};
use kvs::flags;
use serde_json::Value;
use wire::Glob;

use crate::{Error, Target, below};

/// Bytes of blobs that are loaded at once; a larger blob is loaded alone.
const WINDOW: u64 = 32 << 20;

/// The key of an archive.
pub fn key(name: &str) -> String {
    format!("archive.{name}")
}

/// The key of the references that keep an archive's blobs.
pub fn blobs_key(name: &str) -> String {
    format!("archive.{name}_blobs")
}

/// The objects of an archive as they are stored; `None` if there is no such archive, unless `wait` has it wait for one.
pub async fn objects(
    handle: &Handle,
    namespace: Option<&str>,
    name: &str,
    wait: bool,
) -> Result<Option<Vec<Value>>, Error> {
    let key = &key(name);
    let fault = |reason: String| Error::Stored {
        key: key.clone(),
        reason,
    };
    let found = match wait {
        false => kvs::client::lookup(handle, namespace, key, 0).await,
        true => appear(handle, namespace, key).await,
    };
    let found = match found {
        Ok(found) => found,
        Err(e) if e.errno == libc::ENOENT => return Ok(None),
        Err(e) => return Err(Error::rpc(key.as_str())(e)),
    };
    let data = found.data().ok_or_else(|| fault("it is no value".into()))?;
    match serde_json::from_slice(&data) {
        Ok(Value::Array(list)) => Ok(Some(list)),
        Ok(_) => Err(fault("it is no list of files".into())),
        Err(e) => Err(fault(format!("it is no list of files: {e}"))),
    }
}

/// What is at a key, once it is there.
async fn appear(
    handle: &Handle,
    namespace: Option<&str>,
    key: &str,
) -> Result<kvs::TreeObj, RpcError> {
    let namespace = &kvs::client::namespace_or_default(namespace);
    let request = Lookup {
        namespace,
        key,
        flags: flags::WAITCREATE,
    };
    let found: Found = handle.call("kvs-watch.lookup", Node::Any, &request).await?;
    Ok(found.val)
}

/// Whether an object's path matches, as its writer wrote it or without parts that go nowhere.
fn matches(pattern: &Glob, object: &Value) -> bool {
    let path = object.get("path").and_then(Value::as_str);
    let tidy = path.and_then(|path| below(path).ok());
    path.is_some_and(|path| pattern.matches(path)) || tidy.is_some_and(|p| pattern.matches(&p))
}

/// Keeps the objects whose paths match.
pub fn select(objects: &mut Vec<Value>, pattern: &str) {
    let pattern = Glob::new(pattern);
    objects.retain(|object| matches(&pattern, object));
}

/// Checks the objects of an archive. Others write paths such as `./a`, which are taken as `a`.
pub fn entries(mut objects: Vec<Value>) -> Result<Vec<Entry>, Error> {
    for object in &mut objects {
        if let Some(Value::String(path)) = object.get_mut("path") {
            *path = below(path)?;
        }
    }
    // The directory things are unpacked in is there.
    objects.retain(|object| object.get("path").and_then(Value::as_str) != Some(""));
    Ok(Archive::from_value(&Value::Array(objects))?.entries)
}

/// Unpacks entries, loading what is in the content store.
pub async fn extract(
    handle: &Handle,
    entries: &[Entry],
    mut target: Target,
    mut began: impl AsyncFnMut(&Entry),
) -> Result<(), Error> {
    for entry in entries {
        began(entry).await;
        let file = target.unpack(entry)?;
        if let (Some(file), Object::Blobs { regions, .. }) = (file, &entry.object) {
            let filled = fill(handle, &entry.path, &file, regions).await;
            if filled.is_err() {
                target.discard(entry);
            }
            filled?;
        }
    }
    target.finish()
}

async fn fill(
    handle: &Handle,
    path: &str,
    file: &std::fs::File,
    regions: &[Region],
) -> Result<(), Error> {
    let mut loads = FuturesUnordered::new();
    let (mut rest, mut bytes) = (regions.iter().peekable(), 0);
    loop {
        while let Some(region) = rest.next_if(|region| bytes == 0 || bytes + region.size <= WINDOW)
        {
            bytes += region.size;
            loads.push(async move { (region, load(handle, path, region).await) });
        }
        let Some((region, loaded)) = loads.next().await else {
            return Ok(());
        };
        bytes -= region.size;
        let written = file.write_all_at(&loaded?, region.offset);
        written.map_err(Error::io(path))?;
    }
}

/// The bytes of a region, checked against their digest.
async fn load(handle: &Handle, path: &str, region: &Region) -> Result<Bytes, Error> {
    let Region {
        offset,
        size,
        blobref,
    } = region;
    let what = || format!("{path}: loading {size} bytes at {offset} from {blobref}");
    let fault = |reason: &str| Error::Blob {
        what: what(),
        reason: reason.to_owned(),
    };
    let named: BlobRef = blobref.parse().map_err(|e| fault(&format!("{e}")))?;
    let raw = Bytes::copy_from_slice(named.raw());
    let answer = handle.rpc_raw("content.load", Node::Any, Some(raw)).await;
    let answer: Message = answer.map_err(|e| Error::rpc(what())(e))?;
    let data = answer.payload().cloned().unwrap_or_default();
    if data.len() as u64 != *size {
        return Err(fault(&format!("{} bytes came", data.len())));
    }
    match named.alg().hash(&data) == named {
        true => Ok(data),
        false => Err(fault("the content does not match its digest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_other_writers_are_taken() {
        let list = || {
            vec![
                json!({"path": "./a", "mode": 33188, "size": 0}),
                json!({"path": "b/c", "mode": 33188, "size": 0}),
                json!({"path": ".", "mode": 16877}),
            ]
        };
        let paths = |list| {
            let entries = entries(list).unwrap();
            entries.into_iter().map(|e| e.path).collect::<Vec<_>>()
        };
        assert_eq!(paths(list()), ["a", "b/c"]);
        for (pattern, want) in [
            ("a", &["a"][..]),
            ("./a", &["a"]),
            ("b*", &["b/c"]),
            ("x", &[]),
        ] {
            let mut some = list();
            select(&mut some, pattern);
            assert_eq!(paths(some), want, "{pattern}");
        }
        let out = vec![json!({"path": "../a", "mode": 33188, "size": 0})];
        assert!(matches!(entries(out), Err(Error::Path(_))));
    }
}
