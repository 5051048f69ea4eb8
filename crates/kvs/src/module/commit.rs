//! `kvs.commit`: merged on rank 0, passed to it elsewhere.

use std::collections::BTreeSet;

use client::{Message, Node, RpcError};
use content::roots::Roots;
use content::{BlobRef, batch};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::stall::Work;
use super::{Done, Module, checkpoint};
use crate::commit::{self, Outcome};
use crate::key::normalize;
use crate::namespace::{self, Pending};
use crate::store::Pinned;
use crate::treeobj::TreeObj;
use crate::txn::Op;
use crate::{PRIMARY, flags};

/// Commits merged into one root update at most: bounds the latency of one update.
const MERGE_LIMIT: usize = 4096;

#[derive(Deserialize)]
struct Request {
    ops: Vec<Op>,
    namespace: String,
    flags: u32,
}

/// A request that is passed on: its operations are rank 0's business.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "ops")]
    _ops: IgnoredAny,
    namespace: String,
    #[serde(rename = "flags")]
    _flags: i64,
}

#[derive(Deserialize)]
struct Answer {
    rootref: BlobRef,
    rootseq: i64,
}

impl Module {
    pub(super) fn handle_commit(&mut self, msg: &Message) -> Result<(), RpcError> {
        if self.handle.rank() == 0 {
            self.enqueue_commit(msg)
        } else {
            self.relay_commit(msg)
        }
    }

    fn enqueue_commit(&mut self, msg: &Message) -> Result<(), RpcError> {
        let req: Request = msg.json()?;
        if !msg.is_owner() {
            check_guest(&req.ops)?;
        }
        if req.flags & flags::SYNC != 0 && req.namespace != PRIMARY {
            let reason = format!(
                "only namespace {PRIMARY} can be checkpointed, not {}",
                req.namespace
            );
            return Err(RpcError::explained(libc::EINVAL, reason));
        }
        let ns = match self.table.map.get_mut(&req.namespace) {
            Some(ns) => ns,
            None if namespace::provider(&req.namespace).is_some() => {
                let work = Work::Request(msg.clone());
                self.stall_for_namespace(work, Pinned::new(), &req.namespace);
                return Ok(());
            }
            None => return Err(namespace::unknown(&req.namespace)),
        };
        ns.check_user(msg)?;
        self.stats.ops.add(req.ops.len() as f64);
        self.gc.refer_ops(&req.ops);
        ns.queue.push_back(Pending {
            request: msg.clone(),
            ops: req.ops,
            flags: req.flags,
        });
        self.ready.insert(req.namespace);
        Ok(())
    }

    fn relay_commit(&mut self, msg: &Message) -> Result<(), RpcError> {
        let name = if msg.is_owner() {
            msg.json::<Envelope>()?.namespace
        } else {
            // Rank 0 sees the owner's credentials (ours), so the guest's are judged here.
            let req: Request = msg.json()?;
            check_guest(&req.ops)?;
            match self.namespace(&req.namespace, msg)? {
                Some(_) => req.namespace,
                None => {
                    let work = Work::Request(msg.clone());
                    self.stall_for_namespace(work, Pinned::new(), &req.namespace);
                    return Ok(());
                }
            }
        };
        let rpc = self
            .handle
            .rpc_raw("kvs.commit", Node::Rank(0), msg.payload().cloned());
        let request = msg.clone();
        self.relayed += 1;
        self.work.push(Box::pin(async move {
            Done::Committed {
                namespace: name,
                request,
                answer: rpc.await,
            }
        }));
        Ok(())
    }

    pub(super) fn handle_committed(
        &mut self,
        name: &str,
        request: &Message,
        answer: Result<Message, RpcError>,
    ) {
        self.relayed -= 1;
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) => return self.handle.respond_error(request, &e),
        };
        match answer.json::<Answer>() {
            // If the namespace is not known here, the next read asks rank 0 for its root.
            Ok(a) => self.advance(name, a.rootref, a.rootseq),
            Err(e) => return self.handle.respond_error(request, &e),
        }
        self.handle.respond_raw(request, answer.payload().cloned());
    }

    /// Rank 0: starts a root update in every namespace that has commits waiting and none in
    /// flight.
    pub(super) fn start_commits(&mut self) {
        for name in std::mem::take(&mut self.ready) {
            let Some(ns) = self.table.map.get_mut(&name) else {
                continue;
            };
            if ns.queue.is_empty() || !ns.in_flight.is_empty() {
                continue;
            }
            let merge = self.merge;
            let alone = |p: &Pending| !merge || p.flags & flags::NO_MERGE != 0;
            let n = match ns.queue.front() {
                Some(first) if alone(first) => 1,
                _ => ns
                    .queue
                    .iter()
                    .take(MERGE_LIMIT)
                    .take_while(|p| !alone(p))
                    .count(),
            };
            ns.in_flight = ns.queue.drain(..n).collect();
            self.run_commit(&name, Pinned::new());
        }
    }

    /// Applies the commits in flight, or stalls for objects they need.
    pub(super) fn run_commit(&mut self, name: &str, pinned: Pinned) {
        let Some(ns) = self.table.map.get(name) else {
            return;
        };
        let txns: Vec<&[Op]> = ns.in_flight.iter().map(|p| &p.ops[..]).collect();
        let mut view = self.store.with(&pinned);
        let done = match commit::commit(&mut view, self.alg, name, ns.root, &txns) {
            Outcome::Missing(needs) => {
                self.stall(Work::Commit(name.to_owned()), pinned, needs);
                return;
            }
            Outcome::Done(done) => done,
        };
        let seq = ns.seq + 1;
        let blobs: Vec<_> = done
            .dirs
            .iter()
            .map(|(_, _, blob)| blob.clone())
            .chain(done.vals.iter().map(|(_, blob)| blob.clone()))
            .collect();
        let known = |r: &&BlobRef| self.store.contains(r);
        let stored = done.dirs.iter().map(|(r, ..)| r);
        let stored = stored.chain(done.vals.iter().map(|(r, _)| r));
        let noop_stores = stored.filter(known).count() as u64;
        if let Some(ns) = self.table.map.get_mut(name) {
            ns.noop_stores += noop_stores;
            ns.storing = Some(done.root);
        }
        self.gc.store(blobs.iter().map(bytes::Bytes::len).sum());
        for (blobref, dir, _) in done.dirs {
            self.store.insert_dir(blobref, dir);
        }
        for (blobref, data) in done.vals {
            self.store.insert_val(blobref, data);
        }
        let roots = match self.table.map.get(name) {
            Some(ns) => checkpoint::root(ns, done.root, seq),
            None => Roots::default(),
        };
        let payload = batch::encode(&roots.encode(), blobs.iter());
        let rpc = self
            .handle
            .rpc_raw("content.store-batch", Node::Any, Some(payload));
        let (namespace, root) = (name.to_owned(), done.root);
        let results = done
            .results
            .into_iter()
            .map(|r| r.map_err(RpcError::from))
            .collect();
        self.work.push(Box::pin(async move {
            let stored = rpc.await.map(drop);
            Done::Stored {
                namespace,
                root,
                results,
                stored,
            }
        }));
    }

    /// The objects of the commits in flight are stored: the new root counts.
    pub(super) fn handle_stored(
        &mut self,
        name: &str,
        root: BlobRef,
        results: Vec<Result<(), RpcError>>,
        stored: Result<(), RpcError>,
    ) {
        if let Err(e) = stored {
            return self.fail_commit(name, &e);
        }
        // A namespace that was removed meanwhile has answered its commits already.
        let Some(ns) = self.table.map.get_mut(name) else {
            return;
        };
        let commits = std::mem::take(&mut ns.in_flight);
        ns.storing = None;
        self.ready.insert(name.to_owned());
        if results.iter().all(Result::is_err) {
            for (commit, result) in commits.iter().zip(&results) {
                if let Err(e) = result {
                    self.handle.respond_error(&commit.request, e);
                }
            }
            return;
        }
        self.stats.updates += 1;
        let (seq, owner) = (ns.seq + 1, ns.owner);
        let answer = json!({"rootref": root, "rootseq": seq});
        let mut keys = BTreeSet::new();
        let mut sync = Vec::new();
        self.advance(name, root, seq);
        for (commit, result) in commits.iter().zip(results) {
            match result {
                Err(e) => self.handle.respond_error(&commit.request, &e),
                Ok(()) => {
                    keys.extend(commit.ops.iter().map(|op| normalize(&op.key)));
                    if commit.flags & flags::SYNC != 0 {
                        sync.push(commit.request.clone());
                    } else {
                        self.handle.respond(&commit.request, &answer);
                    }
                }
            }
        }
        let event = json!({
            "namespace": name,
            "rootseq": seq,
            "rootref": root,
            "names": [],
            "keys": NullMap(&keys),
            "owner": owner,
        });
        self.publish(&format!("kvs.namespace-{name}-setroot"), &event);
        if !sync.is_empty() {
            self.answer_synced(sync, answer);
        }
    }

    /// Answers all commits in flight with an error; the root stays.
    pub(super) fn fail_commit(&mut self, name: &str, e: &RpcError) {
        let Some(ns) = self.table.map.get_mut(name) else {
            return;
        };
        ns.storing = None;
        self.ready.insert(name.to_owned());
        for commit in std::mem::take(&mut ns.in_flight) {
            self.handle.respond_error(&commit.request, e);
        }
    }
}

/// Names as an object of nulls, the form of `keys` in a setroot event.
struct NullMap<'a>(&'a BTreeSet<std::borrow::Cow<'a, str>>);

impl Serialize for NullMap<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(Some(self.0.len()))?;
        for key in self.0 {
            m.serialize_entry(key, &())?;
        }
        m.end()
    }
}

/// A guest may write values and empty directories only: no references into content, which
/// might be someone else's, and no links.
fn check_guest(ops: &[Op]) -> Result<(), RpcError> {
    let refused = ops
        .iter()
        .filter_map(|op| op.dirent.as_ref())
        .find(|obj| match obj {
            TreeObj::Val(_) => false,
            TreeObj::Dir(dir) => !dir.is_empty(),
            TreeObj::ValRef(_) | TreeObj::DirRef(_) | TreeObj::Symlink(_) => true,
        });
    match refused {
        None => Ok(()),
        Some(obj) => {
            let full = if matches!(obj, TreeObj::Dir(_)) {
                "non-empty "
            } else {
                ""
            };
            let reason = format!("guests may not commit {full}{} objects", obj.type_name());
            Err(RpcError::explained(libc::EPERM, reason))
        }
    }
}
