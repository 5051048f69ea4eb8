//! CURVE key pairs of brokers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A CURVE public key, shown in Z85.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub(crate) [u8; 32]);

/// The text is no CURVE key.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a CURVE public key (40 characters of Z85)")]
pub struct KeyError(String);

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        let bytes = zmq::z85_decode(&text).ok().and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or(KeyError(text))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Z85 fails only on lengths that are not multiples of four; a key has 32 bytes.
        f.write_str(&zmq::z85_encode(&self.0).expect("32 bytes encode as Z85"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A broker's own key pair. The secret half is never shown or serialised.
pub struct KeyPair {
    /// Announced to peers.
    pub public: PublicKey,
    pub(crate) secret: [u8; 32],
}

impl KeyPair {
    /// A fresh pair, from libzmq's random source.
    pub fn generate() -> Result<Self, zmq::Error> {
        let pair = zmq::CurveKeyPair::new()?;
        Ok(Self {
            public: PublicKey(pair.public_key),
            secret: pair.secret_key,
        })
    }
}
