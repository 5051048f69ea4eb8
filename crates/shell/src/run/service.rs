//! What others ask of the shell: the methods of its service, and events.
//!
//! Methods of the service, all for the job's owner only:
//!
//! | method | from | payload |
//! |---|---|---|
//! | `write` | other shells | `{shell_rank, batch, entries:[{name, context}]}` for the output log; each batch once |
//! | `stdin` | users; the leader | the context of a data event |
//! | `doom` | other shells | the first task exit of that shell |
//! | `tasks-complete` | other shells | `{shell_rank}` |
//! | `pmi-exchange` | other shells | `{shell_rank, round, entries}` for the PMI key-value store |
//! | `pmix-exchange` | other shells | the same, with the data of a fence |
//! | `pmix-modex` | other shells | `{rank}` of the task whose data is wanted |
//! | `proctable` | debuggers' front ends; the leader | |
//! | `exception` | job-exec | `{type:"lost-shell", severity, shell_rank, message}` |
//! | `rexec.*` | users | see `super::processes` |
//! | `terminus.*` | users | see crate `terminus` |
//! | others | users | for the plugins that have registered them |

use super::{Event, FirstExit, Running};
use crate::{
    Fatal,
    gather::Gift,
    log::{Level, event_line},
    options::InputOptions,
    output::{self, Sink, Stream},
};
use client::Node;
use formats::IoData;
use nix::sys::signal::Signal;
use plugin_sdk::Args;
use serde_json::{Map, Value, json};
use std::rc::Rc;
use tokio::task::spawn_local;
use wire::{Message, RpcError};

impl Running {
    pub(super) async fn message(&mut self, message: Message) -> Result<(), Fatal> {
        if message.is_event() {
            match message.topic().split_once('.') {
                Some((_, "kill")) => self.kill_event(&message).await,
                Some((_, subtopic)) => {
                    let payload = message.json().unwrap_or_default();
                    self.plugin_event(subtopic, payload).await;
                }
                None => {}
            }
            return Ok(());
        }
        let uid = nix::unistd::getuid().as_raw();
        match message.require_user(uid) {
            Ok(()) => self.request(message).await,
            Err(e) => {
                self.shell.handle.respond_error(&message, &e);
                Ok(())
            }
        }
    }

    async fn kill_event(&mut self, message: &Message) {
        let payload = message.json::<Value>().unwrap_or_default();
        let signum = payload.get("signum").and_then(Value::as_i64);
        let complaint = match signum.map(i32::try_from) {
            None => format!("kill: ignoring malformed event without signum: {payload}"),
            Some(Ok(signum)) if Signal::try_from(signum).is_ok() => return self.kill_tasks(signum),
            Some(_) => {
                let text = wire::strerror(libc::EINVAL);
                format!("kill: signal {}: {text}", signum.unwrap_or(0))
            }
        };
        self.shell.logger.log(Level::Warning, &complaint).await;
    }

    async fn request(&mut self, message: Message) -> Result<(), Fatal> {
        let handle = self.shell.handle.clone();
        let method = message.method().to_owned();
        match method.split_once('.') {
            Some(("rexec", method)) => self.processes.request(method, &message),
            Some(("terminus", method)) => self.terminals.server.request(method, &message),
            None if method == "disconnect" => {
                self.processes.disconnect(&message);
                self.terminals.server.request("disconnect", &message);
            }
            Some(_) => handle.respond_enosys(&message),
            None => return self.own_request(&method, message).await,
        }
        Ok(())
    }

    async fn own_request(&mut self, method: &str, message: Message) -> Result<(), Fatal> {
        let handle = self.shell.handle.clone();
        let payload = match message.json::<Map<String, Value>>() {
            Ok(payload) => payload,
            Err(e) => {
                handle.respond_error(&message, &e);
                return Ok(());
            }
        };
        let number = |key: &str| payload.get(key).and_then(Value::as_u64);
        let rank = || number("shell_rank").map(|r| r as u32);
        let bad = |what: &str| RpcError::proto(format!("{method}: {what}"));
        match method {
            "stdin" => {
                let outcome = self.stdin(&payload).await;
                handle.respond_result(&message, outcome.map(|()| json!({})));
            }
            "write" if self.is_leader() && self.has_written(rank(), number("batch")) => {
                handle.respond_ok(&message);
            }
            "write" if self.is_leader() => match self.write(&payload) {
                Some(work) => {
                    spawn_local(async move {
                        work.await;
                        handle.respond_ok(&message);
                    });
                }
                None => handle.respond_error(&message, &bad("bad output entry")),
            },
            "doom" if self.is_leader() => {
                handle.respond_ok(&message);
                self.first_task_exit(Value::Object(payload)).await?;
            }
            "tasks-complete" if self.is_leader() => match rank() {
                Some(rank) => {
                    handle.respond_ok(&message);
                    self.shell_complete(rank).await?;
                }
                None => handle.respond_error(&message, &bad("shell_rank is missing")),
            },
            "pmi-exchange" if self.is_leader() => {
                match Gift::from_request(&payload, message.clone()) {
                    Some(gift) => self.gather(gift),
                    None => handle.respond_error(&message, &bad("malformed entries")),
                }
            }
            "pmix-exchange" if self.is_leader() => self.pmix_exchange(&payload, message),
            "proctable" => self.proctable(message),
            "pmix-modex" => self.pmix_modex(&payload, message),
            "exception" if self.is_leader() => {
                handle.respond_ok(&message);
                return self.exception(&payload, rank()).await;
            }
            _ => {
                if !self.plugin_request(method, &Value::Object(payload), &message) {
                    handle.respond_enosys(&message);
                }
            }
        }
        Ok(())
    }

    /// Standard input: recorded and passed on by the leader, given to tasks by all.
    async fn stdin(&mut self, payload: &Map<String, Value>) -> Result<(), RpcError> {
        if self.shell.options.input != InputOptions::Service {
            return Err(RpcError::new(
                libc::ENOSYS,
                "standard input is read from a file",
            ));
        }
        let io = IoData::from_context(payload).map_err(|e| RpcError::proto(e.to_string()))?;
        if let Some(log) = &self.shell.log {
            self.input.accept(&io)?;
            log.append("input", "data", Value::Object(payload.clone()))
                .await;
            let topic = format!("{}.stdin", self.shell.service);
            for place in self.shell.info.places.iter().skip(1) {
                self.shell
                    .handle
                    .notify(&topic, Node::Rank(place.broker_rank), payload);
            }
        }
        self.input.deliver(&io);
        Ok(())
    }

    /// Whether a shell sends this for the second time, having lost the answer.
    fn has_written(&mut self, shell: Option<u32>, batch: Option<u64>) -> bool {
        let Some((shell, batch)) = shell.zip(batch) else {
            return false;
        };
        self.written
            .insert(shell, batch)
            .is_some_and(|last| last >= batch)
    }

    /// The work of storing entries that another shell has sent, in their order.
    fn write(&self, payload: &Map<String, Value>) -> Option<impl Future<Output = ()> + 'static> {
        let entries = payload.get("entries")?.as_array()?;
        let work = entries
            .iter()
            .map(|entry| self.entry(entry))
            .collect::<Option<Vec<_>>>()?;
        let events = self.events.clone();
        Some(async move {
            for (entry, sink) in work {
                if let Some(text) = store(entry, sink).await {
                    let _ = events.send(Event::Complaint(text));
                }
            }
        })
    }

    /// An entry of another shell and where it goes.
    fn entry(&self, entry: &Value) -> Option<(OutputEntry, Sink)> {
        let context = entry.get("context")?.as_object()?;
        let stream = context
            .get("stream")
            .and_then(Value::as_str)
            .and_then(Stream::from_name);
        let sink = self
            .shell
            .output
            .shared(stream.unwrap_or(Stream::Stderr))
            .or_else(|| {
                // A leader without tasks has no files open, but the KVS takes everything.
                let log = self.shell.log.clone()?;
                let limit = Rc::new(output::Limit::new(u64::MAX));
                Some(Sink::Kvs { log, limit })
            })?;
        let entry = match entry.get("name")?.as_str()? {
            "data" => OutputEntry::Data(IoData::from_context(context).ok()?),
            "log" => OutputEntry::Log(context.clone()),
            _ => return None,
        };
        Some((entry, sink))
    }

    /// job-exec reports on another shell.
    async fn exception(
        &mut self,
        payload: &Map<String, Value>,
        rank: Option<u32>,
    ) -> Result<(), Fatal> {
        if let Some(text) = payload.get("message").and_then(Value::as_str) {
            self.shell.logger.log(Level::Warning, text).await;
        }
        let lost = payload.get("type").and_then(Value::as_str) == Some("lost-shell");
        let Some(rank) = rank.filter(|_| lost) else {
            return Ok(());
        };
        let mut args = Args::default();
        args.input.insert("shell_rank".into(), rank.into());
        args.input.insert(
            "severity".into(),
            payload.get("severity").cloned().unwrap_or_default(),
        );
        self.shell.plugins.call("shell.lost", &mut args)?;
        self.shell_complete(rank).await?;
        let host = self
            .shell
            .info
            .places
            .get(rank as usize)
            .map(|p| p.host.clone());
        let host = host.unwrap_or_else(|| "unknown".into());
        self.check_exit(FirstExit {
            what: "shell",
            rank,
            host,
            status: None,
        })
    }
}

/// What another shell has for the output log.
enum OutputEntry {
    Data(IoData),
    Log(Map<String, Value>),
}

/// Stores an entry of another shell. Returns a complaint for the log, if there is one.
async fn store(entry: OutputEntry, sink: Sink) -> Option<String> {
    match (entry, sink) {
        (OutputEntry::Data(io), Sink::File(_)) if io.data.is_empty() => None,
        (OutputEntry::Data(io), sink) => sink.write(io).await,
        (OutputEntry::Log(context), Sink::Kvs { log, .. }) => {
            log.append("output", "log", Value::Object(context)).await;
            None
        }
        (OutputEntry::Log(context), Sink::File(file)) => {
            if let Some(line) = event_line(&context) {
                file.write_line(&line);
            }
            None
        }
        // The leader has no leader.
        (OutputEntry::Log(_), Sink::Leader(_)) => None,
    }
}
