//! Blobs as files: each under its blobref, beside them the checkpoint and the last root.
//!
//! A file is written under another name, made durable and renamed; so what has a blob's name is whole. The root is
//! written last. Names are those upstream uses; `kvs-root` is ours.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};

use super::{Backing, BackingError, LOAD_LIMIT, Loaded, Removed};
use crate::roots::Roots;
use crate::{BlobRef, PRIMARY};

const CHECKPOINT: &str = "kvs-primary";
const ROOT: &str = "kvs-root";
/// What the file with the root of a further namespace begins with; its name in hexadecimal follows.
const NAMESPACE: &str = "kvs-namespace-";
/// Names of blobs that are read at once.
const NAMES_AT_ONCE: usize = 4096;
/// Files on their way.
const UNFINISHED: &str = ".new-";

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
    durable: bool,
    /// Number of the next unfinished file.
    next: Arc<AtomicU64>,
    /// Writing has failed once: a file that is there need not be durable, and is written again.
    is_in_doubt: Arc<AtomicBool>,
}

impl Files {
    /// Open the directory, making it if need be. `durable`: a power loss takes nothing acknowledged.
    pub fn open(dir: &Path, durable: bool) -> Result<Self, BackingError> {
        match fs::create_dir(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(BackingError::file(dir)(e));
            }
            _ => {}
        }
        let files = Self {
            dir: dir.to_owned(),
            durable,
            next: Arc::default(),
            is_in_doubt: Arc::default(),
        };
        // Left behind by a crash.
        for name in files.names()? {
            if name.starts_with(UNFINISHED) {
                let path = dir.join(name);
                fs::remove_file(&path).map_err(BackingError::file(&path))?;
            }
        }
        Ok(files)
    }

    /// Remove the directory with all that is stored in it.
    pub fn remove(dir: &Path) -> Result<(), BackingError> {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(BackingError::file(dir)(e)),
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<Vec<String>, BackingError> {
        let read = || -> std::io::Result<Vec<String>> {
            let entries = fs::read_dir(&self.dir)?;
            let name = |e: std::io::Result<fs::DirEntry>| {
                Ok(e?.file_name().to_string_lossy().into_owned())
            };
            entries.map(name).collect()
        };
        read().map_err(BackingError::file(&self.dir))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BackingError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(data) => Ok(Some(data)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(BackingError::file(&path)(e)),
        }
    }

    fn read_json(&self, name: &str) -> Result<Option<Value>, BackingError> {
        let Some(text) = self.read(name)? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&text);
        value.map(Some).map_err(|source| BackingError::Checkpoint {
            path: self.dir.join(name),
            source,
        })
    }

    /// Write files of these names. All are there, or (after a failure) some; none is cut short.
    fn write(&self, files: &[(String, Bytes)]) -> Result<(), BackingError> {
        let mut unfinished = Unfinished(Vec::with_capacity(files.len()));
        for (_, data) in files {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(format!("{UNFINISHED}{number}"));
            unfinished.0.push(path.clone());
            let write = || File::create(&path)?.write_all(data);
            write().map_err(BackingError::file(&path))?;
        }
        self.sync()?;
        for ((name, _), path) in files.iter().zip(&unfinished.0) {
            let to = self.dir.join(name);
            fs::rename(path, &to).map_err(BackingError::file(&to))?;
        }
        unfinished.0.clear();
        self.sync()
    }

    /// Everything written to the file system so far is durable.
    fn sync(&self) -> Result<(), BackingError> {
        if !self.durable {
            return Ok(());
        }
        let sync = || {
            let dir = File::open(&self.dir)?;
            // SAFETY: the descriptor is open for the duration of the call.
            match unsafe { libc::syncfs(dir.as_raw_fd()) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        sync().map_err(BackingError::file(&self.dir))
    }

    fn load_now(
        &self,
        blobref: BlobRef,
    ) -> Result<Option<Result<Bytes, BackingError>>, BackingError> {
        let Some(data) = self.read(&blobref.to_string())? else {
            return Ok(None);
        };
        let damaged = || BackingError::Damaged {
            path: self.dir.clone(),
            blobref,
            what: "its content does not match its digest".to_owned(),
        };
        let is_whole = blobref.alg().hash(&data) == blobref;
        Ok(Some(is_whole.then(|| data.into()).ok_or_else(damaged)))
    }

    /// The next names of blobs of a directory.
    fn names_now(&self, entries: &mut fs::ReadDir) -> Result<Vec<BlobRef>, BackingError> {
        let mut names = Vec::new();
        while names.len() < NAMES_AT_ONCE
            && let Some(entry) = entries.next()
        {
            let entry = entry.map_err(BackingError::file(&self.dir))?;
            names.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|n| n.parse::<BlobRef>().ok()),
            );
        }
        Ok(names)
    }

    fn remove_now(&self, blobrefs: &[BlobRef]) -> Result<Removed, BackingError> {
        let mut removed = Removed::default();
        for blobref in blobrefs {
            let path = self.dir.join(blobref.to_string());
            let size = fs::metadata(&path).map_or(0, |m| m.len());
            match fs::remove_file(&path) {
                Ok(()) => {
                    removed.count += 1;
                    removed.bytes += size;
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(BackingError::file(&path)(e)),
            }
        }
        Ok(removed)
    }

    fn used_now(&self) -> Result<u64, BackingError> {
        let size = |name: &String| fs::metadata(self.dir.join(name)).map_or(0, |m| m.len());
        Ok(self.names()?.iter().map(size).sum())
    }

    fn store_now(&self, batch: Vec<(BlobRef, Bytes)>, roots: &Roots) -> Result<(), BackingError> {
        let name = |(blobref, data): (BlobRef, Bytes)| (blobref.to_string(), data);
        let doubt = self.is_in_doubt.load(Ordering::Relaxed);
        let missing = |(name, _): &(String, Bytes)| doubt || !self.dir.join(name).exists();
        let mut files: Vec<_> = batch.into_iter().map(name).filter(missing).collect();
        files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        files.dedup_by(|a, b| a.0 == b.0);
        if !files.is_empty() {
            let failed = |_: &BackingError| self.is_in_doubt.store(true, Ordering::Relaxed);
            self.write(&files).inspect_err(failed)?;
        }
        if !self.durable {
            return Ok(());
        }
        let made = roots.iter().filter(|(_, root)| !root.is_null());
        let made: Vec<_> = made
            .map(|(name, root)| (root_file(name), root.to_string().into()))
            .collect();
        if !made.is_empty() {
            self.write(&made)?;
        }
        for (name, _) in roots.iter().filter(|(_, root)| root.is_null()) {
            self.remove_file(&root_file(name))?;
        }
        Ok(())
    }

    fn namespaces_now(&self) -> Result<Roots, BackingError> {
        let name = |file: &String| {
            let hex = file.strip_prefix(NAMESPACE)?;
            String::from_utf8(unhex(hex)?).ok()
        };
        let files = self.names()?;
        let names = files.iter().filter_map(name);
        let root = |name: String| Ok((name.clone(), self.read_json(&root_file(&name))?.into()));
        names.map(root).collect()
    }

    /// Remove a file of this name, if there is one.
    fn remove_file(&self, name: &str) -> Result<(), BackingError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(BackingError::file(&path)(e)),
            _ => Ok(()),
        }
    }

    fn checkpoints_now(&self) -> Result<Vec<Value>, BackingError> {
        let both = [self.read_json(ROOT)?, self.read_json(CHECKPOINT)?];
        Ok(both.into_iter().flatten().collect())
    }

    fn checkpoint_put_now(&self, value: &Value) -> Result<(), BackingError> {
        self.write(&[(CHECKPOINT.to_owned(), value.to_string().into())])?;
        self.remove_file(ROOT)
    }

    /// Do this on a thread where it may take its time.
    fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, BackingError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, BackingError>> {
        let files = self.clone();
        let task = tokio::task::spawn_blocking(move || work(&files));
        async move {
            let ended = |e: tokio::task::JoinError| {
                Err(BackingError::file(&self.dir)(std::io::Error::other(e)))
            };
            task.await.unwrap_or_else(ended)
        }
        .boxed()
    }
}

/// The file that holds the root of a namespace.
fn root_file(name: &str) -> String {
    match name {
        PRIMARY => ROOT.to_owned(),
        name => {
            let hex = name.bytes().map(|byte| format!("{byte:02x}"));
            NAMESPACE.to_owned() + &hex.collect::<String>()
        }
    }
}

/// The bytes that hexadecimal digits stand for.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

/// Removes what is not renamed in the end.
struct Unfinished(Vec<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        for path in &self.0 {
            // It may never have been made.
            let _ = fs::remove_file(path);
        }
    }
}

impl Backing for Files {
    fn load(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Loaded, BackingError>> {
        self.work(move |files| {
            let mut loaded = Loaded::new(blobrefs.len());
            let mut bytes = 0;
            for blobref in blobrefs {
                if bytes > LOAD_LIMIT {
                    loaded.is_complete = false;
                    break;
                }
                if let Some(blob) = files.load_now(blobref)? {
                    bytes += blob.as_ref().map_or(0, Bytes::len);
                    loaded.blobs.push((blobref, blob));
                }
            }
            Ok(loaded)
        })
    }

    fn contains(&self, blobref: BlobRef) -> BoxFuture<'_, Result<bool, BackingError>> {
        self.work(move |files| Ok(files.dir.join(blobref.to_string()).exists()))
    }

    fn store_batch(
        &self,
        batch: Vec<(BlobRef, Bytes)>,
        roots: Roots,
    ) -> BoxFuture<'_, Result<(), BackingError>> {
        self.work(move |files| files.store_now(batch, &roots))
    }

    fn checkpoints(&self) -> BoxFuture<'_, Result<Vec<Value>, BackingError>> {
        self.work(Files::checkpoints_now)
    }

    fn namespaces(&self) -> BoxFuture<'_, Result<Roots, BackingError>> {
        self.work(Files::namespaces_now)
    }

    fn checkpoint_put(&self, value: Value) -> BoxFuture<'_, Result<(), BackingError>> {
        self.work(move |files| files.checkpoint_put_now(&value))
    }

    fn names(&self) -> BoxStream<'_, Result<Vec<BlobRef>, BackingError>> {
        let some = async move |entries: Option<fs::ReadDir>| {
            self.work(move |files| {
                let open = || fs::read_dir(&files.dir).map_err(BackingError::file(&files.dir));
                let mut entries = entries.map_or_else(open, Ok)?;
                let names = files.names_now(&mut entries)?;
                Ok((!names.is_empty()).then_some((names, Some(entries))))
            })
            .await
        };
        futures::stream::try_unfold(None, some).boxed()
    }

    fn remove(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Removed, BackingError>> {
        self.work(move |files| files.remove_now(&blobrefs))
    }

    /// A file that is removed leaves nothing to give back.
    fn give_back(&self) -> BoxFuture<'_, Result<bool, BackingError>> {
        futures::future::ready(Ok(false)).boxed()
    }

    fn used(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        self.work(Files::used_now)
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        self.work(|files| {
            let blobs = files.names()?;
            Ok(blobs
                .iter()
                .filter(|n| n.parse::<BlobRef>().is_ok())
                .count() as u64)
        })
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn describe(&self) -> Value {
        json!({})
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }
}
