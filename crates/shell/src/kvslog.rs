//! Appending events to the job's eventlogs in the guest KVS namespace.
//!
//! One task owns the pending events of all logs. A commit takes all that has gathered while the
//! commit before it was under way, so the number of commits follows the speed of the KVS and
//! not the number of lines a job prints. The queue is bounded: when the KVS is slower than the
//! job, writers wait, and in the end the tasks do.
//!
//! A log may hold its first events back for a while. If the job ends meanwhile nothing is committed: what there is goes to
//! whoever closes the log, to be stored with the end of the job.

use crate::{
    log::complain,
    patience::Patience,
    queue::{self, Entry},
};
use client::{Handle, Node};
use formats::{
    Event, eventlog,
    iodata::{base64_decode, base64_encode},
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::{Instant, timeout_at},
};
use wire::RpcError;

/// Append to the value that is there (the KVS's operation flag).
const APPEND: u32 = 32;
/// How long the first event of a batch waits for company. A short job's events then make one
/// commit.
const WINDOW: Duration = Duration::from_millis(5);
/// Commits that a job may make at once, and how often it may after that. Every commit makes the
/// KVS's list of the log's pieces longer, so their number must not follow the output.
const BURST: f64 = 20.;
const INTERVAL: Duration = Duration::from_millis(100);
/// The text of one commit: as much is committed without waiting.
const BATCH_BYTES: usize = 1 << 20;
/// As much is not held back.
const HELD_BYTES: usize = 64 << 10;
/// The bound of the queue: enough for the next commit to gather while one is under way.
const QUEUE_BYTES: u32 = 4 << 20;

enum Item {
    Event { key: &'static str, line: String },
    Close(oneshot::Sender<Result<Logs, RpcError>>),
}

/// Text to append, by key.
pub type Logs = Vec<(&'static str, String)>;

/// The writing end of the job's eventlogs.
#[derive(Clone)]
pub struct KvsLog {
    queue: queue::Sender<Item>,
}

/// The time now, as events carry it.
pub fn now() -> f64 {
    eventlog::timestamp(SystemTime::now())
}

impl KvsLog {
    /// Starts the task that commits to `namespace`, which holds the first events back for as long as `hold`.
    pub fn start(
        handle: Handle,
        patience: Patience,
        namespace: String,
        hold: Option<Duration>,
    ) -> KvsLog {
        let (queue, items) = queue::queue(QUEUE_BYTES);
        tokio::spawn(commit_loop(handle, patience, namespace, hold, items));
        KvsLog { queue }
    }

    /// Appends an event that happens now.
    pub async fn append(&self, key: &'static str, name: &str, context: Value) {
        let event = Event::new(now(), name).with_context(context);
        let line = event.encode();
        let bytes = line.len();
        self.queue.send(Item::Event { key, line }, bytes).await;
    }

    /// Waits until everything appended before is stored; returns what is held back and still to be stored, by the caller.
    pub async fn close(&self) -> Result<Logs, RpcError> {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Item::Close(done), 0).await;
        outcome
            .await
            .unwrap_or_else(|_| Err(RpcError::errno(libc::ECONNRESET)))
    }
}

/// The events of one commit, by key.
#[derive(Default)]
struct Batch {
    logs: Logs,
    bytes: usize,
    closes: Vec<oneshot::Sender<Result<Logs, RpcError>>>,
}

impl Batch {
    fn add(&mut self, item: Item) {
        match item {
            Item::Close(done) => self.closes.push(done),
            Item::Event { key, line } => {
                let at = self
                    .logs
                    .iter()
                    .position(|(k, _)| *k == key)
                    .unwrap_or_else(|| {
                        self.logs.push((key, String::new()));
                        self.logs.len() - 1
                    });
                self.logs[at].1.push_str(&line);
                self.bytes += line.len();
            }
        }
    }

    /// No reason is left to wait for more.
    fn is_due(&self) -> bool {
        !self.closes.is_empty() || self.bytes >= BATCH_BYTES
    }

    /// Takes what comes until `deadline`, or until it `is_due`.
    async fn gather(
        &mut self,
        items: &mut UnboundedReceiver<Entry<Item>>,
        deadline: Instant,
        is_due: impl Fn(&Batch) -> bool,
    ) {
        while !is_due(self) {
            match timeout_at(deadline, items.recv()).await {
                Ok(Some(entry)) => self.add(entry.item),
                Ok(None) | Err(_) => break,
            }
        }
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

/// Spends commits: `BURST` at once, then one each `INTERVAL`.
struct Allowance {
    commits: f64,
    at: Instant,
}

impl Allowance {
    /// When the next commit may be made.
    fn next(&mut self, now: Instant) -> Instant {
        let earned = now.duration_since(self.at).as_secs_f64() / INTERVAL.as_secs_f64();
        self.commits = (self.commits + earned).min(BURST);
        self.at = now;
        if self.commits >= 1. {
            return now + WINDOW;
        }
        now + WINDOW.max(INTERVAL.mul_f64(1. - self.commits))
    }

    fn spend(&mut self) {
        // A close or a full batch may go ahead of its time.
        self.commits = (self.commits - 1.).max(-1.);
    }
}

/// Where the events go.
struct Store<'a> {
    handle: &'a Handle,
    patience: &'a Patience,
    namespace: &'a str,
}

impl Store<'_> {
    /// Stores a batch, once, whatever happens to brokers meanwhile.
    async fn commit(&self, batch: &Batch) -> Result<(), RpcError> {
        let request = batch.request(self.namespace);
        let mut attempts = self.patience.attempts();
        loop {
            let stored = self.handle.rpc("kvs.commit", Node::Any, &request).await;
            let Err(mut e) = stored else { return Ok(()) };
            if e.errno == libc::ENOTSUP {
                // Nobody has made the namespace yet: whoever should is not there.
                e.errno = libc::ENOSYS;
            }
            if !attempts.go_on_after(&e).await {
                return Err(e);
            }
            // The answer may be all that was lost.
            if self.has(batch).await? {
                return Ok(());
            }
        }
    }

    /// Whether a batch is stored: as a whole or not at all.
    async fn has(&self, batch: &Batch) -> Result<bool, RpcError> {
        let Some((key, text)) = batch.logs.first() else {
            return Ok(true);
        };
        // It may be on its way still: commits are taken in order, so after an empty one it is not.
        let empty = Batch::default().request(self.namespace);
        let commit = self
            .patience
            .rpc(self.handle, "kvs.commit", Node::Any, &empty);
        let root: Value = commit.await?.json()?;
        let request = json!({"namespace": self.namespace, "rootseq": root["rootseq"]});
        let version = self
            .patience
            .rpc(self.handle, "kvs.wait-version", Node::Any, &request);
        version.await?;
        let request = json!({"namespace": self.namespace, "key": key, "flags": 0});
        let found = self
            .patience
            .rpc(self.handle, "kvs.lookup", Node::Any, &request);
        let found: Value = match found.await {
            Ok(found) => found.json()?,
            Err(e) if e.errno == libc::ENOENT => return Ok(false),
            Err(e) => return Err(e),
        };
        let data = found.pointer("/val/data").and_then(Value::as_str);
        let log = base64_decode(data.unwrap_or_default())
            .ok_or_else(|| RpcError::proto(format!("kvs.lookup: {key}: malformed value")))?;
        // Lines have the time they were made at: there are no two of one text.
        Ok(String::from_utf8_lossy(&log).contains(text.as_str()))
    }
}

async fn commit_loop(
    handle: Handle,
    patience: Patience,
    namespace: String,
    mut hold: Option<Duration>,
    mut items: UnboundedReceiver<Entry<Item>>,
) {
    let store = Store {
        handle: &handle,
        patience: &patience,
        namespace: &namespace,
    };
    let mut failed: Option<RpcError> = None;
    let mut allowance = Allowance {
        commits: BURST,
        at: Instant::now(),
    };
    while let Some(first) = items.recv().await {
        let mut batch = Batch::default();
        batch.add(first.item);
        if let Some(hold) = hold {
            let is_due = |batch: &Batch| batch.is_due() || batch.bytes >= HELD_BYTES;
            batch
                .gather(&mut items, Instant::now() + hold, is_due)
                .await;
            if let Some(done) = batch.closes.pop() {
                // Whoever gave up waiting has no use for it.
                let _ = done.send(Ok(batch.logs));
                continue;
            }
        }
        // What is held back is first: once something is stored, all that follows is.
        hold = None;
        let deadline = allowance.next(Instant::now());
        batch.gather(&mut items, deadline, Batch::is_due).await;
        while batch.bytes < BATCH_BYTES {
            match items.try_recv() {
                Ok(entry) => batch.add(entry.item),
                Err(_) => break,
            }
        }
        if !batch.logs.is_empty() {
            allowance.spend();
            if let Err(e) = store.commit(&batch).await {
                if failed.is_none() {
                    complain(&format!("ERROR: storing events of the job: {e}"));
                }
                failed = Some(e);
            }
        }
        for done in batch.closes {
            // Whoever gave up waiting does not need the outcome.
            let _ = done.send(failed.clone().map_or(Ok(Logs::new()), Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_rationed() {
        let start = Instant::now();
        let mut allowance = Allowance {
            commits: BURST,
            at: start,
        };
        for _ in 0..BURST as usize {
            assert_eq!(allowance.next(start), start + WINDOW);
            allowance.spend();
        }
        assert_eq!(allowance.next(start), start + INTERVAL);
        let later = start + INTERVAL * 2;
        assert_eq!(allowance.next(later), later + WINDOW);
    }

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
                line: Event::new(1., name).encode(),
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
        batch.add(Item::Close(done));
        assert!(batch.is_due());
    }
}
