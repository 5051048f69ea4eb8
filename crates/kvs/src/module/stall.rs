//! Work that waits for objects or namespaces, and is run again when they are there.

use bytes::Bytes;
use client::{Node, RpcError};
use content::BlobRef;
use serde_json::json;

use super::{Done, Module, RootInfo, lookup};
use crate::namespace::{self, Namespace};
use crate::store::{Need, Pinned};

/// What is run again.
pub(super) enum Work {
    Lookup(lookup::Lookup),
    /// The commit in flight in this namespace.
    Commit(String),
    /// A request that is handled from the beginning, once its namespace is known.
    Request(client::Message),
}

/// A piece of work, what it has obtained, and how many answers it still waits for.
pub(super) struct Stalled {
    pub(super) work: Work,
    pinned: Pinned,
    waiting: usize,
    error: Option<RpcError>,
}

/// A request for a namespace's root under way, and what happened to the namespace meanwhile.
#[derive(Default)]
pub(super) struct Getting {
    waiters: Vec<u64>,
    /// The latest root an event told of.
    pub(super) latest: Option<(i64, BlobRef)>,
    pub(super) removed: bool,
}

impl Module {
    /// Requests that are parked.
    pub(super) fn parked(&self) -> usize {
        let is_request = |s: &&Stalled| !matches!(s.work, Work::Commit(_));
        self.stalled.values().filter(is_request).count()
    }

    /// Takes the requests that are parked out.
    pub(super) fn take_parked(&mut self) -> Vec<client::Message> {
        let stalled = std::mem::take(&mut self.stalled).into_values();
        let request = |s: Stalled| match s.work {
            Work::Lookup(lookup) => Some(lookup.request),
            Work::Request(msg) => Some(msg),
            Work::Commit(_) => None,
        };
        stalled.filter_map(request).collect()
    }

    /// Parks `work` until all of `needs` are loaded.
    pub(super) fn stall(&mut self, work: Work, pinned: Pinned, needs: Vec<Need>) {
        let id = self.next_stall;
        self.next_stall += 1;
        let waiting = needs.len();
        self.stalled.insert(
            id,
            Stalled {
                work,
                pinned,
                waiting,
                error: None,
            },
        );
        for need in needs {
            let waiters = self.loads.entry(need).or_default();
            waiters.push(id);
            if waiters.len() > 1 {
                continue;
            }
            self.stats.faults += 1;
            let raw = Bytes::copy_from_slice(need.blobref().raw());
            let rpc = self.handle.rpc_raw("content.load", Node::Any, Some(raw));
            self.work.push(Box::pin(async move {
                let result = rpc.await.map(|m| m.payload().cloned().unwrap_or_default());
                Done::Loaded(need, result)
            }));
        }
    }

    pub(super) fn handle_loaded(&mut self, need: Need, result: Result<Bytes, RpcError>) {
        let result = result.map(|blob| self.store.loaded(need, blob));
        for id in self.loads.remove(&need).unwrap_or_default() {
            // Stalled work is taken out only when it waits for nothing.
            let Some(stalled) = self.stalled.get_mut(&id) else {
                continue;
            };
            match &result {
                Ok(object) => drop(stalled.pinned.insert(need, object.clone())),
                Err(e) => stalled.error = Some(load_error(need.blobref(), e)),
            }
            self.arrived(id);
        }
    }

    /// Parks `work` until this namespace is known here. Rank 0 knows all there are, and has those made that may come.
    pub(super) fn stall_for_namespace(&mut self, work: Work, pinned: Pinned, name: &str) {
        let id = self.next_stall;
        self.next_stall += 1;
        self.stalled.insert(
            id,
            Stalled {
                work,
                pinned,
                waiting: 1,
                error: None,
            },
        );
        let getting = self.getroots.entry(name.to_owned()).or_default();
        getting.waiters.push(id);
        if getting.waiters.len() > 1 {
            return;
        }
        let (handle, name) = (self.handle.clone(), name.to_owned());
        if handle.rank() == 0 {
            // Without a provider nobody asks for what rank 0 does not know.
            let topic = namespace::provider(&name).unwrap_or_default();
            let made = handle.rpc(topic, Node::Rank(0), &json!({ "namespace": name }));
            self.work.push(Box::pin(async move {
                // Whether it is there now is what counts.
                let _ = made.await;
                Done::Provided(name)
            }));
            return;
        }
        // Root updates must be seen from the root we are told on, so subscribe first.
        self.work.push(Box::pin(async move {
            let result = async {
                handle.subscribe(&format!("kvs.namespace-{name}-")).await?;
                // Rank 0, not the parent: it is never behind a commit that was answered.
                let request = json!({ "namespace": name });
                let info = handle
                    .call::<RootInfo>("kvs.getroot", Node::Rank(0), &request)
                    .await;
                if info.is_err() {
                    let _ = handle.unsubscribe(&format!("kvs.namespace-{name}-")).await;
                }
                info
            };
            let result = result.await;
            Done::GotRoot(name, result)
        }));
    }

    pub(super) fn handle_got_root(&mut self, name: String, result: Result<RootInfo, RpcError>) {
        let Getting {
            waiters,
            latest,
            removed,
        } = self.getroots.remove(&name).unwrap_or_default();
        let result = if removed {
            Err(namespace::unknown(&name))
        } else {
            result
        };
        match result {
            Ok(info) => {
                let owner = info.owner as u32;
                let ns = Namespace::new(&name, owner, info.flags, info.rootref, info.rootseq);
                self.table.map.entry(name.clone()).or_insert(ns);
                if let Some((seq, root)) = latest {
                    self.advance(&name, root, seq);
                }
                for id in waiters {
                    self.arrived(id);
                }
            }
            Err(e) => self.never_arrives(waiters, &e),
        }
    }

    /// Rank 0: whoever makes this namespace has done so, or not.
    pub(super) fn handle_provided(&mut self, name: &str) {
        let Getting { waiters, .. } = self.getroots.remove(name).unwrap_or_default();
        if self.table.map.contains_key(name) {
            for id in waiters {
                self.arrived(id);
            }
        } else {
            self.never_arrives(waiters, &namespace::unknown(name));
        }
    }

    fn never_arrives(&mut self, waiters: Vec<u64>, e: &RpcError) {
        for id in waiters {
            if let Some(stalled) = self.stalled.get_mut(&id) {
                stalled.error = Some(e.clone());
            }
            self.arrived(id);
        }
    }

    /// One of the things the work waits for is there; if it was the last, the work goes on.
    fn arrived(&mut self, id: u64) {
        let Some(stalled) = self.stalled.get_mut(&id) else {
            return;
        };
        stalled.waiting -= 1;
        if stalled.waiting > 0 {
            return;
        }
        let Some(stalled) = self.stalled.remove(&id) else {
            return;
        };
        match (stalled.work, stalled.error) {
            (Work::Lookup(lookup), None) => self.run_lookup(lookup, stalled.pinned),
            (Work::Lookup(lookup), Some(e)) => self.handle.respond_error(&lookup.request, &e),
            (Work::Commit(name), None) => self.run_commit(&name, stalled.pinned),
            (Work::Commit(name), Some(e)) => self.fail_commit(&name, &e),
            (Work::Request(msg), None) => self.handle_message(msg),
            (Work::Request(msg), Some(e)) => self.handle.respond_error(&msg, &e),
        }
    }

    /// Handles a namespace that is not known here: waits for it if it may come.
    pub(super) fn need_namespace(&mut self, lookup: lookup::Lookup, pinned: Pinned, name: &str) {
        if self.may_come(name) {
            self.stall_for_namespace(Work::Lookup(lookup), pinned, name);
        } else {
            self.handle
                .respond_error(&lookup.request, &namespace::unknown(name));
        }
    }
}

fn load_error(blobref: BlobRef, e: &RpcError) -> RpcError {
    RpcError::new(e.errno, format!("loading KVS object {blobref}: {e}"))
}
