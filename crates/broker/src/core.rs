//! The broker's own task: its services, its modules and its life cycle.
//!
//! Invariant: the task never waits inside a handler; everything that takes time comes back as a
//! message or a future in `tasks`.

mod attr;
mod config;
mod end;
mod groups;
mod health;
mod life;
mod module;
mod monitor;
pub(crate) mod patience;
mod start;

use std::sync::Arc;

use client::module::Meter;
use client::{Handle, Inbox, RpcStream};
use end::Ending;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use groups::{Change, Groups};
use health::Health;
use life::{Life, Timer};
use monitor::Monitors;
use overlay::{Control, Incoming, Limits, Peer, Topology};
use patience::Patience;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use wire::{Message, RpcError};

use crate::access::{Access, Door};
use crate::attrs::Attrs;
use crate::boot::Tbon;
use crate::config::Sources;
use crate::host::{Host, News, Surroundings};
use crate::log::LogRing;
use crate::program::Program;
use crate::rc::{Script, Scripts};
use crate::router::{Input, RouterHandle};
use crate::state::{Event, State};
use crate::systemd::Systemd;

/// Services the core answers.
pub(crate) const SERVICES: &[&str] = &[
    "broker",
    "attr",
    "log",
    "module",
    "config",
    "groups",
    "overlay",
    "connector-local",
    "state-machine",
    "shutdown",
    "runat",
];

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
    pub(crate) patience: Patience,
    pub(crate) attrs: Attrs,
    pub(crate) scripts: Scripts,
    pub(crate) program: Program,
    pub(crate) program_env: Vec<(String, Option<String>)>,
    pub(crate) hooks: Hooks,
}

/// Outcomes of the work in `tasks`.
enum Done {
    Nothing,
    /// The next state of the parent, or why there is none.
    Above(Box<RpcStream>, Result<i32, RpcError>),
    /// The initial program has ended: its code, and the entry for the log.
    Program(i32, (i32, String)),
    CleanedUp(i32),
    Timer(Timer),
    /// Nobody takes the jobs' signals.
    Unheard(i32),
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
    life: Life,
    log: LogRing,
    config: config::Config,
    start: start::Start,
    health: Health,
    groups: Groups,
    monitors: Monitors,
    ending: Ending,
    systemd: Systemd,
    access: watch::Sender<Access>,
    /// What every module has, for `connector-local`.
    connector: Arc<Meter>,
    tasks: FuturesUnordered<BoxFuture<'static, Done>>,
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
        let systemd = Systemd::new(&setup.attrs, setup.patience.systemd_stop);
        Ok(Self {
            setup,
            handle,
            router,
            host,
            life: Life::default(),
            log,
            config: config::Config::new(config, sources),
            start: start::Start::default(),
            health,
            groups: Groups::default(),
            monitors: Monitors::default(),
            ending: Ending::default(),
            systemd,
            access: watch::Sender::default(),
            connector: Arc::new(Meter::new("connector-local")),
            tasks: FuturesUnordered::new(),
        })
    }

    /// What decides about connections, now and after changes.
    pub(crate) fn door(&self, owner: u32) -> Door {
        Door {
            owner,
            access: self.access.subscribe(),
            meter: self.connector.clone(),
        }
    }

    /// Take over who may connect.
    fn set_access(&mut self, config: &Value) -> Result<(), RpcError> {
        let access = Access::read(config);
        let access = access.map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?;
        for line in access.lines() {
            let level = libc::LOG_DEBUG;
            let entry = crate::log::entry(self.setup.rank, level, "connector-local", &line);
            self.log_entry(&entry);
        }
        self.access.send_replace(access);
        Ok(())
    }

    /// Load this rank's modules, before peers can send requests to them.
    pub(crate) fn load_modules(&mut self) {
        let config = self.config.current.clone();
        let allowed = self.set_access(&config);
        let around = Surroundings {
            attrs: &self.setup.attrs,
            config: &config,
        };
        let loaded = allowed.and_then(|()| self.host.load_base(around));
        let loaded = match self.setup.scripts.rc1 {
            Script::Builtin => loaded.and_then(|()| self.host.load_initial(around)),
            _ => loaded,
        };
        match loaded {
            Ok(()) => self.post(Event::BuiltinsSuccess),
            Err(e) => {
                self.give_up(&e.to_string());
                self.post(Event::BuiltinsFail);
            }
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
        if self.setup.patience.recovery {
            self.router.send(Input::Overlay(Control::Close));
        }
        self.advance();
        while self.life.state != State::Exit {
            tokio::select! {
                biased;
                Some(msg) = inbox.recv() => self.message(&msg),
                Some(incoming) = peers.recv() => self.peer(incoming),
                Some(news) = news.recv() => self.module_news(news),
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => self.done(done),
                Some(signum) = signals.recv() => self.signal(signum),
            }
            self.advance();
        }
        self.life.exit
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Above(stream, state) => self.above(*stream, state),
            Done::Program(code, entry) => self.program_ended(code, entry),
            Done::CleanedUp(code) => self.cleaned_up(code),
            Done::Timer(timer) => self.timer(timer),
            Done::Unheard(signum) => self.end_by(signum),
            Done::Rc1(code) => self.rc1_ended(code),
            Done::Rc3(code) => self.rc3_ended(code),
            Done::Config(changed) => self.config_changed(changed),
            Done::ParentConfig(stream, config) => self.parent_config(*stream, config),
        }
    }

    fn peer(&mut self, incoming: Incoming) {
        self.health.update(&incoming, &self.handle);
        match incoming {
            Incoming::Gone {
                peer: Peer::Child(rank),
                status,
                why,
            } => self.child_gone(rank, status, &why),
            Incoming::Gone {
                peer: Peer::Parent,
                why,
                ..
            } => self.parent_lost(&format!("lost the parent broker: {why}")),
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
                self.children_changed();
            }
            Incoming::Rejected { rank, host, why } => {
                self.warn(&format!("rejected {host} (rank {rank}): {why}"));
            }
            Incoming::Refused(why) => {
                self.parent_lost(&format!("the parent broker refused us: {why}"));
            }
            Incoming::Left if self.life.state == State::Goodbye => self.post(Event::Goodbye),
            // The router keeps messages to itself; the rest is for `health`.
            _ => {}
        }
    }

    /// Log something that is wrong with a peer.
    fn warn(&mut self, text: &str) {
        self.say(libc::LOG_ERR, text);
    }

    /// Make a change here, or on rank 0.
    fn change_group(&mut self, change: &Change) {
        if self.is_root() {
            // Sets of ours parse.
            let _ = self.apply_group(change);
        } else {
            self.handle
                .notify("groups.update", client::Node::Rank(0), change);
        }
    }

    fn apply_group(&mut self, change: &Change) -> Result<(), RpcError> {
        let lost = self.groups.losses(groups::ONLINE, change);
        self.groups.apply(change, &self.handle)?;
        self.online_changed(&lost);
        Ok(())
    }

    fn message(&mut self, msg: &Message) {
        if msg.is_event() {
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
            "module.remove" => match module::remove(&mut self.host, msg) {
                Ok(name) => {
                    self.say(libc::LOG_DEBUG, &format!("rmmod {name}"));
                    None
                }
                Err(e) => Some(Err(e)),
            },
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
            "broker.getenv" => Some(start::getenv(&self.setup.program_env, msg)),
            "broker.setenv" => Some(start::setenv(&mut self.setup.program_env, msg)),
            "broker.conf-builtin" => Some(start::conf_builtin(&self.setup.attrs, msg)),
            "broker.rusage" | "broker.debug" | "broker.config-reload" | "broker.stats-clear" => {
                Some(self.start.default_method(msg))
            }
            "connector-local.config-reload" => Some(self.reload_access(msg)),
            topic if topic.starts_with("connector-local.") => self
                .connector
                .answer(msg)
                .or_else(|| Some(Err(no_method(msg)))),
            topic if topic.starts_with("groups.") => self.groups_request(msg),
            topic if topic.starts_with("overlay.") => self.overlay_request(msg),
            "state-machine.sd-notify" => Some(start::sd_notify(&self.systemd, msg)),
            topic if topic.starts_with("state-machine.") => {
                let now = (self.life.state, self.life.since);
                self.monitors.request(msg, now, &self.handle)
            }
            "shutdown.start" => self.shutdown(msg),
            "shutdown.disconnect" => {
                self.ending.disconnect(msg);
                None
            }
            topic if topic.ends_with(".disconnect") => None,
            _ => Some(Err(no_method(msg))),
        }
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
                let applied = change.and_then(|change| self.apply_group(&change));
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

    fn reload_access(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        self.set_access(&msg.json()?)?;
        Ok(Value::Null)
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
}

fn no_method(msg: &Message) -> RpcError {
    RpcError::new(libc::ENOSYS, format!("no method {}", msg.topic()))
}
