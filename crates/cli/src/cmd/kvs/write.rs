//! `flux kvs put`, `unlink`, `link`, `mkdir`, `copy`, `move`.

use std::io::Read;

use clap::Args;
use client::Handle;
use kvs::{TreeObj, Txn, flags};
use wire::RpcError;

use super::{COMMIT, Place};
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

/// What to print of the root a commit made.
#[derive(Args)]
struct Show {
    /// Print the new root as a tree object
    #[arg(short = 'O', long)]
    treeobj_root: bool,
    /// Print the new root's blob reference
    #[arg(short, long)]
    blobref: bool,
    /// Print the new root's sequence number
    #[arg(short, long)]
    sequence: bool,
}

impl Show {
    async fn commit(
        &self,
        handle: &Handle,
        namespace: Option<&str>,
        txn: &Txn,
        flags: u32,
    ) -> Outcome {
        let commit = kvs::client::commit_with(handle, namespace, txn, flags).await;
        let root = commit.context(COMMIT)?;
        if self.treeobj_root {
            let object = TreeObj::DirRef(root.rootref);
            outln!("{}", String::from_utf8_lossy(&object.encode()));
        } else if self.blobref {
            outln!("{}", root.rootref);
        } else if self.sequence {
            outln!("{}", root.rootseq);
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Put {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    show: Show,
    /// Store values as they are; KEY=- reads standard input
    #[arg(short, long)]
    raw: bool,
    /// Store tree objects; KEY=- reads standard input
    #[arg(short, long)]
    treeobj: bool,
    /// Do not merge with other commits
    #[arg(short, long)]
    no_merge: bool,
    /// Append to values
    #[arg(short = 'A', long)]
    append: bool,
    /// Write content and a checkpoint to disk before returning
    #[arg(short = 'S', long)]
    sync: bool,
    /// Keys and values
    #[arg(required = true, value_name = "KEY=VALUE")]
    pairs: Vec<String>,
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("stdin")?;
    Ok(bytes)
}

impl Put {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let mut txn = Txn::new();
        for pair in &self.pairs {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::new(format!("put: '{pair}' has no value; give it as key=value"))
            })?;
            if key.is_empty() {
                return Err(Failure::new(format!(
                    "put: '{pair}' has no key; give it as key=value"
                )));
            }
            let value = match value {
                "-" if self.raw || self.treeobj => stdin()?,
                value => value.as_bytes().to_vec(),
            };
            match (self.treeobj, self.append) {
                (true, _) => {
                    let object = serde_json::from_slice(&value)
                        .map_err(|e| Failure::new(format!("{key}: not a tree object: {e}")))?;
                    txn.put_treeobj(key, object)
                }
                (false, true) => txn.append(key, &value),
                (false, false) => txn.put_raw(key, &value),
            };
        }
        let set = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = set(self.no_merge, flags::NO_MERGE) | set(self.sync, flags::SYNC);
        self.show
            .commit(handle, self.namespace.as_deref(), &txn, flags)
            .await
    }
}

#[derive(Args)]
pub(super) struct Unlink {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    show: Show,
    /// Remove directories with all below them
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Ignore keys that do not exist
    #[arg(short, long)]
    force: bool,
    /// Keys
    #[arg(required = true)]
    key: Vec<String>,
}

impl Unlink {
    /// Whether a key may be removed. With `--force` it need not be there.
    async fn check(&self, handle: &Handle, place: &Place, key: &str) -> Result<(), RpcError> {
        let found = match place.lookup(handle, key, flags::TREEOBJ).await {
            Err(e) if e.errno == libc::ENOENT && self.force => return Ok(()),
            found => found?,
        };
        let is_dir = matches!(found, TreeObj::Dir(_) | TreeObj::DirRef(_));
        if is_dir && !self.recursive && !place.dir(handle, key).await?.is_empty() {
            return Err(RpcError::errno(libc::ENOTEMPTY));
        }
        Ok(())
    }

    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let place = Place::new(self.namespace.as_deref(), None)?;
        let mut txn = Txn::new();
        for key in &self.key {
            let what = format!("cannot unlink '{key}'");
            self.check(handle, &place, key).await.context(what)?;
            txn.unlink(key);
        }
        self.show
            .commit(handle, self.namespace.as_deref(), &txn, 0)
            .await
    }
}

#[derive(Args)]
pub(super) struct Link {
    /// KVS namespace of the link
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// KVS namespace of the target
    #[arg(short = 'T', long, value_name = "NAME")]
    target_namespace: Option<String>,
    #[command(flatten)]
    show: Show,
    /// Where the link leads
    target: String,
    /// The link
    linkname: String,
}

impl Link {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let mut txn = Txn::new();
        txn.symlink(
            &self.linkname,
            self.target_namespace.as_deref(),
            &self.target,
        );
        self.show
            .commit(handle, self.namespace.as_deref(), &txn, 0)
            .await
    }
}

#[derive(Args)]
pub(super) struct Mkdir {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    show: Show,
    /// Directories
    #[arg(required = true)]
    key: Vec<String>,
}

impl Mkdir {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let mut txn = Txn::new();
        for key in &self.key {
            txn.mkdir(key);
        }
        self.show
            .commit(handle, self.namespace.as_deref(), &txn, 0)
            .await
    }
}

#[derive(Args)]
pub(super) struct Copy {
    /// KVS namespace of the source
    #[arg(short = 'S', long, value_name = "NAME")]
    src_namespace: Option<String>,
    /// KVS namespace of the destination
    #[arg(short = 'D', long, value_name = "NAME")]
    dst_namespace: Option<String>,
    /// Key to copy
    source: String,
    /// Its copy
    destination: String,
}

impl Copy {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let place = Place::new(self.src_namespace.as_deref(), None)?;
        let found = place.lookup(handle, &self.source, flags::TREEOBJ).await;
        let mut txn = Txn::new();
        txn.put_treeobj(&self.destination, found.context(&self.source)?);
        let commit = kvs::client::commit(handle, self.dst_namespace.as_deref(), &txn);
        commit.await.context(&self.destination)?;
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Move {
    #[command(flatten)]
    copy: Copy,
}

impl Move {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let source = self.copy.source.clone();
        let namespace = self.copy.src_namespace.clone();
        self.copy.run(handle).await?;
        let mut txn = Txn::new();
        txn.unlink(&source);
        let commit = kvs::client::commit(handle, namespace.as_deref(), &txn);
        commit.await.context(source)?;
        Ok(0)
    }
}
