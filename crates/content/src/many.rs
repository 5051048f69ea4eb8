//! Many blobs in one message: the payloads of `content-backing.load-batch`.
//!
//! The request is the digests, one after the other. The answer has a part for each, in that order: a byte that says
//! what it is and, behind its length (32 bits, little endian), a blob or a text. A store does not answer more than some
//! megabytes at once; what is left over is [`Part::Later`] and has to be asked for again.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{BlobRef, HashAlg};

/// What has become of one blob that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Missing,
    Found(Bytes),
    /// It cannot be used, and why.
    Damaged(String),
    /// It has to be asked for again.
    Later,
}

/// The request for these.
pub fn encode_request(blobs: &[BlobRef]) -> Bytes {
    let raw = blobs.iter().map(BlobRef::raw);
    raw.collect::<Vec<_>>().concat().into()
}

/// The blobs of a request; `None` if a digest is cut short.
pub fn decode_request(alg: HashAlg, payload: &[u8]) -> Option<Vec<BlobRef>> {
    let digests = payload.chunks(alg.digest_len());
    digests
        .map(|raw| BlobRef::from_raw(alg, raw).ok())
        .collect()
}

/// The answer of these parts.
pub fn encode_answer(parts: &[Part]) -> Bytes {
    let data = |part: &Part| match part {
        Part::Found(blob) => blob.len(),
        Part::Damaged(why) => why.len(),
        Part::Missing | Part::Later => 0,
    };
    let mut out = BytesMut::with_capacity(parts.iter().map(|p| 5 + data(p)).sum());
    for part in parts {
        let (kind, data) = match part {
            Part::Missing => (0, &[][..]),
            Part::Found(blob) => (1, &blob[..]),
            Part::Damaged(why) => (2, why.as_bytes()),
            Part::Later => (3, &[][..]),
        };
        out.put_u8(kind);
        out.put_u32_le(data.len() as u32);
        out.put_slice(data);
    }
    out.freeze()
}

/// The parts of an answer, sharing its memory; `None` if it is malformed.
pub fn decode_answer(mut payload: Bytes) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while payload.has_remaining() {
        let kind = payload.get_u8();
        let len = payload.try_get_u32_le().ok()? as usize;
        let data = (payload.remaining() >= len).then(|| payload.split_to(len))?;
        parts.push(match kind {
            0 if len == 0 => Part::Missing,
            1 => Part::Found(data),
            2 => Part::Damaged(String::from_utf8(data.into()).ok()?),
            3 if len == 0 => Part::Later,
            _ => return None,
        });
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            Just(Part::Missing),
            Just(Part::Later),
            any::<Vec<u8>>().prop_map(|blob| Part::Found(blob.into())),
            any::<String>().prop_map(Part::Damaged),
        ]
    }

    proptest! {
        #[test]
        fn answers_round_trip(parts in proptest::collection::vec(part(), 0..8)) {
            prop_assert_eq!(decode_answer(encode_answer(&parts)), Some(parts));
        }

        #[test]
        fn junk_is_refused_or_decoded(junk: Vec<u8>) {
            if let Some(parts) = decode_answer(Bytes::from(junk.clone())) {
                prop_assert_eq!(encode_answer(&parts), Bytes::from(junk));
            }
        }

        #[test]
        fn requests_round_trip(data: Vec<u8>) {
            for alg in [HashAlg::Sha1, HashAlg::Sha256] {
                let blobs: Vec<_> = data.iter().map(|n| alg.hash(&[*n])).collect();
                let payload = encode_request(&blobs);
                prop_assert_eq!(decode_request(alg, &payload), Some(blobs));
                let cut = &payload[..payload.len().saturating_sub(1)];
                prop_assert_eq!(decode_request(alg, cut).is_some(), payload.is_empty());
            }
        }
    }
}
