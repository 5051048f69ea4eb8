//! The router without its task: inputs in, outputs taken, nothing in between.
//!
//! For whoever drives brokers without processes and sockets: the simulator runs the same routing a
//! broker runs, under a clock of its own.

use overlay::{Incoming, Topology, Transport};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{Credentials, Message, Text};

pub use super::bounds::Bounds;
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
    queue: ClientQueue,
    inbox: ClientMessages,
}

impl Port {
    /// Its name in route stacks.
    pub fn id(&self) -> &Text {
        &self.id
    }

    /// Whether more has come than it may leave unread: some of it was dropped, so it has to go.
    pub fn is_overrun(&self) -> bool {
        self.queue.is_overrun()
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
        bounds: Bounds,
    ) -> Self {
        let (mut router, reports) = Router::new(rank, cred, topology, bounds);
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

    /// A new endpoint with these services, which may leave `unread` bytes unread.
    pub fn attach(
        &mut self,
        id: Text,
        cred: Credentials,
        services: Vec<String>,
        unread: usize,
    ) -> Port {
        let (queue, inbox) = ClientQueue::new(unread);
        self.router.handle(Input::Attach {
            id: id.clone(),
            cred,
            sink: Sink::Client(queue.clone()),
            services,
            card: None,
        });
        Port { id, queue, inbox }
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

    /// Requests that wait for the parent.
    pub fn held(&self) -> usize {
        self.router.peers.held()
    }

    /// Requests that came from peers or went to them and are not answered.
    pub fn pending(&self) -> usize {
        self.router.peers.pending()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use overlay::topology::Shape;
    use overlay::{Control, Peer, Session};
    use wire::{Flags, Kind};

    use super::*;

    const OWNER: Credentials = Credentials {
        userid: 1000,
        rolemask: wire::ROLE_OWNER,
    };
    const CHILD: Peer = Peer::Child(3);

    #[derive(Clone, Default)]
    struct Sent(Arc<Mutex<Vec<(Peer, Message)>>>);

    impl Transport for Sent {
        fn send(&self, peer: Peer, _life: Session, msg: Message) {
            self.0.lock().unwrap().push((peer, msg));
        }

        fn backlog(&self, _peer: Peer) -> usize {
            0
        }

        fn control(&self, _control: Control) {}
    }

    /// Rank 1 of seven, with a child and no parent yet.
    fn switch(bounds: Bounds) -> (Switch, Sent) {
        let sent = Sent::default();
        let topology = Topology::new(Shape::Kary(2), 7);
        let mut switch = Switch::new(1, OWNER, topology, Box::new(sent.clone()), bounds);
        switch.incoming(Incoming::Joined(CHILD, Session(3)));
        (switch, sent)
    }

    fn from_child(client: &str, topic: &str, nodeid: u32, tag: u32, flags: u8) -> Incoming {
        let mut msg = Message::request(topic, nodeid, tag, flags, None);
        msg.set_credentials(OWNER);
        msg.push_route(client.into());
        Incoming::Message(CHILD, msg)
    }

    #[test]
    fn requests_of_peers_for_services_here_are_bounded_too() {
        let (mut switch, sent) = switch(Bounds {
            pending: 1,
            ..Bounds::default()
        });
        let mut service = switch.attach("s".into(), OWNER, vec!["slow".into()], usize::MAX);
        for tag in [1, 2] {
            switch.incoming(from_child("x", "slow.x", 1, tag, 0));
        }
        assert!(service.receive().is_some() && service.receive().is_none());
        let sent = sent.0.lock().unwrap();
        let [(CHILD, refused)] = sent.as_slice() else {
            panic!("{sent:?}");
        };
        let errnum = libc::EAGAIN as u32;
        let matchtag = 2;
        assert_eq!(refused.kind(), Kind::Response { errnum, matchtag });
        assert_eq!(switch.pending(), 1);
    }

    #[test]
    fn requests_of_a_client_that_is_gone_do_not_wait_for_the_parent() {
        let (mut switch, sent) = switch(Bounds {
            held: 2,
            ..Bounds::default()
        });
        for client in ["x", "y"] {
            switch.incoming(from_child(client, "far.watch", 0, 1, Flags::STREAMING));
        }
        let flags = Flags::NORESPONSE;
        switch.incoming(from_child("x", "far.disconnect", 0, 0, flags));
        assert_eq!(switch.held(), 1);
        switch.incoming(Incoming::Joined(Peer::Parent, Session(0)));
        let sent = sent.0.lock().unwrap();
        let [(Peer::Parent, watch)] = sent.as_slice() else {
            panic!("{sent:?}");
        };
        assert_eq!(watch.sender().map(|s| s.to_string()), Some("y".to_owned()));
    }
}
