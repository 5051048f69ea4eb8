//! The `rexec` service: `exec`, `write`, `kill`, `list`, and `wait` for background processes.

use std::collections::HashMap;

use bytes::Bytes;
use client::Handle;
use client::module::{Context, ModuleResult};
use formats::iodata::IoData;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use wire::{Message, RpcError};

use crate::process::{self, Control, Process, Report};
use crate::protocol::{
    ExecRequest, ExecResponse, FLAG_CREDIT, FLAG_STDERR, FLAG_STDOUT, FLAG_WAITABLE, KillRequest,
    WriteRequest,
};

/// Bytes of input that may be on their way to one process.
const INPUT_WINDOW: usize = 64 * 1024;

/// Permission to send `bytes` more of input.
fn credit(bytes: usize) -> ExecResponse {
    let channels = HashMap::from([("stdin".to_owned(), bytes as i64)]);
    ExecResponse::AddCredit { channels }
}

struct Entry {
    process: Process,
    /// The exec request.
    request: Message,
    cmdline: Vec<String>,
    label: Option<String>,
    waitable: bool,
    waiter: Option<Message>,
    status: Option<i32>,
}

struct State {
    handle: Handle,
    /// What processes reach this broker by.
    local_uri: String,
    /// By pid.
    entries: HashMap<i32, Entry>,
    finished: UnboundedSender<(i32, i32)>,
}

/// Entry point of module `rexec`.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle, mut inbox, ..
    } = ctx;
    let (finished, mut ends) = unbounded_channel();
    let local_uri = handle.getattr("local-uri").await?;
    let mut state = State {
        handle,
        local_uri,
        entries: HashMap::new(),
        finished,
    };
    loop {
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => state.message(&msg),
                None => break,
            },
            Some((pid, status)) = ends.recv() => state.ended(pid, status),
        }
    }
    // What still runs must not outlive the broker.
    state.signal_all(libc::SIGKILL);
    while state.entries.values().any(|e| e.status.is_none()) {
        let Some((pid, status)) = ends.recv().await else {
            break;
        };
        state.ended(pid, status);
    }
    Ok(())
}

impl State {
    fn message(&mut self, msg: &Message) {
        if !msg.is_request() {
            return;
        }
        let result = match msg.method() {
            "exec" => self.exec(msg),
            "write" => self.write(msg),
            "kill" => self.kill(msg).map(Some),
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
        let ExecRequest { mut cmd, flags } = msg.json()?;
        let rank = self.handle.rank();
        cmd.env.insert("FLUX_URI".into(), self.local_uri.clone());
        let streaming = msg.is_streaming();
        let with_credit = streaming && flags & FLAG_CREDIT != 0;
        let (handle, request, ends) = (self.handle.clone(), msg.clone(), self.finished.clone());
        // Known before anything is reported.
        let (pid_tx, pid_rx) = tokio::sync::watch::channel(0);
        let report = move |report: Report| match report {
            Report::Output(stream, data) => {
                let wanted = if stream == "stdout" {
                    FLAG_STDOUT
                } else {
                    FLAG_STDERR
                };
                if streaming && flags & wanted != 0 {
                    let io = IoData {
                        stream: stream.to_owned(),
                        rank: rank.to_string(),
                        eof: data.is_empty(),
                        data: data.to_vec(),
                    };
                    let pid = *pid_rx.borrow();
                    handle.respond(&request, &ExecResponse::Output { pid, io });
                }
            }
            Report::Consumed(bytes) => {
                if with_credit {
                    handle.respond(&request, &credit(bytes));
                }
            }
            // The service has ended if nobody listens.
            Report::Finished(status) => {
                let pid = *pid_rx.borrow();
                let _ = ends.send((pid, status));
            }
        };
        let process = process::start(&cmd, report)?;
        let pid = process.pid;
        pid_tx.send_replace(pid);
        self.handle.respond(msg, &ExecResponse::Started { pid });
        if with_credit {
            self.handle.respond(msg, &credit(INPUT_WINDOW));
        }
        process.begin();
        let entry = Entry {
            process,
            request: msg.clone(),
            cmdline: cmd.cmdline,
            label: cmd.label,
            waitable: flags & FLAG_WAITABLE != 0,
            waiter: None,
            status: None,
        };
        self.entries.insert(pid, entry);
        Ok(None)
    }

    fn ended(&mut self, pid: i32, status: i32) {
        let Some(entry) = self.entries.get_mut(&pid) else {
            return;
        };
        entry.status = Some(status);
        if entry.request.is_streaming() {
            self.handle
                .respond(&entry.request, &ExecResponse::Finished { status });
            self.handle
                .respond_error(&entry.request, &RpcError::errno(libc::ENODATA));
        }
        if let Some(waiter) = entry.waiter.take() {
            self.handle.respond(&waiter, &json!({ "status": status }));
        } else if entry.waitable {
            return;
        }
        self.entries.remove(&pid);
    }

    /// `write` has no response: input for a process that is gone is dropped.
    fn write(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        let WriteRequest { matchtag, io } = msg.json()?;
        let mine =
            |e: &&Entry| e.request.matchtag() == matchtag && e.request.sender() == msg.sender();
        if let Some(entry) = self.entries.values().find(mine) {
            let data = Bytes::from(io.data);
            // The process may have ended by now.
            if !data.is_empty() {
                let _ = entry.process.control.send(Control::Input(data));
            }
            if io.eof {
                let _ = entry.process.control.send(Control::CloseInput);
            }
        }
        Ok(None)
    }

    fn find(&self, pid: i32, label: Option<&str>) -> Result<i32, RpcError> {
        let found = match label {
            Some(label) => self
                .entries
                .iter()
                .find(|(_, e)| e.label.as_deref() == Some(label))
                .map(|(p, _)| *p),
            None => Some(pid).filter(|pid| self.entries.contains_key(pid)),
        };
        let what = label.map_or_else(|| format!("pid {pid}"), |l| format!("label {l}"));
        found.ok_or_else(|| RpcError::new(libc::ESRCH, format!("{what} does not exist")))
    }

    fn kill(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        let KillRequest { pid, label, signum } = msg.json()?;
        let pid = self.find(pid, label.as_deref())?;
        let entry = &self.entries[&pid];
        if entry.status.is_some() || entry.process.control.send(Control::Signal(signum)).is_err() {
            return Err(RpcError::new(libc::ESRCH, format!("pid {pid} has ended")));
        }
        Ok(Value::Null)
    }

    /// Status of a waitable background process.
    fn wait(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            pid: i32,
            label: Option<String>,
        }
        msg.require_owner()?;
        let Request { pid, label } = msg.json()?;
        let pid = self.find(pid, label.as_deref())?;
        let Some(entry) = self.entries.get_mut(&pid) else {
            return Ok(None);
        };
        if !entry.waitable {
            return Err(RpcError::new(
                libc::EINVAL,
                format!("pid {pid} is not waitable"),
            ));
        }
        if let Some(status) = entry.status {
            self.entries.remove(&pid);
            return Ok(Some(json!({ "status": status })));
        }
        if entry.waiter.is_some() {
            return Err(RpcError::new(
                libc::EINVAL,
                format!("pid {pid} is already waited for"),
            ));
        }
        entry.waiter = Some(msg.clone());
        Ok(None)
    }

    fn list(&self) -> Value {
        let proc = |(pid, e): (&i32, &Entry)| {
            json!({
                "pid": pid,
                "cmd": e.cmdline.first().cloned().unwrap_or_default(),
                "label": e.label.clone().unwrap_or_default(),
                "state": if e.status.is_some() { "Z" } else { "R" },
            })
        };
        let procs: Vec<Value> = self.entries.iter().map(proc).collect();
        json!({ "rank": self.handle.rank(), "procs": procs })
    }

    fn disconnect(&mut self, msg: &Message) {
        for entry in self.entries.values() {
            if entry.request.is_streaming() && entry.request.is_same_rpc(msg, None) {
                let _ = entry.process.control.send(Control::Signal(libc::SIGKILL));
            }
        }
    }

    fn signal_all(&self, signum: i32) {
        for entry in self.entries.values().filter(|e| e.status.is_none()) {
            let _ = entry.process.control.send(Control::Signal(signum));
        }
    }
}
