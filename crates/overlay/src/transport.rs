//! The seam between a broker and what carries its messages to peers.

use std::fmt;
use std::time::Duration;

use wire::Message;

use crate::backlog::Bounds;

/// A neighbour in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The broker above.
    Parent,
    /// A broker directly below, by rank.
    Child(u32),
}

/// One life of one broker: drawn at random when it starts, so that a broker that comes back is not
/// taken for the one that left.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(pub u128);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// Health of a broker and all below it, as its parent sees it (flux-overlay(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It and all below are online.
    Full,
    /// Something below it is offline.
    Partial,
    /// Something below it is lost.
    Degraded,
    /// It has gone missing.
    Lost,
    /// It has not joined yet, or has left in good order.
    Offline,
}

impl Status {
    /// All there are, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Full,
        Self::Partial,
        Self::Degraded,
        Self::Lost,
        Self::Offline,
    ];

    /// Name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Degraded => "degraded",
            Self::Lost => "lost",
            Self::Offline => "offline",
        }
    }

    /// Whether a broker in this state takes part.
    pub fn is_online(self) -> bool {
        self <= Self::Degraded
    }

    /// Status of a broker whose children have these.
    pub fn of(children: impl IntoIterator<Item = Self>) -> Self {
        let above = |child| match child {
            Self::Full => Self::Full,
            Self::Partial | Self::Offline => Self::Partial,
            Self::Degraded | Self::Lost => Self::Degraded,
        };
        children.into_iter().map(above).max().unwrap_or(Self::Full)
    }
}

impl TryFrom<u8> for Status {
    type Error = u8;

    fn try_from(number: u8) -> Result<Self, u8> {
        let found = Self::ALL.into_iter().find(|s| *s as u8 == number);
        found.ok_or(number)
    }
}

/// What the overlay reports to its broker.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// A message from a joined peer.
    Message(Peer, Message),
    /// A peer was admitted (a child), or has admitted us (the parent).
    Joined(Peer, Session),
    /// A peer has left or is lost; nothing more comes from that life of it.
    Gone {
        /// Who.
        peer: Peer,
        /// [`Status::Offline`] after a goodbye, else [`Status::Lost`].
        status: Status,
        /// Why, for people.
        why: String,
    },
    /// The status of a child's subtree; it is online.
    Child(u32, Status),
    /// The status of our own subtree has changed.
    Own(Status),
    /// A child has been silent for longer than `tbon.torpid_max`, or speaks again.
    Torpid {
        /// Which child.
        rank: u32,
        /// Whether it is torpid now.
        torpid: bool,
        /// For how long it has been silent.
        silent: Duration,
    },
    /// A broker that wanted to be our child was turned away.
    Rejected {
        /// The rank it says it has.
        rank: u32,
        /// The host it says it is on.
        host: String,
        /// Why.
        why: String,
    },
    /// The parent refused us, and why.
    Refused(String),
    /// Our goodbye has reached the parent.
    Left,
}

/// Sends messages to peers. Sending never blocks; order per peer is kept.
pub trait Transport: Send {
    /// Queue `msg` for that life of `peer`; dropped if it is over.
    fn send(&self, peer: Peer, session: Session, msg: Message);
    /// Bytes waiting to be sent to `peer`.
    fn backlog(&self, peer: Peer) -> usize;
    /// What may wait for a peer.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }
    /// Act on the tree.
    fn control(&self, control: Control);
}

/// What a broker can ask of its overlay besides sending.
#[derive(Debug, Clone)]
pub enum Control {
    /// Take leave of the parent; [`Incoming::Left`] follows.
    Goodbye,
    /// Cut off a child.
    Disconnect {
        /// Which.
        rank: u32,
        /// Why, for people.
        why: String,
    },
    /// Cut ourselves off from the parent.
    Leave(String),
    /// Admit no more children: this broker is about to end.
    Close,
    /// New limits.
    Limits(crate::tree::Limits),
}
