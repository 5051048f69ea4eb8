//! Output on its way from a shell to the leader.
//!
//! One request to the leader's `write` method carries all entries that have gathered while the
//! one before it was under way; the leader answers when it has stored them. The queue is
//! bounded, so that tasks wait when the leader does not keep up. A shell may have something to say
//! before the leader has its service: until they have met, an absent one is asked again.

use crate::{log::complain, patience::Patience, queue};
use client::{Handle, Node};
use serde_json::{Map, Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// The bound of the queue.
const QUEUE_BYTES: u32 = 1 << 20;
/// Entries in one request.
const BATCH: usize = 1024;
/// How often, and after what pause, a leader is asked again that may not be there yet.
const AGAIN: (u32, Duration) = (200, Duration::from_millis(50));
/// What an entry takes besides its data.
const ENTRY_BYTES: usize = 64;

enum Parcel {
    Entry {
        name: &'static str,
        context: Map<String, Value>,
    },
    /// Answered when everything before is with the leader.
    Flush(oneshot::Sender<()>),
}

/// The leader's method, as one shell calls it.
struct Leader {
    handle: Handle,
    patience: Patience,
    topic: String,
    rank: u32,
    /// How often it may still be absent.
    tries: u32,
    /// All shells of the job have been there: an absent one has gone.
    met: Arc<AtomicBool>,
}

impl Leader {
    async fn write(&mut self, request: &Value) {
        loop {
            let answer = self
                .patience
                .rpc(&self.handle, &self.topic, Node::Rank(self.rank), request)
                .await;
            match answer {
                Err(e) if e.errno == libc::ENOSYS && self.tries > 0 && !self.has_met() => {
                    self.tries -= 1;
                    tokio::time::sleep(AGAIN.1).await;
                    continue;
                }
                Err(e) => {
                    complain(&format!("ERROR: sending output to the leader shell: {e}"));
                }
                Ok(_) => {}
            }
            return;
        }
    }

    fn has_met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }
}

/// The writing end.
#[derive(Clone)]
pub struct Remote {
    queue: queue::Sender<Parcel>,
}

impl Remote {
    /// Starts the task that sends to `topic` of the shell on broker rank `leader`. `met` is set when the shells of
    /// the job have met.
    pub fn start(
        handle: Handle,
        patience: Patience,
        topic: String,
        leader: u32,
        shell_rank: u32,
        met: Arc<AtomicBool>,
    ) -> Remote {
        let (queue, mut parcels) = queue::queue::<Parcel>(QUEUE_BYTES);
        let mut leader = Leader {
            handle,
            patience,
            topic,
            rank: leader,
            tries: AGAIN.0,
            met,
        };
        tokio::spawn(async move {
            let mut number = 0u64;
            while let Some(first) = parcels.recv().await {
                let mut batch = vec![first];
                while batch.len() < BATCH {
                    match parcels.try_recv() {
                        Ok(parcel) => batch.push(parcel),
                        Err(_) => break,
                    }
                }
                let (mut entries, mut flushes) = (Vec::new(), Vec::new());
                for parcel in batch {
                    match parcel.item {
                        Parcel::Entry { name, context } => {
                            entries.push(json!({"name": name, "context": context}));
                        }
                        Parcel::Flush(done) => flushes.push(done),
                    }
                }
                if !entries.is_empty() {
                    number += 1;
                    let request = json!({
                        "shell_rank": shell_rank, "batch": number, "entries": entries,
                    });
                    leader.write(&request).await;
                }
                for done in flushes {
                    // Whoever gave up waiting does not need to know.
                    let _ = done.send(());
                }
            }
        });
        Remote { queue }
    }

    /// Adds an entry, waiting for room.
    pub async fn send(&self, name: &'static str, context: Map<String, Value>) {
        let data = context
            .get("data")
            .and_then(Value::as_str)
            .map_or(0, str::len);
        self.queue
            .send(Parcel::Entry { name, context }, data + ENTRY_BYTES)
            .await;
    }

    /// Waits until the leader has everything.
    pub async fn flush(&self) {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Parcel::Flush(done), 0).await;
        // An error means that the task has ended with the connection.
        let _ = outcome.await;
    }
}
