//! The resource eventlog: persistent events in the KVS, all events in the journal (RFC 44).
//!
//! Commits leave in order, so the log's order is that of posting. What depends on an event being
//! stored (answers to drain requests, the first acquire response) waits for its commit.

use std::collections::VecDeque;

use client::{Handle, Message, RpcError};
use formats::Event;
use formats::eventlog::timestamp;
use formats::resource_event::{Plain, ResourceEvent};
use futures::FutureExt;
use futures::future::BoxFuture;
use kvs::Txn;
use serde_json::{Value, json};

/// Key of the log.
pub(super) const EVENTLOG: &str = "resource.eventlog";
/// Journal entries kept if the configuration says nothing.
const JOURNAL_MAX: usize = 100_000;

pub(super) struct Reslog {
    handle: Handle,
    journal: VecDeque<Event>,
    journal_max: usize,
    /// Open `resource.journal` requests.
    readers: Vec<Message>,
}

/// Time now, as events carry it.
pub(super) fn now() -> f64 {
    timestamp(std::time::SystemTime::now())
}

impl Reslog {
    pub(super) fn new(handle: Handle, journal_max: Option<usize>) -> Reslog {
        let journal_max = journal_max.unwrap_or(JOURNAL_MAX).max(1);
        Reslog {
            handle,
            journal: VecDeque::new(),
            journal_max,
            readers: Vec::new(),
        }
    }

    /// Posts an event to the journal only.
    pub(super) fn note(&mut self, event: &ResourceEvent) {
        self.journal(event.to_event(now()), None);
    }

    /// Posts an event to the KVS, with other changes in the same commit, and to the journal.
    /// The future resolves when it is stored.
    pub(super) fn post(
        &mut self,
        event: Event,
        mut txn: Txn,
        set: Option<&Value>,
    ) -> BoxFuture<'static, Result<(), RpcError>> {
        txn.append(EVENTLOG, event.encode().as_bytes());
        let commit = kvs::client::commit(&self.handle, Some(kvs::PRIMARY), &txn);
        self.journal(event, set);
        async move { commit.await.map(drop) }.boxed()
    }

    /// `set` is the resource set, for the event that defines it.
    fn journal(&mut self, event: Event, set: Option<&Value>) {
        let mut payload = json!({"events": [&event]});
        if let Some(set) = set {
            payload["R"] = set.clone();
        }
        for reader in &self.readers {
            self.handle.respond(reader, &payload);
        }
        self.restore(event);
    }

    /// Enters an event of an earlier life.
    pub(super) fn restore(&mut self, event: Event) {
        self.journal.push_back(event);
        if self.journal.len() > self.journal_max {
            // The first entry says up to when events were dropped.
            self.journal.pop_front();
            if let Some(first) = self.journal.front_mut() {
                *first = ResourceEvent::Truncate(Plain::default()).to_event(first.timestamp);
            }
        }
    }

    /// Answers a journal request with all there is, a sentinel, and then with what comes.
    pub(super) fn add_reader(&mut self, msg: &Message, set: Option<&Value>) {
        if !self.journal.is_empty() {
            let mut payload = json!({"events": &self.journal});
            if let Some(set) = set {
                payload["R"] = set.clone();
            }
            self.handle.respond(msg, &payload);
        }
        self.handle.respond(msg, &json!({"events": []}));
        self.readers.push(msg.clone());
    }

    /// Ends journal requests of one sender, or one of them, with ENODATA if they can hear it.
    pub(super) fn remove_reader(&mut self, msg: &Message, matchtag: Option<u32>) {
        let handle = &self.handle;
        self.readers.retain(|reader| {
            let same = reader.is_same_rpc(msg, matchtag);
            if same && matchtag.is_some() {
                handle.respond_error(reader, &RpcError::errno(libc::ENODATA));
            }
            !same
        });
    }
}
