//! Where blobs are: the service `content`, or the store behind it, which takes and gives many at once.

use bytes::Bytes;
use client::{Handle, Message, Node, Rpc, RpcError};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kvs::many::{self, Part};
use kvs::{BlobRef, HashAlg, batch};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::walk::{Load, Step};
use super::{Fault, Found, Walk};
use crate::error::{Context as _, Failure, rpc_text};

/// Blobs in one request, and requests under way.
const BLOBS_AT_ONCE: usize = 256;
const REQUESTS: usize = 4;

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

    /// How many blobs are loaded at once, unless somebody says so.
    fn usual_loads(self) -> usize {
        match self {
            Way::Cached => 64,
            Way::Direct => REQUESTS * BLOBS_AT_ONCE,
        }
    }

    /// How many of them one request is for.
    fn blobs_at_once(self, most: usize) -> usize {
        match self {
            Way::Cached => 1,
            Way::Direct => most.div_ceil(REQUESTS).min(BLOBS_AT_ONCE),
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
        self.check_alg(blobref)?;
        let digest = Bytes::copy_from_slice(blobref.raw());
        match self.call("load", digest).await {
            Ok(msg) => self.check(blobref, msg.payload().cloned().unwrap_or_default()),
            Err(e) => Err(fault(&e)),
        }
    }

    fn check_alg(&self, blobref: BlobRef) -> Result<(), Fault> {
        match blobref.alg() == self.alg {
            true => Ok(()),
            false => Err(Fault::Damaged(format!(
                "{blobref} was not made with {}",
                self.alg.name()
            ))),
        }
    }

    fn check(&self, blobref: BlobRef, blob: Bytes) -> Result<Bytes, Fault> {
        match self.alg.hash(&blob) == blobref {
            true => Ok(blob),
            false => Err(Fault::Damaged(
                "its content does not match its digest".to_owned(),
            )),
        }
    }

    /// What has become of some loads, in any order. Not all of them need be there.
    async fn load_some(&self, loads: Vec<Load>) -> Vec<(Load, Option<Result<Bytes, Fault>>)> {
        let one_by_one = async |loads: Vec<Load>| {
            let one = async |load: Load| {
                let blob = self.load(load.blobref).await;
                (load, Some(blob))
            };
            futures::future::join_all(loads.into_iter().map(one)).await
        };
        let is_ours = |load: &Load| load.blobref.alg() == self.alg;
        if loads.len() < 2 || !loads.iter().all(is_ours) {
            return one_by_one(loads).await;
        }
        let blobrefs: Vec<_> = loads.iter().map(|load| load.blobref).collect();
        let answer = self
            .call("load-batch", many::encode_request(&blobrefs))
            .await;
        let parts = match answer {
            Ok(msg) => many::decode_answer(msg.payload().cloned().unwrap_or_default()),
            // A store of others takes them one by one.
            Err(e) if e.errno == libc::ENOSYS => return one_by_one(loads).await,
            Err(e) => {
                let failed = |load| (load, Some(Err(fault(&e))));
                return loads.into_iter().map(failed).collect();
            }
        };
        let Some(parts) = parts.filter(|parts| parts.len() == loads.len()) else {
            return one_by_one(loads).await;
        };
        let read = |(load, part): (Load, Part)| {
            let blob = match part {
                Part::Found(blob) => Some(self.check(load.blobref, blob)),
                Part::Missing => Some(Err(Fault::Missing)),
                Part::Damaged(why) => Some(Err(Fault::Damaged(why))),
                Part::Later => None,
            };
            (load, blob)
        };
        loads.into_iter().zip(parts).map(read).collect()
    }

    /// Store a blob.
    pub(crate) fn store(&self, blob: Bytes) -> Rpc {
        self.call("store", blob)
    }

    /// Store blobs.
    pub(crate) async fn store_all(&self, blobs: Vec<Bytes>) -> Result<(), RpcError> {
        let payload = batch::encode(&[], blobs.iter());
        match self.call("store-batch", payload).await {
            // A store of others takes them one by one.
            Err(e) if e.errno == libc::ENOSYS => {
                let stores = blobs.into_iter().map(|blob| self.store(blob));
                futures::future::try_join_all(stores).await.map(drop)
            }
            stored => stored.map(drop),
        }
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

/// Why a blob was not loaded.
fn fault(e: &RpcError) -> Fault {
    match e.errno {
        libc::ENOENT => Fault::Missing,
        libc::EIO => Fault::Damaged(rpc_text(e)),
        _ => Fault::Unread(rpc_text(e)),
    }
}

/// Follow a walk to its end, with up to `most` loads under way.
pub(crate) async fn visit(
    mut walk: Walk,
    content: &Content<'_>,
    most: Option<usize>,
    mut found: impl AsyncFnMut(Found) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let most = most.unwrap_or(content.way.usual_loads());
    let at_once = content.way.blobs_at_once(most);
    let mut requests = FuturesUnordered::new();
    let (mut under_way, mut next) = (0, Vec::new());
    loop {
        while under_way < most {
            match walk.step() {
                Some(Step::Found(key)) => found(key).await?,
                Some(Step::Load(load)) => {
                    next.push(load);
                    under_way += 1;
                }
                None => break,
            }
            if next.len() == at_once {
                requests.push(content.load_some(std::mem::take(&mut next)));
            }
        }
        if !next.is_empty() {
            requests.push(content.load_some(std::mem::take(&mut next)));
        }
        let Some(loaded) = requests.next().await else {
            return Ok(());
        };
        for (load, blob) in loaded {
            match blob {
                Some(blob) => {
                    under_way -= 1;
                    walk.loaded(load, blob);
                }
                None => next.push(load),
            }
        }
    }
}

/// Whether the key-value store is loaded.
pub(crate) async fn kvs_is_running(handle: &Handle) -> bool {
    let root = kvs::client::getroot(handle, Some(kvs::PRIMARY)).await;
    !matches!(root, Err(e) if e.errno == libc::ENOSYS)
}
