//! Payload conventions of RFC 3: text and JSON end with a NUL.

use bytes::Bytes;
use serde::Serialize;

/// Encode a JSON payload with the final NUL that RFC 3 JSON payloads carry.
///
/// RFC 3 wants an object; this is for the caller to see to.
pub fn json_payload(value: &(impl Serialize + ?Sized)) -> Result<Bytes, serde_json::Error> {
    let mut buf = serde_json::to_vec(value)?;
    buf.push(0);
    Ok(Bytes::from(buf))
}

/// A text as payload, NUL-terminated.
///
/// ```
/// assert_eq!(wire::string_payload("hi"), "hi\0");
/// ```
pub fn string_payload(text: &str) -> Bytes {
    let mut buf = Vec::with_capacity(text.len() + 1);
    buf.extend_from_slice(text.as_bytes());
    buf.push(0);
    Bytes::from(buf)
}
