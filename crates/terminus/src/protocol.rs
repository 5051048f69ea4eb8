//! Messages between a session and its clients.
//!
//! A client's `attach` is a streaming request to SERVICE.ID; data, resizes and `detach` are further requests to the same
//! topic, known by their sender. Bytes that are not UTF-8, or hold a NUL, travel in base64.

use formats::iodata::{base64_decode, base64_encode};
use serde::{Deserialize, Serialize};

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// See output and write.
    #[serde(rename = "rw")]
    ReadWrite,
    /// Only see output.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Only write.
    #[serde(rename = "wo")]
    WriteOnly,
}

impl Mode {
    /// The client gets output.
    pub fn reads(self) -> bool {
        self != Mode::WriteOnly
    }

    /// What the client sends is written.
    pub fn writes(self) -> bool {
        self != Mode::ReadOnly
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WinSize {
    /// Lines; at least one.
    pub rows: u16,
    /// Characters in a line; at least one.
    pub cols: u16,
}

/// Bytes to or from a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Encoded", try_from = "Encoded")]
pub struct Data(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Encoded {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    data: String,
}

impl From<Data> for Encoded {
    fn from(Data(bytes): Data) -> Self {
        // Clients in C cannot hold a NUL in a string.
        let text = String::from_utf8(bytes).map_err(|e| e.into_bytes());
        match text {
            Ok(data) if !data.contains('\0') => Encoded {
                encoding: None,
                data,
            },
            Ok(data) => Self::base64(data.as_bytes()),
            Err(bytes) => Self::base64(&bytes),
        }
    }
}

impl Encoded {
    fn base64(bytes: &[u8]) -> Self {
        Encoded {
            encoding: Some("base64".into()),
            data: base64_encode(bytes),
        }
    }
}

impl TryFrom<Encoded> for Data {
    type Error = String;

    fn try_from(encoded: Encoded) -> Result<Data, String> {
        match encoded.encoding.as_deref() {
            None => Ok(Data(encoded.data.into_bytes())),
            Some("base64") => base64_decode(&encoded.data)
                .map(Data)
                .ok_or_else(|| "data: not valid base64".into()),
            Some(other) => Err(format!("encoding: '{other}' is not base64")),
        }
    }
}

/// What a client asks of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Request {
    /// Become a client; answered by a stream of [`Response`].
    Attach {
        /// What the client may do.
        mode: Mode,
        /// The client's own terminal. Taken over by the session if the client reads and writes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        winsize: Option<WinSize>,
    },
    /// The client's terminal has another size.
    Resize {
        /// The new size.
        winsize: WinSize,
    },
    /// Input.
    Data(Data),
    /// Let the client go.
    Detach,
}

/// What a session tells a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Response {
    /// The client is attached.
    Attach,
    /// Output.
    Data(Data),
    /// The server wants to know the size of the client's terminal.
    Resize,
    /// The session is over, or the client has been let go. The last response.
    Exit {
        /// Why.
        message: String,
        /// The wait status of what ran.
        status: i32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn forms() {
        let attach = json!({"type": "attach", "mode": "rw", "winsize": {"rows": 25, "cols": 80}});
        let size = WinSize { rows: 25, cols: 80 };
        let request = Request::Attach {
            mode: Mode::ReadWrite,
            winsize: Some(size),
        };
        assert_eq!(serde_json::to_value(&request).unwrap(), attach);
        assert_eq!(serde_json::from_value::<Request>(attach).unwrap(), request);
        for (bytes, want) in [
            ("é\n".as_bytes(), json!({"type": "data", "data": "é\n"})),
            (
                b"a\0",
                json!({"type": "data", "encoding": "base64", "data": "YQA="}),
            ),
            (
                b"\xff",
                json!({"type": "data", "encoding": "base64", "data": "/w=="}),
            ),
        ] {
            let response = Response::Data(Data(bytes.to_vec()));
            assert_eq!(serde_json::to_value(&response).unwrap(), want);
            assert_eq!(serde_json::from_value::<Response>(want).unwrap(), response);
        }
        assert_eq!(
            serde_json::to_value(Request::Detach).unwrap(),
            json!({"type": "detach"})
        );
    }

    #[test]
    fn faults() {
        for (bad, want) in [
            (
                json!({"type": "data", "encoding": "rot13", "data": ""}),
                "encoding: 'rot13' is not base64",
            ),
            (
                json!({"type": "data", "encoding": "base64", "data": "?"}),
                "data: not valid base64",
            ),
            (
                json!({"type": "attach", "mode": "x"}),
                "unknown variant `x`",
            ),
            (json!({"type": "dance"}), "unknown variant `dance`"),
        ] {
            let e = serde_json::from_value::<Request>(bad).unwrap_err();
            assert!(e.to_string().contains(want), "{e}");
        }
    }

    proptest! {
        #[test]
        fn data_round_trips(bytes: Vec<u8>) {
            let text = serde_json::to_string(&Data(bytes.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Data>(&text).unwrap().0, bytes);
        }
    }
}
