//! The client's end of a session: this program's terminal stands in for the session's.

use std::io::{self, Write as _};
use std::time::Duration;

use client::{Handle, Node, Rpc, RpcStream};
use nix::sys::termios::{
    SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use wire::{Message, RpcError};

use crate::protocol::{Data, Mode, Request, Response, WinSize};
use crate::pty::own_size;

/// The key that detaches: control and backslash.
const DETACH: u8 = 0x1c;
/// How often the server is asked for a sign of life: a session that vanished says nothing by itself.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// `_POSIX_VDISABLE` of Linux.
const DISABLED: u8 = 0;

/// How to attach.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Standard input is written to the session, and that is all.
    pub pipe: bool,
    /// Begin with an empty screen.
    pub clear: bool,
    /// Say why the session has been left.
    pub say_detached: bool,
}

/// How an attachment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// There was no such session, or it would not have this client.
    Refused(RpcError),
    /// The session is over, or left; the wait status of what ran.
    Exited(i32),
    /// The session or the way to it is gone.
    Lost(String),
}

impl End {
    fn lost(e: &RpcError) -> End {
        End::Lost(match e.errno {
            libc::ENOSYS | libc::EHOSTUNREACH => "remote pty disappeared".into(),
            _ => format!("remote pty: {e}"),
        })
    }
}

/// The terminal on standard input in raw mode, until this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    /// Nothing changes if standard input is no terminal.
    fn enter() -> Raw {
        let stdin = io::stdin();
        let Ok(before) = tcgetattr(&stdin) else {
            return Raw(None);
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.control_chars[SpecialCharacterIndices::VLNEXT as usize] = DISABLED;
        raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        match tcsetattr(&stdin, SetArg::TCSANOW, &raw) {
            Ok(()) => Raw(Some(before)),
            Err(_) => Raw(None),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            // Nothing helps a terminal that cannot be set back.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
            // The program may have hidden the cursor.
            show("\x1b[?25h");
        }
    }
}

/// What goes to a terminal that is gone is lost.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn show_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes);
    let _ = out.flush();
}

struct Client<'a> {
    handle: &'a Handle,
    node: Node,
    topic: &'a str,
    manner: Manner,
    raw: Option<Raw>,
    /// The write or sign of life under way; further input waits for it.
    write: Option<Rpc>,
    /// The session has been asked to let this client go.
    left: bool,
    exit: Option<(String, i32)>,
}

/// Attach to the session at `topic` (SERVICE.ID) and stay until it is over or left.
///
/// `input` is what standard input has; it is asked for only once the client is attached.
pub async fn attach(
    handle: &Handle,
    node: Node,
    topic: &str,
    manner: Manner,
    input: impl FnOnce() -> Receiver<Vec<u8>>,
) -> io::Result<End> {
    let mode = if manner.pipe {
        Mode::WriteOnly
    } else {
        Mode::ReadWrite
    };
    let winsize = own_size().unwrap_or(WinSize { rows: 1, cols: 1 });
    let request = Request::Attach {
        mode,
        winsize: Some(winsize),
    };
    let mut answers = handle.stream(topic, node, &request);
    match first(&mut answers).await {
        Ok(()) => {}
        Err(e) => return Ok(End::Refused(e)),
    }
    let mut client = Client {
        handle,
        node,
        topic,
        manner,
        raw: (!manner.pipe).then(Raw::enter),
        write: None,
        left: false,
        exit: None,
    };
    if manner.clear {
        show("\x1b[2J\x1b[;H");
    }
    let end = client.serve(&mut answers, input()).await?;
    if manner.say_detached {
        let why = match (&end, &client.exit) {
            (End::Lost(why), _) => why,
            (_, Some((message, _))) => message,
            _ => "unknown reason",
        };
        show(&format!("\x1b[999H[detached: {why}]\x1b[K\n\r"));
    }
    drop(client.raw.take());
    Ok(end)
}

async fn first(answers: &mut RpcStream) -> Result<(), RpcError> {
    let msg = answers
        .next()
        .await
        .unwrap_or_else(|| Err(RpcError::errno(libc::ENODATA)))?;
    match msg.json()? {
        Response::Attach => Ok(()),
        other => Err(RpcError::proto(format!("{other:?} in answer to attach"))),
    }
}

impl Client<'_> {
    fn ask(&self, request: &Request) -> Rpc {
        self.handle.rpc(self.topic, self.node, request)
    }

    fn leave(&mut self) {
        self.left = true;
        // The session answers by ending the stream.
        self.handle.notify(self.topic, self.node, &Request::Detach);
    }

    async fn serve(
        &mut self,
        answers: &mut RpcStream,
        input: Receiver<Vec<u8>>,
    ) -> io::Result<End> {
        let mut input = Some(input);
        let mut resized = signal(SignalKind::window_change())?;
        // A way to leave a session whose keyboard does not let one out.
        let mut leave = signal(SignalKind::user_defined1())?;
        let mut alive = interval(KEEPALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = answers.next() => if let Some(end) = self.answer(answer) {
                    return Ok(end);
                },
                // One piece at a time: input waits in the terminal for a session that is slow.
                piece = next(&mut input), if self.write.is_none() && !self.left => self.input(piece, &mut input),
                written = written(&mut self.write) => {
                    self.write = None;
                    if let Err(e) = written {
                        return Ok(End::lost(&e));
                    }
                }
                _ = resized.recv(), if !self.manner.pipe => self.resize(),
                _ = leave.recv() => self.leave(),
                _ = alive.tick(), if self.write.is_none() && !self.left => {
                    self.write = Some(self.ask(&Request::Data(Data(Vec::new()))));
                }
            }
        }
    }

    fn answer(&mut self, answer: Option<Result<Message, RpcError>>) -> Option<End> {
        let response = match answer {
            None => {
                let status = self.exit.as_ref().map_or(0, |(_, status)| *status);
                return Some(End::Exited(status));
            }
            Some(answer) => answer.and_then(|msg| msg.json()),
        };
        match response {
            Ok(Response::Data(Data(bytes))) => show_bytes(&bytes),
            Ok(Response::Resize) => self.resize(),
            Ok(Response::Exit { message, status }) => self.exit = Some((message, status)),
            Ok(Response::Attach) => {}
            Err(e) => return Some(End::lost(&e)),
        }
        None
    }

    fn input(&mut self, piece: Option<Vec<u8>>, input: &mut Option<Receiver<Vec<u8>>>) {
        match piece {
            Some(piece) if piece[0] == DETACH && !self.manner.pipe => self.leave(),
            Some(piece) => self.write = Some(self.ask(&Request::Data(Data(piece)))),
            None => {
                *input = None;
                if self.manner.pipe {
                    self.leave();
                }
            }
        }
    }

    fn resize(&self) {
        if let Some(winsize) = own_size() {
            let request = Request::Resize { winsize };
            self.handle.notify(self.topic, self.node, &request);
        }
    }
}

async fn next(input: &mut Option<Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

async fn written(write: &mut Option<Rpc>) -> Result<Message, RpcError> {
    match write {
        Some(write) => write.await,
        None => std::future::pending().await,
    }
}
