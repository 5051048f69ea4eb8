//! A toy instance in one process, for tests of broker modules: several ranks, real modules, real
//! messages, no network.
//!
//! It routes requests by rank and service as RFC 3 says, delivers events to subscribers in one
//! order, and keeps attributes. Whatever else a module calls is answered with ENOSYS, unless the
//! test provides it with [`Instance::serve`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::module::{Context, Meter, ModuleResult};
use client::{Deliver, Handle, Message};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use wire::{Credentials, Flags, Kind, NODEID_ANY, RpcError, Text};

/// User id of the instance owner.
pub const OWNER: u32 = 1000;

type Service = Box<dyn Fn(&Message) -> Result<Value, RpcError> + Send>;

struct Port {
    rank: u32,
    cred: Credentials,
    deliver: Deliver,
    subscriptions: Vec<String>,
}

#[derive(Default)]
struct State {
    size: u32,
    ports: HashMap<Text, Port>,
    services: HashMap<(u32, String), Text>,
    fakes: HashMap<String, Service>,
    attrs: BTreeMap<String, String>,
    sequence: u32,
    next: u32,
}

/// The instance. Clones share it.
#[derive(Clone)]
pub struct Instance(Arc<Mutex<State>>);

/// A running module.
pub struct Running {
    id: Text,
    instance: Instance,
    task: JoinHandle<ModuleResult>,
}

impl Instance {
    /// An instance of `size` ranks in a flat tree.
    pub fn new(size: u32) -> Instance {
        Instance(Arc::new(Mutex::new(State {
            size,
            ..State::default()
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a broker attribute on all ranks.
    pub fn set_attr(&self, name: &str, value: &str) {
        self.state().attrs.insert(name.into(), value.into());
    }

    /// Answers requests to `topic` from the test.
    pub fn serve(
        &self,
        topic: &str,
        answer: impl Fn(&Message) -> Result<Value, RpcError> + Send + 'static,
    ) {
        self.state().fakes.insert(topic.into(), Box::new(answer));
    }

    fn port(&self, rank: u32, cred: Credentials) -> (Text, Handle) {
        let (tx, rx) = unbounded_channel();
        let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
        let mut state = self.state();
        handle.set_place(rank, state.size);
        state.next += 1;
        let id: Text = format!("port-{}", state.next).into();
        state.ports.insert(
            id.clone(),
            Port {
                rank,
                cred,
                deliver,
                subscriptions: vec![],
            },
        );
        drop(state);
        tokio::spawn(pump(self.clone(), id.clone(), rx));
        (id, handle)
    }

    /// A client of the owner, connected to `rank`.
    pub fn client(&self, rank: u32) -> Handle {
        self.port(rank, Credentials::owner(OWNER)).1
    }

    /// A client of another user, connected to `rank`.
    pub fn guest(&self, rank: u32, userid: u32) -> Handle {
        let rolemask = wire::ROLE_USER | wire::ROLE_LOCAL;
        self.port(rank, Credentials { userid, rolemask }).1
    }

    /// Starts a module on a rank.
    pub fn start<F>(
        &self,
        rank: u32,
        name: &str,
        args: &[&str],
        main: impl FnOnce(Context) -> F,
    ) -> Running
    where
        F: Future<Output = ModuleResult> + Send + 'static,
    {
        let (id, handle) = self.port(rank, Credentials::owner(OWNER));
        handle.set_meter(Arc::new(Meter::new(name)));
        self.state()
            .services
            .insert((rank, name.into()), id.clone());
        let inbox = handle.inbox().expect("a fresh handle has its inbox");
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let task = tokio::spawn(main(Context {
            handle,
            inbox,
            name: name.to_owned(),
            args,
        }));
        Running {
            id,
            instance: self.clone(),
            task,
        }
    }

    fn route(&self, from: &Text, mut msg: Message) {
        let mut state = self.state();
        let Some(port) = state.ports.get(from) else {
            return;
        };
        let (rank, cred) = (port.rank, port.cred);
        match msg.kind() {
            Kind::Response { .. } => {
                let to = msg.pop_route();
                if let Some(port) = to.and_then(|id| state.ports.get(&id)) {
                    port.deliver.deliver(msg);
                }
            }
            Kind::Request { nodeid, .. } => {
                msg.set_credentials(cred);
                msg.push_route(from.clone());
                let upstream = msg.flags().has(Flags::UPSTREAM);
                let service = msg.service().to_owned();
                let ranks: Vec<u32> = match nodeid {
                    // A flat tree: every rank's parent is rank 0.
                    _ if upstream && rank == 0 => vec![],
                    _ if upstream => vec![0],
                    NODEID_ANY => vec![rank, 0],
                    r => vec![r],
                };
                let target = ranks
                    .iter()
                    .find_map(|r| state.services.get(&(*r, service.clone())).cloned());
                if let Some(port) = target.and_then(|id| state.ports.get(&id)) {
                    port.deliver.deliver(msg);
                    return;
                }
                let answer = state.answer(from, rank, &msg);
                if let (Some(port), false) = (state.ports.get(from), msg.no_response()) {
                    let mut response = match answer {
                        Ok(value) => msg.response(0, wire::json_payload(&value).ok()),
                        Err(e) => msg.error_response(&e),
                    };
                    response.pop_route();
                    port.deliver.deliver(response);
                }
            }
            Kind::Event { .. } | Kind::Control { .. } => {}
        }
    }
}

impl State {
    /// What the broker itself answers.
    fn answer(&mut self, from: &Text, rank: u32, msg: &Message) -> Result<Value, RpcError> {
        if let Some(fake) = self.fakes.get(msg.topic()) {
            return fake(msg);
        }
        let req: Value = msg.json()?;
        let text = |name: &str| req[name].as_str().unwrap_or_default().to_owned();
        match msg.topic() {
            "attr.get" => match text("name").as_str() {
                "rank" => Ok(json!({"value": rank.to_string(), "flags": 1})),
                "size" => Ok(json!({"value": self.size.to_string(), "flags": 1})),
                name => match self.attrs.get(name) {
                    Some(value) => Ok(json!({"value": value, "flags": 0})),
                    None => Err(RpcError::errno(2)),
                },
            },
            "attr.set" => {
                self.attrs.insert(text("name"), text("value"));
                Ok(json!({}))
            }
            "service.add" => {
                use std::collections::hash_map::Entry;
                match self.services.entry((rank, text("service"))) {
                    Entry::Occupied(_) => return Err(RpcError::errno(17)),
                    Entry::Vacant(free) => drop(free.insert(from.clone())),
                }
                Ok(json!({}))
            }
            "service.remove" => {
                self.services.remove(&(rank, text("service")));
                Ok(json!({}))
            }
            "event.subscribe" | "event.unsubscribe" => {
                let port = self.ports.get_mut(from).ok_or(RpcError::errno(2))?;
                let topic = text("topic");
                if msg.topic() == "event.subscribe" {
                    port.subscriptions.push(topic);
                } else if let Some(i) = port.subscriptions.iter().position(|s| *s == topic) {
                    port.subscriptions.swap_remove(i);
                }
                Ok(json!({}))
            }
            "event.publish" => {
                let payload = match req["payload"].as_str() {
                    Some(text) => Some(
                        BASE64
                            .decode(text)
                            .map_err(|e| RpcError::proto(e.to_string()))?
                            .into(),
                    ),
                    None => None,
                };
                let flags = req["flags"].as_u64().unwrap_or(0) as u8;
                self.sequence += 1;
                let mut event = Message::event(text("topic"), flags, payload);
                event.set_sequence(self.sequence);
                event.set_credentials(msg.credentials());
                for port in self.ports.values() {
                    if port
                        .subscriptions
                        .iter()
                        .any(|s| event.topic().starts_with(s.as_str()))
                    {
                        port.deliver.deliver(event.clone());
                    }
                }
                Ok(json!({"seq": self.sequence}))
            }
            _ => Err(RpcError::errno(38)),
        }
    }
}

async fn pump(instance: Instance, id: Text, mut rx: UnboundedReceiver<Message>) {
    while let Some(msg) = rx.recv().await {
        instance.route(&id, msg);
    }
    instance.state().ports.remove(&id);
}

impl Running {
    /// Tells the module to shut down and waits until it has.
    pub async fn stop(self) -> ModuleResult {
        if let Some(port) = self.instance.state().ports.get(&self.id) {
            port.deliver.close_inbox();
        }
        let result = self.task.await.expect("module does not panic");
        self.instance
            .state()
            .services
            .retain(|_, id| *id != self.id);
        result
    }

    /// Ends the module as a crash would: nothing is flushed.
    pub async fn kill(self) {
        self.task.abort();
        // The task ends with a cancellation, which is what was asked for.
        let _ = self.task.await;
        self.instance
            .state()
            .services
            .retain(|_, id| *id != self.id);
    }
}
