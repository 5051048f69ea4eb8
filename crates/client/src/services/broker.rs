//! The broker itself: a round trip to it.

use serde::{Deserialize, Serialize};

use crate::call::Call;

/// Come back with the way the request took. Every module answers the like under its own name (RFC 5).
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ping<'a> {
    /// Comes back as it is.
    pub seq: u64,
    /// Comes back as it is, to make messages longer.
    pub pad: &'a str,
}

/// Answer to [`Ping`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pong {
    /// The request's `seq`.
    pub seq: u64,
    /// The request's `pad`.
    pub pad: String,
    /// Hops, oldest first, joined by exclamation marks.
    pub route: String,
    /// User the request came from, as the service saw it.
    pub userid: u32,
    /// Roles of the request, as the service saw them.
    pub rolemask: u32,
    /// Rank that answered, where the service tells.
    pub rank: Option<u32>,
}

impl Call for Ping<'_> {
    const TOPIC: &'static str = "broker.ping";
    type Answer = Pong;
}
