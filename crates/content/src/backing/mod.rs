//! Where rank 0 keeps blobs, and the KVS checkpoints that make them reachable after a restart.
//!
//! Each store is a broker module ([`module`]) around a [`Backing`]. Invariants every store keeps (the contract suite
//! below runs on all of them):
//! - when `store_batch` returns, every blob of the batch can be loaded, and survives a crash as
//!   far as the store promises durability at all;
//! - after a crash a root is only there with all blobs of its batch;
//! - storing a blob twice is harmless;
//! - checkpoints are returned newest first.

#[cfg(test)]
mod contract;
mod files;
pub mod module;
mod sqlite;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::BlobRef;

pub use files::Files;
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

/// A blob store. Methods take `&self`: a store serves loads while it commits a batch.
pub trait Backing: Send + Sync {
    /// The blob, or `None` if it was never stored.
    fn load(&self, blobref: BlobRef) -> BoxFuture<'_, Result<Option<Bytes>, BackingError>>;
    /// Whether the blob is there, without reading it.
    fn contains(&self, blobref: BlobRef) -> BoxFuture<'_, Result<bool, BackingError>>;
    /// Stores all blobs. `root` is what the KVS root will be once they are there: a restarted instance starts there,
    /// so that nothing acknowledged is lost.
    fn store_batch(
        &self,
        batch: Vec<(BlobRef, Bytes)>,
        root: Option<Value>,
    ) -> BoxFuture<'_, Result<(), BackingError>>;
    /// The root of the last batch that had one, then checkpoints, newest first.
    fn checkpoints(&self) -> BoxFuture<'_, Result<Vec<Value>, BackingError>>;
    /// Adds a checkpoint. It is durable, with every blob stored before it, when this returns.
    fn checkpoint_put(&self, value: Value) -> BoxFuture<'_, Result<(), BackingError>>;
    /// Number of objects stored, for statistics.
    fn count(&self) -> BoxFuture<'_, Result<u64, BackingError>>;
    /// Whether what it has acknowledged survives a crash.
    fn is_durable(&self) -> bool;
    /// How it is set up and how large it is, for statistics.
    fn describe(&self) -> Value;
    /// Finishes all work; the store is not used afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}
