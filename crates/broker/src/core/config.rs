//! The service `config`: what the configuration is, and how it changes.
//!
//! A new configuration is shown to every module in turn (`NAME.config-reload`); if one refuses, those that had taken
//! it get the old one back and nothing changes. It changes on rank 0; every other broker follows its parent.
//!
//! Invariant: one change is under way at a time; the next waits for its end.

use std::collections::VecDeque;

use client::{Handle, Node, RpcStream};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::config::Sources;

/// Services of the broker itself that a new configuration is shown to, before the modules.
pub(super) const OWN: [&str; 2] = ["overlay", "connector-local"];

/// A configuration to change to, and who wants it.
pub(super) struct Change {
    config: Value,
    /// The request, or none if the parent broker says so.
    request: Option<Message>,
}

/// The end of a change.
pub(super) struct Changed {
    change: Change,
    result: Result<(), RpcError>,
}

/// State of the service.
pub(super) struct Config {
    pub(super) current: Value,
    sources: Sources,
    getters: Vec<Message>,
    waiting: VecDeque<Change>,
    busy: bool,
}

impl Config {
    pub(super) fn new(current: Value, sources: Sources) -> Self {
        Self {
            current,
            sources,
            getters: Vec::new(),
            waiting: VecDeque::new(),
            busy: false,
        }
    }

    /// `config.get`: the object; streamed, again whenever it has changed.
    pub(super) fn get(&mut self, msg: &Message) -> Value {
        if msg.is_streaming() {
            self.getters.push(msg.clone());
        }
        self.current.clone()
    }

    pub(super) fn disconnect(&mut self, msg: &Message) {
        self.getters.retain(|req| !req.is_same_rpc(msg, None));
    }

    /// `config.load` and `config.reload`; answered when all modules have agreed.
    pub(super) fn change(&mut self, msg: &Message, root: bool) -> Result<(), RpcError> {
        msg.require_owner()?;
        if !root {
            let text = "configuration can only be changed on rank 0";
            return Err(RpcError::new(libc::EINVAL, text));
        }
        let config = match msg.method() {
            "reload" if self.sources.path.is_none() => self.current.clone(),
            "reload" => {
                let failed = |e| RpcError::new(libc::EINVAL, format!("Config file error: {e}"));
                self.sources.read().map_err(failed)?
            }
            _ => msg.json::<serde_json::Map<String, Value>>()?.into(),
        };
        self.waiting.push_back(Change {
            config,
            request: Some(msg.clone()),
        });
        Ok(())
    }

    /// The parent broker has this configuration.
    pub(super) fn follow(&mut self, config: Value) {
        let request = None;
        self.waiting.push_back(Change { config, request });
    }

    /// Whether no change is under way or waits.
    pub(super) fn is_settled(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }

    /// Start the next change, if there is one and none is under way.
    pub(super) fn next(
        &mut self,
        handle: &Handle,
        modules: &[String],
    ) -> Option<BoxFuture<'static, Changed>> {
        loop {
            if self.busy {
                return None;
            }
            let change = self.waiting.pop_front()?;
            if change.config == self.current {
                if let Some(request) = &change.request {
                    handle.respond_ok(request);
                }
                continue;
            }
            self.busy = true;
            let (handle, modules) = (handle.clone(), modules.to_vec());
            let old = self.current.clone();
            return Some(Box::pin(async move {
                let result = update_all(&handle, &modules, &change.config, &old).await;
                Changed { change, result }
            }));
        }
    }

    /// A change has ended; the text for the log if it failed without anybody being told.
    pub(super) fn changed(&mut self, changed: Changed, handle: &Handle) -> Option<String> {
        let Changed { change, result } = changed;
        self.busy = false;
        if result.is_ok() {
            self.current = change.config;
            for req in &self.getters {
                handle.respond(req, &self.current);
            }
        }
        match (change.request, result) {
            (Some(request), Ok(())) => {
                handle.respond_ok(&request);
                None
            }
            (Some(request), Err(e)) => {
                handle.respond_error(&request, &e);
                None
            }
            (None, result) => result.err().map(|e| format!("parent update: {e}")),
        }
    }
}

/// What the parent broker has, from now on.
pub(super) fn parent(handle: &Handle) -> RpcStream {
    handle.stream("config.get", Node::Upstream, &json!({}))
}

async fn update(handle: &Handle, module: &str, config: &Value) -> Result<(), RpcError> {
    let topic = format!("{module}.config-reload");
    match handle.rpc(&topic, Node::Rank(handle.rank()), config).await {
        // Without the method it does not care; without the module nobody does.
        Err(e) if !matches!(e.errno, libc::ENOSYS | libc::EHOSTUNREACH) => Err(e),
        _ => Ok(()),
    }
}

async fn update_all(
    handle: &Handle,
    modules: &[String],
    new: &Value,
    old: &Value,
) -> Result<(), RpcError> {
    for (index, module) in modules.iter().enumerate() {
        let Err(e) = update(handle, module, new).await else {
            continue;
        };
        for before in &modules[..index] {
            // They had accepted it before.
            let _ = update(handle, before, old).await;
        }
        return Err(RpcError::new(
            e.errno,
            format!("error updating {module}: {e}"),
        ));
    }
    Ok(())
}
