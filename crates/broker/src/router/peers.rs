//! The router's side of the overlay: which peers are there, what is under way to them.
//!
//! Invariants: what peers report waits until there is a way to answer them; nothing is sent to a peer that is not joined, nor to another life of it than was
//! joined here; a request that went to a peer which is lost is answered with EHOSTUNREACH, one that
//! came from it is followed by a disconnect notice to its service; a peer with too much waiting for
//! it gets no new requests.

use std::collections::BTreeMap;

use overlay::{Control, Incoming, Peer, Session, Topology, Transport};
use serde::Deserialize;
use serde_json::Value;
use wire::{Flags, Kind, Match, Message, RpcError, json_payload};

use super::Router;
use super::bounds::Bounds;
use super::pending::{Pending, is_ended_by};
use super::trace::record;

/// The way up.
enum Parent {
    /// Not admitted yet; what waits for that.
    Waiting(Vec<(Message, Option<Peer>)>),
    Joined(Session),
    Gone,
}

/// Somebody watching the messages of peers.
struct Trace {
    request: Message,
    wanted: Match,
    /// Only those of this peer; negative is all.
    nodeid: i64,
    full: bool,
}

/// What the router knows of its peers.
pub(super) struct Peers {
    transport: Option<Box<dyn Transport>>,
    /// Reported before `transport` was there: its thread may run first.
    early: Vec<Incoming>,
    parent_rank: Option<u32>,
    parent: Parent,
    children: BTreeMap<u32, Session>,
    pending: Pending,
    bounds: Bounds,
    traces: Vec<Trace>,
    /// Trace responses that are not routed yet.
    shown: Vec<Message>,
}

impl Peers {
    pub(super) fn new(rank: u32, topology: &Topology, bounds: Bounds) -> Self {
        Self {
            transport: None,
            early: Vec::new(),
            parent_rank: topology.parent(rank),
            parent: Parent::Waiting(Vec::new()),
            children: BTreeMap::new(),
            pending: Pending::default(),
            bounds,
            traces: Vec::new(),
            shown: Vec::new(),
        }
    }

    pub(super) fn close(&mut self) {
        self.transport = None;
    }

    pub(super) fn control(&self, control: Control) {
        if let Some(transport) = &self.transport {
            transport.control(control);
        }
    }

    /// Add the requests under way to an answer of `overlay.stats-get`.
    pub(super) fn count(&self, stats: &mut Value) {
        let parent = self.pending.count(|p| p == Peer::Parent);
        stats["parent-rpc"] = parent.into();
        stats["child-rpc"] = (self.pending.count(|_| true) - parent).into();
    }

    /// Requests that wait for the parent.
    pub(super) fn held(&self) -> usize {
        match &self.parent {
            Parent::Waiting(held) => held.len(),
            Parent::Joined(_) | Parent::Gone => 0,
        }
    }

    /// Whether there is a parent that has not admitted us yet.
    pub(super) fn waits_for_parent(&self) -> bool {
        self.parent_rank.is_some() && matches!(self.parent, Parent::Waiting(_))
    }

    /// Requests under way.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    fn session(&self, peer: Peer) -> Option<Session> {
        match (peer, &self.parent) {
            (Peer::Child(rank), _) => self.children.get(&rank).copied(),
            (Peer::Parent, Parent::Joined(session)) => Some(*session),
            (Peer::Parent, _) => None,
        }
    }

    /// Send to a peer, if it is there.
    pub(super) fn send(&mut self, peer: Peer, msg: Message) {
        if let (Some(session), Some(transport)) = (self.session(peer), &self.transport) {
            if !self.traces.is_empty() {
                let rank = match peer {
                    Peer::Parent => self.parent_rank,
                    Peer::Child(rank) => Some(rank),
                };
                Self::show(&self.traces, &mut self.shown, "tx", rank, &msg);
            }
            transport.send(peer, session, msg);
        }
    }

    /// Send an event to all children.
    pub(super) fn broadcast(&mut self, event: &Message) {
        let Some(transport) = &self.transport else {
            return;
        };
        for (rank, session) in &self.children {
            transport.send(Peer::Child(*rank), *session, event.clone());
        }
        if !self.children.is_empty() {
            Self::show(&self.traces, &mut self.shown, "tx", None, event);
        }
    }

    /// Send a request on, or say why not. What brokers ask (`patient`) may wait for the parent.
    pub(super) fn request(
        &mut self,
        peer: Peer,
        msg: Message,
        from: Option<Peer>,
        patient: bool,
    ) -> Result<(), Box<(Message, RpcError)>> {
        let refuse = |msg, errno, text: String| Err(Box::new((msg, RpcError::new(errno, text))));
        if self.session(peer).is_none() {
            return match (peer, &mut self.parent) {
                // Nothing of this client has gone up, and nothing will.
                (Peer::Parent, Parent::Waiting(held)) if is_disconnect(&msg) => {
                    held.retain(|(request, _)| !is_ended_by(request, &msg));
                    Ok(())
                }
                (Peer::Parent, Parent::Waiting(held))
                    if patient && held.len() < self.bounds.held =>
                {
                    held.push((msg, from));
                    Ok(())
                }
                (Peer::Parent, Parent::Waiting(_)) => Err(Box::new((msg, offline()))),
                (Peer::Parent, _) => {
                    let text = "the parent broker is gone";
                    refuse(msg, libc::EHOSTUNREACH, text.to_owned())
                }
                // The errno says it all, and is what tools look for.
                (Peer::Child(_), _) => Err(Box::new((msg, RpcError::errno(libc::EHOSTUNREACH)))),
            };
        }
        if let Err(e) = self.room(peer, &msg) {
            return Err(Box::new((msg, e)));
        }
        self.pending.add(&msg, from, Some(peer));
        self.send(peer, msg);
        Ok(())
    }

    /// Whether there is room for one more request to a peer.
    fn room(&self, peer: Peer, msg: &Message) -> Result<(), RpcError> {
        if let Some(transport) = self.transport.as_ref().filter(|_| !msg.no_response()) {
            let waiting = transport.backlog(peer);
            if waiting > transport.bounds().soft {
                let peer = name(peer);
                let text = format!("{peer} does not keep up: {waiting} bytes are waiting");
                return Err(RpcError::new(libc::EAGAIN, text));
            }
        }
        self.can_follow(msg)
    }

    fn can_follow(&self, msg: &Message) -> Result<(), RpcError> {
        let limit = self.bounds.pending;
        if self.pending.len() < limit || msg.no_response() {
            return Ok(());
        }
        let text = format!("{limit} requests are under way through this broker");
        Err(RpcError::new(libc::EAGAIN, text))
    }

    /// A request of a peer goes to a service here, if there is room for one more.
    pub(super) fn note_local(&mut self, from: Peer, msg: &Message) -> Result<(), RpcError> {
        self.can_follow(msg)?;
        self.pending.add(msg, Some(from), None);
        Ok(())
    }

    /// A response of ours or of a peer passes.
    pub(super) fn answered(&mut self, msg: &Message) {
        self.pending.response(msg, None);
    }

    /// A disconnect notice passes.
    pub(super) fn disconnected(&mut self, notice: &Message) {
        self.pending.disconnected(notice);
    }

    pub(super) fn trace(&mut self, request: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Wanted {
            typemask: u32,
            topic_glob: String,
            nodeid: i64,
            #[serde(default)]
            full: bool,
        }
        request.require_owner()?;
        request.require_streaming()?;
        let wanted: Wanted = request.json()?;
        let typemask = (wanted.typemask & 0xff) as u8;
        let topics = Match::topic(&wanted.topic_glob);
        self.traces.push(Trace {
            request: request.clone(),
            wanted: Match { typemask, ..topics },
            // The numbers upstream's clients use for all.
            nodeid: match wanted.nodeid {
                n if n == i64::from(wire::NODEID_ANY) => -1,
                n => n,
            },
            full: wanted.full,
        });
        Ok(())
    }

    pub(super) fn untrace(&mut self, notice: &Message) {
        self.traces.retain(|t| !t.request.is_same_rpc(notice, None));
    }

    fn show(
        traces: &[Trace],
        shown: &mut Vec<Message>,
        prefix: &str,
        rank: Option<u32>,
        msg: &Message,
    ) {
        // A trace of what traces send would never end.
        if matches!(msg.topic(), "overlay.trace" | "module.trace") {
            return;
        }
        for trace in traces {
            let wanted = rank.is_none_or(|r| trace.nodeid < 0 || trace.nodeid == i64::from(r));
            if !wanted || !trace.wanted.matches(msg) {
                continue;
            }
            let rank = rank.map_or(-1, i64::from);
            let mut answer = record(prefix, rank, msg, trace.full);
            let payload = trace.full.then(|| msg.json::<Value>().ok()).flatten();
            answer["payload"] = payload.into();
            // JSON values always encode.
            shown.push(trace.request.response(0, json_payload(&answer).ok()));
        }
    }
}

/// Whether a client says that it is gone.
pub(super) fn is_disconnect(msg: &Message) -> bool {
    msg.is_request() && msg.no_response() && msg.method() == "disconnect"
}

/// What programs hear before the parent has admitted us.
pub(super) fn offline() -> RpcError {
    let text = "the upstream broker is offline: try again later";
    RpcError::new(libc::EAGAIN, text)
}

fn name(peer: Peer) -> String {
    match peer {
        Peer::Parent => "the parent broker".to_owned(),
        Peer::Child(rank) => format!("rank {rank}"),
    }
}

impl Router {
    pub(super) fn set_transport(&mut self, transport: Box<dyn Transport>) {
        self.peers.transport = Some(transport);
        for incoming in std::mem::take(&mut self.peers.early) {
            self.peer_input(incoming);
        }
    }

    pub(super) fn peer_input(&mut self, incoming: Incoming) {
        if self.peers.transport.is_none() {
            self.peers.early.push(incoming);
            return;
        }
        match incoming {
            Incoming::Message(peer, mut msg) => {
                // Nothing from another broker is local here (RFC 12).
                msg.set_credentials(msg.credentials().from_afar());
                self.peer_message(peer, msg);
                return;
            }
            Incoming::Joined(Peer::Child(rank), session) => {
                self.peers.children.insert(rank, session);
            }
            Incoming::Joined(Peer::Parent, session) => {
                let before = std::mem::replace(&mut self.peers.parent, Parent::Joined(session));
                if let Parent::Waiting(held) = before {
                    for (msg, from) in held {
                        self.request_to(Peer::Parent, msg, from);
                    }
                }
            }
            Incoming::Gone { peer, ref why, .. } => self.lose(peer, why),
            Incoming::Refused(ref why) => self.lose(Peer::Parent, why),
            _ => {}
        }
        // The core outlives the router.
        let _ = self.peer_events.send(incoming);
    }

    fn peer_message(&mut self, peer: Peer, mut msg: Message) {
        let rank = match peer {
            Peer::Parent => self.topology.parent(self.rank).unwrap_or(0),
            Peer::Child(rank) => rank,
        };
        if !self.peers.traces.is_empty() {
            let peers = &mut self.peers;
            Peers::show(&peers.traces, &mut peers.shown, "rx", Some(rank), &msg);
            self.show_peers();
        }
        match msg.kind() {
            Kind::Request { .. } => {
                msg.push_route(rank.to_string().into());
                self.request(msg, Some(peer));
            }
            Kind::Response { .. } => {
                // What has been answered with an error meanwhile is not answered again.
                if self.peers.pending.response(&msg, Some(peer)) {
                    self.response(msg);
                }
            }
            Kind::Event { sequence } if peer == Peer::Parent => {
                // Events come in order over one connection; none comes twice.
                if sequence > self.sequence {
                    self.sequence = sequence;
                    self.broadcast(&msg);
                }
            }
            Kind::Event { .. } | Kind::Control { .. } => {}
        }
    }

    fn lose(&mut self, peer: Peer, why: &str) {
        match peer {
            Peer::Child(rank) => {
                self.peers.children.remove(&rank);
                // Nobody is left to be answered.
                if let Parent::Waiting(held) = &mut self.peers.parent {
                    held.retain(|(_, from)| *from != Some(peer));
                }
            }
            Peer::Parent => {
                let before = std::mem::replace(&mut self.peers.parent, Parent::Gone);
                if let Parent::Waiting(held) = before {
                    for (msg, _) in held {
                        let text = format!("the parent broker: {why}");
                        self.answer(&msg, Err(RpcError::new(libc::EHOSTUNREACH, text)));
                    }
                }
            }
        }
        let (to, from) = self.peers.pending.lose(peer);
        for entry in to {
            let error = match peer {
                Peer::Child(_) => RpcError::errno(libc::EHOSTUNREACH),
                Peer::Parent => {
                    let text = format!("overlay disconnect: the parent broker: {why}");
                    RpcError::new(libc::EHOSTUNREACH, text)
                }
            };
            self.answer(&entry.request, Err(error));
        }
        // One notice for each client, service and destination.
        let mut notices = BTreeMap::new();
        for entry in from {
            let notice = entry.request.disconnect_notice();
            let client = notice.sender().map(|c| c.to_string());
            let Kind::Request { nodeid, .. } = notice.kind() else {
                continue;
            };
            let upstream = notice.flags().has(Flags::UPSTREAM);
            let key = (client, notice.topic().to_owned(), nodeid, upstream);
            notices.entry(key).or_insert(notice);
        }
        for notice in notices.into_values() {
            self.request(notice, Some(peer));
        }
    }

    /// Route the responses of traces.
    pub(super) fn show_peers(&mut self) {
        for mut response in std::mem::take(&mut self.peers.shown) {
            response.set_credentials(self.cred);
            self.response(response);
        }
    }
}
