//! The asynchronous handle on a Flux instance: calls, streams, events and services.
//!
//! Programs open one with [`Handle::open`]; built-in modules are given one whose other end is the
//! broker's router in the same process. Both speak the same messages (RFC 3, RFC 6).
//!
//! - [`Handle::rpc`] and [`Handle::call`] ask a service, [`Handle::stream`] one that answers more than once,
//!   [`Handle::rpc_group`] many ranks at once. [`Handle::ask`] and [`Handle::follow`] are their typed forms; the
//!   types for what every broker has are in [`services`].
//! - [`Handle::events`] follows events, [`Handle::publish`] makes them.
//! - [`Service`] answers requests of others.
//! - [`OpenOptions`] says how to connect, and whether to do so again ([`Reconnect`]).
//!
//! Invariants: every request sent through a handle ends exactly once, with its response, an error
//! response, or ECONNRESET when the connection goes away; no response reaches a call it does not belong to.
//!
//! ```no_run
//! use client::{Handle, Node};
//! use serde_json::{Value, json};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let handle = Handle::open(None).await?;
//! let mut changes = handle.events(&["kvs.namespace-primary-setroot"]).await?;
//! let pong: Value = handle.call("broker.ping", Node::Rank(0), &json!({"seq": 1, "pad": ""})).await?;
//! println!("by way of {}", pong["route"]);
//! if let Some(event) = changes.next().await {
//!     println!("the key-value store has changed: {:?}", event?.text());
//! }
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod call;
mod connect;
mod credit;
mod events;
pub mod external;
mod group;
mod handle;
pub mod installation;
mod link;
pub mod module;
mod rpc;
mod service;
pub mod services;
mod ssh;
pub mod stream;
mod tags;
pub mod uri;

pub use call::{Answer, Answers, Call, Empty, StreamCall};
pub use connect::{OpenError, OpenOptions, Reconnect, serve_stream};
pub use credit::Credit;
pub use events::{Events, EventsLost};
pub use group::Group;
pub use handle::{Deliver, Handle, Hold, Inbox, Node, Status};
pub use rpc::{Rpc, RpcStream};
pub use service::{Requests, Responder, Service, Serving};
pub use ssh::relay_command;
pub use wire::{Message, RpcError};
