//! Hosting modules: starting them, watching them, asking them to end.
//!
//! A module is a task in this process (built in) or a process of its own ([`process`]). Both have an endpoint at the
//! router and a [`ModuleCard`] with what `flux module list` shows.
//!
//! Invariants: a request to load is answered once: when the module takes its first message, or when it has ended
//! before that; a request to remove is answered when the module has ended. A module that fails or panics ends alone.
//! Governing: RFC 5.

mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::module::{Context, ModuleError, ModuleMain, ModuleResult};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use wire::{Credentials, Flags, Message, RpcError};

use crate::attrs::Attrs;
use crate::router::{EndpointId, Input, ModuleCard, RouterHandle};

/// When a module is loaded without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranks {
    /// On every broker, before anything else and whatever the start-up script is.
    Base,
    /// On every broker.
    All,
    /// On rank 0 only.
    Root,
    /// On rank 0, if an attribute has the module's name as value.
    Chosen {
        /// The attribute.
        by: &'static str,
        /// Also if it is not set.
        default: bool,
    },
    /// Nowhere: whoever wants it loads it.
    Asked,
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
    /// Arguments it gets at start.
    pub args: &'static [&'static str],
    /// Its entry point.
    pub main: ModuleMain,
}

/// How long a module may take to end once it is asked to.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// As long in an instance that is broken: what a module waits for may never come.
const BROKEN_GRACE: Duration = Duration::from_millis(500);

/// Payload of `module.load`.
#[derive(Debug, Deserialize)]
pub(crate) struct LoadRequest {
    pub(crate) path: String,
    pub(crate) name: Option<String>,
    pub(crate) loader: Option<String>,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) exec: bool,
}

/// What a module sees of the broker at its start.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) attrs: &'a Attrs,
    pub(crate) config: &'a Value,
}

/// States of a module, numbered as in `module.list` and `module.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Init = 0,
    Running = 1,
    Finalizing = 2,
    Exited = 3,
}

enum Body {
    Task(tokio::task::AbortHandle),
    /// Killed when told to.
    Process(Arc<tokio::sync::Notify>),
}

impl Body {
    fn kill(&self) {
        match self {
            // Does nothing to a task that has ended.
            Self::Task(task) => task.abort(),
            Self::Process(kill) => kill.notify_one(),
        }
    }
}

struct Loaded {
    id: EndpointId,
    card: Arc<ModuleCard>,
    path: String,
    status: Status,
    /// The request to load it, until it is answered.
    loader: Option<Message>,
    /// Removal requests to answer when it has ended.
    removers: Vec<Message>,
    stopping: bool,
    body: Body,
    /// Errno a process reported at its end.
    errnum: i32,
}

/// What happens to modules.
pub(crate) enum News {
    /// The module takes messages.
    Running(EndpointId),
    /// The module is gone.
    Ended(EndpointId, ModuleResult),
}

/// What is left to do about a module that is gone.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) result: ModuleResult,
    /// It was asked to end.
    pub(crate) expected: bool,
    /// It ended before it took a message.
    pub(crate) at_start: bool,
    /// The request to load it, if that is to be answered.
    pub(crate) loader: Option<Message>,
    /// The requests to remove it.
    pub(crate) removers: Vec<Message>,
}

/// The modules of one broker.
pub(crate) struct Host {
    specs: Vec<ModuleSpec>,
    router: RouterHandle,
    cred: Credentials,
    place: (u32, u32),
    news: UnboundedSender<News>,
    loaded: BTreeMap<String, Loaded>,
    /// Names in the order they were loaded.
    order: Vec<String>,
    grace: Duration,
}

/// A module's name from the path of its file.
fn name_of(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".so")
        .map_or(file, |(stem, _)| stem)
        .trim_end_matches(".py")
}

fn missing(name: &str) -> RpcError {
    RpcError::explained(libc::ENOENT, format!("module {name} is not loaded"))
}

impl Host {
    pub(crate) fn new(
        specs: Vec<ModuleSpec>,
        router: RouterHandle,
        cred: Credentials,
        place: (u32, u32),
        news: UnboundedSender<News>,
    ) -> Self {
        Self {
            specs,
            router,
            cred,
            place,
            news,
            loaded: BTreeMap::new(),
            order: Vec::new(),
            grace: STOP_GRACE,
        }
    }

    /// A module has failed that others may wait for.
    pub(crate) fn hurry(&mut self) {
        self.grace = BROKEN_GRACE;
    }

    /// Load what every start needs.
    pub(crate) fn load_base(&mut self, around: Surroundings<'_>) -> Result<(), RpcError> {
        self.load_where(around, |spec| spec.ranks == Ranks::Base)
    }

    /// Load what belongs on this rank if no script says otherwise.
    pub(crate) fn load_initial(&mut self, around: Surroundings<'_>) -> Result<(), RpcError> {
        let root = self.place.0 == 0;
        self.load_where(around, |spec| match spec.ranks {
            Ranks::All => true,
            Ranks::Root => root,
            Ranks::Chosen { by, default } => {
                root && around
                    .attrs
                    .get(by)
                    .map_or(default, |name| name == spec.name)
            }
            Ranks::Base | Ranks::Asked => false,
        })
    }

    fn load_where(
        &mut self,
        around: Surroundings<'_>,
        wanted: impl Fn(&ModuleSpec) -> bool,
    ) -> Result<(), RpcError> {
        let specs = self.specs.iter().filter(|s| wanted(s));
        let requests: Vec<LoadRequest> = specs
            .map(|spec| LoadRequest {
                path: spec.name.to_owned(),
                name: None,
                loader: None,
                args: spec.args.iter().map(|a| (*a).to_owned()).collect(),
                exec: false,
            })
            .collect();
        requests
            .into_iter()
            .try_for_each(|request| self.load(request, None, around))
    }

    /// Start a module; `msg` is answered when it runs.
    pub(crate) fn load(
        &mut self,
        request: LoadRequest,
        msg: Option<&Message>,
        around: Surroundings<'_>,
    ) -> Result<(), RpcError> {
        let path = &request.path;
        let invalid = |text: &str| RpcError::new(libc::EINVAL, text);
        let name = request.name.as_deref().unwrap_or(name_of(path)).to_owned();
        if name.is_empty() || name.contains('.') {
            let text = format!("{name:?} cannot be the name of a module: it is empty or has a dot");
            return Err(invalid(&text));
        }
        if self.loaded.contains_key(&name) {
            let text = format!("module {name} is already loaded");
            return Err(RpcError::new(libc::EEXIST, text));
        }
        let builtin = self.specs.iter().find(|s| s.name == *path).cloned();
        match builtin {
            Some(_) if request.exec || request.loader.is_some() => {
                return Err(invalid(
                    "built-in modules cannot execute in a separate process",
                ));
            }
            Some(spec) => {
                self.check_services(&spec)?;
                self.start_task(&spec, name, request.args, msg);
            }
            None if request.loader.is_some() && !path.contains('/') => {
                return Err(invalid(
                    "module loader may only be specified with module path",
                ));
            }
            None => {
                let program = process::find(path, request.loader.as_deref())?;
                self.start_process(program, name, request.args, msg, around)?;
            }
        }
        Ok(())
    }

    /// Whether what a module would answer for is free.
    fn check_services(&self, spec: &ModuleSpec) -> Result<(), RpcError> {
        for (other, loaded) in &self.loaded {
            let taken = loaded.card.services();
            if let Some(service) = spec.services.iter().find(|s| taken.iter().any(|t| t == *s)) {
                let why = format!("module {other} has the service {service}");
                return Err(RpcError::explained(libc::EEXIST, why));
            }
        }
        Ok(())
    }

    fn start_task(
        &mut self,
        spec: &ModuleSpec,
        name: String,
        args: Vec<String>,
        msg: Option<&Message>,
    ) {
        let mut services = vec![name.clone()];
        services.extend(spec.services.iter().map(|s| (*s).to_owned()));
        let card = ModuleCard::new(&name, &services);
        let (id, handle) = self
            .router
            .attach_module(self.cred, services, Some(card.clone()));
        handle.set_place(self.place.0, self.place.1);
        handle.set_meter(card.meter.clone());
        // `attach_module` made this handle just now, so nobody else has its inbox.
        let inbox = handle.inbox().expect("a fresh handle has its inbox");
        let context = Context {
            handle,
            inbox,
            name: name.clone(),
            args,
        };
        let task = tokio::spawn((spec.main)(context));
        let body = Body::Task(task.abort_handle());
        let (news, own_id, running) = (self.news.clone(), id.clone(), card.meter.running());
        tokio::spawn(async move {
            let mut task = task;
            tokio::select! {
                // A module that ends without taking a message is not running first.
                biased;
                result = &mut task => {
                    let result = result.unwrap_or_else(|e| Err(died(e)));
                    let _ = news.send(News::Ended(own_id, result));
                    return;
                }
                () = tell_running(running, &news, &own_id) => {}
            }
            let result = task.await.unwrap_or_else(|e| Err(died(e)));
            // The core is only gone when the broker ends.
            let _ = news.send(News::Ended(own_id, result));
        });
        self.insert(name, "builtin".to_owned(), id, card, body, msg);
    }

    fn start_process(
        &mut self,
        program: process::Program,
        name: String,
        args: Vec<String>,
        msg: Option<&Message>,
        around: Surroundings<'_>,
    ) -> Result<(), RpcError> {
        let path = program.path.clone();
        let services = vec![name.clone()];
        let card = ModuleCard::new(&name, &services);
        let welcome = json!({
            "args": args,
            "attrs": around.attrs.immutable(),
            "conf": around.config,
            "name": name,
        });
        let started = process::start(
            program,
            welcome,
            process::Place {
                router: self.router.clone(),
                cred: self.cred,
                local_uri: around.attrs.get("local-uri").unwrap_or_default().to_owned(),
                card: card.clone(),
                services,
                news: self.news.clone(),
            },
        );
        let (id, kill) = started.map_err(|e| {
            let errno = e.raw_os_error().unwrap_or(libc::EINVAL);
            RpcError::new(errno, format!("module {name}: cannot start {path}: {e}"))
        })?;
        self.insert(name, path, id, card, Body::Process(kill), msg);
        Ok(())
    }

    fn insert(
        &mut self,
        name: String,
        path: String,
        id: EndpointId,
        card: Arc<ModuleCard>,
        body: Body,
        msg: Option<&Message>,
    ) {
        let entry = Loaded {
            id,
            card,
            path,
            status: Status::Init,
            loader: msg.cloned(),
            removers: Vec::new(),
            stopping: false,
            body,
            errnum: 0,
        };
        self.order.push(name.clone());
        self.loaded.insert(name, entry);
    }

    /// Ask `name` to end; `remover` is answered when it has. With `cancel` it is not asked.
    pub(crate) fn unload(
        &mut self,
        name: &str,
        remover: Option<Message>,
        cancel: bool,
    ) -> Result<(), RpcError> {
        let by_path = |(_, m): &(&String, &Loaded)| m.path == name && name != "builtin";
        let name = match self.loaded.contains_key(name) {
            true => name.to_owned(),
            false => self
                .loaded
                .iter()
                .find(by_path)
                .map(|(name, _)| name.clone())
                .ok_or_else(|| missing(name))?,
        };
        let entry = self.loaded.get_mut(&name).ok_or_else(|| missing(&name))?;
        entry.removers.extend(remover);
        if cancel {
            entry.stopping = true;
            entry.body.kill();
            return Ok(());
        }
        if entry.stopping {
            return Ok(());
        }
        entry.stopping = true;
        if entry.status == Status::Init {
            // It has not taken a message: what it waits for may never come, and nothing is lost with it.
            entry.body.kill();
            return Ok(());
        }
        let grace = self.grace;
        match &entry.body {
            Body::Task(task) => {
                entry.status = Status::Finalizing;
                self.router.send(Input::CloseInbox(entry.id.clone()));
                let task = task.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(grace).await;
                    task.abort();
                });
            }
            Body::Process(kill) => {
                self.router
                    .send(Input::Tell(entry.id.clone(), stop_request(&name)));
                let kill = kill.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(grace).await;
                    kill.notify_one();
                });
            }
        }
        Ok(())
    }

    /// A module takes messages now; the request to load it, to be answered.
    pub(crate) fn running(&mut self, id: &EndpointId) -> Option<Message> {
        let entry = self.loaded.values_mut().find(|m| m.id == *id)?;
        // One that is being ended because it had not begun has not.
        if entry.status == Status::Init && !entry.stopping {
            entry.status = Status::Running;
        }
        entry.loader.take()
    }

    /// `module.status`: a module in a process says where it is in its life.
    pub(crate) fn report(&mut self, id: &EndpointId, status: i32, errnum: i32) {
        let Some(entry) = self.loaded.values_mut().find(|m| m.id == *id) else {
            return;
        };
        match status {
            1 => entry.card.meter.set_running(),
            2 => {
                entry.status = Status::Finalizing;
                self.router.send(Input::Mute(id.clone()));
            }
            3 => {
                entry.status = Status::Exited;
                entry.errnum = errnum;
            }
            _ => {}
        }
    }

    /// Forget a module that is gone.
    pub(crate) fn forget(&mut self, id: EndpointId, result: ModuleResult) -> Option<Ended> {
        let name = self.loaded.iter().find(|(_, m)| m.id == id)?.0.clone();
        let entry = self.loaded.remove(&name)?;
        self.order.retain(|n| *n != name);
        self.router.send(Input::Detach(id));
        let result = match (entry.errnum, entry.status) {
            // It was ended before it had begun.
            (0, Status::Init) if entry.stopping => Ok(()),
            // A process that has said how it ended is believed.
            (0, Status::Exited) => Ok(()),
            (0, _) => result,
            (errno, _) => Err(RpcError::errno(errno).into()),
        };
        Some(Ended {
            name,
            result,
            expected: entry.stopping,
            at_start: entry.status == Status::Init,
            loader: entry.loader,
            removers: entry.removers,
        })
    }

    /// The module loaded last, first to be unloaded.
    pub(crate) fn last(&self) -> Option<&str> {
        self.order.last().map(String::as_str)
    }

    /// As [`Host::last`], of those that a start-up script may load and its counterpart unload.
    pub(crate) fn last_but_base(&self) -> Option<&str> {
        let base = |name: &str| {
            let mut specs = self.specs.iter().filter(|s| s.ranks == Ranks::Base);
            specs.any(|s| s.name == name)
        };
        self.order.iter().map(String::as_str).rfind(|n| !base(n))
    }

    /// Names of the modules, in the order they were loaded.
    pub(crate) fn names(&self) -> &[String] {
        &self.order
    }

    /// Keep messages for a module back, or let them go.
    pub(crate) fn defer(&self, name: &str, on: bool) -> Result<(), RpcError> {
        let entry = self.loaded.get(name).ok_or_else(|| missing(name))?;
        self.router.send(Input::Defer(entry.id.clone(), on));
        Ok(())
    }

    /// Payload of `module.list`.
    pub(crate) fn list(&self) -> Value {
        let entry = |(name, m): (&String, &Loaded)| {
            json!({
                "name": name,
                "path": m.path,
                "idle": m.card.meter.idle(),
                "status": m.status as i32,
                "services": m.card.services(),
                // What a module sends is taken from it at once.
                "sendqueue": 0,
                "recvqueue": m.card.meter.waiting(),
            })
        };
        json!({ "mods": self.loaded.iter().map(entry).collect::<Vec<_>>() })
    }
}

/// The request that asks a process to end.
fn stop_request(name: &str) -> Message {
    Message::request(
        format!("{name}.shutdown"),
        wire::NODEID_ANY,
        0,
        Flags::NORESPONSE,
        None,
    )
}

async fn tell_running(
    mut running: tokio::sync::watch::Receiver<bool>,
    news: &UnboundedSender<News>,
    id: &EndpointId,
) {
    // The sender lives with the module; if that is gone its end is reported instead.
    if running.wait_for(|on| *on).await.is_ok() {
        let _ = news.send(News::Running(id.clone()));
    }
}

/// Why a task has no result.
fn died(e: tokio::task::JoinError) -> ModuleError {
    if e.is_cancelled() {
        return ModuleError {
            errno: libc::ETIMEDOUT,
            text: "did not end when asked to, and was ended".to_owned(),
        };
    }
    let panic = e.into_panic();
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ModuleError {
        errno: libc::ECONNRESET,
        text: format!("panicked: {text}"),
    }
}

#[cfg(test)]
mod tests;
