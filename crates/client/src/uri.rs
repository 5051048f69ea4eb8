//! Instance URIs: `local://PATH`, `ssh://[USER@]HOST[:PORT]/PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A URI that a handle can open.
///
/// ```
/// use client::uri::Uri;
///
/// let uri: Uri = "ssh://ada@node7:2222/run/flux/local".parse()?;
/// let Uri::Ssh(remote) = &uri else { unreachable!() };
/// assert_eq!((remote.host.as_str(), remote.port), ("ada@node7", Some(2222)));
/// assert_eq!(uri.to_string(), "ssh://ada@node7:2222/run/flux/local");
/// # Ok::<(), client::uri::UriError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// A broker's UNIX socket on this host.
    Local(PathBuf),
    /// A broker's socket on another host, reached by `ssh HOST flux relay PATH`.
    Ssh(Remote),
}

/// Where a broker's socket is on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// `[user@]host`.
    pub host: String,
    /// Port, if given.
    pub port: Option<u16>,
    /// Socket path on that host.
    pub path: PathBuf,
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
    /// No host.
    #[error("{0:?}: URI has no host")]
    NoHost(String),
    /// The port is not a number.
    #[error("{0:?}: port is not a number from 1 to 65535")]
    Port(String),
    /// A query or fragment, which the ssh connector has no use for.
    #[error("{0:?}: URI must end with the socket path, without ? and #")]
    Query(String),
    /// A reference to an ancestor with other words than `.` and `..`.
    #[error("{0:?}: a path to an ancestor is / or made of .. and .")]
    Ancestor(String),
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(s: &str) -> Result<Self, UriError> {
        let (scheme, rest) = s
            .split_once("://")
            .ok_or_else(|| UriError::NoScheme(s.into()))?;
        let rest = rest.trim_end_matches([' ', '\t']);
        match scheme {
            "local" if rest.is_empty() => Err(UriError::NoPath(s.into())),
            "local" => Ok(Self::Local(rest.into())),
            "ssh" => remote(s, rest).map(Self::Ssh),
            _ => Err(UriError::Scheme(s.into())),
        }
    }
}

fn remote(s: &str, rest: &str) -> Result<Remote, UriError> {
    if rest.contains(['?', '#']) {
        return Err(UriError::Query(s.into()));
    }
    let (authority, path) = rest
        .split_once('/')
        .filter(|(_, path)| !path.is_empty())
        .ok_or_else(|| UriError::NoPath(s.into()))?;
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => {
            let port = port.parse().ok().filter(|p| *p > 0);
            (host, Some(port.ok_or_else(|| UriError::Port(s.into()))?))
        }
        None => (authority, None),
    };
    // A host that looks like an option would be one to ssh.
    if host.rsplit('@').next().is_none_or(str::is_empty) || host.starts_with('-') {
        return Err(UriError::NoHost(s.into()));
    }
    Ok(Remote {
        host: host.to_owned(),
        port,
        path: PathBuf::from(format!("/{path}")),
    })
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ssh://{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.path.display())
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "local://{}", path.display()),
            Self::Ssh(remote) => remote.fmt(f),
        }
    }
}

/// How far up a path-like reference goes: `None` is the root, otherwise a number of levels.
///
/// Such a reference is `/`, or `.` and `..` joined by slashes (flux_open(3)); `None` outside if `text` is neither.
pub(crate) fn ancestor(text: &str) -> Option<Result<Option<usize>, UriError>> {
    if !text.starts_with(['.', '/']) {
        return None;
    }
    if text == "/" {
        return Some(Ok(None));
    }
    let parts = || {
        text.split('/')
            .filter(|part| !part.is_empty() && *part != ".")
    };
    if text.starts_with('/') || parts().any(|part| part != "..") {
        return Some(Err(UriError::Ancestor(text.into())));
    }
    Some(Ok(Some(parts().count())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        for text in [
            "local:///tmp/flux-x/local-0",
            "local:///tmp/who?knows",
            "ssh://h/tmp/l",
            "ssh://u@h:2222/tmp/l",
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
        assert_eq!("local:///a \t".parse(), Ok(Uri::Local("/a".into())));
    }

    #[test]
    fn refused() {
        use UriError as E;
        type Make = fn(String) -> UriError;
        for (text, want) in [
            ("", E::NoScheme as Make),
            ("x", E::NoScheme),
            ("local://", E::NoPath),
            ("http://a/b", E::Scheme),
            ("ssh://host", E::NoPath),
            ("ssh://host/", E::NoPath),
            ("ssh:///path", E::NoHost),
            ("ssh://u@/path", E::NoHost),
            ("ssh://-oProxyCommand=x/path", E::NoHost),
            ("ssh://h:x/p", E::Port),
            ("ssh://h:0/p", E::Port),
            ("ssh://h:70000/p", E::Port),
            ("ssh://h/p?setenv", E::Query),
            ("ssh://h/p#x", E::Query),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(want(text.into())), "{text}");
        }
    }

    #[test]
    fn ancestors() {
        for (text, want) in [
            ("/", Some(Ok(None))),
            (".", Some(Ok(Some(0)))),
            ("..", Some(Ok(Some(1)))),
            ("../..//./..", Some(Ok(Some(3)))),
            ("local:///x", None),
            ("/x", Some(Err(UriError::Ancestor("/x".into())))),
            ("../f1", Some(Err(UriError::Ancestor("../f1".into())))),
            (".x", Some(Err(UriError::Ancestor(".x".into())))),
        ] {
            assert_eq!(ancestor(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "(ssh|local)://[a-z@:0-9?#/-]{0,20}") {
            if let Ok(uri) = text.parse::<Uri>() {
                prop_assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri));
            }
        }

        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = text.parse::<Uri>();
            let _ = ancestor(&text);
        }
    }
}
