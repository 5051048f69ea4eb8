//! One process: started, fed, signalled, read to its end.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::RpcError;

use crate::protocol;

const READ_CHUNK: usize = 16 * 1024;

/// What can be asked of a running process.
#[derive(Debug)]
pub(crate) enum Control {
    /// Write to stdin.
    Input(Bytes),
    /// Close stdin.
    CloseInput,
    /// Signal its process group.
    Signal(i32),
}

/// What a process reports. `Output` with empty data is the end of that stream.
#[derive(Debug)]
pub(crate) enum Report {
    Output(Stream, Bytes),
    /// So many bytes of input have been taken by the process's pipe.
    Consumed(usize),
    /// It ended; always the last report.
    Finished(i32),
}

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What a process reports, with the key it was started under. The channel is bounded: a process
/// that writes faster than its reports are taken waits in its pipe.
pub(crate) type Reports = Sender<(u64, Report)>;

/// How to start a process besides what it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Use the server's own streams.
    pub(crate) fallthrough: bool,
    /// Stay in the server's process group and be signalled alone.
    pub(crate) no_setpgrp: bool,
    /// No input: its end comes at once.
    pub(crate) no_input: bool,
}

/// A started process.
pub(crate) struct Process {
    pub(crate) pid: i32,
    control: UnboundedSender<Control>,
}

impl Process {
    /// Ask for something; false when the process has ended.
    pub(crate) fn ask(&self, control: Control) -> bool {
        self.control.send(control).is_ok()
    }
}

/// Why it did not start: errno and text.
fn spawn_error(cmd: &protocol::Command, e: &std::io::Error) -> RpcError {
    let errno = e.raw_os_error().unwrap_or(libc::EIO);
    let name = cmd.cmdline.first().map_or("", String::as_str);
    if let Some(dir) = cmd
        .cwd
        .as_deref()
        .filter(|dir| !std::path::Path::new(dir).is_dir())
    {
        return RpcError::new(
            errno,
            format!("{dir}: cannot enter directory: {}", wire::strerror(errno)),
        );
    }
    RpcError::new(errno, format!("{name}: {}", wire::strerror(errno)))
}

/// Start `cmd`; what follows is reported under `key`.
pub(crate) fn start(
    key: u64,
    cmd: &protocol::Command,
    manner: Manner,
    reports: Reports,
) -> Result<Process, RpcError> {
    let (program, args) = cmd
        .cmdline
        .split_first()
        .ok_or_else(|| RpcError::new(libc::EPROTO, "cmd.cmdline: must not be empty"))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&cmd.env);
    if !manner.no_setpgrp {
        command.process_group(0);
    }
    let stdio = || match manner.fallthrough {
        true => Stdio::inherit(),
        false => Stdio::piped(),
    };
    command.stdout(stdio()).stderr(stdio());
    command.stdin(if manner.no_input {
        Stdio::null()
    } else {
        stdio()
    });
    if let Some(dir) = &cmd.cwd {
        command.current_dir(dir);
    }
    let mut child = command.spawn().map_err(|e| spawn_error(cmd, &e))?;
    let pid = child.id().unwrap_or_default() as i32;
    let (control, rx) = unbounded_channel();
    let stdin = child.stdin.take();
    let out = child
        .stdout
        .take()
        .map(|pipe| tokio::spawn(read(key, Stream::Stdout, pipe, reports.clone())));
    let err = child
        .stderr
        .take()
        .map(|pipe| tokio::spawn(read(key, Stream::Stderr, pipe, reports.clone())));
    tokio::spawn(async move {
        // What is signalled: its group, or the process alone.
        let target = if manner.no_setpgrp { pid } else { -pid };
        let status = attend(child, target, stdin, rx, key, &reports).await;
        // Output first, so that `finished` is the last word. A reader that failed has ended.
        for reader in [out, err].into_iter().flatten() {
            let _ = reader.await;
        }
        // The module is gone when nobody takes reports any more.
        let _ = reports.send((key, Report::Finished(status))).await;
    });
    Ok(Process { pid, control })
}

async fn read(key: u64, stream: Stream, mut from: impl AsyncRead + Unpin, reports: Reports) {
    let mut buf = BytesMut::new();
    loop {
        buf.reserve(READ_CHUNK);
        match from.read_buf(&mut buf).await {
            Ok(n) if n > 0 => {
                // Keep a character that is cut in two for the next piece.
                let keep = incomplete_utf8(&buf);
                let piece = buf.split_to(buf.len() - keep).freeze();
                if !piece.is_empty()
                    && reports
                        .send((key, Report::Output(stream, piece)))
                        .await
                        .is_err()
                {
                    return;
                }
            }
            // A failing pipe is an ended one.
            _ => break,
        }
    }
    let rest = (!buf.is_empty()).then(|| buf.freeze());
    for piece in rest.into_iter().chain([Bytes::new()]) {
        // Nobody listens when the module has ended.
        let _ = reports.send((key, Report::Output(stream, piece))).await;
    }
}

/// Bytes at the end of `buf` that begin, but do not complete, a UTF-8 character.
fn incomplete_utf8(buf: &[u8]) -> usize {
    match std::str::from_utf8(buf) {
        Err(e) if e.error_len().is_none() => buf.len() - e.valid_up_to(),
        _ => 0,
    }
}

/// Carry out what is asked until the process has ended; returns its wait status.
async fn attend(
    mut child: Child,
    target: i32,
    mut stdin: Option<ChildStdin>,
    mut rx: UnboundedReceiver<Control>,
    key: u64,
    reports: &Reports,
) -> i32 {
    let (input_tx, mut input_rx) = unbounded_channel::<Option<Bytes>>();
    let consumed = reports.clone();
    let feeder = tokio::spawn(async move {
        while let Some(Some(data)) = input_rx.recv().await {
            let Some(pipe) = &mut stdin else { break };
            // A process may end without reading its input.
            if pipe.write_all(&data).await.is_err() {
                break;
            }
            let report = (key, Report::Consumed(data.len()));
            if consumed.send(report).await.is_err() {
                break;
            }
        }
    });
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(control) = rx.recv() => match control {
                // The feeder is gone when the process has closed its input.
                Control::Input(data) => drop(input_tx.send(Some(data))),
                Control::CloseInput => drop(input_tx.send(None)),
                // SAFETY: the child is not reaped yet, so its id and its group's are still its own.
                Control::Signal(signum) => drop(unsafe { libc::kill(target, signum) }),
            },
        }
    };
    feeder.abort();
    status.map_or(127 << 8, ExitStatusExt::into_raw)
}

/// Whether `pid` was stopped by a signal since this was asked last.
pub(crate) fn was_stopped(pid: i32) -> bool {
    // SAFETY: an all-zero siginfo_t is a valid one, and it is written by waitid only. Exits are
    // not asked for, so nobody else's wait is disturbed.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WSTOPPED | libc::WNOHANG;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0 && info.si_pid() == pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::channel;

    #[test]
    fn cut_characters_are_kept_back() {
        let text = "aß€😀".as_bytes();
        for cut in 0..=text.len() {
            let keep = incomplete_utf8(&text[..cut]);
            assert!(std::str::from_utf8(&text[..cut - keep]).is_ok(), "{cut}");
        }
        assert_eq!(incomplete_utf8(b"\xff\xfe"), 0);
    }

    async fn run(words: &[&str], input: Option<&'static [u8]>) -> (Vec<u8>, i32) {
        let cmd = protocol::Command {
            cmdline: words.iter().map(|w| (*w).to_owned()).collect(),
            env: std::env::vars().collect(),
            ..Default::default()
        };
        let (tx, mut rx) = channel(1);
        let process = start(7, &cmd, Manner::default(), tx).unwrap();
        if let Some(data) = input {
            assert!(process.ask(Control::Input(Bytes::from_static(data))));
            assert!(process.ask(Control::CloseInput));
        }
        let mut out = Vec::new();
        loop {
            match rx.recv().await.unwrap() {
                (7, Report::Output(Stream::Stdout, data)) => out.extend_from_slice(&data),
                (_, Report::Output(..) | Report::Consumed(_)) => {}
                (_, Report::Finished(status)) => return (out, status),
            }
        }
    }

    #[tokio::test]
    async fn processes_end_with_their_status_after_their_output() {
        assert_eq!(run(&["echo", "hi"], None).await, (b"hi\n".to_vec(), 0));
        assert_eq!(run(&["cat"], Some(b"data")).await, (b"data".to_vec(), 0));
        assert_eq!(
            run(&["sh", "-c", "exit 3"], None).await,
            (Vec::new(), 3 << 8)
        );
        assert_eq!(
            run(&["sh", "-c", "kill -TERM $$"], None).await,
            (Vec::new(), 15)
        );
    }

    #[tokio::test]
    async fn what_cannot_start_says_why() {
        let cmd = |line: &[&str], cwd: Option<&str>| protocol::Command {
            cmdline: line.iter().map(|w| (*w).to_owned()).collect(),
            cwd: cwd.map(str::to_owned),
            ..Default::default()
        };
        let fail = |c: protocol::Command| {
            let (tx, _rx) = channel(1);
            start(1, &c, Manner::default(), tx).err().unwrap()
        };
        assert_eq!(fail(cmd(&[], None)).errno, libc::EPROTO);
        assert_eq!(fail(cmd(&["/no/such"], None)).errno, libc::ENOENT);
        assert_eq!(fail(cmd(&["/"], None)).errno, libc::EACCES);
        assert!(
            fail(cmd(&["/bin/true"], Some("/nowhere")))
                .to_string()
                .contains("/nowhere")
        );
    }
}
