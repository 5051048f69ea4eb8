//! `flux kvs getroot`, `version`, `wait`, `sync`: roots and their sequence numbers.

use clap::Args;
use client::{Handle, Node};
use kvs::{Txn, flags};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{COMMIT, Place};
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

#[derive(Args)]
pub(super) struct Getroot {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Print the sequence number
    #[arg(short, long)]
    sequence: bool,
    /// Print the owner
    #[arg(short, long)]
    owner: bool,
    /// Print the blob reference
    #[arg(short, long)]
    blobref: bool,
}

#[derive(Deserialize)]
struct Root {
    owner: u32,
    rootseq: i64,
    rootref: String,
}

/// Where a namespace's root is; `call` names what failed if it does.
async fn root(handle: &Handle, namespace: Option<&str>, call: &str) -> Result<Root, Failure> {
    let request = match Place::new(namespace, None)? {
        Place::Namespace(name) => json!({"namespace": name, "flags": 0}),
        Place::Snapshot(_) => Value::Null,
    };
    let root = handle.call("kvs.getroot", Node::Any, &request).await;
    root.context(call)
}

impl Getroot {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let root = root(handle, self.namespace.as_deref(), "flux_kvs_getroot").await?;
        if self.owner {
            outln!("{}", root.owner);
        } else if self.sequence {
            outln!("{}", root.rootseq);
        } else if self.blobref {
            outln!("{}", root.rootref);
        } else {
            outln!(
                "{}",
                json!({"data": [root.rootref], "type": "dirref", "ver": 1})
            );
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Version {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
}

impl Version {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let root = root(handle, self.namespace.as_deref(), "flux_kvs_get_version").await?;
        outln!("{}", root.rootseq);
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Wait {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Sequence number to wait for
    version: i64,
}

impl Wait {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let wait = kvs::client::wait_version(handle, self.namespace.as_deref(), self.version);
        wait.await.context("flux_kvs_wait_version")?;
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Sync {}

impl Sync {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let commit = kvs::client::commit_with(handle, None, &Txn::new(), flags::SYNC);
        commit.await.context(COMMIT)?;
        Ok(0)
    }
}
