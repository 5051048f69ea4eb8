//! The `rexec` service: `exec`, `attach`, `write`, `kill`, `wait` and `list`.
//!
//! The module's loop owns every process. A process has at most one client: the one that started it
//! in the foreground, or one that attached to it in the background. What a background process
//! writes goes to the log, and its last [`RETAINED`] bytes are kept for `wait`.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use client::Handle;
use client::module::{Context, ModuleResult};
use formats::iodata::IoData;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::channel;
use wire::{Message, RpcError};

use crate::process::{self, Control, Manner, Process, Report, Reports, Stream};
use crate::protocol::{
    AttachRequest, Command, ExecRequest, ExecResponse, FLAG_CREDIT, FLAG_STDERR, FLAG_STDOUT,
    FLAG_WAITABLE, KillRequest, LOCAL_FALLTHROUGH, LOCAL_NO_SETPGRP, Target, WaitResponse,
    WriteRequest,
};

/// Bytes of input that may be on their way to one process.
const INPUT_WINDOW: usize = 64 * 1024;
/// Bytes of output kept of a background process.
const RETAINED: usize = 64 * 1024;
/// Reports that may wait for the module, each of one read from a pipe at most.
const REPORTS: usize = 64;

/// Permission to send `bytes` more of input.
fn credit(bytes: usize) -> ExecResponse {
    let channels = HashMap::from([("stdin".to_owned(), bytes as i64)]);
    ExecResponse::AddCredit { channels }
}

fn wanted(stream: Stream) -> u32 {
    match stream {
        Stream::Stdout => FLAG_STDOUT,
        Stream::Stderr => FLAG_STDERR,
    }
}

/// Who gets what a process reports.
struct Client {
    /// The exec or attach request.
    request: Message,
    flags: u32,
}

struct Entry {
    process: Process,
    cmd: Command,
    background: bool,
    client: Option<Client>,
    /// Streams that have ended.
    ended: Vec<Stream>,
    /// The last output of a background process, and its size in bytes.
    retained: VecDeque<IoData>,
    retained_len: usize,
    waitable: bool,
    waiter: Option<Message>,
    status: Option<i32>,
}

struct State {
    handle: Handle,
    /// What processes reach this broker by.
    local_uri: String,
    entries: HashMap<u64, Entry>,
    next_key: u64,
    reports: Reports,
    stopping: bool,
}

/// Entry point of module `rexec`.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle, mut inbox, ..
    } = ctx;
    let (reports, mut reported) = channel(REPORTS);
    let local_uri = handle.getattr("local-uri").await?;
    let mut children =
        signal(SignalKind::child()).map_err(|e| client::module::ModuleError::new("signals", e))?;
    let mut state = State {
        handle,
        local_uri,
        entries: HashMap::new(),
        next_key: 1,
        reports,
        stopping: false,
    };
    loop {
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => state.message(&msg),
                None => break,
            },
            Some((key, report)) = reported.recv() => state.report(key, report),
            Some(()) = children.recv() => state.look_for_stopped(),
        }
    }
    // What still runs must not outlive the broker.
    state.stopping = true;
    state.signal_all(libc::SIGKILL);
    while state.entries.values().any(|e| e.status.is_none()) {
        let Some((key, report)) = reported.recv().await else {
            break;
        };
        state.report(key, report);
    }
    Ok(())
}

fn invalid(text: &str) -> RpcError {
    RpcError::new(libc::EINVAL, text)
}

impl State {
    fn message(&mut self, msg: &Message) {
        if !msg.is_request() {
            return;
        }
        let result = match msg.method() {
            "exec" => self.exec(msg),
            "attach" => self.attach(msg),
            "write" => self.write(msg),
            "kill" => self.kill(msg),
            "wait" => self.wait(msg),
            "list" => Ok(Some(self.list())),
            "disconnect" => {
                self.disconnect(msg);
                return;
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        match result {
            Ok(Some(Value::Null)) => self.handle.respond_ok(msg),
            Ok(Some(value)) => self.handle.respond(msg, &value),
            Ok(None) => {}
            Err(e) => self.handle.respond_error(msg, &e),
        }
    }

    fn exec(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        let ExecRequest {
            mut cmd,
            flags,
            local_flags,
        } = msg.json()?;
        let background = !msg.is_streaming();
        if self.stopping {
            let text = "the service is shutting down";
            return Err(RpcError::new(libc::ENOSYS, text));
        }
        if background && flags & FLAG_CREDIT != 0 {
            return Err(invalid(
                "a background process has no input to give credit for",
            ));
        }
        if background && local_flags & LOCAL_FALLTHROUGH != 0 {
            return Err(invalid(
                "a background process cannot use the server's streams",
            ));
        }
        if let Some(label) = &cmd.label
            && self
                .entries
                .values()
                .any(|e| e.cmd.label.as_ref() == Some(label))
        {
            let text = format!("label {label} is in use by another process");
            return Err(RpcError::new(libc::EEXIST, text));
        }
        let manner = Manner {
            fallthrough: local_flags & LOCAL_FALLTHROUGH != 0,
            no_setpgrp: local_flags & LOCAL_NO_SETPGRP != 0,
            no_input: background,
        };
        let key = self.next_key;
        let given = cmd.clone();
        cmd.env.insert("FLUX_URI".into(), self.local_uri.clone());
        let process = process::start(key, &cmd, manner, self.reports.clone())?;
        self.next_key += 1;
        let pid = process.pid;
        self.handle.respond(msg, &ExecResponse::Started { pid });
        if flags & FLAG_CREDIT != 0 {
            self.handle.respond(msg, &credit(INPUT_WINDOW));
        }
        let client = (!background).then(|| Client {
            request: msg.clone(),
            flags,
        });
        let entry = Entry {
            process,
            cmd: given,
            background,
            client,
            ended: Vec::new(),
            retained: VecDeque::new(),
            retained_len: 0,
            waitable: flags & FLAG_WAITABLE != 0,
            waiter: None,
            status: None,
        };
        self.entries.insert(key, entry);
        Ok(None)
    }

    fn attach(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        let AttachRequest { target, flags } = msg.json()?;
        if !msg.is_streaming() {
            return Err(RpcError::proto("attach is a streaming request"));
        }
        let busy = |text: &str| Err(RpcError::new(libc::EBUSY, text));
        let rank = self.handle.rank();
        let key = self
            .find(&target)
            .map_err(|e| RpcError::new(libc::ENOENT, e.to_string()))?;
        let Some(entry) = self.entries.get_mut(&key) else {
            return Ok(None);
        };
        if !entry.background {
            return busy("the process does not run in the background");
        }
        if entry.client.is_some() {
            return busy("the process has a client attached");
        }
        if entry.waiter.is_some() {
            return busy("somebody waits for the process");
        }
        let attached = ExecResponse::Attached {
            pid: entry.process.pid,
            cmd: entry.cmd.clone(),
        };
        self.handle.respond(msg, &attached);
        for stream in &entry.ended {
            if flags & wanted(*stream) != 0 {
                let output = output(entry.process.pid, rank, *stream, &Bytes::new());
                self.handle.respond(msg, &output);
            }
        }
        entry.client = Some(Client {
            request: msg.clone(),
            flags,
        });
        if let Some(status) = entry.status {
            self.finish(key, status);
        }
        Ok(None)
    }

    fn report(&mut self, key: u64, report: Report) {
        let rank = self.handle.rank();
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        match report {
            Report::Output(stream, data) => {
                if data.is_empty() {
                    entry.ended.push(stream);
                }
                let pid = entry.process.pid;
                if let Some(client) = &entry.client
                    && client.flags & wanted(stream) != 0
                {
                    let output = output(pid, rank, stream, &data);
                    self.handle.respond(&client.request, &output);
                }
                if entry.background && !data.is_empty() {
                    entry.retain(rank, stream, &data);
                    log(&self.handle, entry, stream, &data);
                }
            }
            Report::Consumed(bytes) => {
                if let Some(client) = &entry.client
                    && client.flags & FLAG_CREDIT != 0
                {
                    self.handle.respond(&client.request, &credit(bytes));
                }
            }
            Report::Finished(status) => {
                entry.status = Some(status);
                self.finish(key, status);
            }
        }
    }

    /// Tells whoever asked how a process ended, and forgets it if it need not wait for anybody.
    fn finish(&mut self, key: u64, status: i32) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        // A background process has one who learns of its end; a foreground one may have both.
        let told = entry.waiter.is_some() || entry.background && entry.client.is_some();
        if let Some(client) = entry.client.take() {
            let finished = ExecResponse::Finished { status };
            self.handle.respond(&client.request, &finished);
            self.handle
                .respond_error(&client.request, &RpcError::errno(libc::ENODATA));
        }
        if let Some(waiter) = entry.waiter.take() {
            let output = entry.retained.drain(..).collect();
            self.handle
                .respond(&waiter, &WaitResponse { status, output });
        }
        if told || !entry.waitable {
            self.entries.remove(&key);
        }
    }

    /// `write` has no response: input for a process that is gone is dropped.
    fn write(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        let WriteRequest { matchtag, io } = msg.json()?;
        let mine = |e: &&Entry| {
            e.client.as_ref().is_some_and(|c| {
                c.request.matchtag() == matchtag && c.request.sender() == msg.sender()
            })
        };
        if io.stream == "stdin"
            && let Some(entry) = self.entries.values().find(mine)
        {
            let data = Bytes::from(io.data);
            // The process may have ended by now.
            if !data.is_empty() {
                entry.process.ask(Control::Input(data));
            }
            if io.eof {
                entry.process.ask(Control::CloseInput);
            }
        }
        Ok(None)
    }

    fn find(&self, target: &Target) -> Result<u64, RpcError> {
        let is = |e: &Entry| match &target.label {
            Some(label) => e.cmd.label.as_ref() == Some(label),
            None => e.process.pid == target.pid,
        };
        let found = self.entries.iter().find(|(_, e)| is(e));
        found.map(|(key, _)| *key).ok_or_else(|| {
            let what = match &target.label {
                Some(label) => format!("label {label}"),
                None => format!("pid {}", target.pid),
            };
            RpcError::new(
                libc::ESRCH,
                format!("{what} does not belong to any subprocess"),
            )
        })
    }

    fn kill(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        let KillRequest { target, signum } = msg.json()?;
        let entry = &self.entries[&self.find(&target)?];
        if entry.status.is_some() || !entry.process.ask(Control::Signal(signum)) {
            let text = format!("pid {} has ended", entry.process.pid);
            return Err(RpcError::new(libc::ESRCH, text));
        }
        Ok(Some(Value::Null))
    }

    fn wait(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        let key = self.find(&msg.json()?)?;
        let Some(entry) = self.entries.get_mut(&key) else {
            return Ok(None);
        };
        if !entry.waitable {
            return Err(invalid("process is not waitable"));
        }
        if entry.waiter.is_some() {
            return Err(invalid("process is already being waited on"));
        }
        if entry.background && entry.client.is_some() {
            let text = "the process has a client attached";
            return Err(RpcError::new(libc::EBUSY, text));
        }
        entry.waiter = Some(msg.clone());
        if let Some(status) = entry.status {
            self.finish(key, status);
        }
        Ok(None)
    }

    fn list(&self) -> Value {
        let rank = self.handle.rank();
        let proc = |e: &Entry| {
            json!({
                "pid": e.process.pid,
                "cmd": e.cmd.cmdline.first().cloned().unwrap_or_default(),
                "label": e.cmd.label.clone().unwrap_or_default(),
                "state": if e.status.is_some() { "Z" } else { "R" },
            })
        };
        let mut keys: Vec<&u64> = self.entries.keys().collect();
        keys.sort_unstable();
        let procs: Vec<Value> = keys.iter().map(|key| proc(&self.entries[key])).collect();
        json!({ "rank": rank, "procs": procs })
    }

    /// A client is gone: what it started is ended, what it attached to goes on without it.
    fn disconnect(&mut self, msg: &Message) {
        for entry in self.entries.values_mut() {
            let gone = |c: &mut Client| c.request.is_same_rpc(msg, None);
            if entry.client.take_if(gone).is_some() && !entry.background {
                entry.process.ask(Control::Signal(libc::SIGKILL));
            }
            entry.waiter.take_if(|w| w.is_same_rpc(msg, None));
        }
    }

    fn look_for_stopped(&self) {
        for entry in self.entries.values().filter(|e| e.status.is_none()) {
            if process::was_stopped(entry.process.pid)
                && let Some(client) = &entry.client
            {
                self.handle.respond(&client.request, &ExecResponse::Stopped);
            }
        }
    }

    fn signal_all(&self, signum: i32) {
        for entry in self.entries.values().filter(|e| e.status.is_none()) {
            entry.process.ask(Control::Signal(signum));
        }
    }
}

impl Entry {
    /// Keeps output, and drops the oldest that is too much.
    fn retain(&mut self, rank: u32, stream: Stream, data: &Bytes) {
        self.retained.push_back(io(rank, stream, data));
        self.retained_len += data.len();
        while self.retained_len > RETAINED {
            let Some(oldest) = self.retained.pop_front() else {
                break;
            };
            self.retained_len -= oldest.data.len();
        }
    }
}

fn io(rank: u32, stream: Stream, data: &Bytes) -> IoData {
    IoData {
        stream: stream.name().to_owned(),
        rank: rank.to_string(),
        eof: data.is_empty(),
        data: data.to_vec(),
    }
}

fn output(pid: i32, rank: u32, stream: Stream, data: &Bytes) -> ExecResponse {
    let io = io(rank, stream, data);
    ExecResponse::Output { pid, io }
}

/// Logs the lines of a background process: its errors as such, the rest as information.
fn log(handle: &Handle, entry: &Entry, stream: Stream, data: &Bytes) {
    let severity = match stream {
        Stream::Stdout => 6,
        Stream::Stderr => 3,
    };
    let command = entry.cmd.cmdline.first().map_or("", String::as_str);
    let name = command.rsplit('/').next().unwrap_or(command);
    for line in String::from_utf8_lossy(data).lines() {
        let text = format!("{name}[{}]: {}: {line}", entry.process.pid, stream.name());
        let now = jiff::Timestamp::now();
        handle.log(severity, format!("{now:.6}"), handle.rank(), "rexec", &text);
    }
}
