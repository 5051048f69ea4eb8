//! Hosting modules: starting them as tasks, watching them, asking them to end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::module::{Context, ModuleMain, ModuleResult};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use wire::{Credentials, Message, RpcError};

use crate::router::{EndpointId, Input, RouterHandle};

/// The brokers a module is loaded on at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranks {
    /// Every broker.
    All,
    /// Rank 0 only.
    Root,
    /// None: only when asked for.
    OnDemand,
}

/// A module that is linked into the program.
#[derive(Clone)]
pub struct ModuleSpec {
    /// Its name, also its first service.
    pub name: &'static str,
    /// Further services it answers for.
    pub services: &'static [&'static str],
    /// Where it is loaded at start.
    pub ranks: Ranks,
    /// Its entry point.
    pub main: ModuleMain,
}

/// How long a module may take to end once it is asked to.
const STOP_GRACE: Duration = Duration::from_secs(5);

struct Loaded {
    id: EndpointId,
    services: Vec<String>,
    since: Instant,
    /// Removal requests to answer when it has ended.
    removers: Vec<Message>,
    stopping: bool,
    abort: tokio::task::AbortHandle,
}

/// A module's task has returned.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) result: ModuleResult,
}

/// The modules of one broker.
pub(crate) struct Host {
    specs: Vec<ModuleSpec>,
    router: RouterHandle,
    cred: Credentials,
    place: (u32, u32),
    ended: UnboundedSender<Ended>,
    loaded: BTreeMap<String, Loaded>,
    /// Names in the order they were loaded.
    order: Vec<String>,
}

impl Host {
    pub(crate) fn new(
        specs: Vec<ModuleSpec>,
        router: RouterHandle,
        cred: Credentials,
        place: (u32, u32),
        ended: UnboundedSender<Ended>,
    ) -> Self {
        Self {
            specs,
            router,
            cred,
            place,
            ended,
            loaded: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    /// Load what belongs on this rank at start.
    pub(crate) fn load_initial(&mut self) -> Result<(), RpcError> {
        let rank = self.place.0;
        let here = |spec: &&ModuleSpec| match spec.ranks {
            Ranks::All => true,
            Ranks::Root => rank == 0,
            Ranks::OnDemand => false,
        };
        let names: Vec<&str> = self.specs.iter().filter(here).map(|s| s.name).collect();
        names
            .into_iter()
            .try_for_each(|name| self.load(None, name, Vec::new()))
    }

    /// Start the module that `path` names, as `name` or under its own.
    pub(crate) fn load(
        &mut self,
        name: Option<&str>,
        path: &str,
        args: Vec<String>,
    ) -> Result<(), RpcError> {
        let file = path.rsplit('/').next().unwrap_or(path);
        let stem = file.strip_suffix(".so").unwrap_or(file);
        let name = name.unwrap_or(stem);
        let Some(spec) = self.specs.iter().find(|s| s.name == stem) else {
            let text = format!("module {path} is not one of the broker's built-in modules");
            return Err(RpcError::new(libc::ENOENT, text));
        };
        if self.loaded.contains_key(name) {
            return Err(RpcError::new(
                libc::EEXIST,
                format!("module {name} is already loaded"),
            ));
        }
        let mut services = vec![name.to_owned()];
        services.extend(spec.services.iter().map(|s| (*s).to_owned()));
        let (id, handle) = self.router.attach(self.cred, services.clone());
        handle.set_place(self.place.0, self.place.1);
        // `attach` made this handle just now, so nobody else has its inbox.
        let inbox = handle.inbox().expect("a fresh handle has its inbox");
        let task = tokio::spawn((spec.main)(Context {
            handle,
            inbox,
            args,
        }));
        let abort = task.abort_handle();
        let (ended, owned) = (self.ended.clone(), name.to_owned());
        tokio::spawn(async move {
            let result = task.await.unwrap_or_else(|e| {
                Err(client::module::ModuleError(format!(
                    "module task failed: {e}"
                )))
            });
            // The core is only gone when the broker ends.
            let _ = ended.send(Ended {
                name: owned,
                result,
            });
        });
        let since = Instant::now();
        let entry = Loaded {
            id,
            services,
            since,
            removers: Vec::new(),
            stopping: false,
            abort,
        };
        self.loaded.insert(name.to_owned(), entry);
        self.order.push(name.to_owned());
        Ok(())
    }

    /// Ask `name` to end; `remover` is answered when it has.
    pub(crate) fn unload(&mut self, name: &str, remover: Option<Message>) -> Result<(), RpcError> {
        let Some(entry) = self.loaded.get_mut(name) else {
            return Err(RpcError::new(
                libc::ENOENT,
                format!("module {name} is not loaded"),
            ));
        };
        entry.removers.extend(remover);
        if !entry.stopping {
            entry.stopping = true;
            self.router.send(Input::CloseInbox(entry.id.clone()));
            let abort = entry.abort.clone();
            tokio::spawn(async move {
                tokio::time::sleep(STOP_GRACE).await;
                // Does nothing to a task that has ended.
                abort.abort();
            });
        }
        Ok(())
    }

    /// Forget an ended module; returns the requests that waited for it.
    pub(crate) fn forget(&mut self, name: &str) -> Vec<Message> {
        self.order.retain(|n| n != name);
        let Some(entry) = self.loaded.remove(name) else {
            return Vec::new();
        };
        self.router.send(Input::Detach(entry.id));
        entry.removers
    }

    /// Whether `name` was asked to end.
    pub(crate) fn is_stopping(&self, name: &str) -> bool {
        self.loaded.get(name).is_some_and(|m| m.stopping)
    }

    /// The module loaded last, first to be unloaded.
    pub(crate) fn last(&self) -> Option<&str> {
        self.order.last().map(String::as_str)
    }

    /// Payload of `module.list`.
    pub(crate) fn list(&self) -> Value {
        let entry = |(name, m): (&String, &Loaded)| {
            json!({
                "name": name,
                "path": "builtin",
                "idle": m.since.elapsed().as_secs(),
                // FLUX_MODSTATE_RUNNING of upstream's module states, and EXITED while it ends
                "status": if m.stopping { 2 } else { 1 },
                "services": m.services,
                "sendqueue": 0,
                "recvqueue": 0,
            })
        };
        json!({ "mods": self.loaded.iter().map(entry).collect::<Vec<_>>() })
    }
}
