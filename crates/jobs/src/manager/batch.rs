//! Events on their way to the KVS, many jobs' in one commit.
//!
//! Invariant: what depends on a record being stored is an [`After`] of the batch that stores it, and
//! is done only when its commit has succeeded. Batches are stored in order, so whatever a later batch says may rely on what
//! an earlier one says: resources can be given back before it is stored that they are free, for nothing starts on them before it
//! is stored that they are taken again.

use std::collections::BTreeMap;
use std::sync::Arc;

use formats::eventlog::Event;
use formats::job_schema::JobKey;
use formats::jobid::JobId;
use kvs::Txn;
use serde_json::Value;
use wire::Message;

use super::journal::Listener;

/// What is done when a batch is stored.
#[derive(Debug)]
pub(crate) enum After {
    /// Ask the execution service to start a job.
    Start(JobId),
    /// Answer a request.
    Respond(Message, Value),
    /// Tell everybody that the records of these jobs are gone.
    Purged(Vec<JobId>),
    /// Run the epilog of a job.
    Epilog(JobId),
    /// Run housekeeping after a job.
    Housekeep(JobId),
    /// Tell the execution service that what it has left of a job is stored.
    Recorded(JobId),
    /// Tell a listener of the journal of these inactive jobs.
    Tell(Box<Listener>, Vec<JobId>),
    /// The segments of the archive up to this one can be read.
    Archived(u32),
}

/// Records to store.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Eventlog text by job.
    events: BTreeMap<JobId, String>,
    resources: Vec<(JobId, Arc<Value>)>,
    /// Keys that go, with all below them.
    removed: Vec<String>,
    /// Other keys.
    values: BTreeMap<String, Vec<u8>>,
    after: Vec<After>,
}

impl Batch {
    pub(crate) fn event(&mut self, id: JobId, event: &Event) {
        event.encode_to(self.events.entry(id).or_default());
    }

    pub(crate) fn resources(&mut self, id: JobId, r: Arc<Value>) {
        self.resources.push((id, r));
    }

    /// Remove a key, and all below it.
    pub(crate) fn remove(&mut self, key: String) {
        let is_below = |of: &str| {
            of.strip_prefix(&*key)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        self.values.retain(|of, _| !is_below(of));
        self.removed.push(key);
    }

    /// Give a key its value; the last one counts.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.values.insert(key.into(), value.into());
    }

    pub(crate) fn after(&mut self, after: After) {
        self.after.push(after);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.resources.is_empty()
            && self.removed.is_empty()
            && self.values.is_empty()
            && self.after.is_empty()
    }

    /// The transaction, and what follows it.
    pub(crate) fn take(&mut self) -> (Txn, Vec<After>) {
        let batch = std::mem::take(self);
        let mut txn = Txn::new();
        for (id, r) in batch.resources {
            txn.put_raw(&id.key(JobKey::R), r.to_string().as_bytes());
        }
        for (id, text) in batch.events {
            txn.append(&id.key(JobKey::Eventlog), text.as_bytes());
        }
        for key in batch.removed {
            txn.unlink(&key);
        }
        for (key, value) in batch.values {
            txn.put_raw(&key, &value);
        }
        (txn, batch.after)
    }
}
