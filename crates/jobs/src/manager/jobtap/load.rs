//! Loading and removing plugins: `job-manager.jobtap`, `job-manager.jobtap-query`, `[job-manager] plugins`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use client::installation;
use formats::jobid::JobId;
use plugin_sdk::Args;
use plugin_sdk::host::{self, Kind, Plugin, Program, Setup, Start};
use plugin_sdk::jobtap::EXTENSION;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::unix::AsyncFd;
use wire::{Message, RpcError};

use super::super::Manager;
use super::tap::{Body, Builtin, Order, Tap, blocking};

/// Directories of plugins, in front of the installation's.
const PATH: &str = "FLUX_JOBTAP_PATH";

/// One entry of `[job-manager] plugins`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::manager) struct Directive {
    load: Option<String>,
    remove: Option<String>,
    conf: Option<Map<String, Value>>,
}

/// The plugins that the configuration names.
pub(in crate::manager) fn directives(config: &Value) -> Result<Vec<Directive>, String> {
    let Some(list) = config.pointer("/job-manager/plugins") else {
        return Ok(Vec::new());
    };
    let list = list
        .as_array()
        .ok_or("[job-manager.plugins] config must be an array")?;
    let parse = |(i, entry): (usize, &Value)| {
        Directive::parse(entry).map_err(|e| format!("[job-manager.plugins][{i}]: {e}"))
    };
    list.iter().enumerate().map(parse).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "real",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Directive {
    fn parse(entry: &Value) -> Result<Self, String> {
        let wrong = |what: &str, want, got| format!("{what}: Expected {want}, got {}", kind(got));
        let table = entry.as_object();
        let table = table.ok_or_else(|| wrong("entry", "object", entry))?;
        let mut found = Self::default();
        for (key, value) in table {
            let text = || value.as_str().ok_or_else(|| wrong(key, "string", value));
            match key.as_str() {
                "load" => found.load = Some(text()?.to_owned()),
                "remove" => found.remove = Some(text()?.to_owned()),
                "conf" => {
                    let conf = value
                        .as_object()
                        .ok_or_else(|| wrong(key, "object", value))?;
                    found.conf = Some(conf.clone());
                }
                _ => return Err(format!("{key} is not known: expected load, remove or conf")),
            }
        }
        Ok(found)
    }
}

/// Where a plugin is that was asked for by name: there, if it is a path that says so, or in the first directory that has it.
fn find(name: &str) -> Result<PathBuf, RpcError> {
    if name.starts_with('/') || name.starts_with("./") {
        return Ok(name.into());
    }
    let given = std::env::var_os(PATH).unwrap_or_default();
    let given: Vec<PathBuf> = std::env::split_paths(&given).collect();
    let dirs = given.into_iter().filter(|dir| !dir.as_os_str().is_empty());
    let dirs = dirs.chain([installation::jobtap_plugins()]);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.exists());
    found.ok_or_else(|| RpcError::new(libc::ENOENT, format!("{name}: No such plugin found")))
}

impl Manager {
    /// `job-manager.jobtap`: load, remove, list.
    pub(in crate::manager) fn jobtap(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            load: Option<String>,
            conf: Option<Value>,
            remove: Option<String>,
            #[serde(default)]
            query_only: bool,
        }
        msg.require_owner()?;
        let Request {
            load,
            conf,
            remove,
            query_only,
        } = msg.json()?;
        if query_only {
            return Ok(json!({ "plugins": self.taps.stack.names() }));
        }
        let conf = match conf {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(conf)) => conf,
            Some(_) => {
                let why = "jobtap: plugin conf must be a JSON object";
                return Err(RpcError::new(libc::EINVAL, why));
            }
        };
        if let Some(pattern) = remove {
            self.remove_plugins(&pattern)?;
        }
        if let Some(path) = load {
            self.load_plugin(&path, conf)?;
        }
        Ok(Value::Null)
    }

    /// `job-manager.jobtap-query`: what there is to say of a plugin.
    pub(in crate::manager) fn jobtap_query(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: String,
        }
        msg.require_owner()?;
        let Request { name } = msg.json()?;
        let unknown = || RpcError::new(libc::ENOENT, format!("{name}: plugin not found"));
        let tap = self.taps.stack.named(&name).ok_or_else(unknown)?;
        let mut args = Args::default();
        args.output
            .insert("name".to_owned(), tap.name.clone().into());
        args.output
            .insert("path".to_owned(), tap.path.clone().into());
        if let Body::Builtin(Builtin::Perilog) = tap.body {
            args.output.extend(self.perilogs.describe());
        }
        let code = tap.call("plugin.query", &mut args, self);
        self.remove_broken();
        match code {
            Some(..0) => Err(RpcError::new(libc::EINVAL, "plugin.query failed")),
            _ => Ok(Value::Object(args.output)),
        }
    }

    fn remove_plugins(&mut self, pattern: &str) -> Result<(), RpcError> {
        let gone = self.taps.stack.remove(pattern);
        if gone.is_empty() && pattern != "all" {
            let why = "Failed to find plugin to remove";
            return Err(RpcError::new(libc::ENOENT, why));
        }
        for tap in gone {
            self.taps.loading.clone_from(&tap.name);
            tap.retire(self);
            self.taps.forget_plugin(tap.serial);
        }
        self.prioritize_orphans();
        Ok(())
    }

    /// Load a plugin, and tell it of the jobs there are.
    fn load_plugin(&mut self, name: &str, conf: Map<String, Value>) -> Result<(), RpcError> {
        if name.starts_with('.') && !name.contains('/') {
            return match self.load_builtin(name, &conf)? {
                true => Ok(()),
                false => Err(RpcError::new(
                    libc::ENOENT,
                    format!("{name}: no such builtin"),
                )),
            };
        }
        let path = match find(name) {
            Err(_) if self.load_builtin(name, &conf)? => return Ok(()),
            found => found?,
        };
        let base = path.file_name().unwrap_or_default().to_string_lossy();
        let base = base.into_owned();
        if self.taps.stack.named(&base).is_some() {
            return Err(RpcError::new(
                libc::EEXIST,
                format!("{base} already loaded"),
            ));
        }
        self.taps.last += 1;
        let serial = self.taps.last;
        self.taps.loading.clone_from(&base);
        let opened = self.open(&path, serial, conf).and_then(|body| {
            let order = self.taps.orders.get(&serial).copied().unwrap_or_default();
            let tap = Tap {
                serial,
                name: base,
                path: path.to_string_lossy().into_owned(),
                body,
                order,
            };
            self.configure(&tap)?;
            Ok(tap)
        });
        let tap = match opened {
            Ok(tap) => self.taps.stack.push(tap),
            Err(e) => {
                self.taps.forget_plugin(serial);
                self.taps
                    .pending_services
                    .retain(|(plugin, ..)| *plugin != serial);
                return Err(e);
            }
        };
        self.register_services();
        self.await_words(&tap);
        for id in self.in_order(tap.order) {
            self.introduce_to(&tap, id);
        }
        self.remove_broken();
        self.reprioritize_all();
        Ok(())
    }

    /// Load a plugin that is the manager itself; false if there is none of this name.
    fn load_builtin(&mut self, name: &str, conf: &Map<String, Value>) -> Result<bool, RpcError> {
        if self.taps.stack.named(name).is_some() {
            return Err(RpcError::new(
                libc::EEXIST,
                format!("{name} already loaded"),
            ));
        }
        if !self.taps.stack.restore_builtin(name) {
            return Ok(false);
        }
        if name == ".update-duration" {
            let bound = [json!(0), json!(false)];
            let given = conf.get("owner-allow-any");
            self.taps.is_owner_bound = given.is_some_and(|v| bound.contains(v));
        }
        self.reprioritize_all();
        Ok(true)
    }

    fn in_order(&self, order: Order) -> Vec<JobId> {
        // DEPEND comes after PRIORITY here, as flux-jobtap-plugins(7) has it.
        let rank = |id: &JobId| match self.jobs.get(id).map_or(0, |job| job.state.bit()) {
            2 => 4,
            4 => 2,
            bit => bit,
        };
        let mut ids: Vec<JobId> = self.jobs.keys().copied().collect();
        match order {
            Order::None => ids.sort_unstable(),
            Order::State => ids.sort_unstable_by_key(|id| (rank(id), *id)),
            Order::Reverse => ids.sort_unstable_by_key(|id| (std::cmp::Reverse(rank(id)), *id)),
        }
        ids
    }

    fn open(
        &mut self,
        path: &Path,
        serial: u64,
        conf: Map<String, Value>,
    ) -> Result<Body, RpcError> {
        let missing = |why: String| {
            let errno = if path.exists() {
                libc::EINVAL
            } else {
                libc::ENOENT
            };
            RpcError::new(errno, why)
        };
        let failed =
            |e: host::LoadError| RpcError::new(libc::EINVAL, format!("{}: {e}", path.display()));
        let command = match host::kind_of(path).map_err(missing)? {
            Kind::Native => {
                let setup = Setup {
                    path,
                    serial,
                    conf,
                    extension: EXTENSION,
                };
                return Plugin::load(setup, self).map(Body::Object).map_err(failed);
            }
            Kind::Program => Command::new(path),
            Kind::Upstream => {
                let mut command = Command::new(installation::bindir().join("flux-jobtap-exec"));
                command.arg(path);
                command
            }
        };
        self.start_program(path, command, serial, conf)
            .map_err(failed)
    }

    fn start_program(
        &mut self,
        path: &Path,
        mut command: Command,
        serial: u64,
        conf: Map<String, Value>,
    ) -> Result<Body, host::LoadError> {
        if let Some(uri) = &self.taps.uri {
            command.env("FLUX_URI", uri);
        }
        let start = Start {
            path,
            command,
            serial,
            conf,
        };
        let program = blocking(|| Program::start(start, self))?;
        let fd = program.fd().try_clone_to_owned();
        let fd = fd.map_err(|e| host::LoadError::Open(e.to_string()))?;
        // SAFETY: what is registered owns the descriptor, which is closed with it.
        let words = unsafe { AsyncFd::register(fd) };
        let words = words.map_err(|e| host::LoadError::Open(format!("{e:?}")))?;
        let words = Arc::new(words);
        Ok(Body::Program(Box::new(program), words))
    }

    /// Tell one plugin the configuration of the instance; it may refuse.
    fn configure(&mut self, tap: &Tap) -> Result<(), RpcError> {
        const TOPIC: &str = "conf.update";
        if !tap.handles(TOPIC) {
            return Ok(());
        }
        let mut args = Args::default();
        args.input
            .insert("conf".to_owned(), self.taps.config.clone());
        match tap.call(TOPIC, &mut args, self) {
            Some(..0) => {
                let otherwise = format!("config rejected by {} jobtap plugin", tap.service());
                let why = args.error().map_or(otherwise, str::to_owned);
                Err(RpcError::new(libc::EINVAL, why))
            }
            _ => Ok(()),
        }
    }

    /// Tell all plugins a new configuration, which any of them may refuse.
    pub(in crate::manager) fn configure_plugins(&mut self, config: Value) -> Result<(), RpcError> {
        let old = std::mem::replace(&mut self.taps.config, config);
        let taps = self.taps.stack.all();
        let told = taps.iter().try_for_each(|tap| self.configure(tap));
        self.remove_broken();
        if told.is_err() {
            self.taps.config = old;
        }
        told
    }

    /// Load what the configuration names.
    pub(in crate::manager) fn load_configured(
        &mut self,
        directives: Vec<Directive>,
        config: Value,
        uri: Option<String>,
    ) -> Result<(), String> {
        self.taps.config = config;
        self.taps.uri = uri;
        for (i, Directive { load, remove, conf }) in directives.into_iter().enumerate() {
            let failed = |what: String| format!("[job-manager.plugins][{i}]: {what}");
            if let Some(pattern) = remove {
                self.remove_plugins(&pattern)
                    .map_err(|e| failed(format!("remove {pattern}: {e}")))?;
            }
            if let Some(name) = load {
                self.load_plugin(&name, conf.unwrap_or_default())
                    .map_err(|e| failed(format!("load: {e}")))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_names() {
        let of = |plugins: Value| directives(&json!({"job-manager": {"plugins": plugins}}));
        let found = of(json!([{"load": "a.so", "conf": {"x": 1}}, {"remove": "*"}])).unwrap();
        assert_eq!(found[0].load.as_deref(), Some("a.so"));
        assert_eq!(found[1].remove.as_deref(), Some("*"));
        assert_eq!(directives(&json!({})), Ok(Vec::new()));
        for (bad, why) in [
            (json!({}), "[job-manager.plugins] config must be an array"),
            (
                json!([{"lod": "a"}]),
                "[job-manager.plugins][0]: lod is not known",
            ),
            (
                json!([{"load": 1}]),
                "[job-manager.plugins][0]: load: Expected string, got integer",
            ),
        ] {
            let found = of(bad).unwrap_err();
            assert!(found.starts_with(why), "{found}");
        }
    }
}
