//! One broker's place in the tree as a state machine: who is joined, torpid, lost or offline.
//!
//! No I/O: frames, broken connections and the time come in through methods, [`Output`]s are taken
//! with [`Tree::poll`]. The ZeroMQ driver and the simulator both drive it. Facts follow RFC 3 and
//! flux-overlay(1).
//!
//! Invariants: a child is at most one life at a time, and nothing is accepted from any other; of a
//! joined peer messages are reported in the order sent, without gap or repeat, until it is reported
//! gone; a life that has ended, for whatever reason, never comes back: the broker has to restart.
//! A live child is not replaced: a second hello for its rank first has it asked for a sign of life.

mod children;
mod parent;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use wire::Message;

use crate::frame::Frame;
use crate::handshake::{Hello, PROTOCOL};
use crate::topology::Topology;
use crate::transport::{Control, Incoming, Peer, Session, Status};
use children::Children;
use parent::Parent;

/// A moment: time since an origin of the driver's choice, never going back.
pub type Moment = Duration;

/// How patient a broker is (flux-config-tbon(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Silence towards a child that ends with a keepalive; how soon broken connections show.
    pub probe: Duration,
    /// How often the parent is told that and how we are (`tbon.torpid_min`).
    pub torpid_min: Duration,
    /// Silence of a child that makes it torpid (`tbon.torpid_max`); zero is never.
    pub torpid_max: Duration,
    /// Silence of the parent after which it is given up; zero is never.
    pub parent_max: Duration,
    /// A hello without answer is repeated after this.
    pub hello: Duration,
    /// What a joined child has to give a sign of life when its rank says hello once more.
    pub challenge: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(1),
            torpid_min: Duration::from_secs(5),
            torpid_max: Duration::from_secs(30),
            parent_max: Duration::ZERO,
            hello: Duration::from_secs(5),
            challenge: Duration::from_secs(2),
        }
    }
}

/// Fixed facts of a broker in its tree.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its rank.
    pub rank: u32,
    /// The tree.
    pub topology: Topology,
    /// Its host.
    pub hostname: String,
    /// Version of the program, for people.
    pub version: String,
    /// Hosts of the children, as far as they are known.
    pub hosts: HashMap<u32, String>,
    /// This life.
    pub session: Session,
}

/// What the driver has to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send a frame to a life of a child, or of one that would be.
    ToChild(Session, Frame),
    /// Send a frame to the parent.
    ToParent(Frame),
    /// That life is over: drop what is queued for it after the frames so far.
    Forget(Session),
    /// Tell the broker.
    Report(Incoming),
}

/// The state machine.
#[derive(Debug)]
pub struct Tree {
    facts: Facts,
    limits: Limits,
    parent: Option<Parent>,
    children: Children,
    status: Status,
    out: VecDeque<Output>,
}

impl Tree {
    /// A broker that has not said hello and has no children yet.
    pub fn new(facts: Facts, limits: Limits) -> Self {
        let parent = facts.topology.parent(facts.rank).map(|_| Parent::default());
        let children = Children::new(facts.topology.children(facts.rank));
        let status = children.status();
        Self {
            facts,
            limits,
            parent,
            children,
            status,
            out: VecDeque::new(),
        }
    }

    /// This life.
    pub fn session(&self) -> Session {
        self.facts.session
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Status of this broker's subtree.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The life of a child that is joined.
    pub fn joined(&self, rank: u32) -> Option<Session> {
        self.children.joined(rank).map(|j| j.session)
    }

    /// Whether the parent has admitted us and is not gone.
    pub fn is_admitted(&self) -> bool {
        matches!(self.parent, Some(Parent::Joined(_)))
    }

    /// Send a message to that life of a peer; dropped if it is over.
    pub fn send(&mut self, now: Moment, peer: Peer, session: Session, msg: Message) {
        match peer {
            Peer::Child(rank) => {
                let Some(joined) = self.children.joined_mut(rank) else {
                    return;
                };
                if joined.session == session {
                    joined.sent += 1;
                    joined.spoke = now;
                    let frame = Frame::Message(joined.sent, msg);
                    self.out.push_back(Output::ToChild(session, frame));
                }
            }
            Peer::Parent => {
                if let Some(Parent::Joined(joined)) = &mut self.parent
                    && joined.session == session
                {
                    joined.sent += 1;
                    let frame = Frame::Message(joined.sent, msg);
                    self.out.push_back(Output::ToParent(frame));
                }
            }
        }
    }

    /// Do what the broker asks for.
    pub fn control(&mut self, now: Moment, control: Control) {
        match control {
            Control::Goodbye => self.goodbye(now),
            Control::Disconnect { rank, why } => self.disconnect(now, rank, &why),
            Control::Leave(why) => self.lose_parent(&why),
            Control::Close => self.children.close(),
            Control::Limits(limits) => {
                self.limits = limits;
                self.tick(now);
            }
        }
    }

    /// Let time pass: keepalives, torpid children, overdue challenges.
    pub fn tick(&mut self, now: Moment) {
        self.tick_children(now);
        self.tick_parent(now);
    }

    fn report(&mut self, incoming: Incoming) {
        self.out.push_back(Output::Report(incoming));
    }

    fn tell_child(&mut self, session: Session, frame: Frame) {
        self.out.push_back(Output::ToChild(session, frame));
    }

    /// A child's status has changed: ours may have.
    fn update_status(&mut self) {
        let status = self.children.status();
        if status == self.status {
            return;
        }
        self.status = status;
        self.report(Incoming::Own(status));
        if self.is_admitted() {
            self.out.push_back(Output::ToParent(Frame::Status(status)));
        }
    }

    fn hello(&self) -> Hello {
        let facts = &self.facts;
        Hello {
            protocol: PROTOCOL,
            version: facts.version.clone(),
            rank: facts.rank,
            size: facts.topology.size(),
            // Only a broker with a parent says hello.
            parent: facts.topology.parent(facts.rank).unwrap_or(0),
            hostname: facts.hostname.clone(),
            status: self.status as u8,
        }
    }
}

#[cfg(test)]
mod tests;
