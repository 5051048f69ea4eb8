//! Where the files of this installation are: programs in `PREFIX/bin`, the rest below the same prefix.
//!
//! Environment variables move some of them, so that a tree that is not installed yet can be used.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directory that has `bin`, `lib`, `etc` and so on.
fn prefix() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(&exe);
    let up = if dir.ends_with("libexec/flux") { 2 } else { 1 };
    dir.ancestors().nth(up).unwrap_or(dir).to_owned()
}

/// The directory programs are in.
pub fn bindir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(&exe);
    match dir.ends_with("libexec/flux") {
        true => prefix().join("bin"),
        false => dir.to_owned(),
    }
}

fn below(variable: &str, path: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| prefix().join(path), PathBuf::from)
}

/// The directory of configuration: `FLUX_CONFDIR`, or `etc/flux`.
pub fn confdir() -> PathBuf {
    below("FLUX_CONFDIR", "etc/flux")
}

/// The directory of the job manager's plugins.
pub fn jobtap_plugins() -> PathBuf {
    prefix().join("lib/flux/job-manager/plugins")
}

/// The PMI library for C programs; `libpmi2.so` is beside it. In a tree that is not installed it is beside the programs.
pub fn pmi_library() -> PathBuf {
    let built = bindir().join("libpmi.so");
    match built.exists() {
        true => built,
        false => prefix().join("lib/flux/libpmi.so"),
    }
}

/// The directory of the job shell's plugins.
pub fn shell_plugins() -> PathBuf {
    prefix().join("lib/flux/shell/plugins")
}

/// What `flux config builtin KEY` and `broker.conf-builtin` tell; `None` if there is no such key.
///
/// ```
/// assert!(client::installation::value("confdir").is_some_and(|dir| !dir.is_empty()));
/// assert_eq!(client::installation::value("bogus"), None);
/// ```
pub fn value(key: &str) -> Option<String> {
    let path = match key {
        "rc1_path" => return Some("flux modprobe rc1".to_owned()),
        "rc3_path" => return Some("flux modprobe rc3".to_owned()),
        "confdir" => confdir(),
        "datadir" => below("FLUX_DATADIR", "share/flux"),
        "libexecdir" => below("FLUX_LIBEXECDIR", "libexec/flux"),
        "mandir" => prefix().join("share/man"),
        "exec_path" => prefix().join("libexec/flux/cmd"),
        "connector_path" => prefix().join("lib/flux/connectors"),
        "module_path" => prefix().join("lib/flux/modules"),
        "pmi_library_path" => pmi_library(),
        "python_path" => prefix().join("lib/flux/python3"),
        "broker_path" => std::env::var_os("FLUX_BROKER_PATH")
            .map_or_else(|| bindir().join("flux-broker"), PathBuf::from),
        "shell_path" => bindir().join("flux-shell"),
        "shell_pluginpath" => shell_plugins(),
        "shell_initrc" => confdir().join("shell/initrc.lua"),
        "rundir" => below("FLUX_RUNDIR", "var/run/flux"),
        _ => return None,
    };
    Some(path.to_string_lossy().into_owned())
}

/// Whether a path is a file that can be executed.
pub fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The directories that a variable of the environment lists.
pub fn path_var(name: &str) -> Vec<PathBuf> {
    std::env::var_os(name).map_or_else(Vec::new, |v| std::env::split_paths(&v).collect())
}

/// Where commands that others add are, besides PATH.
pub fn command_dirs() -> Vec<PathBuf> {
    let mut dirs = path_var("FLUX_EXEC_PATH_PREPEND");
    dirs.extend(path_var("FLUX_EXEC_PATH"));
    dirs.extend([bindir(), bindir().join("../libexec/flux")]);
    dirs
}

/// A command `flux` does not have itself.
#[derive(Debug, PartialEq, Eq)]
pub enum External {
    /// A program to run as it is.
    Program(PathBuf),
    /// `flux-NAME.py`, for `flux python`.
    Python(PathBuf),
}

/// What `flux NAME` runs: a path, or `flux-NAME` or `flux-NAME.py` in FLUX_EXEC_PATH_PREPEND, FLUX_EXEC_PATH, where
/// our own programs are, or PATH.
pub fn find_command(name: &str) -> Option<External> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return is_program(&path).then_some(External::Program(path));
    }
    let dirs = command_dirs().into_iter().chain(path_var("PATH"));
    dirs.flat_map(|dir| {
        let program = dir.join(format!("flux-{name}"));
        let script = dir.join(format!("flux-{name}.py"));
        [External::Program(program), External::Python(script)]
    })
    .find(|command| match command {
        External::Program(path) | External::Python(path) => is_program(path),
    })
}
