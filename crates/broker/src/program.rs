//! The initial program of rank 0: the command given to `flux start`, or the user's shell.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use tokio::process::{Child, Command};

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

    /// Start it with `env` set on top of the broker's own environment.
    ///
    /// It leads a process group of its own, so that all of it can be signalled, unless it may use a
    /// terminal: there it has to stay in the foreground group.
    pub(crate) fn spawn(&self, env: &[(String, Option<String>)]) -> std::io::Result<Child> {
        let mut cmd = self.command();
        prepare(&mut cmd, env);
        if !has_terminal() {
            cmd.process_group(0);
        }
        cmd.spawn()
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

    /// Name for messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Shell => "shell",
            Self::Line(line) => line,
            Self::Words(words) => &words[0],
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

fn has_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Signal a program that has not been reaped yet, with all of its process group.
pub(crate) fn signal(pid: u32, signum: i32) {
    let pid = pid as i32;
    // SAFETY: the caller has not reaped the process, so neither pid nor group has been reused.
    unsafe {
        if has_terminal() {
            libc::kill(pid, signum);
        } else {
            libc::killpg(pid, signum);
        }
    }
}

/// Exit code as a shell reports it: the code, or 128 plus the signal.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(1)
}

/// Exit code for a program that could not be started: 127 not found, 126 otherwise.
pub(crate) fn spawn_error_code(err: &std::io::Error) -> i32 {
    if err.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
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
