//! `flux dump`: a snapshot of the key-value store as an archive.
//!
//! Loads are under way while a thread of its own compresses and writes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use clap::Parser;
use client::Handle;
use formats::eventlog::timestamp;
use kvs::BlobRef;
use tokio::sync::mpsc::{Receiver, channel};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::snapshot::archive::{Body, Stamp, Writer};
use crate::snapshot::compression::Compression;
use crate::snapshot::{Content, Found, Manner, Progress, Walk, Way, What, visit};

/// Entries that wait to be written.
const WAITING: usize = 256;

/// Write a snapshot of the key-value store to an archive.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    manner: Manner,
    /// Take the checkpoint that was stored last, not the present root
    #[arg(long)]
    checkpoint: bool,
    /// Read from the store, not through the caches
    #[arg(long)]
    no_cache: bool,
    /// Warn of keys whose data is lost and leave them out
    #[arg(long)]
    ignore_failed_read: bool,
    /// How many blobs to load at once (default: 64, or 1024 with --no-cache)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    maxreqs: Option<usize>,
    /// The archive (.tar, compressed as its suffix says), or - for standard output
    outfile: String,
}

/// Parses a number of requests.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(dump(options))
}

type Sink = Writer<crate::snapshot::compression::Encoder<BufWriter<Box<dyn Write + Send>>>>;

/// The archive, open for writing, and its file if it is one.
fn create(path: &str, stamp: Stamp) -> Result<(Sink, Option<File>), Failure> {
    let (out, file, compression): (Box<dyn Write + Send>, _, _) = match path {
        "-" => (Box::new(io::stdout()), None, Compression::None),
        _ => {
            let compression = Compression::of_name(path).map_err(Failure::new)?;
            let file = File::create(path).context(path)?;
            let keep = file.try_clone().context(path)?;
            (Box::new(file), Some(keep), compression)
        }
    };
    let encoder = compression.writer(BufWriter::new(out)).context(path)?;
    Ok((Writer::new(encoder, stamp), file))
}

/// Write what comes, to the end.
fn write(
    mut sink: Sink,
    file: Option<File>,
    mut entries: Receiver<(String, Body)>,
) -> io::Result<()> {
    while let Some((path, body)) = entries.blocking_recv() {
        sink.append(&path, &body)?;
    }
    sink.finish()?.finish()?.flush()?;
    match file.filter(|f| f.metadata().is_ok_and(|m| m.is_file())) {
        Some(file) => file.sync_all(),
        None => Ok(()),
    }
}

/// The root to dump, and the time it is from.
async fn source(
    options: &Options,
    handle: &Handle,
    content: &Content<'_>,
) -> Result<(BlobRef, f64), Failure> {
    if options.checkpoint {
        let checkpoint = content.checkpoint().await?;
        return Ok((checkpoint.rootref, checkpoint.timestamp));
    }
    let root = kvs::client::getroot(handle, Some(kvs::PRIMARY)).await;
    let root = root.context("error fetching the current KVS root")?;
    Ok((root.rootref, timestamp(SystemTime::now())))
}

async fn dump(options: Options) -> Outcome {
    let handle = Handle::open(None).await?;
    let content = Content::open(&handle, Way::new(options.no_cache)).await?;
    if options.no_cache {
        // What is not in the store yet would be missed. If it cannot be stored the walk finds out.
        let _ = content.flush().await;
    }
    let (root, time) = source(&options, &handle, &content).await?;
    let stamp = Stamp {
        mtime: time as u64,
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    };
    let (sink, file) = create(&options.outfile, stamp)?;
    let (entries, waiting) = channel(WAITING);
    let writer = tokio::task::spawn_blocking(move || write(sink, file, waiting));
    let mut progress = Progress::new(&handle, options.manner, "flux-dump", "archived");
    let walk = Walk::new(root, '/');
    let visited = visit(walk, &content, options.maxreqs, async |found: Found| {
        let body = match body(found.what) {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(()),
            Err(why) => {
                let why = match &*found.key {
                    "" => format!("root directory: {why}"),
                    key => format!("{key}: {why}"),
                };
                // Without its root nothing is left of a tree.
                if !options.ignore_failed_read || found.key.is_empty() {
                    return Err(Failure::new(why));
                }
                eprintln!("{why}");
                return Ok(());
            }
        };
        progress.key(&found.key);
        // If the writer is gone it says why.
        entries
            .send((found.key.to_string(), body))
            .await
            .map_err(|_| Failure::new("the archive cannot be written"))
    });
    let visited = visited.await;
    drop(entries);
    let written = writer.await.map_err(|e| Failure::new(e.to_string()))?;
    written.context(&options.outfile)?;
    visited?;
    progress.end();
    Ok(0)
}

/// What the archive has of a key, if anything.
fn body(what: What) -> Result<Option<Body>, String> {
    match what {
        What::Dir => Ok(None),
        What::Link(link) => Ok(Some(Body::Link((*link).clone()))),
        What::Value(Some(data)) => Ok(Some(Body::Value(vec![data]))),
        What::Value(None) => Err("the value is damaged: it is not base64".to_owned()),
        What::LostDir(fault) => Err(format!("cannot read the directory: {fault}")),
        What::Blobs(refs, parts) => {
            let named = |(index, part): (usize, Result<_, _>)| {
                part.map_err(|fault| format!("missing blobref {index}: {}: {fault}", refs[index]))
            };
            let parts: Result<Vec<_>, String> = parts.into_iter().enumerate().map(named).collect();
            Ok(Some(Body::Value(parts?)))
        }
    }
}
