//! One session: a terminal, its clients, and when it is over.
//!
//! A session is complete when what ran in it has exited, the terminal is closed, and nobody has to see its output
//! first. The terminal is read only while somebody takes what is read.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use client::Handle;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use wire::{Message, RpcError};

use crate::protocol::{Data, Mode, Request, Response, WinSize};
use crate::pty::Pty;

/// What the tasks of a session report, with the session's id.
pub(crate) type Reports = Sender<(u32, Report)>;

pub(crate) enum Report {
    /// A piece of output; empty when the terminal is closed.
    Output(Vec<u8>),
    /// What ran has ended, with this wait status.
    Exited(i32),
}

/// Takes what a session writes, besides its clients. It is closed at the end; while it is full, the session waits.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

struct Client {
    /// The request its responses belong to.
    request: Message,
    /// What it may do; a client that only waits for the end has none.
    mode: Option<Mode>,
}

pub(crate) struct Session {
    handle: Handle,
    pub(crate) name: String,
    /// Seconds since the epoch.
    pub(crate) created: f64,
    /// The process, if this session has started it.
    pub(crate) pid: Option<i32>,
    pub(crate) status: Option<i32>,
    pty: Arc<Pty>,
    clients: Vec<Client>,
    captured: bool,
    /// Nobody has seen the output yet who should.
    awaits_client: bool,
    /// Some process may have the terminal open.
    open: bool,
    reading: watch::Sender<bool>,
    input: UnboundedSender<(Vec<u8>, Message)>,
}

fn os_error(e: &io::Error) -> RpcError {
    e.raw_os_error()
        .map_or_else(|| RpcError::new(libc::EIO, e.to_string()), RpcError::errno)
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    // A clock before 1970 is as good as none.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

impl Session {
    /// A session with a terminal and nothing in it.
    pub(crate) fn open(
        handle: &Handle,
        id: u32,
        name: &str,
        capture: Option<Output>,
        reports: &Reports,
    ) -> io::Result<Session> {
        let captured = capture.is_some();
        let pty = Arc::new(Pty::open()?);
        let (reading, wanted) = watch::channel(captured);
        let (input, pieces) = unbounded_channel();
        tokio::spawn(read(id, pty.clone(), wanted, capture, reports.clone()));
        tokio::spawn(write(
            handle.clone(),
            pty.clone(),
            pieces,
            reading.subscribe(),
        ));
        Ok(Session {
            handle: handle.clone(),
            name: name.to_owned(),
            created: now(),
            pid: None,
            status: None,
            pty,
            clients: Vec::new(),
            captured,
            awaits_client: false,
            open: true,
            reading,
            input,
        })
    }

    /// Run a command in it.
    pub(crate) fn start(
        &mut self,
        id: u32,
        mut command: Command,
        reports: &Reports,
    ) -> io::Result<()> {
        self.pty.give_to(&mut command)?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        self.pid = child.id().map(|pid| pid as i32);
        let reports = reports.clone();
        tokio::spawn(async move {
            // Waiting for one's own child fails only if something else has reaped it.
            let status = child.wait().await.map_or(256, ExitStatusExt::into_raw);
            // The server is gone when nobody takes reports any more.
            let _ = reports.send((id, Report::Exited(status))).await;
        });
        Ok(())
    }

    pub(crate) fn pty(&self) -> &Pty {
        &self.pty
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Whether the session stays until a client has read it.
    pub(crate) fn await_client(&mut self, awaits: bool) {
        self.awaits_client = awaits;
        self.look_for_readers();
    }

    /// It is over: see the module.
    pub(crate) fn is_complete(&self) -> bool {
        self.status.is_some() && !self.open && !self.awaits_client
    }

    fn look_for_readers(&self) {
        let reads = |c: &Client| c.mode.is_some_and(Mode::reads);
        // What nobody will ever read is read all the same, so that the session can end.
        let alone = (self.captured || self.status.is_some()) && !self.awaits_client;
        let wanted = alone || self.clients.iter().any(reads);
        self.reading.send_replace(wanted);
    }

    pub(crate) fn report(&mut self, report: Report) {
        match report {
            Report::Exited(status) => {
                self.status = Some(status);
                self.look_for_readers();
            }
            Report::Output(data) => {
                if data.is_empty() {
                    self.open = false;
                    return;
                }
                let response = Response::Data(Data(data));
                for client in self
                    .clients
                    .iter()
                    .filter(|c| c.mode.is_some_and(Mode::reads))
                {
                    self.handle.respond(&client.request, &response);
                }
            }
        }
    }

    fn place_of(&self, sender: &Message) -> Option<usize> {
        let same = |c: &Client| c.request.sender() == sender.sender();
        self.clients.iter().position(same)
    }

    /// Answer a request of the owner's.
    pub(crate) fn request(&mut self, msg: &Message) {
        match self.try_request(msg) {
            Ok(true) => self.handle.respond_ok(msg),
            Ok(false) => {}
            Err(e) => self.handle.respond_error(msg, &e),
        }
    }

    /// Whether the request wants an empty answer now.
    fn try_request(&mut self, msg: &Message) -> Result<bool, RpcError> {
        let request: Request = msg.json()?;
        let place = self.place_of(msg);
        if let Request::Attach { mode, winsize } = request {
            self.attach(msg, place, mode, winsize)?;
            return Ok(false);
        }
        let place = place.ok_or_else(|| {
            RpcError::new(libc::ENOENT, "the client is not attached to the session")
        })?;
        match request {
            Request::Attach { .. } => {}
            Request::Resize { winsize } => self.resize(winsize)?,
            Request::Data(Data(data)) => {
                if self.clients[place].mode.is_some_and(Mode::writes) && !data.is_empty() {
                    // The task ends with the session only.
                    let _ = self.input.send((data, msg.clone()));
                    return Ok(false);
                }
            }
            Request::Detach => self.detach(place),
        }
        Ok(true)
    }

    fn attach(
        &mut self,
        msg: &Message,
        place: Option<usize>,
        mode: Mode,
        winsize: Option<WinSize>,
    ) -> Result<(), RpcError> {
        if place.is_some() {
            return Err(RpcError::new(
                libc::EEXIST,
                "the client is attached already",
            ));
        }
        if !msg.is_streaming() {
            return Err(RpcError::proto("attach is a streaming request"));
        }
        if mode == Mode::ReadWrite {
            let size = winsize.ok_or_else(|| RpcError::proto("winsize is missing"))?;
            self.resize(size)?;
        }
        self.handle.respond(msg, &Response::Attach);
        self.clients.push(Client {
            request: msg.clone(),
            mode: Some(mode),
        });
        if mode.reads() {
            self.awaits_client = false;
        }
        self.look_for_readers();
        Ok(())
    }

    fn resize(&self, size: WinSize) -> Result<(), RpcError> {
        self.pty.resize(size).map_err(|e| {
            let WinSize { rows, cols } = size;
            RpcError::explained(
                e.raw_os_error().unwrap_or(libc::EIO),
                format!("a terminal of {rows} rows and {cols} columns"),
            )
        })
    }

    fn detach(&mut self, place: usize) {
        let client = self.clients.remove(place);
        self.dismiss(&client, "Client requested detach", 0);
        self.look_for_readers();
    }

    /// A client has disconnected.
    pub(crate) fn disconnect(&mut self, msg: &Message) {
        if let Some(place) = self.place_of(msg) {
            self.detach(place);
        }
    }

    fn dismiss(&self, client: &Client, message: &str, status: i32) {
        let message = message.to_owned();
        let exit = Response::Exit { message, status };
        self.handle.respond(&client.request, &exit);
        if client.request.is_streaming() {
            let end = RpcError::errno(libc::ENODATA);
            self.handle.respond_error(&client.request, &end);
        }
    }

    /// Let `msg` be answered when the session is over.
    pub(crate) fn tell_end(&mut self, msg: &Message) {
        self.clients.push(Client {
            request: msg.clone(),
            mode: None,
        });
    }

    /// Signal what runs. No client is waited for any more, and after SIGKILL no other process of the terminal.
    pub(crate) fn kill(&mut self, signum: i32) -> Result<(), RpcError> {
        if signum != libc::SIGWINCH {
            self.awaits_client = false;
        }
        if signum == libc::SIGKILL || self.status.is_some() {
            self.open = false;
        }
        if self.status.is_some() {
            return Ok(());
        }
        // The foreground first, then the process itself; often they are one, or there is no foreground.
        match self.pty.signal(signum) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(os_error(&e)),
            _ => {}
        }
        if let Some(pid) = self.pid {
            // SAFETY: a number, of a process that is not reaped yet.
            unsafe { libc::kill(-pid, signum) };
        }
        // The terminal closes when it has been read.
        self.reading.send_replace(true);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let status = self.status.unwrap_or(0);
        for client in std::mem::take(&mut self.clients) {
            self.dismiss(&client, "session exiting", status);
        }
    }
}

/// Reads the terminal while it is wanted, until it is closed.
async fn read(
    id: u32,
    pty: Arc<Pty>,
    mut wanted: watch::Receiver<bool>,
    mut capture: Option<Output>,
    reports: Reports,
) {
    loop {
        // The session is gone.
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = pty.read() => read,
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        // An error reads like the end.
        let data = read.unwrap_or_default();
        let end = data.is_empty();
        if let Some(output) = &mut capture
            && output.write_all(&data).await.is_err()
        {
            capture = None;
        }
        if reports.send((id, Report::Output(data))).await.is_err() || end {
            return;
        }
    }
}

/// Writes what clients send, and answers each when it is written or the session is gone.
async fn write(
    handle: Handle,
    pty: Arc<Pty>,
    mut pieces: UnboundedReceiver<(Vec<u8>, Message)>,
    mut session: watch::Receiver<bool>,
) {
    while let Some((data, request)) = pieces.recv().await {
        let gone = async { while session.changed().await.is_ok() {} };
        let outcome = tokio::select! {
            written = pty.write(&data) => written.map_err(|e| os_error(&e)),
            () = gone => Err(RpcError::new(libc::ENOENT, "the session is over")),
        };
        match outcome {
            Ok(()) => handle.respond_ok(&request),
            Err(e) => handle.respond_error(&request, &e),
        }
    }
}
