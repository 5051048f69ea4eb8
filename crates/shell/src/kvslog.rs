//! Appending events to the job's eventlogs in the guest KVS namespace.
//!
//! One task owns the pending events of all logs. A commit takes all that has gathered while the
//! commit before it was under way, so the number of commits follows the speed of the KVS and
//! not the number of lines a job prints. The queue is bounded: when the KVS is slower than the
//! job, writers wait, and in the end the tasks do.

use client::{Handle, Node};
use formats::{Event, eventlog, iodata::base64_encode};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use wire::RpcError;

/// Append to the value that is there (the KVS's operation flag).
const APPEND: u32 = 32;
/// How long the first event of a batch waits for company. A short job's events then make one
/// commit; a long job's output is this much late.
const WINDOW: Duration = Duration::from_millis(5);
/// The text of one commit; more waits for the next.
const BATCH_BYTES: usize = 1 << 20;
/// Entries in the queue: with chunks of at most 64 KiB this bounds memory to some megabytes.
const QUEUE: usize = 128;

enum Item {
    Event { key: &'static str, event: Event },
    Flush(oneshot::Sender<Result<(), RpcError>>),
}

/// The writing end of the job's eventlogs.
#[derive(Clone)]
pub struct KvsLog {
    queue: mpsc::Sender<Item>,
}

/// The time now, as events carry it.
pub fn now() -> f64 {
    eventlog::timestamp(SystemTime::now())
}

impl KvsLog {
    /// Starts the task that commits to `namespace`.
    pub fn start(handle: Handle, namespace: String) -> KvsLog {
        let (queue, items) = mpsc::channel(QUEUE);
        tokio::spawn(commit_loop(handle, namespace, items));
        KvsLog { queue }
    }

    /// Appends an event that happens now.
    pub async fn append(&self, key: &'static str, name: &str, context: Value) {
        let event = Event::new(now(), name).with_context(context);
        // The loop ends only when all senders are gone, so the queue is open.
        let _ = self.queue.send(Item::Event { key, event }).await;
    }

    /// Waits until everything appended before is stored.
    pub async fn flush(&self) -> Result<(), RpcError> {
        let (done, outcome) = oneshot::channel();
        let _ = self.queue.send(Item::Flush(done)).await;
        outcome
            .await
            .unwrap_or_else(|_| Err(RpcError::errno(libc::ECONNRESET)))
    }
}

/// The events of one commit, by key.
#[derive(Default)]
struct Batch {
    logs: Vec<(&'static str, String)>,
    bytes: usize,
    flushes: Vec<oneshot::Sender<Result<(), RpcError>>>,
}

impl Batch {
    fn add(&mut self, item: Item) {
        match item {
            Item::Flush(done) => self.flushes.push(done),
            Item::Event { key, event } => {
                let at = self
                    .logs
                    .iter()
                    .position(|(k, _)| *k == key)
                    .unwrap_or_else(|| {
                        self.logs.push((key, String::new()));
                        self.logs.len() - 1
                    });
                let log = &mut self.logs[at].1;
                let before = log.len();
                event.encode_to(log);
                self.bytes += log.len() - before;
            }
        }
    }

    /// No reason is left to wait for more.
    fn is_due(&self) -> bool {
        !self.flushes.is_empty() || self.bytes >= BATCH_BYTES
    }

    fn request(&self, namespace: &str) -> Value {
        let ops: Vec<Value> = self
            .logs
            .iter()
            .map(|(key, text)| {
                let data = base64_encode(text.as_bytes());
                json!({"key": key, "flags": APPEND, "dirent": {"ver": 1, "type": "val", "data": data}})
            })
            .collect();
        json!({"namespace": namespace, "flags": 0, "ops": ops})
    }
}

async fn commit_loop(handle: Handle, namespace: String, mut items: mpsc::Receiver<Item>) {
    let mut failed: Option<RpcError> = None;
    while let Some(first) = items.recv().await {
        let mut batch = Batch::default();
        batch.add(first);
        let deadline = Instant::now() + WINDOW;
        while !batch.is_due() {
            match timeout_at(deadline, items.recv()).await {
                Ok(Some(item)) => batch.add(item),
                Ok(None) | Err(_) => break,
            }
        }
        while batch.bytes < BATCH_BYTES {
            match items.try_recv() {
                Ok(item) => batch.add(item),
                Err(_) => break,
            }
        }
        if !batch.logs.is_empty()
            && let Err(e) = handle
                .rpc("kvs.commit", Node::Any, &batch.request(&namespace))
                .await
        {
            if failed.is_none() {
                eprintln!("flux-shell: ERROR: storing events of the job: {e}");
            }
            failed = Some(e);
        }
        for done in batch.flushes {
            // Whoever gave up waiting does not need the outcome.
            let _ = done.send(failed.clone().map_or(Ok(()), Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_for_each_log() {
        let mut batch = Batch::default();
        for (key, name) in [
            ("output", "header"),
            ("exec.eventlog", "shell.init"),
            ("output", "data"),
        ] {
            batch.add(Item::Event {
                key,
                event: Event::new(1., name),
            });
        }
        assert!(!batch.is_due());
        let request = batch.request("job-1");
        let ops = request["ops"].as_array().unwrap();
        let text = |i: usize| {
            let data = ops[i]["dirent"]["data"].as_str().unwrap();
            String::from_utf8(formats::iodata::base64_decode(data).unwrap()).unwrap()
        };
        assert_eq!(ops.len(), 2);
        assert_eq!(ops[0]["key"], "output");
        assert_eq!(
            text(0),
            "{\"timestamp\":1.0,\"name\":\"header\"}\n{\"timestamp\":1.0,\"name\":\"data\"}\n"
        );
        assert_eq!(text(1), "{\"timestamp\":1.0,\"name\":\"shell.init\"}\n");
        assert_eq!(
            (&request["namespace"], &ops[0]["flags"]),
            (&json!("job-1"), &json!(32))
        );
        let (done, _outcome) = oneshot::channel();
        batch.add(Item::Flush(done));
        assert!(batch.is_due());
    }
}
