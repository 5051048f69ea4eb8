//! The seam between a broker and what carries its messages to peers.

use wire::Message;

/// A neighbour in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The broker above.
    Parent,
    /// A broker directly below, by rank.
    Child(u32),
}

/// What a transport reports.
#[derive(Debug)]
pub enum Incoming {
    /// A message from an admitted peer.
    Message(Peer, Message),
    /// A peer was admitted (a child), or has admitted us (the parent).
    Joined(Peer),
    /// A peer said goodbye or cannot be reached any more.
    Gone(Peer),
    /// The parent refused us, and why.
    Refused(String),
}

/// Sends messages to peers. Sending never blocks; order per peer is kept.
pub trait Transport: Send {
    /// Queue `msg` for `peer`.
    fn send(&self, peer: Peer, msg: Message);
    /// Tell `peer` that this broker leaves the tree.
    fn goodbye(&self, peer: Peer);
}
