//! Where rank 0 keeps blobs, and the KVS checkpoints that make them reachable after a restart.
//!
//! Each store is a broker module ([`module`]) around a [`Backing`]. Invariants every store keeps (the contract suite
//! below runs on all of them):
//! - when `store_batch` returns, every blob of the batch can be loaded, and survives a crash as
//!   far as the store promises durability at all;
//! - after a crash a root is only there with all blobs of its batch;
//! - storing a blob twice is harmless, and a blob that is stored after it was removed is there;
//! - checkpoints are returned newest first.

pub mod collector;
#[cfg(test)]
mod contract;
mod files;
pub mod journal;
pub mod module;
mod server;
mod sqlite;
mod times;
mod writes;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::BlobRef;
use crate::roots::Roots;

pub use files::Files;
pub use journal::Journaled;
pub use sqlite::{Durability, Sqlite};

/// Why a backing store failed.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    #[error("content store {}: {source}", path.display())]
    Sqlite {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("content store {}: object {blobref} is damaged: {what}", path.display())]
    Damaged {
        path: PathBuf,
        blobref: BlobRef,
        what: String,
    },
    #[error("content store {}: checkpoint is not JSON: {source}", path.display())]
    Checkpoint {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("content store {}: the file is damaged: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    #[error("{what}: expected one of {expected}, found {found:?}")]
    Option {
        what: &'static str,
        expected: &'static str,
        found: String,
    },
}

impl BackingError {
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// The errno a requester sees.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Sqlite { source, .. } => {
                let code = source.as_database_error().and_then(|e| e.code());
                let code = code.and_then(|c| c.parse::<i32>().ok()).unwrap_or(0);
                // The low byte is the kind: SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL.
                match code & 0xff {
                    8 => libc::EROFS,
                    13 => libc::ENOSPC,
                    _ => libc::EIO,
                }
            }
            Self::File { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Self::Option { .. } => libc::EINVAL,
            Self::Damaged { .. } | Self::Checkpoint { .. } | Self::Corrupt { .. } => libc::EIO,
        }
    }
}

/// A file whose name is that of another with something behind it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes files; those that are not there are no error.
fn remove_files(paths: impl IntoIterator<Item = PathBuf>) -> Result<(), BackingError> {
    for path in paths {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(BackingError::file(&path)(e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bytes of blobs that are loaded at once, unless it is one blob.
const LOAD_LIMIT: usize = 4 << 20;

/// Blobs that were loaded at once.
#[derive(Debug)]
pub struct Loaded {
    /// Those that are stored, and those of them that are damaged.
    pub blobs: Vec<(BlobRef, Result<Bytes, BackingError>)>,
    /// The others are not stored. If not, they have to be asked for again.
    pub is_complete: bool,
}

impl Loaded {
    fn new(room: usize) -> Self {
        Self {
            blobs: Vec::with_capacity(room),
            is_complete: true,
        }
    }
}

/// Blobs that were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub count: u64,
    /// What they took in the store.
    pub bytes: u64,
}

/// A blob store. Methods take `&self`: a store serves loads while it commits a batch.
pub trait Backing: Send + Sync {
    /// These blobs, which are not asked for twice: at least one that is stored, and as many as some megabytes hold.
    fn load(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Loaded, BackingError>>;
    /// Whether the blob is there, without reading it.
    fn contains(&self, blobref: BlobRef) -> BoxFuture<'_, Result<bool, BackingError>>;
    /// Stores all blobs. `roots` is what KVS roots will be once they are there.
    fn store_batch(
        &self,
        batch: Vec<(BlobRef, Bytes)>,
        roots: Roots,
    ) -> BoxFuture<'_, Result<(), BackingError>>;
    /// The primary root of the last batch that had one, then checkpoints, newest first.
    fn checkpoints(&self) -> BoxFuture<'_, Result<Vec<Value>, BackingError>>;
    /// The roots of the other namespaces.
    fn namespaces(&self) -> BoxFuture<'_, Result<Roots, BackingError>>;
    /// Adds a checkpoint. It is durable, with every blob stored before it, when this returns.
    fn checkpoint_put(&self, value: Value) -> BoxFuture<'_, Result<(), BackingError>>;
    /// The names of all blobs, some at a time. Those that are stored meanwhile may be missing.
    fn names(&self) -> BoxStream<'_, Result<Vec<BlobRef>, BackingError>>;
    /// Removes these blobs. After a crash some of them may be there.
    fn remove(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Removed, BackingError>>;
    /// Gives some of the space that is free in the store back to the file system, and says whether there is more to give.
    fn give_back(&self) -> BoxFuture<'_, Result<bool, BackingError>>;
    /// Bytes that hold what is stored.
    fn used(&self) -> BoxFuture<'_, Result<u64, BackingError>>;
    /// Number of objects stored, for statistics.
    fn count(&self) -> BoxFuture<'_, Result<u64, BackingError>>;
    /// Whether what it has acknowledged survives a crash.
    fn is_durable(&self) -> bool;
    /// How it is set up and how large it is, for statistics.
    fn describe(&self) -> Value;
    /// Finishes all work; the store is not used afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}
