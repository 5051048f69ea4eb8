//! The broker's own task: its services, its modules and its life cycle.
//!
//! Life cycle, rank 0: load modules → wait for all brokers → run the initial program → clean up →
//! tell the tree to end → wait for the children → unload modules → leave. Other ranks announce
//! themselves to rank 0 once their modules are loaded and follow its shutdown event.
//!
//! Invariant: the task never waits inside a handler; everything that takes time comes back as a
//! message or a future in `tasks`.

mod attr;
mod config;
mod health;
mod module;
mod start;

use std::collections::BTreeSet;
use std::time::Instant;

use client::{Handle, Inbox, Node, RpcStream};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use overlay::{Incoming, Peer, Topology};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{Message, RpcError};

use crate::attrs::Attrs;
use crate::config::Sources;
use crate::host::{Host, News, Surroundings};
use crate::log::LogRing;
use crate::program::{self, Program, exit_code, spawn_error_code};
use crate::rc::{self, Script, Scripts};
use crate::router::{Input, RouterHandle};
use crate::state::State;

/// Services the core answers.
pub(crate) const SERVICES: &[&str] = &[
    "broker",
    "attr",
    "log",
    "module",
    "config",
    "groups",
    "overlay",
    "state-machine",
    "shutdown",
    "runat",
];

/// Event by which rank 0 tells all brokers to end.
const SHUTDOWN_EVENT: &str = "broker.shutdown";
/// How long a broker waits for its children to leave before it goes without them.
const CHILD_GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// Something the program that links modules in wants done at a point of the life cycle.
pub type Hook = fn(Handle) -> BoxFuture<'static, ()>;

/// The hooks of rank 0.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// When the instance starts to run, beside the initial program.
    pub running: Hook,
    /// When the initial program has ended; the brokers leave after it.
    pub cleanup: Hook,
}

/// Fixed facts of this broker.
pub(crate) struct Setup {
    pub(crate) rank: u32,
    pub(crate) topology: Topology,
    pub(crate) attrs: Attrs,
    pub(crate) scripts: Scripts,
    pub(crate) program: Program,
    pub(crate) program_env: Vec<(String, Option<String>)>,
    pub(crate) hooks: Hooks,
}

/// Outcomes of the work in `tasks`.
enum Done {
    Nothing,
    Announced(Result<(), RpcError>),
    Program(i32),
    CleanedUp(i32),
    GraceOver,
    /// The parent broker is done with its start-up script.
    ParentReady(Result<(), RpcError>),
    /// A script has ended.
    Rc1(i32),
    Rc3(i32),
    Config(config::Changed),
    /// The parent's configuration; the stream goes on.
    ParentConfig(Box<RpcStream>, Option<Value>),
}

/// The core's state.
pub(crate) struct Core {
    setup: Setup,
    handle: Handle,
    router: RouterHandle,
    host: Host,
    state: State,
    since: Instant,
    log: LogRing,
    config: config::Config,
    start: start::Start,
    /// Rank 0: brokers that have announced themselves.
    online: BTreeSet<u32>,
    children: BTreeSet<u32>,
    parent_joined: bool,
    run_waiters: Vec<Message>,
    monitors: Vec<Message>,
    group_watchers: Vec<Message>,
    tasks: FuturesUnordered<BoxFuture<'static, Done>>,
    kill_program: Option<tokio::sync::oneshot::Sender<i32>>,
    exit: i32,
}

impl Core {
    pub(crate) fn new(
        setup: Setup,
        (config, sources): (Value, Sources),
        handle: Handle,
        router: RouterHandle,
        host: Host,
    ) -> anyhow::Result<Self> {
        let log = LogRing::new(&setup.attrs)?;
        Ok(Self {
            setup,
            handle,
            router,
            host,
            state: State::Join,
            since: Instant::now(),
            log,
            config: config::Config::new(config, sources),
            start: start::Start::default(),
            online: BTreeSet::new(),
            children: BTreeSet::new(),
            parent_joined: false,
            run_waiters: Vec::new(),
            monitors: Vec::new(),
            group_watchers: Vec::new(),
            tasks: FuturesUnordered::new(),
            kill_program: None,
            exit: 0,
        })
    }

    /// Load this rank's modules, before peers can send requests to them.
    pub(crate) fn load_modules(&mut self) -> Result<(), RpcError> {
        let around = Surroundings {
            attrs: &self.setup.attrs,
            config: &self.config.current,
        };
        self.host.load_base(around)?;
        match self.setup.scripts.rc1 {
            Script::Builtin => self.host.load_initial(around),
            _ => Ok(()),
        }
    }

    fn is_root(&self) -> bool {
        self.setup.rank == 0
    }

    /// Run until this broker has left the instance; returns its exit code.
    pub(crate) async fn run(
        mut self,
        mut inbox: Inbox,
        mut peers: UnboundedReceiver<Incoming>,
        mut news: UnboundedReceiver<News>,
        mut signals: UnboundedReceiver<i32>,
    ) -> i32 {
        let subscribed = self.handle.rpc(
            "event.subscribe",
            Node::Any,
            &json!({"topic": SHUTDOWN_EVENT}),
        );
        self.tasks.push(Box::pin(async move {
            // Answered by our own router; it cannot fail while the broker lives.
            let _ = subscribed.await;
            Done::Nothing
        }));
        self.set_state(State::Init);
        self.begin_init();
        while self.state != State::Goodbye {
            tokio::select! {
                biased;
                Some(msg) = inbox.recv() => self.message(&msg),
                Some(incoming) = peers.recv() => self.peer(incoming),
                Some(news) = news.recv() => self.module_news(news),
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => self.done(done),
                Some(signum) = signals.recv() => self.signal(signum),
            }
        }
        if !self.is_root() {
            self.router.send(Input::Goodbye(Peer::Parent));
        }
        self.exit
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
        self.since = Instant::now();
        for req in &self.monitors {
            self.handle
                .respond(req, &json!({ "state": state.number() }));
        }
    }

    /// Tell rank 0 that this broker is ready.
    fn announce(&mut self) {
        if self.is_root() {
            self.set_state(State::Quorum);
            self.came_online(0);
            return;
        }
        if !self.parent_joined {
            return;
        }
        let rpc = self.handle.rpc(
            "broker.online",
            Node::Rank(0),
            &json!({"rank": self.setup.rank}),
        );
        self.tasks.push(Box::pin(
            async move { Done::Announced(rpc.await.map(drop)) },
        ));
    }

    fn came_online(&mut self, rank: u32) {
        self.online.insert(rank);
        let members = self.members("broker.online");
        for req in &self.group_watchers {
            self.handle.respond(req, &json!({ "members": members }));
        }
        if self.state == State::Quorum && self.online.len() as u32 == self.setup.topology.size() {
            self.enter_run();
        }
    }

    fn enter_run(&mut self) {
        self.set_state(State::Run);
        for req in std::mem::take(&mut self.run_waiters) {
            self.handle.respond_ok(&req);
        }
        if !self.is_root() {
            return;
        }
        let running = (self.setup.hooks.running)(self.handle.clone());
        self.tasks.push(Box::pin(async move {
            running.await;
            Done::Nothing
        }));
        if self
            .setup
            .attrs
            .get("broker.rc2_none")
            .is_some_and(|v| v != "0")
        {
            return;
        }
        match self.setup.program.spawn(&self.setup.program_env) {
            Ok(mut child) => {
                let (tx, mut rx) = tokio::sync::oneshot::channel::<i32>();
                self.kill_program = Some(tx);
                self.tasks.push(Box::pin(async move {
                    let status = tokio::select! {
                        status = child.wait() => status,
                        Ok(signum) = &mut rx => {
                            if let Some(pid) = child.id() {
                                program::signal(pid, signum);
                            }
                            child.wait().await
                        }
                    };
                    Done::Program(status.map_or(1, exit_code))
                }));
            }
            Err(e) => {
                eprintln!("flux-broker: cannot run {}: {e}", self.setup.program.name());
                let code = spawn_error_code(&e);
                self.tasks
                    .push(Box::pin(async move { Done::Program(code) }));
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            // The shutdown event may have overtaken the answer.
            Done::Announced(Ok(())) if self.state < State::Run => self.enter_run(),
            Done::Announced(Ok(())) => {}
            Done::Announced(Err(e)) => {
                self.fail(&format!(
                    "rank {} could not join the instance: {e}",
                    self.setup.rank
                ));
            }
            Done::Program(code) => {
                let level = if code == 0 {
                    libc::LOG_INFO
                } else {
                    libc::LOG_ERR
                };
                let seconds = self.since.elapsed().as_secs_f64();
                let name = self.setup.program.line();
                self.say(
                    level,
                    &format!("rc2.0: {name} Exited (rc={code}) {seconds:.1}s"),
                );
                self.exit = code;
                self.begin_cleanup();
            }
            Done::CleanedUp(code) => {
                if self.exit == 0 {
                    self.exit = code;
                }
                self.begin_shutdown();
            }
            Done::ParentReady(Ok(())) => self.run_rc1(),
            Done::ParentReady(Err(e)) => {
                self.fail(&format!(
                    "rank {}: the parent broker has not started: {e}",
                    self.setup.rank
                ));
            }
            Done::Rc1(code) => self.rc1_ended(code),
            Done::Rc3(code) => {
                self.start.leaving = false;
                if self.exit == 0 {
                    self.exit = code;
                }
                self.unload_next();
            }
            Done::Config(changed) => self.config_changed(changed),
            Done::ParentConfig(stream, config) => self.parent_config(*stream, config),
            Done::GraceOver if self.state == State::Shutdown => {
                let left: Vec<_> = self.children.iter().map(u32::to_string).collect();
                eprintln!("flux-broker: giving up on ranks {} below", left.join(","));
                self.children.clear();
                self.finalize();
            }
            Done::GraceOver => {}
        }
    }

    /// End this broker because it cannot go on.
    fn fail(&mut self, why: &str) {
        eprintln!("flux-broker: {why}");
        self.exit = 1;
        self.begin_shutdown();
    }

    fn begin_cleanup(&mut self) {
        self.kill_program = None;
        self.set_state(State::Cleanup);
        let cleaned = (self.setup.hooks.cleanup)(self.handle.clone());
        let builtin = self.setup.scripts.rc1 == Script::Builtin;
        let pushed = rc::run(
            "cleanup",
            self.start.cleanup(),
            self.setup.program_env.clone(),
            self.router.clone(),
        );
        self.tasks.push(Box::pin(async move {
            // Who wrote the start-up script says what there is to clean up.
            if builtin {
                cleaned.await;
            }
            Done::CleanedUp(pushed.await)
        }));
    }

    fn begin_shutdown(&mut self) {
        if self.state >= State::Shutdown {
            return;
        }
        self.set_state(State::Shutdown);
        if self.is_root() {
            let handle = self.handle.clone();
            self.tasks.push(Box::pin(async move {
                // The event is published by our own router.
                let _ = handle.publish(SHUTDOWN_EVENT, &json!({})).await;
                Done::Nothing
            }));
        }
        if self.children.is_empty() {
            self.finalize();
            return;
        }
        self.tasks.push(Box::pin(async {
            tokio::time::sleep(CHILD_GRACE).await;
            Done::GraceOver
        }));
    }

    fn finalize(&mut self) {
        self.set_state(State::Finalize);
        match &self.setup.scripts.rc3 {
            Script::Command(line) if self.start.ran() => {
                let (env, router) = (self.setup.program_env.clone(), self.router.clone());
                self.start.leaving = true;
                let run = rc::run("rc3", vec![line.clone()], env, router);
                self.tasks
                    .push(Box::pin(async move { Done::Rc3(run.await) }));
            }
            _ => self.unload_next(),
        }
    }

    fn unload_next(&mut self) {
        match self.host.last().map(str::to_owned) {
            // The module named last is loaded, so unloading it cannot fail.
            Some(name) => drop(self.host.unload(&name, None, false)),
            None => self.set_state(State::Goodbye),
        }
    }

    fn peer(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Joined(Peer::Child(rank)) => drop(self.children.insert(rank)),
            Incoming::Joined(Peer::Parent) => {
                self.parent_joined = true;
                self.begin_init();
            }
            Incoming::Gone(Peer::Child(rank)) => {
                self.children.remove(&rank);
                if self.state == State::Shutdown && self.children.is_empty() {
                    self.finalize();
                }
            }
            Incoming::Gone(Peer::Parent) => {
                if self.state < State::Shutdown {
                    self.fail(&format!("rank {}: lost the parent broker", self.setup.rank));
                }
            }
            Incoming::Refused(why) => self.fail(&format!("the parent broker refused us: {why}")),
            // The router keeps messages to itself.
            Incoming::Message(..) => {}
        }
    }

    fn signal(&mut self, signum: i32) {
        match self.kill_program.take() {
            // The program's end starts the cleanup.
            Some(kill) => drop(kill.send(signum)),
            None if self.is_root() && self.state == State::Run => {
                // Without an initial program nothing else ends the instance.
                if self.setup.attrs.get("broker.rc2_none").is_some() {
                    self.begin_cleanup();
                }
            }
            None => {
                self.exit = 128 + signum;
                self.begin_shutdown();
            }
        }
    }

    fn message(&mut self, msg: &Message) {
        if msg.is_event() {
            if msg.topic() == SHUTDOWN_EVENT {
                self.begin_shutdown();
            }
            return;
        }
        if let Some(result) = self.request(msg) {
            match result {
                Ok(Value::Null) => self.handle.respond_ok(msg),
                Ok(value) => self.handle.respond(msg, &value),
                Err(e) => self.handle.respond_error(msg, &e),
            }
        }
    }

    /// Handle a request; `None` if it is answered later or elsewhere.
    fn request(&mut self, msg: &Message) -> Option<Result<Value, RpcError>> {
        match msg.topic() {
            "attr.get" => Some(attr::get(&self.setup.attrs, msg)),
            "attr.list" => Some(Ok(json!({ "names": self.setup.attrs.names() }))),
            "attr.set" => Some(attr::set(&mut self.setup.attrs, &mut self.log, msg)),
            "attr.rm" => Some(attr::rm(&mut self.setup.attrs, msg)),
            "module.list" => Some(Ok(self.host.list())),
            "module.load" => {
                let around = Surroundings {
                    attrs: &self.setup.attrs,
                    config: &self.config.current,
                };
                module::load(&mut self.host, around, msg)
            }
            "module.remove" => module::remove(&mut self.host, msg),
            "module.status" => Some(module::status(&mut self.host, msg)),
            "module.debug" => Some(module::debug(&self.host, msg)),
            "module.trace" => module::trace(&self.router, msg),
            "module.disconnect" => {
                self.router.send(Input::Untrace(msg.clone()));
                None
            }
            "log.append" => Some(self.log_append(msg)),
            "log.dmesg" => self.log.dmesg(msg, &self.handle),
            "log.stats-get" => Some(Ok(self.log.stats())),
            "log.clear" => Some(self.log.clear(msg)),
            "log.cancel" => {
                self.log.cancel(msg, &self.handle);
                None
            }
            "log.disconnect" => {
                self.log.disconnect(msg);
                None
            }
            "config.get" => Some(Ok(self.config.get(msg))),
            "config.load" | "config.reload" => {
                let root = self.is_root();
                let result = self.config.change(msg, root);
                self.next_config();
                result.err().map(Err)
            }
            "config.disconnect" => {
                self.config.disconnect(msg);
                None
            }
            "runat.push" => Some(self.start.push(msg)),
            "broker.ready" => {
                self.start.wait(msg, &self.handle);
                None
            }
            "broker.getenv" => Some(start::getenv(&self.setup.program_env, msg)),
            "broker.setenv" => Some(start::setenv(&mut self.setup.program_env, msg)),
            "broker.conf-builtin" => Some(start::conf_builtin(&self.setup.attrs, msg)),
            "broker.rusage" | "broker.debug" | "broker.config-reload" | "broker.stats-clear" => {
                Some(self.start.default_method(msg))
            }
            "broker.online" => Some(self.online(msg)),
            "broker.stats-get" | "overlay.stats-get" => Some(Ok(health::stats(&self.children))),
            "groups.get" => self.groups_get(msg),
            "groups.disconnect" => {
                self.group_watchers
                    .retain(|req| !req.is_same_rpc(msg, None));
                None
            }
            "overlay.health" => Some(Ok(health::health(
                &self.setup,
                &self.online,
                &self.children,
            ))),
            "overlay.topology" => Some(health::topology(&self.setup.topology, msg)),
            "state-machine.get" => Some(Ok(json!({
                "state": self.state.name(),
                "duration": self.since.elapsed().as_secs_f64(),
            }))),
            "state-machine.wait" => match self.state {
                State::Run => Some(Ok(Value::Null)),
                s if s > State::Run => Some(Err(RpcError::new(
                    libc::ENODATA,
                    format!("the instance is past its run state: {s}"),
                ))),
                _ => {
                    self.run_waiters.push(msg.clone());
                    None
                }
            },
            "state-machine.monitor" => {
                self.handle
                    .respond(msg, &json!({ "state": self.state.number() }));
                if msg.is_streaming() {
                    self.monitors.push(msg.clone());
                }
                None
            }
            "state-machine.disconnect" => {
                self.monitors.retain(|req| !req.is_same_rpc(msg, None));
                None
            }
            "shutdown.start" => Some(self.shutdown(msg)),
            topic if topic.ends_with(".disconnect") => None,
            _ => Some(Err(RpcError::new(
                libc::ENOSYS,
                format!("no method {}", msg.topic()),
            ))),
        }
    }

    fn online(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            rank: u32,
        }
        msg.require_owner()?;
        let Request { rank } = msg.json()?;
        if rank >= self.setup.topology.size() {
            return Err(RpcError::new(
                libc::EINVAL,
                format!("rank {rank} is not in this instance"),
            ));
        }
        self.came_online(rank);
        Ok(Value::Null)
    }

    /// Ranks in a group; only `broker.online` has any so far.
    fn members(&self, group: &str) -> String {
        if group != "broker.online" {
            return String::new();
        }
        self.online
            .iter()
            .copied()
            .collect::<formats::idset::Idset>()
            .to_string()
    }

    fn groups_get(&mut self, msg: &Message) -> Option<Result<Value, RpcError>> {
        #[derive(Deserialize)]
        struct Request {
            name: String,
        }
        let name = match msg.json::<Request>() {
            Ok(req) => req.name,
            Err(e) => return Some(Err(e)),
        };
        if !self.is_root() {
            let text = "groups.get works on rank 0 only";
            return Some(Err(RpcError::new(libc::EPROTO, text)));
        }
        if !name.starts_with("broker.") {
            return Some(Err(RpcError::new(libc::ENOENT, format!("no group {name}"))));
        }
        let answer = json!({ "members": self.members(&name) });
        if msg.is_streaming() && name == "broker.online" {
            self.group_watchers.push(msg.clone());
        }
        Some(Ok(answer))
    }

    fn shutdown(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        if !self.is_root() {
            return Err(RpcError::new(libc::EINVAL, "shutdown works on rank 0 only"));
        }
        // What a terminal sends that goes away: a shell ends and takes its jobs along.
        if self.state == State::Run {
            self.signal(libc::SIGHUP);
        }
        Ok(Value::Null)
    }
}
