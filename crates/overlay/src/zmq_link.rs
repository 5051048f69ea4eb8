//! ZeroMQ driver: one thread that owns the sockets (they are not thread-safe).
//!
//! The broker binds a ROUTER for its children and connects a DEALER to its parent; both use CURVE
//! whatever the address family. A ZAP handler in the same thread admits exactly the public keys
//! announced for this broker's children. A frame is one byte of type, then its body.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::{BufMut, Bytes, BytesMut};
use nix::sys::eventfd::{EfdFlags, EventFd};
use wire::Message;

use crate::handshake::{Hello, Verdict, judge};
use crate::keys::{KeyPair, PublicKey};
use crate::transport::{Incoming, Peer, Transport};

const ZAP_ENDPOINT: &str = "inproc://zeromq.zap.01";
/// Frames handled per socket before the others get their turn.
const TURN: usize = 256;

const FRAME_MESSAGE: u8 = b'M';
const FRAME_HELLO: u8 = b'H';
const FRAME_VERDICT: u8 = b'V';
const FRAME_GOODBYE: u8 = b'G';

/// Setting up the overlay failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A socket operation failed.
    #[error("overlay: cannot {what}: {source}")]
    Socket {
        /// What was tried.
        what: String,
        /// What libzmq said.
        source: zmq::Error,
    },
    /// A system call failed.
    #[error("overlay: {0}")]
    Io(#[from] std::io::Error),
}

fn failed(what: impl Into<String>) -> impl FnOnce(zmq::Error) -> LinkError {
    let what = what.into();
    move |source| LinkError::Socket { what, source }
}

/// Where and who the parent is.
#[derive(Debug, Clone)]
pub struct ParentAddress {
    /// ZeroMQ endpoint.
    pub uri: String,
    /// The parent's public key.
    pub key: PublicKey,
}

/// A broker's place in the tree before the peers are known.
pub struct Bound {
    context: zmq::Context,
    keys: KeyPair,
    router: Option<(zmq::Socket, String)>,
    zap: zmq::Socket,
}

impl Bound {
    /// Listen for children on `endpoint` (`ipc://PATH` or `tcp://ADDRESS:*`), or not at all.
    pub fn new(keys: KeyPair, endpoint: Option<&str>) -> Result<Self, LinkError> {
        let context = zmq::Context::new();
        let zap = context.socket(zmq::REP).map_err(failed("make a socket"))?;
        zap.bind(ZAP_ENDPOINT)
            .map_err(failed("bind the authenticator"))?;
        let router = match endpoint {
            Some(endpoint) => Some(Self::listen(&context, &keys, endpoint)?),
            None => None,
        };
        Ok(Self {
            context,
            keys,
            router,
            zap,
        })
    }

    fn listen(
        context: &zmq::Context,
        keys: &KeyPair,
        endpoint: &str,
    ) -> Result<(zmq::Socket, String), LinkError> {
        let what = || format!("listen on {endpoint}");
        let make = || -> zmq::Result<(zmq::Socket, String)> {
            let socket = context.socket(zmq::ROUTER)?;
            socket.set_router_mandatory(true)?;
            socket.set_linger(1000)?;
            socket.set_sndhwm(0)?;
            socket.set_rcvhwm(0)?;
            socket.set_curve_server(true)?;
            socket.set_curve_secretkey(&keys.secret)?;
            socket.set_zap_domain("flux")?;
            socket.bind(endpoint)?;
            // The wildcard port is only known now.
            let bound = socket
                .get_last_endpoint()?
                .unwrap_or_else(|_| endpoint.to_owned());
            Ok((socket, bound))
        };
        make().map_err(failed(what()))
    }

    /// The endpoint children connect to.
    pub fn endpoint(&self) -> Option<&str> {
        self.router.as_ref().map(|(_, endpoint)| endpoint.as_str())
    }

    /// Public half of this broker's keys.
    pub fn public_key(&self) -> &PublicKey {
        &self.keys.public
    }

    /// Connect to `parent`, admit `children` by their keys, and start the driver thread.
    ///
    /// `sink` is called on that thread with everything that arrives.
    pub fn start(
        self,
        hello: Hello,
        parent: Option<ParentAddress>,
        children: HashMap<u32, PublicKey>,
        sink: impl FnMut(Incoming) + Send + 'static,
    ) -> Result<ZmqLink, LinkError> {
        let dealer = match &parent {
            Some(parent) => Some(self.connect(&hello, parent)?),
            None => None,
        };
        let wake = Arc::new(
            EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
                .map_err(std::io::Error::from)?,
        );
        let pending = Arc::new(AtomicBool::new(false));
        let (tx, rx) = channel();
        let driver = Driver {
            _context: self.context,
            router: self.router.map(|(socket, _)| socket),
            dealer,
            zap: self.zap,
            ranks: children.iter().map(|(rank, key)| (key.0, *rank)).collect(),
            children: children.keys().copied().collect(),
            admitted: HashSet::new(),
            hello,
            rx,
            wake: wake.clone(),
            pending: pending.clone(),
            sink,
        };
        let thread = std::thread::Builder::new()
            .name("overlay".into())
            .spawn(move || driver.run())?;
        Ok(ZmqLink {
            tx: Some(tx),
            wake,
            pending,
            thread: Some(thread),
        })
    }

    fn connect(&self, hello: &Hello, parent: &ParentAddress) -> Result<zmq::Socket, LinkError> {
        let make = || -> zmq::Result<zmq::Socket> {
            let socket = self.context.socket(zmq::DEALER)?;
            socket.set_identity(hello.rank.to_string().as_bytes())?;
            socket.set_linger(1000)?;
            socket.set_sndhwm(0)?;
            socket.set_rcvhwm(0)?;
            socket.set_curve_serverkey(&parent.key.0)?;
            socket.set_curve_publickey(&self.keys.public.0)?;
            socket.set_curve_secretkey(&self.keys.secret)?;
            socket.set_reconnect_ivl(20)?;
            socket.connect(&parent.uri)?;
            Ok(socket)
        };
        make().map_err(failed(format!("connect to {}", parent.uri)))
    }
}

enum Command {
    Send(Peer, Message),
    Goodbye(Peer),
}

/// The running driver. Dropping it sends what is queued, then closes the sockets.
pub struct ZmqLink {
    tx: Option<Sender<Command>>,
    wake: Arc<EventFd>,
    pending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ZmqLink {
    fn command(&self, command: Command) {
        let Some(tx) = &self.tx else { return };
        // The driver only ends after `tx` is dropped, so the send cannot fail while it is here.
        let _ = tx.send(command);
        self.wake();
    }

    fn wake(&self) {
        // One write wakes the thread for all commands queued before it looks.
        if !self.pending.swap(true, Ordering::AcqRel) {
            let _ = self.wake.write(1);
        }
    }
}

impl Transport for ZmqLink {
    fn send(&self, peer: Peer, msg: Message) {
        self.command(Command::Send(peer, msg));
    }

    fn goodbye(&self, peer: Peer) {
        self.command(Command::Goodbye(peer));
    }
}

impl Drop for ZmqLink {
    fn drop(&mut self) {
        self.tx.take();
        self.pending.store(false, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Driver<F> {
    _context: zmq::Context,
    router: Option<zmq::Socket>,
    dealer: Option<zmq::Socket>,
    zap: zmq::Socket,
    ranks: HashMap<[u8; 32], u32>,
    children: Vec<u32>,
    admitted: HashSet<u32>,
    hello: Hello,
    rx: Receiver<Command>,
    wake: Arc<EventFd>,
    pending: Arc<AtomicBool>,
    sink: F,
}

fn frame(kind: u8, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut buf = BytesMut::with_capacity(256);
    buf.put_u8(kind);
    body(&mut buf);
    buf
}

fn json_frame(kind: u8, value: &impl serde::Serialize) -> BytesMut {
    // Hello and Verdict are plain data of ours.
    let body = serde_json::to_vec(value).expect("plain data encodes as JSON");
    frame(kind, |buf| buf.put_slice(&body))
}

impl<F: FnMut(Incoming)> Driver<F> {
    fn run(mut self) {
        if let Some(dealer) = &self.dealer {
            // Queued by libzmq until the connection is up.
            let _ = dealer.send(&json_frame(FRAME_HELLO, &self.hello)[..], 0);
        }
        let wake_fd = self.wake.as_raw_fd();
        loop {
            let mut items = vec![zmq::PollItem::from_fd(wake_fd, zmq::POLLIN)];
            items.push(self.zap.as_poll_item(zmq::POLLIN));
            items.extend(self.router.iter().map(|s| s.as_poll_item(zmq::POLLIN)));
            items.extend(self.dealer.iter().map(|s| s.as_poll_item(zmq::POLLIN)));
            match zmq::poll(&mut items, -1) {
                Ok(_) | Err(zmq::Error::EINTR) => {}
                Err(_) => return,
            }
            drop(items);
            self.authenticate();
            self.read_children();
            self.read_parent();
            if !self.write() {
                return;
            }
        }
    }

    /// Answer ZAP requests: CURVE keys of our children only.
    fn authenticate(&mut self) {
        while let Ok(parts) = self.zap.recv_multipart(zmq::DONTWAIT) {
            // version, request id, domain, address, identity, mechanism, credentials (RFC 27/ZAP)
            let rank = match parts.as_slice() {
                [_, _, _, _, _, mechanism, key] if mechanism == b"CURVE" => {
                    <[u8; 32]>::try_from(key.as_slice())
                        .ok()
                        .and_then(|k| self.ranks.get(&k))
                }
                _ => None,
            };
            let id = parts.get(1).cloned().unwrap_or_default();
            let (code, text, user) = match rank {
                Some(rank) => ("200", "OK", rank.to_string()),
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
            let _ = self.zap.send_multipart(reply, 0);
        }
    }

    fn read_children(&mut self) {
        for _ in 0..TURN {
            let Some(router) = &self.router else { return };
            let Ok(identity) = router.recv_msg(zmq::DONTWAIT) else {
                return;
            };
            let Ok(mut body) = router.recv_msg(zmq::DONTWAIT) else {
                return;
            };
            // Set by our ZAP handler: the rank this connection's key belongs to.
            let user = body.gets("User-Id").and_then(|u| u.parse::<u32>().ok());
            let claimed = std::str::from_utf8(&identity)
                .ok()
                .and_then(|s| s.parse::<u32>().ok());
            let Some(rank) = user.filter(|r| claimed == Some(*r)) else {
                continue;
            };
            self.child_frame(rank, &body);
        }
        // More may be waiting; poll reports level-triggered readiness for it.
    }

    fn child_frame(&mut self, rank: u32, body: &[u8]) {
        let peer = Peer::Child(rank);
        match body.split_first() {
            Some((&FRAME_HELLO, rest)) => {
                let verdict = match serde_json::from_slice::<Hello>(rest) {
                    Ok(hello) => judge(&hello, rank, &self.children, self.hello.size),
                    Err(e) => Verdict::Refused(format!("malformed hello: {e}")),
                };
                self.send_child(rank, &json_frame(FRAME_VERDICT, &verdict));
                if verdict == Verdict::Welcome {
                    self.admitted.insert(rank);
                    (self.sink)(Incoming::Joined(peer));
                }
            }
            Some((&FRAME_MESSAGE, rest)) if self.admitted.contains(&rank) => {
                // Undecodable bytes of an admitted peer are dropped: there is nobody to answer.
                if let Ok(msg) = Message::decode(&Bytes::copy_from_slice(rest)) {
                    (self.sink)(Incoming::Message(peer, msg));
                }
            }
            Some((&FRAME_GOODBYE, _)) => self.lose_child(rank),
            _ => {}
        }
    }

    fn lose_child(&mut self, rank: u32) {
        if self.admitted.remove(&rank) {
            (self.sink)(Incoming::Gone(Peer::Child(rank)));
        }
    }

    fn read_parent(&mut self) {
        for _ in 0..TURN {
            let Some(dealer) = &self.dealer else { return };
            let Ok(body) = dealer.recv_msg(zmq::DONTWAIT) else {
                return;
            };
            match body.split_first() {
                Some((&FRAME_MESSAGE, rest)) => {
                    if let Ok(msg) = Message::decode(&Bytes::copy_from_slice(rest)) {
                        (self.sink)(Incoming::Message(Peer::Parent, msg));
                    }
                }
                Some((&FRAME_VERDICT, rest)) => match serde_json::from_slice(rest) {
                    Ok(Verdict::Welcome) => (self.sink)(Incoming::Joined(Peer::Parent)),
                    Ok(Verdict::Refused(why)) => (self.sink)(Incoming::Refused(why)),
                    Err(e) => (self.sink)(Incoming::Refused(format!("malformed verdict: {e}"))),
                },
                Some((&FRAME_GOODBYE, _)) => (self.sink)(Incoming::Gone(Peer::Parent)),
                _ => {}
            }
        }
    }

    /// Send what is queued; false when the broker has dropped its end.
    fn write(&mut self) -> bool {
        let _ = self.wake.read();
        self.pending.store(false, Ordering::Release);
        loop {
            match self.rx.try_recv() {
                Ok(Command::Send(peer, msg)) => {
                    let bytes = frame(FRAME_MESSAGE, |buf| msg.encode(buf));
                    self.send_peer(peer, &bytes);
                }
                Ok(Command::Goodbye(peer)) => self.send_peer(peer, &[FRAME_GOODBYE]),
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn send_peer(&mut self, peer: Peer, bytes: &[u8]) {
        match peer {
            Peer::Child(rank) => self.send_child(rank, bytes),
            Peer::Parent => {
                if let Some(dealer) = &self.dealer {
                    let _ = dealer.send(bytes, zmq::DONTWAIT);
                }
            }
        }
    }

    fn send_child(&mut self, rank: u32, bytes: &[u8]) {
        let Some(router) = &self.router else { return };
        let parts = [rank.to_string().into_bytes(), bytes.to_vec()];
        if router.send_multipart(parts, zmq::DONTWAIT) == Err(zmq::Error::EHOSTUNREACH) {
            self.lose_child(rank);
        }
    }
}
