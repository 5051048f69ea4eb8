//! The store behind rank 0: it alone outlives a crash of everything.

use std::collections::HashMap;

use bytes::Bytes;
use content::roots::Roots;
use content::{BlobRef, HashAlg, PRIMARY, batch};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::Sabotage;

/// What is on the disk.
#[derive(Default)]
pub(crate) struct Store {
    blobs: HashMap<BlobRef, Bytes>,
    root: Option<Value>,
    checkpoints: Vec<Value>,
    namespaces: Roots,
    /// It refuses to store anything.
    pub(crate) full: bool,
    /// Blobs so far, for a store that is to lose some.
    count: u64,
}

const ALG: HashAlg = HashAlg::Sha1;

fn digest(request: &Message) -> Result<BlobRef, RpcError> {
    let raw = request.payload().map_or(&[][..], |p| &p[..]);
    BlobRef::from_raw(ALG, raw).map_err(|e| RpcError::explained(libc::EPROTO, e))
}

impl Store {
    /// Does what a request asks for, all or nothing.
    pub(crate) fn handle(
        &mut self,
        request: &Message,
        sabotage: Option<Sabotage>,
    ) -> Result<Option<Bytes>, RpcError> {
        let empty = || wire::json_payload(&json!({})).ok();
        match request.method() {
            "load" | "validate" => {
                let blob = self.blobs.get(&digest(request)?);
                let blob = blob.ok_or_else(|| RpcError::errno(libc::ENOENT))?;
                Ok(Some(blob.clone()).filter(|b| request.method() == "load" && !b.is_empty()))
            }
            "checkpoint-get" => {
                let all = self.root.iter().chain(self.checkpoints.iter().rev());
                let all: Vec<&Value> = all.collect();
                if all.is_empty() {
                    return Err(RpcError::errno(libc::ENOENT));
                }
                Ok(wire::json_payload(&json!({ "value": all })).ok())
            }
            "namespaces" => {
                let all = self.namespaces.iter().filter(|(_, root)| !root.is_null());
                let all: serde_json::Map<String, Value> = all
                    .map(|(name, root)| (name.to_owned(), root.clone()))
                    .collect();
                Ok(wire::json_payload(&json!({ "namespaces": all })).ok())
            }
            _ if self.full => Err(RpcError::errno(libc::ENOSPC)),
            "store" => {
                let data = request.payload().cloned().unwrap_or_default();
                let blobref = ALG.hash(&data);
                self.keep(data, sabotage);
                Ok(Some(Bytes::copy_from_slice(blobref.raw())))
            }
            "store-batch" => {
                let payload = request.payload().cloned().unwrap_or_default();
                let (roots, blobs) =
                    batch::decode(payload).ok_or_else(|| RpcError::errno(libc::EPROTO))?;
                if sabotage == Some(Sabotage::Forgets) {
                    return Ok(empty());
                }
                blobs.into_iter().for_each(|data| self.keep(data, sabotage));
                let roots = Roots::decode(&roots).map_err(|_| RpcError::errno(libc::EPROTO))?;
                for (name, root) in roots.iter() {
                    match name {
                        PRIMARY => self.root = Some(root.clone()),
                        name => self.namespaces.merge(Roots::of(name, root.clone())),
                    }
                }
                Ok(empty())
            }
            "checkpoint-put" => {
                self.checkpoints
                    .push(request.json::<Value>()?["value"].take());
                Ok(empty())
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }

    fn keep(&mut self, data: Bytes, sabotage: Option<Sabotage>) {
        self.count += 1;
        let torn = sabotage == Some(Sabotage::Tears) && self.count.is_multiple_of(40);
        if !torn {
            self.blobs.insert(ALG.hash(&data), data);
        }
    }
}
