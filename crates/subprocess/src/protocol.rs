//! Requests and responses of RFC 42.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wire::RpcError;

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

/// What to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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

/// Request of `exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The process.
    pub cmd: Command,
    /// `FLAG_*`.
    #[serde(default)]
    pub flags: u32,
}

/// A piece of a stream (RFC 24 data object).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// `stdin`, `stdout`, `stderr` or a channel.
    pub stream: String,
    /// Rank, as text.
    pub rank: String,
    /// The bytes, as text or encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// `base64` where the bytes are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The stream has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eof: bool,
}

impl Io {
    /// A piece of data; empty `bytes` with `eof` is the bare end of the stream.
    pub fn new(stream: &str, rank: u32, bytes: &[u8], eof: bool) -> Self {
        let (data, encoding) = match std::str::from_utf8(bytes) {
            Ok("") => (None, None),
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (Some(STANDARD.encode(bytes)), Some("base64".to_owned())),
        };
        Self {
            stream: stream.to_owned(),
            rank: rank.to_string(),
            data,
            encoding,
            eof,
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> Result<Bytes, RpcError> {
        let data = self.data.clone().unwrap_or_default();
        match self.encoding.as_deref() {
            None | Some("UTF-8") => Ok(Bytes::from(data)),
            Some("base64") => STANDARD
                .decode(data)
                .map(Bytes::from)
                .map_err(|e| RpcError::proto(format!("io.data: {e}"))),
            Some(other) => Err(RpcError::proto(format!("io.encoding: unknown {other:?}"))),
        }
    }
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
    /// It was stopped by a signal.
    Stopped,
    /// Output.
    Output {
        /// Its process id.
        #[serde(default)]
        pid: i32,
        /// The data.
        io: Io,
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
}

/// Request of `write`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Matchtag of the exec request.
    pub matchtag: u32,
    /// What to write.
    pub io: Io,
}

/// Request of `kill`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KillRequest {
    /// Process id.
    #[serde(default)]
    pub pid: i32,
    /// Or its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Signal number.
    pub signum: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let io = Io::new("stdout", 3, b"hi\n", false);
        assert_eq!(
            json(&ExecResponse::Output { pid: 7, io }),
            r#"{"type":"output","pid":7,"io":{"stream":"stdout","rank":"3","data":"hi\n"}}"#
        );
    }

    proptest! {
        #[test]
        fn io_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..100), eof: bool) {
            let io = Io::new("stdout", 0, &bytes, eof);
            let text = serde_json::to_string(&io).unwrap();
            let back: Io = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&back, &io);
            prop_assert_eq!(&back.bytes().unwrap()[..], &bytes[..]);
        }
    }
}
