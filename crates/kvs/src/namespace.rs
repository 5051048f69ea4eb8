//! Namespaces and their roots: what one rank knows of them.
//!
//! On rank 0 the table is the truth. Other ranks hold the namespaces they were asked about; a
//! root there only ever moves forward.

use std::collections::{HashMap, VecDeque};

use crate::txn::Op;
use crate::walk::{NamespaceRoot, Namespaces};
use client::{Message, RpcError};
use content::BlobRef;

/// A commit waiting for its turn (rank 0).
pub struct Pending {
    pub request: Message,
    pub ops: Vec<Op>,
    pub flags: u32,
}

/// One namespace.
pub struct Namespace {
    pub name: String,
    pub owner: u32,
    pub flags: i64,
    pub root: BlobRef,
    pub seq: i64,
    /// Commits that arrived and are not in flight (rank 0).
    pub queue: VecDeque<Pending>,
    /// The commits that are being applied or stored, merged in one root update (rank 0).
    pub in_flight: Vec<Pending>,
    /// The root they make, while it is being stored (rank 0).
    pub storing: Option<BlobRef>,
    /// Requests that wait for the root to reach a sequence number.
    pub waiters: Vec<(i64, Message)>,
    /// Objects of commits that were there already (rank 0).
    pub noop_stores: u64,
    /// Test hook: root updates that were held back since `setroot-pause`.
    pub paused: Option<Vec<(i64, BlobRef)>>,
}

impl Namespace {
    pub fn new(name: &str, owner: u32, flags: i64, root: BlobRef, seq: i64) -> Namespace {
        Namespace {
            name: name.to_owned(),
            owner,
            flags,
            root,
            seq,
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            storing: None,
            waiters: Vec::new(),
            noop_stores: 0,
            paused: None,
        }
    }

    /// Moves the root forward; an older sequence number is ignored. Returns the requests that
    /// waited for it.
    pub fn advance(&mut self, root: BlobRef, seq: i64) -> Vec<Message> {
        if seq <= self.seq {
            return Vec::new();
        }
        if let Some(held) = &mut self.paused {
            held.push((seq, root));
            return Vec::new();
        }
        (self.root, self.seq) = (root, seq);
        let (ready, waiting) = self.waiters.drain(..).partition(|(want, _)| *want <= seq);
        self.waiters = waiting;
        let ready: Vec<(i64, Message)> = ready;
        ready.into_iter().map(|(_, msg)| msg).collect()
    }

    /// Whether the sender of `msg` may use this namespace.
    pub fn check_user(&self, msg: &Message) -> Result<(), RpcError> {
        msg.require_user(self.owner).map_err(|_| {
            let reason = format!("KVS namespace {} belongs to user {}", self.name, self.owner);
            RpcError::explained(libc::EPERM, reason)
        })
    }
}

/// All namespaces a rank knows.
#[derive(Default)]
pub struct Table {
    pub map: HashMap<String, Namespace>,
}

/// Who makes a namespace when it is asked for: those of jobs are not made as long as nobody does.
pub fn provider(name: &str) -> Option<&'static str> {
    let id = name.strip_prefix("job-")?;
    let is_job = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    is_job.then_some("job-exec.namespace")
}

/// The error for a namespace that does not exist.
pub fn unknown(name: &str) -> RpcError {
    RpcError::explained(
        libc::ENOTSUP,
        format!("KVS namespace {name} does not exist"),
    )
}

/// The table as one requester sees it.
pub struct SeenBy<'a> {
    pub table: &'a Table,
    pub request: &'a Message,
}

impl Namespaces for SeenBy<'_> {
    fn root(&self, name: &str) -> NamespaceRoot {
        match self.table.map.get(name) {
            None => NamespaceRoot::Unknown,
            Some(ns) if ns.check_user(self.request).is_err() => NamespaceRoot::Denied,
            Some(ns) => NamespaceRoot::Root(ns.root),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_jobs_have_a_provider() {
        assert!(provider("job-123").is_some());
        for other in ["job-", "job-x", "job-12a", "primary", "ajob-1", ""] {
            assert_eq!(provider(other), None, "{other}");
        }
    }
}
