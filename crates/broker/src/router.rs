//! The broker's switchboard: one task that owns services, endpoints, subscriptions and peers.
//!
//! Invariants: a request ends at exactly one service or gets an error response here; a response
//! goes back along its route stack (each receiving side pushed the hop it came from); rank 0 numbers
//! events and every broker passes them to its children before its next event. Requests a client
//! had made are followed by a disconnect notice to their services when it goes away. What a module
//! leaves unanswered is answered for it.
//!
//! While an input of a client is worked on, `hold` is what it has under way: every inbox and queue the
//! message ends up in keeps it, so that a client is read from no faster than it is served
//! (see [`crate::connector`]).
//!
//! What goes to peers, and what becomes of it when they are lost, is in [`peers`].
//!
//! Cost: constant per message, plus the number of subscribers for an event.

mod bounds;
mod endpoint;
mod guests;
mod handle;
mod local;
pub(crate) mod peers;
mod pending;
pub mod switch;
mod trace;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Hold;
use overlay::{Control, Incoming, Peer, Topology, Transport};
use peers::{Peers, is_disconnect};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::{
    Credentials, Flags, Kind, Message, NODEID_ANY, RpcError, Subscriptions, Text, json_payload,
};

/// Identity of a local endpoint in route stacks: a UUID, never a decimal rank.
pub(crate) type EndpointId = Text;

/// Messages the router takes per turn of its loop.
const BATCH: usize = 256;

pub(crate) use endpoint::{ClientMessages, ClientQueue, ModuleCard, Sink, weight};

pub(crate) use bounds::Bounds;
use endpoint::Endpoint;
pub(crate) use handle::{RouterHandle, new_id};
use trace::Traces;

/// What the router works on.
pub(crate) enum Input {
    FromEndpoint(EndpointId, Message),
    /// From a connection, with what counts against its window.
    FromClient(EndpointId, Message, Hold),
    FromPeer(Incoming),
    Attach {
        id: EndpointId,
        cred: Credentials,
        sink: Sink,
        services: Vec<String>,
        /// Set for modules.
        card: Option<Arc<ModuleCard>>,
    },
    /// Hand an endpoint a message of the broker itself.
    Tell(EndpointId, Message),
    /// A module takes no more requests: it is about to end.
    Mute(EndpointId),
    /// Keep messages for a module back, or let them go.
    Defer(EndpointId, bool),
    /// Answer this `module.trace` request with the messages of modules.
    Trace(Message),
    /// An entry for the broker's log.
    Log(bytes::Bytes),
    /// Whoever sent this wants no more traces.
    Untrace(Message),
    /// End a module's inbox; it goes on until it returns.
    CloseInbox(EndpointId),
    Detach(EndpointId),
    SetTransport(Box<dyn Transport>),
    /// Act on the tree.
    Overlay(Control),
    /// Answer this `overlay.stats-get` request, with what the router knows added.
    PeerStats(Message, Value),
    /// Answer this `overlay.trace` request with the messages of peers.
    TracePeers(Message),
    /// Whoever sent this wants no more of them.
    UntracePeers(Message),
    /// Drop the transport (after its queue is sent) and end.
    Stop,
}

/// Routing state of one broker.
pub(crate) struct Router {
    rank: u32,
    cred: Credentials,
    topology: Topology,
    peers: Peers,
    endpoints: HashMap<EndpointId, Endpoint>,
    services: HashMap<String, EndpointId>,
    subscriptions: Subscriptions<EndpointId>,
    sequence: u32,
    peer_events: UnboundedSender<Incoming>,
    traces: Traces,
    /// Of the client whose message is being worked on.
    hold: Option<Hold>,
}

/// Start the router task. What happens to peers is reported through the returned receiver.
pub(crate) fn start(
    rank: u32,
    cred: Credentials,
    topology: Topology,
) -> (RouterHandle, UnboundedReceiver<Incoming>) {
    let (tx, mut rx) = unbounded_channel();
    let (mut router, peer_rx) = Router::new(rank, cred, topology, Bounds::default());
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(BATCH);
        while rx.recv_many(&mut batch, BATCH).await > 0 {
            for input in batch.drain(..) {
                if !router.handle(input) {
                    return;
                }
            }
        }
    });
    (RouterHandle(tx, rank), peer_rx)
}

impl Router {
    /// A router without peers or endpoints, and what it reports of peers.
    fn new(
        rank: u32,
        cred: Credentials,
        topology: Topology,
        bounds: Bounds,
    ) -> (Self, UnboundedReceiver<Incoming>) {
        let (peer_events, peer_rx) = unbounded_channel();
        let router = Self {
            rank,
            cred,
            peers: Peers::new(rank, &topology, bounds),
            topology,
            endpoints: HashMap::new(),
            services: HashMap::new(),
            subscriptions: Subscriptions::default(),
            sequence: 0,
            peer_events,
            traces: Traces::default(),
            hold: None,
        };
        (router, peer_rx)
    }

    fn handle(&mut self, input: Input) -> bool {
        match input {
            Input::FromEndpoint(id, msg) => self.endpoint_input(&id, msg),
            Input::FromClient(id, msg, hold) => {
                self.hold = Some(hold);
                self.endpoint_input(&id, msg);
                self.hold = None;
            }
            Input::FromPeer(incoming) => self.peer_input(incoming),
            Input::Attach {
                id,
                cred,
                sink,
                services,
                card,
            } => {
                for service in services {
                    self.services.insert(service, id.clone());
                }
                self.endpoints.insert(id, Endpoint::new(sink, cred, card));
            }
            Input::Tell(id, mut msg) => {
                msg.set_credentials(self.cred);
                self.deliver(&id, msg);
            }
            Input::Mute(id) => {
                if let Some(endpoint) = self.endpoints.get_mut(&id) {
                    endpoint.muted = true;
                }
            }
            Input::Defer(id, on) => {
                let kept = self.endpoints.get_mut(&id).map(|e| e.defer(on));
                for msg in kept.unwrap_or_default() {
                    self.deliver(&id, msg);
                }
            }
            Input::Trace(request) => {
                if let Err(e) = self.traces.add(&request) {
                    self.answer(&request, Err(e));
                }
            }
            Input::Log(entry) => {
                let flags = Flags::NORESPONSE;
                let mut msg = Message::request("log.append", self.rank, 0, flags, Some(entry));
                msg.set_credentials(self.cred);
                self.request(msg, None);
            }
            Input::Untrace(notice) => self.traces.remove(&notice),
            Input::CloseInbox(id) => {
                if let Some(Endpoint {
                    sink: Sink::Module(deliver),
                    ..
                }) = self.endpoints.get(&id)
                {
                    deliver.close_inbox();
                }
            }
            Input::Detach(id) => self.detach(&id),
            Input::SetTransport(transport) => self.set_transport(transport),
            Input::Overlay(control) => self.peers.control(control),
            Input::PeerStats(request, mut stats) => {
                self.peers.count(&mut stats);
                self.answer(&request, Ok(stats));
            }
            Input::TracePeers(request) => {
                if let Err(e) = self.peers.trace(&request) {
                    self.answer(&request, Err(e));
                }
            }
            Input::UntracePeers(notice) => self.peers.untrace(&notice),
            Input::Stop => {
                self.peers.close();
                return false;
            }
        }
        true
    }

    fn endpoint_input(&mut self, id: &EndpointId, mut msg: Message) {
        self.note_sent(id, &msg);
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return;
        };
        match msg.kind() {
            Kind::Request { nodeid, .. } => {
                if endpoint.is_module() {
                    msg.set_credentials(endpoint.cred);
                } else {
                    admit(&mut msg, endpoint.cred);
                }
                if msg.flags().has(Flags::UPSTREAM) {
                    msg.set_nodeid(self.rank);
                }
                msg.push_route(id.clone());
                if let Some(answer) = self.connection_local(id, &msg) {
                    self.answer(&msg, answer);
                    return;
                }
                let upstream = msg.flags().has(Flags::UPSTREAM);
                if let Some(endpoint) = self.endpoints.get_mut(id).filter(|e| !e.is_core()) {
                    let key = (wire::disconnect_topic(msg.topic()), nodeid, upstream);
                    endpoint
                        .notices
                        .entry(key)
                        .or_insert_with(|| msg.disconnect_notice());
                }
                self.request(msg, None);
            }
            Kind::Response { .. } => {
                if endpoint.is_module() {
                    msg.set_credentials(endpoint.cred);
                } else {
                    admit(&mut msg, endpoint.cred);
                }
                endpoint.answered(&msg);
                self.response(msg);
            }
            Kind::Event { .. } => {
                admit(&mut msg, endpoint.cred);
                self.publish_message(msg);
            }
            // Control messages are between brokers.
            Kind::Control { .. } => {}
        }
    }

    /// An event that a client sends as such, instead of calling event.publish.
    fn publish_message(&mut self, event: Message) {
        let mut request =
            json!({ "topic": event.topic(), "flags": event.flags().0 & Flags::PRIVATE });
        if let Some(payload) = event.payload() {
            request["payload"] = STANDARD.encode(payload).into();
        }
        // JSON values always encode.
        let payload = json_payload(&request).ok();
        let mut request = Message::request("event.publish", 0, 0, Flags::NORESPONSE, payload);
        request.set_credentials(event.credentials());
        self.request(request, None);
    }

    fn answer(&mut self, req: &Message, result: Result<Value, RpcError>) {
        if req.no_response() {
            return;
        }
        let mut response = match result {
            Ok(Value::Null) => req.response(0, None),
            // JSON values always encode.
            Ok(value) => req.response(0, json_payload(&value).ok()),
            Err(e) => req.error_response(&e),
        };
        // Clients drop messages of senders without a role.
        response.set_credentials(self.cred);
        self.response(response);
    }

    /// Route a request on; `from` is the peer it came from, if any.
    fn request(&mut self, msg: Message, from: Option<Peer>) {
        let Kind::Request { nodeid, .. } = msg.kind() else {
            return;
        };
        if is_disconnect(&msg) {
            self.peers.disconnected(&msg);
        }
        let upstream = msg.flags().has(Flags::UPSTREAM);
        if nodeid == NODEID_ANY || (upstream && nodeid != self.rank) {
            if self.local_request(&msg, from) {
                return;
            }
            self.request_up(msg, from);
        } else if upstream {
            self.request_up(msg, from);
        } else if nodeid == self.rank {
            if !self.local_request(&msg, from) {
                self.answer(&msg, Err(no_service(&msg)));
            }
        } else if nodeid >= self.topology.size() {
            let text = format!(
                "rank {nodeid} is not in this instance of {}",
                self.topology.size()
            );
            self.answer(&msg, Err(RpcError::new(libc::EHOSTUNREACH, text)));
        } else if let Some(child) = self.topology.next_hop(self.rank, nodeid) {
            self.request_to(Peer::Child(child), msg, from);
        } else if from != Some(Peer::Parent) {
            self.request_up(msg, from);
        }
    }

    fn request_up(&mut self, msg: Message, from: Option<Peer>) {
        if self.rank == 0 {
            self.answer(&msg, Err(no_service(&msg)));
        } else {
            self.request_to(Peer::Parent, msg, from);
        }
    }

    fn request_to(&mut self, peer: Peer, msg: Message, from: Option<Peer>) {
        if is_disconnect(&msg) {
            // Its requests may have waited for the parent with it.
            self.peers.disconnected(&msg);
        }
        // Modules, here and below, start before the parent has admitted us; they can wait.
        let patient = |e: &Endpoint| e.is_module();
        let module = |id| self.endpoints.get(id).is_some_and(patient);
        let own = from.is_some() || msg.sender().is_none_or(module);
        if let Err(refused) = self.peers.request(peer, msg, from, own) {
            let (msg, e) = *refused;
            self.answer(&msg, Err(e));
        }
        self.show_peers();
    }

    /// Hand a request to a service of this broker; false if there is none.
    fn local_request(&mut self, msg: &Message, from: Option<Peer>) -> bool {
        if self.rank == 0 && msg.topic() == "event.publish" {
            let result = self.publish(msg);
            self.answer(msg, result);
            return true;
        }
        let Some(id) = self.services.get(msg.service()) else {
            return false;
        };
        let Some(endpoint) = self.endpoints.get(id) else {
            return false;
        };
        if endpoint.muted {
            self.answer(msg, Err(no_service(msg)));
            return true;
        }
        // Programs that serve decide for themselves.
        if let Err(e) = msg.require_owner()
            && matches!(endpoint.sink, Sink::Module(_))
            && !guests::may_ask(msg.topic())
        {
            self.answer(msg, Err(e));
            return true;
        }
        // Modules may be here already, but cannot work without those above; programs need not wait for them.
        let module = |id| self.endpoints.get(id).is_some_and(Endpoint::is_module);
        if self.peers.waits_for_parent()
            && endpoint.card.is_some()
            && from.is_none()
            && !msg.sender().is_none_or(module)
        {
            self.answer(msg, Err(peers::offline()));
            return true;
        }
        if let Some(peer) = from
            && let Err(e) = self.peers.note_local(peer, msg)
        {
            self.answer(msg, Err(e));
            return true;
        }
        if endpoint.is_module() && msg.method() == "ping" {
            let result = ping(msg, self.rank);
            self.answer(msg, result);
        } else {
            let id = id.clone();
            self.deliver(&id, msg.clone());
        }
        true
    }

    /// Hand a message to an endpoint here.
    fn deliver(&mut self, id: &EndpointId, msg: Message) {
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return;
        };
        let traced = (!self.traces.is_empty())
            .then(|| endpoint.card.clone())
            .flatten()
            .map(|card| (card, msg.clone()));
        if !endpoint.deliver(msg, self.hold.clone()) {
            return;
        }
        if let Some((card, msg)) = traced {
            self.show("rx", card.meter.name(), &msg);
        }
    }

    /// Count and show what a module sends.
    fn note_sent(&mut self, id: &EndpointId, msg: &Message) {
        let Some(card) = self.endpoints.get(id).and_then(|e| e.card.as_ref()) else {
            return;
        };
        card.meter.note_sent(msg);
        if !self.traces.is_empty() {
            let card = card.clone();
            self.show("tx", card.meter.name(), msg);
        }
    }

    fn show(&mut self, prefix: &str, name: &str, msg: &Message) {
        for mut response in self.traces.show(prefix, name, msg) {
            response.set_credentials(self.cred);
            self.response(response);
        }
    }

    fn response(&mut self, mut msg: Message) {
        self.peers.answered(&msg);
        let Some(hop) = msg.pop_route() else { return };
        if self.endpoints.contains_key(&hop) {
            self.deliver(&hop, msg);
            return;
        }
        // Peers appear in route stacks by rank; anything else is an endpoint that has gone away.
        let Ok(rank) = hop.parse::<u32>() else { return };
        let peer = match self.topology.parent(self.rank) == Some(rank) {
            true => Peer::Parent,
            false => Peer::Child(rank),
        };
        self.peers.send(peer, msg);
        self.show_peers();
    }

    fn publish(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            topic: String,
            #[serde(default)]
            flags: u8,
            payload: Option<String>,
        }
        let Request {
            topic,
            flags,
            payload,
        } = msg.json()?;
        if flags & !(Flags::PRIVATE | 0x04) != 0 {
            return Err(RpcError::proto(format!(
                "event.publish: unknown flags {flags:#x}"
            )));
        }
        let private = if flags != 0 { Flags::PRIVATE } else { 0 };
        let payload = match payload {
            Some(text) => Some(
                STANDARD
                    .decode(text)
                    .map_err(|e| RpcError::proto(format!("event.publish: payload: {e}")))?
                    .into(),
            ),
            None => None,
        };
        let mut event = Message::event(topic, private, payload);
        event.set_credentials(msg.credentials());
        self.sequence += 1;
        event.set_sequence(self.sequence);
        self.broadcast(&event);
        Ok(json!({ "seq": self.sequence }))
    }

    fn broadcast(&mut self, event: &Message) {
        self.peers.broadcast(event);
        self.show_peers();
        if let Some(name) = event.topic().strip_suffix(".stats-clear")
            && let Some(owner) = self.services.get(name)
            && let Some(card) = self.endpoints.get(owner).and_then(|e| e.card.as_ref())
        {
            card.meter.clear();
        }
        for id in self.subscriptions.subscribers(event.topic()) {
            let wants =
                |e: &Endpoint| !e.muted && e.cred.may_see(event.is_private(), event.userid());
            if self.endpoints.get(&id).is_some_and(wants) {
                self.deliver(&id, event.clone());
            }
        }
    }

    fn detach(&mut self, id: &EndpointId) {
        let Some(mut endpoint) = self.endpoints.remove(id) else {
            return;
        };
        self.services.retain(|_, owner| owner != id);
        self.subscriptions.remove_all(id);
        for notice in std::mem::take(&mut endpoint.notices).into_values() {
            self.request(notice, None);
        }
        for request in endpoint.abandoned() {
            let error = match endpoint.card {
                Some(_) => {
                    let service = request.service();
                    let text = format!("module disconnect: {service} ended without an answer");
                    RpcError::new(libc::EHOSTUNREACH, text)
                }
                // A program that served has gone: as if it had come too late.
                None => no_service(&request),
            };
            self.answer(&request, Err(error));
        }
    }
}

/// Give a message from a client its sender's credentials. The owner may stand in for others.
fn admit(msg: &mut Message, cred: Credentials) {
    if msg.is_request() {
        msg.clear_routes();
    }
    msg.set_credentials(cred.admit(msg.credentials()));
}

fn no_service(msg: &Message) -> RpcError {
    RpcError::new(
        libc::ENOSYS,
        format!("no service answers to {}", msg.topic()),
    )
}

/// The echo every module answers (RFC 5): the request plus route, user and rank.
fn ping(msg: &Message, rank: u32) -> Result<Value, RpcError> {
    let mut answer: serde_json::Map<String, Value> = msg.json()?;
    answer.insert("route".into(), msg.route_stack().to_string().into());
    answer.insert("userid".into(), msg.userid().into());
    answer.insert("rolemask".into(), msg.rolemask().into());
    answer.insert("rank".into(), rank.into());
    Ok(Value::Object(answer))
}

#[cfg(test)]
mod tests;
