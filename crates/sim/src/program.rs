//! What runs on every broker: a service that answers in several ways, and a client that asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::switch::{Port, Switch};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use wire::{Credentials, Flags, Kind, Message, NODEID_ANY, Text, json_payload};

use crate::check::{self, Violation};

pub(crate) const OWNER: Credentials = Credentials {
    userid: 1000,
    rolemask: wire::ROLE_OWNER,
};

/// How the service answers a method.
const METHODS: &[&str] = &["echo", "later", "stream", "fail", "watch"];

/// EAGAIN: the answer of a broker whose queues are full.
const REFUSED: u32 = 11;
/// EHOSTUNREACH: the answer for a broker that is not there.
const UNREACHABLE: u32 = 113;

/// A request of ours.
struct Asked {
    /// What was asked, of whom and when.
    what: String,
    /// Its final response has come.
    ended: bool,
    /// Its service never ends it.
    endless: bool,
    /// It went to a broker that is not there.
    lost: bool,
}

/// A response the service sends later, and when.
pub(crate) type Due = (Duration, Message);

/// Something to carry: mostly little, sometimes much. It is valid Base64, as events have it.
fn payload(rng: &mut StdRng) -> String {
    let most = if rng.random_range(0..8) == 0 {
        1000
    } else {
        12
    };
    "xxxx".repeat(rng.random_range(1..most))
}

/// The programs of one life of a broker.
pub(crate) struct Programs {
    name: String,
    /// Clients so far.
    clients: u32,
    /// Bytes a client may leave unread. The service reads all at once, as modules do.
    unread: usize,
    service: Port,
    client: Port,
    /// The client does not read until then.
    pub(crate) deaf: Duration,
    next_tag: u32,
    asked: BTreeMap<u32, Asked>,
    /// Watchers, by sender and matchtag.
    watchers: BTreeSet<(Text, u32)>,
    /// Sequence of the last event seen.
    event: Option<u32>,
    pub(crate) events: u64,
    pub(crate) answers: u64,
    pub(crate) refusals: u64,
}

/// A client that has subscribed to all events.
fn client(switch: &mut Switch, id: String, unread: usize) -> Port {
    let client = switch.attach(id.into(), OWNER, Vec::new(), unread);
    let payload = json_payload(&json!({ "topic": "" })).ok();
    let flags = Flags::NORESPONSE;
    let subscribe = Message::request("event.subscribe", NODEID_ANY, 0, flags, payload);
    switch.send(&client, subscribe);
    client
}

impl Programs {
    /// Attach service and client of a life named by `name`.
    pub(crate) fn start(switch: &mut Switch, name: String, unread: usize) -> Self {
        let service = format!("service-{name}").into();
        let service = switch.attach(service, OWNER, vec!["sim".into()], usize::MAX);
        let client = client(switch, format!("client-{name}"), unread);
        Self {
            name,
            clients: 1,
            unread,
            service,
            client,
            deaf: Duration::ZERO,
            next_tag: 0,
            asked: BTreeMap::new(),
            watchers: BTreeSet::new(),
            event: None,
            events: 0,
            answers: 0,
            refusals: 0,
        }
    }

    /// Put another client in the place of one that reads too little, as its broker would cut that off.
    /// False if it keeps up.
    pub(crate) fn replace_overrun(&mut self, switch: &mut Switch) -> bool {
        if !self.client.is_overrun() {
            return false;
        }
        switch.detach(&self.client);
        let id = format!("client-{}-{}", self.name, self.clients);
        self.client = client(switch, id, self.unread);
        self.clients += 1;
        self.asked.clear();
        self.event = None;
        true
    }

    pub(crate) fn client_id(&self) -> &Text {
        self.client.id()
    }

    /// Clients that watch here.
    pub(crate) fn watchers(&self) -> impl Iterator<Item = &Text> {
        self.watchers.iter().map(|(client, _)| client)
    }

    /// Ask some broker something.
    pub(crate) fn ask(&mut self, switch: &mut Switch, rng: &mut StdRng, size: u32, now: Duration) {
        let payload = payload(rng);
        let method = METHODS[rng.random_range(0..METHODS.len())];
        let (nodeid, mut flags) = match rng.random_range(0..10) {
            0 => (NODEID_ANY, Flags::UPSTREAM),
            1 => (NODEID_ANY, 0),
            _ => (rng.random_range(0..size), 0),
        };
        if matches!(method, "stream" | "watch") {
            flags |= Flags::STREAMING;
        }
        let asked = Asked {
            what: format!("sim.{method} to {nodeid:#x} at {now:?}"),
            ended: false,
            endless: method == "watch",
            lost: false,
        };
        self.request(switch, method, nodeid, flags, payload, asked);
    }

    /// Ask a broker that is not there.
    pub(crate) fn ask_lost(&mut self, switch: &mut Switch, rank: u32) {
        let asked = Asked {
            what: format!("sim.echo to lost {rank}"),
            ended: false,
            endless: false,
            lost: true,
        };
        self.request(switch, "echo", rank, 0, "{}".into(), asked);
    }

    fn request(
        &mut self,
        switch: &mut Switch,
        method: &str,
        nodeid: u32,
        flags: u8,
        payload: String,
        asked: Asked,
    ) {
        self.next_tag += 1;
        let (topic, tag) = (format!("sim.{method}"), self.next_tag);
        let request = Message::request(&*topic, nodeid, tag, flags, Some(payload.into()));
        self.asked.insert(tag, asked);
        switch.send(&self.client, request);
    }

    /// Publish an event.
    pub(crate) fn publish(&mut self, switch: &mut Switch, rng: &mut StdRng) {
        let news = json!({ "topic": "news", "flags": 0, "payload": payload(rng) });
        let payload = json_payload(&news).ok();
        let flags = Flags::NORESPONSE;
        let publish = Message::request("event.publish", NODEID_ANY, 0, flags, payload);
        switch.send(&self.client, publish);
    }

    /// Send what the service owes now.
    pub(crate) fn answer(&mut self, switch: &mut Switch, answer: Message) {
        switch.send(&self.service, answer);
    }

    /// Handle all there is for service and client; what the service will answer later.
    pub(crate) fn run(
        &mut self,
        switch: &mut Switch,
        rng: &mut StdRng,
        now: Duration,
    ) -> Result<Vec<Due>, Violation> {
        let mut due = Vec::new();
        while let Some(request) = self.service.receive() {
            self.serve(switch, rng, now, &request, &mut due);
        }
        if now >= self.deaf {
            while let Some(msg) = self.client.receive() {
                self.receive(&msg)?;
            }
        }
        Ok(due)
    }

    fn serve(
        &mut self,
        switch: &mut Switch,
        rng: &mut StdRng,
        now: Duration,
        request: &Message,
        due: &mut Vec<Due>,
    ) {
        let Some(sender) = request.sender().cloned() else {
            return;
        };
        match request.method() {
            "echo" => {
                let echo = request.response(0, request.payload().cloned());
                switch.send(&self.service, echo);
            }
            "fail" => switch.send(&self.service, request.response(5, None)),
            "later" => {
                let at = now + Duration::from_millis(rng.random_range(1..3000));
                due.push((at, request.response(0, None)));
            }
            "stream" => {
                for _ in 0..rng.random_range(0..4) {
                    switch.send(&self.service, request.response(0, None));
                }
                // ENODATA ends a stream (RFC 6).
                switch.send(&self.service, request.response(61, None));
            }
            "watch" => {
                self.watchers.insert((sender, request.matchtag()));
                switch.send(&self.service, request.response(0, None));
            }
            "disconnect" => self.watchers.retain(|(client, _)| *client != sender),
            _ => {}
        }
    }

    fn receive(&mut self, msg: &Message) -> Result<(), Violation> {
        match msg.kind() {
            Kind::Event { sequence } => {
                check::events_in_order(self.event, sequence)?;
                self.event = Some(sequence);
                self.events += 1;
            }
            Kind::Response { errnum, matchtag } => {
                let asked = self.asked.get_mut(&matchtag);
                let last = errnum != 0 || !msg.is_streaming();
                check::one_outcome(asked.as_deref().map(|a| (a.what.as_str(), a.ended)), last)?;
                let Some(asked) = asked.filter(|_| last) else {
                    return Ok(());
                };
                if asked.lost {
                    check::lost_is_unreachable(
                        &asked.what,
                        matches!(errnum, UNREACHABLE | REFUSED),
                    )?;
                }
                asked.ended = true;
                self.answers += 1;
                self.refusals += u64::from(errnum == REFUSED);
            }
            Kind::Request { .. } | Kind::Control { .. } => {}
        }
        Ok(())
    }

    /// What was asked and has not ended, of what has an end.
    pub(crate) fn open(&self) -> Option<&str> {
        let open = |a: &&Asked| !a.ended && !a.endless;
        self.asked.values().find(open).map(|a| a.what.as_str())
    }

    /// The client goes away.
    pub(crate) fn hang_up(&mut self, switch: &mut Switch) {
        switch.detach(&self.client);
    }
}
