//! Where rank 0 keeps blobs, and the KVS checkpoints that make them reachable after a restart.
//!
//! Invariants every store keeps (the contract suite below runs on all of them):
//! - when `store_batch` returns, every blob of the batch can be loaded, and survives a crash as
//!   far as the store promises durability at all;
//! - a batch is stored whole or not at all;
//! - storing a blob twice is harmless;
//! - checkpoints are returned newest first, at most [`MAX_CHECKPOINTS`].

mod memory;
mod sqlite;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::BlobRef;

pub use memory::Memory;
pub use sqlite::{Durability, Sqlite};

/// How many checkpoints are kept: enough to step back over a bad one, few enough to stay small.
pub const MAX_CHECKPOINTS: usize = 5;

/// Why a backing store failed.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    #[error("content store {path}: {source}")]
    Sqlite {
        path: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("content store {path}: object {blobref} is damaged: {what}")]
    Damaged {
        path: String,
        blobref: BlobRef,
        what: &'static str,
    },
    #[error("content store {path}: checkpoint is not JSON: {source}")]
    Checkpoint {
        path: String,
        #[source]
        source: serde_json::Error,
    },
}

impl BackingError {
    /// The errno a requester sees.
    pub fn errno(&self) -> i32 {
        match self {
            BackingError::Sqlite { source, .. } => match source.as_database_error() {
                // SQLITE_FULL and SQLITE_READONLY.
                Some(e) if e.code().as_deref() == Some("13") => libc::ENOSPC,
                Some(e) if e.code().as_deref() == Some("8") => libc::EROFS,
                _ => libc::EIO,
            },
            BackingError::Damaged { .. } | BackingError::Checkpoint { .. } => libc::EIO,
        }
    }
}

/// A blob store. Methods take `&self`: a store serves loads while it commits a batch.
pub trait Backing: Send + Sync {
    /// The blob, or `None` if it was never stored.
    fn load(&self, blobref: BlobRef) -> BoxFuture<'_, Result<Option<Bytes>, BackingError>>;
    /// Whether the blob is there, without reading it.
    fn contains(&self, blobref: BlobRef) -> BoxFuture<'_, Result<bool, BackingError>>;
    /// Stores all blobs of the batch as one transaction. `root` is what the KVS root will be once
    /// it is committed: a restarted instance starts there, so that nothing acknowledged is lost.
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
    /// Finishes all work; the store is not used afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}

#[cfg(test)]
mod contract {
    //! One suite for all backing stores.
    use super::*;
    use crate::HashAlg;
    use serde_json::json;

    fn blob(text: &str) -> (BlobRef, Bytes) {
        (
            HashAlg::Sha1.hash(text.as_bytes()),
            Bytes::from(text.to_owned()),
        )
    }

    async fn suite(store: &dyn Backing) {
        let (a, b, empty) = (blob("alpha"), blob("beta"), blob(""));
        assert_eq!(store.load(a.0).await.unwrap(), None);
        assert!(!store.contains(a.0).await.unwrap());
        store.store_batch(vec![], None).await.unwrap();
        store
            .store_batch(vec![a.clone(), b.clone(), empty.clone()], None)
            .await
            .unwrap();
        for (r, data) in [&a, &b, &empty] {
            assert_eq!(store.load(*r).await.unwrap().as_ref(), Some(data));
            assert!(store.contains(*r).await.unwrap());
        }
        // Again, and twice in one batch.
        store
            .store_batch(vec![a.clone(), a.clone()], None)
            .await
            .unwrap();
        assert_eq!(store.count().await.unwrap(), 3);
        let long = HashAlg::Sha256.hash(b"alpha");
        assert_eq!(store.load(long).await.unwrap(), None);

        // More rows than one statement can bind.
        let many: Vec<_> = (0..5000).map(|i| blob(&format!("blob {i}"))).collect();
        store.store_batch(many.clone(), None).await.unwrap();
        assert_eq!(store.count().await.unwrap(), 5003);
        assert_eq!(
            store.load(many[4999].0).await.unwrap(),
            Some(many[4999].1.clone())
        );

        assert!(store.checkpoints().await.unwrap().is_empty());
        for i in 0..MAX_CHECKPOINTS + 2 {
            store
                .checkpoint_put(json!({"version": 1, "sequence": i}))
                .await
                .unwrap();
        }
        let got = store.checkpoints().await.unwrap();
        assert_eq!(got.len(), MAX_CHECKPOINTS);
        assert_eq!(got[0]["sequence"], MAX_CHECKPOINTS + 1);

        // The root of a batch comes before all checkpoints; a later checkpoint replaces it.
        let c = blob("gamma");
        store
            .store_batch(vec![c.clone()], Some(json!({"sequence": 100})))
            .await
            .unwrap();
        store
            .store_batch(vec![], Some(json!({"sequence": 101})))
            .await
            .unwrap();
        let got = store.checkpoints().await.unwrap();
        assert_eq!(
            (got.len(), &got[0]["sequence"]),
            (MAX_CHECKPOINTS + 1, &json!(101))
        );
        assert_eq!(store.load(c.0).await.unwrap(), Some(c.1));
        store
            .checkpoint_put(json!({"sequence": 102}))
            .await
            .unwrap();
        let got = store.checkpoints().await.unwrap();
        assert_eq!(
            (got.len(), &got[0]["sequence"]),
            (MAX_CHECKPOINTS, &json!(102))
        );
    }

    fn run(f: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(f);
    }

    #[test]
    fn memory() {
        run(async { suite(&Memory::default()).await });
    }

    #[test]
    fn sqlite() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("content.sqlite");
            let store = Sqlite::open(&path, Durability::Full).await.unwrap();
            suite(&store).await;
            store.close().await;
            // What was stored is there when the file is opened again.
            let store = Sqlite::open(&path, Durability::Off).await.unwrap();
            let (r, data) = blob("alpha");
            assert_eq!(store.load(r).await.unwrap(), Some(data));
            assert_eq!(store.checkpoints().await.unwrap().len(), MAX_CHECKPOINTS);
            store.close().await;
        });
    }

    #[test]
    fn sqlite_says_which_file_it_cannot_open() {
        run(async {
            let e = Sqlite::open("/nonexistent/content.sqlite".as_ref(), Durability::Off)
                .await
                .err()
                .unwrap();
            assert!(e.to_string().contains("/nonexistent/content.sqlite"), "{e}");
        });
    }
}
