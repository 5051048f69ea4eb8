//! Where our own programs are found, and what commands others have added.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use client::installation::{command_dirs, is_program, path_var};

use crate::error::Failure;

/// The directory this program is in.
pub(crate) fn self_dir() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    exe.parent().map(Path::to_owned)
}

/// `flux-broker`: what FLUX_BROKER_PATH names, or in FLUX_EXEC_PATH_PREPEND, or beside this program, or in
/// `../libexec/flux`.
pub(crate) fn broker() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("FLUX_BROKER_PATH") {
        return Ok(path.into());
    }
    let dir = self_dir().unwrap_or_default();
    let mut places = path_var("FLUX_EXEC_PATH_PREPEND");
    places.extend([dir.clone(), dir.join("../libexec/flux")]);
    let found = places.into_iter().map(|dir| dir.join("flux-broker"));
    found.into_iter().find(|p| is_program(p)).ok_or_else(|| {
        Failure::new(format!(
            "flux-broker is neither in {} nor in ../libexec/flux; set FLUX_BROKER_PATH",
            dir.display()
        ))
    })
}

/// Names of the commands others have added, except in PATH.
pub(crate) fn added_commands() -> Vec<String> {
    let entries = command_dirs()
        .into_iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .flatten();
    let programs = entries.filter(|entry| is_program(&entry.path()));
    let names = programs.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let name = name.strip_prefix("flux-")?;
        Some(name.strip_suffix(".py").unwrap_or(name).to_owned())
    });
    names.collect()
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
