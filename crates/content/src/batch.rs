//! The payload of `content.store-batch`: many blobs in one request.
//!
//! A KVS commit stores tens of small blobs at once; one request saves the cost of a message for
//! each. The payload is a list of parts, each behind its length (32 bits, little endian). The
//! first part is the KVS roots that the batch makes, as [`crate::roots::Roots`] encodes them; the others are the blobs.
//! Digests are computed by both sides, so the response carries nothing.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The payload for these blobs.
pub fn encode<'a>(roots: &[u8], blobs: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let size = 4 + roots.len() + blobs.clone().map(|b| 4 + b.len()).sum::<usize>();
    let mut out = BytesMut::with_capacity(size);
    out.put_u32_le(roots.len() as u32);
    out.put_slice(roots);
    for b in blobs {
        out.put_u32_le(b.len() as u32);
        out.put_slice(b);
    }
    out.freeze()
}

/// Roots and blobs of a payload, sharing its memory; `None` if it is malformed.
pub fn decode(mut payload: Bytes) -> Option<(Bytes, Vec<Bytes>)> {
    let roots = part(&mut payload)?;
    let mut blobs = Vec::new();
    while payload.has_remaining() {
        blobs.push(part(&mut payload)?);
    }
    Some((roots, blobs))
}

fn part(payload: &mut Bytes) -> Option<Bytes> {
    let len = payload.try_get_u32_le().ok()? as usize;
    (payload.remaining() >= len).then(|| payload.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(root: Vec<u8>, blobs: Vec<Vec<u8>>) {
            let blobs: Vec<Bytes> = blobs.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(decode(encode(&root, blobs.iter())), Some((root.into(), blobs)));
        }

        #[test]
        fn junk_is_refused_or_decoded(junk: Vec<u8>) {
            if let Some((root, blobs)) = decode(Bytes::from(junk.clone())) {
                prop_assert_eq!(encode(&root, blobs.iter()), Bytes::from(junk));
            }
        }
    }
}
