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
mod groups;
mod health;
mod module;
mod start;

use std::collections::BTreeSet;
use std::time::Instant;

use client::{Handle, Inbox, Node, RpcStream};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use groups::{Change, Groups};
use health::Health;
use overlay::{Control, Incoming, Limits, Peer, Status, Topology};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{Message, RpcError};

use crate::attrs::Attrs;
use crate::boot::Tbon;
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
/// How long a broker that leaves waits for its parent to have seen it.
const FAREWELL_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// Something the program that links modules in wants done at a point of the life cycle.
pub type Hook = fn(Handle) -> BoxFuture<'static, ()>;

/// The hooks of rank 0.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// When the instance starts to run, beside the initial program.
    pub running: Hook,
    /// Instead, when a start-up script was run, which may have done part of it.
    pub running_scripted: Hook,
    /// When the initial program has ended; the brokers leave after it.
    pub cleanup: Hook,
}

/// Fixed facts of this broker.
pub(crate) struct Setup {
    pub(crate) rank: u32,
    pub(crate) topology: Topology,
    pub(crate) limits: Limits,
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
    health: Health,
    groups: Groups,
    parent_joined: bool,
    run_waiters: Vec<Message>,
    monitors: Vec<Message>,
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
        let health = Health::new(setup.rank, &setup.topology);
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
            health,
            groups: Groups::default(),
            parent_joined: false,
            run_waiters: Vec::new(),
            monitors: Vec::new(),
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
            self.router.send(Input::Overlay(Control::Goodbye));
            let left = async {
                while let Some(incoming) = peers.recv().await {
                    if matches!(incoming, Incoming::Left) {
                        break;
                    }
                }
            };
            // A parent that is gone or stuck must not keep us.
            let _ = tokio::time::timeout(FAREWELL_GRACE, left).await;
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
        self.change_group(&Change::join(groups::ONLINE, rank));
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
                let left: formats::idset::Idset = self.health.online().into_iter().collect();
                eprintln!("flux-broker: giving up on ranks {left} below");
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
        self.router.send(Input::Overlay(Control::Close));
        let children = self.health.online();
        if children.is_empty() {
            self.finalize();
            return;
        }
        for child in children {
            // The event of the whole instance's end may not come by here.
            self.handle
                .notify("shutdown.subtree", Node::Rank(child), &json!({}));
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
        self.health.update(&incoming, &self.handle);
        match incoming {
            Incoming::Joined(Peer::Parent, _) => {
                self.parent_joined = true;
                self.begin_init();
            }
            Incoming::Gone {
                peer: Peer::Child(rank),
                status,
                why,
            } => self.child_gone(rank, status, &why),
            Incoming::Gone {
                peer: Peer::Parent,
                why,
                ..
            } if self.state < State::Shutdown => {
                let text = format!("rank {}: lost the parent broker: {why}", self.setup.rank);
                self.fail(&text);
            }
            Incoming::Torpid {
                rank,
                torpid,
                silent,
            } => {
                let change = if torpid {
                    let silent = formats::fsd::format(silent.as_secs_f64());
                    self.warn(&format!("rank {rank} has been unresponsive for {silent}"));
                    Change::join(groups::TORPID, rank)
                } else {
                    self.warn(&format!("rank {rank} is responsive now"));
                    Change::leave(groups::TORPID, rank)
                };
                self.change_group(&change);
            }
            Incoming::Rejected { rank, host, why } => {
                self.warn(&format!("rejected {host} (rank {rank}): {why}"));
            }
            Incoming::Refused(why) => self.fail(&format!("the parent broker refused us: {why}")),
            // The router keeps messages to itself; the rest is for `health`.
            _ => {}
        }
    }

    /// Log something that is wrong with a peer.
    fn warn(&mut self, text: &str) {
        self.say(libc::LOG_ERR, text);
    }

    fn change_group(&mut self, change: &Change) {
        self.groups.change(change, self.setup.rank, &self.handle);
    }

    fn child_gone(&mut self, rank: u32, status: Status, why: &str) {
        let subtree = self.setup.topology.subtree(rank);
        if status == Status::Lost && self.state < State::Shutdown {
            let below = match subtree.len() - 1 {
                0 => String::new(),
                n => format!(", and with it the way to {n} other brokers"),
            };
            self.warn(&format!("rank {rank} is lost: {why}{below}"));
        }
        for rank in &subtree {
            self.online.remove(rank);
        }
        self.change_group(&Change::gone(subtree));
        if self.state == State::Shutdown && self.health.online().is_empty() {
            self.finalize();
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
            topic if topic.starts_with("groups.") => self.groups_request(msg),
            topic if topic.starts_with("overlay.") => self.overlay_request(msg),
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
            "shutdown.subtree" => Some(msg.require_owner().map(|()| {
                self.begin_shutdown();
                Value::Null
            })),
            topic if topic.ends_with(".disconnect") => None,
            _ => Some(Err(no_method(msg))),
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

    fn groups_request(&mut self, msg: &Message) -> Option<Result<Value, RpcError>> {
        let rank = self.setup.rank;
        let change = match msg.method() {
            "get" => return Some(self.groups.get(msg, rank)),
            "stats-get" => return Some(Ok(self.groups.stats())),
            "join" => self.groups.join(msg, rank),
            "leave" => self.groups.leave(msg, rank),
            "update" => {
                let change = msg.require_owner().and_then(|()| msg.json::<Change>());
                let applied = change.and_then(|change| {
                    if let Change::Gone(ranks) = &change
                        && let Ok(ranks) = ranks.parse::<formats::idset::Idset>()
                    {
                        self.online.retain(|r| !ranks.contains(*r));
                    }
                    self.groups.apply(&change, &self.handle)
                });
                return Some(applied.map(|()| Value::Null));
            }
            "disconnect" => {
                for change in self.groups.disconnect(msg, rank) {
                    self.change_group(&change);
                }
                return None;
            }
            _ => return Some(Err(no_method(msg))),
        };
        Some(change.map(|change| {
            self.change_group(&change);
            Value::Null
        }))
    }

    /// Take over what a new configuration, in the request, says of `tbon`.
    fn reload_limits(&mut self, msg: &Message) -> Result<Control, RpcError> {
        msg.require_owner()?;
        let setup = &mut self.setup;
        let limits = Tbon::reload(&setup.limits, &mut setup.attrs, &msg.json()?)
            .map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?;
        setup.limits = limits;
        Ok(Control::Limits(limits))
    }

    fn overlay_request(&mut self, msg: &Message) -> Option<Result<Value, RpcError>> {
        let control = match msg.method() {
            "health" => return Some(Ok(self.health.health(msg))),
            "topology" => return Some(self.health.topology(msg)),
            "monitor" => return self.health.monitor(msg, &self.handle).err().map(Err),
            "stats-get" => {
                let stats = self.health.stats();
                self.router.send(Input::PeerStats(msg.clone(), stats));
                return None;
            }
            "trace" => {
                self.router.send(Input::TracePeers(msg.clone()));
                return None;
            }
            "disconnect" | "cancel" => {
                self.health.forget(msg);
                self.router.send(Input::UntracePeers(msg.clone()));
                return None;
            }
            "config-reload" => self.reload_limits(msg),
            "disconnect-subtree" => self.health.disconnect_subtree(msg),
            "disconnect-parent" => health::disconnect_parent(msg),
            _ => return Some(Err(no_method(msg))),
        };
        Some(control.map(|control| {
            self.router.send(Input::Overlay(control));
            Value::Null
        }))
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

fn no_method(msg: &Message) -> RpcError {
    RpcError::new(libc::ENOSYS, format!("no method {}", msg.topic()))
}
