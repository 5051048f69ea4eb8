//! The asynchronous handle on a Flux instance: RPCs, streams, events and services.
//!
//! Programs open one with [`Handle::open`]; built-in modules are given one whose other end is the
//! broker's router in the same process. Both speak the same messages (RFC 3, RFC 6).
//!
//! Invariants: every request sent through a handle ends exactly once, with its response, an error
//! response, or ECONNRESET when the connection goes away.

mod connect;
mod handle;
pub mod module;
mod rpc;
pub mod stream;
pub mod uri;

pub use connect::{OpenError, serve_stream};
pub use handle::{Deliver, Handle, Inbox, Node};
pub use rpc::{Rpc, RpcStream};
pub use wire::{Message, RpcError};
