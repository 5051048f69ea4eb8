//! The broker's log: RFC 5424 entries in a bounded ring, shown by `flux dmesg`.
//!
//! The ring holds `log-ring-size` entries; older ones make room. Entries at or above
//! `log-stderr-level` also go to the broker's standard error.

use std::collections::VecDeque;

use bytes::Bytes;
use client::Handle;
use client::services::log;
use serde::Deserialize;
use serde_json::Value;
use wire::{Message, RpcError, string_payload};

use crate::attrs::Attrs;

pub(crate) struct LogRing {
    entries: VecDeque<Bytes>,
    capacity: usize,
    stderr_level: i32,
    rank: String,
    followers: Vec<Message>,
}

/// Severity of an entry, from the number in its leading `<…>`.
fn severity(entry: &[u8]) -> Option<i32> {
    let rest = entry.strip_prefix(b"<")?;
    let end = rest.iter().position(|c| *c == b'>')?;
    let number: u32 = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some(log::severity(number) as i32)
}

/// The free text of an RFC 5424 entry: what follows the six header fields and `-`.
fn text(entry: &[u8]) -> String {
    let line = line(entry);
    line.splitn(8, ' ').nth(7).unwrap_or(&line).to_owned()
}

/// An entry as readers get it: a text without what ends it.
fn line(entry: &[u8]) -> String {
    let line = String::from_utf8_lossy(entry);
    line.trim_end_matches(['\0', '\n']).to_owned()
}

impl LogRing {
    pub(crate) fn new(attrs: &Attrs) -> Self {
        let number =
            |name: &str, or: i32| attrs.get(name).and_then(|v| v.parse().ok()).unwrap_or(or);
        Self {
            entries: VecDeque::new(),
            capacity: number("log-ring-size", 1024).max(1) as usize,
            stderr_level: number("log-stderr-level", 3),
            rank: attrs.get("rank").unwrap_or("0").to_owned(),
            followers: Vec::new(),
        }
    }

    fn push(&mut self, entry: Bytes) {
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// `log.append`: store an entry and show it where it is due.
    pub(super) fn append(&mut self, msg: &Message, handle: &Handle) {
        let Some(entry) = msg.payload().cloned() else {
            return;
        };
        if severity(&entry).is_some_and(|level| level <= self.stderr_level) {
            eprintln!("flux-broker.{}: {}", self.rank, text(&entry));
        }
        let shown = string_payload(&line(&entry));
        for req in &self.followers {
            handle.respond_raw(req, Some(shown.clone()));
        }
        self.push(entry);
    }

    /// An entry of the broker itself.
    pub(super) fn append_local(&mut self, what: &str, level: i32) {
        let priority = log::priority(level as u8);
        let entry = format!("<{priority}>1 - - broker - {} - {what}", self.rank);
        self.push(Bytes::from(entry));
    }

    /// `log.dmesg`: the ring, then (with `follow`) what comes.
    pub(super) fn dmesg(
        &mut self,
        msg: &Message,
        handle: &Handle,
    ) -> Option<Result<Value, RpcError>> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            follow: bool,
            #[serde(default)]
            nobacklog: bool,
        }
        let allowed = msg.require_owner().and_then(|()| msg.require_streaming());
        let req: Request = match allowed.and_then(|()| msg.json()) {
            Ok(req) => req,
            Err(e) => return Some(Err(e)),
        };
        if !req.nobacklog {
            for entry in &self.entries {
                handle.respond_raw(msg, Some(string_payload(&line(entry))));
            }
        }
        if req.follow {
            self.followers.push(msg.clone());
            return None;
        }
        Some(Err(RpcError::errno(libc::ENODATA)))
    }

    /// `log.clear`.
    pub(super) fn clear(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        self.entries.clear();
        Ok(Value::Null)
    }

    /// A follower is gone.
    pub(super) fn disconnect(&mut self, msg: &Message) {
        self.followers.retain(|req| !req.is_same_rpc(msg, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let entry = b"<24>1 2026-01-01T00:00:00Z host app 0 - - hello there\n";
        assert_eq!(severity(entry), Some(3));
        assert_eq!(text(entry), "hello there");
        assert_eq!(severity(b"no"), None);
    }
}
