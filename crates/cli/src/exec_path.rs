//! Where programs are found: our own (broker, shell) and `flux-NAME` commands added by others.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Failure;

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The directory this program is in.
pub(crate) fn self_dir() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    exe.parent().map(Path::to_owned)
}

/// `flux-broker`: what FLUX_BROKER_PATH names, or beside this program, or in `../libexec/flux`.
pub(crate) fn broker() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("FLUX_BROKER_PATH") {
        return Ok(path.into());
    }
    let dir = self_dir().unwrap_or_default();
    let places = [
        dir.join("flux-broker"),
        dir.join("../libexec/flux/flux-broker"),
    ];
    places
        .iter()
        .find(|p| is_program(p))
        .cloned()
        .ok_or_else(|| {
            Failure::new(format!(
                "flux-broker is neither in {} nor in ../libexec/flux; set FLUX_BROKER_PATH",
                dir.display()
            ))
        })
}

fn path_var(name: &str) -> Vec<PathBuf> {
    std::env::var_os(name).map_or_else(Vec::new, |v| std::env::split_paths(&v).collect())
}

/// A program `flux-NAME` in FLUX_EXEC_PATH_PREPEND, FLUX_EXEC_PATH, PATH, or where our own are.
pub(crate) fn find_command(name: &str) -> Option<PathBuf> {
    // A name with a slash is a path, never a command.
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let mut dirs = path_var("FLUX_EXEC_PATH_PREPEND");
    dirs.extend(path_var("FLUX_EXEC_PATH"));
    dirs.extend(path_var("PATH"));
    if let Some(dir) = self_dir() {
        dirs.extend([dir.clone(), dir.join("../libexec/flux")]);
    }
    let own = dirs.into_iter().map(|dir| dir.join(format!("flux-{name}")));
    own.into_iter().find(|p| is_program(p))
}

/// Replace this process; returns only why that failed, with a shell's exit code for it.
pub(crate) fn exec<S: Into<OsString>>(
    program: &Path,
    args: impl IntoIterator<Item = S>,
) -> Failure {
    let args = args.into_iter().map(Into::into);
    let err = Command::new(program).args(args).exec();
    spawn_failure(&program.to_string_lossy(), &err)
}

/// Why a program could not be started: exit code 127 if it is not there, 126 otherwise.
pub(crate) fn spawn_failure(program: &str, err: &std::io::Error) -> Failure {
    let code = match err.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    };
    let why = err
        .raw_os_error()
        .map_or_else(|| err.to_string(), crate::error::strerror);
    Failure::new(format!("{program}: {why}")).code(code)
}
