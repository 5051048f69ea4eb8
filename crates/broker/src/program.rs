//! The initial program of rank 0: the command given to `flux start`, or the user's shell.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Instant;

use tokio::process::Command;

use crate::child::{Aborted, Ended};
use crate::rc::Environment;

/// What the initial program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// Nothing was given: the user's shell, interactively.
    Shell,
    /// One word that is no path of a program: a shell command line.
    Line(String),
    /// A program and its arguments, run as they are.
    Words(Vec<String>),
}

impl Program {
    pub(crate) fn from_args(mut args: Vec<String>) -> Self {
        match args.len() {
            0 => Self::Shell,
            // Without a shell in between it gets its signals.
            1 if is_program(&args[0]) => Self::Words(args),
            1 => Self::Line(args.remove(0)),
            _ => Self::Words(args),
        }
    }

    fn command(&self) -> Command {
        let shell = std::env::var_os("SHELL").unwrap_or_else(|| OsString::from("/bin/sh"));
        match self {
            Self::Shell => Command::new(shell),
            Self::Line(line) => {
                let mut cmd = Command::new(shell);
                cmd.arg("-c").arg(line);
                cmd
            }
            Self::Words(words) => {
                let mut cmd = Command::new(&words[0]);
                cmd.args(&words[1..]);
                cmd
            }
        }
    }

    /// Run it with `env` set on top of the broker's own environment; its end, and the entry for the log.
    ///
    /// It leads a process group of its own, so that all of it can be signalled, unless `shares_group` says otherwise or
    /// it may use a terminal: there it has to stay in the foreground group.
    pub(crate) async fn run(
        self,
        env: Environment,
        shares_group: bool,
        mut aborted: Aborted,
    ) -> (Ended, (i32, String)) {
        let start = Instant::now();
        let own_group = !shares_group && !has_terminal();
        let status = async {
            if self == Self::Shell && !has_terminal() {
                let text = "cannot run an interactive shell: standard input is not a tty";
                return Err(std::io::Error::other(text));
            }
            let mut cmd = self.command();
            prepare(&mut cmd, &env);
            if own_group {
                cmd.process_group(0);
            }
            let signal = |pid, signum| signal(pid, own_group, signum);
            aborted.wait(&mut cmd.spawn()?, signal).await
        };
        let status = status.await;
        let mut ended = Ended::of(status, aborted.is_over());
        if self == Self::Shell && !has_terminal() {
            ended.code = 1;
        }
        let entry = ended.entry("rc2.0", &self.line(), start.elapsed());
        (ended, entry)
    }

    /// The command line, for the log.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Shell => {
                let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
                shell.to_string_lossy().into_owned()
            }
            Self::Line(line) => line.clone(),
            Self::Words(words) => words.join(" "),
        }
    }
}

/// Whether a word is the path of a file that may be executed.
fn is_program(word: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = || std::fs::metadata(word);
    word.contains('/') && meta().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Variables by which whoever launched the broker speaks to it alone.
fn launchers(name: &str) -> bool {
    let prefixes = ["PMI_", "PMIX_", "SLURM_", "PALS_"];
    name == "NOTIFY_SOCKET" || prefixes.iter().any(|p| name.starts_with(p))
}

/// Give a command the environment of this instance instead of an enclosing job's, and let it end with the broker.
pub(crate) fn prepare(cmd: &mut Command, env: &[(String, Option<String>)]) {
    for name in formats::job::VARIABLES {
        cmd.env_remove(name);
    }
    let foreign = std::env::vars_os().map(|(name, _)| name);
    for name in foreign.filter(|n| launchers(&n.to_string_lossy())) {
        cmd.env_remove(name);
    }
    for (name, value) in env {
        match value {
            Some(value) => cmd.env(name, value),
            None => cmd.env_remove(name),
        };
    }
    // SAFETY: prctl is async-signal-safe and touches nothing but the child's own signal.
    unsafe {
        cmd.pre_exec(|| {
            // The program must not go on without its instance.
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    cmd.kill_on_drop(true);
}

/// Whether the broker is used from a terminal.
pub(crate) fn has_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Signal a program that has not been reaped yet, with all of its process group if that is its own.
fn signal(pid: u32, own_group: bool, signum: i32) {
    let pid = pid as i32;
    // SAFETY: the caller has not reaped the process, so neither pid nor group has been reused.
    unsafe {
        if own_group {
            libc::killpg(pid, signum);
        } else {
            libc::kill(pid, signum);
        }
    }
}

/// Whether this process is a task of a job and leads its process group: then what its programs leave behind belongs to
/// the job, and would keep it from ending.
pub(crate) fn leads_job() -> bool {
    let leads = nix::unistd::getpgrp() == nix::unistd::getpid();
    leads && std::env::var_os("FLUX_JOB_ID").is_some()
}

/// Let what programs of this process group have left behind end with it.
pub(crate) fn end_group() {
    // SAFETY: ignoring a signal runs no code, and 0 is this process's own group.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::kill(0, libc::SIGHUP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_program_needs_no_shell() {
        let program =
            |words: &[&str]| Program::from_args(words.iter().map(|w| (*w).into()).collect());
        assert_eq!(program(&[]), Program::Shell);
        assert_eq!(
            program(&["/bin/sh"]),
            Program::Words(vec!["/bin/sh".into()])
        );
        assert_eq!(program(&["/bin/sh -x"]), Program::Line("/bin/sh -x".into()));
        assert_eq!(program(&["sh"]), Program::Line("sh".into()));
        assert_eq!(
            program(&["a", "b"]),
            Program::Words(vec!["a".into(), "b".into()])
        );
    }
}
