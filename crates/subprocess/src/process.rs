//! One process: started, fed, signalled, read to its end.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
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
    Output(&'static str, Bytes),
    /// So many bytes of input have been taken by the process's pipe.
    Consumed(usize),
    Finished(i32),
}

/// A started process.
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) control: UnboundedSender<Control>,
    gate: watch::Sender<bool>,
}

impl Process {
    /// Let it report: whoever started it has announced it by now.
    pub(crate) fn begin(&self) {
        self.gate.send_replace(true);
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

/// Start `cmd`; after [`Process::begin`], `report` is called with all that follows, from tasks of
/// their own.
pub(crate) fn start(
    cmd: &protocol::Command,
    report: impl Fn(Report) + Clone + Send + Sync + 'static,
) -> Result<Process, RpcError> {
    let (program, args) = cmd
        .cmdline
        .split_first()
        .ok_or_else(|| RpcError::new(libc::EINVAL, "cmd.cmdline: must not be empty"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(&cmd.env)
        .process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(dir) = &cmd.cwd {
        command.current_dir(dir);
    }
    let mut child = command.spawn().map_err(|e| spawn_error(cmd, &e))?;
    let pid = child.id().unwrap_or_default() as i32;
    let (control, rx) = unbounded_channel();
    let stdin = child.stdin.take();
    // Both were asked for as pipes just above.
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (gate, opened) = watch::channel(false);
    let out = tokio::spawn(read("stdout", stdout, opened.clone(), report.clone()));
    let err = tokio::spawn(read("stderr", stderr, opened.clone(), report.clone()));
    tokio::spawn(async move {
        let consumed = report.clone();
        let status = attend(child, pid, stdin, rx, move |n| {
            consumed(Report::Consumed(n))
        })
        .await;
        // Output first, so that `finished` is the last word.
        let _ = tokio::join!(out, err);
        wait_open(opened).await;
        report(Report::Finished(status));
    });
    Ok(Process { pid, control, gate })
}

/// Wait for [`Process::begin`].
async fn wait_open(mut opened: watch::Receiver<bool>) {
    // An error means that the process was dropped without begin: nobody listens, go on.
    let _ = opened.wait_for(|open| *open).await;
}

async fn read(
    name: &'static str,
    mut from: impl AsyncRead + Unpin,
    opened: watch::Receiver<bool>,
    report: impl Fn(Report),
) {
    wait_open(opened).await;
    let mut buf = BytesMut::new();
    loop {
        buf.reserve(READ_CHUNK);
        match from.read_buf(&mut buf).await {
            Ok(n) if n > 0 => {
                // Keep a character that is cut in two for the next piece.
                let keep = incomplete_utf8(&buf);
                let piece = buf.split_to(buf.len() - keep).freeze();
                if !piece.is_empty() {
                    report(Report::Output(name, piece));
                }
            }
            // A failing pipe is an ended one.
            _ => break,
        }
    }
    if !buf.is_empty() {
        report(Report::Output(name, buf.freeze()));
    }
    report(Report::Output(name, Bytes::new()));
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
    pid: i32,
    mut stdin: Option<ChildStdin>,
    mut rx: UnboundedReceiver<Control>,
    consumed: impl Fn(usize) + Send + 'static,
) -> i32 {
    let (input_tx, mut input_rx) = unbounded_channel::<Option<Bytes>>();
    let feeder = tokio::spawn(async move {
        while let Some(Some(data)) = input_rx.recv().await {
            let Some(pipe) = &mut stdin else { break };
            // A process may end without reading its input.
            if pipe.write_all(&data).await.is_err() {
                break;
            }
            consumed(data.len());
        }
    });
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(control) = rx.recv() => match control {
                // The feeder is gone when the process has closed its input.
                Control::Input(data) => drop(input_tx.send(Some(data))),
                Control::CloseInput => drop(input_tx.send(None)),
                // SAFETY: the child is not reaped yet, so its group id is still its own.
                Control::Signal(signum) => drop(unsafe { libc::killpg(pid, signum) }),
            },
        }
    };
    feeder.abort();
    status.map_or(127 << 8, ExitStatusExt::into_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (tx, mut rx) = unbounded_channel();
        let process = start(&cmd, move |r| drop(tx.send(r))).unwrap();
        process.begin();
        if let Some(data) = input {
            process
                .control
                .send(Control::Input(Bytes::from_static(data)))
                .unwrap();
            process.control.send(Control::CloseInput).unwrap();
        }
        let mut out = Vec::new();
        loop {
            match rx.recv().await.unwrap() {
                Report::Output("stdout", data) => out.extend_from_slice(&data),
                Report::Output(..) | Report::Consumed(_) => {}
                Report::Finished(status) => return (out, status),
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
        let fail = |c: protocol::Command| start(&c, |_| {}).err().unwrap();
        assert_eq!(fail(cmd(&[], None)).errno, libc::EINVAL);
        assert_eq!(fail(cmd(&["/no/such"], None)).errno, libc::ENOENT);
        assert_eq!(fail(cmd(&["/"], None)).errno, libc::EACCES);
        assert!(
            fail(cmd(&["/bin/true"], Some("/nowhere")))
                .to_string()
                .contains("/nowhere")
        );
    }
}
