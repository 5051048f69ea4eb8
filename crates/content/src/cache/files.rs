//! Rank 0: blobs that are parts of files, not copied but read where they are (`content.mmap-add`).
//!
//! Whatever happens to a file, a load brings the bytes its digest names or fails: files are read, never mapped into
//! memory, and what was read is checked each time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use client::{Message, RpcError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Done, Module};
use crate::extents::{Extent, extents};
use crate::{BlobRef, HashAlg};

/// A file, and its parts by what they hold.
pub(super) struct Mapped {
    path: Arc<str>,
    parts: Vec<(BlobRef, Extent)>,
}

/// Where a blob is.
#[derive(Clone)]
pub(super) struct Place {
    path: Arc<str>,
    extent: Extent,
}

/// The files, by the tag they are removed with.
#[derive(Default)]
pub(super) struct Files {
    tags: BTreeMap<String, Vec<Mapped>>,
    places: HashMap<BlobRef, Place>,
}

fn system_error(path: &str, e: &io::Error) -> RpcError {
    let errno = e.raw_os_error().unwrap_or(libc::EIO);
    RpcError::new(errno, format!("{path}: {}", RpcError::errno(errno)))
}

fn changed(path: &str) -> RpcError {
    let text = format!("{path}: the content of the file has changed since it was mapped");
    RpcError::new(libc::EINVAL, text)
}

fn read(path: &str, file: &File, extent: Extent) -> Result<Vec<u8>, RpcError> {
    let mut data = vec![0; extent.size as usize];
    let read = file.read_exact_at(&mut data, extent.offset);
    match read.map_err(|e| (e.kind(), e)) {
        Ok(()) => Ok(data),
        Err((io::ErrorKind::UnexpectedEof, _)) => Err(changed(path)),
        Err((_, e)) => Err(system_error(path, &e)),
    }
}

/// Reading a file may take as long as its file system likes.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(RpcError::explained(libc::EIO, e)))
}

impl Place {
    /// The blob, if the file still has it.
    pub(super) async fn read(self, blobref: BlobRef) -> Result<Bytes, RpcError> {
        aside(move || {
            let Place { path, extent } = self;
            let file = File::open(&*path).map_err(|e| system_error(&path, &e))?;
            let data = read(&path, &file, extent)?;
            match blobref.alg().hash(&data) == blobref {
                true => Ok(data.into()),
                false => Err(changed(&path)),
            }
        })
        .await
    }
}

impl Mapped {
    fn new(path: &str, alg: HashAlg, chunk: u64, limit: usize) -> Result<Mapped, RpcError> {
        let fault = |e| system_error(path, &e);
        let meta = std::fs::metadata(path).map_err(fault)?;
        if !meta.is_file() || meta.len() == 0 {
            let text = format!("{path}: it is no regular file with content, and cannot be mapped");
            return Err(RpcError::new(libc::EINVAL, text));
        }
        let file = File::open(path).map_err(fault)?;
        let name = |extent: Extent| {
            if extent.size > limit as u64 {
                let text = format!("{path}: a chunk exceeds the limit of {limit} bytes");
                return Err(RpcError::new(libc::EFBIG, text));
            }
            Ok((alg.hash(&read(path, &file, extent)?), extent))
        };
        let parts = extents(&file, meta.len(), chunk).map_err(fault)?;
        Ok(Mapped {
            path: path.into(),
            parts: parts.into_iter().map(name).collect::<Result<_, _>>()?,
        })
    }

    fn places(&self) -> impl Iterator<Item = (BlobRef, Place)> {
        self.parts.iter().map(|(blobref, extent)| {
            let (path, extent) = (self.path.clone(), *extent);
            (*blobref, Place { path, extent })
        })
    }
}

impl Files {
    pub(super) fn find(&self, blobref: &BlobRef) -> Option<Place> {
        self.places.get(blobref).cloned()
    }

    fn add(&mut self, tag: String, mapped: Mapped) {
        self.places.extend(mapped.places());
        self.tags.entry(tag).or_default().push(mapped);
    }

    fn remove(&mut self, tag: &str) {
        if self.tags.remove(tag).is_some() {
            // Files of other tags may have had the same blobs.
            let rest = self.tags.values().flatten();
            self.places = rest.flat_map(Mapped::places).collect();
        }
    }

    pub(super) fn stats(&self) -> Value {
        let paths = |(tag, list): (&String, &Vec<Mapped>)| {
            let paths: Vec<&str> = list.iter().map(|mapped| &*mapped.path).collect();
            (tag.clone(), json!(paths))
        };
        let tags: serde_json::Map<_, _> = self.tags.iter().map(paths).collect();
        json!({"tags": tags, "blobs": self.places.len()})
    }
}

impl Module {
    fn check_mapping(&self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        match self.root {
            Some(_) => Ok(()),
            None => {
                let text = "files can be mapped on rank 0 only";
                Err(RpcError::new(libc::EINVAL, text))
            }
        }
    }

    pub(super) fn handle_map(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            path: String,
            chunksize: u64,
            tag: String,
        }
        let request: Request = msg.json()?;
        self.check_mapping(msg)?;
        if !request.path.starts_with('/') {
            let text = format!(
                "{}: the path of a file to map must be absolute",
                request.path
            );
            return Err(RpcError::new(libc::EINVAL, text));
        }
        let Request {
            path,
            chunksize,
            tag,
        } = request;
        let (msg, alg, limit) = (msg.clone(), self.alg, self.blob_limit);
        self.work.push(Box::pin(async move {
            let mapped = aside(move || Mapped::new(&path, alg, chunksize, limit)).await;
            Done::Mapped(msg, tag, mapped)
        }));
        Ok(())
    }

    pub(super) fn mapped(&mut self, msg: &Message, tag: String, result: Result<Mapped, RpcError>) {
        match result {
            Ok(mapped) => {
                self.files.add(tag, mapped);
                self.handle.respond_ok(msg);
            }
            Err(e) => self.handle.respond_error(msg, &e),
        }
    }

    /// Forgets the files of a tag; it is fine if there are none.
    pub(super) fn handle_unmap(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            tag: String,
        }
        let request: Request = msg.json()?;
        self.check_mapping(msg)?;
        self.files.remove(&request.tag);
        self.handle.respond_ok(msg);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blobs_are_read_until_their_files_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let mut files = Files::default();
        for (name, content) in [("one", "aaaabbbb"), ("two", "bbbbcc")] {
            std::fs::write(path(name), content).unwrap();
            let mapped = Mapped::new(&path(name), HashAlg::Sha1, 4, 100)
                .ok()
                .unwrap();
            files.add(name.to_owned(), mapped);
        }
        let blob = |text: &str| HashAlg::Sha1.hash(text.as_bytes());
        assert_eq!(files.stats()["blobs"], 3);
        assert_eq!(files.stats()["tags"]["two"], json!([path("two")]));
        let load = async |files: &Files, text: &str| {
            let place = files.find(&blob(text)).ok_or(libc::ENOENT)?;
            place.read(blob(text)).await.map_err(|e| e.errno)
        };
        assert_eq!(load(&files, "bbbb").await.unwrap(), "bbbb");
        assert_eq!(load(&files, "cc").await.unwrap(), "cc");
        files.remove("two");
        assert_eq!(
            load(&files, "bbbb").await.unwrap(),
            "bbbb",
            "it is in one as well"
        );
        assert_eq!(load(&files, "cc").await, Err(libc::ENOENT));
        std::fs::write(path("one"), "aaaaBBBB").unwrap();
        assert_eq!(load(&files, "aaaa").await.unwrap(), "aaaa");
        assert_eq!(load(&files, "bbbb").await, Err(libc::EINVAL));
        std::fs::write(path("one"), "").unwrap();
        assert_eq!(load(&files, "aaaa").await, Err(libc::EINVAL));
        std::fs::remove_file(path("one")).unwrap();
        assert_eq!(load(&files, "aaaa").await, Err(libc::ENOENT));
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let new = |path: &str| {
            Mapped::new(path, HashAlg::Sha1, 0, 2)
                .err()
                .map(|e| e.errno)
        };
        assert_eq!(new("/dev/null"), Some(libc::EINVAL));
        assert_eq!(new("/nonesuch"), Some(libc::ENOENT));
        assert_eq!(new("/etc/passwd"), Some(libc::EFBIG));
    }
}
