//! One process: started, fed, signalled, read to its end.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use formats::subprocess;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use wire::RpcError;

use crate::survivors;

const READ_CHUNK: usize = 16 * 1024;

/// What can be asked of a running process.
#[derive(Debug)]
pub(crate) enum Control {
    /// Write to stdin or a channel, by name.
    Input(Arc<str>, Bytes),
    /// Close it.
    CloseInput(Arc<str>),
    /// Signal its process group.
    Signal(i32),
}

/// What a process reports. `Output` with empty data is the end of that stream.
#[derive(Debug)]
pub(crate) enum Report {
    Output(Stream, Bytes),
    /// So many bytes of input have been taken by the process's pipe of that name.
    Consumed(Arc<str>, usize),
    /// It was found again some time ago: if nobody has asked for it, nobody will.
    Unclaimed,
    /// It ended; always the last report.
    Finished(i32),
}

/// An output stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    /// An auxiliary channel.
    Channel(Arc<str>),
}

impl Stream {
    pub(crate) fn name(&self) -> &str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Channel(name) => name,
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
    /// One that has ended before it was known here.
    pub(crate) fn gone(pid: i32) -> Self {
        let (control, _) = unbounded_channel();
        Self { pid, control }
    }

    /// Ask for something; false when the process has ended.
    pub(crate) fn ask(&self, control: Control) -> bool {
        self.control.send(control).is_ok()
    }
}

/// Why it did not start: errno and text.
fn spawn_error(cmd: &subprocess::Command, e: &std::io::Error) -> RpcError {
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
    cmd: &subprocess::Command,
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
    let channels = cmd
        .channels
        .iter()
        .map(|name| Channel::new(name, &mut command))
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut child = command.spawn().map_err(|e| spawn_error(cmd, &e))?;
    // It holds the ends of the channels that are now the child's.
    drop(command);
    let pid = child.id().unwrap_or_default() as i32;
    let (control, rx) = unbounded_channel();
    let mut inputs = Inputs::new(key, reports.clone());
    let mut readers = Vec::new();
    let mut read_from = |stream, pipe: Box<dyn AsyncRead + Unpin + Send>| {
        readers.push(tokio::spawn(read(key, stream, pipe, reports.clone())));
    };
    if let Some(pipe) = child.stdin.take() {
        inputs.add("stdin".into(), pipe);
    }
    if let Some(pipe) = child.stdout.take() {
        read_from(Stream::Stdout, Box::new(pipe));
    }
    if let Some(pipe) = child.stderr.take() {
        read_from(Stream::Stderr, Box::new(pipe));
    }
    for Channel { name, end } in channels {
        let (from, to) = end.into_split();
        read_from(Stream::Channel(name.clone()), Box::new(from));
        if !manner.no_input {
            inputs.add(name, to);
        }
    }
    tokio::spawn(async move {
        // What is signalled: its group, or the process alone.
        let target = if manner.no_setpgrp { pid } else { -pid };
        let status = attend(child, target, inputs, rx).await;
        // Output first, so that `finished` is the last word. A reader that failed has ended.
        for reader in readers {
            let _ = reader.await;
        }
        // The module is gone when nobody takes reports any more.
        let _ = reports.send((key, Report::Finished(status))).await;
    });
    Ok(Process { pid, control })
}

/// Take over a process that an earlier broker has started; its end is reported under `key`, and before that, should
/// `patience` be over, [`Report::Unclaimed`].
pub(crate) fn adopt(
    key: u64,
    pid: i32,
    fd: OwnedFd,
    record: PathBuf,
    patience: Duration,
    reports: Reports,
) -> std::io::Result<Process> {
    let fd = survivors::watch(fd)?;
    let (control, mut rx) = unbounded_channel();
    tokio::spawn(async move {
        let mut unclaimed = std::pin::pin!(tokio::time::sleep(patience));
        let mut is_new = true;
        loop {
            tokio::select! {
                () = survivors::ended(&fd) => break,
                () = &mut unclaimed, if is_new => {
                    is_new = false;
                    // The module is gone when nobody takes reports any more.
                    let _ = reports.send((key, Report::Unclaimed)).await;
                }
                Some(control) = rx.recv() => match control {
                    // Its streams went with the earlier broker.
                    Control::Input(..) | Control::CloseInput(_) => {}
                    Control::Signal(signum) => survivors::signal(fd.get_ref(), pid, signum),
                },
            }
        }
        let status = survivors::status(&record);
        let _ = reports.send((key, Report::Finished(status))).await;
    });
    Ok(Process { pid, control })
}

/// Our end of an auxiliary channel; the child finds the number of its own in the environment.
struct Channel {
    name: Arc<str>,
    end: UnixStream,
}

impl Channel {
    fn new(name: &str, command: &mut Command) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        command.env(name, theirs.as_raw_fd().to_string());
        // SAFETY: fcntl is async-signal-safe; the closure keeps the descriptor open until the fork.
        unsafe {
            command.pre_exec(
                move || match libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) {
                    0.. => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
        Ok(Self {
            name: name.into(),
            end: UnixStream::from_std(ours)?,
        })
    }
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
                        .send((key, Report::Output(stream.clone(), piece)))
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
        let _ = reports
            .send((key, Report::Output(stream.clone(), piece)))
            .await;
    }
}

/// Bytes at the end of `buf` that begin, but do not complete, a UTF-8 character.
fn incomplete_utf8(buf: &[u8]) -> usize {
    match std::str::from_utf8(buf) {
        Err(e) if e.error_len().is_none() => buf.len() - e.valid_up_to(),
        _ => 0,
    }
}

/// What a process can be fed through, by name.
struct Inputs {
    key: u64,
    reports: Reports,
    queues: HashMap<Arc<str>, UnboundedSender<Bytes>>,
    feeders: JoinSet<()>,
}

impl Inputs {
    fn new(key: u64, reports: Reports) -> Self {
        Self {
            key,
            reports,
            queues: HashMap::new(),
            feeders: JoinSet::new(),
        }
    }

    /// Feed `pipe` until it fails or is closed.
    fn add(&mut self, name: Arc<str>, mut pipe: impl AsyncWrite + Unpin + Send + 'static) {
        let (queue, mut input) = unbounded_channel::<Bytes>();
        let (key, reports) = (self.key, self.reports.clone());
        self.queues.insert(name.clone(), queue);
        self.feeders.spawn(async move {
            while let Some(data) = input.recv().await {
                // A process may end without reading its input.
                if pipe.write_all(&data).await.is_err() {
                    break;
                }
                let report = (key, Report::Consumed(name.clone(), data.len()));
                if reports.send(report).await.is_err() {
                    break;
                }
            }
        });
    }

    fn write(&self, name: &str, data: Bytes) {
        if let Some(queue) = self.queues.get(name) {
            // The feeder is gone when the process has closed its input.
            let _ = queue.send(data);
        }
    }

    fn close(&mut self, name: &str) {
        self.queues.remove(name);
    }
}

/// Carry out what is asked until the process has ended; returns its wait status.
async fn attend(
    mut child: Child,
    target: i32,
    mut inputs: Inputs,
    mut rx: UnboundedReceiver<Control>,
) -> i32 {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(control) = rx.recv() => match control {
                Control::Input(name, data) => inputs.write(&name, data),
                Control::CloseInput(name) => inputs.close(&name),
                // SAFETY: the child is not reaped yet, so its id and its group's are still its own.
                Control::Signal(signum) => drop(unsafe { libc::kill(target, signum) }),
            },
        }
    };
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
        run_with(words, &[], "stdin", input, &Stream::Stdout).await
    }

    /// Run a command, feed it through `name` and gather what comes from `wanted`.
    async fn run_with(
        words: &[&str],
        channels: &[&str],
        name: &str,
        input: Option<&'static [u8]>,
        wanted: &Stream,
    ) -> (Vec<u8>, i32) {
        let cmd = subprocess::Command {
            cmdline: words.iter().map(|w| (*w).to_owned()).collect(),
            env: std::env::vars().collect(),
            channels: channels.iter().map(|c| (*c).to_owned()).collect(),
            ..Default::default()
        };
        let (tx, mut rx) = channel(1);
        let process = start(7, &cmd, Manner::default(), tx).unwrap();
        if let Some(data) = input {
            assert!(process.ask(Control::Input(name.into(), Bytes::from_static(data))));
            assert!(process.ask(Control::CloseInput(name.into())));
        }
        let mut out = Vec::new();
        loop {
            match rx.recv().await.unwrap() {
                (7, Report::Output(stream, data)) if stream == *wanted => {
                    out.extend_from_slice(&data);
                }
                (_, Report::Output(..) | Report::Consumed(..) | Report::Unclaimed) => {}
                (_, Report::Finished(status)) => return (out, status),
            }
        }
    }

    #[tokio::test]
    async fn channels_go_both_ways() {
        let copy = ["bash", "-c", "eval \"cat <&$A >&$B\"; echo $A >&2"];
        let b = Stream::Channel("B".into());
        let (out, status) = run_with(&copy, &["A", "B"], "A", Some(b"data"), &b).await;
        assert_eq!((out.as_slice(), status), (&b"data"[..], 0));
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
        let cmd = |line: &[&str], cwd: Option<&str>| subprocess::Command {
            cmdline: line.iter().map(|w| (*w).to_owned()).collect(),
            cwd: cwd.map(str::to_owned),
            ..Default::default()
        };
        let fail = |c: subprocess::Command| {
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
