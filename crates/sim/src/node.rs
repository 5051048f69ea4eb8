//! One rank: what is there while its broker lives, and what stays between lives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::switch::Switch;
use overlay::tree::Tree;
use overlay::{Control, Facts, Limits, Peer, Session, Topology, Transport};
use wire::Message;

use crate::network::ConnId;
use crate::program::{OWNER, Programs};

/// What a router has handed to its transport.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Vec<(Peer, Session, Message)>>>);

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        let out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.is_empty()
    }

    pub(crate) fn take(&self) -> Vec<(Peer, Session, Message)> {
        // A list of messages is sound whatever happened to who changed it.
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Transport for Outbox {
    fn send(&self, peer: Peer, session: Session, msg: Message) {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.push((peer, session, msg));
    }

    fn backlog(&self, _peer: Peer) -> usize {
        0
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
    /// The broker's own clock at the world's zero: clocks of lives are not the same.
    pub(crate) offset: Duration,
}

impl Life {
    pub(crate) fn new(rank: u32, topology: &Topology, session: Session, offset: Duration) -> Self {
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
        let outbox = Outbox::default();
        let transport = Box::new(outbox.clone());
        let mut switch = Switch::new(rank, OWNER, topology.clone(), transport);
        let name = format!("{rank}-{session:?}");
        let programs = Programs::start(&mut switch, &name);
        Self {
            session,
            tree: Tree::new(facts, Limits::default()),
            switch,
            outbox,
            programs,
            up: None,
            over: None,
            leaving: false,
            offset,
        }
    }
}

/// A rank.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) life: Option<Life>,
    /// Does nothing until then.
    pub(crate) frozen: Duration,
    /// Nothing passes the edge above until then.
    pub(crate) cut: Duration,
    /// Delay of the edge above on top of the usual.
    pub(crate) slow: Duration,
}
