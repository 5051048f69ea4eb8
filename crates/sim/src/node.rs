//! One rank: what is there while its broker lives, and what stays between lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::switch::Switch;
use overlay::backlog::{Bounds, Queue};
use overlay::frame::Frame;
use overlay::tree::{Moment, Tree};
use overlay::{Control, Facts, Limits, Peer, Session, Topology, Transport};
use wire::Message;

use crate::network::ConnId;
use crate::plan::Room;
use crate::program::{OWNER, Programs};

/// What a broker has handed to its transport and what that has not passed on.
#[derive(Clone)]
pub(crate) struct Outbox {
    bounds: Bounds,
    waiting: Arc<Mutex<Waiting>>,
}

/// What waits in a transport.
#[derive(Default)]
pub(crate) struct Waiting {
    messages: Vec<(Peer, Session, Message)>,
    /// Frames the connection to the parent does not take.
    pub(crate) up: Queue<Frame>,
    /// The same for children, with the life they are for.
    pub(crate) down: HashMap<u32, (Session, Queue<Frame>)>,
}

impl Outbox {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            waiting: Arc::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Queues of messages are sound whatever happened to who changed them.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the router has handed over nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    /// What the router has handed over.
    pub(crate) fn take(&self) -> Vec<(Peer, Session, Message)> {
        std::mem::take(&mut self.lock().messages)
    }

    /// Drop what waits for a life.
    pub(crate) fn forget(&self, session: Session) {
        self.lock().down.retain(|_, (life, _)| *life != session);
    }
}

impl Transport for Outbox {
    fn send(&self, peer: Peer, session: Session, msg: Message) {
        self.lock().messages.push((peer, session, msg));
    }

    fn backlog(&self, peer: Peer) -> usize {
        let waiting = self.lock();
        match peer {
            Peer::Parent => waiting.up.bytes(),
            Peer::Child(rank) => waiting.down.get(&rank).map_or(0, |(_, q)| q.bytes()),
        }
    }

    fn bounds(&self) -> Bounds {
        self.bounds
    }

    // Programs here do not act on the tree; the world does.
    fn control(&self, _control: Control) {}
}

/// A broker that lives.
pub(crate) struct Life {
    pub(crate) session: Session,
    pub(crate) tree: Tree,
    pub(crate) switch: Switch,
    pub(crate) outbox: Outbox,
    pub(crate) programs: Programs,
    /// Connection to the parent.
    pub(crate) up: Option<ConnId>,
    /// Set when it has to end: why.
    pub(crate) over: Option<String>,
    /// It has taken its leave.
    pub(crate) leaving: bool,
    /// What the broker's own clock shows at the world's zero: clocks of lives are not the same.
    pub(crate) offset: Duration,
}

impl Life {
    pub(crate) fn new(
        rank: u32,
        topology: &Topology,
        limits: Limits,
        room: &Room,
        session: Session,
        offset: Duration,
    ) -> Self {
        let facts = Facts {
            rank,
            topology: topology.clone(),
            hostname: format!("host{rank}"),
            version: "sim".into(),
            hosts: topology
                .children(rank)
                .iter()
                .map(|r| (*r, format!("host{r}")))
                .collect(),
            session,
        };
        let outbox = Outbox::new(room.peers);
        let transport = Box::new(outbox.clone());
        let mut switch = Switch::new(rank, OWNER, topology.clone(), transport, room.router);
        let name = format!("{rank}-{session:?}");
        let programs = Programs::start(&mut switch, name, room.router.unread);
        Self {
            session,
            tree: Tree::new(facts, limits),
            switch,
            outbox,
            programs,
            up: None,
            over: None,
            leaving: false,
            offset,
        }
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, now: Duration) -> Moment {
        now + self.offset
    }
}

/// A rank.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) life: Option<Life>,
    /// The last life that ended, and when.
    pub(crate) ended: Option<(Session, Duration)>,
    /// It does not come back before it is told to.
    pub(crate) buried: bool,
    /// Does nothing until then.
    pub(crate) frozen: Duration,
    /// Nothing passes the edge above until then.
    pub(crate) cut: Duration,
    /// Delay of the edge above on top of the usual.
    pub(crate) slow: Duration,
}
