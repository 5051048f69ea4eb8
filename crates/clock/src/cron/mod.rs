//! Module `cron`, on rank 0: commands run at intervals, at times and on events, through `rexec` on any rank.
//!
//! With a synchronisation event (`sync=TOPIC`, by default the pulse of `heartbeat`) commands that become due wait for
//! the next such event, unless one was just now (`sync_epsilon`). One command of an entry runs at a time; output goes
//! to the broker's log.

mod date;
mod entry;

use std::collections::{BTreeMap, VecDeque};

use client::module::{Context, ModuleError, ModuleResult};
use client::{Handle, Message, Node, RpcStream};
use formats::fsd;
use formats::subprocess::{ExecResponse, FLAG_STDERR, FLAG_STDOUT};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::RpcError;

use self::entry::{Create, Entry, Verdict, When};
use crate::{now, seconds};

/// How long after a synchronisation event a command may still be run at once, in seconds.
const EPSILON: f64 = 0.015;
/// What commands write is wanted.
const OUTPUT: u32 = FLAG_STDOUT | FLAG_STDERR;

/// What came of a running command.
enum Done {
    /// The next response about entry's command; the stream goes on.
    Response(u64, Box<RpcStream>, Option<Result<Message, RpcError>>),
    /// It has run for as long as it may.
    Timeout(u64, i32),
    Nothing,
}

struct Sync {
    topic: String,
    last: f64,
}

struct Cron {
    handle: Handle,
    entries: BTreeMap<u64, Entry>,
    last_id: u64,
    sync: Option<Sync>,
    epsilon: f64,
    /// Entries whose command waits for the synchronisation event.
    deferred: VecDeque<u64>,
    tasks: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Entry point of module `cron`.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    let mut cron = Cron {
        handle,
        entries: BTreeMap::new(),
        last_id: 0,
        sync: None,
        epsilon: EPSILON,
        deferred: VecDeque::new(),
        tasks: FuturesUnordered::new(),
    };
    for arg in &args {
        match arg.split_once('=') {
            Some(("sync", topic)) => cron.sync_to(Some(topic)),
            Some(("sync_epsilon", text)) => {
                cron.epsilon = fsd::parse(text).map_err(|e| ModuleError::new("sync_epsilon", e))?;
            }
            _ => return Err(ModuleError::unknown_argument(arg)),
        }
    }
    loop {
        let due = cron.entries.values().filter_map(|e| e.due);
        let next = due.reduce(f64::min);
        // Woken early, it is asked again.
        let wait = seconds(next.map_or(3600., |at| at - now()));
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => cron.message(&msg),
                None => return Ok(()),
            },
            Some(done) = cron.tasks.next(), if !cron.tasks.is_empty() => cron.done(done),
            () = tokio::time::sleep(wait) => cron.run_due(),
        }
    }
}

impl Cron {
    fn say(&self, level: i32, text: &str) {
        self.handle.say("cron", level as u8, text);
    }

    fn subscribe(&mut self, topic: &str, on: bool) {
        let topic = topic.to_owned();
        let handle = self.handle.clone();
        self.tasks.push(Box::pin(async move {
            // Answered by the broker beside us; a topic can always be subscribed to.
            let _ = match on {
                true => handle.subscribe(&topic).await,
                false => handle.unsubscribe(&topic).await,
            };
            Done::Nothing
        }));
    }

    fn sync_to(&mut self, topic: Option<&str>) {
        if let Some(old) = self.sync.take() {
            self.subscribe(&old.topic, false);
        }
        if let Some(topic) = topic {
            self.say(
                libc::LOG_INFO,
                &format!("synchronizing cron tasks to event {topic}"),
            );
            self.subscribe(topic, true);
            let topic = topic.to_owned();
            self.sync = Some(Sync { topic, last: 0. });
        }
    }

    fn message(&mut self, msg: &Message) {
        if msg.is_event() {
            return self.event(msg.topic());
        }
        let known = ["create", "delete", "list", "stop", "start", "sync"];
        if msg.method() == "disconnect" {
            return;
        }
        if !known.contains(&msg.method()) {
            return self.handle.respond_enosys(msg);
        }
        let result = msg.require_owner().and_then(|()| match msg.method() {
            "create" => self.create(msg),
            "delete" => self.delete(msg),
            "stop" => self.find(msg).and_then(|e| e.stop().map(|()| e.to_json())),
            "start" => self
                .find(msg)
                .and_then(|e| e.start(now()).map(|()| e.to_json())),
            "sync" => self.sync(msg),
            _ => {
                let entries: Vec<Value> = self.entries.values().map(Entry::to_json).collect();
                Ok(json!({ "entries": entries }))
            }
        });
        self.handle.respond_result(msg, result);
    }

    fn create(&mut self, msg: &Message) -> Result<Value, RpcError> {
        let create: Create = msg.json()?;
        let entry = Entry::new(self.last_id + 1, create, now())?;
        self.last_id += 1;
        if let When::Event(on) = &entry.when {
            let topic = on.topic.clone();
            self.subscribe(&topic, true);
        }
        let answer = entry.to_json();
        self.entries.insert(entry.id, entry);
        Ok(answer)
    }

    fn find(&mut self, msg: &Message) -> Result<&mut Entry, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: u64,
        }
        let Request { id } = msg.json()?;
        let none = || RpcError::new(libc::ENOENT, format!("cron-{id} does not exist"));
        let entry = self.entries.get_mut(&id).filter(|e| !e.deleted);
        entry.ok_or_else(none)
    }

    fn delete(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            kill: bool,
        }
        let Request { kill } = msg.json()?;
        let entry = self.find(msg)?;
        let answer = entry.to_json();
        // It may be stopped already.
        let _ = entry.stop();
        entry.deleted = true;
        let (id, rank) = (entry.id, entry.rank);
        let pid = entry.current.as_ref().map(|run| run.pid);
        let topic = match &entry.when {
            When::Event(on) => Some(on.topic.clone()),
            _ => None,
        };
        match pid {
            None => drop(self.entries.remove(&id)),
            Some(pid) if kill && pid > 0 => self.kill(rank, pid),
            Some(_) => {}
        }
        if let Some(topic) = topic {
            self.subscribe(&topic, false);
        }
        Ok(answer)
    }

    fn sync(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            topic: Option<String>,
            #[serde(default)]
            disable: bool,
            sync_epsilon: Option<f64>,
        }
        let Request {
            topic,
            disable,
            sync_epsilon,
        } = msg.json()?;
        if topic.is_some() || disable {
            self.sync_to(topic.as_deref());
        }
        self.epsilon = sync_epsilon.unwrap_or(self.epsilon);
        match &self.sync {
            Some(sync) => Ok(json!({ "sync_event": sync.topic, "sync_epsilon": self.epsilon })),
            None => {
                // What waited for an event that is not waited for any more runs now.
                self.run_deferred();
                Ok(json!({ "sync_disabled": true }))
            }
        }
    }

    fn event(&mut self, topic: &str) {
        let now = now();
        if let Some(sync) = &mut self.sync
            && topic.starts_with(sync.topic.as_str())
        {
            sync.last = now;
            self.run_deferred();
        }
        let due: Vec<u64> = self
            .entries
            .values_mut()
            .filter_map(|e| e.event(topic, now).then_some(e.id))
            .collect();
        due.into_iter().for_each(|id| self.schedule(id));
    }

    fn run_due(&mut self) {
        let now = now();
        let due = self.entries.values();
        let due = due.filter(|e| e.due.is_some_and(|at| at <= now));
        let ids: Vec<u64> = due.map(|e| e.id).collect();
        ids.into_iter().for_each(|id| self.schedule(id));
    }

    fn schedule(&mut self, id: u64) {
        let now = now();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if !entry.schedule(now) {
            if entry.current.is_some() {
                let text = format!("cron-{id}: {}: task still running or scheduled", entry.name);
                self.say(libc::LOG_INFO, &text);
            }
            return;
        }
        match &self.sync {
            Some(sync) if now - sync.last >= self.epsilon => {
                entry.deferred();
                let text = format!("deferring cron-{id} to next {} event", sync.topic);
                self.deferred.push_back(id);
                self.say(libc::LOG_DEBUG, &text);
            }
            _ => self.run(id),
        }
    }

    fn run_deferred(&mut self) {
        for id in std::mem::take(&mut self.deferred) {
            self.run(id);
        }
    }

    fn run(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.deleted {
            self.entries.remove(&id);
            return;
        }
        entry.begun(now());
        let env = entry.environ.clone().unwrap_or_else(own_environment);
        let mut cmd = json!({
            "cmdline": ["sh", "-c", entry.command], "env": env, "opts": {}, "channels": [],
        });
        if let Some(cwd) = &entry.cwd {
            cmd["cwd"] = cwd.as_str().into();
        }
        let request = json!({ "cmd": cmd, "flags": OUTPUT });
        let rank = Node::Rank(entry.rank);
        let stream = self.handle.stream("rexec.exec", rank, &request);
        self.tasks.push(Box::pin(next(id, stream)));
    }

    fn kill(&mut self, rank: u32, pid: i32) {
        let request = json!({ "pid": pid, "signum": libc::SIGTERM });
        let rpc = self.handle.rpc("rexec.kill", Node::Rank(rank), &request);
        self.tasks.push(Box::pin(async move {
            // It may have ended by now.
            let _ = rpc.await;
            Done::Nothing
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Timeout(id, pid) => {
                let running = |e: &&mut Entry| e.current.as_ref().is_some_and(|r| r.pid == pid);
                if let Some(entry) = self.entries.get_mut(&id).filter(running) {
                    entry.timed_out();
                    let rank = entry.rank;
                    self.kill(rank, pid);
                }
            }
            Done::Response(id, _, None) => {
                let e = RpcError::new(libc::EPROTO, "rexec ended without a status");
                self.ended(id, Err(&e));
            }
            Done::Response(id, _, Some(Err(e))) => self.ended(id, Err(&e)),
            Done::Response(id, stream, Some(Ok(msg))) => self.response(id, *stream, &msg),
        }
    }

    fn response(&mut self, id: u64, stream: RpcStream, msg: &Message) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match msg.json() {
            Ok(ExecResponse::Started { pid }) => {
                entry.running(pid, now());
                if let Some(timeout) = entry.timeout.filter(|t| *t > 0.) {
                    self.tasks.push(Box::pin(async move {
                        tokio::time::sleep(seconds(timeout)).await;
                        Done::Timeout(id, pid)
                    }));
                }
            }
            Ok(ExecResponse::Output { io, .. }) => {
                let level = match io.stream.as_str() {
                    "stderr" => libc::LOG_ERR,
                    _ => libc::LOG_INFO,
                };
                let text = String::from_utf8_lossy(&io.data);
                let (name, rank, command) = (&entry.name, entry.rank, &entry.command);
                let lines = text.lines().map(|line| {
                    format!("cron-{id}[{name}]: rank={rank}: command=\"{command}\": \"{line}\"")
                });
                let lines: Vec<String> = lines.collect();
                lines.iter().for_each(|line| self.say(level, line));
            }
            Ok(ExecResponse::Finished { status }) => return self.ended(id, Ok(status)),
            Ok(_) => {}
            Err(e) => return self.ended(id, Err(&e)),
        }
        self.tasks.push(Box::pin(next(id, stream)));
    }

    fn ended(&mut self, id: u64, result: Result<i32, &RpcError>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Verdict::Failed(text) = entry.ended(result, now()) {
            let over = entry.gives_up();
            let limit = entry.failure_limit();
            self.say(libc::LOG_ERR, &format!("cron-{id}: {text}"));
            if over {
                let text = format!("cron-{id}: exceeded failure limit of {limit}. stopping");
                self.say(libc::LOG_ERR, &text);
            }
        }
        if self.entries.get(&id).is_some_and(|e| e.deleted) {
            self.entries.remove(&id);
        }
    }
}

async fn next(id: u64, mut stream: RpcStream) -> Done {
    let response = stream.next().await;
    Done::Response(id, Box::new(stream), response)
}

/// The broker's environment, for commands that were given none.
fn own_environment() -> Map<String, Value> {
    let vars = std::env::vars_os();
    vars.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?.into())))
        .collect()
}
