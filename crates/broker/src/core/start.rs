//! The part of the broker's life around its start-up script, and what such scripts ask of it.
//!
//! A broker runs rc1 after its parent has: modules find theirs on the way to rank 0. `runat.push` adds commands to what
//! is run when the initial program has ended, the last pushed first. Environment that `broker.setenv` sets is that of
//! later scripts and of the initial program.

use std::collections::BTreeMap;

use client::module::Meter;
use client::{Handle, Node, installation};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::{Core, Done, config};
use crate::attrs::Attrs;
use crate::host::News;
use crate::log::entry;
use crate::rc::{self, Environment, Script};
use crate::state::State;

/// What is known of the start.
pub(super) struct Start {
    /// The start-up script has ended, or there is none.
    ready: bool,
    begun: bool,
    /// Children that wait for `ready`.
    waiters: Vec<Message>,
    cleanup: Vec<String>,
    /// The shutdown script runs, and it is for it to unload modules.
    pub(super) leaving: bool,
    /// Counts and flags of the broker itself.
    meter: Meter,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            ready: false,
            begun: false,
            waiters: Vec::new(),
            cleanup: Vec::new(),
            leaving: false,
            meter: Meter::new("broker"),
        }
    }
}

impl Start {
    /// Answered when this broker's start-up script has ended.
    pub(super) fn wait(&mut self, msg: &Message, handle: &Handle) {
        match self.ready {
            true => handle.respond_ok(msg),
            false => self.waiters.push(msg.clone()),
        }
    }

    /// Whether the start-up script has been run.
    pub(super) fn ran(&self) -> bool {
        self.ready
    }

    /// Commands for the cleanup, in the order they are run.
    pub(super) fn cleanup(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.cleanup);
        lines.reverse();
        lines
    }

    /// `runat.push`.
    pub(super) fn push(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: String,
            commands: Vec<String>,
        }
        msg.require_owner()?;
        let Request { name, commands } = msg.json()?;
        if name != "cleanup" {
            let text = format!("runat.push: name: expected cleanup, found {name:?}");
            return Err(RpcError::new(libc::EINVAL, text));
        }
        self.cleanup.extend(commands);
        Ok(Value::Null)
    }

    /// What every module answers, for the broker.
    pub(super) fn default_method(&self, msg: &Message) -> Result<Value, RpcError> {
        let unknown = || Err(RpcError::errno(libc::ENOSYS));
        self.meter.answer(msg).unwrap_or_else(unknown)
    }
}

/// `broker.getenv`: those of the asked variables that are set.
pub(super) fn getenv(env: &Environment, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        names: Vec<String>,
    }
    msg.require_owner()?;
    let Request { names } = msg.json()?;
    let value = |name: &String| match env.iter().find(|(n, _)| n == name) {
        Some((_, value)) => value.clone(),
        None => std::env::var(name).ok(),
    };
    let set = names
        .into_iter()
        .filter_map(|name| Some((name.clone(), Value::from(value(&name)?))));
    Ok(json!({ "env": set.collect::<Map<_, _>>() }))
}

/// `broker.setenv`: set variables, or with null remove them.
pub(super) fn setenv(env: &mut Environment, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        env: BTreeMap<String, Option<String>>,
    }
    msg.require_owner()?;
    let changes = msg.json::<Request>()?.env;
    let impossible = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = changes.keys().find(impossible) {
        let why = format!("{name:?} cannot be the name of a variable");
        return Err(RpcError::malformed(msg.topic(), why));
    }
    for (name, value) in changes {
        env.retain(|(n, _)| *n != name);
        env.push((name, value));
    }
    Ok(Value::Null)
}

/// `broker.conf-builtin`: where this installation has its files, unless an attribute `conf.KEY` says otherwise.
/// Elements of `keys` that are no text are passed over.
pub(super) fn conf_builtin(attrs: &Attrs, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        keys: Vec<Value>,
    }
    let Request { keys } = msg.json()?;
    let mut values = Map::new();
    for key in keys.iter().filter_map(Value::as_str) {
        let given = attrs.get(&format!("conf.{key}")).map(str::to_owned);
        let value = given.or_else(|| installation::value(key));
        let unknown = || RpcError::new(libc::EINVAL, format!("invalid key {key:?}"));
        values.insert(key.to_owned(), value.ok_or_else(unknown)?.into());
    }
    Ok(json!({ "values": values }))
}

impl Core {
    /// Start what comes before this broker joins, as soon as its parent allows.
    pub(super) fn begin_init(&mut self) {
        if self.start.begun || (!self.is_root() && !self.parent_joined) {
            return;
        }
        self.start.begun = true;
        if !self.is_root() {
            self.tasks
                .push(Box::pin(next_config(config::parent(&self.handle))));
        }
        match &self.setup.scripts.rc1 {
            Script::Command(_) if !self.is_root() => {
                let ready = self.handle.rpc("broker.ready", Node::Upstream, &json!({}));
                self.tasks.push(Box::pin(
                    async move { Done::ParentReady(ready.await.map(drop)) },
                ));
            }
            Script::Command(_) => self.run_rc1(),
            _ => self.rc1_ended(0),
        }
    }

    pub(super) fn run_rc1(&mut self) {
        let Script::Command(line) = &self.setup.scripts.rc1 else {
            return;
        };
        let (env, router) = (self.setup.program_env.clone(), self.router.clone());
        let run = rc::run("rc1", vec![line.clone()], env, router);
        self.tasks
            .push(Box::pin(async move { Done::Rc1(run.await) }));
    }

    pub(super) fn rc1_ended(&mut self, code: i32) {
        if code != 0 {
            self.fail(&format!(
                "rank {}: the start-up script failed",
                self.setup.rank
            ));
            self.exit = code;
            return;
        }
        self.start.ready = true;
        for msg in std::mem::take(&mut self.start.waiters) {
            self.handle.respond_ok(&msg);
        }
        self.announce();
    }

    pub(super) fn log_append(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        if let Some(entry) = msg.payload().cloned() {
            self.log.append(&entry, &self.handle);
        }
        Ok(Value::Null)
    }

    /// An entry of the broker itself.
    pub(super) fn say(&mut self, level: i32, text: &str) {
        let entry = entry(self.setup.rank, level, "broker", text);
        self.log.append(&entry, &self.handle);
    }

    pub(super) fn next_config(&mut self) {
        if let Some(change) = self.config.next(&self.handle, self.host.names()) {
            self.tasks
                .push(Box::pin(async move { Done::Config(change.await) }));
        }
    }

    pub(super) fn config_changed(&mut self, changed: config::Changed) {
        if let Some(text) = self.config.changed(changed, &self.handle) {
            self.say(libc::LOG_ERR, &text);
        }
        self.next_config();
    }

    pub(super) fn parent_config(&mut self, stream: client::RpcStream, config: Option<Value>) {
        // Without the parent this broker ends, or asks again when it is back.
        let Some(config) = config else { return };
        self.config.follow(config);
        self.next_config();
        self.tasks.push(Box::pin(next_config(stream)));
    }

    pub(super) fn module_news(&mut self, news: News) {
        let (id, result) = match news {
            News::Running(id) => {
                if let Some(request) = self.host.running(&id) {
                    self.handle.respond_ok(&request);
                }
                return;
            }
            News::Ended(id, result) => (id, result),
        };
        let Some(ended) = self.host.forget(id, result) else {
            return;
        };
        let name = &ended.name;
        self.say(libc::LOG_DEBUG, &format!("module {name} exited"));
        if let Err(e) = &ended.result {
            self.say(libc::LOG_ERR, &format!("{name}: {e}"));
        }
        match (ended.loader, &ended.result) {
            (Some(request), Err(e)) => {
                let e = RpcError::new(e.errno, e.text.clone());
                self.handle.respond_error(&request, &e);
            }
            (Some(request), Ok(())) => self.handle.respond_ok(&request),
            (None, Err(_)) if !ended.expected => self.module_failed(name, ended.at_start),
            (None, _) => {}
        }
        for request in ended.removers {
            self.handle.respond_ok(&request);
        }
        if self.state == State::Finalize && !self.start.leaving {
            self.unload_next();
        }
    }

    /// A module has failed that nobody waits for.
    fn module_failed(&mut self, name: &str, at_start: bool) {
        if self.state >= State::Shutdown {
            return;
        }
        let text = format!("{name} module runtime failure");
        self.say(libc::LOG_CRIT, &text);
        let panics = self.setup.attrs.get("broker.module-nopanic") == Some("0");
        if panics || at_start {
            self.fail(&text);
        }
    }
}

/// The next configuration of the parent broker.
async fn next_config(mut stream: client::RpcStream) -> Done {
    let config = match stream.next().await {
        Some(Ok(msg)) => msg.json().ok(),
        _ => None,
    };
    Done::ParentConfig(Box::new(stream), config)
}
