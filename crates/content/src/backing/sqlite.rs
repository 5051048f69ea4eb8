//! Blobs in an SQLite file: write-ahead log, one writer, readers beside it, group commit.
//!
//! The tables are those upstream uses (`objects`, `checkpt_v2`) and `root`, one row with the KVS
//! root of the last commit, and `namespace`, a row for each further namespace, written in the transaction that stores the commit's objects. Objects are stored as they are,
//! which upstream marks with a size of -1; those it has compressed (LZ4) are read.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Executor, QueryBuilder, Row, Sqlite as Db};

use super::{Backing, BackingError, LOAD_LIMIT, Loaded, Removed, beside, remove_files};
use crate::roots::Roots;
use crate::{BlobRef, HashAlg, PRIMARY};

/// How many checkpoints are kept, unless an option says so: enough to step back over a bad one, few enough to stay small.
const MAX_CHECKPOINTS: u32 = 5;
/// Rows one INSERT statement carries: two bound values each, well below SQLite's limit of 32,766.
const ROWS_PER_INSERT: usize = 500;
/// Pages of the file each connection may keep, in KiB (a negative number says so): the index of a million digests.
const CACHE_KIB: &str = "-32768";
/// Blobs that one statement loads. Few lengths share their prepared statements.
const LOAD_SIZES: [usize; 4] = [1, 8, 64, 512];
/// Names of blobs that are read at once.
const NAMES_AT_ONCE: i64 = 4096;
/// What `PRAGMA auto_vacuum` says of a file that can give space back.
const INCREMENTAL: u64 = 2;
/// Pages that are given back in one transaction.
const PAGES_AT_ONCE: u32 = 1000;
/// Readers beside the writer. Loads are short; two keep one slow read from blocking the rest.
const READERS: u32 = 2;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS objects(
  hash BLOB PRIMARY KEY, size INT, object BLOB, epoch INT DEFAULT 0);
CREATE TABLE IF NOT EXISTS checkpt_v2(
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, value TEXT);
CREATE TABLE IF NOT EXISTS root(
  id INTEGER PRIMARY KEY CHECK (id = 0), value TEXT);
CREATE TABLE IF NOT EXISTS namespace(
  name TEXT PRIMARY KEY, root TEXT NOT NULL) WITHOUT ROWID;
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
    max_checkpoints: u32,
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
            max_checkpoints: MAX_CHECKPOINTS,
        }
    }

    /// `max_checkpoints`: how many are kept, at least one.
    pub fn set_max_checkpoints(&mut self, number: &Value) -> Result<(), BackingError> {
        let count = number.as_u64().and_then(|n| u32::try_from(n).ok());
        let count = count.filter(|n| *n > 0);
        self.max_checkpoints = count.ok_or_else(|| BackingError::Option {
            what: "max_checkpoints",
            expected: "numbers above 0",
            found: number.to_string(),
        })?;
        Ok(())
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

    /// Whether a transaction is synced before it is acknowledged.
    pub fn syncs(&self) -> bool {
        use SqliteSynchronous::{Extra, Full};
        matches!(self.synchronous, Extra | Full)
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
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .synchronous(options.synchronous)
            // Another process may hold the file for a moment: flux fsck, a backup.
            .busy_timeout(Duration::from_secs(30))
            .pragma("cache_size", CACHE_KIB)
            .pragma("wal_autocheckpoint", "4000");
        // A file that has a journal cannot be told any more to give space back: that comes first.
        let journal = format!("PRAGMA journal_mode = {:?}", options.journal_mode);
        let pool = |connections| {
            let journal = journal.clone();
            SqlitePoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .after_connect(move |connection, _| {
                    let journal = journal.clone();
                    Box::pin(async move { connection.execute(&*journal).await.map(drop) })
                })
        };
        let writer = pool(1).connect_with(connect.clone()).await.map_err(fail)?;
        writer.execute(SCHEMA).await.map_err(fail)?;
        let readers = pool(READERS).connect_lazy_with(connect);
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
        let suffixes = ["", "-wal", "-shm", "-journal"];
        remove_files(suffixes.map(|suffix| beside(path, suffix)))
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

    /// A row of [`load_statement`].
    fn read(
        &self,
        row: &SqliteRow,
        alg: HashAlg,
    ) -> Result<(BlobRef, Result<Bytes, BackingError>), BackingError> {
        let raw: &[u8] = row.try_get(0).map_err(|e| self.fail(e))?;
        let blobref = BlobRef::from_raw(alg, raw).expect("it was asked for by its digest");
        let data: &[u8] = row.try_get(1).map_err(|e| self.fail(e))?;
        let size: i64 = row.try_get(2).map_err(|e| self.fail(e))?;
        let data = match usize::try_from(size) {
            Err(_) => Ok(Bytes::copy_from_slice(data)),
            Ok(size) => lz4_flex::block::decompress(data, size).map(Bytes::from),
        };
        let blob = match data {
            Ok(data) if alg.hash(&data) == blobref => Ok(data),
            Ok(_) => Err("its content does not match its digest".to_owned()),
            Err(e) => Err(format!("it cannot be decompressed: {e}")),
        };
        let damaged = |what| BackingError::Damaged {
            path: self.path.clone(),
            blobref,
            what,
        };
        Ok((blobref, blob.map_err(damaged)))
    }

    /// What a statement without parameters says.
    async fn number(&self, statement: &str) -> Result<u64, BackingError> {
        let row = sqlx::query(statement).fetch_one(&self.readers).await;
        let number = row.and_then(|row| row.try_get::<i64, _>(0));
        Ok(number.map_err(|e| self.fail(e))? as u64)
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

    fn json(&self, text: &str) -> Result<Value, BackingError> {
        serde_json::from_str(text).map_err(|source| BackingError::Checkpoint {
            path: self.path.clone(),
            source,
        })
    }

    async fn insert(&self, batch: &[(BlobRef, Bytes)], roots: &Roots) -> Result<(), sqlx::Error> {
        if roots.is_empty() && batch.len() <= ROWS_PER_INSERT {
            // One statement is a transaction of its own.
            return insert_rows(&self.writer, batch).await;
        }
        let mut tx = self.writer.begin().await?;
        for rows in batch.chunks(ROWS_PER_INSERT) {
            insert_rows(&mut *tx, rows).await?;
        }
        for (name, root) in roots.iter() {
            let query = match (name, root) {
                (PRIMARY, root) => sqlx::query("REPLACE INTO root (id, value) VALUES (0, ?1)")
                    .bind(root.to_string()),
                (name, Value::Null) => {
                    sqlx::query("DELETE FROM namespace WHERE name = ?1").bind(name)
                }
                (name, root) => sqlx::query("REPLACE INTO namespace (name, root) VALUES (?1, ?2)")
                    .bind(name)
                    .bind(root.to_string()),
            };
            query.execute(&mut *tx).await?;
        }
        tx.commit().await
    }
}

/// The statement that loads `count` blobs: digest, stored bytes, size.
fn load_statement(count: usize) -> String {
    let places = vec!["?"; count].join(",");
    format!("SELECT hash,object,size FROM objects WHERE hash IN ({places})")
}

/// What a stored digest names; digests of other lengths are not ours.
fn name(raw: &[u8]) -> Option<BlobRef> {
    let algs = [HashAlg::Sha1, HashAlg::Sha256];
    let alg = algs.into_iter().find(|alg| alg.digest_len() == raw.len())?;
    BlobRef::from_raw(alg, raw).ok()
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
    fn load(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Loaded, BackingError>> {
        async move {
            let mut loaded = Loaded::new(blobrefs.len());
            let mut bytes = 0;
            for some in blobrefs.chunks(LOAD_SIZES[LOAD_SIZES.len() - 1]) {
                let size = LOAD_SIZES.iter().find(|size| **size >= some.len());
                let size = *size.expect("a chunk is no longer than the longest statement");
                let text = load_statement(size);
                // What is named twice is found once.
                let repeated = some.iter().cycle().take(size);
                let query = repeated.fold(sqlx::query(&text), |q, b| q.bind(b.raw()));
                let mut rows = query.fetch(&self.readers);
                while let Some(row) = rows.try_next().await.map_err(|e| self.fail(e))? {
                    if bytes > LOAD_LIMIT {
                        loaded.is_complete = false;
                        return Ok(loaded);
                    }
                    let (blobref, blob) = self.read(&row, some[0].alg())?;
                    bytes += blob.as_ref().map_or(0, Bytes::len);
                    loaded.blobs.push((blobref, blob));
                }
            }
            Ok(loaded)
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
        mut batch: Vec<(BlobRef, Bytes)>,
        mut roots: Roots,
    ) -> BoxFuture<'_, Result<(), BackingError>> {
        async move {
            // Neighbours in the index of digests are written one after the other.
            batch.sort_unstable_by_key(|(blobref, _)| *blobref);
            // A file that goes away with the instance is never started from.
            if !self.is_durable() {
                roots = Roots::default();
            }
            if batch.is_empty() && roots.is_empty() {
                return Ok(());
            }
            self.insert(&batch, &roots).await.map_err(|e| self.fail(e))
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
                    self.json(&text)
                })
                .collect()
        }
        .boxed()
    }

    fn namespaces(&self) -> BoxFuture<'_, Result<Roots, BackingError>> {
        async move {
            let rows = sqlx::query("SELECT name, root FROM namespace")
                .fetch_all(&self.readers)
                .await
                .map_err(|e| self.fail(e))?;
            let root = |row: &SqliteRow| {
                let name: String = row.try_get(0).map_err(|e| self.fail(e))?;
                let text: String = row.try_get(1).map_err(|e| self.fail(e))?;
                Ok((name, self.json(&text)?))
            };
            rows.iter().map(root).collect()
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
                .bind(self.options.max_checkpoints)
                .execute(&mut *tx)
                .await?;
                tx.commit().await
            };
            put.await.map_err(|e| self.fail(e))
        }
        .boxed()
    }

    fn names(&self) -> BoxStream<'_, Result<Vec<BlobRef>, BackingError>> {
        let page = async move |after: Vec<u8>| {
            let rows =
                sqlx::query("SELECT hash FROM objects WHERE hash > ?1 ORDER BY hash LIMIT ?2")
                    .bind(&after)
                    .bind(NAMES_AT_ONCE)
                    .fetch_all(&self.readers)
                    .await?;
            let digests = rows.iter().map(|row| row.try_get::<Vec<u8>, _>(0));
            let digests = digests.collect::<Result<Vec<_>, _>>()?;
            let last = digests.last().cloned();
            let names = digests.iter().filter_map(|raw| name(raw)).collect();
            Ok(last.map(|last| (names, last)))
        };
        let fail = |e| self.fail(e);
        futures::stream::try_unfold(Vec::new(), page)
            .map_err(fail)
            .boxed()
    }

    fn remove(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Removed, BackingError>> {
        async move {
            let mut q = QueryBuilder::<Db>::new("DELETE FROM objects WHERE hash IN (");
            let mut list = q.separated(",");
            for blobref in &blobrefs {
                list.push_bind(blobref.raw());
            }
            q.push(") RETURNING length(object)");
            let rows = q.build().persistent(false).fetch_all(&self.writer).await;
            let rows = rows.map_err(|e| self.fail(e))?;
            let bytes = |row: &SqliteRow| row.try_get::<i64, _>(0).unwrap_or(0) as u64;
            Ok(Removed {
                count: rows.len() as u64,
                bytes: rows.iter().map(bytes).sum(),
            })
        }
        .boxed()
    }

    fn give_back(&self) -> BoxFuture<'_, Result<bool, BackingError>> {
        async move {
            let free = self.number("PRAGMA freelist_count").await?;
            let all = self.number("PRAGMA page_count").await?;
            if free <= all / 4 || self.number("PRAGMA auto_vacuum").await? != INCREMENTAL {
                return Ok(false);
            }
            // The file becomes shorter when what the journal has goes into it.
            let text = format!(
                "PRAGMA incremental_vacuum({PAGES_AT_ONCE}); PRAGMA wal_checkpoint(PASSIVE)"
            );
            let given = self.writer.execute(&*text).await;
            given.map_err(|e| self.fail(e))?;
            Ok(self.number("PRAGMA freelist_count").await? < free)
        }
        .boxed()
    }

    fn used(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        async move {
            let pages = self.number("PRAGMA page_count").await?;
            let pages = pages - self.number("PRAGMA freelist_count").await?;
            Ok(pages * self.number("PRAGMA page_size").await?)
        }
        .boxed()
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        self.number("SELECT count(1) FROM objects").boxed()
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
