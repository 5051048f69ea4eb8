//! The broker's log of RFC 5424 entries. Entries go in and out as plain text, not JSON.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;
use wire::RpcError;

use crate::call::{Call, Empty};
use crate::handle::{Handle, Node};
use crate::rpc::RpcStream;

/// Names of severities by their numbers, the most severe first (RFC 5424).
pub const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// The number in front of an entry.
///
/// RFC 5424 has facility × 8 + severity; programs that write to this log have severity × 8 + facility, and all read it
/// so. The facility is 0.
pub fn priority(severity: u8) -> u8 {
    (severity & 7) << 3
}

/// The severity in an entry's number, 0 to 7; see [`priority`].
pub fn severity(priority: u32) -> u32 {
    (priority >> 3) & 7
}

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
            let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
            String::from_utf8_lossy(bytes).into_owned()
        }))
    }
}

impl Handle {
    /// Read the log of the broker at the other end.
    pub fn dmesg(&self, request: &Dmesg) -> Entries {
        Entries(self.stream("log.dmesg", Node::Any, request))
    }

    /// Add an entry of `app`, made here and now. `severity` is from 0 (emergency) to 7 (debug).
    pub fn say(&self, app: &str, severity: u8, text: &str) {
        let now = format!("{:.6}", jiff::Timestamp::now());
        self.log(severity, now, self.rank(), app, text);
    }

    /// Add an entry to the log of the broker at the other end. `severity` is from 0 (emergency) to 7 (debug),
    /// `time` in the form of RFC 3339.
    pub fn log(&self, severity: u8, time: impl Display, rank: impl Display, app: &str, text: &str) {
        let priority = priority(severity);
        let entry = format!("<{priority}>1 {time} {rank} {app} - - - {text}");
        self.notify_raw("log.append", Node::Any, Some(Bytes::from(entry)));
    }
}
