//! The ZeroMQ driver with real sockets: admission by key, order, goodbye.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};

use overlay::handshake::{Hello, PROTOCOL};
use overlay::{Bound, Incoming, KeyPair, ParentAddress, Peer, Transport, ZmqLink};
use wire::Message;

fn hello(rank: u32) -> Hello {
    Hello {
        protocol: PROTOCOL,
        rank,
        size: 2,
        hostname: "test".into(),
    }
}

fn start(
    bound: Bound,
    rank: u32,
    parent: Option<ParentAddress>,
    children: HashMap<u32, overlay::PublicKey>,
) -> (ZmqLink, Receiver<Incoming>) {
    let (tx, rx) = channel();
    let sink = move |incoming| drop(tx.send(incoming));
    (
        bound.start(hello(rank), parent, children, sink).unwrap(),
        rx,
    )
}

fn pair(endpoint: &str) {
    let parent = Bound::new(KeyPair::generate().unwrap(), Some(endpoint)).unwrap();
    let child = Bound::new(KeyPair::generate().unwrap(), None).unwrap();
    let address = ParentAddress {
        uri: parent.endpoint().unwrap().into(),
        key: parent.public_key().clone(),
    };
    let keys = HashMap::from([(1, child.public_key().clone())]);
    let (up, up_rx) = start(parent, 0, None, keys);
    let (down, down_rx) = start(child, 1, Some(address), HashMap::new());
    assert!(matches!(
        up_rx.recv().unwrap(),
        Incoming::Joined(Peer::Child(1))
    ));
    assert!(matches!(
        down_rx.recv().unwrap(),
        Incoming::Joined(Peer::Parent)
    ));
    for i in 0..1000 {
        down.send(Peer::Parent, Message::request("up", i, i, 0, None));
        up.send(Peer::Child(1), Message::request("down", i, i, 0, None));
    }
    for i in 0..1000 {
        for (rx, topic) in [(&up_rx, "up"), (&down_rx, "down")] {
            let Incoming::Message(_, msg) = rx.recv().unwrap() else {
                panic!("not a message")
            };
            assert_eq!((msg.topic(), msg.matchtag()), (topic, i));
        }
    }
    down.goodbye(Peer::Parent);
    assert!(matches!(
        up_rx.recv().unwrap(),
        Incoming::Gone(Peer::Child(1))
    ));
}

#[test]
fn tcp() {
    pair("tcp://127.0.0.1:*");
}

#[test]
fn ipc() {
    let dir = tempfile::tempdir().unwrap();
    pair(&format!("ipc://{}/tbon-0", dir.path().display()));
}

/// A peer with the right server key but an unannounced key of its own fails in the handshake.
#[test]
fn stranger_is_refused() {
    let parent = Bound::new(KeyPair::generate().unwrap(), Some("tcp://127.0.0.1:*")).unwrap();
    let endpoint = parent.endpoint().unwrap().to_owned();
    let server_key = zmq::z85_decode(&parent.public_key().to_string()).unwrap();
    let friend = KeyPair::generate().unwrap();
    let (_up, up_rx) = start(parent, 0, None, HashMap::from([(1, friend.public)]));

    let context = zmq::Context::new();
    let authenticated = |curve: bool| {
        let socket = context.socket(zmq::DEALER).unwrap();
        socket.set_identity(b"1").unwrap();
        socket.set_linger(0).unwrap();
        if curve {
            let own = zmq::CurveKeyPair::new().unwrap();
            socket.set_curve_serverkey(&server_key).unwrap();
            socket.set_curve_publickey(&own.public_key).unwrap();
            socket.set_curve_secretkey(&own.secret_key).unwrap();
        }
        let name = format!("inproc://monitor-{curve}");
        socket.monitor(&name, zmq::SocketEvent::ALL as i32).unwrap();
        let monitor = context.socket(zmq::PAIR).unwrap();
        monitor.connect(&name).unwrap();
        socket.connect(&endpoint).unwrap();
        let kind = || {
            let event = monitor.recv_multipart(0).unwrap();
            u16::from_ne_bytes([event[0][0], event[0][1]])
        };
        let admitted = loop {
            match kind() {
                0x1000 => break true,                             // handshake succeeded
                0x0800 | 0x2000 | 0x4000 | 0x0200 => break false, // failed, or disconnected
                _ => {}
            }
        };
        // The monitor has to be read to its end: libzmq waits for room in it otherwise.
        drop(socket);
        while kind() != 0x0400 {}
        admitted
    };
    assert!(!authenticated(true), "unknown key was admitted");
    assert!(!authenticated(false), "peer without CURVE was admitted");
    assert!(up_rx.try_recv().is_err());
}
