//! What a broker does in each state of its life ([`crate::state`]).
//!
//! A broker follows its parent's state (`state-machine.monitor`): it starts up when the parent has, runs when the
//! parent runs, and ends before the parent does. Rank 0 runs when enough brokers are in the group `broker.online`.
//!
//! Invariants: one event is taken at a time, after the input that caused it; what takes time comes back as
//! [`Done`]; a timer means something only in the state that started it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use client::{Node, RpcStream};
use formats::idset::Idset;
use overlay::{Control, Status};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::groups::{Change, ONLINE};
use super::{Core, Done, config, start};
use crate::attrs::Attrs;
use crate::child::{Abort, abort};
use crate::log::entry;
use crate::program::{Program, has_terminal, leads_job};
use crate::rc::{self, Script};
use crate::resident;
use crate::router::Input;
use crate::state::{Event, State};

/// How long a broker that leaves waits for its parent to have seen it.
const FAREWELL: Duration = Duration::from_secs(30);
/// How often rank 0 logs who is there while it waits for others.
const PROGRESS: Duration = Duration::from_secs(5);

/// How long after it runs a broker below the leader has done what its start leaves to do.
const SETTLED: Duration = Duration::from_secs(2);

/// What is known of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Above {
    Unknown,
    In(State),
    Lost,
}

/// Something is overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    QuorumWarn,
    CleanupTimeout,
    ShutdownWarn,
    ShutdownTimeout,
    Farewell,
    Unload,
    Settled,
}

/// Where a broker is, and what it needs to know to go on.
pub(super) struct Life {
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) exit: i32,
    events: VecDeque<Event>,
    above: Above,
    /// Ends the script or program of the present state.
    abort: Option<Abort>,
    /// A signal has asked for the end.
    hurried: bool,
    warned: bool,
    /// Something is missing that ending jobs in good order may need.
    broken: bool,
    /// When the brokers that are there were logged last.
    shown: Option<Instant>,
    /// How rc3 has ended.
    rc3: Event,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            state: State::LoadBuiltins,
            since: Instant::now(),
            exit: 0,
            events: VecDeque::new(),
            above: Above::Unknown,
            abort: None,
            hurried: false,
            warned: false,
            broken: false,
            shown: None,
            rc3: Event::Rc3None,
        }
    }
}

impl Life {
    /// The first failure is that of the broker.
    fn failed(&mut self, code: i32) {
        if self.exit == 0 {
            self.exit = code;
        }
    }
}

/// What whoever mends an instance should know, before the shell's first prompt.
fn recovery_banner(attrs: &Attrs) -> String {
    let mut text = String::from(
        "+-- Recovery: no resource is online, no other broker joins.\n\
         | What rc1 has complained of may be missing until it is mended.\n",
    );
    for name in ["broker.rc1_path", "broker.rc3_path", "config.path"] {
        let value = attrs.get(name).unwrap_or("-");
        text.push_str(&format!("| {name:<16} {value}\n"));
    }
    let kept = attrs.get("statedir-cleanup") == Some("0");
    let statedir = attrs.get("statedir").filter(|_| kept);
    let statedir = statedir.unwrap_or("changes will not be kept");
    text + &format!(
        "| {:<16} {statedir}\n+-- Exit the shell to end.\n",
        "statedir"
    )
}

/// The parent's next state.
async fn next_above(mut stream: RpcStream) -> Done {
    #[derive(serde::Deserialize)]
    struct Answer {
        state: i32,
    }
    let state = match stream.next().await {
        Some(Ok(msg)) => msg.json::<Answer>().map(|a| a.state),
        Some(Err(e)) => Err(e),
        None => Err(RpcError::errno(libc::ENODATA)),
    };
    Done::Above(Box::new(stream), state)
}

impl Core {
    /// Something has happened; [`Core::advance`] acts on it.
    pub(super) fn post(&mut self, event: Event) {
        self.life.events.push_back(event);
    }

    /// Take the events that have come.
    pub(super) fn advance(&mut self) {
        while let Some(event) = self.life.events.pop_front() {
            let (name, state) = (event.name(), self.life.state);
            let Some(next) = state.after(event) else {
                self.say(libc::LOG_DEBUG, &format!("{name}: ignored in {state}"));
                continue;
            };
            let time = formats::fsd::format(self.life.since.elapsed().as_secs_f64());
            self.say(libc::LOG_INFO, &format!("{name}: {state}->{next} {time}"));
            self.life.state = next;
            self.life.since = Instant::now();
            self.life.abort = None;
            let (rank, size) = (self.setup.rank, self.setup.topology.size());
            self.systemd.entered(next, rank, size);
            self.enter(next);
            self.monitors.entered(next, &self.handle);
        }
    }

    fn enter(&mut self, state: State) {
        match state {
            State::LoadBuiltins | State::Exit => {}
            State::Join => self.enter_join(),
            State::ConfigSync => self.enter_config_sync(),
            State::Init => self.enter_init(),
            State::Quorum => self.enter_quorum(),
            State::Run => self.enter_run(),
            State::Cleanup => self.enter_cleanup(),
            State::Shutdown => self.enter_shutdown(),
            State::Finalize => self.enter_finalize(),
            State::Goodbye => self.enter_goodbye(),
            State::UnloadBuiltins => {
                self.time(self.setup.patience.unload, Timer::Unload);
                self.unload_next();
            }
        }
    }

    fn time(&mut self, after: Option<Duration>, timer: Timer) {
        if let Some(after) = after {
            self.tasks.push(Box::pin(async move {
                tokio::time::sleep(after).await;
                Done::Timer(timer)
            }));
        }
    }

    pub(super) fn timer(&mut self, timer: Timer) {
        match (timer, self.life.state) {
            (Timer::QuorumWarn, State::Quorum) => self.warn_of_quorum(),
            (Timer::CleanupTimeout, State::Cleanup) => self.abort(),
            (Timer::ShutdownWarn, State::Shutdown) => {
                let awaited: Idset = self.health.awaited().into_iter().collect();
                let (count, hosts) = (awaited.iter().count(), self.hosts(&awaited));
                let text = format!(
                    "shutdown delayed: waiting for {count} peers: {hosts} (rank {awaited})"
                );
                self.say(libc::LOG_ERR, &text);
                self.time(self.setup.patience.shutdown_warn, Timer::ShutdownWarn);
            }
            (Timer::ShutdownTimeout, State::Shutdown) => {
                let left: Idset = self.health.online().into_iter().collect();
                let text = format!("shutdown timeout: going without rank {left}");
                self.say(libc::LOG_ERR, &text);
                self.life.failed(1);
                self.post(Event::ChildrenComplete);
            }
            (Timer::Farewell, State::Goodbye) => {
                let text = "goodbye timeout: the parent has not answered";
                self.say(libc::LOG_ERR, text);
                self.post(Event::Goodbye);
            }
            (Timer::Settled, State::Run) => resident::release_code(),
            (Timer::Unload, State::UnloadBuiltins) => {
                let left = self.host.names().join(" ");
                let text = format!("unloading built-in broker module timed out: {left}");
                self.say(libc::LOG_ERR, &text);
                self.life.failed(1);
                self.post(Event::BuiltinsUnloadFail);
            }
            _ => {}
        }
    }

    /// End the script or program of this state.
    fn abort(&mut self) {
        if let Some(abort) = &self.life.abort {
            abort.send(libc::SIGHUP);
        }
    }

    fn enter_join(&mut self) {
        self.systemd.ready();
        if self.is_root() {
            self.post(Event::ParentNone);
            return;
        }
        let last = json!({ "final": State::Shutdown.number() });
        let stream = self
            .handle
            .stream("state-machine.monitor", Node::Upstream, &last);
        self.tasks.push(Box::pin(next_above(stream)));
    }

    /// The parent has told its state, or that it tells no more.
    pub(super) fn above(&mut self, stream: RpcStream, state: Result<i32, RpcError>) {
        match state {
            Ok(number) => {
                if let Ok(state) = State::try_from(number) {
                    self.life.above = Above::In(state);
                }
                self.tasks.push(Box::pin(next_above(stream)));
            }
            // Its last state is known.
            Err(e) if e.errno == libc::ENODATA => return,
            Err(e) => return self.parent_lost(&e.to_string()),
        }
        self.look_up();
    }

    /// Go where the parent's state leads.
    fn look_up(&mut self) {
        use State::{Cleanup, ConfigSync, Finalize, Join, Quorum, Run, Shutdown};
        let event = match (self.life.state, self.life.above) {
            (Join, Above::In(Quorum | Run)) => Event::ParentReady,
            (Join, Above::In(state)) if state >= Cleanup => Event::ParentFail,
            (Join, Above::Lost) => Event::ParentFail,
            (ConfigSync, Above::Lost) => Event::SyncFail,
            (Quorum, Above::In(Run)) => Event::QuorumFull,
            (Quorum, Above::In(state)) if state >= Cleanup => Event::QuorumFail,
            (Quorum, Above::Lost) => Event::QuorumFail,
            (Run, Above::In(Shutdown)) => Event::Shutdown,
            (Run, Above::In(state)) if state >= Finalize => Event::ParentFail,
            (Run, Above::Lost) => Event::ParentFail,
            _ => return,
        };
        self.post(event);
    }

    /// Without the parent this broker cannot stay; it may be started again.
    pub(super) fn parent_lost(&mut self, why: &str) {
        if self.life.state >= State::Shutdown || self.life.above == Above::Lost {
            return;
        }
        eprintln!("flux-broker: rank {}: {why}", self.setup.rank);
        self.life.above = Above::Lost;
        self.life.failed(1);
        if self.life.state == State::Init {
            self.abort();
        }
        self.look_up();
    }

    fn enter_config_sync(&mut self) {
        if self.is_root() {
            self.post(Event::SyncNone);
            return;
        }
        let stream = config::parent(&self.handle);
        self.tasks.push(Box::pin(start::next_config(stream)));
        self.look_up();
    }

    fn enter_init(&mut self) {
        match &self.setup.scripts.rc1 {
            // Its modules have been loaded already, so that peers find them.
            Script::Builtin => self.post(Event::Rc1Success),
            Script::None => self.post(Event::Rc1None),
            Script::Command(line) => {
                let line = line.clone();
                self.run_script("rc1", vec![line], Done::Rc1);
            }
        }
    }

    fn run_script(&mut self, name: &'static str, lines: Vec<String>, done: fn(i32) -> Done) {
        let (tx, rx) = abort();
        self.life.abort = Some(tx);
        let (env, router) = (self.setup.program_env.clone(), self.router.clone());
        let run = rc::run(name, lines, env, router, rx);
        self.tasks.push(Box::pin(async move { done(run.await) }));
    }

    pub(super) fn rc1_ended(&mut self, code: i32) {
        let event = match code {
            0 => Event::Rc1Success,
            _ if self.setup.patience.recovery => Event::Rc1IgnoreFail,
            code => {
                // It would fail again after a restart.
                let code = self.setup.patience.no_restart.unwrap_or(code);
                self.life.failed(code);
                Event::Rc1Fail
            }
        };
        self.post(event);
    }

    fn enter_quorum(&mut self) {
        if self.is_root() {
            if self.setup.patience.assumed {
                let quorum = self.setup.patience.quorum;
                let text = format!("broker.quorum is a number of brokers: assuming {quorum}");
                self.say(libc::LOG_ERR, &text);
            }
            self.time(self.setup.patience.quorum_warn, Timer::QuorumWarn);
        }
        self.change_group(&Change::join(ONLINE, self.setup.rank));
        self.look_up();
    }

    fn warn_of_quorum(&mut self) {
        let online = self.groups.set(ONLINE);
        let all = 0..self.setup.topology.size();
        let missing: Idset = all
            .filter(|r| !online.is_some_and(|o| o.contains(r)))
            .collect();
        let hosts = self.hosts(&missing);
        let text = format!("quorum delayed: waiting for {hosts} (rank {missing})");
        self.say(libc::LOG_ERR, &text);
        self.life.warned = true;
        self.time(self.setup.patience.quorum_warn, Timer::QuorumWarn);
    }

    /// Rank 0: brokers have come or (`lost`) gone.
    pub(super) fn online_changed(&mut self, lost: &Idset) {
        let online = self.groups.set(ONLINE).map_or(0, |online| online.len());
        let reached = online >= self.setup.patience.quorum;
        match self.life.state {
            State::Quorum => {
                let due = self.life.shown.is_none_or(|at| at.elapsed() > PROGRESS);
                if online > 0 && (reached || due) {
                    self.life.shown = Some(Instant::now());
                    let ranks: Idset = self
                        .groups
                        .set(ONLINE)
                        .into_iter()
                        .flatten()
                        .copied()
                        .collect();
                    let hosts = self.hosts(&ranks);
                    self.say(libc::LOG_INFO, &format!("online: {hosts} (ranks {ranks})"));
                }
                if reached {
                    if std::mem::take(&mut self.life.warned) {
                        self.say(libc::LOG_ERR, "quorum reached");
                    }
                    self.post(Event::QuorumFull);
                }
            }
            State::Run | State::Cleanup if !lost.is_empty() => {
                let hosts = self.hosts(lost);
                let text = format!("dead to Flux: {hosts} (rank {lost})");
                self.say(libc::LOG_ERR, &text);
            }
            _ => {}
        }
    }

    /// Hosts of these ranks, as a list.
    fn hosts(&self, ranks: &Idset) -> String {
        let hosts = self.setup.attrs.get("hostlist").unwrap_or_default();
        let Ok(hosts) = hosts.parse::<formats::Hostlist>() else {
            return String::new();
        };
        let of = ranks.iter().filter_map(|r| hosts.nth(r as usize));
        of.collect::<formats::Hostlist>().to_string()
    }

    fn enter_run(&mut self) {
        if !self.is_root() {
            self.look_up();
            self.time(Some(SETTLED), Timer::Settled);
            return;
        }
        let running = (self.setup.hooks.running)(self.handle.clone());
        self.tasks.push(Box::pin(async move {
            running.await;
            Done::Nothing
        }));
        let attrs = &self.setup.attrs;
        if attrs.get("broker.rc2_none").is_some_and(|v| v != "0") {
            return;
        }
        if self.setup.patience.recovery && self.setup.program == Program::Shell {
            eprint!("{}", recovery_banner(&self.setup.attrs));
        }
        let (tx, rx) = abort();
        self.life.abort = Some(tx);
        let shares_group = leads_job() && attrs.get("broker.rc2_pgrp").is_none();
        let program = self.setup.program.clone();
        let run = program.run(self.setup.program_env.clone(), shares_group, rx);
        self.tasks.push(Box::pin(async move {
            let (ended, entry) = run.await;
            Done::Program(ended.code, entry)
        }));
    }

    pub(super) fn program_ended(&mut self, code: i32, (level, text): (i32, String)) {
        self.say(level, &text);
        self.life.failed(code);
        self.post(match code {
            0 => Event::Rc2Success,
            _ => Event::Rc2Fail,
        });
    }

    fn enter_cleanup(&mut self) {
        self.router.send(Input::Overlay(Control::Close));
        let lines = self.start.cleanup();
        // Who wrote the start-up script says what there is to clean up.
        let builtin =
            self.is_root() && self.setup.scripts.rc1 == Script::Builtin && !self.life.broken;
        if lines.is_empty() && !builtin {
            self.post(Event::CleanupNone);
            return;
        }
        let (tx, rx) = abort();
        self.life.abort = Some(tx);
        let (env, router) = (self.setup.program_env.clone(), self.router.clone());
        let pushed = rc::run("cleanup", lines, env, router, rx.clone());
        let cleaned = (self.setup.hooks.cleanup)(self.handle.clone());
        self.tasks.push(Box::pin(async move {
            let mut aborted = rx;
            let code = pushed.await;
            if !builtin || aborted.is_over() {
                return Done::CleanedUp(code);
            }
            tokio::select! {
                () = cleaned => Done::CleanedUp(code),
                signum = aborted.signalled() => Done::CleanedUp(128 + signum),
            }
        }));
        if self.life.hurried {
            self.time(self.setup.patience.cleanup, Timer::CleanupTimeout);
        }
    }

    pub(super) fn cleaned_up(&mut self, code: i32) {
        self.life.failed(code);
        self.post(match code {
            0 => Event::CleanupSuccess,
            _ => Event::CleanupFail,
        });
    }

    fn enter_shutdown(&mut self) {
        self.router.send(Input::Overlay(Control::Close));
        if self.health.awaited().is_empty() {
            self.post(Event::ChildrenNone);
            return;
        }
        // They follow our state.
        self.time(self.setup.patience.shutdown_warn, Timer::ShutdownWarn);
        if self.is_root() {
            self.time(self.setup.patience.shutdown, Timer::ShutdownTimeout);
        }
    }

    /// A child has gone, or shows no sign of life.
    pub(super) fn children_changed(&mut self) {
        if self.life.state == State::Shutdown && self.health.awaited().is_empty() {
            self.post(Event::ChildrenComplete);
        }
    }

    fn enter_finalize(&mut self) {
        match self.setup.scripts.rc3(&self.setup.attrs) {
            Script::Command(line) => {
                self.start.leaving = true;
                self.run_script("rc3", vec![line], Done::Rc3);
            }
            Script::Builtin => {
                self.life.rc3 = Event::Rc3Success;
                self.unload_next();
            }
            Script::None => self.unload_next(),
        }
    }

    pub(super) fn rc3_ended(&mut self, code: i32) {
        self.start.leaving = false;
        self.life.failed(code);
        self.life.rc3 = match code {
            0 => Event::Rc3Success,
            _ => Event::Rc3Fail,
        };
        self.unload_next();
    }

    /// Unload the module loaded last: at first those a script may load, in the end all.
    pub(super) fn unload_next(&mut self) {
        let (name, over) = match self.life.state {
            State::Finalize if !self.start.leaving => (self.host.last_but_base(), self.life.rc3),
            State::UnloadBuiltins => (self.host.last(), Event::BuiltinsDone),
            _ => return,
        };
        match name.map(str::to_owned) {
            // The module named is loaded, so unloading it cannot fail.
            Some(name) => drop(self.host.unload(&name, None, false)),
            None => self.post(over),
        }
    }

    fn enter_goodbye(&mut self) {
        self.ending.done(&self.handle);
        if self.is_root() || self.life.above == Above::Lost {
            self.post(Event::Goodbye);
            return;
        }
        self.router.send(Input::Overlay(Control::Goodbye));
        self.time(Some(FAREWELL), Timer::Farewell);
    }

    /// Say why this broker ends, in failure.
    pub(super) fn give_up(&mut self, why: &str) {
        eprintln!("flux-broker: {why}");
        let code = self.setup.patience.no_restart.unwrap_or(1);
        self.life.failed(code);
    }

    /// A module is gone without which this broker cannot go on.
    pub(super) fn panic(&mut self, why: &str) {
        self.give_up(why);
        self.life.broken = true;
        self.host.hurry();
        match (self.life.state, &self.life.abort) {
            // What runs now may wait for the module.
            (State::Init | State::Run | State::Cleanup, Some(abort)) => abort.send(libc::SIGHUP),
            _ => self.post(Event::Panic),
        }
    }

    /// A signal: the running jobs get those that end nothing, others end the instance.
    pub(super) fn signal(&mut self, signum: i32) {
        if !self.is_root() || !matches!(signum, libc::SIGUSR1 | libc::SIGUSR2) {
            return self.end_by(signum);
        }
        let request = json!({ "dry_run": false, "userid": u32::MAX, "signum": signum });
        let jobs = self
            .handle
            .rpc("job-manager.killall", Node::Rank(0), &request);
        self.tasks.push(Box::pin(async move {
            match jobs.await {
                Ok(_) => Done::Nothing,
                Err(_) => Done::Unheard(signum),
            }
        }));
    }

    /// A signal asks for the end.
    pub(super) fn end_by(&mut self, signum: i32) {
        self.life.hurried = true;
        let state = self.life.state;
        // What shares our terminal has had its Ctrl-C from there.
        if state == State::Run && signum == libc::SIGINT && has_terminal() {
            return;
        }
        let event = match state {
            State::Init | State::Run | State::Cleanup | State::Finalize
                if self.life.abort.is_some() =>
            {
                return self.abort();
            }
            State::Run => return self.post(Event::Shutdown),
            State::Join => Event::ParentFail,
            State::ConfigSync => Event::SyncFail,
            State::Quorum => Event::QuorumFail,
            _ => {
                let text = format!("ignored signal {signum} in {state}");
                return self.say(libc::LOG_INFO, &text);
            }
        };
        self.life.failed(128 + signum);
        self.post(event);
    }

    /// `shutdown.start`; none if it is answered when the end has come.
    pub(super) fn shutdown(&mut self, msg: &Message) -> Option<Result<Value, RpcError>> {
        let refuse = |text: String| Some(Err(RpcError::new(libc::EINVAL, text)));
        if let Err(e) = msg.require_owner() {
            return Some(Err(e));
        }
        if self.ending.is_followed() {
            return refuse("shutdown is already in progress".to_owned());
        }
        if self.life.state != State::Run {
            let state = self.life.state;
            return refuse(format!("shutdown cannot be initiated in state {state}"));
        }
        if !self.is_root() {
            return refuse("shutdown may only be initiated on rank 0".to_owned());
        }
        if let Some(code) = self.setup.patience.no_restart {
            self.life.failed(code);
        }
        match &self.life.abort {
            // What a terminal sends that goes away: a shell ends and takes its jobs along.
            Some(abort) => abort.send(libc::SIGHUP),
            None => self.post(Event::Shutdown),
        }
        if msg.is_streaming() {
            self.ending.follow(msg);
            return None;
        }
        Some(Ok(Value::Null))
    }

    pub(super) fn child_gone(&mut self, rank: u32, status: Status, why: &str) {
        let subtree = self.setup.topology.subtree(rank);
        if status == Status::Lost && self.life.state < State::Shutdown {
            let below = match subtree.len() - 1 {
                0 => String::new(),
                n => format!(", and with it the way to {n} other brokers"),
            };
            self.warn(&format!("rank {rank} is lost: {why}{below}"));
        }
        self.change_group(&Change::gone(subtree));
        self.children_changed();
    }

    /// An entry of the broker itself.
    pub(super) fn say(&mut self, level: i32, text: &str) {
        let entry = entry(self.setup.rank, level, "broker", text);
        self.log_entry(&entry);
    }
}
