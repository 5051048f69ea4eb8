//! Starting one task.
//!
//! The shell has prepared itself beforehand (directory, limits, CPU binding), so a task starts
//! with `posix_spawn` and no code of ours runs between fork and exec, unless limits are set for a
//! task of a shell that shares its process. That needs the program to
//! be looked up here: [`resolve`] does what `execvp` would do in the task's environment.

use crate::{environment::Environment, options::InputOptions, rlimit::Limits, seat::Dir};
use formats::Idset;
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        stat::Mode,
        wait::{WaitStatus, waitpid},
    },
    unistd::{AccessFlags, Pid, access, write},
};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::net::UnixStream as StdStream, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};
use terminus::pty::Pty;
use tokio::{
    io::AsyncRead,
    net::UnixStream,
    process::{Child, ChildStdin},
};

/// What to start.
pub struct Spec<'a> {
    /// Standard streams of the task, instead of pipes.
    pub terminal: Option<&'a Pty>,
    pub argv: &'a [String],
    pub env: Environment,
    pub input: &'a InputOptions,
    pub dir: &'a Dir,
    pub limits: &'a Limits,
    /// Give the task a process group of its own.
    pub process_group: bool,
    /// The task's PMI rank and size, when it gets PMI.
    pub pmi: Option<(u32, u32)>,
    pub cpus: Option<&'a Idset>,
    /// What the shell's process is to be bound to again when the task has its own CPUs.
    pub unbound: Option<&'a Idset>,
    /// The task's `oom_score_adj`.
    pub oom_adjust: Option<i32>,
    /// What runs in the task's process before its program.
    pub before_exec: Option<BeforeExec>,
    /// Leave the task stopped before its program's first instruction.
    pub stopped: bool,
}

/// What runs in a task's process, between fork and exec.
pub type BeforeExec = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// An output stream of a task.
pub type Source = Box<dyn AsyncRead + Unpin>;

/// A task that runs. One with a terminal has no streams of its own.
pub struct Started {
    pub child: Child,
    pub pid: i32,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<Source>,
    pub stderr: Option<Source>,
    pub pmi: Option<UnixStream>,
}

fn is_executable(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(access(path, AccessFlags::X_OK).is_ok()),
        Ok(_) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The file a command names, seen from `at`: a path as it is, a bare name by the directories of `path`.
pub fn resolve(command: &str, path: Option<&str>, at: &Dir) -> io::Result<PathBuf> {
    if command.contains('/') {
        return Ok(PathBuf::from(command));
    }
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    if command.is_empty() {
        return Err(error);
    }
    for dir in path.unwrap_or("/bin:/usr/bin").split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = Path::new(dir).join(command);
        match is_executable(&at.path(&candidate)) {
            Ok(true) => return Ok(candidate),
            Ok(false) => error = io::Error::from_raw_os_error(libc::EACCES),
            Err(_) => {}
        }
    }
    Err(error)
}

/// Writes this process's `oom_score_adj`. Fewer privileges than a low score needs are no reason not to run.
fn set_oom_score(text: &str) -> io::Result<()> {
    let (flags, mode) = (OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    if let Ok(file) = open(c"/proc/self/oom_score_adj", flags, mode) {
        let _ = write(file, text.as_bytes());
    }
    Ok(())
}

/// Makes this process's parent its tracer, so that it stops in exec.
fn be_traced() -> io::Result<()> {
    // SAFETY: the request takes no other arguments.
    match unsafe { libc::ptrace(libc::PTRACE_TRACEME) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Waits until a traced child has come to its exec, and lets it go as one that SIGSTOP has stopped: a debugger can
/// attach to it, and SIGCONT has it run.
fn leave_stopped(pid: i32) -> io::Result<()> {
    let stopped = waitpid(Pid::from_raw(pid), None)?;
    if !matches!(stopped, WaitStatus::Stopped(..)) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the child is stopped, and this thread, which started it, is its tracer.
    let detached = unsafe {
        let nowhere = std::ptr::null_mut::<libc::c_void>();
        libc::ptrace(
            libc::PTRACE_DETACH,
            pid,
            nowhere,
            libc::SIGSTOP as usize as *mut libc::c_void,
        )
    };
    match detached {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether the task has this `oom_score_adj`. One that has ended needs none.
pub fn has_oom_score(pid: i32, adjust: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    text.map_or(true, |text| text.trim().parse() == Ok(adjust))
}

/// Starts a task. Must be called within a tokio runtime.
pub fn start(mut spec: Spec) -> io::Result<Started> {
    let name = spec.argv.first().map_or("", String::as_str);
    let program = resolve(name, spec.env.get("PATH").map(String::as_str), spec.dir)?;
    let mut ours = None;
    let mut theirs = None;
    if let Some((rank, size)) = spec.pmi {
        let kind = (AddressFamily::Unix, SockType::Stream);
        let (here, there) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC)?;
        // The one descriptor a task inherits besides its standard streams. It is closed here
        // as soon as the task has it, so that no other task gets it.
        fcntl(&there, FcntlArg::F_SETFD(FdFlag::empty()))?;
        spec.env
            .insert("PMI_FD".into(), there.as_raw_fd().to_string());
        spec.env.insert("PMI_RANK".into(), rank.to_string());
        spec.env.insert("PMI_SIZE".into(), size.to_string());
        let here = StdStream::from(here);
        here.set_nonblocking(true)?;
        ours = Some(UnixStream::from_std(here)?);
        theirs = Some(there);
    }
    if let Some(cpus) = spec.cpus {
        crate::affinity::bind(cpus)?;
    }
    let before_exec: Option<Arc<BeforeExec>> = spec.before_exec.take().map(Arc::new);
    let spawn = |program: &Path, before: &[&str]| {
        let mut command = Command::new(program);
        command.args(before).args(spec.argv.iter().skip(1));
        if before.is_empty() {
            command.arg0(name);
        }
        command.env_clear().envs(&spec.env);
        if let Some(dir) = &spec.dir.0 {
            command.current_dir(dir);
        }
        if !spec.limits.is_empty() {
            let limits = spec.limits.clone();
            // SAFETY: only system calls are made between fork and exec.
            unsafe { command.pre_exec(move || Ok(limits.set()?)) };
        }
        if let Some(adjust) = spec.oom_adjust {
            let text = adjust.to_string();
            // SAFETY: only open, write and close are called between fork and exec.
            unsafe { command.pre_exec(move || set_oom_score(&text)) };
        }
        if let Some(before) = before_exec.clone() {
            // SAFETY: what plugins do there is theirs to answer for; the C library's locks are taken over fork.
            unsafe { command.pre_exec(move || before()) };
        }
        if spec.stopped {
            // SAFETY: only one system call is made between fork and exec.
            unsafe { command.pre_exec(be_traced) };
        }
        match spec.terminal {
            // The task leads a session then, and so a process group.
            Some(terminal) => terminal.give_to(&mut command)?,
            None => {
                command.stdin(match spec.input {
                    InputOptions::Service => Stdio::piped(),
                    InputOptions::File(path) => File::open(spec.dir.path(path))?.into(),
                });
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                if spec.process_group {
                    command.process_group(0);
                }
            }
        }
        tokio::process::Command::from(command).spawn()
    };
    let spawned = match spawn(&program, &[]) {
        // A script without an interpreter line is a shell script, as execvp has it.
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => {
            let script = program.to_string_lossy();
            spawn(Path::new("/bin/sh"), &[&script])
        }
        outcome => outcome,
    };
    drop(theirs);
    if let (Some(_), Some(cpus)) = (spec.cpus, spec.unbound) {
        crate::affinity::bind(cpus)?;
    }
    let mut child = spawned?;
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    // The child has not been waited for, so its id is known.
    let pid = child.id().ok_or_else(gone)? as i32;
    if spec.stopped {
        leave_stopped(pid)?;
    }
    Ok(Started {
        pid,
        stdin: child.stdin.take(),
        stdout: child.stdout.take().map(|s| Box::new(s) as Source),
        stderr: child.stderr.take().map(|s| Box::new(s) as Source),
        pmi: ours,
        child,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::AsyncReadExt;

    #[test]
    fn lookup() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for d in [&a, &b] {
            std::fs::create_dir(d).unwrap();
        }
        let put = |path: &Path, mode| {
            std::fs::write(path, "").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        put(&a.join("plain"), 0o644);
        put(&b.join("tool"), 0o755);
        let path = format!("{}:{}", a.display(), b.display());
        let here = Dir::default();
        // A directory of PATH that is relative is one of the task's.
        let there = Dir(Some(dir.path().to_owned()));
        assert_eq!(
            resolve("tool", Some("b"), &there).unwrap(),
            Path::new("b/tool")
        );
        assert_eq!(resolve("tool", Some(&path), &here).unwrap(), b.join("tool"));
        assert_eq!(
            resolve("./x", Some(&path), &here).unwrap(),
            Path::new("./x")
        );
        let errno = |name| {
            resolve(name, Some(&path), &here)
                .unwrap_err()
                .raw_os_error()
        };
        assert_eq!(errno("none"), Some(libc::ENOENT));
        assert_eq!(errno("plain"), Some(libc::EACCES));
        assert_eq!(errno(""), Some(libc::ENOENT));
    }

    async fn run(argv: &[&str], pmi: Option<(u32, u32)>) -> (String, i32) {
        use std::os::unix::process::ExitStatusExt;
        let argv: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
        let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into();
        let input = InputOptions::File("/dev/null".into());
        let spec = Spec {
            terminal: None,
            argv: &argv,
            env,
            input: &input,
            dir: &Dir::default(),
            limits: &Limits::default(),
            process_group: true,
            pmi,
            cpus: None,
            unbound: None,
            oom_adjust: Some(777),
            before_exec: None,
            stopped: false,
        };
        let mut started = start(spec).unwrap();
        let mut text = String::new();
        started
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .await
            .unwrap();
        (text, started.child.wait().await.unwrap().into_raw())
    }

    #[tokio::test]
    async fn the_oom_score_is_set_before_the_program_runs() {
        let (text, _) = run(&["cat", "/proc/self/oom_score_adj"], None).await;
        assert_eq!(text, "777\n");
        let ours = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let pid = std::process::id() as i32;
        assert!(has_oom_score(pid, ours.trim().parse().unwrap()));
        assert!(!has_oom_score(pid, -1000));
        assert!(
            has_oom_score(i32::MAX, 5),
            "a task that has ended needs none"
        );
    }

    #[tokio::test]
    async fn tasks_run() {
        assert_eq!(
            run(&["sh", "-c", "echo $0 $1; exit 3", "a", "b"], None).await,
            ("a b\n".into(), 768)
        );
        assert_eq!(
            run(&["sh", "-c", "kill -9 $$"], None).await,
            (String::new(), 9)
        );
        let (text, _) = run(
            &[
                "sh",
                "-c",
                "echo $PMI_RANK $PMI_SIZE; test -S /dev/fd/$PMI_FD && echo ok",
            ],
            Some((2, 5)),
        )
        .await;
        assert_eq!(text, "2 5\nok\n");
        // The process group is the task's own.
        let (text, _) = run(&["sh", "-c", "ps -o pgid= -p $$; echo $$"], None).await;
        let ids: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(ids[0], ids[1]);
    }

    #[tokio::test]
    async fn scripts_without_interpreter_line() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("s");
        std::fs::write(&script, "echo hello $1\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            run(&[script.to_str().unwrap(), "x"], None).await,
            ("hello x\n".into(), 0)
        );
    }
}
