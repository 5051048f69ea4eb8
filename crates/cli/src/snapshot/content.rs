//! Where blobs are: the service `content`, or the store behind it.

use bytes::Bytes;
use client::{Handle, Message, Node, Rpc, RpcError};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kvs::{BlobRef, HashAlg};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Fault, Found, Walk};
use crate::error::{Context as _, Failure, rpc_text};

/// How blobs are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the caches of the brokers.
    Cached,
    /// From the store itself.
    Direct,
}

impl Way {
    pub(crate) fn new(no_cache: bool) -> Way {
        match no_cache {
            true => Way::Direct,
            false => Way::Cached,
        }
    }
}

/// The blobs of an instance.
pub(crate) struct Content<'a> {
    handle: &'a Handle,
    way: Way,
    pub(crate) alg: HashAlg,
}

/// A root that was kept, as the store has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    version: u32,
    pub(crate) rootref: BlobRef,
    #[serde(default)]
    pub(crate) sequence: i64,
    #[serde(default)]
    pub(crate) timestamp: f64,
}

impl Checkpoint {
    pub(crate) fn new(rootref: BlobRef, sequence: i64, timestamp: f64) -> Checkpoint {
        Checkpoint {
            version: 1,
            rootref,
            sequence,
            timestamp,
        }
    }
}

impl Content<'_> {
    pub(crate) async fn open(handle: &Handle, way: Way) -> Result<Content<'_>, Failure> {
        let name = handle.getattr("content.hash").await?;
        let alg = name
            .parse()
            .map_err(|e| Failure::new(format!("attribute content.hash: {e}")))?;
        Ok(Content { handle, way, alg })
    }

    /// Ask for this in the chosen way.
    pub(crate) fn call(&self, method: &str, payload: Bytes) -> Rpc {
        let (service, node) = match self.way {
            Way::Cached => ("content", Node::Any),
            Way::Direct => ("content-backing", Node::Rank(0)),
        };
        let payload = Some(payload).filter(|p| !p.is_empty());
        self.handle
            .rpc_raw(&format!("{service}.{method}"), node, payload)
    }

    /// A blob, if it is there and undamaged.
    pub(crate) async fn load(&self, blobref: BlobRef) -> Result<Bytes, Fault> {
        if blobref.alg() != self.alg {
            let text = format!("{blobref} was not made with {}", self.alg.name());
            return Err(Fault::Damaged(text));
        }
        let digest = Bytes::copy_from_slice(blobref.raw());
        let blob = match self.call("load", digest).await {
            Ok(msg) => msg.payload().cloned().unwrap_or_default(),
            Err(e) if e.errno == libc::ENOENT => return Err(Fault::Missing),
            Err(e) if e.errno == libc::EIO => return Err(Fault::Damaged(rpc_text(&e))),
            Err(e) => return Err(Fault::Unread(rpc_text(&e))),
        };
        match self.alg.hash(&blob) == blobref {
            true => Ok(blob),
            false => Err(Fault::Damaged(
                "its content does not match its digest".to_owned(),
            )),
        }
    }

    /// Store a blob.
    pub(crate) fn store(&self, blob: Bytes) -> Rpc {
        self.call("store", blob)
    }

    /// The root that was kept last.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            value: Vec<Checkpoint>,
        }
        let read = |msg: Message| msg.json::<Answer>();
        let empty = Bytes::from_static(b"{}\0");
        let answer = self.call("checkpoint-get", empty).await.and_then(read);
        let answer = answer.context("error fetching checkpoints")?;
        let first = answer.value.into_iter().next();
        first.ok_or_else(|| Failure::new("error fetching checkpoints: there is none"))
    }

    /// Keep a root.
    pub(crate) async fn put_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let mut request = json!({ "value": checkpoint, "flags": 0 })
            .to_string()
            .into_bytes();
        request.push(0);
        let put = self.call("checkpoint-put", request.into()).await;
        put.map(drop).context("error updating the checkpoint")
    }

    /// Wait until what was stored is in the store.
    pub(crate) async fn flush(&self) -> Result<(), RpcError> {
        let request = json!({});
        let flush = self.handle.rpc("content.flush", Node::Rank(0), &request);
        flush.await.map(drop)
    }
}

/// Follow a walk to its end, with up to `most` loads under way.
pub(crate) async fn visit(
    mut walk: Walk,
    content: &Content<'_>,
    most: usize,
    mut found: impl AsyncFnMut(Found) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut loads = FuturesUnordered::new();
    loop {
        while loads.len() < most {
            match walk.step() {
                Some(super::walk::Step::Found(key)) => found(key).await?,
                Some(super::walk::Step::Load(load)) => loads.push(async move {
                    let blob = content.load(load.blobref).await;
                    (load, blob)
                }),
                None => break,
            }
        }
        match loads.next().await {
            Some((load, blob)) => walk.loaded(load, blob),
            None => return Ok(()),
        }
    }
}

/// Whether the key-value store is loaded.
pub(crate) async fn kvs_is_running(handle: &Handle) -> bool {
    let root = kvs::client::getroot(handle, Some(kvs::PRIMARY)).await;
    !matches!(root, Err(e) if e.errno == libc::ENOSYS)
}
