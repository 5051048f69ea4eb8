//! Flux messages: the RFC 3 data model, its binary codec and the framing of the local connector.
//!
//! Purpose: one parsed [`Message`] type that every part of an instance passes around by cheap
//! clones (payloads are shared [`bytes::Bytes`], topics shared strings).
//!
//! Invariants: a `Message` that exists is valid; bytes from a peer become a `Message` only through
//! [`Message::decode`], which refuses anything RFC 3 does not allow. No I/O and no async here.

mod codec;
mod error;
mod frame;
mod message;
mod topic;

pub use codec::DecodeError;
pub use error::{RpcError, errno_name, strerror};
pub use frame::{FRAME_HEADER, FrameDecoder, FrameError, MAX_FRAME, encode_frame};
pub use message::{
    Credentials, Flags, Kind, Message, NODEID_ANY, NODEID_UPSTREAM, ROLE_ALL, ROLE_LOCAL,
    ROLE_NONE, ROLE_OWNER, ROLE_USER, USERID_UNKNOWN, json_payload, string_payload,
};
pub use topic::{disconnect_topic, service_of, topic_glob_match};
