//! The tree-based overlay network between the brokers of one instance.
//!
//! Purpose: carry [`wire::Message`]s between a broker, its parent and its children, and say when a
//! peer comes and goes. [`topology`] knows the tree's shape; [`handshake`] decides who may join;
//! [`tree`] is one broker's place as a state machine over [`frame`]s; [`transport`] is the seam
//! between the broker and what moves bytes; `zmq_link` moves them with ZeroMQ and CURVE, within
//! the bounds of [`backlog`].
//!
//! Invariants: only a broker whose public key was announced for its rank is admitted; messages of
//! one peer arrive in the order they were sent, without gap or repeat, or the peer is lost.
//! Broker-to-broker bytes are ours (versioned by [`handshake::PROTOCOL`]); the message encoding
//! inside is RFC 3.

pub mod backlog;
pub mod frame;
pub mod handshake;
pub mod keys;
pub mod topology;
pub mod transport;
pub mod tree;
mod zmq_link;

pub use keys::{Certificate, CertificateError, KeyPair, PublicKey};
pub use topology::Topology;
pub use transport::{Control, Incoming, Peer, Session, Status, Transport};
pub use tree::{Facts, Limits};
pub use zmq_link::{Bound, LinkError, ParentAddress, SocketOptions, ZmqLink};
