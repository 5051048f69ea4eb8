//! [`Handle`]: one end of a message channel with matchtags, pending calls and an inbox.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use wire::{Flags, Message, NODEID_ANY, NODEID_UPSTREAM, RpcError, json_payload};

use crate::rpc::{Rpc, RpcStream};

/// Where a request goes (RFC 3, request routing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The first broker on the way to rank 0 that has the service.
    Any,
    /// As `Any`, but starting at this broker's parent.
    Upstream,
    /// The broker of this rank.
    Rank(u32),
}

/// What waits for responses with one matchtag.
enum Pending {
    One(oneshot::Sender<Message>),
    Many(UnboundedSender<Message>),
}

/// Takes a message towards the instance; false when the connection is gone.
type Sink = Box<dyn Fn(Message) -> bool + Send + Sync>;

struct Inner {
    out: Sink,
    /// `None` once the connection is gone: nothing can be waited for any more.
    pending: Mutex<Option<HashMap<u32, Pending>>>,
    next_tag: AtomicU32,
    inbox_tx: Mutex<Option<UnboundedSender<Message>>>,
    inbox_rx: Mutex<Option<UnboundedReceiver<Message>>>,
    place: OnceLock<(u32, u32)>,
}

/// A connection to an instance. Clones share it.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

/// The receiving side of a handle: whatever carries messages gives them here.
pub struct Deliver(Arc<Inner>);

/// Requests and events that arrive at a handle.
pub struct Inbox(UnboundedReceiver<Message>);

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section here is a single map operation, so a poisoned lock holds sound data.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// The next request or event; `None` once the handle's other end is gone.
    pub async fn recv(&mut self) -> Option<Message> {
        self.0.recv().await
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<Message> {
        self.0.try_recv().ok()
    }
}

impl Deliver {
    /// Hand a message to the call that waits for it, or to the inbox.
    ///
    /// A response nobody waits for any more is dropped.
    pub fn deliver(&self, msg: Message) {
        // Responses without matchtag are matched by their payload (RFC 27, 32), by whoever asked.
        if !msg.is_response() || msg.matchtag() == 0 {
            if let Some(tx) = &*lock(&self.0.inbox_tx) {
                let _ = tx.send(msg);
            }
            return;
        }
        let mut pending = lock(&self.0.pending);
        let Some(pending) = pending.as_mut() else {
            return;
        };
        let tag = msg.matchtag();
        match pending.get(&tag) {
            Some(Pending::Many(tx)) => {
                let gone = tx.send(msg).is_err();
                if gone {
                    pending.remove(&tag);
                }
            }
            Some(Pending::One(_)) => {
                if let Some(Pending::One(tx)) = pending.remove(&tag) {
                    // Whoever asked may have stopped waiting.
                    let _ = tx.send(msg);
                }
            }
            None => {}
        }
    }

    /// End the inbox and fail everything pending, and all that follows, with ECONNRESET.
    pub fn close(&self) {
        lock(&self.0.inbox_tx).take();
        lock(&self.0.pending).take();
    }

    /// End the inbox only, as a request to shut down; calls still work.
    pub fn close_inbox(&self) {
        lock(&self.0.inbox_tx).take();
    }
}

impl Drop for Deliver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Handle {
    /// A handle that sends into `out` and receives through the returned [`Deliver`].
    ///
    /// `out` must not block; it returns false when the connection is gone. The inbox is unbounded
    /// here: what is in it is bounded by the calls its senders have in flight.
    pub fn with_sink(out: impl Fn(Message) -> bool + Send + Sync + 'static) -> (Self, Deliver) {
        let (inbox_tx, inbox_rx) = unbounded_channel();
        let inner = Arc::new(Inner {
            out: Box::new(out),
            pending: Mutex::new(Some(HashMap::new())),
            next_tag: AtomicU32::new(1),
            inbox_tx: Mutex::new(Some(inbox_tx)),
            inbox_rx: Mutex::new(Some(inbox_rx)),
            place: OnceLock::new(),
        });
        (Self(inner.clone()), Deliver(inner))
    }

    /// The inbox; whoever asks first gets it.
    pub fn inbox(&self) -> Option<Inbox> {
        lock(&self.0.inbox_rx).take().map(Inbox)
    }

    /// Tell the handle which broker it is connected to.
    pub fn set_place(&self, rank: u32, size: u32) {
        let _ = self.0.place.set((rank, size));
    }

    /// Rank of the broker at the other end; 0 until known (see [`Handle::locate`]).
    pub fn rank(&self) -> u32 {
        self.0.place.get().map_or(0, |p| p.0)
    }

    /// Number of brokers in the instance; 1 until known (see [`Handle::locate`]).
    pub fn size(&self) -> u32 {
        self.0.place.get().map_or(1, |p| p.1)
    }

    /// Ask the broker for its rank and the instance's size, once.
    pub async fn locate(&self) -> Result<(u32, u32), RpcError> {
        if let Some(place) = self.0.place.get() {
            return Ok(*place);
        }
        let (rank, size) = futures::try_join!(self.getattr("rank"), self.getattr("size"))?;
        let number = |s: String| {
            s.parse()
                .map_err(|_| RpcError::proto(format!("attribute is not a number: {s:?}")))
        };
        let place = (number(rank)?, number(size)?);
        Ok(*self.0.place.get_or_init(|| place))
    }

    /// Send a message as it is.
    pub fn send(&self, msg: Message) {
        // A failed send means the connection is gone; `Deliver::close` fails what is pending.
        let _ = (self.0.out)(msg);
    }

    fn make_request(
        &self,
        topic: &str,
        node: Node,
        flags: u8,
        tag: u32,
        payload: Option<Bytes>,
    ) -> Message {
        let (nodeid, extra) = match node {
            Node::Any => (NODEID_ANY, 0),
            Node::Rank(r) => (r, 0),
            Node::Upstream => {
                let rank = self.0.place.get().map_or(NODEID_UPSTREAM, |p| p.0);
                (rank, Flags::UPSTREAM)
            }
        };
        Message::request(topic, nodeid, tag, flags | extra, payload)
    }

    fn next_tag(&self) -> u32 {
        loop {
            let tag = self.0.next_tag.fetch_add(1, Ordering::Relaxed);
            if tag != 0 {
                return tag;
            }
        }
    }

    /// Wait for responses with `tag`. Dropped at once, and so failed, without a connection.
    fn expect(&self, tag: u32, pending: Pending) {
        if let Some(map) = lock(&self.0.pending).as_mut() {
            map.insert(tag, pending);
        }
    }

    pub(crate) fn forget(&self, tag: u32) {
        if let Some(map) = lock(&self.0.pending).as_mut() {
            map.remove(&tag);
        }
    }

    /// Start a call with a raw payload.
    pub fn rpc_raw(&self, topic: &str, node: Node, payload: Option<Bytes>) -> Rpc {
        let tag = self.next_tag();
        let (tx, rx) = oneshot::channel();
        self.expect(tag, Pending::One(tx));
        if !(self.0.out)(self.make_request(topic, node, 0, tag, payload)) {
            self.forget(tag);
        }
        Rpc::new(self.clone(), tag, rx)
    }

    /// Start a call with a JSON object payload. It is sent at once, before the first poll.
    pub fn rpc(&self, topic: &str, node: Node, payload: &impl Serialize) -> Rpc {
        match json_payload(payload) {
            Ok(bytes) => self.rpc_raw(topic, node, Some(bytes)),
            Err(e) => Rpc::failed(
                self.clone(),
                RpcError::proto(format!("{topic}: request: {e}")),
            ),
        }
    }

    /// Call and decode the JSON answer.
    pub async fn call<T: DeserializeOwned>(
        &self,
        topic: &str,
        node: Node,
        payload: &impl Serialize,
    ) -> Result<T, RpcError> {
        self.rpc(topic, node, payload).await?.json()
    }

    /// Start a streaming call.
    pub fn stream(&self, topic: &str, node: Node, payload: &impl Serialize) -> RpcStream {
        let tag = self.next_tag();
        let (tx, rx) = unbounded_channel();
        match json_payload(payload) {
            Ok(bytes) => {
                self.expect(tag, Pending::Many(tx));
                let msg = self.make_request(topic, node, Flags::STREAMING, tag, Some(bytes));
                if !(self.0.out)(msg) {
                    self.forget(tag);
                }
            }
            Err(e) => {
                let err = RpcError::proto(format!("{topic}: request: {e}"));
                let req = self.make_request(topic, node, Flags::STREAMING, tag, None);
                let _ = tx.send(req.error_response(&err));
            }
        }
        RpcStream::new(self.clone(), tag, node, rx)
    }

    /// Send a request without matchtag: its responses arrive in the inbox (RFC 27, 32).
    pub fn request_untagged(&self, topic: &str, payload: &impl Serialize) -> Result<(), RpcError> {
        let bytes = json_payload(payload)?;
        self.send(self.make_request(topic, Node::Any, 0, 0, Some(bytes)));
        Ok(())
    }

    /// Send a request that wants no response.
    pub fn notify(&self, topic: &str, node: Node, payload: &impl Serialize) {
        // Payloads of notifications are our own plain structs; JSON encoding them cannot fail.
        let bytes = json_payload(payload).expect("plain data encodes as JSON");
        self.send(self.make_request(topic, node, Flags::NORESPONSE, 0, Some(bytes)));
    }

    /// Answer `req` with a JSON object.
    pub fn respond(&self, req: &Message, payload: &impl Serialize) {
        match json_payload(payload) {
            Ok(bytes) => self.respond_raw(req, Some(bytes)),
            Err(e) => self.respond_error(req, &RpcError::proto(format!("response: {e}"))),
        }
    }

    /// Answer `req` without payload.
    pub fn respond_ok(&self, req: &Message) {
        self.respond_raw(req, None);
    }

    /// Answer `req` with raw bytes.
    pub fn respond_raw(&self, req: &Message, payload: Option<Bytes>) {
        if !req.no_response() {
            self.send(req.response(0, payload));
        }
    }

    /// Answer `req` with an error.
    pub fn respond_error(&self, req: &Message, err: &RpcError) {
        if !req.no_response() {
            self.send(req.error_response(err));
        }
    }

    /// Answer `req` with whichever a handler returned.
    pub fn respond_result<T: Serialize>(&self, req: &Message, result: Result<T, RpcError>) {
        match result {
            Ok(value) => self.respond(req, &value),
            Err(e) => self.respond_error(req, &e),
        }
    }

    /// Answer that the method is not known here.
    pub fn respond_enosys(&self, req: &Message) {
        self.respond_error(req, &RpcError::errno(libc::ENOSYS));
    }

    /// Receive events whose topic starts with `prefix` ("" is all).
    pub async fn subscribe(&self, prefix: &str) -> Result<(), RpcError> {
        self.rpc("event.subscribe", Node::Any, &json!({ "topic": prefix }))
            .await
            .map(drop)
    }

    /// Undo one [`Handle::subscribe`].
    pub async fn unsubscribe(&self, prefix: &str) -> Result<(), RpcError> {
        self.rpc("event.unsubscribe", Node::Any, &json!({ "topic": prefix }))
            .await
            .map(drop)
    }

    /// Publish an event with a JSON payload to all ranks; returns its sequence number.
    pub async fn publish(&self, topic: &str, payload: &impl Serialize) -> Result<u32, RpcError> {
        self.publish_raw(topic, Some(json_payload(payload)?), false)
            .await
    }

    /// Publish an event with raw payload; `private` keeps it to the owner and the sender.
    pub async fn publish_raw(
        &self,
        topic: &str,
        payload: Option<Bytes>,
        private: bool,
    ) -> Result<u32, RpcError> {
        use base64::Engine as _;
        #[derive(Deserialize)]
        struct Answer {
            seq: u32,
        }
        let flags = if private { Flags::PRIVATE } else { 0 };
        let mut request = json!({ "topic": topic, "flags": flags });
        if let Some(bytes) = payload {
            request["payload"] = base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into();
        }
        let answer: Answer = self.call("event.publish", Node::Rank(0), &request).await?;
        Ok(answer.seq)
    }

    /// Value of a broker attribute.
    pub async fn getattr(&self, name: &str) -> Result<String, RpcError> {
        #[derive(Deserialize)]
        struct Answer {
            value: String,
        }
        let answer: Answer = self
            .call("attr.get", Node::Any, &json!({ "name": name }))
            .await?;
        Ok(answer.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handle whose messages go nowhere.
    fn silent() -> (Handle, Deliver) {
        Handle::with_sink(|_| true)
    }

    #[tokio::test]
    async fn a_lost_connection_fails_calls_before_and_after() {
        let (handle, deliver) = silent();
        let before = handle.rpc("a.b", Node::Any, &json!({}));
        let mut stream = handle.stream("a.c", Node::Any, &json!({}));
        let mut inbox = handle.inbox().unwrap();
        deliver.close();
        assert_eq!(before.await.unwrap_err().errno, libc::ECONNRESET);
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().errno,
            libc::ECONNRESET
        );
        assert!(inbox.recv().await.is_none());
        let after = handle.rpc("a.b", Node::Any, &json!({}));
        assert_eq!(after.await.unwrap_err().errno, libc::ECONNRESET);
        let mut stream = handle.stream("a.c", Node::Any, &json!({}));
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().errno,
            libc::ECONNRESET
        );
    }

    #[tokio::test]
    async fn streams_end_with_enodata_and_untagged_responses_go_to_the_inbox() {
        let (tx, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
        let mut inbox = handle.inbox().unwrap();
        let mut stream = handle.stream("s.t", Node::Rank(3), &json!({}));
        let request = sent.recv().await.unwrap();
        deliver.deliver(request.response(0, None));
        deliver.deliver(request.error_response(&RpcError::errno(libc::ENODATA)));
        assert!(stream.next().await.unwrap().is_ok());
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none());
        handle.request_untagged("sched.alloc", &json!({})).unwrap();
        let request = sent.recv().await.unwrap();
        assert_eq!(request.matchtag(), 0);
        deliver.deliver(request.response(0, None));
        assert!(inbox.recv().await.unwrap().is_response());
    }
}
