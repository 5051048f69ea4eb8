//! `flux archive create`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Parser;
use client::{Handle, Node, RpcError};
use filemap::pack::{Large, Packed, files, pack};
use filemap::stored;
use formats::archive::Entry;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kvs::{BlobRef, HashAlg, TreeObj, Txn};
use serde_json::{Value, json};

use super::{Directory, Which};
use crate::error::{Context as _, Failure, Outcome, rpc_text};
use formats::size;

/// Bytes of blobs on their way to the content store; a larger blob goes alone.
const WINDOW: usize = 32 << 20;

#[derive(Parser)]
pub(in crate::cmd) struct Create {
    #[command(flatten)]
    pub(in crate::cmd) which: Which,
    #[command(flatten)]
    pub(super) directory: Directory,
    /// Show the files on standard error
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = 0)]
    verbose: u8,
    /// Replace the archive if it exists
    #[arg(long)]
    overwrite: bool,
    /// Add to the archive if it exists
    #[arg(long, conflicts_with = "overwrite")]
    append: bool,
    /// Keep the content of large files over a restart with garbage collection
    #[arg(long)]
    preserve: bool,
    /// Leave the content of large files where it is: they must not change (rank 0 only)
    #[arg(long)]
    pub(in crate::cmd) mmap: bool,
    /// Bytes of a large file in one blob at most, 0: no limit
    #[arg(long, value_name = "N", default_value = "1M", value_parser = size::parse)]
    chunksize: u64,
    /// Files with more bytes than this are large
    #[arg(long, value_name = "N", default_value = "1K", value_parser = size::parse)]
    small_file_threshold: u64,
    /// Files, and directories with all they have
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// An archive that is being made.
struct Archive<'a> {
    options: &'a Create,
    handle: &'a Handle,
    alg: HashAlg,
    objects: Vec<Value>,
    /// With `--preserve`: a reference to each blob.
    blobs: Vec<BlobRef>,
    stores: Stores<'a>,
}

/// Blobs on their way to the content store.
struct Stores<'a> {
    handle: &'a Handle,
    calls: FuturesUnordered<futures::future::BoxFuture<'a, (usize, Result<(), RpcError>)>>,
    bytes: usize,
}

impl Stores<'_> {
    async fn add(&mut self, blob: Bytes) -> Result<(), Failure> {
        while self.bytes > 0 && self.bytes + blob.len() > WINDOW {
            self.wait().await?;
        }
        let size = blob.len();
        self.bytes += size;
        let rpc = self.handle.rpc_raw("content.store", Node::Any, Some(blob));
        let call = async move { (size, rpc.await.map(drop)) };
        self.calls.push(Box::pin(call));
        Ok(())
    }

    async fn wait(&mut self) -> Result<bool, Failure> {
        let Some((size, stored)) = self.calls.next().await else {
            return Ok(false);
        };
        self.bytes -= size;
        stored.context("error storing a blob")?;
        Ok(true)
    }
}

impl Archive<'_> {
    async fn add(&mut self, path: &Path) -> Result<(), Failure> {
        let options = self.options;
        let (small, chunk) = (options.small_file_threshold, options.chunksize);
        let Some(packed) = pack(path, small, chunk)? else {
            return Ok(());
        };
        if options.verbose > 0 {
            eprintln!("{}", path.display());
        }
        let entry = match packed {
            Packed::Whole(entry) => entry,
            Packed::Large(large) => self.store(path, large).await?,
        };
        self.objects.push(object(&entry));
        Ok(())
    }

    async fn store(&mut self, path: &Path, mut large: Large) -> Result<Entry, Failure> {
        while let Some((blobref, blob)) = large.next(self.alg)? {
            if !self.options.mmap {
                self.stores.add(blob).await?;
            }
            if self.options.preserve {
                self.blobs.push(blobref);
            }
        }
        if self.options.mmap {
            let full = path.canonicalize().context(path.display())?;
            let request = json!({
                "path": full, "chunksize": self.options.chunksize, "tag": self.options.which.name,
            });
            let map = self.handle.rpc("content.mmap-add", Node::Any, &request);
            map.await?;
        }
        Ok(large.finish())
    }
}

fn object(entry: &Entry) -> Value {
    let mut object = entry.to_map();
    object.insert("path".to_owned(), json!(entry.path));
    object.into()
}

impl Create {
    fn check(&self, rank: u32) -> Result<(), Failure> {
        let refuse = |what| Err(Failure::new(format!("--mmap {what}")));
        match self.mmap {
            true if rank > 0 => refuse("only works on the rank 0 broker"),
            true if self.preserve => refuse("cannot work with --preserve"),
            true if self.which.no_force_primary => refuse("cannot work with --no-force-primary"),
            _ => Ok(()),
        }
    }

    /// What the archive has already.
    async fn present(&self, handle: &Handle) -> Result<Vec<Value>, Failure> {
        if self.overwrite {
            super::remove::unmap(handle, &self.which.name).await?;
            return Ok(Vec::new());
        }
        let which = &self.which;
        let present = stored::objects(handle, which.namespace(), &which.name, false);
        match present.await? {
            Some(_) if !self.append => {
                let hint = "use --overwrite or --append";
                Err(Failure::new(format!("{}: key exists: {hint}", which.key())))
            }
            present => Ok(present.unwrap_or_default()),
        }
    }

    /// The number of the first reference that is not taken.
    async fn first_reference(&self, handle: &Handle) -> Result<u64, Failure> {
        let (namespace, key) = (self.which.namespace(), stored::blobs_key(&self.which.name));
        match kvs::client::lookup(handle, namespace, &key, kvs::flags::READDIR).await {
            Ok(TreeObj::Dir(dir)) => {
                let taken = dir.iter().filter_map(|(name, _)| name.parse::<u64>().ok());
                Ok(taken.max().map_or(0, |last| last + 1))
            }
            Ok(_) => Ok(0),
            Err(e) if e.errno == libc::ENOENT => Ok(0),
            Err(e) => Err(Failure::new(format!("{key}: {}", rpc_text(&e)))),
        }
    }

    pub(super) async fn run(&self, handle: &Handle) -> Outcome {
        self.check(handle.locate().await?.0)?;
        let alg = handle.getattr("content.hash").await?;
        let alg = alg
            .parse()
            .map_err(|e| Failure::new(format!("attribute content.hash: {e}")))?;
        // Nothing refers to the blobs before the commit.
        let hold = kvs::client::GcHold::acquire(handle).await;
        let _hold = hold.context("keeping garbage from being collected")?;
        let mut archive = Archive {
            options: self,
            handle,
            alg,
            objects: self.present(handle).await?,
            blobs: Vec::new(),
            stores: Stores {
                handle,
                calls: FuturesUnordered::new(),
                bytes: 0,
            },
        };
        for path in &self.paths {
            for file in files(path)? {
                archive.add(&file).await?;
            }
        }
        while archive.stores.wait().await? {}
        self.commit(handle, archive).await
    }

    async fn commit(&self, handle: &Handle, archive: Archive<'_>) -> Outcome {
        let blobs_key = stored::blobs_key(&self.which.name);
        let mut txn = Txn::new();
        if self.overwrite {
            txn.unlink(&blobs_key);
        }
        if !archive.blobs.is_empty() {
            let first = match self.append {
                true => self.first_reference(handle).await?,
                false => 0,
            };
            for (number, blobref) in (first..).zip(archive.blobs) {
                let reference = TreeObj::ValRef(vec![blobref].into());
                txn.put_treeobj(&format!("{blobs_key}.{number}"), reference);
            }
        }
        let objects = Value::from(archive.objects).to_string();
        txn.put(&self.which.key(), &objects);
        let commit = kvs::client::commit(handle, self.which.namespace(), &txn).await;
        commit.context("kvs commit")?;
        Ok(0)
    }
}
