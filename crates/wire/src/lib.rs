//! Flux messages: the RFC 3 data model, its binary codec and the framing of the local connector.
//!
//! Purpose: one parsed [`Message`] type that every part of an instance passes around by cheap clones; its topic
//! ([`Text`]), hops ([`Routes`]) and payload ([`bytes::Bytes`]) are slices of the buffer it arrived in. With it
//! come the things every receiver of messages needs: who sent it and may do what ([`Credentials`], RFC 12), which
//! messages one wants ([`Match`], [`Subscriptions`]), how a call can fail ([`RpcError`], RFC 6) and the table of
//! error numbers.
//!
//! Invariants: bytes from a peer become a `Message` only through [`Message::decode`]; a `Message` that exists
//! encodes, and decodes to itself. No I/O and no async here.
//!
//! ```
//! use bytes::BytesMut;
//! use wire::{Message, NODEID_ANY, RpcError};
//!
//! // A client asks,
//! let mut bytes = BytesMut::new();
//! Message::request("echo.hi", NODEID_ANY, 1, 0, None).encode(&mut bytes);
//! // a service receives and declines,
//! let request = Message::decode(&bytes.freeze())?;
//! let answer = request.error_response(&RpcError::new(libc::ENOSYS, "no such method"));
//! // and the client sees an error.
//! assert_eq!(answer.into_result().unwrap_err().errno, 38);
//! # Ok::<(), wire::DecodeError>(())
//! ```

#![warn(missing_docs)]

mod codec;
mod credentials;
mod dump;
mod errno;
mod error;
mod frame;
mod glob;
mod message;
mod payload;
mod routes;
mod subscriptions;
mod text;
mod topic;

pub use codec::{DecodeError, MAX_MESSAGE, MAX_ROUTES};
pub use credentials::{
    Credentials, ROLE_ADMIN, ROLE_ALL, ROLE_LOCAL, ROLE_NONE, ROLE_OWNER, ROLE_USER, USERID_UNKNOWN,
};
pub use dump::Dump;
pub use errno::{errno_from_name, errno_name, strerror};
pub use error::RpcError;
pub use frame::{FRAME_HEADER, FrameDecoder, FrameError, FrameQueue};
pub use glob::{Glob, Match};
pub use message::{Flags, Kind, Message, NODEID_ANY, NODEID_UPSTREAM};
pub use payload::{json_payload, string_payload};
pub use routes::Routes;
pub use subscriptions::Subscriptions;
pub use text::Text;
pub use topic::{disconnect_topic, is_service_name, method_of, service_of};
