//! Blobs in an SQLite file: write-ahead log, one writer, readers beside it, group commit.
//!
//! The tables are those upstream uses (`objects`, `checkpt_v2`) and `root`, one row with the KVS
//! root of the last commit, written in the transaction that stores the commit's objects. Objects are stored as they are;
//! upstream marks that with a size of -1.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Executor, QueryBuilder, Row, Sqlite as Db};

use super::{Backing, BackingError, MAX_CHECKPOINTS};
use crate::BlobRef;

/// Rows one INSERT statement carries: two bound values each, well below SQLite's limit of 32,766.
const ROWS_PER_INSERT: usize = 500;
/// Readers beside the writer. Loads are short; two keep one slow read from blocking the rest.
const READERS: u32 = 2;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS objects(
  hash BLOB PRIMARY KEY, size INT, object BLOB, epoch INT DEFAULT 0);
CREATE TABLE IF NOT EXISTS checkpt_v2(
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, value TEXT);
CREATE TABLE IF NOT EXISTS root(
  id INTEGER PRIMARY KEY CHECK (id = 0), value TEXT);
";

/// What a power loss may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was acknowledged: each commit is synced.
    Full,
    /// Everything: the file goes away with the instance anyway.
    Off,
}

/// The store.
pub struct Sqlite {
    path: String,
    durability: Durability,
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    /// Opens the file, creating it and its tables if need be.
    pub async fn open(path: &Path, durability: Durability) -> Result<Sqlite, BackingError> {
        let name = path.display().to_string();
        let fail = |source| BackingError::Sqlite {
            path: name.clone(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match durability {
                Durability::Full => SqliteSynchronous::Full,
                Durability::Off => SqliteSynchronous::Off,
            })
            // Another process may hold the file for a moment: flux fsck, a backup.
            .busy_timeout(Duration::from_secs(30))
            .pragma("wal_autocheckpoint", "4000");
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await
            .map_err(fail)?;
        writer.execute(SCHEMA).await.map_err(fail)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Sqlite {
            path: name,
            durability,
            writer,
            readers,
        })
    }

    fn fail(&self, source: sqlx::Error) -> BackingError {
        BackingError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }

    async fn insert(
        &self,
        batch: &[(BlobRef, Bytes)],
        root: Option<Value>,
    ) -> Result<(), sqlx::Error> {
        if root.is_none() && batch.len() <= ROWS_PER_INSERT {
            // One statement is a transaction of its own.
            return insert_rows(&self.writer, batch).await;
        }
        let mut tx = self.writer.begin().await?;
        for rows in batch.chunks(ROWS_PER_INSERT) {
            insert_rows(&mut *tx, rows).await?;
        }
        if let Some(root) = root {
            sqlx::query("REPLACE INTO root (id, value) VALUES (0, ?1)")
                .bind(root.to_string())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }
}

/// One INSERT statement of at most [`ROWS_PER_INSERT`] rows.
async fn insert_rows<'e>(
    executor: impl sqlx::Executor<'e, Database = Db>,
    rows: &[(BlobRef, Bytes)],
) -> Result<(), sqlx::Error> {
    let mut q = QueryBuilder::<Db>::new("INSERT INTO objects (hash,size,object) ");
    q.push_values(rows, |mut row, (blobref, data)| {
        row.push_bind(blobref.raw()).push("-1").push_bind(&data[..]);
    });
    q.push(" ON CONFLICT(hash) DO NOTHING");
    // Chunks of full length share one prepared statement; odd lengths would fill the
    // statement cache with plans that never come again.
    let persistent = rows.len() == ROWS_PER_INSERT || rows.len() <= 16;
    q.build()
        .persistent(persistent)
        .execute(executor)
        .await
        .map(drop)
}

impl Backing for Sqlite {
    fn load(&self, blobref: BlobRef) -> BoxFuture<'_, Result<Option<Bytes>, BackingError>> {
        async move {
            let row = sqlx::query("SELECT object,size FROM objects WHERE hash = ?1 LIMIT 1")
                .bind(blobref.raw())
                .fetch_optional(&self.readers)
                .await
                .map_err(|e| self.fail(e))?;
            let Some(row) = row else { return Ok(None) };
            if row.try_get::<i64, _>(1).map_err(|e| self.fail(e))? != -1 {
                return Err(BackingError::Damaged {
                    path: self.path.clone(),
                    blobref,
                    what: "it is compressed, which this store never does",
                });
            }
            let data: Vec<u8> = row.try_get(0).map_err(|e| self.fail(e))?;
            if blobref.alg().hash(&data) != blobref {
                return Err(BackingError::Damaged {
                    path: self.path.clone(),
                    blobref,
                    what: "its content does not match its digest",
                });
            }
            Ok(Some(data.into()))
        }
        .boxed()
    }

    fn contains(&self, blobref: BlobRef) -> BoxFuture<'_, Result<bool, BackingError>> {
        async move {
            sqlx::query("SELECT 1 FROM objects WHERE hash = ?1")
                .bind(blobref.raw())
                .fetch_optional(&self.readers)
                .await
                .map(|row| row.is_some())
                .map_err(|e| self.fail(e))
        }
        .boxed()
    }

    fn store_batch(
        &self,
        batch: Vec<(BlobRef, Bytes)>,
        root: Option<Value>,
    ) -> BoxFuture<'_, Result<(), BackingError>> {
        async move {
            // A file that goes away with the instance is never started from.
            let root = root.filter(|_| self.durability == Durability::Full);
            if batch.is_empty() && root.is_none() {
                return Ok(());
            }
            self.insert(&batch, root).await.map_err(|e| self.fail(e))
        }
        .boxed()
    }

    fn checkpoints(&self) -> BoxFuture<'_, Result<Vec<Value>, BackingError>> {
        async move {
            let rows = sqlx::query(
                "SELECT value FROM root UNION ALL \
                 SELECT * FROM (SELECT value FROM checkpt_v2 ORDER BY id DESC)",
            )
            .fetch_all(&self.readers)
            .await
            .map_err(|e| self.fail(e))?;
            rows.iter()
                .map(|row| {
                    let text: String = row.try_get(0).map_err(|e| self.fail(e))?;
                    serde_json::from_str(&text).map_err(|source| BackingError::Checkpoint {
                        path: self.path.clone(),
                        source,
                    })
                })
                .collect()
        }
        .boxed()
    }

    fn checkpoint_put(&self, value: Value) -> BoxFuture<'_, Result<(), BackingError>> {
        async move {
            let put = async {
                let mut tx = self.writer.begin().await?;
                sqlx::query("DELETE FROM root").execute(&mut *tx).await?;
                sqlx::query("INSERT INTO checkpt_v2 (value) VALUES (?1)")
                    .bind(value.to_string())
                    .execute(&mut *tx)
                    .await?;
                sqlx::query(
                    "DELETE FROM checkpt_v2 WHERE id IN \
                     (SELECT id FROM checkpt_v2 ORDER BY id DESC LIMIT -1 OFFSET ?1)",
                )
                .bind(MAX_CHECKPOINTS as i64)
                .execute(&mut *tx)
                .await?;
                tx.commit().await
            };
            put.await.map_err(|e| self.fail(e))
        }
        .boxed()
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        async move {
            let row = sqlx::query("SELECT count(1) FROM objects")
                .fetch_one(&self.readers)
                .await
                .map_err(|e| self.fail(e))?;
            Ok(row.try_get::<i64, _>(0).map_err(|e| self.fail(e))? as u64)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.readers.close().await;
            self.writer.close().await;
        }
        .boxed()
    }
}
