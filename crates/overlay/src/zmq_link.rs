//! ZeroMQ driver of the [`Tree`]: one thread that owns the sockets (they are not thread-safe).
//!
//! The broker binds a ROUTER for its children and connects a DEALER to its parent; both use CURVE
//! whatever the address family. A ZAP handler in the same thread admits exactly the public keys of
//! this broker's children. A DEALER's identity is the life of its broker, so that lives are told
//! apart before they have said a word. Socket monitors say when a connection breaks.

mod driver;
mod ready;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use wire::Message;

use crate::backlog::{Backlog, Bounds};
use crate::keys::{KeyPair, PublicKey};
use crate::transport::{Control, Incoming, Peer, Session, Transport};
use crate::tree::{Facts, Limits, Tree};
use driver::Driver;
use ready::Ready;

const ZAP_ENDPOINT: &str = "inproc://zeromq.zap.01";
const MONITOR_CHILDREN: &str = "inproc://monitor-children";
const MONITOR_PARENT: &str = "inproc://monitor-parent";
/// Messages libzmq holds per connection; what is beyond waits where we can count it.
const SOCKET_QUEUE: i32 = 1000;
/// First byte of a DEALER's identity; libzmq reserves those that begin with zero.
const IDENTITY: u8 = b's';

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

/// Properties of sockets (flux-config-tbon(5)).
#[derive(Debug, Clone, Copy)]
pub struct SocketOptions {
    /// How long sent TCP data may stay unacknowledged; zero leaves it to the system.
    pub tcp_user_timeout: Duration,
    /// How long a connection attempt may take; zero leaves it to the system.
    pub connect_timeout: Duration,
    /// Messages received and not read yet, per child; zero is unlimited.
    pub child_rcvhwm: i32,
    /// Allow IPv6.
    pub ipv6: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            tcp_user_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(30),
            child_rcvhwm: 0,
            ipv6: false,
        }
    }
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
    options: SocketOptions,
    router: Option<(zmq::Socket, String)>,
    zap: zmq::Socket,
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// ZMQ_TCP_MAXRT, which the `zmq` crate does not offer.
fn set_tcp_user_timeout(socket: &mut zmq::Socket, time: Duration) -> zmq::Result<()> {
    if time.is_zero() {
        return Ok(());
    }
    let value = millis(time);
    // SAFETY: the socket is open, and the option takes an int, of which address and size are given.
    let rc = unsafe {
        zmq_sys::zmq_setsockopt(
            socket.as_mut_ptr(),
            zmq_sys::ZMQ_TCP_MAXRT as i32,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>(),
        )
    };
    match rc {
        0 => Ok(()),
        // SAFETY: reads the calling thread's error number.
        _ => Err(zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() })),
    }
}

impl Bound {
    /// Listen for children on `endpoint` (`ipc://PATH` or `tcp://ADDRESS:*`), or not at all.
    pub fn new(
        keys: KeyPair,
        options: SocketOptions,
        endpoint: Option<&str>,
    ) -> Result<Self, LinkError> {
        let context = zmq::Context::new();
        let zap = context.socket(zmq::REP).map_err(failed("make a socket"))?;
        zap.bind(ZAP_ENDPOINT)
            .map_err(failed("bind the authenticator"))?;
        let router = match endpoint {
            Some(endpoint) => Some(Self::listen(&context, &keys, options, endpoint)?),
            None => None,
        };
        Ok(Self {
            context,
            keys,
            options,
            router,
            zap,
        })
    }

    fn listen(
        context: &zmq::Context,
        keys: &KeyPair,
        options: SocketOptions,
        endpoint: &str,
    ) -> Result<(zmq::Socket, String), LinkError> {
        let make = || -> zmq::Result<(zmq::Socket, String)> {
            let mut socket = context.socket(zmq::ROUTER)?;
            socket.set_router_mandatory(true)?;
            socket.set_linger(1000)?;
            socket.set_sndhwm(SOCKET_QUEUE)?;
            socket.set_rcvhwm(options.child_rcvhwm)?;
            socket.set_ipv6(options.ipv6)?;
            socket.set_curve_server(true)?;
            socket.set_curve_secretkey(&keys.secret)?;
            socket.set_zap_domain("flux")?;
            set_tcp_user_timeout(&mut socket, options.tcp_user_timeout)?;
            let events = zmq::SocketEvent::DISCONNECTED as i32;
            socket.monitor(MONITOR_CHILDREN, events)?;
            socket.bind(endpoint)?;
            // The wildcard port is only known now.
            let bound = socket
                .get_last_endpoint()?
                .unwrap_or_else(|_| endpoint.to_owned());
            Ok((socket, bound))
        };
        make().map_err(failed(format!("listen on {endpoint}")))
    }

    /// The endpoint children connect to.
    pub fn endpoint(&self) -> Option<&str> {
        self.router.as_ref().map(|(_, endpoint)| endpoint.as_str())
    }

    /// Public half of this broker's keys.
    pub fn public_key(&self) -> &PublicKey {
        &self.keys.public
    }

    /// Connect to `parent`, let in brokers with these `keys`, and start the driver thread.
    ///
    /// A key is a rank's own, or (`None`) that of the whole instance. `sink` is called on that
    /// thread with everything there is to report.
    pub fn start(
        self,
        facts: Facts,
        limits: Limits,
        parent: Option<ParentAddress>,
        keys: HashMap<PublicKey, Option<u32>>,
        sink: impl FnMut(Incoming) + Send + 'static,
    ) -> Result<ZmqLink, LinkError> {
        let monitor = |endpoint: &str| -> zmq::Result<zmq::Socket> {
            let socket = self.context.socket(zmq::PAIR)?;
            socket.connect(endpoint)?;
            Ok(socket)
        };
        let (dealer, parent_monitor) = match &parent {
            Some(parent) => {
                let dealer = self.connect(facts.session, parent)?;
                let monitor = monitor(MONITOR_PARENT).map_err(failed("watch a socket"))?;
                (Some(dealer), Some(monitor))
            }
            None => (None, None),
        };
        let child_monitor = match &self.router {
            Some(_) => Some(monitor(MONITOR_CHILDREN).map_err(failed("watch a socket"))?),
            None => None,
        };
        let wake = Arc::new(
            EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
                .map_err(std::io::Error::from)?,
        );
        let pending = Arc::new(AtomicBool::new(false));
        let backlog = Backlog::new(facts.topology.children(facts.rank), Bounds::default());
        let (tx, rx) = channel();
        let sockets = driver::Sockets {
            router: self.router.map(|(socket, _)| socket),
            dealer,
            zap: self.zap,
            child_monitor,
            parent_monitor,
            _context: self.context,
        };
        let ready = Ready::new(&sockets, &wake).map_err(failed("watch a socket"))?;
        let tree = Tree::new(facts, limits);
        let signals = (wake.clone(), pending.clone());
        let driver = Driver::new(
            (sockets, ready),
            tree,
            keys,
            backlog.clone(),
            rx,
            signals,
            sink,
        );
        let thread = std::thread::Builder::new()
            .name("overlay".into())
            .spawn(move || driver.run())?;
        Ok(ZmqLink {
            tx: Some(tx),
            wake,
            pending,
            backlog,
            thread: Some(thread),
        })
    }

    fn connect(&self, session: Session, parent: &ParentAddress) -> Result<zmq::Socket, LinkError> {
        let make = || -> zmq::Result<zmq::Socket> {
            let mut socket = self.context.socket(zmq::DEALER)?;
            socket.set_identity(&identity(session))?;
            socket.set_linger(1000)?;
            socket.set_sndhwm(SOCKET_QUEUE)?;
            socket.set_rcvhwm(0)?;
            socket.set_ipv6(self.options.ipv6)?;
            socket.set_curve_serverkey(&parent.key.0)?;
            socket.set_curve_publickey(&self.keys.public.0)?;
            socket.set_curve_secretkey(&self.keys.secret)?;
            set_tcp_user_timeout(&mut socket, self.options.tcp_user_timeout)?;
            if !self.options.connect_timeout.is_zero() {
                socket.set_connect_timeout(millis(self.options.connect_timeout))?;
            }
            socket.set_reconnect_ivl(20)?;
            socket.set_reconnect_ivl_max(1000)?;
            let events = zmq::SocketEvent::HANDSHAKE_SUCCEEDED as i32
                | zmq::SocketEvent::DISCONNECTED as i32;
            socket.monitor(MONITOR_PARENT, events)?;
            socket.connect(&parent.uri)?;
            Ok(socket)
        };
        make().map_err(failed(format!("connect to {}", parent.uri)))
    }
}

/// A DEALER's identity for a life.
fn identity(session: Session) -> Vec<u8> {
    let mut identity = vec![IDENTITY];
    identity.extend_from_slice(&session.0.to_be_bytes());
    identity
}

/// The life with this identity.
fn session(identity: &[u8]) -> Option<Session> {
    let (&IDENTITY, bytes) = identity.split_first()? else {
        return None;
    };
    Some(Session(u128::from_be_bytes(bytes.try_into().ok()?)))
}

enum Command {
    Send(Peer, Session, Message, usize),
    Control(Control),
}

/// The running driver. Dropping it sends what is queued, then closes the sockets.
pub struct ZmqLink {
    tx: Option<Sender<Command>>,
    wake: Arc<EventFd>,
    pending: Arc<AtomicBool>,
    backlog: Backlog,
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
    fn send(&self, peer: Peer, session: Session, msg: Message) {
        let bytes = msg.encoded_len();
        self.backlog.add(peer, bytes);
        self.command(Command::Send(peer, session, msg, bytes));
    }

    fn backlog(&self, peer: Peer) -> usize {
        self.backlog.get(peer)
    }

    fn bounds(&self) -> Bounds {
        self.backlog.bounds()
    }

    fn control(&self, control: Control) {
        self.command(Command::Control(control));
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

#[cfg(test)]
mod tests;
