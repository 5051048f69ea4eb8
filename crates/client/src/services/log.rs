//! The broker's log of RFC 5424 entries. Entries go in and out as plain text, not JSON.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;
use wire::RpcError;

use crate::call::{Call, Empty};
use crate::handle::{Handle, Node};
use crate::rpc::RpcStream;

/// Read the log.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Dmesg {
    /// Go on with entries as they are made.
    pub follow: bool,
    /// Leave out what is there already.
    pub nobacklog: bool,
}

/// Empty the log; for the owner.
#[derive(Debug, Clone, Serialize)]
pub struct Clear {}

impl Call for Clear {
    const TOPIC: &'static str = "log.clear";
    type Answer = Empty;
}

/// Entries of the log, as text.
pub struct Entries(RpcStream);

impl Entries {
    /// The next entry; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<String, RpcError>> {
        let entry = self.0.next().await?;
        Some(entry.map(|msg| {
            let bytes = msg.payload().map_or(&[][..], |p| p);
            String::from_utf8_lossy(bytes).into_owned()
        }))
    }
}

impl Handle {
    /// Read the log of the broker at the other end.
    pub fn dmesg(&self, request: &Dmesg) -> Entries {
        Entries(self.stream("log.dmesg", Node::Any, request))
    }

    /// Add an entry to the log of the broker at the other end. `priority` is facility × 8 + severity;
    /// `time` in the form of RFC 3339.
    pub fn log(&self, priority: u8, time: impl Display, rank: impl Display, app: &str, text: &str) {
        let entry = format!("<{priority}>1 {time} {rank} {app} - - - {text}");
        self.notify_raw("log.append", Node::Any, Some(Bytes::from(entry)));
    }
}
