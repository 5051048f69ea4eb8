//! The router without its task: inputs in, outputs taken, nothing in between.
//!
//! For whoever drives brokers without processes and sockets: the simulator runs the same routing a
//! broker runs, under a clock of its own.

use overlay::{Incoming, Topology, Transport};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{Credentials, Message, Text};

use super::endpoint::{ClientMessages, ClientQueue};
use super::{Input, Router, Sink};

/// One broker's router.
pub struct Switch {
    router: Router,
    reports: UnboundedReceiver<Incoming>,
}

/// An endpoint of a switch: a program or a service.
pub struct Port {
    id: Text,
    inbox: ClientMessages,
}

impl Port {
    /// Its name in route stacks.
    pub fn id(&self) -> &Text {
        &self.id
    }

    /// The next message for it.
    pub fn receive(&mut self) -> Option<Message> {
        self.inbox.try_take()
    }
}

impl Switch {
    /// The router of `rank`, which sends to its peers through `transport`.
    pub fn new(
        rank: u32,
        cred: Credentials,
        topology: Topology,
        transport: Box<dyn Transport>,
    ) -> Self {
        let (mut router, reports) = Router::new(rank, cred, topology);
        router.handle(Input::SetTransport(transport));
        Self { router, reports }
    }

    /// Something from the overlay.
    pub fn incoming(&mut self, incoming: Incoming) {
        self.router.handle(Input::FromPeer(incoming));
    }

    /// What the router has made known of the overlay's reports.
    pub fn report(&mut self) -> Option<Incoming> {
        self.reports.try_recv().ok()
    }

    /// A new endpoint with these services.
    pub fn attach(&mut self, id: Text, cred: Credentials, services: Vec<String>) -> Port {
        let (queue, inbox) = ClientQueue::new();
        self.router.handle(Input::Attach {
            id: id.clone(),
            cred,
            sink: Sink::Client(queue),
            services,
            card: None,
        });
        Port { id, inbox }
    }

    /// A message from an endpoint.
    pub fn send(&mut self, from: &Port, msg: Message) {
        self.router
            .handle(Input::FromEndpoint(from.id.clone(), msg));
    }

    /// An endpoint goes away.
    pub fn detach(&mut self, port: &Port) {
        self.router.handle(Input::Detach(port.id.clone()));
    }

    /// Requests that came from peers or went to them and are not answered.
    pub fn pending(&self) -> usize {
        self.router.peers.pending()
    }
}
