//! One cycle of garbage collection: mark what is referred to, then let the store remove the rest.

use bytes::{BufMut as _, Bytes, BytesMut};
use client::{Handle, Node, RpcError};
use content::many::{self, Part};
use content::{BlobRef, HashAlg};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Swept;
use crate::mark::{Content, Load, Marker};
use crate::store::Need;

/// Blobs that are loaded by one request, and requests under way. Few: nobody waits for this.
const LOADS_AT_ONCE: usize = 128;
const REQUESTS: usize = 2;
/// Marks in one request.
const MARKS_AT_ONCE: usize = 4096;
/// Larger blobs are decoded where they hold up nobody.
const LARGE: usize = 1 << 20;

/// What is known to be referred to.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Namespaces other than the primary one.
    pub(super) namespaces: u64,
    /// Roots all of whose tree has to be there: without it nothing is removed.
    pub(super) complete: Vec<Need>,
    /// Roots parts of whose tree may be gone, or not be there yet.
    pub(super) partial: Vec<Need>,
}

/// A cycle that was begun.
pub(super) struct Cycle {
    pub(super) handle: Handle,
    pub(super) alg: HashAlg,
    pub(super) number: u64,
}

/// A load, and what it has come to: nothing if it has to be repeated.
type Read = (Load, Option<Result<Content, String>>);

impl Cycle {
    /// Begins a cycle; everything that is stored from now on stays.
    pub(super) async fn begin(handle: &Handle, grace: f64, anew: bool) -> Result<u64, RpcError> {
        #[derive(Deserialize)]
        struct Begun {
            cycle: u64,
        }
        // What waits in memory would count as stored in this cycle.
        flush(handle).await?;
        let request = json!({ "grace": grace, "anew": anew });
        let begun = handle.call::<Begun>("content-backing.gc-begin", Node::Any, &request);
        begun.await.map(|b| b.cycle)
    }

    /// Marks what these roots and the checkpoints refer to, and removes what may be removed.
    pub(super) async fn run(self, roots: Roots) -> Result<Swept, RpcError> {
        let swept = self.mark_and_sweep(roots).await;
        if swept.is_err() {
            let request = json!({ "cycle": self.number });
            self.handle
                .notify("content-backing.gc-abort", Node::Any, &request);
        }
        swept
    }

    async fn mark_and_sweep(&self, roots: Roots) -> Result<Swept, RpcError> {
        // What is not in the store yet could not be read there.
        flush(&self.handle).await?;
        let checkpoints = self.checkpoints().await?;
        let (namespaces, kept) = (roots.namespaces, checkpoints.len() as u64);
        let mut marker = Marker::default();
        roots.complete.into_iter().for_each(|r| marker.add(r));
        self.mark(&mut marker, true).await?;
        let partial = roots.partial.into_iter().chain(checkpoints);
        partial.for_each(|r| marker.add(r));
        self.mark(&mut marker, false).await?;
        let request = json!({ "cycle": self.number });
        let swept: Swept = self
            .handle
            .call("content-backing.gc-sweep", Node::Any, &request)
            .await?;
        Ok(Swept {
            namespaces,
            checkpoints: kept,
            ..swept
        })
    }

    async fn checkpoints(&self) -> Result<Vec<Need>, RpcError> {
        #[derive(Deserialize)]
        struct Kept {
            value: Vec<Value>,
        }
        let request = json!({});
        let kept = self
            .handle
            .call::<Kept>("content.checkpoint-get", Node::Any, &request);
        let kept = match kept.await {
            Ok(kept) => kept.value,
            Err(e) if e.errno == libc::ENOENT => Vec::new(),
            Err(e) => return Err(e),
        };
        let root = |value: &Value| value["rootref"].as_str()?.parse().ok().map(Need::Dir);
        Ok(kept.iter().filter_map(root).collect())
    }

    /// Marks all that is below what was added.
    async fn mark(&self, marker: &mut Marker, complete: bool) -> Result<(), RpcError> {
        let mut requests = FuturesUnordered::new();
        let mut again: Vec<Load> = Vec::new();
        loop {
            while requests.len() < REQUESTS {
                let mut loads = std::mem::take(&mut again);
                loads.extend(marker.next(LOADS_AT_ONCE.saturating_sub(loads.len())));
                if loads.is_empty() {
                    break;
                }
                requests.push(self.load(loads));
            }
            let Some(answer) = requests.next().await else {
                break;
            };
            for (load, content) in answer? {
                match content {
                    Some(Ok(content)) => marker.take(content),
                    Some(Err(why)) if complete => return Err(lost(load.blobref, &why)),
                    Some(Err(_)) => {}
                    None => again.push(load),
                }
            }
            if marker.waiting() >= MARKS_AT_ONCE {
                self.send(marker.marks()).await?;
            }
        }
        self.send(marker.marks()).await
    }

    /// Loads blobs and says what they refer to.
    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Read>, RpcError> {
        let blobrefs: Vec<_> = loads.iter().map(|load| load.blobref).collect();
        let request = Some(many::encode_request(&blobrefs));
        let topic = "content-backing.load-batch";
        let answer = self.handle.rpc_raw(topic, Node::Any, request).await?;
        let parts = many::decode_answer(answer.payload().cloned().unwrap_or_default());
        let parts = parts
            .filter(|parts| parts.len() == loads.len())
            .ok_or_else(|| RpcError::proto(format!("{topic}: the answer cannot be read")))?;
        let mut read = Vec::with_capacity(loads.len());
        for (load, part) in loads.into_iter().zip(parts) {
            let content = match part {
                Part::Found(blob) => Some(decode(load, blob).await),
                Part::Missing => Some(Err("it is not stored".to_owned())),
                Part::Damaged(why) => Some(Err(why)),
                Part::Later => None,
            };
            read.push((load, content));
        }
        Ok(read)
    }

    async fn send(&self, marks: Vec<BlobRef>) -> Result<(), RpcError> {
        for some in marks.chunks(MARKS_AT_ONCE) {
            // A name in a text may be one of another hash.
            let own: Vec<_> = some
                .iter()
                .filter(|b| b.alg() == self.alg)
                .copied()
                .collect();
            let digests = many::encode_request(&own);
            let mut payload = BytesMut::with_capacity(8 + digests.len());
            payload.put_u64_le(self.number);
            payload.put(digests);
            let payload = Some(payload.freeze());
            self.handle
                .rpc_raw("content-backing.gc-mark", Node::Any, payload)
                .await?;
        }
        Ok(())
    }
}

async fn flush(handle: &Handle) -> Result<(), RpcError> {
    let request = json!({});
    handle
        .rpc("content.flush", Node::Any, &request)
        .await
        .map(drop)
}

async fn decode(load: Load, blob: Bytes) -> Result<Content, String> {
    let is_large = blob.len() > LARGE;
    let read = move || load.read(&blob).map_err(|e| e.to_string());
    match is_large {
        true => tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|e| Err(e.to_string())),
        false => read(),
    }
}

fn lost(blobref: BlobRef, why: &str) -> RpcError {
    let text = format!(
        "nothing is removed, because not all that is referred to can be read: object {blobref}: {why}; \
         flux fsck says what is missing"
    );
    RpcError::new(libc::EIO, text)
}
