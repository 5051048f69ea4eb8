//! A subprocess server: `exec`, `attach`, `write`, `kill`, `wait` and `list` of one service (RFC 42).
//!
//! Module `rexec` runs one for the broker, the job shell one for its job. [`Server`] owns every process; whoever
//! runs it passes requests and reports in, one after the other. A process has at most one client: the one that
//! started it in the foreground, or one that attached to it in the background. What a background process
//! writes goes to the log, and its last [`RETAINED`] bytes are kept for `wait`.

mod adopted;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use client::Handle;
use formats::iodata::IoData;
use formats::job::WaitStatus;
use formats::subprocess::{
    AttachRequest, Command, ExecRequest, ExecResponse, FLAG_CHANNEL, FLAG_CREDIT, FLAG_STDERR,
    FLAG_STDOUT, FLAG_WAITABLE, KillRequest, LOCAL_FALLTHROUGH, LOCAL_NO_SETPGRP, OUTLIVES_BROKER,
    OUTLIVES_CLIENT, Target, WaitResponse, WriteRequest,
};
use formats::survivor::is_name;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use wire::{Message, RpcError};

use crate::process::{self, Control, Manner, Process, Report, Reports, Stream};
use crate::survivors::Survivors;

/// Bytes of input that may be on their way to one process, unless the command's option
/// `stdin_BUFSIZE` says otherwise.
const INPUT_WINDOW: usize = 64 * 1024;
/// The least and the most such a window may be.
const INPUT_WINDOWS: std::ops::RangeInclusive<u64> = 1..=1 << 30;
/// Bytes of output kept of a background process.
const RETAINED: usize = 64 * 1024;
/// Reports that may wait for the module, each of one read from a pipe at most.
const REPORTS: usize = 64;

/// Permission to send so many bytes more, by channel.
fn credit(channels: impl IntoIterator<Item = (String, usize)>) -> ExecResponse {
    let channels = channels.into_iter().map(|(name, n)| (name, n as i64));
    ExecResponse::AddCredit {
        channels: channels.collect(),
    }
}

fn wanted(stream: &Stream) -> u32 {
    match stream {
        Stream::Stdout => FLAG_STDOUT,
        Stream::Stderr => FLAG_STDERR,
        Stream::Channel(_) => FLAG_CHANNEL,
    }
}

/// Whether a process goes on without its client.
fn outlives_client(cmd: &Command) -> Result<bool, RpcError> {
    match cmd.opts.get(OUTLIVES_CLIENT) {
        None => Ok(false),
        Some(_) if cmd.label.is_none() => {
            let text = format!("cmd.opts.{OUTLIVES_CLIENT}: the process needs a label");
            Err(invalid(&text))
        }
        Some(value) => Ok(*value == "1"),
    }
}

/// How long a process may be without a broker, in seconds, if it outlives its broker at all.
fn patience(cmd: &Command) -> Result<Option<u64>, RpcError> {
    let Some(value) = cmd.opts.get(OUTLIVES_BROKER) else {
        return Ok(None);
    };
    let wrong = |text: &str| invalid(&format!("cmd.opts.{OUTLIVES_BROKER}: {text}"));
    let seconds = value.as_str().and_then(|text| text.parse().ok());
    let seconds = seconds.ok_or_else(|| wrong("must be a number of seconds, as text"))?;
    match &cmd.label {
        Some(label) if is_name(label) && outlives_client(cmd)? => Ok(Some(seconds)),
        _ => Err(wrong(
            "the process has to outlive its client, and to have a label of letters, digits, '-' and '_'",
        )),
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
    /// In the background from when its client goes.
    outlives_client: bool,
    /// The next broker finds it.
    outlives_broker: bool,
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

/// The processes of one service, and who watches them.
pub struct Server {
    handle: Handle,
    /// What processes reach their broker by.
    uri: String,
    entries: HashMap<u64, Entry>,
    next_key: u64,
    reports: Reports,
    reported: Receiver<(u64, Report)>,
    children: Signal,
    stopping: bool,
    /// Where the next broker finds what runs, if there will be one.
    survivors: Option<Survivors>,
}

/// Something has happened to a process: see [`Server::happened`].
pub struct Happening(What);

enum What {
    Report(u64, Report),
    /// A child of this program has changed its state.
    Child,
}

fn invalid(text: &str) -> RpcError {
    RpcError::new(libc::EINVAL, text)
}

impl Server {
    /// A server that answers through `handle`. Its processes get `uri` as FLUX_URI. Must be made within a tokio runtime.
    pub fn new(handle: Handle, uri: String) -> std::io::Result<Server> {
        let (reports, reported) = channel(REPORTS);
        Ok(Server {
            handle,
            uri,
            entries: HashMap::new(),
            next_key: 1,
            reports,
            reported,
            children: signal(SignalKind::child())?,
            stopping: false,
            survivors: None,
        })
    }

    /// What happens next to a process, for [`Server::happened`]. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> Happening {
        tokio::select! {
            // The server holds a sender, so the queue never ends.
            Some((key, report)) = self.reported.recv() => Happening(What::Report(key, report)),
            _ = self.children.recv(), if !self.entries.is_empty() => Happening(What::Child),
        }
    }

    /// Take note of what has happened, and tell the clients.
    pub fn happened(&mut self, happening: Happening) {
        match happening.0 {
            What::Report(key, report) => self.report(key, report),
            What::Child => self.look_for_stopped(),
        }
    }

    /// Answer a request for `method`. Only the owner's are granted.
    pub fn request(&mut self, method: &str, msg: &Message) {
        let result = match method {
            "exec" => self.exec(msg),
            "attach" => self.attach(msg),
            "write" => self.write(msg),
            "kill" => self.kill(msg),
            "wait" => self.wait(msg),
            "list" => Ok(Some(self.list())),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        match result {
            Ok(Some(Value::Null)) => self.handle.respond_ok(msg),
            Ok(Some(value)) => self.handle.respond(msg, &value),
            Ok(None) => {}
            Err(e) => self.handle.respond_error(msg, &e),
        }
    }

    /// Start nothing more, and send `signum` to what runs.
    pub fn stop(&mut self, signum: i32) {
        self.stop_by(|_| signum);
    }

    /// Start nothing more and end what runs: at once, but for processes that outlive their clients. Those have some
    /// of their own to end, and are asked to. What outlives the broker stays.
    pub fn stop_gently(&mut self) {
        self.stop_by(|entry| match entry.outlives_client {
            true => libc::SIGTERM,
            false => libc::SIGKILL,
        });
    }

    fn stop_by(&mut self, signum: impl Fn(&Entry) -> i32) {
        self.stopping = true;
        for entry in self.entries.values().filter(|e| e.must_end()) {
            entry.process.ask(Control::Signal(signum(entry)));
        }
    }

    /// Wait until no process runs but those that outlive the broker; what they report on the way is passed on.
    pub async fn drained(&mut self) {
        while self.entries.values().any(Entry::must_end) {
            let happening = self.next().await;
            self.happened(happening);
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
        if !background && flags & FLAG_WAITABLE != 0 {
            return Err(invalid("waitable is only supported in background mode"));
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
        let windows = input_windows(&cmd)?;
        let outlives_client = outlives_client(&cmd)?;
        let patience = patience(&cmd)?;
        let key = self.next_key;
        let given = cmd.clone();
        cmd.env.insert("FLUX_URI".into(), self.uri.clone());
        let mortal = |e: &std::io::Error| {
            let text = format!("{} will end with this broker: {e}", given.name());
            self.handle.say("rexec", 4, &text);
        };
        let reserved = patience.zip(self.survivors.as_ref()).and_then(|(p, s)| {
            let reserved = s.reserve(given.name(), p, &given.cmdline);
            reserved.inspect_err(mortal).ok()
        });
        if let Some(reserved) = &reserved {
            reserved.tell(&mut cmd);
        }
        let process = process::start(key, &cmd, manner, self.reports.clone())?;
        self.next_key += 1;
        let pid = process.pid;
        let outlives_broker =
            reserved.is_some_and(|reserved| reserved.fill(pid).inspect_err(mortal).is_ok());
        self.handle.respond(msg, &ExecResponse::Started { pid });
        if flags & FLAG_CREDIT != 0 {
            self.handle.respond(msg, &credit(windows));
        }
        let client = (!background).then(|| Client {
            request: msg.clone(),
            flags,
        });
        let entry = Entry {
            process,
            cmd: given,
            background,
            outlives_client,
            outlives_broker,
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
        // Who has it may take it up anew, having lost track of it.
        let again = |c: &mut Client| entry.outlives_client && c.request.is_same_rpc(msg, None);
        if let Some(before) = entry.client.take_if(again) {
            let end = RpcError::errno(libc::ENODATA);
            self.handle.respond_error(&before.request, &end);
        } else if !entry.background {
            return busy("the process does not run in the background");
        }
        if entry.client.is_some() {
            return busy("the process already has a client attached");
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
            if flags & wanted(stream) != 0 {
                let output = output(entry.process.pid, rank, stream, &Bytes::new());
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
                    entry.ended.push(stream.clone());
                }
                let pid = entry.process.pid;
                if let Some(client) = &entry.client
                    && client.flags & wanted(&stream) != 0
                {
                    let output = output(pid, rank, &stream, &data);
                    self.handle.respond(&client.request, &output);
                }
                if entry.is_logged() && !data.is_empty() {
                    entry.retain(rank, &stream, &data);
                    let severity = match stream {
                        Stream::Stderr => 3,
                        Stream::Stdout | Stream::Channel(_) => 6,
                    };
                    for line in String::from_utf8_lossy(&data).lines() {
                        log(&self.handle, entry, severity, line);
                    }
                }
            }
            Report::Consumed(name, bytes) => {
                if let Some(client) = &entry.client
                    && client.flags & FLAG_CREDIT != 0
                {
                    self.handle
                        .respond(&client.request, &credit([(name.to_string(), bytes)]));
                }
            }
            Report::Unclaimed => {
                if entry.client.is_none() && entry.waiter.is_none() {
                    log(&self.handle, entry, 4, "nobody has asked for it: ended");
                    entry.process.ask(Control::Signal(libc::SIGTERM));
                }
            }
            Report::Finished(status) => {
                entry.status = Some(status);
                if entry.is_logged() {
                    let how = WaitStatus(status);
                    let (severity, text) = match (how.signal(), how.exit_code()) {
                        (Some(signum), _) => (3, format!("Killed by signal {signum}")),
                        (None, 0) => (7, "Exit 0".to_owned()),
                        (None, code) => (3, format!("Exit {code}")),
                    };
                    log(&self.handle, entry, severity, &text);
                }
                self.finish(key, status);
            }
        }
    }

    /// Tells whoever asked how a process ended, and forgets it if it need not wait for anybody.
    fn finish(&mut self, key: u64, status: i32) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        // Whoever follows a process that outlives it may be gone before it has taken note of the end: it says so by `wait`.
        let noted = !entry.outlives_client || entry.waiter.is_some();
        let told = noted && (entry.waiter.is_some() || entry.client.is_some());
        if !noted {
            entry.background = true;
            entry.waitable = true;
        }
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
            if let Some(survivors) = self.survivors.as_ref().filter(|_| entry.outlives_broker) {
                survivors.remove(entry.cmd.name());
            }
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
        if let Some(entry) = self.entries.values().find(mine) {
            let name: Arc<str> = io.stream.into();
            let data = Bytes::from(io.data);
            // The process may have ended by now.
            if !data.is_empty() {
                entry.process.ask(Control::Input(name.clone(), data));
            }
            if io.eof {
                entry.process.ask(Control::CloseInput(name));
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
            return Err(RpcError::errno(libc::ESRCH));
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
        if entry.client.is_some() {
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
    pub fn disconnect(&mut self, msg: &Message) {
        for entry in self.entries.values_mut() {
            let gone = |c: &mut Client| c.request.is_same_rpc(msg, None);
            if entry.client.take_if(gone).is_some() && !entry.background {
                if entry.outlives_client {
                    entry.background = true;
                    entry.waitable = true;
                } else {
                    entry.process.ask(Control::Signal(libc::SIGKILL));
                }
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
}

impl Entry {
    /// It runs and must not outlive the broker.
    fn must_end(&self) -> bool {
        self.status.is_none() && !self.outlives_broker
    }

    /// Whether the log is told what the process does: nobody else hears of it.
    fn is_logged(&self) -> bool {
        self.background && !(self.outlives_client && self.client.is_some())
    }

    /// Keeps output, and drops the oldest that is too much.
    fn retain(&mut self, rank: u32, stream: &Stream, data: &Bytes) {
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

fn io(rank: u32, stream: &Stream, data: &Bytes) -> IoData {
    IoData {
        stream: stream.name().to_owned(),
        rank: rank.to_string(),
        eof: data.is_empty(),
        data: data.to_vec(),
    }
}

fn output(pid: i32, rank: u32, stream: &Stream, data: &Bytes) -> ExecResponse {
    let io = io(rank, stream, data);
    ExecResponse::Output { pid, io }
}

/// The bytes that may be under way to stdin and each channel.
fn input_windows(cmd: &Command) -> Result<Vec<(String, usize)>, RpcError> {
    let names = ["stdin"].into_iter();
    let names = names.chain(cmd.channels.iter().map(String::as_str));
    names
        .map(|name| Ok((name.to_owned(), input_window(cmd, name)?)))
        .collect()
}

/// One such window; its option may have a unit: 4096, 4K, 1M.
fn input_window(cmd: &Command, name: &str) -> Result<usize, RpcError> {
    let option = format!("{name}_BUFSIZE");
    let Some(value) = cmd.opts.get(&option) else {
        return Ok(INPUT_WINDOW);
    };
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let (number, scale) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1 << 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(number) => (number, 1 << 20),
            None => (text.as_str(), 1),
        },
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale));
    let bytes = bytes.filter(|bytes| INPUT_WINDOWS.contains(bytes));
    bytes.map(|bytes| bytes as usize).ok_or_else(|| {
        invalid(&format!(
            "cmd.opts.{option}: '{text}' is not a size in bytes"
        ))
    })
}

/// Logs a line about a background process.
fn log(handle: &Handle, entry: &Entry, severity: u8, text: &str) {
    let command = entry.cmd.cmdline.first().map_or("", String::as_str);
    let name = command.rsplit('/').next().unwrap_or(command);
    let pid = entry.process.pid;
    let text = match &entry.cmd.label {
        Some(label) => format!("{label}: {name}[{pid}]: {text}"),
        None => format!("{name}[{pid}]: {text}"),
    };
    let now = jiff::Timestamp::now();
    handle.log(severity, format!("{now:.6}"), handle.rank(), "rexec", &text);
}
