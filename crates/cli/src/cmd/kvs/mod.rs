//! `flux kvs`: read and write the key-value store.

mod eventlog;
mod get;
mod list;
mod namespace;
mod root;
mod write;

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use kvs::{TreeObj, flags};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};

/// What failed, where a commit does: scripts look for the names of the calls.
const COMMIT: &str = "flux_kvs_commit";

/// Read and write the key-value store.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print values
    Get(get::Get),
    /// Store values
    Put(write::Put),
    /// Print all keys and values below a directory
    Dir(list::Dir),
    /// List directories
    Ls(list::Ls),
    /// Remove keys
    Unlink(write::Unlink),
    /// Make a symbolic link
    Link(write::Link),
    /// Print where symbolic links lead
    Readlink(get::Readlink),
    /// Make directories
    Mkdir(write::Mkdir),
    /// Copy a key
    Copy(write::Copy),
    /// Move a key
    Move(write::Move),
    /// Print the sequence number of the root
    Version(root::Version),
    /// Wait until the root has reached a sequence number
    Wait(root::Wait),
    /// Print the root
    Getroot(root::Getroot),
    /// Write content and a checkpoint to disk
    Sync(root::Sync),
    /// Namespaces
    Namespace(namespace::Namespace),
    /// Eventlogs
    Eventlog(eventlog::Eventlog),
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse()?;
    block_on(async {
        let handle = Handle::open(None).await?;
        match command {
            Command::Get(c) => c.run(&handle).await,
            Command::Put(c) => c.run(&handle).await,
            Command::Dir(c) => c.run(&handle).await,
            Command::Ls(c) => c.run(&handle).await,
            Command::Unlink(c) => c.run(&handle).await,
            Command::Link(c) => c.run(&handle).await,
            Command::Readlink(c) => c.run(&handle).await,
            Command::Mkdir(c) => c.run(&handle).await,
            Command::Copy(c) => c.run(&handle).await,
            Command::Move(c) => c.run(&handle).await,
            Command::Version(c) => c.run(&handle).await,
            Command::Wait(c) => c.run(&handle).await,
            Command::Getroot(c) => c.run(&handle).await,
            Command::Sync(c) => c.run(&handle).await,
            Command::Namespace(c) => c.run(&handle).await,
            Command::Eventlog(c) => c.run(&handle).await,
        }
    })
}

/// Where keys are looked up: a namespace, or a snapshot of a root directory.
#[derive(Debug, Clone)]
enum Place {
    Namespace(String),
    Snapshot(Value),
}

impl Place {
    fn new(namespace: Option<&str>, at: Option<&str>) -> Result<Place, Failure> {
        if let Some(text) = at {
            let object = serde_json::from_str(text)
                .map_err(|e| Failure::new(format!("--at: not a tree object: {e}")))?;
            return Ok(Place::Snapshot(object));
        }
        Ok(Place::Namespace(match namespace {
            Some(name) => name.to_owned(),
            None => std::env::var("FLUX_KVS_NAMESPACE").unwrap_or_else(|_| "primary".to_owned()),
        }))
    }

    fn request(&self, key: &str, flags: u32) -> Value {
        match self {
            Place::Namespace(name) => json!({"key": key, "flags": flags, "namespace": name}),
            Place::Snapshot(dir) => json!({"key": key, "flags": flags, "rootdir": dir}),
        }
    }

    async fn lookup(&self, handle: &Handle, key: &str, flags: u32) -> Result<TreeObj, RpcError> {
        let topic = match flags & flags::WAITCREATE {
            0 => "kvs.lookup",
            _ => "kvs-watch.lookup",
        };
        let answer = handle
            .rpc(topic, Node::Any, &self.request(key, flags))
            .await?;
        object(&answer)
    }

    /// A directory's entries: name and object.
    async fn dir(&self, handle: &Handle, key: &str) -> Result<Vec<(String, TreeObj)>, RpcError> {
        match self.lookup(handle, key, flags::READDIR).await? {
            TreeObj::Dir(dir) => {
                let entries = dir
                    .iter()
                    .map(|(name, object)| (name.to_string(), object.clone()));
                Ok(entries.collect())
            }
            other => Err(RpcError::new(
                libc::EPROTO,
                format!("expected a directory, got a {}", other.type_name()),
            )),
        }
    }
}

fn object(answer: &Message) -> Result<TreeObj, RpcError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        val: TreeObj,
    }
    Ok(answer.json::<Answer>()?.val)
}

/// The bytes of a value.
fn data(object: &TreeObj) -> Result<Vec<u8>, RpcError> {
    object.data().ok_or_else(|| {
        RpcError::new(
            libc::EINVAL,
            format!("a {} has no value", object.type_name()),
        )
    })
}

/// `DIR.NAME`, without the root's dot.
fn join(dir: &str, name: &str) -> String {
    match dir {
        "." | "" => name.to_owned(),
        dir => format!("{}.{name}", dir.trim_end_matches('.')),
    }
}
