//! `flux kvs getroot`, `version`, `wait`, `sync`: roots and their sequence numbers.

use clap::Args;
use client::{Handle, Node};
use kvs::{Txn, flags};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Place;
use crate::error::Outcome;
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

async fn root(handle: &Handle, namespace: Option<&str>) -> Result<Root, crate::error::Failure> {
    let request = match Place::new(namespace, None)? {
        Place::Namespace(name) => json!({"namespace": name, "flags": 0}),
        Place::Snapshot(_) => Value::Null,
    };
    Ok(handle.call("kvs.getroot", Node::Any, &request).await?)
}

impl Getroot {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let root = root(handle, self.namespace.as_deref()).await?;
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
        let root = root(handle, self.namespace.as_deref()).await?;
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
        kvs::client::wait_version(handle, self.namespace.as_deref(), self.version).await?;
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Sync {}

impl Sync {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        kvs::client::commit_with(handle, None, &Txn::new(), flags::SYNC).await?;
        Ok(0)
    }
}
