//! `flux archive remove`.

use clap::Parser;
use client::{Handle, Node};
use filemap::stored;
use kvs::Txn;
use serde_json::json;

use super::Which;
use crate::error::{Context as _, Failure, Outcome};

#[derive(Parser)]
pub(in crate::cmd) struct Remove {
    #[command(flatten)]
    pub(in crate::cmd) which: Which,
    /// It is fine if there is no such archive
    #[arg(short, long)]
    force: bool,
}

/// Has rank 0 forget the files that were mapped for an archive.
pub(super) async fn unmap(handle: &Handle, name: &str) -> Result<(), Failure> {
    let request = json!({ "tag": name });
    let unmap = handle.rpc("content.mmap-remove", Node::Rank(0), &request);
    unmap.await.map(drop).context(format!("unmapping {name}"))
}

impl Remove {
    pub(super) async fn run(&self, handle: &Handle) -> Outcome {
        let which = &self.which;
        if !self.force {
            which.objects(handle, None).await?;
        }
        let mut txn = Txn::new();
        txn.unlink(&which.key())
            .unlink(&stored::blobs_key(&which.name));
        let commit = kvs::client::commit(handle, which.namespace(), &txn).await;
        commit.context(format!("removing {}", which.key()))?;
        unmap(handle, &which.name).await?;
        Ok(0)
    }
}
