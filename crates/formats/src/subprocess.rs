//! Processes on other brokers: requests and responses of RFC 42, of the broker's service `rexec` and of job shells.

use std::collections::HashMap;

use crate::iodata::IoData;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Ask for stdout.
pub const FLAG_STDOUT: u32 = 1;
/// Ask for stderr.
pub const FLAG_STDERR: u32 = 2;
/// Ask for auxiliary channels.
pub const FLAG_CHANNEL: u32 = 4;
/// Ask for write credit.
pub const FLAG_CREDIT: u32 = 8;
/// Keep the status for a later `wait`.
pub const FLAG_WAITABLE: u32 = 16;

/// Use the server's own standard streams.
pub const LOCAL_FALLTHROUGH: u32 = 1;
/// Do not make a process group.
pub const LOCAL_NO_SETPGRP: u32 = 2;

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Working directory; the broker's own without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Program and arguments.
    pub cmdline: Vec<String>,
    /// The whole environment.
    #[serde(default)]
    pub env: HashMap<String, String>,
    /// Options of the server, by name.
    #[serde(default)]
    pub opts: Map<String, Value>,
    /// Names of auxiliary channels.
    #[serde(default)]
    pub channels: Vec<String>,
    /// A name for signals and waiting, instead of the pid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Command {
    /// Its label, or "".
    pub fn name(&self) -> &str {
        self.label.as_deref().unwrap_or_default()
    }
}

/// Option of a [`Command`] with a label, "1": when the client of the process goes away, the process goes on in the
/// background, waitable, and can be attached to. How it ended is kept until somebody has waited for it.
pub const OUTLIVES_CLIENT: &str = "outlives_client";

/// Option of a [`Command`] that outlives its client: seconds, as text. Where the server keeps its run directory, the
/// process goes on when the broker ends, and the next broker finds it: see [`crate::survivor`].
pub const OUTLIVES_BROKER: &str = "outlives_broker";

/// Request of `exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The process.
    pub cmd: Command,
    /// `FLAG_*`.
    pub flags: u32,
    /// `LOCAL_*`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub local_flags: u32,
}

fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

/// A process, by id or by label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Process id; passed over if there is a label.
    #[serde(default)]
    pub pid: i32,
    /// Or its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Target {
    /// The process of that label.
    pub fn label(label: impl Into<String>) -> Self {
        let label = Some(label.into());
        Self { pid: -1, label }
    }
}

/// Request of `attach`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The process.
    #[serde(flatten)]
    pub target: Target,
    /// Streams to forward: `FLAG_STDOUT`, `FLAG_STDERR`.
    pub flags: u32,
}

/// A response of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ExecResponse {
    /// The process runs.
    Started {
        /// Its process id.
        pid: i32,
    },
    /// The client is attached to a process that ran already.
    Attached {
        /// Its process id.
        pid: i32,
        /// What runs.
        #[serde(default)]
        cmd: Command,
    },
    /// It was stopped by a signal.
    Stopped,
    /// Output.
    Output {
        /// Its process id.
        #[serde(default)]
        pid: i32,
        /// The data.
        io: IoData,
    },
    /// Write credit.
    #[serde(rename = "add-credit")]
    AddCredit {
        /// Bytes by channel.
        channels: HashMap<String, i64>,
    },
    /// It has ended.
    Finished {
        /// Wait status as of waitpid(2).
        status: i32,
    },
    /// What later servers may say besides.
    #[serde(other)]
    Other,
}

/// Request of `write`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Matchtag of the exec request.
    pub matchtag: u32,
    /// What to write.
    pub io: IoData,
}

/// Request of `kill`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KillRequest {
    /// The process.
    #[serde(flatten)]
    pub target: Target,
    /// Signal number.
    pub signum: i32,
}

/// Response of `wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitResponse {
    /// Wait status as of waitpid(2).
    pub status: i32,
    /// What was kept of the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<IoData>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_have_the_shape_of_rfc42() {
        let json = |r: &ExecResponse| serde_json::to_string(r).unwrap();
        assert_eq!(
            json(&ExecResponse::Started { pid: 7 }),
            r#"{"type":"started","pid":7}"#
        );
        assert_eq!(
            json(&ExecResponse::Finished { status: 256 }),
            r#"{"type":"finished","status":256}"#
        );
        let io = IoData {
            stream: "stdout".into(),
            rank: "3".into(),
            data: b"hi\n".to_vec(),
            eof: false,
        };
        let later = r#"{"type":"later","x":1}"#;
        assert_eq!(serde_json::from_str(later).ok(), Some(ExecResponse::Other));
        assert_eq!(
            json(&ExecResponse::Output { pid: 7, io }),
            r#"{"type":"output","pid":7,"io":{"stream":"stdout","rank":"3","data":"hi\n"}}"#
        );
    }
}
