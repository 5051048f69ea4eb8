//! What scripts ask of the broker, and what modules and the parent's configuration tell it.
//!
//! `runat.push` adds commands to what is run when the initial program has ended, the last pushed first. Environment that `broker.setenv` sets is that of
//! later scripts and of the initial program.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::installation;
use client::module::Meter;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::{Core, Done, config};
use crate::attrs::Attrs;
use crate::host::News;
use crate::rc::Environment;
use crate::state::{Event, State};
use crate::systemd::Systemd;

/// What scripts have left for later.
pub(super) struct Start {
    cleanup: Vec<String>,
    /// The shutdown script runs, and it is for it to unload modules.
    pub(super) leaving: bool,
    /// Counts and flags of the broker itself.
    meter: Meter,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            cleanup: Vec::new(),
            leaving: false,
            meter: Meter::new("broker"),
        }
    }
}

impl Start {
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
        let invalid = |text: &str| Err(RpcError::new(libc::EINVAL, format!("runat.push: {text}")));
        if commands.is_empty() {
            return invalid("commands array is empty");
        }
        if commands.iter().any(|line| line.trim().is_empty()) {
            return invalid("cannot push an empty command line");
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

/// `state-machine.sd-notify`: a line for systemd.
pub(super) fn sd_notify(systemd: &Systemd, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        status: String,
    }
    msg.require_owner()?;
    systemd.status(&msg.json::<Request>()?.status);
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
    pub(super) fn log_append(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        if let Some(entry) = msg.payload() {
            self.log_entry(entry);
        }
        Ok(Value::Null)
    }

    /// Log an entry, and show it to who follows the instance's end.
    pub(super) fn log_entry(&mut self, entry: &Bytes) {
        self.log.append(entry, &self.handle);
        self.ending.log(entry, &self.handle);
    }

    pub(super) fn next_config(&mut self) {
        let own = config::OWN.map(str::to_owned);
        let names = [&own, self.host.names()].concat();
        if let Some(change) = self.config.next(&self.handle, &names) {
            self.tasks
                .push(Box::pin(async move { Done::Config(change.await) }));
        }
    }

    pub(super) fn config_changed(&mut self, changed: config::Changed) {
        let refused = self.config.changed(changed, &self.handle);
        if let Some(text) = &refused {
            self.say(libc::LOG_ERR, text);
        }
        self.next_config();
        self.config_synced(refused.is_none());
    }

    /// The parent's configuration is taken over once nothing of it is left to do.
    fn config_synced(&mut self, agreed: bool) {
        if self.life.state == State::ConfigSync && self.config.is_settled() {
            self.post(if agreed {
                Event::SyncSuccess
            } else {
                Event::SyncFail
            });
        }
    }

    pub(super) fn parent_config(&mut self, stream: client::RpcStream, config: Option<Value>) {
        // Without the parent this broker ends.
        let Some(config) = config else { return };
        self.config.follow(config);
        self.next_config();
        self.tasks.push(Box::pin(next_config(stream)));
        self.config_synced(true);
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
        self.unload_next();
    }

    /// A module has failed that nobody waits for.
    fn module_failed(&mut self, name: &str, at_start: bool) {
        if self.life.state >= State::Shutdown {
            return;
        }
        let text = format!("{name} module runtime failure");
        self.say(libc::LOG_CRIT, &text);
        let panics = self.setup.attrs.get("broker.module-nopanic") == Some("0");
        if panics || at_start {
            self.panic(&text);
        }
    }
}

/// The next configuration of the parent broker.
pub(super) async fn next_config(mut stream: client::RpcStream) -> Done {
    let config = match stream.next().await {
        Some(Ok(msg)) => msg.json().ok(),
        _ => None,
    };
    Done::ParentConfig(Box::new(stream), config)
}
