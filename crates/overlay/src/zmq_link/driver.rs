//! The driver thread: sockets in, tree, sockets out.
//!
//! What a socket does not take at once waits in a queue per peer, in order; see
//! [`crate::backlog`] for its bounds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::ready::{Ready, Source};
use super::{Command, identity, session};
use crate::backlog::{Backlog, Queue};
use crate::frame::Frame;
use crate::keys::PublicKey;
use crate::transport::{Control, Incoming, Peer, Session};
use crate::tree::{Moment, Output, Tree};

/// Frames handled per socket before the others get their turn.
const TURN: usize = 256;
/// How often the tree looks at the time.
const TICK: Duration = Duration::from_millis(250);
/// How soon a full socket is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// When children are probed after a connection has broken: libzmq drops a peer a little later
/// than it says so.
const PROBES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(100),
];

pub(super) struct Sockets {
    pub(super) router: Option<zmq::Socket>,
    pub(super) dealer: Option<zmq::Socket>,
    pub(super) zap: zmq::Socket,
    pub(super) child_monitor: Option<zmq::Socket>,
    pub(super) parent_monitor: Option<zmq::Socket>,
    /// Last, for it waits for the sockets.
    pub(super) _context: zmq::Context,
}

pub(super) struct Driver<F> {
    sockets: Sockets,
    ready: Ready,
    tree: Tree,
    origin: Instant,
    /// Public keys of brokers that may connect, with the rank they belong to.
    keys: HashMap<[u8; 32], Option<u32>>,
    up: Queue<Vec<u8>>,
    down: HashMap<Session, Queue<Vec<u8>>>,
    /// Ranks of lives that were joined, for the backlog.
    ranks: HashMap<Session, u32>,
    backlog: Backlog,
    probes: Vec<Moment>,
    ticked: Moment,
    rx: Receiver<Command>,
    wake: Arc<EventFd>,
    pending: Arc<AtomicBool>,
    sink: F,
}

enum Sent {
    Done,
    Full,
    Gone,
}

impl<F: FnMut(Incoming)> Driver<F> {
    pub(super) fn new(
        (sockets, ready): (Sockets, Ready),
        tree: Tree,
        keys: HashMap<PublicKey, Option<u32>>,
        backlog: Backlog,
        rx: Receiver<Command>,
        (wake, pending): (Arc<EventFd>, Arc<AtomicBool>),
        sink: F,
    ) -> Self {
        Self {
            sockets,
            ready,
            tree,
            origin: Instant::now(),
            keys: keys.into_iter().map(|(key, rank)| (key.0, rank)).collect(),
            up: Queue::default(),
            down: HashMap::new(),
            ranks: HashMap::new(),
            backlog,
            probes: Vec::new(),
            ticked: Moment::ZERO,
            rx,
            wake,
            pending,
            sink,
        }
    }

    fn now(&self) -> Moment {
        self.origin.elapsed()
    }

    pub(super) fn run(mut self) {
        while self.ready.wait(self.patience()).is_ok() {
            self.authenticate();
            self.watch();
            let open = self.commands();
            self.flush();
            // After sending, which may take in the news of a socket.
            self.read_children();
            self.read_parent();
            // After reading: who has been heard is not taken for silent.
            self.pass_time();
            self.work();
            if !open {
                return;
            }
        }
    }

    /// Time until something is due.
    fn patience(&self) -> Duration {
        let now = self.now();
        let mut until = self.ticked + TICK;
        if let Some(probe) = self.probes.first() {
            until = until.min(*probe);
        }
        let full = |q: &Queue<_>| !q.is_empty();
        if full(&self.up) || self.down.values().any(full) {
            until = until.min(now + RETRY);
        }
        // More, for a rest of less than a millisecond would be no rest.
        until.saturating_sub(now) + Duration::from_millis(1)
    }

    fn pass_time(&mut self) {
        let now = self.now();
        if now >= self.ticked + TICK {
            self.ticked = now;
            self.tree.tick(now);
        }
        let due = self.probes.iter().take_while(|t| **t <= now).count();
        if due > 0 {
            self.probes.drain(..due);
            self.tree.probe(now);
        }
    }

    /// Answer ZAP requests: CURVE keys of brokers that may connect, and no others.
    fn authenticate(&mut self) {
        if !self.ready.take(Source::Authentication) {
            return;
        }
        while let Ok(parts) = self.sockets.zap.recv_multipart(zmq::DONTWAIT) {
            // version, request id, domain, address, identity, mechanism, credentials (RFC 27/ZAP)
            let key = match parts.as_slice() {
                [_, _, _, _, _, mechanism, key] if mechanism == b"CURVE" => {
                    let key = <[u8; 32]>::try_from(key.as_slice()).ok();
                    key.and_then(|k| self.keys.get(&k))
                }
                _ => None,
            };
            let id = parts.get(1).cloned().unwrap_or_default();
            let (code, text, user) = match key {
                Some(Some(rank)) => ("200", "OK", rank.to_string()),
                Some(None) => ("200", "OK", "any".to_owned()),
                None => ("400", "unknown key", String::new()),
            };
            let reply: [&[u8]; 6] = [
                b"1.0",
                &id,
                code.as_bytes(),
                text.as_bytes(),
                user.as_bytes(),
                b"",
            ];
            let _ = self.sockets.zap.send_multipart(reply, 0);
        }
    }

    /// What the socket monitors say.
    fn watch(&mut self) {
        let now = self.now();
        if self.ready.take(Source::ChildMonitor)
            && let Some(monitor) = &self.sockets.child_monitor
        {
            let mut broken = false;
            while monitor.recv_multipart(zmq::DONTWAIT).is_ok() {
                broken = true;
            }
            if broken {
                self.probes.extend(PROBES.map(|after| now + after));
                self.probes.sort_unstable();
                // Every break asks for the same; more at once are no use.
                self.probes.dedup_by(|b, a| *b < *a + PROBES[1] / 2);
            }
        }
        if !self.ready.take(Source::ParentMonitor) {
            return;
        }
        while let Some(monitor) = &self.sockets.parent_monitor {
            let Ok(parts) = monitor.recv_multipart(zmq::DONTWAIT) else {
                break;
            };
            let event = parts.first().and_then(|p| p.first_chunk::<2>());
            match event.map(|e| zmq::SocketEvent::from_raw(u16::from_ne_bytes(*e))) {
                Some(zmq::SocketEvent::HANDSHAKE_SUCCEEDED) => self.tree.parent_connected(now),
                Some(zmq::SocketEvent::DISCONNECTED) => {
                    // What arrived before comes first: it may be a farewell.
                    self.ready.mark(Source::Parent);
                    self.read_parent();
                    self.tree.parent_disconnected();
                }
                _ => {}
            }
            self.work();
        }
    }

    fn read_children(&mut self) {
        if !self.ready.take(Source::Children) {
            return;
        }
        for _ in 0..TURN {
            let Some(router) = &self.sockets.router else {
                return;
            };
            let Ok(from) = router.recv_msg(zmq::DONTWAIT) else {
                return;
            };
            let Ok(mut body) = router.recv_msg(zmq::DONTWAIT) else {
                return;
            };
            // Set by our ZAP handler: the rank this connection's key belongs to.
            let key_rank = body.gets("User-Id").and_then(|u| u.parse::<u32>().ok());
            if let Some(session) = session(&from) {
                // There is nobody to answer about bytes that are no frame.
                if let Ok(frame) = Frame::decode(&body) {
                    self.tree.from_child(self.now(), session, key_rank, frame);
                    self.work();
                }
            }
        }
        self.ready.mark(Source::Children);
    }

    fn read_parent(&mut self) {
        if !self.ready.take(Source::Parent) {
            return;
        }
        for _ in 0..TURN {
            let Some(dealer) = &self.sockets.dealer else {
                return;
            };
            let Ok(body) = dealer.recv_msg(zmq::DONTWAIT) else {
                return;
            };
            if let Ok(frame) = Frame::decode(&body) {
                self.tree.from_parent(self.now(), frame);
                self.work();
            }
        }
        self.ready.mark(Source::Parent);
    }

    /// Do what the broker has asked for; false when it has dropped its end.
    fn commands(&mut self) -> bool {
        if !self.ready.take(Source::Commands) {
            return true;
        }
        let _ = self.wake.read();
        // A swap, not a store: who finds it set before this must have its command seen below.
        self.pending.swap(false, Ordering::AcqRel);
        loop {
            let now = self.now();
            match self.rx.try_recv() {
                Ok(Command::Send(peer, session, msg, bytes)) => {
                    self.backlog.remove(peer, bytes);
                    self.tree.send(now, peer, session, msg);
                }
                Ok(Command::Control(control)) => {
                    let probe = matches!(control, Control::Limits(_));
                    self.tree.control(now, control);
                    if probe {
                        self.tree.probe(now);
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
            self.work();
        }
    }

    /// Do what the tree wants done.
    fn work(&mut self) {
        while let Some(output) = self.tree.poll() {
            match output {
                Output::ToParent(frame) => {
                    let bytes = frame.encode().to_vec();
                    self.send_up(bytes);
                }
                Output::ToChild(session, frame) => {
                    let bytes = frame.encode().to_vec();
                    self.send_down(session, bytes);
                }
                Output::Forget(session) => self.forget(session),
                Output::Report(incoming) => {
                    if let Incoming::Joined(Peer::Child(rank), session) = incoming {
                        self.ranks.insert(session, rank);
                    }
                    (self.sink)(incoming);
                }
            }
        }
    }

    fn forget(&mut self, session: Session) {
        let queue = self.down.remove(&session);
        if let (Some(queue), Some(rank)) = (queue, self.ranks.remove(&session)) {
            self.backlog.remove(Peer::Child(rank), queue.bytes());
        }
    }

    fn try_up(&self, bytes: &[u8]) -> Sent {
        match &self.sockets.dealer {
            Some(dealer) => match dealer.send(bytes, zmq::DONTWAIT) {
                Err(zmq::Error::EAGAIN) => Sent::Full,
                // The monitor tells of what else may happen to a connection.
                _ => Sent::Done,
            },
            None => Sent::Done,
        }
    }

    fn try_down(&self, session: Session, bytes: &[u8]) -> Sent {
        let Some(router) = &self.sockets.router else {
            return Sent::Done;
        };
        match router.send_multipart([&identity(session)[..], bytes], zmq::DONTWAIT) {
            Err(zmq::Error::EAGAIN) => Sent::Full,
            Err(zmq::Error::EHOSTUNREACH) => Sent::Gone,
            _ => Sent::Done,
        }
    }

    fn send_up(&mut self, bytes: Vec<u8>) {
        self.ready.mark(Source::Parent);
        if self.up.is_empty() && matches!(self.try_up(&bytes), Sent::Done) {
            return;
        }
        let size = bytes.len();
        self.backlog.add(Peer::Parent, size);
        self.up.push(bytes, size);
        let waiting = self.up.bytes();
        if waiting > self.backlog.bounds().hard {
            self.tree.parent_overrun(waiting);
        }
    }

    fn send_down(&mut self, session: Session, bytes: Vec<u8>) {
        self.ready.mark(Source::Children);
        if self.down.get(&session).is_none_or(Queue::is_empty) {
            match self.try_down(session, &bytes) {
                Sent::Done => return,
                Sent::Gone => return self.tree.child_disconnected(self.now(), session),
                Sent::Full => {}
            }
        }
        // Those who are not joined get no more than a verdict or a farewell.
        let Some(rank) = self.ranks.get(&session) else {
            return;
        };
        let size = bytes.len();
        self.backlog.add(Peer::Child(*rank), size);
        let queue = self.down.entry(session).or_default();
        queue.push(bytes, size);
        let waiting = queue.bytes();
        if waiting > self.backlog.bounds().hard {
            self.tree.child_overrun(self.now(), session, waiting);
        }
    }

    /// Offer what waits to the sockets again.
    fn flush(&mut self) {
        if !self.up.is_empty() {
            self.ready.mark(Source::Parent);
        }
        if !self.down.is_empty() {
            self.ready.mark(Source::Children);
        }
        while let Some(bytes) = self.up.front() {
            if matches!(self.try_up(bytes), Sent::Full) {
                break;
            }
            let size = self.up.pop().map_or(0, |(_, size)| size);
            self.backlog.remove(Peer::Parent, size);
        }
        let sessions: Vec<Session> = self.down.keys().copied().collect();
        for session in sessions {
            self.flush_down(session);
        }
    }

    fn flush_down(&mut self, session: Session) {
        while let Some(bytes) = self.down.get(&session).and_then(Queue::front) {
            match self.try_down(session, bytes) {
                Sent::Full => return,
                Sent::Gone => return self.tree.child_disconnected(self.now(), session),
                Sent::Done => {}
            }
            if let (Some(queue), Some(rank)) =
                (self.down.get_mut(&session), self.ranks.get(&session))
                && let Some((_, size)) = queue.pop()
            {
                self.backlog.remove(Peer::Child(*rank), size);
            }
        }
        self.down.remove(&session);
    }
}
