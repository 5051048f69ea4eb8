//! Checkpoints of the primary root: read at the start, written on demand, in periods (`kvs.checkpoint-period`) and at
//! the end. The roots of other namespaces are kept with each commit, and only so.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use client::module::ModuleError;
use client::{Handle, Message, Node, RpcError};
use content::BlobRef;
use content::roots::Roots;
use formats::eventlog::timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, interval_at};

use super::{Done, Module, gc};
use crate::PRIMARY;
use crate::namespace::Namespace;

/// A root that was kept.
#[derive(Deserialize)]
pub(super) struct Checkpoint {
    pub(super) rootref: BlobRef,
    #[serde(default)]
    pub(super) sequence: i64,
    #[serde(default)]
    timestamp: f64,
}

impl Checkpoint {
    /// The latest there is.
    pub(super) async fn last(handle: &Handle) -> Result<Option<Checkpoint>, ModuleError> {
        #[derive(Deserialize)]
        struct Answer {
            value: Vec<Checkpoint>,
        }
        let request = json!({});
        let answer = handle.call::<Answer>("content.checkpoint-get", Node::Any, &request);
        match answer.await {
            Ok(answer) => Ok(answer.value.into_iter().next()),
            // Nothing was kept, or nothing keeps anything.
            Err(e) if matches!(e.errno, libc::ENOENT | libc::ENOSYS) => Ok(None),
            Err(e) => Err(ModuleError::new("reading the KVS checkpoint", e)),
        }
    }

    /// For the log.
    pub(super) fn describe(&self) -> String {
        let date = jiff::Timestamp::from_second(self.timestamp as i64)
            .map_or_else(|_| "unknown date".to_owned(), |t| t.to_string());
        let Checkpoint {
            rootref, sequence, ..
        } = self;
        format!("KVS restored from the checkpoint of {date}: root {rootref}, sequence {sequence}")
    }
}

/// A namespace other than the primary one, as the store has it.
#[derive(Deserialize)]
struct Kept {
    owner: u32,
    flags: i64,
    rootref: BlobRef,
    sequence: i64,
}

/// The namespaces that were there when the instance ended, whichever way, besides the primary one.
pub(super) async fn namespaces(handle: &Handle) -> Result<Vec<Namespace>, ModuleError> {
    #[derive(Deserialize)]
    struct Answer {
        namespaces: HashMap<String, Kept>,
    }
    let request = json!({});
    let answer = handle.call::<Answer>("content.namespaces", Node::Any, &request);
    let kept = match answer.await {
        Ok(answer) => answer.namespaces,
        // A store that keeps none, or no store.
        Err(e) if matches!(e.errno, libc::ENOENT | libc::ENOSYS) => HashMap::new(),
        Err(e) => return Err(ModuleError::new("reading the KVS namespaces", e)),
    };
    let namespace =
        |(name, n): (String, Kept)| Namespace::new(&name, n.owner, n.flags, n.rootref, n.sequence);
    Ok(kept.into_iter().map(namespace).collect())
}

/// What the store is to keep of a namespace whose root moves on.
pub(super) fn root(ns: &Namespace, root: BlobRef, seq: i64) -> Roots {
    let mut value = value(root, seq);
    if ns.name != PRIMARY {
        value["owner"] = ns.owner.into();
        value["flags"] = ns.flags.into();
    }
    Roots::of(&ns.name, value)
}

/// The value of a checkpoint (upstream's version 1).
pub(super) fn value(root: BlobRef, seq: i64) -> Value {
    json!({
        "version": 1,
        "rootref": root,
        "sequence": seq,
        "timestamp": timestamp(SystemTime::now()),
    })
}

/// Configuration key `kvs.checkpoint-period`; absent, 0 and infinity are none.
pub(super) fn period(config: &Value) -> Result<Option<Duration>, RpcError> {
    let invalid =
        |reason: String| RpcError::explained(libc::EINVAL, format!("configuration: {reason}"));
    let table = match &config["kvs"] {
        Value::Null => return Ok(None),
        Value::Object(table) => table,
        other => return Err(invalid(format!("kvs must be a table, found {other}"))),
    };
    let Some(period) = table.get("checkpoint-period") else {
        return Ok(None);
    };
    let text = period.as_str().ok_or_else(|| {
        invalid(format!(
            "kvs.checkpoint-period must be a duration like \"30m\", found {period}"
        ))
    })?;
    let seconds = formats::fsd::parse(text)
        .map_err(|e| invalid(format!("kvs.checkpoint-period: {text:?}: {e}")))?;
    let period = Duration::try_from_secs_f64(seconds).ok();
    Ok(period.filter(|d| !d.is_zero()))
}

/// When the next checkpoint is due.
#[derive(Default)]
pub(super) struct Timer {
    period: Option<Duration>,
    interval: Option<Interval>,
}

impl Timer {
    /// Takes a period over; one that has not changed goes on.
    pub(super) fn set(&mut self, period: Option<Duration>) {
        if period != self.period {
            self.period = period;
            self.interval = period.map(|p| interval_at(Instant::now() + p, p));
        }
    }

    /// Waits until it is due.
    pub(super) async fn tick(&mut self) {
        match &mut self.interval {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}

impl Module {
    pub(super) fn handle_config_reload(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let config = msg.json()?;
        let (period, settings) = (period(&config)?, gc::Settings::parse(&config)?);
        self.timer.set(period);
        self.gc.configure(settings);
        self.handle.respond_ok(msg);
        Ok(())
    }

    /// Writes a checkpoint if the primary root has moved since the last one.
    pub(super) fn checkpoint(&mut self) {
        if let Some((seq, rpc)) = self.start_checkpoint() {
            self.work.push(Box::pin(async move {
                Done::Checkpointed(seq, rpc.await.map(drop))
            }));
        }
    }

    /// The sequence number that is kept, and the call that keeps it.
    pub(super) fn start_checkpoint(&mut self) -> Option<(i64, client::Rpc)> {
        let ns = self.table.map.get(PRIMARY)?;
        if self.handle.rank() != 0 || self.checkpointed >= ns.seq {
            return None;
        }
        let request = json!({ "value": value(ns.root, ns.seq) });
        let rpc = self
            .handle
            .rpc("content.checkpoint-put", Node::Any, &request);
        Some((ns.seq, rpc))
    }

    /// A checkpoint in its period has come to an end; if it failed, the next period tries again.
    pub(super) fn handle_checkpointed(&mut self, seq: i64, result: &Result<(), RpcError>) {
        match result {
            Ok(()) => self.checkpointed = self.checkpointed.max(seq),
            Err(e) => {
                let text = format!("checkpoint of KVS root {seq} failed: {e}");
                self.handle.say("kvs", 3, &text);
            }
        }
    }

    /// Answers commits once the root they made is kept.
    pub(super) fn answer_synced(&mut self, requests: Vec<Message>, answer: Value) {
        let checkpoint = self.start_checkpoint();
        self.syncing += requests.len();
        self.work.push(Box::pin(async move {
            let (seq, result) = match checkpoint {
                Some((seq, rpc)) => (seq, rpc.await.map(drop)),
                None => (0, Ok(())),
            };
            Done::Synced(requests, answer, seq, result)
        }));
    }

    pub(super) fn handle_synced(
        &mut self,
        requests: &[Message],
        answer: &Value,
        seq: i64,
        result: Result<(), RpcError>,
    ) {
        self.syncing -= requests.len();
        if result.is_ok() {
            self.checkpointed = self.checkpointed.max(seq);
        }
        for msg in requests {
            match &result {
                Ok(()) => self.handle.respond(msg, answer),
                Err(e) => self.handle.respond_error(msg, e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let read = |table: Value| period(&json!({ "kvs": table })).map_err(|e| e.to_string());
        let second = Some(Duration::from_secs(1));
        assert_eq!(read(json!({"checkpoint-period": "1s"})), Ok(second));
        for none in [
            json!({}),
            json!({"checkpoint-period": "0"}),
            json!({"checkpoint-period": "infinity"}),
        ] {
            assert_eq!(read(none), Ok(None));
        }
        let errors = [
            json!(4),
            json!({"checkpoint-period": 4}),
            json!({"checkpoint-period": "often"}),
            json!({"checkpoint-period": "-1s"}),
        ];
        insta::assert_snapshot!(errors.map(|t| read(t).unwrap_err()).join("\n"), @r#"
        Invalid argument: configuration: kvs must be a table, found 4
        Invalid argument: configuration: kvs.checkpoint-period must be a duration like "30m", found 4
        Invalid argument: configuration: kvs.checkpoint-period: "often": 'often' is not a duration; give a number with an optional unit ms, s, m, h or d, or infinity
        Invalid argument: configuration: kvs.checkpoint-period: "-1s": '-1s' is not a duration; give a number with an optional unit ms, s, m, h or d, or infinity
        "#);
    }
}
