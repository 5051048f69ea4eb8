//! `flux kvs namespace`: create, remove, list.

use clap::{Args, Subcommand};
use client::{Handle, Node};
use serde::Deserialize;
use serde_json::json;

use crate::error::{Context, Outcome};
use crate::output::outln;

#[derive(Args)]
pub(super) struct Namespace {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create namespaces
    Create {
        /// Owner's user id
        #[arg(short, long, value_name = "UID")]
        owner: Option<u32>,
        /// Start with this root
        #[arg(short, long, value_name = "BLOBREF")]
        rootref: Option<kvs::BlobRef>,
        /// Names
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Remove namespaces
    Remove {
        /// Names
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// List the namespaces this rank knows
    List,
}

impl Namespace {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        match self.command {
            Command::Create {
                owner,
                rootref,
                name,
            } => {
                // "Unknown" makes the requester the owner.
                let owner = owner.unwrap_or(u32::MAX);
                for name in &name {
                    match &rootref {
                        None => kvs::client::namespace_create(handle, name, owner).await,
                        Some(rootref) => {
                            let request = json!({
                                "namespace": name, "rootref": rootref, "owner": owner, "flags": 0
                            });
                            let rpc = handle.rpc("kvs.namespace-create", Node::Rank(0), &request);
                            rpc.await.map(drop)
                        }
                    }
                    .context(name)?;
                }
            }
            Command::Remove { name } => {
                for name in &name {
                    kvs::client::namespace_remove(handle, name)
                        .await
                        .context(name)?;
                }
            }
            Command::List => list(handle).await?,
        }
        Ok(0)
    }
}

async fn list(handle: &Handle) -> Result<(), crate::error::Failure> {
    #[derive(Deserialize)]
    struct Entry {
        namespace: String,
        owner: u32,
        flags: u32,
    }
    #[derive(Deserialize)]
    struct Answer {
        namespaces: Vec<Entry>,
    }
    let rpc = handle.rpc_raw("kvs.namespace-list", Node::Any, None);
    let Answer { namespaces } = rpc.await?.json()?;
    outln!("NAMESPACE                                 OWNER      FLAGS");
    for Entry {
        namespace,
        owner,
        flags,
    } in namespaces
    {
        outln!("{namespace:<36} {owner:>10} 0x{flags:08X}");
    }
    Ok(())
}
