//! The payload of `content.store-batch`: many blobs in one request.
//!
//! A KVS commit stores tens of small blobs at once; one request saves the cost of a message for
//! each. The payload is each blob behind its length (32 bits, little endian). Digests are
//! computed by both sides, so the response carries nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The payload for these blobs.
pub fn encode<'a>(blobs: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut out = BytesMut::with_capacity(blobs.clone().map(|b| 4 + b.len()).sum());
    for b in blobs {
        out.put_u32_le(b.len() as u32);
        out.put_slice(b);
    }
    out.freeze()
}

/// The blobs of a payload, sharing its memory; `None` if it is malformed.
pub fn decode(mut payload: Bytes) -> Option<Vec<Bytes>> {
    let mut out = Vec::new();
    while payload.has_remaining() {
        if payload.remaining() < 4 {
            return None;
        }
        let len = payload.get_u32_le() as usize;
        if payload.remaining() < len {
            return None;
        }
        out.push(payload.split_to(len));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(blobs: Vec<Vec<u8>>) {
            let blobs: Vec<Bytes> = blobs.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(decode(encode(blobs.iter())), Some(blobs));
        }

        #[test]
        fn junk_is_refused_or_decoded(junk: Vec<u8>) {
            if let Some(blobs) = decode(Bytes::from(junk.clone())) {
                prop_assert_eq!(encode(blobs.iter()), Bytes::from(junk));
            }
        }
    }
}
