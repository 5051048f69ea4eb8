//! Running a command to its end, with a deadline for it and for all it has started.
//!
//! Invariant: when [`run`] returns, nobody holds the command's output open, and no process whose
//! environment has the marker is alive; if that took force, it does not return but panics.

use std::fmt;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Outcome {
    line: String,
    status: Option<ExitStatus>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "command: {}", self.line)?;
        match self.status {
            Some(status) => writeln!(f, "ended: {status}")?,
            None => writeln!(f, "ended: no, it was killed at its deadline")?,
        }
        writeln!(
            f,
            "--- stdout\n{}--- stderr\n{}---",
            self.stdout, self.stderr
        )
    }
}

impl Outcome {
    /// Exit code as a shell has it: 128 and the signal's number for one ended by a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        let status = self.status.expect("only ended commands are handed out");
        let signal = status.signal().map(|signal| 128 + signal);
        signal
            .or(status.code())
            .expect("an ended process has either")
    }

    /// Fails the test unless the exit code is the one given.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit code\n{self}");
        self
    }

    /// Fails the test unless the command succeeded.
    pub fn success(self) -> Self {
        self.expect_code(0)
    }

    /// Fails the test unless standard output is the one given.
    pub fn expect_stdout(self, expected: &str) -> Self {
        assert_eq!(self.stdout, expected, "standard output\n{self}");
        self
    }

    /// Fails the test unless standard error is one line that has `words` in it.
    pub fn expect_error_line(self, words: &[&str]) -> Self {
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "lines of standard error\n{self}");
        for word in words {
            assert!(
                lines[0].contains(word),
                "{word:?} is not in the error\n{self}"
            );
        }
        self
    }

    /// Fails the test unless some line of standard error has all `words` in it.
    pub fn expect_error(self, words: &[&str]) -> Self {
        let fits = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(
            self.stderr.lines().any(fits),
            "no line of standard error has {words:?}\n{self}"
        );
        self
    }

    /// Standard output, line by line.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// Read all of a stream in a thread.
fn drain(stream: impl Read + Send + 'static) -> (JoinHandle<String>, Receiver<()>) {
    let (done, at_end) = channel();
    let thread = std::thread::spawn(move || {
        let mut stream = stream;
        let mut bytes = Vec::new();
        // What cannot be read any more is as good as ended; the command's status tells the rest.
        let _ = stream.read_to_end(&mut bytes);
        let _ = done.send(());
        String::from_utf8_lossy(&bytes).into_owned()
    });
    (thread, at_end)
}

/// Wait for the end of a process in a thread.
fn reap(mut child: Child) -> (JoinHandle<ExitStatus>, Receiver<()>) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        let status = child.wait().expect("a child that is waited for once");
        let _ = done.send(());
        status
    });
    (thread, ended)
}

/// Live processes, other than this one, that have the marker in their environment.
fn marked(marker: &str) -> Vec<(i32, String)> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
    {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Processes of others cannot be read, dead ones have nothing to read.
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let has = environ
            .split(|b| *b == 0)
            .any(|var| var == marker.as_bytes());
        if has && pid.cast_unsigned() != own {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push((pid, words));
        }
    }
    found
}

fn kill_marked(marker: &str) {
    for (pid, _) in marked(marker) {
        // One that is gone by now needs no signal.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Run `command`; `marker` is the `NAME=VALUE` in its environment that marks its descendants.
pub(crate) fn run(mut command: Command, deadline: Duration, marker: &str) -> Outcome {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    let line = words.join(" ");

    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0);
    let end = Instant::now() + deadline;
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    let group = Pid::from_raw(child.id().cast_signed());
    let (stdout, stdout_ended) = drain(child.stdout.take().expect("it is a pipe"));
    let (stderr, stderr_ended) = drain(child.stderr.take().expect("it is a pipe"));
    let (status, ended) = reap(child);

    let in_time = [ended, stdout_ended, stderr_ended].iter().all(|event| {
        let left = end.saturating_duration_since(Instant::now());
        event.recv_timeout(left).is_ok()
    });
    let remains = marked(marker);
    if !in_time {
        // The group may be gone; then its members are too.
        let _ = killpg(group, Signal::SIGKILL);
    }
    kill_marked(marker);
    let status = status.join().expect("waiting does not panic");
    let outcome = Outcome {
        line,
        status: in_time.then_some(status),
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    };
    assert!(
        in_time,
        "not done after {deadline:?}; still there: {remains:#?}\n{outcome}"
    );
    assert!(
        remains.is_empty(),
        "processes are left behind: {remains:#?}\n{outcome}"
    );
    outcome
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::process::Command;
    use std::time::Duration;

    use super::{marked, run};

    fn sh(script: &str, marker: &str) -> Command {
        let (name, value) = marker.split_once('=').unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(name, value);
        command
    }

    #[test]
    fn status_and_output_are_collected() {
        let marker = "E2E_SELF=collect";
        let outcome = run(
            sh("echo a; echo b >&2; exit 3", marker),
            Duration::from_secs(30),
            marker,
        );
        assert_eq!(outcome.stdout, "a\n");
        outcome.expect_code(3).expect_error_line(&["b"]);
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let marker = "E2E_SELF=hang";
        let hang = || {
            run(
                sh("setsid sleep 1000", marker),
                Duration::from_millis(200),
                marker,
            )
        };
        let panic = catch_unwind(hang).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("not done after"), "{text}");
        assert!(marked(marker).is_empty());
    }

    #[test]
    fn a_process_that_is_left_behind_is_found_and_killed() {
        let marker = "E2E_SELF=leave";
        // A process shows no environment while it executes a program: wait until it is there.
        let script = "setsid sleep 1000 >/dev/null 2>&1 &
            until grep -qs sleep /proc/$!/comm && grep -qs E2E_SELF /proc/$!/environ; do :; done";
        let leave = || run(sh(script, marker), Duration::from_secs(30), marker);
        let panic = catch_unwind(leave).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("processes are left behind"), "{text}");
    }
}
