//! Paths as archives hold them.

/// A path that has no place below a directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?}: {reason}")]
pub struct NoPathBelow {
    path: String,
    reason: &'static str,
}

/// The path without what RFC 37 does not allow: a leading `/`, and parts that go nowhere. The empty path is the
/// directory itself; paths with `..` are refused.
pub fn below(path: &str) -> Result<String, NoPathBelow> {
    let refuse = |reason| NoPathBelow {
        path: path.to_owned(),
        reason,
    };
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    if parts.contains(&"..") {
        return Err(refuse(
            "it leads out of the directory it would be unpacked in",
        ));
    }
    if path.contains('\0') {
        return Err(refuse("it has a zero byte"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below() {
        for (path, want) in [
            ("a/b", "a/b"),
            ("./a", "a"),
            ("/etc/group", "etc/group"),
            ("a//./b/", "a/b"),
            (".", ""),
            ("a/..b", "a/..b"),
        ] {
            assert_eq!(below(path).as_deref(), Ok(want), "{path}");
        }
        for path in ["..", "a/../b", "/..", "a\0"] {
            assert!(below(path).is_err(), "{path}");
        }
    }
}
