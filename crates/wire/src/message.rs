//! The message data model of RFC 3.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::payload::string_payload;
use crate::{Credentials, Routes, RpcError, Text, topic};

/// Request destination: first match on the way to rank 0.
pub const NODEID_ANY: u32 = 0xffff_ffff;
/// Marks "upstream of me" in interfaces; on the wire it is the upstream flag plus the own rank.
pub const NODEID_UPSTREAM: u32 = 0xffff_fffe;
/// Message flags (RFC 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// A topic part is present.
    pub const TOPIC: u8 = 0x01;
    /// A payload part is present.
    pub const PAYLOAD: u8 = 0x02;
    /// The request wants no response.
    pub const NORESPONSE: u8 = 0x04;
    /// A route delimiter is present.
    pub const ROUTE: u8 = 0x08;
    /// Route upstream of the rank in nodeid.
    pub const UPSTREAM: u8 = 0x10;
    /// Event for the owner and the sender only.
    pub const PRIVATE: u8 = 0x20;
    /// Part of a streaming RPC.
    pub const STREAMING: u8 = 0x40;
    /// Free for users.
    pub const USER1: u8 = 0x80;

    /// Whether all bits of `bit` are set.
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit == bit
    }
}

/// The four message types with the header fields each has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ask a service.
    Request {
        /// Destination rank, [`NODEID_ANY`], or (upstream flag) the sender's rank.
        nodeid: u32,
        /// Correlates the response; 0 is none.
        matchtag: u32,
    },
    /// A service's answer.
    Response {
        /// 0 for success.
        errnum: u32,
        /// Copied from the request.
        matchtag: u32,
    },
    /// Published to all ranks.
    Event {
        /// Sequence number given by rank 0.
        sequence: u32,
    },
    /// Overlay-internal.
    Control {
        /// Control type.
        kind: u32,
        /// Status word.
        status: u32,
    },
}

impl Kind {
    /// The type's code in the header, one bit.
    pub fn bit(self) -> u8 {
        match self {
            Self::Request { .. } => 1,
            Self::Response { .. } => 2,
            Self::Event { .. } => 4,
            Self::Control { .. } => 8,
        }
    }
}

/// One Flux message. Cloning is cheap: topic and payload are shared.
///
/// ```
/// use serde_json::json;
/// use wire::{Message, NODEID_ANY, json_payload};
///
/// let payload = json_payload(&json!({"name": "rank"}))?;
/// let request = Message::request("attr.get", NODEID_ANY, 7, 0, Some(payload));
/// assert_eq!((request.service(), request.method()), ("attr", "get"));
///
/// let answer = request.response(0, Some(json_payload(&json!({"value": "0"}))?));
/// assert_eq!(answer.matchtag(), 7);
/// let value: serde_json::Value = answer.json()?;
/// assert_eq!(value["value"], "0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    pub(crate) cred: Credentials,
    pub(crate) routes: Routes,
    pub(crate) topic: Option<Text>,
    pub(crate) payload: Option<Bytes>,
}

impl Message {
    /// A message of any type with any parts; the flags of parts are set as they are there.
    ///
    /// [`Message::request`], [`Message::event`] and so on make those of RFC 3.
    pub fn build(kind: Kind, flags: u8, topic: Option<&str>, payload: Option<Bytes>) -> Self {
        Self::new(kind, flags, topic.map(Text::from), payload)
    }

    pub(crate) fn new(kind: Kind, flags: u8, topic: Option<Text>, payload: Option<Bytes>) -> Self {
        let mut bits = flags & !(Flags::TOPIC | Flags::PAYLOAD);
        if topic.is_some() {
            bits |= Flags::TOPIC;
        }
        if payload.is_some() {
            bits |= Flags::PAYLOAD;
        }
        Self {
            kind,
            flags: Flags(bits),
            cred: Credentials::UNKNOWN,
            routes: Routes::default(),
            topic,
            payload,
        }
    }

    /// A request to `topic`; `flags` may hold NORESPONSE, UPSTREAM, STREAMING.
    pub fn request(
        topic: impl Into<Text>,
        nodeid: u32,
        matchtag: u32,
        flags: u8,
        payload: Option<Bytes>,
    ) -> Self {
        let kind = Kind::Request { nodeid, matchtag };
        Self::new(kind, flags | Flags::ROUTE, Some(topic.into()), payload)
    }

    /// The response to `self`, which must be a request: same routes, topic, matchtag.
    pub fn response(&self, errnum: i32, payload: Option<Bytes>) -> Self {
        let kind = Kind::Response {
            errnum: errnum as u32,
            matchtag: self.matchtag(),
        };
        let flags = self.flags.0 & (Flags::STREAMING | Flags::USER1) | Flags::ROUTE;
        let mut msg = Self::new(kind, flags, self.topic.clone(), payload);
        msg.routes = self.routes.clone();
        msg
    }

    /// The error response to `self`.
    pub fn error_response(&self, err: &RpcError) -> Self {
        self.response(err.errno, err.message.as_deref().map(string_payload))
    }

    /// An event; its sequence is set when rank 0 publishes it.
    pub fn event(topic: impl Into<Text>, flags: u8, payload: Option<Bytes>) -> Self {
        Self::new(
            Kind::Event { sequence: 0 },
            flags | Flags::ROUTE,
            Some(topic.into()),
            payload,
        )
    }

    /// A control message, used between overlay peers.
    pub fn control(kind: u32, status: u32, payload: Option<Bytes>) -> Self {
        Self::new(Kind::Control { kind, status }, 0, None, payload)
    }

    /// Message type and its fields.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Header flags.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Topic string; empty when there is none.
    pub fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or("")
    }

    /// Whether there is a topic. RFC 3 wants one in all but control messages; a peer may leave it out.
    pub fn has_topic(&self) -> bool {
        self.topic.is_some()
    }

    /// The topic as shared text.
    pub fn topic_text(&self) -> Option<&Text> {
        self.topic.as_ref()
    }

    /// Service part of the topic.
    pub fn service(&self) -> &str {
        topic::service_of(self.topic())
    }

    /// Method part of the topic: what follows the first period.
    pub fn method(&self) -> &str {
        topic::method_of(self.topic())
    }

    /// Raw payload, with the NUL that ends a JSON or string payload.
    pub fn payload(&self) -> Option<&Bytes> {
        self.payload.as_ref()
    }

    /// Payload as text without its final NUL. `None` without a payload or when not UTF-8.
    pub fn text(&self) -> Option<&str> {
        let bytes = self.payload.as_deref()?;
        std::str::from_utf8(bytes.strip_suffix(b"\0").unwrap_or(bytes)).ok()
    }

    /// Decode the JSON object payload. A missing payload counts as `{}`; errors are EPROTO.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        let bytes = self.payload.as_deref().unwrap_or(b"{}");
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        serde_json::from_slice(bytes).map_err(|e| RpcError::malformed(self.topic(), e))
    }

    /// The outcome a response carries: itself, or the error it stands for.
    pub fn into_result(self) -> Result<Self, RpcError> {
        match self.kind {
            Kind::Response { errnum: 0, .. } => Ok(self),
            Kind::Response { errnum, .. } => {
                let message = self.text().filter(|s| !s.is_empty()).map(str::to_owned);
                Err(RpcError {
                    errno: errnum as i32,
                    message,
                })
            }
            _ => Ok(self),
        }
    }

    /// Credentials of the sender.
    pub fn credentials(&self) -> Credentials {
        self.cred
    }

    /// Set the sender's credentials (connectors only).
    pub fn set_credentials(&mut self, cred: Credentials) {
        self.cred = cred;
    }

    /// Sender's user id.
    pub fn userid(&self) -> u32 {
        self.cred.userid
    }

    /// Sender's roles.
    pub fn rolemask(&self) -> u32 {
        self.cred.rolemask
    }

    /// Whether the sender has the owner role.
    pub fn is_owner(&self) -> bool {
        self.cred.is_owner()
    }

    /// `Ok` if the sender has one of the roles in `allow` or is the owner (RFC 12), EPERM otherwise.
    pub fn require_role(&self, allow: u32) -> Result<(), RpcError> {
        if self.cred.may(allow) {
            return Ok(());
        }
        let text = format!("{}: not open to user {}", self.topic(), self.cred.userid);
        Err(RpcError::new(libc::EPERM, text))
    }

    /// `Ok` if the request is streaming; EPROTO otherwise, as services that answer more than once must.
    pub fn require_streaming(&self) -> Result<(), RpcError> {
        if self.is_streaming() {
            return Ok(());
        }
        let text = format!("{}: the request must be a streaming one", self.topic());
        Err(RpcError::proto(text))
    }

    /// `Ok` if the sender is the owner, EPERM otherwise.
    pub fn require_owner(&self) -> Result<(), RpcError> {
        if self.is_owner() {
            return Ok(());
        }
        let reason = format!("Request requires owner credentials: {}", self.topic());
        Err(RpcError::explained(libc::EPERM, reason))
    }

    /// `Ok` if the sender is the owner or `userid` itself, EPERM otherwise.
    pub fn require_user(&self, userid: u32) -> Result<(), RpcError> {
        if self.cred.may_act_for(userid) {
            return Ok(());
        }
        self.require_owner()
    }

    /// The matchtag that a request to cancel another names: `{"matchtag"}` (RFC 6).
    pub fn cancelled(&self) -> Result<u32, RpcError> {
        #[derive(serde::Deserialize)]
        struct Cancel {
            matchtag: u32,
        }
        Ok(self.json::<Cancel>()?.matchtag)
    }

    /// Matchtag of a request or response, 0 otherwise.
    pub fn matchtag(&self) -> u32 {
        match self.kind {
            Kind::Request { matchtag, .. } | Kind::Response { matchtag, .. } => matchtag,
            _ => 0,
        }
    }

    /// Set the matchtag of a request or response.
    pub fn set_matchtag(&mut self, tag: u32) {
        if let Kind::Request { matchtag, .. } | Kind::Response { matchtag, .. } = &mut self.kind {
            *matchtag = tag;
        }
    }

    /// Set the nodeid of a request.
    pub fn set_nodeid(&mut self, id: u32) {
        if let Kind::Request { nodeid, .. } = &mut self.kind {
            *nodeid = id;
        }
    }

    /// Set the sequence of an event.
    pub fn set_sequence(&mut self, seq: u32) {
        if let Kind::Event { sequence } = &mut self.kind {
            *sequence = seq;
        }
    }

    /// An event for its sender and the owner only.
    pub fn is_private(&self) -> bool {
        self.flags.has(Flags::PRIVATE)
    }

    /// This response is the last of its RPC: its matchtag may be used again (RFC 6).
    pub fn is_final(&self) -> bool {
        match self.kind {
            Kind::Response { errnum, .. } => errnum != 0 || !self.is_streaming(),
            _ => false,
        }
    }

    /// Part of a streaming RPC.
    pub fn is_streaming(&self) -> bool {
        self.flags.has(Flags::STREAMING)
    }

    /// The request wants no response.
    pub fn no_response(&self) -> bool {
        self.flags.has(Flags::NORESPONSE)
    }

    /// Whether this is a request.
    pub fn is_request(&self) -> bool {
        matches!(self.kind, Kind::Request { .. })
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        matches!(self.kind, Kind::Response { .. })
    }

    /// Whether this is an event.
    pub fn is_event(&self) -> bool {
        matches!(self.kind, Kind::Event { .. })
    }

    /// Route stack, oldest hop first.
    pub fn routes(&self) -> &[Text] {
        self.routes.as_slice()
    }

    /// The route stack, to show it.
    pub fn route_stack(&self) -> &Routes {
        &self.routes
    }

    /// The oldest hop: identifies the client a request came from.
    pub fn sender(&self) -> Option<&Text> {
        self.routes.as_slice().first()
    }

    /// The most recent hop: where a response goes next.
    pub fn next_hop(&self) -> Option<&Text> {
        self.routes.as_slice().last()
    }

    /// Make room for hops: requests and responses have a route delimiter also without hops.
    pub fn enable_routes(&mut self) {
        self.flags.0 |= Flags::ROUTE;
    }

    /// Record a hop.
    pub fn push_route(&mut self, id: Text) {
        self.routes.push(id);
        self.enable_routes();
    }

    /// Take the most recent hop off.
    pub fn pop_route(&mut self) -> Option<Text> {
        self.routes.pop()
    }

    /// Forget all hops (a message entering from an untrusted client).
    pub fn clear_routes(&mut self) {
        self.routes.clear();
    }

    /// The notice sent to this request's service when its sender goes away.
    pub fn disconnect_notice(&self) -> Self {
        let mut notice = self.clone();
        notice.topic = Some(topic::disconnect_topic(self.topic()).into());
        notice.payload = None;
        notice.flags.0 &= !(Flags::PAYLOAD | Flags::STREAMING);
        notice.flags.0 |= Flags::NORESPONSE;
        notice.set_matchtag(0);
        notice
    }

    /// `from` cancels or disconnects the open request `self`: same sender and, when a matchtag is
    /// given, the same RPC.
    pub fn is_same_rpc(&self, from: &Self, matchtag: Option<u32>) -> bool {
        self.sender() == from.sender() && matchtag.is_none_or(|tag| tag == self.matchtag())
    }
}
