//! A program the broker has started: waiting for it, telling it to end, and what its end is called.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::watch;

/// Tells programs to end, with a signal. Dropping it says nothing.
pub(crate) struct Abort(watch::Sender<Option<i32>>);

/// The programs' side of an [`Abort`].
#[derive(Clone)]
pub(crate) struct Aborted(watch::Receiver<Option<i32>>);

/// Both ends.
pub(crate) fn abort() -> (Abort, Aborted) {
    let (tx, rx) = watch::channel(None);
    (Abort(tx), Aborted(rx))
}

impl Abort {
    /// Signal what runs now; what has not been started is not.
    pub(crate) fn send(&self, signum: i32) {
        // Nobody listens once the last program has ended.
        let _ = self.0.send(Some(signum));
    }
}

impl Aborted {
    /// The signal of the next abort; for ever if there is none.
    pub(crate) async fn signalled(&mut self) -> i32 {
        loop {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(signum) = *self.0.borrow_and_update() {
                return signum;
            }
        }
    }

    /// Whether there was one.
    pub(crate) fn is_over(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Wait for a child's end; each abort signals it, through `signal`.
    pub(crate) async fn wait(
        &mut self,
        child: &mut Child,
        signal: impl Fn(u32, i32),
    ) -> std::io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                signum = self.signalled() => {
                    if let Some(pid) = child.id() {
                        signal(pid, signum);
                    }
                }
            }
        }
    }
}

/// How a program ended, as the log and the exit code say it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// As a shell reports it.
    pub(crate) code: i32,
    pub(crate) how: String,
}

impl Ended {
    /// Of a program that was started, or was not. One that was told to end has failed.
    pub(crate) fn of(status: std::io::Result<ExitStatus>, aborted: bool) -> Self {
        match status {
            Ok(status) if status.success() && aborted => Self {
                code: 1,
                how: "was told to end, and Exited with rc=0".to_owned(),
            },
            Ok(status) => Self {
                code: exit_code(status),
                how: match status.signal() {
                    Some(signum) => formats::signals::describe(signum),
                    None => "Exited".to_owned(),
                },
            },
            Err(e) => Self {
                code: spawn_error_code(&e),
                how: e.to_string(),
            },
        }
    }

    /// Entry for the log, with its level: `rc2.0: true Exited (rc=0) 0.1s`.
    pub(crate) fn entry(&self, label: &str, line: &str, time: Duration) -> (i32, String) {
        let level = match self.code {
            0 => libc::LOG_INFO,
            _ => libc::LOG_ERR,
        };
        let (how, code, seconds) = (&self.how, self.code, time.as_secs_f64());
        let text = format!("{label}: {line} {how} (rc={code}) {seconds:.1}s");
        (level, text)
    }
}

/// The code, or 128 plus the signal.
fn exit_code(status: ExitStatus) -> i32 {
    let signal = status.signal().map(|s| 128 + s);
    status.code().or(signal).unwrap_or(1)
}

/// For a program that could not be started: 127 not found, 126 otherwise.
fn spawn_error_code(err: &std::io::Error) -> i32 {
    match err.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let ended = |raw, aborted| {
            let ended = Ended::of(Ok(ExitStatus::from_raw(raw)), aborted);
            ended.entry("rc2.0", "x", Duration::from_millis(140))
        };
        assert_eq!(
            ended(0, false),
            (libc::LOG_INFO, "rc2.0: x Exited (rc=0) 0.1s".into())
        );
        assert_eq!(ended(3 << 8, true).1, "rc2.0: x Exited (rc=3) 0.1s");
        assert_eq!(
            ended(libc::SIGHUP, true),
            (libc::LOG_ERR, "rc2.0: x Hangup (rc=129) 0.1s".into())
        );
        assert!(ended(0, true).1.ends_with("(rc=1) 0.1s"));
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(Ended::of(Err(missing), false).code, 127);
    }
}
