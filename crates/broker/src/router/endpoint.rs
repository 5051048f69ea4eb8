//! What the router knows of one endpoint: a module, the broker's own task, or a connection.
//!
//! Invariant: a request handed to a module or to a program that serves is remembered until it is answered, so that
//! the router can answer it with EHOSTUNREACH when the endpoint goes away.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use client::module::Meter;
use client::{Deliver, Hold};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::{Credentials, Message, Text};

/// Bytes a message stands for in limits: its payload and something for the rest.
pub(crate) fn weight(msg: &Message) -> usize {
    msg.payload().map_or(0, bytes::Bytes::len) + 256
}

/// What may be asked about a module without asking the router.
#[derive(Debug)]
pub(crate) struct ModuleCard {
    pub(crate) meter: Arc<Meter>,
    services: Mutex<BTreeSet<String>>,
}

impl ModuleCard {
    pub(crate) fn new(name: &str, services: &[String]) -> Arc<Self> {
        Arc::new(Self {
            meter: Arc::new(Meter::new(name)),
            services: Mutex::new(services.iter().cloned().collect()),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // A set of names is sound whatever happened to who changed it.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Services that lead to the module, sorted.
    pub(crate) fn services(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    pub(super) fn add_service(&self, name: &str) {
        self.lock().insert(name.to_owned());
    }

    pub(super) fn remove_service(&self, name: &str) {
        self.lock().remove(name);
    }
}

/// The queue of messages to a program.
#[derive(Clone)]
pub(crate) struct ClientQueue {
    tx: UnboundedSender<(Message, Option<Hold>)>,
    unread: Arc<AtomicUsize>,
    limit: usize,
    /// Something was dropped.
    overrun: Arc<AtomicBool>,
    overflow: Arc<Notify>,
}

/// The other end of a [`ClientQueue`].
pub(crate) struct ClientMessages {
    rx: UnboundedReceiver<(Message, Option<Hold>)>,
    unread: Arc<AtomicUsize>,
}

impl ClientQueue {
    /// A queue for a program that may leave `limit` bytes unread.
    pub(crate) fn new(limit: usize) -> (Self, ClientMessages) {
        let (tx, rx) = unbounded_channel();
        let unread = Arc::new(AtomicUsize::new(0));
        let messages = ClientMessages {
            rx,
            unread: unread.clone(),
        };
        let overflow = Arc::default();
        (
            Self {
                tx,
                unread,
                limit,
                overrun: Arc::default(),
                overflow,
            },
            messages,
        )
    }

    /// Queue a message; false once the program reads too slowly to be kept.
    pub(super) fn push(&self, msg: Message, hold: Option<Hold>) {
        let weight = weight(&msg);
        if self.unread.fetch_add(weight, Ordering::Relaxed) + weight > self.limit {
            self.overrun.store(true, Ordering::Relaxed);
            self.overflow.notify_one();
            return;
        }
        // A closed queue means the connection is about to be detached.
        let _ = self.tx.send((msg, hold));
    }

    /// Bytes that wait.
    pub(crate) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether it has been too much.
    pub(super) fn is_overrun(&self) -> bool {
        self.overrun.load(Ordering::Relaxed)
    }

    /// Wait until the program has fallen too far behind.
    pub(crate) async fn overflow(&self) {
        self.overflow.notified().await;
    }
}

impl ClientMessages {
    /// Take what waits, up to `limit`; false once there will be no more.
    pub(crate) async fn take(
        &mut self,
        batch: &mut Vec<(Message, Option<Hold>)>,
        limit: usize,
    ) -> bool {
        self.rx.recv_many(batch, limit).await > 0
    }

    /// The next message, if one waits.
    pub(crate) fn try_take(&mut self) -> Option<Message> {
        let (msg, _) = self.rx.try_recv().ok()?;
        self.written(weight(&msg));
        Some(msg)
    }

    /// These were written.
    pub(crate) fn written(&self, bytes: usize) {
        self.unread.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where messages for an endpoint go.
pub(crate) enum Sink {
    /// A handle in this process.
    Module(Deliver),
    /// A connection's writer.
    Client(ClientQueue),
}

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) sink: Sink,
    pub(super) cred: Credentials,
    /// Disconnect notices owed, by service topic and destination.
    pub(super) notices: HashMap<(String, u32, bool), Message>,
    pub(super) card: Option<Arc<ModuleCard>>,
    /// It takes no more requests.
    pub(super) muted: bool,
    deferred: Option<Vec<Message>>,
    /// Requests it has not answered, by sender and matchtag.
    unanswered: HashMap<Text, HashMap<u32, Message>>,
}

impl Endpoint {
    pub(super) fn new(sink: Sink, cred: Credentials, card: Option<Arc<ModuleCard>>) -> Self {
        Self {
            sink,
            cred,
            notices: HashMap::new(),
            card,
            muted: false,
            deferred: None,
            unanswered: HashMap::new(),
        }
    }

    /// Whether it is part of the broker: a module, or the broker's own task.
    pub(super) fn is_module(&self) -> bool {
        self.card.is_some() || self.is_core()
    }

    /// Whether it is the broker's own task.
    pub(super) fn is_core(&self) -> bool {
        self.card.is_none() && matches!(self.sink, Sink::Module(_))
    }

    /// Hand it a message; `false` if that is kept back.
    pub(super) fn deliver(&mut self, msg: Message, hold: Option<Hold>) -> bool {
        if let Some(kept) = &mut self.deferred {
            kept.push(msg);
            return false;
        }
        self.note(&msg);
        if let Some(card) = &self.card {
            card.meter.note_received(&msg);
        }
        match &self.sink {
            Sink::Module(deliver) => deliver.deliver_held(msg, hold),
            Sink::Client(queue) => queue.push(msg, hold),
        }
        true
    }

    /// Remember a request, forget those of a sender that is gone.
    fn note(&mut self, msg: &Message) {
        if self.is_core() || !msg.is_request() {
            return;
        }
        let Some(sender) = msg.sender() else { return };
        if !msg.no_response() {
            let tags = self.unanswered.entry(sender.clone()).or_default();
            tags.insert(msg.matchtag(), msg.clone());
        } else if msg.method() == "disconnect" {
            self.unanswered.remove(sender);
        }
    }

    /// It has sent this response.
    pub(super) fn answered(&mut self, msg: &Message) {
        if !msg.is_final() {
            return;
        }
        let Some(sender) = msg.sender() else { return };
        if let Some(tags) = self.unanswered.get_mut(sender) {
            tags.remove(&msg.matchtag());
            if tags.is_empty() {
                self.unanswered.remove(sender);
            }
        }
    }

    /// Keep messages back, or stop doing so; what was kept is the caller's to deliver.
    pub(super) fn defer(&mut self, on: bool) -> Vec<Message> {
        match on {
            true => {
                self.deferred.get_or_insert_default();
                Vec::new()
            }
            false => self.deferred.take().unwrap_or_default(),
        }
    }

    /// What it leaves behind: requests without answer.
    pub(super) fn abandoned(&mut self) -> Vec<Message> {
        let kept = self.defer(false).into_iter();
        let kept = kept.filter(|msg| msg.is_request() && !msg.no_response());
        let noted = std::mem::take(&mut self.unanswered);
        let noted = noted.into_values().flat_map(HashMap::into_values);
        kept.chain(noted).collect()
    }
}
