//! A store behind a journal.
//!
//! What is stored is appended to a file that is synced: this is what an acknowledgement waits for. The store itself gets
//! it later, megabytes at a time, in one transaction and in the store's own order. A transaction for each batch would
//! write a page of the store's index for nearly every blob, more of them the larger the store is.
//!
//! Two files take turns: while the store takes in what the one holds, batches go to the other. A file whose records the
//! store has is *void*: its first bytes are overwritten and synced, before the other's turn comes, so that an old root
//! never follows a newer one. Files are written again from their beginning, in place, which makes syncing cheap.

mod record;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use super::{Backing, BackingError, LOAD_LIMIT, Loaded, Removed, beside, remove_files};
use crate::BlobRef;
use crate::roots::Roots;
use record::Record;

/// Bytes after which the store gets what a file holds, unless told otherwise.
const TURN: usize = 16 << 20;
/// So many turns may wait for a store that is slower than those who store.
const MOST_TURNS: usize = 4;

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of blobs after which the files change turns. A batch as large as that does without the journal.
    pub turn: usize,
    /// An acknowledgement waits until the file is synced.
    pub syncs: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            turn: TURN,
            syncs: true,
        }
    }
}

/// Blobs that are in the journal alone.
#[derive(Default)]
struct Young {
    blobs: HashMap<BlobRef, Bytes>,
    bytes: usize,
    roots: Roots,
}

impl Young {
    fn add(&mut self, blobs: Vec<(BlobRef, Bytes)>, roots: Roots) {
        for (blobref, data) in blobs {
            self.bytes += data.len();
            if let Some(before) = self.blobs.insert(blobref, data) {
                self.bytes -= before.len();
            }
        }
        self.roots.merge(roots);
    }

    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.roots.is_empty()
    }
}

/// Young blobs that the store is taking in, and the files that hold them.
struct Ripe {
    young: Arc<Young>,
    files: Vec<usize>,
}

#[derive(Default)]
struct Books {
    young: Young,
    ripe: Option<Ripe>,
    /// The store has refused what is ripe; it is asked again before anything else is stored.
    refused: bool,
}

/// Where the next record goes.
struct Head {
    file: usize,
    offset: u64,
    number: u64,
}

struct Shared<S> {
    store: S,
    settings: Settings,
    paths: [PathBuf; 2],
    files: [Arc<File>; 2],
    books: Mutex<Books>,
    /// Whoever appends, or makes young blobs ripe.
    head: AsyncMutex<Head>,
    /// Whoever hands what is ripe to the store.
    settling: AsyncMutex<()>,
}

/// A store with a journal before it.
pub struct Journaled<S>(Arc<Shared<S>>);

/// The files of a journal that is called `path`.
fn paths(path: &Path) -> [PathBuf; 2] {
    [".0", ".1"].map(|suffix| beside(path, suffix))
}

/// Whether a journal of this name was left behind.
pub fn is_there(path: &Path) -> bool {
    paths(path).iter().any(|path| path.exists())
}

/// Removes a journal.
pub fn remove(path: &Path) -> Result<(), BackingError> {
    remove_files(paths(path))
}

/// Opens a file of a journal: its records, and itself.
fn open(path: &Path) -> std::io::Result<(Vec<Record>, Arc<File>)> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    let records = record::read(std::fs::read(path)?.into());
    Ok((records, Arc::new(file)))
}

/// Work with files, away from the tasks.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, BackingError> {
    let done = tokio::task::spawn_blocking(work).await;
    let result = done.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    result.map_err(BackingError::file(path))
}

impl<S: Backing + 'static> Journaled<S> {
    /// Opens the journal `path`, in two files of this name, and hands what it holds to `store`, which must be durable. If that takes nothing
    /// for now, all there is can be read, and storing tries again.
    pub async fn open(store: S, path: &Path, settings: Settings) -> Result<Self, BackingError> {
        let paths = paths(path);
        let open = |path: &PathBuf| open(path).map_err(BackingError::file(path));
        let ((mut records, first), (others, second)) = (open(&paths[0])?, open(&paths[1])?);
        records.extend(others);
        let files = [first, second];
        // A file that is new is there after a loss of power once its directory is synced.
        let directory = path.parent().unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(BackingError::file(directory))?;
        records.sort_by_key(|record| record.number);
        // Nobody can guess it: bytes of a blob that stand behind the last record are not taken for the next one.
        let mut number = rand::random::<u64>() >> 1;
        let mut young = Young::default();
        for record in records {
            number = record.number + 1;
            young.add(record.blobs, record.roots);
        }
        if young.is_empty() {
            // Numbers begin anew, so nothing older may follow them.
            for (file, path) in files.iter().zip(&paths) {
                let emptied = file.set_len(0).and_then(|()| file.sync_all());
                emptied.map_err(BackingError::file(path))?;
            }
        }
        let ripe = (!young.is_empty()).then(|| Ripe {
            young: Arc::new(young),
            files: vec![0, 1],
        });
        let journaled = Self(Arc::new(Shared {
            store,
            settings,
            paths,
            files,
            books: Mutex::new(Books {
                ripe,
                ..Books::default()
            }),
            head: AsyncMutex::new(Head {
                file: 0,
                offset: 0,
                number,
            }),
            settling: AsyncMutex::new(()),
        }));
        match journaled.0.settle().await {
            // It can still be read.
            Ok(()) | Err(BackingError::Sqlite { .. } | BackingError::File { .. }) => Ok(journaled),
            Err(e) => Err(e),
        }
    }

    /// The store itself, once it has all there is.
    async fn settled(&self) -> Result<&S, BackingError> {
        let mut head = self.0.head.lock().await;
        self.0.settle_all(&mut head).await?;
        Ok(&self.0.store)
    }
}

impl<S: Backing + 'static> Shared<S> {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Nobody panics with the books open.
        self.books.lock().expect("the books are consistent")
    }

    fn young(&self, blobref: &BlobRef) -> Option<Bytes> {
        let books = self.books();
        let ripe = || books.ripe.as_ref()?.young.blobs.get(blobref);
        books.young.blobs.get(blobref).or_else(ripe).cloned()
    }

    /// Hands what is ripe to the store, and voids the files that hold it.
    async fn settle(&self) -> Result<(), BackingError> {
        let _one = self.settling.lock().await;
        let ripe = self.books().ripe.as_ref().map(|ripe| {
            let files = ripe.files.clone();
            (ripe.young.clone(), files)
        });
        let Some((young, files)) = ripe else {
            return Ok(());
        };
        let result = self.settle_ripe(&young, files).await;
        let mut books = self.books();
        books.refused = result.is_err();
        if result.is_ok() {
            books.ripe = None;
        }
        result
    }

    async fn settle_ripe(&self, young: &Young, files: Vec<usize>) -> Result<(), BackingError> {
        let blobs = young.blobs.iter().map(|(r, data)| (*r, data.clone()));
        let stored = self.store.store_batch(blobs.collect(), young.roots.clone());
        stored.await?;
        for number in files {
            let file = self.files[number].clone();
            blocking(&self.paths[number], move || {
                file.write_all_at(&[0; 4], 0)?;
                file.sync_data()
            })
            .await?;
        }
        Ok(())
    }

    /// The files change turns. Nothing may be ripe.
    fn turn(&self, head: &mut Head) {
        let mut books = self.books();
        books.ripe = Some(Ripe {
            young: Arc::new(std::mem::take(&mut books.young)),
            files: vec![head.file],
        });
        head.file = 1 - head.file;
        head.offset = 0;
    }

    async fn settle_all(&self, head: &mut Head) -> Result<(), BackingError> {
        self.settle().await?;
        if !self.books().young.is_empty() {
            self.turn(head);
            self.settle().await?;
        }
        Ok(())
    }

    async fn append(&self, head: &mut Head, record: Bytes) -> Result<(), BackingError> {
        let (file, offset, syncs) = (
            self.files[head.file].clone(),
            head.offset,
            self.settings.syncs,
        );
        let length = record.len() as u64;
        blocking(&self.paths[head.file], move || {
            file.write_all_at(&record, offset)?;
            match syncs {
                true => file.sync_data(),
                false => Ok(()),
            }
        })
        .await?;
        head.offset += length;
        head.number += 1;
        Ok(())
    }
}

impl<S: Backing + 'static> Backing for Journaled<S> {
    fn load(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Loaded, BackingError>> {
        async move {
            let mut loaded = Loaded::new(0);
            let mut others = Vec::with_capacity(blobrefs.len());
            let mut bytes = 0;
            for blobref in blobrefs {
                if bytes > LOAD_LIMIT {
                    loaded.is_complete = false;
                    return Ok(loaded);
                }
                match self.0.young(&blobref) {
                    Some(data) => {
                        bytes += data.len();
                        loaded.blobs.push((blobref, Ok(data)));
                    }
                    None => others.push(blobref),
                }
            }
            if !others.is_empty() {
                let mut stored = self.0.store.load(others).await?;
                loaded.blobs.append(&mut stored.blobs);
                loaded.is_complete = stored.is_complete;
            }
            Ok(loaded)
        }
        .boxed()
    }

    fn contains(&self, blobref: BlobRef) -> BoxFuture<'_, Result<bool, BackingError>> {
        match self.0.young(&blobref) {
            Some(_) => futures::future::ready(Ok(true)).boxed(),
            None => self.0.store.contains(blobref),
        }
    }

    fn store_batch(
        &self,
        batch: Vec<(BlobRef, Bytes)>,
        roots: Roots,
    ) -> BoxFuture<'_, Result<(), BackingError>> {
        async move {
            let turn = self.0.settings.turn;
            if batch.is_empty() && roots.is_empty() {
                return Ok(());
            }
            let mut head = self.0.head.lock().await;
            let waits = {
                let books = self.0.books();
                books.refused || books.young.bytes >= turn * MOST_TURNS
            };
            if waits {
                self.0.settle_all(&mut head).await?;
            }
            let bytes: usize = batch.iter().map(|(_, data)| data.len()).sum();
            let record = match bytes >= turn {
                true => None,
                false => record::encode(head.number, &batch, &roots),
            };
            let Some(record) = record else {
                self.0.settle_all(&mut head).await?;
                return self.0.store.store_batch(batch, roots).await;
            };
            self.0.append(&mut head, record).await?;
            let turns = {
                let mut books = self.0.books();
                books.young.add(batch, roots);
                books.young.bytes >= turn && books.ripe.is_none()
            };
            if turns {
                self.0.turn(&mut head);
                let shared = self.0.clone();
                // What it says is asked for by the next who stores.
                tokio::spawn(async move { shared.settle().await.is_ok() });
            }
            Ok(())
        }
        .boxed()
    }

    fn checkpoints(&self) -> BoxFuture<'_, Result<Vec<Value>, BackingError>> {
        async move { self.settled().await?.checkpoints().await }.boxed()
    }

    fn namespaces(&self) -> BoxFuture<'_, Result<Roots, BackingError>> {
        async move { self.settled().await?.namespaces().await }.boxed()
    }

    fn checkpoint_put(&self, value: Value) -> BoxFuture<'_, Result<(), BackingError>> {
        async move { self.settled().await?.checkpoint_put(value).await }.boxed()
    }

    fn names(&self) -> BoxStream<'_, Result<Vec<BlobRef>, BackingError>> {
        async move { self.settled().await.map(Backing::names) }
            .try_flatten_stream()
            .boxed()
    }

    fn remove(&self, blobrefs: Vec<BlobRef>) -> BoxFuture<'_, Result<Removed, BackingError>> {
        async move { self.settled().await?.remove(blobrefs).await }.boxed()
    }

    fn give_back(&self) -> BoxFuture<'_, Result<bool, BackingError>> {
        self.0.store.give_back()
    }

    fn used(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        async move {
            let stored = self.0.store.used().await?;
            let books = self.0.books();
            let ripe = books.ripe.as_ref().map_or(0, |ripe| ripe.young.bytes);
            Ok(stored + (books.young.bytes + ripe) as u64)
        }
        .boxed()
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, BackingError>> {
        async move { self.settled().await?.count().await }.boxed()
    }

    fn is_durable(&self) -> bool {
        self.0.store.is_durable()
    }

    fn describe(&self) -> Value {
        let mut described = self.0.store.describe();
        let young = self.0.books().young.bytes;
        described["journal"] = json!({ "bytes": young, "syncs": self.0.settings.syncs });
        described
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            let settled = self.settled().await.is_ok();
            self.0.store.close().await;
            if settled {
                // The store has everything; a file that stays is void.
                let _ = remove_files(self.0.paths.clone());
            }
        }
        .boxed()
    }
}
