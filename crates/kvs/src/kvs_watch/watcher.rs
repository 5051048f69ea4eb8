//! One watch: what has been sent, and what a lookup's answer adds to it.

use std::collections::VecDeque;

use client::{Handle, Message, RpcError};
use serde::Deserialize;
use serde_json::json;

use super::Root;
use crate::flags::*;
use crate::treeobj::TreeObj;

/// A request that is answered again and again.
pub(super) struct Watcher {
    pub(super) request: Message,
    pub(super) namespace: String,
    pub(super) key: String,
    pub(super) flags: u32,
    /// Roots to look at, oldest first.
    pub(super) queue: VecDeque<Root>,
    pub(super) in_flight: bool,
    /// The last root queued.
    pub(super) seen: i64,
    /// The first lookup goes to the namespace's current root, which may be newer than the one
    /// that caused it; roots up to that are not looked at again.
    pub(super) first_done: bool,
    first_seq: i64,
    pub(super) responded: bool,
    sentinel_sent: bool,
    previous: Option<TreeObj>,
    /// Blobs of an appended value that were sent.
    pub(super) sent: usize,
}

/// Answers of lookup-plus and lookup-appended.
#[derive(Deserialize)]
pub(super) struct LookupAnswer {
    errno: Option<i32>,
    rootseq: i64,
    val: Option<TreeObj>,
    #[serde(default)]
    is_val: bool,
    #[serde(default)]
    count: usize,
    #[serde(default)]
    values: Vec<TreeObj>,
}

/// How a watcher goes on after a lookup.
pub(super) enum Next {
    Wait,
    /// It has had all it asked for; nothing more is sent.
    Finish,
    Fail(RpcError),
}

impl Watcher {
    pub(super) fn new(request: Message, namespace: String, key: String, flags: u32) -> Watcher {
        Watcher {
            request,
            namespace,
            key,
            flags,
            queue: VecDeque::new(),
            in_flight: false,
            seen: -1,
            first_done: false,
            first_seq: -1,
            responded: false,
            sentinel_sent: false,
            previous: None,
            sent: 0,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sends what an answer brought, if anything.
    pub(super) fn handle_answer(&mut self, handle: &Handle, answer: LookupAnswer) -> Next {
        let first = !self.first_done;
        if !first && answer.rootseq <= self.first_seq {
            return Next::Wait;
        }
        if first {
            self.first_done = true;
            self.first_seq = answer.rootseq;
        }
        if let Some(errno) = answer.errno {
            if self.has(WAITCREATE) && !self.responded {
                self.send_sentinel(handle);
                return Next::Wait;
            }
            return Next::Fail(RpcError::errno(errno));
        }
        if self.has(WATCH_APPEND | STREAM) {
            if let Err(e) = self.send_appended(handle, &answer) {
                return Next::Fail(e);
            }
            self.send_sentinel(handle);
            if self.has(STREAM) {
                return Next::Fail(RpcError::errno(libc::ENODATA));
            }
        } else if let Some(val) = answer.val {
            let same = self.previous.as_ref() == Some(&val);
            if !(same && self.has(WATCH_FULL | WATCH_UNIQ)) {
                self.send(handle, &val);
            }
            if self.has(WATCH_FULL | WATCH_UNIQ) {
                self.previous = Some(val);
            }
        }
        // Without WATCH a lookup is answered once, when the key exists.
        if self.has(WATCH) {
            Next::Wait
        } else {
            Next::Finish
        }
    }

    fn send(&mut self, handle: &Handle, val: &TreeObj) {
        handle.respond(&self.request, &json!({ "val": val }));
        self.responded = true;
    }

    fn send_appended(&mut self, handle: &Handle, a: &LookupAnswer) -> Result<(), RpcError> {
        let invalid = |what: &str| {
            let reason = format!("value watched for appended data was {what}");
            Err(RpcError::explained(libc::EINVAL, reason))
        };
        if self.responded && a.is_val {
            return invalid("overwritten");
        }
        if a.count < self.sent {
            return invalid("truncated");
        }
        for val in &a.values {
            self.send(handle, val);
        }
        self.sent = a.count;
        Ok(())
    }

    fn send_sentinel(&mut self, handle: &Handle) {
        if self.has(WATCH_INITIAL_SENTINEL) && !self.sentinel_sent {
            handle.respond_ok(&self.request);
            self.sentinel_sent = true;
        }
    }
}

/// Whether these flags go together.
pub(super) fn check_flags(flags: u32, streaming: bool) -> Result<(), RpcError> {
    let has = |flag| flags & flag != 0;
    if has(WATCH | STREAM) && !streaming {
        return Err(RpcError::proto(
            "watching and streaming need a streaming RPC",
        ));
    }
    let invalid = |text: &str| Err(RpcError::explained(libc::EINVAL, text));
    if has(WATCH) && has(STREAM) {
        return invalid("a lookup cannot watch and stream at once");
    }
    if !has(WATCH) && has(WATCH_FULL | WATCH_UNIQ | WATCH_APPEND | WATCH_INITIAL_SENTINEL) {
        return invalid("flags that say how to watch need the WATCH flag");
    }
    if has(WATCH_INITIAL_SENTINEL) && !has(WATCH_APPEND) {
        return invalid("WATCH_INITIAL_SENTINEL needs WATCH_APPEND");
    }
    Ok(())
}
