//! `flux restore`: read a snapshot of the key-value store from an archive.
//!
//! A thread of its own reads and decompresses while blobs are being stored. In memory is the tree of the keys, with
//! values that are shorter than a reference to them.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;
use clap::Parser;
use client::{Handle, RpcError};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kvs::{BlobRef, TreeObj, Txn};
use tokio::sync::mpsc::{Sender, channel};

use super::dump::at_least_one;
use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::snapshot::archive::{self, Body, Entry};
use crate::snapshot::{
    Checkpoint, Clash, Content, Manner, Node, Progress, Tree, Way, compression, kvs_is_running,
};

/// Entries that wait to be stored.
const WAITING: usize = 64;
/// Shorter values are kept in their directories.
const INLINE: usize = 72;

/// Read a snapshot of the key-value store from an archive.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    manner: Manner,
    /// Make it the root the key-value store starts with next
    #[arg(long)]
    checkpoint: bool,
    /// Make it the directory KEY
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Write to the store, not through the caches
    #[arg(long)]
    no_cache: bool,
    /// Leave out keys with more than SIZE bytes (0: none)
    #[arg(long, value_name = "SIZE", value_parser = formats::size::parse)]
    size_limit: Option<u64>,
    /// How many blobs to store at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    maxreqs: usize,
    /// The archive, or - for standard input
    infile: String,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    if !options.checkpoint && options.key.is_none() {
        let text = "say where to restore to: --checkpoint or --key=KEY";
        return Err(Failure::new(text));
    }
    block_on(restore(options))
}

type Read1 = Result<Entry, (String, u64)>;

/// Hand on what the archive has.
fn read(path: &str, limit: Option<u64>, entries: &Sender<Read1>) -> io::Result<()> {
    let from: Box<dyn Read> = match path {
        "-" => Box::new(io::stdin()),
        _ => Box::new(File::open(path)?),
    };
    let from = compression::reader(BufReader::new(from))?;
    archive::read(from, limit, |entry| {
        let gone = |_| io::Error::other("nobody takes what is read");
        entries.blocking_send(entry).map_err(gone)
    })
}

/// Blobs that go into one request, and bytes of them.
const BLOBS_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 1 << 20;

/// Stores that are under way.
struct Stores<'a> {
    content: &'a Content<'a>,
    /// Requests, each with the number of its blobs.
    calls: FuturesUnordered<BoxFuture<'a, Result<usize, RpcError>>>,
    under_way: usize,
    next: Vec<Bytes>,
    bytes: usize,
    most: usize,
}

impl<'a> Stores<'a> {
    fn new(content: &'a Content<'a>, most: usize) -> Self {
        Stores {
            content,
            calls: FuturesUnordered::new(),
            under_way: 0,
            next: Vec::new(),
            bytes: 0,
            most,
        }
    }

    async fn add(&mut self, blob: Bytes) -> Result<(), Failure> {
        self.bytes += blob.len();
        self.next.push(blob);
        let is_full = self.next.len() >= BLOBS_AT_ONCE.min(self.most);
        if is_full || self.bytes >= BYTES_AT_ONCE {
            self.send();
            self.down_to(self.most.saturating_sub(BLOBS_AT_ONCE))
                .await?;
        }
        Ok(())
    }

    fn send(&mut self) {
        let (content, blobs) = (self.content, std::mem::take(&mut self.next));
        let count = blobs.len();
        (self.under_way, self.bytes) = (self.under_way + count, 0);
        self.calls.push(Box::pin(async move {
            content.store_all(blobs).await.map(|()| count)
        }));
    }

    async fn down_to(&mut self, count: usize) -> Result<(), Failure> {
        while self.under_way > count
            && let Some(stored) = self.calls.next().await
        {
            self.under_way -= stored.context("error storing a blob")?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Failure> {
        self.send();
        self.down_to(0).await
    }
}

/// Where a file of the archive goes.
fn key(path: &str) -> Vec<&str> {
    let parts = path.split('/');
    parts.filter(|part| !matches!(*part, "" | ".")).collect()
}

/// Store what the archive has: the root, and the time it is from.
async fn store(
    options: &Options,
    content: &Content<'_>,
    progress: &mut Progress<'_>,
) -> Result<(BlobRef, u64), Failure> {
    let (entries, mut waiting) = channel(WAITING);
    let (path, limit) = (
        options.infile.clone(),
        options.size_limit.filter(|l| *l > 0),
    );
    let reader = tokio::task::spawn_blocking(move || read(&path, limit, &entries));
    let mut stores = Stores::new(content, options.maxreqs);
    let (mut tree, mut time) = (Tree::default(), 0);
    while let Some(entry) = waiting.recv().await {
        let Entry { path, body, mtime } = match entry {
            Ok(entry) => entry,
            Err((path, size)) => {
                eprintln!("flux-restore: {path}: skipped, its {size} bytes exceed the size limit");
                continue;
            }
        };
        let object = match body {
            Body::Link(link) => TreeObj::Symlink(link.into()),
            Body::Value(parts) => {
                let blob: Bytes = parts.concat().into();
                match blob.len() < INLINE {
                    true => TreeObj::val(&blob),
                    false => {
                        let blobref = content.alg.hash(&blob);
                        stores.add(blob).await?;
                        TreeObj::ValRef(vec![blobref].into())
                    }
                }
            }
        };
        let inserted = tree.insert(&key(&path), Node::Object(object), Clash::Refuse);
        inserted.map_err(|e| Failure::new(format!("{path}: {e}")))?;
        time = time.max(mtime);
        progress.key(&path);
    }
    let done = reader.await.map_err(|e| Failure::new(e.to_string()))?;
    done.context(&options.infile)?;
    let mut root = None;
    for (blobref, blob) in tree.seal(content.alg) {
        stores.add(blob).await?;
        root = Some(blobref);
    }
    stores.finish().await?;
    // A tree has a root directory at least.
    let root = root.expect("a sealed tree has a root");
    Ok((root, time))
}

async fn restore(options: Options) -> Outcome {
    let handle = Handle::open(None).await?;
    let content = Content::open(&handle, Way::new(options.no_cache)).await?;
    if options.checkpoint && kvs_is_running(&handle).await {
        let text = "please unload the kvs module before using --checkpoint";
        return Err(Failure::new(text));
    }
    // Nothing refers to the blobs before the end. A KVS that is not there collects nothing.
    let _hold = match kvs::client::GcHold::acquire(&handle).await {
        Err(e) if e.errno == libc::ENOSYS => None,
        hold => Some(hold.context("keeping garbage from being collected")?),
    };
    let mut progress = Progress::new(&handle, options.manner, "flux-restore", "restored");
    let (root, time) = store(&options, &content, &mut progress).await?;
    progress.end();
    let say = |to: &str| {
        if !options.manner.quiet {
            eprintln!("flux-restore: writing snapshot {root} to {to}");
        }
    };
    match &options.key {
        Some(key) if !options.checkpoint => {
            say(&format!("KVS key {key}"));
            let mut txn = Txn::new();
            txn.put_treeobj(key, TreeObj::DirRef(root));
            let commit = kvs::client::commit(&handle, None, &txn).await;
            commit.context(format!("error updating {key}"))?;
        }
        _ => {
            say("the checkpoint the KVS starts with next");
            let checkpoint = Checkpoint::new(root, 0, time as f64);
            content.put_checkpoint(&checkpoint).await?;
        }
    }
    if !options.no_cache
        && let Err(e) = content.flush().await
        && e.errno != libc::ENOSYS
    {
        return Err(e).context("error flushing the content cache");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(key("./a//b/c"), ["a", "b", "c"]);
        assert_eq!(key("./"), [""; 0]);
    }
}
