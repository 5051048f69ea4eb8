//! URIs of instances: those of jobs come as remote ones and are turned into local ones on this host.

/// This host's name.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// `ssh://HOST/PATH` as `local://PATH`.
pub(crate) fn to_local(uri: &str) -> String {
    match uri
        .strip_prefix("ssh://")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((_, path)) => format!("local:///{path}"),
        None => uri.to_owned(),
    }
}

/// `local://PATH` as `ssh://HOST/PATH` with this host's name.
pub(crate) fn to_remote(uri: &str) -> String {
    match uri.strip_prefix("local://") {
        Some(path) => format!("ssh://{}{path}", hostname()),
        None => uri.to_owned(),
    }
}

/// The local form if the instance is on this host.
pub(crate) fn local_or_remote(uri: &str) -> String {
    let host = uri
        .strip_prefix("ssh://")
        .and_then(|rest| rest.split_once('/'));
    let here = hostname();
    match host {
        Some((authority, _)) if authority.rsplit('@').next() == Some(here.as_str()) => {
            to_local(uri)
        }
        _ => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let here = format!("ssh://u@{}/tmp/x", hostname());
        assert_eq!(local_or_remote(&here), "local:///tmp/x");
        assert_eq!(
            local_or_remote("ssh://elsewhere/tmp/x"),
            "ssh://elsewhere/tmp/x"
        );
        assert_eq!(to_local("ssh://h/a/b"), "local:///a/b");
        assert_eq!(to_remote("local:///a"), format!("ssh://{}/a", hostname()));
    }
}
