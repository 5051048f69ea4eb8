//! What runs on every broker: a service that answers in several ways, and a client that asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::switch::{Port, Switch};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use wire::{Credentials, Flags, Kind, Message, NODEID_ANY, Text, json_payload};

use crate::check::{Check, Violation};

pub(crate) const OWNER: Credentials = Credentials {
    userid: 1000,
    rolemask: wire::ROLE_OWNER,
};

/// How the service answers a method.
const METHODS: &[&str] = &["echo", "later", "stream", "fail", "watch"];

/// A request of ours.
struct Asked {
    /// What was asked, of whom and when.
    what: String,
    /// Final responses so far.
    ended: u32,
    /// Its service never ends it.
    endless: bool,
}

/// What the service owes.
#[derive(Debug)]
pub(crate) enum Due {
    /// This response to send then.
    Answer(Duration, Message),
}

/// The programs of one life of a broker.
pub(crate) struct Programs {
    service: Port,
    client: Port,
    next_tag: u32,
    asked: BTreeMap<u32, Asked>,
    /// Watchers, by sender and matchtag.
    watchers: BTreeSet<(Text, u32)>,
    /// Sequence of the last event seen.
    event: Option<u32>,
    pub(crate) events: u64,
    pub(crate) answers: u64,
}

impl Programs {
    /// Attach service and client of a life named by `name`.
    pub(crate) fn start(switch: &mut Switch, name: &str) -> Self {
        let service = format!("service-{name}").into();
        let service = switch.attach(service, OWNER, vec!["sim".into()]);
        let client = switch.attach(format!("client-{name}").into(), OWNER, Vec::new());
        let payload = json_payload(&json!({ "topic": "" })).ok();
        let subscribe =
            Message::request("event.subscribe", NODEID_ANY, 0, Flags::NORESPONSE, payload);
        switch.send(&client, subscribe);
        Self {
            service,
            client,
            next_tag: 0,
            asked: BTreeMap::new(),
            watchers: BTreeSet::new(),
            event: None,
            events: 0,
            answers: 0,
        }
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
        let method = METHODS[rng.random_range(0..METHODS.len())];
        let (nodeid, mut flags) = match rng.random_range(0..10) {
            0 => (NODEID_ANY, Flags::UPSTREAM),
            1 => (NODEID_ANY, 0),
            _ => (rng.random_range(0..size), 0),
        };
        if matches!(method, "stream" | "watch") {
            flags |= Flags::STREAMING;
        }
        self.next_tag += 1;
        let topic = format!("sim.{method}");
        let request = Message::request(&*topic, nodeid, self.next_tag, flags, Some("{}".into()));
        let asked = Asked {
            what: format!("{topic} to {nodeid:#x} at {now:?}"),
            ended: 0,
            endless: method == "watch",
        };
        self.asked.insert(self.next_tag, asked);
        switch.send(&self.client, request);
    }

    /// Publish an event.
    pub(crate) fn publish(&mut self, switch: &mut Switch) {
        let payload = json_payload(&json!({ "topic": "news", "flags": 0 })).ok();
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
        while let Some(msg) = self.client.receive() {
            self.receive(&msg)?;
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
            "echo" => switch.send(&self.service, request.response(0, None)),
            "fail" => switch.send(&self.service, request.response(5, None)),
            "later" => {
                let at = now + Duration::from_millis(rng.random_range(1..3000));
                due.push(Due::Answer(at, request.response(0, None)));
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
                if let Some(last) = self.event.filter(|last| sequence != last + 1) {
                    let text = format!("event {sequence} after {last}");
                    return Err(Check::EventsInOrder.violated(text));
                }
                self.event = Some(sequence);
                self.events += 1;
            }
            Kind::Response { errnum, matchtag } => {
                let Some(asked) = self.asked.get_mut(&matchtag) else {
                    let text = format!("response {matchtag} to nothing asked");
                    return Err(Check::OneOutcome.violated(text));
                };
                if errnum != 0 || !msg.is_streaming() {
                    asked.ended += 1;
                    self.answers += 1;
                }
                if asked.ended > 1 || (asked.ended == 1 && errnum == 0 && msg.is_streaming()) {
                    let text = format!("{} was answered after its end", asked.what);
                    return Err(Check::OneOutcome.violated(text));
                }
            }
            Kind::Request { .. } | Kind::Control { .. } => {}
        }
        Ok(())
    }

    /// At the end of a run: everything has ended, except what has no end.
    pub(crate) fn settled(&self) -> Result<(), Violation> {
        match self.asked.values().find(|a| a.ended == 0 && !a.endless) {
            Some(asked) => {
                let text = format!("{} asks for ever: {}", self.client_id(), asked.what);
                Err(Check::OneOutcome.violated(text))
            }
            None => Ok(()),
        }
    }

    /// The client goes away.
    pub(crate) fn hang_up(&mut self, switch: &mut Switch) {
        switch.detach(&self.client);
    }
}
