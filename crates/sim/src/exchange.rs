//! Ranks, what is attached to them, and the way of a message between them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::{Deliver, Handle};
use serde_json::{Value, json};
use tokio::sync::Notify;
use wire::{Credentials, Flags, Kind, Message, NODEID_ANY, RpcError, Text};

const OWNER: u32 = 1000;

/// What ports have sent and the world has not taken up.
pub(crate) type Outbox = Arc<Mutex<VecDeque<(Text, Message)>>>;

/// A connection of a module or a program to its broker.
struct Port {
    rank: u32,
    deliver: Deliver,
    subscriptions: Vec<String>,
}

/// All brokers: what they know of their own ports.
pub(crate) struct Exchange {
    size: u32,
    fanout: u32,
    outbox: Outbox,
    stir: Arc<Notify>,
    ports: BTreeMap<Text, Port>,
    services: HashMap<(u32, String), Text>,
    attrs: BTreeMap<String, String>,
    /// Services of rank 0 that are not modules.
    outside: &'static [&'static str],
    sequence: u32,
    next: u32,
}

/// Where a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Where its service is first found on the way up.
    First,
    Rank(u32),
}

/// A message between two ranks.
#[derive(Debug)]
pub(crate) enum Packet {
    Up(Message, Goal),
    Down(Message, Text),
    Event(Message),
}

/// Where a message goes from a rank.
pub(crate) enum Step {
    Port(Text, Message),
    /// To the neighbour of that rank.
    Hop(u32, Packet),
    /// To what is behind rank 0.
    Outside(Message),
    /// To everybody below.
    Event(Message),
    Nowhere,
}

impl Exchange {
    pub(crate) fn new(size: u32, fanout: u32, outside: &'static [&'static str]) -> Exchange {
        Exchange {
            size,
            fanout,
            outbox: Outbox::default(),
            stir: Arc::default(),
            ports: BTreeMap::new(),
            services: HashMap::new(),
            attrs: BTreeMap::new(),
            outside,
            sequence: 0,
            next: 0,
        }
    }

    pub(crate) fn parent(&self, rank: u32) -> Option<u32> {
        rank.checked_sub(1).map(|r| r / self.fanout)
    }

    pub(crate) fn children(&self, rank: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, size) = (rank * self.fanout + 1, self.size);
        (first..first + self.fanout).filter(move |child| *child < size)
    }

    /// Whether `rank` is `top` or below it.
    pub(crate) fn is_below(&self, rank: u32, top: u32) -> bool {
        rank == top || self.parent(rank).is_some_and(|p| self.is_below(p, top))
    }

    /// Attaches something to a rank, under the name of a service if it is one.
    pub(crate) fn attach(&mut self, rank: u32, service: Option<&str>) -> (Text, Handle) {
        self.next += 1;
        let id: Text = format!("port-{:06}", self.next).into();
        let (outbox, stir, from) = (self.outbox.clone(), self.stir.clone(), id.clone());
        let (handle, deliver) = Handle::with_sink(move |msg| {
            let mut outbox = outbox.lock().unwrap_or_else(PoisonError::into_inner);
            outbox.push_back((from.clone(), msg));
            stir.notify_one();
            true
        });
        handle.set_place(rank, self.size);
        if let Some(service) = service {
            self.services.insert((rank, service.to_owned()), id.clone());
        }
        let port = Port {
            rank,
            deliver,
            subscriptions: Vec::new(),
        };
        self.ports.insert(id.clone(), port);
        (id, handle)
    }

    /// A port answers to another name, too.
    pub(crate) fn also(&mut self, service: &str, id: &Text) {
        if let Some(port) = self.ports.get(id) {
            let key = (port.rank, service.to_owned());
            self.services.insert(key, id.clone());
        }
    }

    /// One port of a rank is gone.
    pub(crate) fn drop_port(&mut self, id: &Text) {
        self.ports.remove(id);
        self.services.retain(|_, port| port != id);
    }

    /// What is attached there shall end: its services are gone, it can still talk.
    pub(crate) fn close_inbox(&mut self, id: &Text) {
        self.services.retain(|_, port| port != id);
        if let Some(port) = self.ports.get(id) {
            port.deliver.close_inbox();
        }
    }

    pub(crate) fn is_attached(&self, id: &Text) -> bool {
        self.ports.contains_key(id)
    }

    pub(crate) fn set_attr(&mut self, name: &str, value: &str) {
        self.attrs.insert(name.into(), value.into());
    }

    /// Resolves when a port has sent something since the last time.
    pub(crate) fn stirs(&self) -> impl Future<Output = ()> + use<> {
        let stir = self.stir.clone();
        async move { stir.notified().await }
    }

    /// All that was attached to a rank is gone.
    pub(crate) fn detach(&mut self, rank: u32) {
        self.ports.retain(|_, port| port.rank != rank);
        self.services.retain(|(r, _), _| *r != rank);
        if rank == 0 {
            self.attrs.clear();
        }
    }

    /// What a port has sent, with its rank; what the dead had to say is dropped.
    pub(crate) fn sent(&mut self) -> Option<(u32, Text, Message)> {
        loop {
            let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
            let (id, msg) = outbox.pop_front()?;
            if let Some(port) = self.ports.get(&id) {
                return Some((port.rank, id, msg));
            }
        }
    }

    pub(crate) fn deliver(&self, id: &Text, msg: Message) {
        if let Some(port) = self.ports.get(id) {
            port.deliver.deliver(msg);
        }
    }

    /// Ports of a rank that want an event.
    pub(crate) fn subscribers(&self, rank: u32, topic: &str) -> Vec<Text> {
        let wants = |port: &Port| {
            let mut subscriptions = port.subscriptions.iter();
            port.rank == rank && subscriptions.any(|s| topic.starts_with(s.as_str()))
        };
        let ports = self.ports.iter().filter(|(_, port)| wants(port));
        ports.map(|(id, _)| id.clone()).collect()
    }

    /// A message that a port has sent: where it goes first.
    pub(crate) fn submit(&mut self, rank: u32, from: Text, mut msg: Message) -> Step {
        match msg.kind() {
            Kind::Response { .. } => match msg.pop_route() {
                Some(to) => self.toward(rank, to, msg),
                None => Step::Nowhere,
            },
            Kind::Request { nodeid, .. } => {
                msg.set_credentials(Credentials::owner(OWNER));
                msg.push_route(from);
                match (msg.flags().has(Flags::UPSTREAM), nodeid) {
                    (true, _) => match self.parent(rank) {
                        Some(parent) => Step::Hop(parent, Packet::Up(msg, Goal::Rank(parent))),
                        None => self.refuse(rank, &msg, libc::EHOSTUNREACH),
                    },
                    (false, NODEID_ANY) => self.request(rank, msg, Goal::First),
                    (false, nodeid) => self.request(rank, msg, Goal::Rank(nodeid)),
                }
            }
            Kind::Event { .. } | Kind::Control { .. } => Step::Nowhere,
        }
    }

    /// A request that has come to a rank.
    pub(crate) fn request(&mut self, rank: u32, msg: Message, goal: Goal) -> Step {
        if rank == 0 && self.outside.contains(&msg.service()) {
            return Step::Outside(msg);
        }
        if let Goal::Rank(to) = goal
            && to != rank
        {
            return self.up(rank, msg, goal);
        }
        if let Some(id) = self.services.get(&(rank, msg.service().to_owned())) {
            return Step::Port(id.clone(), msg);
        }
        match self.answer(rank, &msg) {
            Ok(Answer::Event(event, answer)) => {
                self.deliver_response(rank, &msg, Ok(answer));
                Step::Event(event)
            }
            Ok(Answer::Value(value)) => self.respond(rank, &msg, Ok(value)),
            Err(_) if goal == Goal::First && rank > 0 => self.up(rank, msg, goal),
            Err(e) => self.respond(rank, &msg, Err(e)),
        }
    }

    fn up(&self, rank: u32, msg: Message, goal: Goal) -> Step {
        match self.parent(rank) {
            Some(parent) => Step::Hop(parent, Packet::Up(msg, goal)),
            None => Step::Nowhere,
        }
    }

    fn refuse(&self, rank: u32, msg: &Message, errno: i32) -> Step {
        self.respond(rank, msg, Err(RpcError::errno(errno)))
    }

    /// The answer of a broker, on its way.
    pub(crate) fn respond(
        &self,
        rank: u32,
        msg: &Message,
        answer: Result<Value, RpcError>,
    ) -> Step {
        if msg.no_response() {
            return Step::Nowhere;
        }
        let mut response = match answer {
            Ok(value) => msg.response(0, wire::json_payload(&value).ok()),
            Err(e) => msg.error_response(&e),
        };
        match response.pop_route() {
            Some(to) => self.toward(rank, to, response),
            None => Step::Nowhere,
        }
    }

    fn deliver_response(&self, rank: u32, msg: &Message, answer: Result<Value, RpcError>) {
        // Events are published at rank 0 by what is there.
        if let Step::Port(id, response) = self.respond(rank, msg, answer) {
            self.deliver(&id, response);
        }
    }

    /// A response on its way from `rank` to a port.
    pub(crate) fn toward(&self, rank: u32, to: Text, msg: Message) -> Step {
        let Some(port) = self.ports.get(&to) else {
            return Step::Nowhere;
        };
        if port.rank == rank {
            return Step::Port(to, msg);
        }
        let mut children = self.children(rank);
        match children.find(|child| self.is_below(port.rank, *child)) {
            Some(child) => Step::Hop(child, Packet::Down(msg, to)),
            None => Step::Nowhere,
        }
    }

    /// What the broker itself answers.
    fn answer(&mut self, rank: u32, msg: &Message) -> Result<Answer, RpcError> {
        let req: Value = msg.json().unwrap_or_default();
        let text = |name: &str| req[name].as_str().unwrap_or_default().to_owned();
        match msg.topic() {
            "attr.get" => match self.attrs.get(&text("name")) {
                Some(value) => Ok(Answer::Value(json!({"value": value, "flags": 0}))),
                None => Err(RpcError::errno(libc::ENOENT)),
            },
            "attr.set" => {
                self.attrs.insert(text("name"), text("value"));
                Ok(Answer::Value(json!({})))
            }
            "event.subscribe" | "event.unsubscribe" => {
                let port = msg.sender().and_then(|id| self.ports.get_mut(id));
                let port = port.ok_or_else(|| RpcError::errno(libc::ENOENT))?;
                let topic = text("topic");
                match port.subscriptions.iter().position(|s| *s == topic) {
                    _ if msg.topic() == "event.subscribe" => port.subscriptions.push(topic),
                    Some(i) => drop(port.subscriptions.remove(i)),
                    None => {}
                }
                Ok(Answer::Value(json!({})))
            }
            "event.publish" if rank == 0 => {
                let payload = req["payload"].as_str().map(|text| BASE64.decode(text));
                let payload = payload
                    .transpose()
                    .map_err(|e| RpcError::explained(libc::EPROTO, e))?;
                let flags = req["flags"].as_u64().unwrap_or(0) as u8;
                self.sequence += 1;
                let mut event = Message::event(text("topic"), flags, payload.map(Into::into));
                event.set_sequence(self.sequence);
                event.set_credentials(msg.credentials());
                Ok(Answer::Event(event, json!({"seq": self.sequence})))
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }
}

enum Answer {
    Value(Value),
    Event(Message, Value),
}
