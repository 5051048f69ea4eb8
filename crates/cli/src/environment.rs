//! The environment commands and their children run in.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use client::{Handle, installation};

use crate::error::{Context, Failure};

/// A list of directories that `flux` passes on, without repetitions.
struct List {
    name: &'static str,
    /// The list that goes before it.
    prepend: &'static str,
    /// What this installation adds to it, after those.
    own: Option<&'static str>,
}

const fn list(name: &'static str, prepend: &'static str, own: Option<&'static str>) -> List {
    List { name, prepend, own }
}

#[rustfmt::skip]
const LISTS: &[List] = &[
    list("FLUX_EXEC_PATH", "FLUX_EXEC_PATH_PREPEND", Some("exec_path")),
    list("FLUX_CONNECTOR_PATH", "FLUX_CONNECTOR_PATH_PREPEND", Some("connector_path")),
    list("FLUX_MODULE_PATH", "FLUX_MODULE_PATH_PREPEND", Some("module_path")),
    list("PYTHONPATH", "FLUX_PYTHONPATH_PREPEND", None),
];

/// Lua's lists, which have semicolons.
const LUA: &[(&str, &str)] = &[
    ("LUA_PATH", "FLUX_LUA_PATH_PREPEND"),
    ("LUA_CPATH", "FLUX_LUA_CPATH_PREPEND"),
];

/// Other lists that are only freed of repetitions.
const DEDUPLICATED: &[&str] = &["FLUX_RC_EXTRA", "FLUX_SHELL_RC_PATH"];

/// Variables `flux env` shows.
const SHOWN: &[&str] = &[
    "PATH",
    "PYTHONPATH",
    "MANPATH",
    "LUA_PATH",
    "LUA_CPATH",
    "FLUX_EXEC_PATH",
    "FLUX_CONNECTOR_PATH",
    "FLUX_MODULE_PATH",
    "FLUX_RC_EXTRA",
    "FLUX_SHELL_RC_PATH",
    "FLUX_URI",
    "FLUX_KVS_NAMESPACE",
];

fn set(name: &str, value: impl Into<OsString>) {
    // SAFETY: called by the driver only, before any thread or runtime exists.
    unsafe { std::env::set_var(name, value.into()) }
}

fn unset(name: &str) {
    // SAFETY: as for `set`.
    unsafe { std::env::remove_var(name) }
}

fn unique(dirs: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    for dir in dirs {
        if !dir.as_os_str().is_empty() && !seen.contains(&dir) {
            seen.push(dir);
        }
    }
    seen
}

fn split(name: &str) -> Vec<PathBuf> {
    std::env::var_os(name).map_or_else(Vec::new, |v| std::env::split_paths(&v).collect())
}

fn join(name: &str, dirs: Vec<PathBuf>) {
    // Parts of a split list hold no separator, so joining them cannot fail.
    if !dirs.is_empty()
        && let Ok(value) = std::env::join_paths(dirs)
    {
        set(name, value);
    }
}

/// Prepare the environment: the `flux` that children find is this one, and lists are in order.
pub(crate) fn prepare(argv0: &str) {
    if argv0 != "flux"
        && let Some(dir) = crate::exec_path::self_dir()
    {
        join("PATH", with_self_first(split("PATH"), &dir));
    }
    for list in LISTS {
        let own = list.own.and_then(installation::value).map(PathBuf::from);
        let dirs = split(list.prepend).into_iter().chain(own);
        join(list.name, unique(dirs.chain(split(list.name))));
    }
    for (name, prepend) in LUA {
        if let Ok(first) = std::env::var(prepend) {
            // An empty element stands for Lua's own list.
            let rest = std::env::var(name).unwrap_or_else(|_| ";".into());
            set(name, format!("{first};{rest}"));
        }
    }
    // A list that ends so is followed by the system's own pages.
    let pages = std::env::var("MANPATH").unwrap_or_default();
    let own = installation::value("mandir").unwrap_or_default();
    if !pages.split(':').any(|dir| dir == own) {
        set("MANPATH", format!("{own}:{pages}"));
    }
    for name in DEDUPLICATED {
        join(name, unique(split(name)));
    }
}

/// Let Python find the modules of this installation, as `flux env` and `flux python` do.
pub(crate) fn prepare_python() {
    let own = installation::value("python_path").map(PathBuf::from);
    join(
        "PYTHONPATH",
        unique(own.into_iter().chain(split("PYTHONPATH"))),
    );
}

/// PATH with `dir` before the first directory that has another `flux`, or at its end.
fn with_self_first(path: Vec<PathBuf>, own: &Path) -> Vec<PathBuf> {
    let own = own.canonicalize().unwrap_or_else(|_| own.to_owned());
    let mut out = Vec::new();
    let mut placed = false;
    for dir in path {
        if !placed {
            if dir.canonicalize().is_ok_and(|d| d == own) {
                placed = true;
            } else if dir.join("flux").exists() {
                out.push(own.clone());
                placed = true;
            }
        }
        out.push(dir);
    }
    if !placed {
        out.push(own);
    }
    out
}

/// The environment as `flux env` prints it.
pub(crate) fn shown() -> Vec<(&'static str, String)> {
    let value = |name: &&'static str| std::env::var(name).ok().map(|v| (*name, v));
    SHOWN.iter().filter_map(value).collect()
}

/// Make the enclosing instance the one commands talk to, `levels` times; `None` is the root.
pub(crate) fn enter_parent(levels: Option<u32>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let mut left = levels;
    while left != Some(0) {
        let parent = runtime.block_on(async {
            let handle = Handle::open(None).await?;
            let (uri, namespace) = futures::join!(
                handle.getattr("parent-uri"),
                handle.getattr("parent-kvs-namespace")
            );
            Ok::<_, Failure>((uri.ok(), namespace.ok()))
        });
        let (uri, namespace) = match (parent, left) {
            (Ok(found), _) => found,
            (Err(e), Some(_)) => return Err(e),
            (Err(_), None) => return Ok(()),
        };
        match (uri, left) {
            (Some(uri), _) => set("FLUX_URI", crate::uri::behind_proxy(uri)),
            // The root instance has no parent.
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                unset("FLUX_URI");
                unset("FLUX_KVS_NAMESPACE");
                return Ok(());
            }
        }
        match namespace {
            Some(name) => set("FLUX_KVS_NAMESPACE", name),
            None => unset("FLUX_KVS_NAMESPACE"),
        }
        left = left.map(|n| n - 1);
    }
    Ok(())
}

/// The runtime of a command: one thread, so that it starts at once.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

/// Run a command's asynchronous part.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(future);
    // Connections end with the process; nothing is waited for.
    runtime.shutdown_background();
    result
}

/// The future's outcome, or `None` if it takes longer than this many seconds.
pub(crate) async fn within<T>(seconds: Option<f64>, future: impl Future<Output = T>) -> Option<T> {
    match seconds.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok()) {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        // A time too long for the clock is no limit.
        None => Some(future.await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_directory_comes_before_another_flux() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b, own) = (
            tmp.path().join("a"),
            tmp.path().join("b"),
            tmp.path().join("own"),
        );
        for dir in [&a, &b, &own] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::write(b.join("flux"), "").unwrap();
        let order = |path: &[&PathBuf]| {
            let path = path.iter().map(|p| (*p).clone()).collect();
            with_self_first(path, &own)
        };
        assert_eq!(order(&[&a, &b]), [a.clone(), own.clone(), b.clone()]);
        assert_eq!(order(&[&a]), [a.clone(), own.clone()]);
        assert_eq!(order(&[&own, &b]), [own.clone(), b.clone()]);
        assert_eq!(unique([a.clone(), b.clone(), a.clone()]), [a, b]);
    }
}
