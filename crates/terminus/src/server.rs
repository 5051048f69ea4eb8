//! The sessions of one service.
//!
//! | method | payload | answer |
//! |---|---|---|
//! | `new` | `{name?, cmd?, environ?, cwd?}` | `{name, pty_service, id}` |
//! | `list` | | `{server: {service, rank, ctime}, sessions: [{id, name, clients, pid, exited, ctime}]}` |
//! | `kill` | `{id, signal, wait?}` | with `wait` when the session is over |
//! | `kill-server` | | when all sessions are over |
//! | ID | see [`crate::protocol`] | |
//! | `disconnect` | | none: a client has gone |

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::process::Command;

use client::Handle;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};
use wire::{Message, RpcError};

use crate::pty::Pty;
use crate::session::{Output, Report, Reports, Session, now};

/// Reports that may wait for the server, each of one read from a terminal at most.
const REPORTS: usize = 64;

/// The variable that tells a process it runs in a session; its value is the session's id.
pub const SESSION: &str = "FLUX_TERMINUS_SESSION";

/// Sessions, and who watches them. Whoever runs one passes requests and what happens in, one after the other.
pub struct Server {
    handle: Handle,
    service: String,
    created: f64,
    sessions: BTreeMap<u32, Session>,
    reports: Reports,
    reported: Receiver<(u32, Report)>,
    /// `kill-server` requests that wait for the last session.
    enders: Vec<Message>,
    ended: bool,
}

/// Something has happened in a session: see [`Server::happened`].
pub struct Happening(u32, Report);

#[derive(Deserialize)]
struct New {
    #[serde(default)]
    name: String,
    #[serde(default)]
    cmd: Vec<String>,
    environ: Option<HashMap<String, String>>,
    cwd: Option<String>,
}

#[derive(Deserialize)]
struct Kill {
    id: u32,
    signal: i32,
    #[serde(default)]
    wait: Value,
}

impl Server {
    /// A server that answers through `handle` for `service`.
    pub fn new(handle: Handle, service: impl Into<String>) -> Server {
        let (reports, reported) = channel(REPORTS);
        Server {
            handle,
            service: service.into(),
            created: now(),
            sessions: BTreeMap::new(),
            reports,
            reported,
            enders: Vec::new(),
            ended: false,
        }
    }

    /// No session is there.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Somebody has asked for the end of the server, and there is no session left.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// What happens next in a session, for [`Server::happened`]. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> Happening {
        match self.reported.recv().await {
            Some((id, report)) => Happening(id, report),
            // The server holds a sender, so the queue never ends.
            None => std::future::pending().await,
        }
    }

    /// Take note of what has happened, and tell the clients.
    pub fn happened(&mut self, Happening(id, report): Happening) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.report(report);
            self.settle(id);
        }
    }

    /// Answer NAME.`method`, or pass it to the session of that number. Only the server's user is served.
    pub fn request(&mut self, method: &str, msg: &Message) {
        if method == "disconnect" {
            for session in self.sessions.values_mut() {
                session.disconnect(msg);
            }
            return;
        }
        let user = nix::unistd::getuid().as_raw();
        if let Err(e) = msg.require_user(user) {
            self.handle.respond_error(msg, &e);
            return;
        }
        if let Ok(id) = method.parse::<u32>() {
            match self.sessions.get_mut(&id) {
                Some(session) => session.request(msg),
                None => self.handle.respond_enosys(msg),
            }
            self.settle(id);
            return;
        }
        let outcome = match method {
            "list" => Ok(Some(self.list())),
            "new" => self.start(msg).map(Some),
            "kill" => self.kill(msg),
            "kill-server" => self.end(msg),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        match outcome {
            Ok(Some(answer)) => self.handle.respond(msg, &answer),
            Ok(None) => {}
            Err(e) => self.handle.respond_error(msg, &e),
        }
    }

    /// Forget a session that is over.
    fn settle(&mut self, id: u32) {
        if self.sessions.get(&id).is_some_and(Session::is_complete) {
            self.sessions.remove(&id);
        }
        if self.sessions.is_empty() && !self.enders.is_empty() {
            self.ended = true;
            for msg in std::mem::take(&mut self.enders) {
                self.handle.respond_ok(&msg);
            }
        }
    }

    fn free_id(&self) -> u32 {
        let mut ids = self.sessions.keys();
        // As many numbers as there are sessions, and one more: one of them is free.
        (0..).find(|id| ids.next() != Some(id)).unwrap_or(u32::MAX)
    }

    /// Open session `id` with a terminal for a process that the caller starts ([`Pty::give_to`]) and whose end it
    /// tells ([`Server::exited`]). With `interactive` it is not over before a client has seen it. `capture` gets its
    /// output.
    pub fn open(
        &mut self,
        id: u32,
        name: &str,
        interactive: bool,
        capture: Option<Output>,
    ) -> io::Result<&Pty> {
        let mut session = Session::open(&self.handle, id, name, capture, &self.reports)?;
        session.await_client(interactive);
        let session = self.sessions.entry(id).insert_entry(session);
        Ok(session.into_mut().pty())
    }

    /// Wait for clients no more: sessions that nobody has read may end.
    pub fn hurry(&mut self) {
        let ids: Vec<u32> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.await_client(false);
            }
            self.settle(id);
        }
    }

    /// The process of an opened session has ended.
    pub fn exited(&mut self, id: u32, status: i32) {
        self.happened(Happening(id, Report::Exited(status)));
    }

    fn start(&mut self, msg: &Message) -> Result<Value, RpcError> {
        let New {
            mut name,
            cmd,
            environ,
            cwd,
        } = msg.json()?;
        let id = self.free_id();
        let shell = || std::env::var("SHELL").unwrap_or_else(|_| "bash".into());
        let program = cmd.first().cloned().unwrap_or_else(shell);
        if name.is_empty() {
            name.clone_from(&program);
        }
        let mut command = Command::new(&program);
        command.args(cmd.iter().skip(1));
        if let Some(environ) = environ {
            command.env_clear().envs(environ);
        }
        if let Some(cwd) = cwd {
            command.current_dir(cwd);
        }
        command.env(SESSION, id.to_string());
        let failed = |e: io::Error| {
            let errno = e.raw_os_error().unwrap_or(libc::EIO);
            RpcError::new(
                errno,
                format!("failed to run {program}: {}", RpcError::errno(errno)),
            )
        };
        let mut session =
            Session::open(&self.handle, id, &name, None, &self.reports).map_err(failed)?;
        session.start(id, command, &self.reports).map_err(failed)?;
        session.await_client(true);
        self.sessions.insert(id, session);
        Ok(json!({ "name": name, "pty_service": format!("{}.{id}", self.service), "id": id }))
    }

    fn list(&self) -> Value {
        let session = |(id, s): (&u32, &Session)| {
            json!({
                "id": id,
                "name": s.name,
                "clients": s.clients(),
                "pid": s.pid.unwrap_or(-1),
                "exited": i32::from(s.status.is_some()),
                "ctime": s.created,
            })
        };
        let sessions: Vec<Value> = self.sessions.iter().map(session).collect();
        let server = json!({
            "service": self.service,
            "rank": self.handle.rank(),
            "ctime": self.created,
        });
        json!({ "sessions": sessions, "server": server })
    }

    fn kill(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        let Kill { id, signal, wait } = msg.json()?;
        let session = self
            .sessions
            .get_mut(&id)
            .ok_or_else(|| RpcError::explained(libc::ENOENT, format!("session {id}")))?;
        session.kill(signal)?;
        let wait = wait == true || wait.as_i64().is_some_and(|n| n != 0);
        if wait {
            session.tell_end(msg);
        }
        self.settle(id);
        Ok((!wait).then(|| json!({})))
    }

    fn end(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        self.enders.push(msg.clone());
        let ids: Vec<u32> = self.sessions.keys().copied().collect();
        for id in &ids {
            if let Some(session) = self.sessions.get_mut(id) {
                // One that cannot be signalled ends by itself.
                let _ = session.kill(libc::SIGKILL);
            }
            self.settle(*id);
        }
        if ids.is_empty() {
            self.settle(0);
        }
        Ok(None)
    }
}
