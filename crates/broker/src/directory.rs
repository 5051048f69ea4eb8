//! The broker's directories, `rundir` and `statedir`, and the socket in the first (flux-broker-attributes(7)).
//!
//! A directory the broker makes is removed at its end, one that was there is kept; `rundir-cleanup` and
//! `statedir-cleanup` say otherwise. Without a name, or below one with the sticky bit, it is a new one of its own.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::attrs::Attrs;

/// The longest path a socket's address takes, without its final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Why a directory or the socket cannot be what an attribute says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// It cannot be made.
    #[error("{attr}: cannot create directory in {base}: {source}")]
    Create {
        attr: &'static str,
        base: String,
        source: std::io::Error,
    },
    /// The name given is too long for any path.
    #[error(
        "{attr}: buffer overflow: a path of {length} bytes is longer than {}",
        libc::PATH_MAX
    )]
    Overflow { attr: &'static str, length: usize },
    /// It cannot be looked at.
    #[error("{attr}: cannot stat {path}: {source}")]
    Stat {
        attr: &'static str,
        path: String,
        source: std::io::Error,
    },
    /// Something else is there.
    #[error("{attr}: {path}: Not a directory")]
    NoDirectory { attr: &'static str, path: String },
    /// Its owner may not read, write and search it.
    #[error("{attr}: {path}: insufficient permissions: its owner must have all of them")]
    Permissions { attr: &'static str, path: String },
    /// It belongs to somebody else.
    #[error("{attr}: {path}: it belongs to user {owner}, not to the instance owner")]
    Owner {
        attr: &'static str,
        path: String,
        owner: u32,
    },
    /// Nothing a broker can listen on.
    #[error("local-uri: malformed URI {0:?}: expected local://PATH")]
    Uri(String),
    /// The path of the socket is too long.
    #[error(
        "local-uri: a socket path of {0} bytes exceeds max {SOCKET_PATH_MAX} (buffer overflow); set rundir to a \
         shorter one"
    )]
    Socket(usize),
}

/// A directory of the broker's.
#[derive(Debug)]
pub(crate) struct Directory {
    path: String,
    remove: bool,
}

impl Directory {
    /// Make or check what attribute `attr` names, and say in the attributes what became of it. Without a name it is a
    /// new one in TMPDIR or `base`.
    pub(crate) fn make(
        attrs: &mut Attrs,
        attr: &'static str,
        base: &str,
    ) -> Result<Self, DirectoryError> {
        let (path, made) = match attrs.get(attr).map(PathBuf::from) {
            None => {
                let base = std::env::var("TMPDIR").unwrap_or_else(|_| base.to_owned());
                (unique(attr, Path::new(&base))?, true)
            }
            // Programs elsewhere are told of it. Of a path that is empty there is no absolute one.
            Some(path) => named(attr, std::path::absolute(&path).unwrap_or(path))?,
        };
        let cleanup = format!("{attr}-cleanup");
        attrs.set_default(&cleanup, if made { "1" } else { "0" });
        let path = path.to_string_lossy().into_owned();
        attrs.set(attr, &path);
        let remove = attrs.get(&cleanup) != Some("0");
        Ok(Self { path, remove })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.remove {
            // Nothing depends on it any more; what cannot be removed is reported by nobody.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A new directory in `base`.
fn unique(attr: &'static str, base: &Path) -> Result<PathBuf, DirectoryError> {
    let length = base.as_os_str().len();
    if length >= 1000 {
        return Err(DirectoryError::Overflow { attr, length });
    }
    nix::unistd::mkdtemp(&base.join("flux-XXXXXX")).map_err(|errno| DirectoryError::Create {
        attr,
        base: base.display().to_string(),
        source: errno.into(),
    })
}

/// The directory that was asked for, and whether it is new.
fn named(attr: &'static str, path: PathBuf) -> Result<(PathBuf, bool), DirectoryError> {
    match path.metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut builder = std::fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(&path);
            made.map_err(|source| DirectoryError::Create {
                attr,
                base: path.display().to_string(),
                source,
            })?;
            Ok((path, true))
        }
        Ok(meta) if meta.is_dir() && meta.permissions().mode() & libc::S_ISVTX != 0 => {
            Ok((unique(attr, &path)?, true))
        }
        meta => {
            let owner = check(attr, &path, meta)?;
            match owner == nix::unistd::getuid().as_raw() {
                true => Ok((path, false)),
                false => Err(DirectoryError::Owner {
                    attr,
                    path: path.display().to_string(),
                    owner,
                }),
            }
        }
    }
}

/// Whose the directory is, if its owner can use it.
fn check(
    attr: &'static str,
    path: &Path,
    meta: std::io::Result<std::fs::Metadata>,
) -> Result<u32, DirectoryError> {
    let shown = path.display().to_string();
    match meta {
        Err(source) => Err(DirectoryError::Stat {
            attr,
            path: shown,
            source,
        }),
        Ok(meta) if !meta.is_dir() => Err(DirectoryError::NoDirectory { attr, path: shown }),
        Ok(meta) if meta.mode() & 0o700 != 0o700 => {
            Err(DirectoryError::Permissions { attr, path: shown })
        }
        Ok(meta) => Ok(meta.uid()),
    }
}

/// The path of the socket `local-uri` names, in a directory that is there.
pub(crate) fn socket(uri: &str) -> Result<PathBuf, DirectoryError> {
    let path = uri
        .strip_prefix("local://")
        .filter(|path| !path.is_empty())
        .ok_or_else(|| DirectoryError::Uri(uri.to_owned()))?;
    if path.len() > SOCKET_PATH_MAX {
        return Err(DirectoryError::Socket(path.len()));
    }
    let path = PathBuf::from(path);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    check("local-uri", dir, dir.metadata())?;
    Ok(path)
}

/// `RUNDIR/bin/flux`, our `flux`: who comes to this host by ssh finds it there. Of brokers that share the directory
/// one makes it and takes it away.
pub(crate) struct FluxLink(PathBuf);

impl FluxLink {
    /// Make it, if it is not there. Without it the remote PATH has to do.
    pub(crate) fn make(rundir: &str) -> Option<Self> {
        let bin = Path::new(rundir).join("bin");
        // A directory that is there already will do.
        let _ = std::fs::create_dir(&bin);
        let flux = client::installation::bindir().join("flux");
        std::os::unix::fs::symlink(flux, bin.join("flux")).ok()?;
        Some(Self(bin))
    }
}

impl Drop for FluxLink {
    fn drop(&mut self) {
        // What else is in the directory keeps it.
        let _ = std::fs::remove_file(self.0.join("flux"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(values: &[(&str, &str)]) -> Attrs {
        let mut attrs = Attrs::default();
        for (name, value) in values {
            attrs.set_by_user(name, value).unwrap();
        }
        attrs
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_made_is_removed_and_what_was_there_is_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let (old, new) = (tmp.path().join("old"), tmp.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        for (path, cleanup, kept) in [
            (&old, None, true),
            (&new, None, false),
            (&new, Some("0"), true),
            (&old, Some("1"), false),
        ] {
            let path = path.to_str().unwrap();
            let mut attrs = attrs(&[("statedir", path)]);
            if let Some(cleanup) = cleanup {
                attrs.set("statedir-cleanup", cleanup);
            }
            let dir = Directory::make(&mut attrs, "statedir", "/none").unwrap();
            assert_eq!((dir.path(), attrs.get("statedir")), (path, Some(path)));
            let told = if kept { "0" } else { "1" };
            assert_eq!(attrs.get("statedir-cleanup"), Some(told));
            drop(dir);
            assert_eq!(Path::new(path).exists(), kept, "{path} {cleanup:?}");
        }
    }

    #[test]
    fn a_directory_of_all_gets_one_inside() {
        let tmp = tempfile::tempdir().unwrap();
        mode(tmp.path(), 0o1777);
        let mut attrs = attrs(&[("rundir", tmp.path().to_str().unwrap())]);
        let dir = Directory::make(&mut attrs, "rundir", "/none").unwrap();
        let inside = PathBuf::from(dir.path());
        assert_eq!(inside.parent(), Some(tmp.path()));
        drop(dir);
        assert!(!inside.exists() && tmp.path().exists());
    }

    #[test]
    fn the_link_goes_with_whoever_made_it() {
        let tmp = tempfile::tempdir().unwrap();
        let rundir = tmp.path().to_str().unwrap();
        let link = FluxLink::make(rundir).unwrap();
        assert!(FluxLink::make(rundir).is_none());
        assert!(tmp.path().join("bin/flux").is_symlink());
        drop(link);
        assert!(!tmp.path().join("bin").exists());
    }

    #[test]
    fn faults() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("file");
        let closed = tmp.path().join("closed");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(&closed).unwrap();
        mode(&closed, 0o500);
        let made = |path: &Path| {
            let mut attrs = attrs(&[("rundir", path.to_str().unwrap())]);
            Directory::make(&mut attrs, "rundir", "/").unwrap_err()
        };
        assert!(matches!(made(&file), DirectoryError::NoDirectory { .. }));
        assert!(matches!(made(&closed), DirectoryError::Permissions { .. }));
        let uri = |path: &Path| socket(&format!("local://{}", path.display())).unwrap_err();
        assert!(matches!(
            uri(&closed.join("x")),
            DirectoryError::Permissions { .. }
        ));
        assert!(matches!(
            uri(&tmp.path().join("no/x")),
            DirectoryError::Stat { .. }
        ));
        assert!(matches!(
            uri(Path::new(&"x".repeat(108))),
            DirectoryError::Socket(108)
        ));
        assert!(matches!(socket("tcp://x"), Err(DirectoryError::Uri(_))));
        assert!(matches!(socket("local://"), Err(DirectoryError::Uri(_))));
        let long = PathBuf::from("x".repeat(1024));
        assert!(matches!(
            unique("rundir", &long),
            Err(DirectoryError::Overflow { .. })
        ));
        let none = unique("rundir", Path::new("/noexist"))
            .unwrap_err()
            .to_string();
        assert!(
            none.starts_with("rundir: cannot create directory in /noexist: "),
            "{none}"
        );
    }
}
