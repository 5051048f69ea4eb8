//! Signed requests, RFC 15 and 38: `HEADER.PAYLOAD.SIGNATURE`, header and payload in base64.
//!
//! The header is a list of keys and typed values: `key NUL type value NUL`, the type being `i`
//! for integers and `s` for strings. A submitted job keeps this text under its key `J`, so that
//! whoever runs it as another user can check who asked for it. Signatures are not checked here:
//! only mechanism `none`, which has nothing to check, is made here.

use crate::iodata::{base64_decode, base64_encode};

/// The parts of a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Who says to have signed it.
    pub userid: u32,
    /// How it is signed; `none` is not at all.
    pub mechanism: String,
    /// What is signed.
    pub payload: Vec<u8>,
    /// In the form of the mechanism.
    pub signature: String,
}

/// Why text is not a signed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum SignedError {
    #[error("signed request: must have three parts, header, payload and signature")]
    Parts,
    #[error("signed request: the {0} is not valid base64")]
    Base64(&'static str),
    #[error("signed request: the header is malformed")]
    Header,
    #[error("signed request: the header has no {0}")]
    Missing(&'static str),
    #[error("signed request: version {0} is not supported; version 1 is")]
    Version(i64),
}

/// Wraps a payload with mechanism `none`.
pub fn wrap_none(userid: u32, payload: &[u8]) -> String {
    let header = format!("version\0i1\0userid\0i{userid}\0mechanism\0snone\0");
    format!(
        "{}.{}.none",
        base64_encode(header.as_bytes()),
        base64_encode(payload)
    )
}

/// Takes a signed request apart. The signature is not checked.
pub fn unwrap(text: &str) -> Result<Signed, SignedError> {
    let mut parts = text.trim_end().splitn(3, '.');
    let (Some(header), Some(payload), Some(signature)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(SignedError::Parts);
    };
    let header = base64_decode(header).ok_or(SignedError::Base64("header"))?;
    let payload = base64_decode(payload).ok_or(SignedError::Base64("payload"))?;
    let header = String::from_utf8(header).map_err(|_| SignedError::Header)?;
    let fields: Vec<&str> = header
        .strip_suffix('\0')
        .ok_or(SignedError::Header)?
        .split('\0')
        .collect();
    let field = |name: &'static str, kind: char| -> Result<&str, SignedError> {
        let value = fields
            .chunks(2)
            .find(|pair| pair[0] == name)
            .and_then(|pair| pair.get(1));
        let value = value.ok_or(SignedError::Missing(name))?;
        value.strip_prefix(kind).ok_or(SignedError::Header)
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| SignedError::Header);
    match number(field("version", 'i')?)? {
        1 => {}
        other => return Err(SignedError::Version(other)),
    }
    let userid = u32::try_from(number(field("userid", 'i')?)?).map_err(|_| SignedError::Header)?;
    let mechanism = field("mechanism", 's')?.to_owned();
    Ok(Signed {
        userid,
        mechanism,
        payload,
        signature: signature.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_others_write() {
        let text = "dmVyc2lvbgBpMQB1c2VyaWQAaTAAbWVjaGFuaXNtAHNub25lAA==.eyJhIjoxfQ==.none";
        assert_eq!(wrap_none(0, br#"{"a":1}"#), text);
        let signed = unwrap(text).unwrap();
        assert_eq!((signed.userid, signed.mechanism.as_str()), (0, "none"));
        assert_eq!(signed.payload, br#"{"a":1}"#);
        assert_eq!(unwrap("a.b"), Err(SignedError::Parts));
        assert_eq!(unwrap("....."), Err(SignedError::Header));
        assert_eq!(unwrap("x.y.z"), Err(SignedError::Base64("header")));
    }

    proptest! {
        #[test]
        fn round_trips(userid in 0..u32::MAX, payload: Vec<u8>) {
            let signed = unwrap(&wrap_none(userid, &payload)).unwrap();
            prop_assert_eq!((signed.userid, signed.payload), (userid, payload));
        }

        #[test]
        fn never_panics(text in "[A-Za-z0-9+/=.]{0,60}") {
            let _ = unwrap(&text);
        }
    }
}
