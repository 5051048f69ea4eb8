//! [`Handle`]: one end of a message channel with calls that wait, events, services and an inbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use wire::{Credentials, Flags, MAX_MESSAGE, Message, NODEID_ANY, NODEID_UPSTREAM, RpcError};
use wire::{Subscriptions, json_payload};

use crate::call::{Answer, Answers, Call, StreamCall};
use crate::events::Queue;
use crate::module::Meter;
use crate::rpc::{Rpc, RpcStream};
use crate::services::attr::GetAttr;
use crate::tags::{Tag, Tags, Waiter};

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

/// Whether a handle's connection is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Calls reach the broker. The number counts connections from 0.
    Connected(u32),
    /// The connection is lost and being made again; calls fail with ECONNRESET meanwhile.
    Lost,
    /// The connection is gone for good.
    Closed,
}

/// Takes a message towards the instance; false when the connection is gone.
type Sink = Box<dyn Fn(Message) -> bool + Send + Sync>;

/// The subscriber that stands for the inbox.
pub(crate) const INBOX: u64 = 0;

/// Who in this program gets events and requests.
#[derive(Default)]
pub(crate) struct Receivers {
    pub(crate) subscriptions: Subscriptions<u64>,
    pub(crate) queues: HashMap<u64, Queue>,
    pub(crate) services: HashMap<String, UnboundedSender<Message>>,
    pub(crate) last_key: u64,
}

/// What a program wants of its messages (see [`OpenOptions`](crate::OpenOptions)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Habits {
    /// Credentials to put on what is sent; those left unknown are for the connector to fill in.
    pub(crate) claim: Credentials,
    /// Show messages on standard error.
    pub(crate) trace: bool,
}

/// Its drop tells that nobody uses the handle any more.
pub(crate) struct InUse(#[expect(dead_code, reason = "held for its drop")] oneshot::Sender<()>);

pub(crate) struct Inner {
    out: Sink,
    /// `None` without a connection: nothing can be waited for.
    tags: Mutex<Option<Tags>>,
    pub(crate) receivers: Mutex<Receivers>,
    inbox_tx: Mutex<Option<UnboundedSender<Queued>>>,
    inbox_rx: Mutex<Option<UnboundedReceiver<Queued>>>,
    /// Set if the handle is a module's.
    meter: OnceLock<Arc<Meter>>,
    place: OnceLock<(u32, u32)>,
    habits: Habits,
    start: Instant,
    status: watch::Sender<Status>,
}

/// A connection to an instance. Clones share it; it ends when the last is dropped.
///
/// ```no_run
/// use client::{Handle, Node};
/// use serde_json::{Value, json};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let handle = Handle::open(None).await?;
/// println!("rank {} of {}", handle.getattr("rank").await?, handle.getattr("size").await?);
/// let root: Value = handle.call("kvs.getroot", Node::Any, &json!({"namespace": "primary"})).await?;
/// println!("root is {}", root["rootref"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Inner>, Arc<InUse>);

/// The receiving side of a handle: whatever carries messages gives them here.
pub struct Deliver {
    inner: Arc<Inner>,
    in_use: Weak<InUse>,
    unused: Mutex<futures::future::Fuse<oneshot::Receiver<()>>>,
}

/// Something kept for as long as a message waits in an inbox: what its sender may have under way.
pub type Hold = Arc<dyn std::any::Any + Send + Sync>;

type Queued = (Message, Option<Hold>);

/// Requests and events that arrive at a handle and are for nobody else in the program.
pub struct Inbox {
    rx: UnboundedReceiver<Queued>,
    meter: Option<Arc<Meter>>,
    started: bool,
    /// Whoever waits here uses the handle.
    _in_use: Arc<InUse>,
}

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section here is a few map operations, so a poisoned lock holds sound data.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// The next request or event; `None` once the handle's other end is gone.
    ///
    /// A module that gets here for the first time has started, and its loader is told.
    pub async fn recv(&mut self) -> Option<Message> {
        if !self.started {
            self.started = true;
            if let Some(meter) = &self.meter {
                meter.set_running();
            }
        }
        let queued = self.rx.recv().await?;
        Some(self.take(queued))
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<Message> {
        let queued = self.rx.try_recv().ok()?;
        Some(self.take(queued))
    }

    fn take(&self, (msg, _hold): Queued) -> Message {
        if let Some(meter) = &self.meter {
            meter.taken();
        }
        msg
    }
}

impl Inner {
    fn trace(&self, msg: &Message) {
        if self.habits.trace {
            eprint!("{}", msg.dump(self.start.elapsed().as_secs_f64()));
        }
    }

    /// Send; false if the connection is gone.
    fn emit(&self, mut msg: Message) -> bool {
        let Habits { claim, .. } = self.habits;
        if claim != Credentials::UNKNOWN {
            msg.set_credentials(claim);
        }
        self.trace(&msg);
        (self.out)(msg)
    }

    fn to_inbox(&self, msg: Message, hold: Option<Hold>) {
        let meter = self.meter.get();
        let unread = match &*lock(&self.inbox_tx) {
            Some(tx) => {
                // Counted first: the reader may have it before this returns.
                meter.inspect(|m| m.queued());
                tx.send((msg, hold)).err().inspect(|_| {
                    meter.inspect(|m| m.taken());
                })
            }
            None => Some(tokio::sync::mpsc::error::SendError((msg, hold))),
        };
        // Nobody reads requests here any more.
        if let Some(tokio::sync::mpsc::error::SendError((msg, _))) = unread
            && msg.is_request()
            && !msg.no_response()
        {
            self.emit(msg.error_response(&RpcError::errno(libc::ENOSYS)));
        }
    }

    fn event(&self, msg: Message, hold: Option<Hold>) {
        let receivers = lock(&self.receivers);
        let keys = receivers.subscriptions.subscribers(msg.topic());
        // What no one here asked for by a subscription is for the inbox, too.
        let inbox = keys.is_empty() || keys.contains(&INBOX);
        for key in keys {
            if let Some(queue) = receivers.queues.get(&key) {
                queue.push(msg.clone());
            }
        }
        drop(receivers);
        if inbox {
            self.to_inbox(msg, hold);
        }
    }
}

impl Deliver {
    /// Hand a message to the call, stream of events or service that it is for, or to the inbox.
    ///
    /// A response nobody waits for any more is dropped.
    pub fn deliver(&self, msg: Message) {
        self.deliver_held(msg, None);
    }

    /// As [`Deliver::deliver`]; `hold` is dropped when the message leaves the inbox.
    pub fn deliver_held(&self, msg: Message, hold: Option<Hold>) {
        let inner = &*self.inner;
        inner.trace(&msg);
        if msg.is_response() && msg.matchtag() != 0 {
            if let Some(tags) = lock(&inner.tags).as_mut() {
                tags.deliver(msg);
            }
        } else if msg.is_event() {
            inner.event(msg, hold);
        } else if msg.is_request() {
            let service = lock(&inner.receivers).services.get(msg.service()).cloned();
            match service {
                Some(tx) => {
                    if let Err(e) = tx.send(msg) {
                        inner.to_inbox(e.0, hold);
                    }
                }
                None => inner.to_inbox(msg, hold),
            }
        } else {
            // Responses without matchtag are matched by their payload (RFC 27, 32), by whoever asked.
            inner.to_inbox(msg, hold);
        }
    }

    /// The connection is lost: fail everything that waits, and what follows, until it is made again.
    pub(crate) fn suspend(&self) {
        lock(&self.inner.tags).take();
        self.inner.status.send_replace(Status::Lost);
    }

    /// There is a connection again, with a broker that knows nothing of former calls.
    pub(crate) fn resume(&self) {
        *lock(&self.inner.tags) = Some(Tags::default());
    }

    /// A handle for the owner of the connection itself, if anybody else has one.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let in_use = self.in_use.upgrade()?;
        Some(Handle(self.inner.clone(), in_use))
    }

    /// Wait until nobody has the handle any more.
    pub(crate) async fn unused(&self) {
        // Never sent to: it ends when the sender is dropped.
        std::future::poll_fn(|cx| lock(&self.unused).poll_unpin(cx).map(drop)).await;
    }

    /// End the inbox, events and services, and fail everything pending, and all that follows, with ECONNRESET.
    pub fn close(&self) {
        self.close_inbox();
        lock(&self.inner.tags).take();
        let mut receivers = lock(&self.inner.receivers);
        receivers.queues.clear();
        receivers.services.clear();
        drop(receivers);
        self.inner.status.send_replace(Status::Closed);
    }

    /// End the inbox only, as a request to shut down; calls still work.
    pub fn close_inbox(&self) {
        lock(&self.inner.inbox_tx).take();
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
        Self::with_habits(out, Habits::default())
    }

    pub(crate) fn with_habits(
        out: impl Fn(Message) -> bool + Send + Sync + 'static,
        habits: Habits,
    ) -> (Self, Deliver) {
        let (inbox_tx, inbox_rx) = unbounded_channel();
        let inner = Arc::new(Inner {
            out: Box::new(out),
            tags: Mutex::new(Some(Tags::default())),
            receivers: Mutex::default(),
            inbox_tx: Mutex::new(Some(inbox_tx)),
            inbox_rx: Mutex::new(Some(inbox_rx)),
            meter: OnceLock::new(),
            place: OnceLock::new(),
            habits,
            start: Instant::now(),
            status: watch::Sender::new(Status::Connected(0)),
        });
        let (alive, unused) = oneshot::channel();
        let in_use = Arc::new(InUse(alive));
        let deliver = Deliver {
            inner: inner.clone(),
            in_use: Arc::downgrade(&in_use),
            unused: Mutex::new(unused.fuse()),
        };
        (Self(inner, in_use), deliver)
    }

    /// The inbox; whoever asks first gets it.
    pub fn inbox(&self) -> Option<Inbox> {
        let rx = lock(&self.0.inbox_rx).take()?;
        let _in_use = self.1.clone();
        Some(Inbox {
            rx,
            meter: self.0.meter.get().cloned(),
            started: false,
            _in_use,
        })
    }

    /// Make this the handle of a module, before its inbox is asked for.
    pub fn set_meter(&self, meter: Arc<Meter>) {
        let _ = self.0.meter.set(meter);
    }

    /// The module's debug flags (`flux module debug`); 0 for a handle that is not a module's.
    pub fn debug_flags(&self) -> u32 {
        self.0.meter.get().map_or(0, |m| m.debug_flags())
    }

    pub(crate) fn set_status(&self, status: Status) {
        self.0.status.send_replace(status);
    }

    /// Follows what happens to the connection.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
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
    ///
    /// Errors: EMSGSIZE if it is longer than a message may be, ECONNRESET without a connection.
    pub fn send(&self, msg: Message) -> Result<(), RpcError> {
        check_size(&msg)?;
        match self.0.emit(msg) {
            true => Ok(()),
            false => Err(RpcError::errno(libc::ECONNRESET)),
        }
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

    pub(crate) fn retire(&self, tag: Tag) {
        if let Some(tags) = lock(&self.0.tags).as_mut() {
            tags.retire(tag);
        }
    }

    /// Send a request about the call that has `tag`, unless that has ended: the tag may be another call's by now.
    pub(crate) fn notify_about(&self, tag: Tag, topic: &str, node: Node) {
        let payload = json_payload(&serde_json::json!({ "matchtag": tag.number })).ok();
        let msg = self.make_request(topic, node, Flags::NORESPONSE, 0, payload);
        // Sent under the lock: no later call can have the tag and its request be sent before this.
        if let Some(tags) = lock(&self.0.tags).as_ref()
            && tags.is_open(tag)
        {
            self.0.emit(msg);
        }
    }

    /// Give the call a tag and send its request.
    fn start(&self, mut msg: Message, waiter: Waiter) -> Result<Tag, RpcError> {
        check_size(&msg)?;
        let lost = || RpcError::errno(libc::ECONNRESET);
        let tag = match lock(&self.0.tags).as_mut() {
            Some(tags) => tags.allocate(waiter).ok_or_else(|| {
                RpcError::new(
                    libc::EBUSY,
                    "too many calls are waiting for their responses",
                )
            })?,
            None => return Err(lost()),
        };
        msg.set_matchtag(tag.number);
        if self.0.emit(msg) {
            return Ok(tag);
        }
        if let Some(tags) = lock(&self.0.tags).as_mut() {
            tags.release(tag);
        }
        Err(lost())
    }

    /// Start a call with a raw payload.
    pub fn rpc_raw(&self, topic: &str, node: Node, payload: Option<Bytes>) -> Rpc {
        let (tx, rx) = oneshot::channel();
        let msg = self.make_request(topic, node, 0, 0, payload);
        match self.start(msg, Waiter::One(tx)) {
            Ok(tag) => Rpc::new(self.clone(), tag, rx),
            Err(e) => Rpc::failed(self.clone(), e),
        }
    }

    /// Start a call with a JSON object payload. It is sent at once, before the first poll.
    pub fn rpc(&self, topic: &str, node: Node, payload: &(impl Serialize + ?Sized)) -> Rpc {
        match json_payload(payload) {
            Ok(bytes) => self.rpc_raw(topic, node, Some(bytes)),
            Err(e) => Rpc::failed(self.clone(), unencodable(topic, &e)),
        }
    }

    /// Call and decode the JSON answer.
    pub async fn call<T: DeserializeOwned>(
        &self,
        topic: &str,
        node: Node,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<T, RpcError> {
        self.rpc(topic, node, payload).await?.json()
    }

    /// Start a call whose type says where it goes and what comes back (see [`Call`]).
    pub fn ask<C: Call>(&self, node: Node, call: &C) -> Answer<C::Answer> {
        Answer::new(self.rpc(C::TOPIC, node, call))
    }

    /// Start a streaming call.
    pub fn stream(
        &self,
        topic: &str,
        node: Node,
        payload: &(impl Serialize + ?Sized),
    ) -> RpcStream {
        let (tx, rx) = unbounded_channel();
        let started = json_payload(payload)
            .map_err(|e| unencodable(topic, &e))
            .and_then(|bytes| {
                let msg = self.make_request(topic, node, Flags::STREAMING, 0, Some(bytes));
                self.start(msg, Waiter::Many(tx))
            });
        RpcStream::new(self.clone(), node, started, rx)
    }

    /// Start a streaming call whose type says where it goes and what comes back (see [`StreamCall`]).
    pub fn follow<C: StreamCall>(&self, node: Node, call: &C) -> Answers<C::Item> {
        Answers::new(self.stream(C::TOPIC, node, call))
    }

    /// Send a request without matchtag: its responses arrive in the inbox (RFC 27, 32).
    pub fn request_untagged(
        &self,
        topic: &str,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<(), RpcError> {
        let bytes = json_payload(payload)?;
        self.send(self.make_request(topic, Node::Any, 0, 0, Some(bytes)))
    }

    /// Send a request that wants no response. Without a connection nothing happens.
    pub fn notify(&self, topic: &str, node: Node, payload: &(impl Serialize + ?Sized)) {
        // Payloads of notifications are our own plain structs; JSON encoding them cannot fail.
        let bytes = json_payload(payload).expect("plain data encodes as JSON");
        self.notify_raw(topic, node, Some(bytes));
    }

    /// As [`Handle::notify`], with raw bytes.
    pub fn notify_raw(&self, topic: &str, node: Node, payload: Option<Bytes>) {
        // Nobody is told what becomes of it, as the caller wants.
        let _ = self.send(self.make_request(topic, node, Flags::NORESPONSE, 0, payload));
    }

    /// Answer `req` with a JSON object.
    pub fn respond(&self, req: &Message, payload: &(impl Serialize + ?Sized)) {
        match json_payload(payload) {
            Ok(bytes) => self.respond_raw(req, Some(bytes)),
            Err(e) => self.respond_error(req, &RpcError::proto(format!("response: {e}"))),
        }
    }

    /// Answer `req` without payload.
    pub fn respond_ok(&self, req: &Message) {
        self.respond_raw(req, None);
    }

    /// Answer `req` with raw bytes, or with EMSGSIZE if they are more than a message can hold.
    pub fn respond_raw(&self, req: &Message, payload: Option<Bytes>) {
        if req.no_response() {
            return;
        }
        let msg = req.response(0, payload);
        match check_size(&msg) {
            // Without a connection there is nobody to tell.
            Ok(()) => drop(self.0.emit(msg)),
            Err(e) => self.respond_error(req, &e),
        }
    }

    /// Answer `req` with an error.
    ///
    /// To ENOSYS for a method every module has, a module's handle answers instead.
    pub fn respond_error(&self, req: &Message, err: &RpcError) {
        if err.errno == libc::ENOSYS
            && let Some(answer) = self.0.meter.get().and_then(|m| m.answer(req))
        {
            match answer {
                Ok(serde_json::Value::Null) => self.respond_ok(req),
                Ok(value) => self.respond(req, &value),
                // None of the methods says ENOSYS itself.
                Err(e) => drop(self.0.emit(req.error_response(&e))),
            }
            return;
        }
        if !req.no_response() {
            self.0.emit(req.error_response(err));
        }
    }

    /// Answer `req` with what came out of handling it.
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

    /// Value of a broker attribute.
    pub async fn getattr(&self, name: &str) -> Result<String, RpcError> {
        Ok(self.ask(Node::Any, &GetAttr { name }).await?.value)
    }
}

fn unencodable(topic: &str, e: &serde_json::Error) -> RpcError {
    RpcError::proto(format!("{topic}: request: {e}"))
}

fn check_size(msg: &Message) -> Result<(), RpcError> {
    // Hops are added on the way; they have to fit too.
    const ROOM: usize = 64 * 1024;
    match msg.payload() {
        Some(payload) if payload.len() > MAX_MESSAGE - ROOM => {
            let text = format!("{}: {} bytes are too many", msg.topic(), payload.len());
            Err(RpcError::new(libc::EMSGSIZE, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
