//! Standard input and output of jobs as eventlog data, RFC 24.
//!
//! A data event carries bytes of one stream for one or more tasks. Bytes that are UTF-8 stand
//! as they are; others are base64, marked by `encoding`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The context of a `data` event, also the `io` object of RFC 42.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Map<String, Value>", try_from = "Map<String, Value>")]
pub struct IoData {
    /// `stdin`, `stdout` or `stderr`.
    pub stream: String,
    /// Task ranks as an idset, or `all`.
    pub rank: String,
    /// The bytes; they need not be text.
    pub data: Vec<u8>,
    /// No more data will follow in the stream.
    pub eof: bool,
}

/// Why a context is not that of a `data` event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum IoDataError {
    #[error("data event: key '{0}' is missing or not a string")]
    Key(&'static str),
    #[error("data event: unknown encoding '{0}'; use UTF-8 or base64")]
    Encoding(String),
    #[error("data event: data is not valid base64")]
    Base64,
}

impl From<IoData> for Map<String, Value> {
    fn from(io: IoData) -> Self {
        io.to_context()
    }
}

impl TryFrom<Map<String, Value>> for IoData {
    type Error = IoDataError;

    fn try_from(map: Map<String, Value>) -> Result<Self, IoDataError> {
        Self::from_context(&map)
    }
}

impl IoData {
    /// The context of a `data` event. Bytes that are not UTF-8 are written in base64.
    pub fn to_context(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("stream".into(), json!(self.stream));
        map.insert("rank".into(), json!(self.rank));
        if !self.data.is_empty() {
            match std::str::from_utf8(&self.data) {
                Ok(text) => map.insert("data".into(), json!(text)),
                Err(_) => {
                    map.insert("encoding".into(), json!("base64"));
                    map.insert("data".into(), json!(base64_encode(&self.data)))
                }
            };
        }
        if self.eof {
            map.insert("eof".into(), json!(true));
        }
        map
    }

    /// Reads the context of a `data` event.
    pub fn from_context(map: &Map<String, Value>) -> Result<IoData, IoDataError> {
        let text = |key: &'static str| match map.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(IoDataError::Key(key)),
        };
        let data = match map.get("data") {
            None => Vec::new(),
            Some(Value::String(data)) => match map.get("encoding").and_then(Value::as_str) {
                None | Some("UTF-8" | "utf-8") => data.clone().into_bytes(),
                Some("base64") => base64_decode(data).ok_or(IoDataError::Base64)?,
                Some(other) => return Err(IoDataError::Encoding(other.to_owned())),
            },
            Some(_) => return Err(IoDataError::Key("data")),
        };
        let repeat = map.get("repeat").and_then(Value::as_u64).unwrap_or(1);
        let eof = map.get("eof").and_then(Value::as_bool).unwrap_or(false);
        let data = if repeat > 1 {
            data.repeat(repeat.min(1 << 20) as usize)
        } else {
            data
        };
        Ok(IoData {
            stream: text("stream")?,
            rank: text("rank")?,
            data,
            eof,
        })
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding (RFC 4648).
pub fn base64_encode(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}

/// Decodes standard base64 with padding.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let value = |c: u8| -> Option<u32> {
        Some(match c {
            b'A'..=b'Z' => u32::from(c - b'A'),
            b'a'..=b'z' => u32::from(c - b'a') + 26,
            b'0'..=b'9' => u32::from(c - b'0') + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let last = text.len() / 4;
    for (i, quad) in text.chunks(4).enumerate() {
        let pad = quad.iter().rev().take_while(|c| **c == b'=').count();
        if pad > 2 || (pad > 0 && i + 1 != last) {
            return None;
        }
        let mut bits = 0;
        for c in &quad[..4 - pad] {
            bits = bits << 6 | value(*c)?;
        }
        bits <<= 6 * pad as u32;
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[1..4 - pad]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn contexts() {
        let io = IoData {
            stream: "stdout".into(),
            rank: "1".into(),
            data: b"hi\n".to_vec(),
            eof: false,
        };
        let text = serde_json::to_string(&io.to_context()).unwrap();
        assert_eq!(text, r#"{"stream":"stdout","rank":"1","data":"hi\n"}"#);
        let io = IoData {
            data: vec![0xff, 1],
            eof: true,
            ..io
        };
        let text = serde_json::to_string(&io.to_context()).unwrap();
        assert_eq!(
            text,
            r#"{"stream":"stdout","rank":"1","encoding":"base64","data":"/wE=","eof":true}"#
        );
        assert_eq!(
            IoData::from_context(&Map::new()),
            Err(IoDataError::Key("stream"))
        );
    }

    proptest! {
        #[test]
        fn round_trips(data: Vec<u8>, eof: bool, rank in "[0-9]{1,3}|all") {
            prop_assert_eq!(base64_decode(&base64_encode(&data)), Some(data.clone()));
            let io = IoData { stream: "stderr".into(), rank, data, eof };
            prop_assert_eq!(IoData::from_context(&io.to_context()), Ok(io));
        }

        #[test]
        fn decoding_never_panics(text: String) {
            let _ = base64_decode(&text);
        }
    }
}
