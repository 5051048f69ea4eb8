//! Blobs in an SQLite file: write-ahead log, one writer, readers beside it, group commit.
//!
//! The tables are those upstream uses (`objects`, `checkpt_v2`) and `root`, one row with the KVS
//! root of the last commit, written in the transaction that stores the commit's objects. Objects are stored as they are,
//! which upstream marks with a size of -1; those it has compressed (LZ4) are read.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Executor, QueryBuilder, Row, Sqlite as Db};

use super::{Backing, BackingError};
use crate::BlobRef;

/// How many checkpoints are kept: enough to step back over a bad one, few enough to stay small.
const MAX_CHECKPOINTS: usize = 5;
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

/// Files up to this size are checked as a whole when they are opened; larger ones where they are read, and by
/// flux-fsck(1).
const CHECKED_SIZE: u64 = 64 << 20;

/// What a power loss may take, where no option says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was acknowledged: each commit is synced.
    Full,
    /// Everything: the file goes away with the instance anyway.
    Off,
}

/// How SQLite is set up.
#[derive(Clone, Debug)]
pub struct Options {
    journal_mode: SqliteJournalMode,
    synchronous: SqliteSynchronous,
    durability: Durability,
}

impl Options {
    /// What suits this durability.
    pub fn new(durability: Durability) -> Options {
        Options {
            journal_mode: SqliteJournalMode::Wal,
            synchronous: match durability {
                Durability::Full => SqliteSynchronous::Full,
                Durability::Off => SqliteSynchronous::Off,
            },
            durability,
        }
    }

    /// `journal_mode`: a value of SQLite's pragma, in upper case.
    pub fn set_journal_mode(&mut self, text: &str) -> Result<(), BackingError> {
        let mode = Some(text).filter(|t| t.chars().all(|c| c.is_ascii_uppercase()));
        let mode = mode.and_then(|t| SqliteJournalMode::from_str(t).ok());
        self.journal_mode = mode.ok_or_else(|| BackingError::Option {
            what: "journal_mode",
            expected: "DELETE, TRUNCATE, PERSIST, MEMORY, WAL, OFF",
            found: text.to_owned(),
        })?;
        Ok(())
    }

    /// `synchronous`: a value of SQLite's pragma, in upper case.
    pub fn set_synchronous(&mut self, text: &str) -> Result<(), BackingError> {
        let mode = Some(text).filter(|t| t.chars().all(|c| c.is_ascii_uppercase()));
        let mode = mode.and_then(|t| SqliteSynchronous::from_str(t).ok());
        self.synchronous = mode.ok_or_else(|| BackingError::Option {
            what: "synchronous",
            expected: "EXTRA, FULL, NORMAL, OFF",
            found: text.to_owned(),
        })?;
        Ok(())
    }

    fn describe(&self) -> Value {
        let text = |debug: String| debug.to_uppercase();
        json!({
            "journal_mode": text(format!("{:?}", self.journal_mode)),
            "synchronous": text(format!("{:?}", self.synchronous)),
        })
    }
}

/// The store.
pub struct Sqlite {
    path: PathBuf,
    options: Options,
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    /// Opens the file, creating it and its tables if need be.
    pub async fn open(path: &Path, durability: Durability) -> Result<Sqlite, BackingError> {
        Sqlite::open_with(path, Options::new(durability)).await
    }

    /// As [`Sqlite::open`], set up as the options say.
    pub async fn open_with(path: &Path, options: Options) -> Result<Sqlite, BackingError> {
        let fail = |source| BackingError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(options.journal_mode)
            .synchronous(options.synchronous)
            // Another process may hold the file for a moment: flux fsck, a backup.
            .busy_timeout(Duration::from_secs(30))
            .pragma("wal_autocheckpoint", "4000");
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(connect.clone())
            .await
            .map_err(fail)?;
        writer.execute(SCHEMA).await.map_err(fail)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(connect);
        let store = Sqlite {
            path: path.to_owned(),
            options,
            writer,
            readers,
        };
        store.check().await?;
        Ok(store)
    }

    /// Remove a file with what SQLite keeps beside it.
    pub fn remove(path: &Path) -> Result<(), BackingError> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            match std::fs::remove_file(&name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(BackingError::file(name.as_ref())(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the file is in order, as far as that can be told quickly.
    async fn check(&self) -> Result<(), BackingError> {
        if self.size() > CHECKED_SIZE {
            return Ok(());
        }
        let row = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(&self.writer)
            .await
            .map_err(|e| self.fail(e))?;
        let found: String = row.try_get(0).map_err(|e| self.fail(e))?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(BackingError::Corrupt {
                path: self.path.clone(),
                what: found,
            }),
        }
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
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
            let size: i64 = row.try_get(1).map_err(|e| self.fail(e))?;
            let data: Vec<u8> = row.try_get(0).map_err(|e| self.fail(e))?;
            let damaged = |what: String| BackingError::Damaged {
                path: self.path.clone(),
                blobref,
                what,
            };
            let data = match usize::try_from(size) {
                Err(_) => data,
                Ok(size) => lz4_flex::block::decompress(&data, size)
                    .map_err(|e| damaged(format!("it cannot be decompressed: {e}")))?,
            };
            if blobref.alg().hash(&data) != blobref {
                return Err(damaged("its content does not match its digest".to_owned()));
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
            let root = root.filter(|_| self.is_durable());
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

    fn is_durable(&self) -> bool {
        self.options.durability == Durability::Full
    }

    fn describe(&self) -> Value {
        let free = self
            .path
            .parent()
            .and_then(|dir| nix::sys::statvfs::statvfs(dir).ok());
        json!({
            "dbfile_size": self.size(),
            "dbfile_free": free.map_or(0, |f| f.blocks_available() * f.fragment_size()),
            "config": self.options.describe(),
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.readers.close().await;
            self.writer.close().await;
        }
        .boxed()
    }
}
