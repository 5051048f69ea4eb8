//! Events. [`Handle::events`](crate::Handle::events) and [`Handle::publish`](crate::Handle::publish) are the
//! convenient forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::call::{Call, Empty};

/// Send events whose topics start with `topic` over this connection. Counted.
#[derive(Debug, Clone, Serialize)]
pub struct Subscribe<'a> {
    /// Beginning of topics; "" is all events.
    pub topic: &'a str,
}

impl Call for Subscribe<'_> {
    const TOPIC: &'static str = "event.subscribe";
    type Answer = Empty;
}

/// Undo one [`Subscribe`]. ENOENT if there was none.
#[derive(Debug, Clone, Serialize)]
pub struct Unsubscribe<'a> {
    /// As subscribed.
    pub topic: &'a str,
}

impl Call for Unsubscribe<'_> {
    const TOPIC: &'static str = "event.unsubscribe";
    type Answer = Empty;
}

/// Publish an event; rank 0 answers.
#[derive(Debug, Clone, Serialize)]
pub struct Publish<'a> {
    topic: &'a str,
    flags: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

impl<'a> Publish<'a> {
    /// An event; `private` keeps it to the owner and the sender.
    pub fn new(topic: &'a str, payload: Option<&[u8]>, private: bool) -> Self {
        Self {
            topic,
            flags: if private { wire::Flags::PRIVATE } else { 0 },
            payload: payload.map(|bytes| STANDARD.encode(bytes)),
        }
    }
}

/// Answer to [`Publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Published {
    /// The event's sequence number.
    pub seq: u32,
}

impl Call for Publish<'_> {
    const TOPIC: &'static str = "event.publish";
    type Answer = Published;
}
