//! Modules that are programs of their own, in any language.
//!
//! The program finds a connected socket in the descriptor that `FLUX_MODULE_URI` (`fd://N`) names. Messages are
//! framed there as on the local socket, after the same byte 0. The first message is a request `welcome` with the module's
//! `name`, `uuid`, `args`, the broker's `attrs` that never change, and `conf`, the configuration. The program reports
//! `module.status` (1 running, 2 about to end, 3 ended, with `errnum`) and ends when it is sent `NAME.shutdown`.
//!
//! A file named `*.so` is run by the command `flux module-exec`, `*.py` by `flux module-python-exec`, which upstream
//! provides; any other executable is run as it is.

use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use client::module::{ModuleError, ModuleResult};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use wire::{Credentials, RpcError};

use super::{News, tell_running};
use crate::connector::{Window, carry};
use crate::router::{ClientQueue, EndpointId, Input, ModuleCard, RouterHandle, Sink, new_id};

/// Suffixes and the commands that run files which have them.
const LOADERS: [(&str, &str); 2] = [(".so", "module-exec"), (".py", "module-python-exec")];

/// How long the socket of a program that has ended is read for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: String,
    /// A `flux` command that runs it.
    loader: Option<String>,
}

impl Program {
    fn command(&self) -> Command {
        match &self.loader {
            None => Command::new(&self.path),
            Some(loader) => {
                // Programs are installed side by side; `flux` is one of them.
                let flux = std::env::current_exe().map(|exe| exe.with_file_name("flux"));
                let mut cmd = Command::new(flux.unwrap_or_else(|_| "flux".into()));
                cmd.arg(loader).arg(&self.path);
                cmd
            }
        }
    }

    /// What it is called in messages about its end.
    fn what(&self) -> String {
        match &self.loader {
            Some(loader) => format!("loader ({loader})"),
            None => self.path.clone(),
        }
    }
}

fn loader_of(path: &str) -> Option<&'static str> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let fits = |suffix: &str| match suffix {
        // Libraries may have a version after it.
        ".so" => file.ends_with(".so") || file.contains(".so."),
        _ => file.ends_with(suffix),
    };
    LOADERS.iter().find(|(s, _)| fits(s)).map(|(_, l)| *l)
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The program of a module named by `target`: a path, or a name to look for in `FLUX_MODULE_PATH`.
pub(super) fn find(target: &str, loader: Option<&str>) -> Result<Program, RpcError> {
    if target.contains('/') {
        let path = target.to_owned();
        let loader = loader.or_else(|| loader_of(target)).map(str::to_owned);
        if loader.is_none() && !executable(Path::new(target)) {
            let text = format!(
                "could not determine loader from path suffix: {target} is neither *.so nor *.py nor executable"
            );
            return Err(RpcError::new(libc::ENOENT, text));
        }
        return Ok(Program { path, loader });
    }
    let dirs = std::env::var_os("FLUX_MODULE_PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&dirs).collect();
    find_in(&dirs, target).ok_or_else(|| {
        let text = format!(
            "module not found in search path: {target} is neither built in nor in FLUX_MODULE_PATH"
        );
        RpcError::new(libc::ENOENT, text)
    })
}

fn find_in(dirs: &[PathBuf], name: &str) -> Option<Program> {
    for (suffix, loader) in LOADERS {
        for dir in dirs {
            let path = dir.join(format!("{name}{suffix}"));
            if path.is_file() {
                return Some(Program {
                    path: path.to_string_lossy().into_owned(),
                    loader: Some(loader.to_owned()),
                });
            }
        }
    }
    let mut plain = dirs.iter().map(|dir| dir.join(name));
    plain.find(|path| executable(path)).map(|path| Program {
        path: path.to_string_lossy().into_owned(),
        loader: None,
    })
}

/// What a program is started into.
pub(super) struct Place {
    pub(super) router: RouterHandle,
    pub(super) cred: Credentials,
    pub(super) local_uri: String,
    pub(super) card: Arc<ModuleCard>,
    pub(super) services: Vec<String>,
    pub(super) news: UnboundedSender<News>,
}

/// Start the program; returns its endpoint and what kills it.
pub(super) fn start(
    program: Program,
    mut welcome: Value,
    place: Place,
) -> std::io::Result<(EndpointId, Arc<Notify>)> {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    // As on the local socket, where it says that the program may come in.
    ours.write_all(&[0])?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let fd = theirs.as_raw_fd();
    let mut cmd = program.command();
    cmd.env(client::external::URI_VARIABLE, format!("fd://{fd}"))
        .env("FLUX_URI", &place.local_uri)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    // SAFETY: fcntl and prctl are async-signal-safe and change only the child's own state.
    unsafe {
        cmd.pre_exec(move || {
            // The program gets this descriptor, and does not go on without its broker.
            if libc::fcntl(fd, libc::F_SETFD, 0) < 0
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) < 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = cmd.spawn()?;
    drop(theirs);
    let id = new_id();
    welcome["uuid"] = id.as_str().into();
    let (queue, messages) = ClientQueue::new(crate::router::Bounds::default().unread);
    let Place {
        router,
        cred,
        card,
        services,
        news,
        ..
    } = place;
    router.send(Input::Attach {
        id: id.clone(),
        cred,
        sink: Sink::Client(queue.clone()),
        services,
        card: Some(card.clone()),
    });
    router.send(Input::Tell(id.clone(), client::external::welcome(&welcome)));
    let kill = Arc::new(Notify::new());
    let (own_id, ended_id, killed) = (id.clone(), id.clone(), kill.clone());
    let (running, tell, tell_id) = (card.meter.running(), news.clone(), id.clone());
    tokio::spawn(async move { tell_running(running, &tell, &tell_id).await });
    tokio::spawn(async move {
        let talk = carry(ours, &own_id, queue, messages, &router, Window::Open);
        let mut talk = std::pin::pin!(talk);
        let what = program.what();
        let mut end = std::pin::pin!(ended(child, killed, &what));
        let result = tokio::select! {
            () = &mut talk => end.await,
            result = &mut end => {
                // What it said before its end is read; a process it left behind may keep the socket.
                let _ = tokio::time::timeout(LAST_WORDS, talk).await;
                result
            }
        };
        // The core is only gone when the broker ends.
        let _ = news.send(News::Ended(ended_id, result));
    });
    Ok((id, kill))
}

async fn ended(mut child: Child, killed: Arc<Notify>, what: &str) -> ModuleResult {
    let status = tokio::select! {
        status = child.wait() => status,
        () = killed.notified() => {
            // It may have ended just now.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let text = match status {
        Ok(status) => verdict(what, status),
        Err(e) => format!("{what}: {e}"),
    };
    Err(ModuleError::invalid(text))
}

/// How it ended, for when it did not say so itself.
fn verdict(what: &str, status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => format!("{what} exited without reporting a module status"),
        (Some(code), _) => format!("{what} exited with exit code {code}"),
        (None, Some(signum)) => {
            format!(
                "{what} was killed by {} (signal {signum})",
                signal_text(signum)
            )
        }
        (None, None) => format!("{what} ended in an unknown way"),
    }
}

/// A signal's name for people, as the C library has it.
fn signal_text(signum: i32) -> String {
    // SAFETY: strsignal returns a string, or null, that lives until its next call in this thread.
    unsafe {
        let text = libc::strsignal(signum);
        match text.is_null() {
            true => "a signal".to_owned(),
            false => std::ffi::CStr::from_ptr(text)
                .to_string_lossy()
                .into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_a_file() {
        assert_eq!(loader_of("/a/kvs.so"), Some("module-exec"));
        assert_eq!(loader_of("/a/kvs.so.1.2"), Some("module-exec"));
        assert_eq!(loader_of("x.py"), Some("module-python-exec"));
        assert_eq!(loader_of("/some.so/x"), None);
    }

    #[test]
    fn names_are_looked_for_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str, mode| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let find = |name: &str| {
            let dirs = [PathBuf::from("/nonexistent"), dir.path().to_owned()];
            find_in(&dirs, name).map(|p| p.what())
        };
        touch("plain", 0o644);
        assert_eq!(find("plain"), None);
        touch("plain", 0o755);
        assert!(find("plain").unwrap().ends_with("/plain"));
        touch("plain.py", 0o644);
        assert_eq!(find("plain").unwrap(), "loader (module-python-exec)");
        touch("plain.so", 0o644);
        assert_eq!(find("plain").unwrap(), "loader (module-exec)");
        assert_eq!(
            super::find("/nonexistent/x", None).unwrap_err().errno,
            libc::ENOENT
        );
        assert_eq!(super::find("x", None).unwrap_err().errno, libc::ENOENT);
    }

    #[test]
    fn verdicts() {
        assert_eq!(
            verdict("x", ExitStatus::from_raw(0)),
            "x exited without reporting a module status"
        );
        assert_eq!(
            verdict("x", ExitStatus::from_raw(3 << 8)),
            "x exited with exit code 3"
        );
        assert_eq!(
            verdict("x", ExitStatus::from_raw(9)),
            "x was killed by Killed (signal 9)"
        );
    }
}
