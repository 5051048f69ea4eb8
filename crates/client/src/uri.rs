//! Instance URIs: `local://PATH`, `ssh://[USER@]HOST[:PORT]/PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A URI that a handle can open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// A broker's UNIX socket on this host.
    Local(PathBuf),
    /// A broker's socket on another host, reached by `ssh HOST flux relay PATH`.
    Ssh {
        /// `[user@]host`.
        host: String,
        /// Port, if given.
        port: Option<u16>,
        /// Socket path on that host.
        path: PathBuf,
    },
}

/// The URI cannot be opened as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No `scheme://`.
    #[error("{0:?} is not a Flux URI: expected local://PATH or ssh://HOST/PATH")]
    NoScheme(String),
    /// Unknown scheme.
    #[error("{0:?}: unknown URI scheme: expected local:// or ssh://")]
    Scheme(String),
    /// No path.
    #[error("{0:?}: URI has no socket path")]
    NoPath(String),
    /// The port is not a number.
    #[error("{0:?}: port is not a number")]
    Port(String),
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(s: &str) -> Result<Self, UriError> {
        let (scheme, rest) = s
            .split_once("://")
            .ok_or_else(|| UriError::NoScheme(s.into()))?;
        // Query words such as ?key=value carry nothing a connection needs.
        let rest = rest.split_once('?').map_or(rest, |(r, _)| r);
        match scheme {
            "local" if rest.is_empty() => Err(UriError::NoPath(s.into())),
            "local" => Ok(Self::Local(rest.into())),
            "ssh" => {
                let (authority, path) = rest
                    .split_once('/')
                    .ok_or_else(|| UriError::NoPath(s.into()))?;
                let (host, port) = match authority.split_once(':') {
                    Some((h, p)) => (h, Some(p.parse().map_err(|_| UriError::Port(s.into()))?)),
                    None => (authority, None),
                };
                let path = PathBuf::from(format!("/{path}"));
                Ok(Self::Ssh {
                    host: host.to_owned(),
                    port,
                    path,
                })
            }
            _ => Err(UriError::Scheme(s.into())),
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "local://{}", path.display()),
            Self::Ssh {
                host,
                port: Some(port),
                path,
            } => {
                write!(f, "ssh://{host}:{port}{}", path.display())
            }
            Self::Ssh {
                host,
                port: None,
                path,
            } => write!(f, "ssh://{host}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in [
            "local:///tmp/flux-x/local-0",
            "ssh://h/tmp/l",
            "ssh://u@h:2222/tmp/l",
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "x",
            "local://",
            "http://a/b",
            "ssh://host",
            "ssh://h:x/p",
        ] {
            assert!(text.parse::<Uri>().is_err(), "{text}");
        }
    }
}
