//! Blob references: the address of a blob (RFC 10).
//!
//! A reference is kept as raw digest bytes, small and `Copy`; the text form `sha1-<hex>` exists
//! only at the edges. Hex digits are lower case on output and on input, as the RFC says.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::ser::{Serialize, Serializer};
use sha1::Digest as _;

/// A hash algorithm an instance may select (broker attribute `content.hash`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum HashAlg {
    #[default]
    Sha1,
    Sha256,
}

impl HashAlg {
    /// The algorithm's name, as it prefixes a blobref.
    pub fn name(self) -> &'static str {
        match self {
            HashAlg::Sha1 => "sha1",
            HashAlg::Sha256 => "sha256",
        }
    }

    /// Length of a digest in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            HashAlg::Sha1 => 20,
            HashAlg::Sha256 => 32,
        }
    }

    /// The reference of `blob`.
    pub fn hash(self, blob: &[u8]) -> BlobRef {
        let mut digest = [0u8; 32];
        match self {
            HashAlg::Sha1 => digest[..20].copy_from_slice(&sha1::Sha1::digest(blob)),
            HashAlg::Sha256 => digest.copy_from_slice(&sha2::Sha256::digest(blob)),
        }
        BlobRef { alg: self, digest }
    }
}

impl FromStr for HashAlg {
    type Err = ParseBlobRefError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "sha1" => Ok(HashAlg::Sha1),
            "sha256" => Ok(HashAlg::Sha256),
            _ => Err(ParseBlobRefError::UnknownAlgorithm(s.to_owned())),
        }
    }
}

/// The address of a blob: the digest of its content and the algorithm that made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobRef {
    alg: HashAlg,
    /// Left-aligned; bytes past the digest's length are zero.
    digest: [u8; 32],
}

/// Why a text or byte string is not a blob reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseBlobRefError {
    #[error("blobref `{0}` has no `-` between algorithm and digest")]
    NoSeparator(String),
    #[error("unknown hash algorithm `{0}`: expected sha1 or sha256")]
    UnknownAlgorithm(String),
    #[error("a {} digest is {} bytes long, got {got}", .alg.name(), .alg.digest_len())]
    Length { alg: HashAlg, got: usize },
    #[error("digest of blobref `{0}` is not lower-case hex")]
    NotHex(String),
}

impl BlobRef {
    /// Takes a raw digest, as content load requests carry it.
    pub fn from_raw(alg: HashAlg, raw: &[u8]) -> Result<BlobRef, ParseBlobRefError> {
        if raw.len() != alg.digest_len() {
            return Err(ParseBlobRefError::Length {
                alg,
                got: raw.len(),
            });
        }
        let mut digest = [0u8; 32];
        digest[..raw.len()].copy_from_slice(raw);
        Ok(BlobRef { alg, digest })
    }

    /// The blob that a request names by its raw digest.
    #[cfg(feature = "module")]
    pub(crate) fn of_request(
        alg: HashAlg,
        msg: &client::Message,
    ) -> Result<Self, client::RpcError> {
        let raw = msg.payload().map_or(&[][..], |p| &p[..]);
        Self::from_raw(alg, raw).map_err(|e| client::RpcError::explained(libc::EPROTO, e))
    }

    /// The raw digest.
    pub fn raw(&self) -> &[u8] {
        &self.digest[..self.alg.digest_len()]
    }

    /// The algorithm that made the digest.
    pub fn alg(&self) -> HashAlg {
        self.alg
    }
}

// A digest is uniformly distributed already: eight of its bytes make a hash table key.
impl Hash for BlobRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut head = [0u8; 8];
        head.copy_from_slice(&self.digest[..8]);
        state.write_u64(u64::from_le_bytes(head));
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 64];
        let raw = self.raw();
        for (i, b) in raw.iter().enumerate() {
            text[2 * i] = HEX[usize::from(b >> 4)];
            text[2 * i + 1] = HEX[usize::from(b & 15)];
        }
        let hex = std::str::from_utf8(&text[..2 * raw.len()]).map_err(|_| fmt::Error)?;
        write!(f, "{}-{hex}", self.alg.name())
    }
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

impl FromStr for BlobRef {
    type Err = ParseBlobRefError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (alg, hex) = s
            .split_once('-')
            .ok_or_else(|| ParseBlobRefError::NoSeparator(s.to_owned()))?;
        let alg: HashAlg = alg.parse()?;
        let hex = hex.as_bytes();
        if hex.len() != 2 * alg.digest_len() {
            return Err(ParseBlobRefError::Length {
                alg,
                got: hex.len() / 2,
            });
        }
        let mut digest = [0u8; 32];
        for (i, pair) in hex.chunks_exact(2).enumerate() {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(hi), Some(lo)) => digest[i] = hi << 4 | lo,
                _ => return Err(ParseBlobRefError::NotHex(s.to_owned())),
            }
        }
        Ok(BlobRef { alg, digest })
    }
}

impl Serialize for BlobRef {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = BlobRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a blobref such as sha1-<hex>")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<BlobRef, E> {
                s.parse().map_err(E::custom)
            }
        }
        d.deserialize_str(V).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_10() {
        let r = HashAlg::Sha1.hash(b"foo\n");
        assert_eq!(
            r.to_string(),
            "sha1-f1d2d2f924e986ac86fdf7b36c94bcdf32beec15"
        );
        assert_eq!(r.to_string().parse(), Ok(r));
    }

    #[test]
    fn bad_text_is_refused() {
        for (text, why) in [
            ("sha1f1d2", "has no `-`"),
            ("md5-00", "unknown hash algorithm `md5`"),
            ("sha1-f1d2", "20 bytes long, got 2"),
            (
                "sha1-F1d2d2f924e986ac86fdf7b36c94bcdf32beec15",
                "not lower-case hex",
            ),
        ] {
            let e = text.parse::<BlobRef>().unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
    }

    proptest! {
        #[test]
        fn text_and_raw_round_trip(blob: Vec<u8>, long: bool) {
            let alg = if long { HashAlg::Sha256 } else { HashAlg::Sha1 };
            let r = alg.hash(&blob);
            prop_assert_eq!(r.to_string().parse(), Ok(r));
            prop_assert_eq!(BlobRef::from_raw(alg, r.raw()), Ok(r));
        }
    }
}
