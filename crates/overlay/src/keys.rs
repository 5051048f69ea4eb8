//! CURVE key pairs of brokers, and the files that keep them.
//!
//! A certificate file is what `flux keygen` writes and `bootstrap.curve_cert` names: a section
//! `metadata` and a section `curve` with both keys in Z85, as upstream's.

use std::fmt;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A CURVE public key, shown in Z85.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub(crate) [u8; 32]);

/// The text is no CURVE key.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a CURVE public key (40 characters of Z85)")]
pub struct KeyError(String);

fn z85(text: &str) -> Option<[u8; 32]> {
    let key = zmq::z85_decode(text).ok().and_then(|b| b.try_into().ok());
    // Characters that are none of Z85's decode to something, but do not come back.
    key.filter(|key| z85_text(key) == text)
}

fn z85_text(key: &[u8; 32]) -> String {
    // Z85 fails only on lengths that are not multiples of four; a key has 32 bytes.
    zmq::z85_encode(key).expect("32 bytes encode as Z85")
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        z85(&text).map(Self).ok_or(KeyError(text))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&z85_text(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A broker's own key pair. The secret half is never shown or serialised.
#[derive(Clone)]
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

/// A certificate file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others can read the secret.
    #[error("{path}: readable by group or others: run chmod 600 on it")]
    Exposed {
        /// Which file.
        path: String,
    },
    /// It does not look like a certificate.
    #[error("{path}:{line}: {why}")]
    Malformed {
        /// Which file.
        path: String,
        /// From 1; 0 is the whole file.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
}

/// A key pair with what is known about it.
#[derive(Clone)]
pub struct Certificate {
    /// Names and values, in order.
    pub metadata: Vec<(String, String)>,
    /// The keys.
    pub keys: KeyPair,
}

impl Certificate {
    /// The text of a certificate file, secret key included.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "#  ZeroMQ CURVE **Secret** Certificate\n#  DO NOT DISTRIBUTE\n\nmetadata\n",
        );
        for (name, value) in &self.metadata {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    {name} = \"{}\"", value.replace('"', "'"));
        }
        let (public, secret) = (&self.keys.public, z85_text(&self.keys.secret));
        let _ = writeln!(
            text,
            "curve\n    public-key = \"{public}\"\n    secret-key = \"{secret}\""
        );
        text
    }

    /// The certificate a file's text is; `path` is for errors.
    pub fn parse(text: &str, path: &str) -> Result<Self, CertificateError> {
        let malformed = |line, why| CertificateError::Malformed {
            path: path.to_owned(),
            line,
            why,
        };
        let (mut metadata, mut public, mut secret) = (Vec::new(), None, None);
        let mut section = "";
        for (number, line) in (1..).zip(text.lines()) {
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            if !line.starts_with(char::is_whitespace) {
                section = content;
                continue;
            }
            let (name, value) = content
                .split_once('=')
                .ok_or_else(|| malformed(number, "expected NAME = \"VALUE\""))?;
            let (name, value) = (name.trim(), value.trim());
            let quoted = |q| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
            let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
            let key = || z85(value).ok_or_else(|| malformed(number, "not a CURVE key"));
            match (section, name) {
                ("metadata", _) => metadata.push((name.to_owned(), value.to_owned())),
                ("curve", "public-key") => public = Some(PublicKey(key()?)),
                ("curve", "secret-key") => secret = Some(key()?),
                _ => {}
            }
        }
        let (Some(public), Some(secret)) = (public, secret) else {
            return Err(malformed(0, "a public and a secret key are needed"));
        };
        Ok(Self {
            metadata,
            keys: KeyPair { public, secret },
        })
    }

    /// Read a file only its owner can read.
    pub fn read(path: &Path) -> Result<Self, CertificateError> {
        let name = path.display().to_string();
        let failed = |source| CertificateError::Io {
            path: name.clone(),
            source,
        };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o044 != 0 {
            return Err(CertificateError::Exposed { path: name });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text, &name)
    }

    /// Write a file only its owner can read.
    pub fn write(&self, path: &Path) -> Result<(), CertificateError> {
        let write = || {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(path)?.write_all(self.text().as_bytes())
        };
        write().map_err(|source| CertificateError::Io {
            path: path.display().to_string(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Certificate {
        Certificate {
            metadata: vec![("name".into(), "x".into()), ("a.b".into(), String::new())],
            keys: KeyPair::generate().unwrap(),
        }
    }

    #[test]
    fn files_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert");
        let cert = certificate();
        cert.write(&path).unwrap();
        let back = Certificate::read(&path).unwrap();
        assert_eq!(back.metadata, cert.metadata);
        assert_eq!(back.keys.public, cert.keys.public);
        assert_eq!(back.keys.secret, cert.keys.secret);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Certificate::read(&path),
            Err(CertificateError::Exposed { .. })
        ));
        assert!(matches!(
            Certificate::read(&dir.path().join("none")),
            Err(CertificateError::Io { .. })
        ));
    }

    #[test]
    fn mistakes() {
        let error = |text: &str| {
            Certificate::parse(text, "f")
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(error(""), "f:0: a public and a secret key are needed");
        assert_eq!(
            error("curve\n  public-key = \"x\"\n"),
            "f:2: not a CURVE key"
        );
        assert_eq!(error("metadata\n  x\n"), "f:2: expected NAME = \"VALUE\"");
        // Truncated anywhere, it is refused, or whole.
        let text = certificate().text();
        for len in 0..text.len() - 2 {
            assert!(Certificate::parse(&text[..len], "f").is_err(), "{len}");
        }
    }

    #[test]
    fn public_keys_are_checked() {
        assert!(PublicKey::try_from("short".to_owned()).is_err());
        let key = KeyPair::generate().unwrap().public;
        assert_eq!(PublicKey::try_from(key.to_string()).unwrap(), key);
    }
}
