//! Two brokers' links on real sockets.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::*;
use crate::topology::{Shape, Topology};
use crate::transport::Status;

/// Long enough for any machine; nothing waits for it in a run that passes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Broker {
    link: ZmqLink,
    events: Receiver<Incoming>,
}

impl Broker {
    fn next(&self) -> Incoming {
        self.events
            .recv_timeout(PATIENCE)
            .expect("a report in time")
    }

    /// The first report `pick` likes.
    fn find<T>(&self, pick: impl Fn(Incoming) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next()) {
                return found;
            }
        }
    }
}

fn facts(rank: u32, session: u128) -> Facts {
    Facts {
        rank,
        topology: Topology::new(Shape::Kary(0), 2),
        hostname: "h".into(),
        version: "0".into(),
        hosts: HashMap::new(),
        session: Session(session),
    }
}

fn start(
    bound: Bound,
    facts: Facts,
    parent: Option<ParentAddress>,
    keys: HashMap<PublicKey, Option<u32>>,
) -> Broker {
    let (tx, events) = channel();
    let link = bound
        .start(facts, Limits::default(), parent, keys, move |i| {
            drop(tx.send(i))
        })
        .unwrap();
    Broker { link, events }
}

struct Pair {
    address: ParentAddress,
    root: Broker,
    leaf_keys: Vec<KeyPair>,
}

/// A root that admits two keys as rank 1.
fn root(dir: &tempfile::TempDir) -> Pair {
    let endpoint = format!("ipc://{}/tbon", dir.path().display());
    let keys = KeyPair::generate().unwrap();
    let bound = Bound::new(keys, SocketOptions::default(), Some(&endpoint)).unwrap();
    let address = ParentAddress {
        uri: bound.endpoint().unwrap().to_owned(),
        key: bound.public_key().clone(),
    };
    let leaf_keys = vec![KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
    let known = leaf_keys
        .iter()
        .map(|k| (k.public.clone(), Some(1)))
        .collect();
    let root = start(bound, facts(0, 100), None, known);
    Pair {
        address,
        root,
        leaf_keys,
    }
}

fn leaf(address: &ParentAddress, keys: KeyPair, session: u128) -> Broker {
    let bound = Bound::new(keys, SocketOptions::default(), None).unwrap();
    start(
        bound,
        facts(1, session),
        Some(address.clone()),
        HashMap::new(),
    )
}

fn joined(peer: Peer) -> impl Fn(Incoming) -> Option<Session> {
    move |i| match i {
        Incoming::Joined(p, session) if p == peer => Some(session),
        _ => None,
    }
}

fn gone(i: Incoming) -> Option<Status> {
    match i {
        Incoming::Gone { status, .. } => Some(status),
        _ => None,
    }
}

#[test]
fn a_leaf_joins_talks_and_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = root(&dir);
    let leaf = leaf(&pair.address, pair.leaf_keys.remove(0), 7);
    assert_eq!(leaf.find(joined(Peer::Parent)), Session(100));
    assert_eq!(pair.root.find(joined(Peer::Child(1))), Session(7));
    let hello = Message::request("a.b", 0, 1, 0, None);
    leaf.link.send(Peer::Parent, Session(100), hello);
    let topic = pair.root.find(|i| match i {
        Incoming::Message(Peer::Child(1), msg) => Some(msg.topic().to_owned()),
        _ => None,
    });
    assert_eq!(topic, "a.b");
    assert_eq!(leaf.link.backlog(Peer::Parent), 0);
    leaf.link.control(Control::Goodbye);
    assert_eq!(pair.root.find(gone), Status::Offline);
    leaf.find(|i| matches!(i, Incoming::Left).then_some(()));
}

#[test]
fn a_leaf_that_vanishes_is_lost_and_its_successor_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = root(&dir);
    let first = leaf(&pair.address, pair.leaf_keys.remove(0), 7);
    first.find(joined(Peer::Parent));
    pair.root.find(joined(Peer::Child(1)));
    drop(first.link);
    assert_eq!(pair.root.find(gone), Status::Lost);
    let second = leaf(&pair.address, pair.leaf_keys.remove(0), 8);
    second.find(joined(Peer::Parent));
    assert_eq!(pair.root.find(joined(Peer::Child(1))), Session(8));
}

#[test]
fn a_second_leaf_of_a_rank_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = root(&dir);
    let first = leaf(&pair.address, pair.leaf_keys.remove(0), 7);
    first.find(joined(Peer::Parent));
    let second = leaf(&pair.address, pair.leaf_keys.remove(0), 8);
    let why = second.find(|i| match i {
        Incoming::Refused(why) => Some(why),
        _ => None,
    });
    assert_eq!(why, "rank 1 is already connected");
}

#[test]
fn a_root_that_vanishes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = root(&dir);
    let leaf = leaf(&pair.address, pair.leaf_keys.remove(0), 7);
    leaf.find(joined(Peer::Parent));
    drop(pair.root.link);
    assert_eq!(leaf.find(gone), Status::Lost);
}

#[test]
fn a_leaf_may_start_before_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("ipc://{}/tbon", dir.path().display());
    let (root_keys, leaf_keys) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let key = root_keys.public.clone();
    let known = HashMap::from([(leaf_keys.public.clone(), None)]);
    let address = ParentAddress {
        uri: endpoint.clone(),
        key,
    };
    let leaf = leaf(&address, leaf_keys, 7);
    let bound = Bound::new(root_keys, SocketOptions::default(), Some(&endpoint)).unwrap();
    let root = start(bound, facts(0, 100), None, known);
    leaf.find(joined(Peer::Parent));
    root.find(joined(Peer::Child(1)));
}

#[test]
fn unknown_keys_are_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let pair = root(&dir);
    let stranger = leaf(&pair.address, KeyPair::generate().unwrap(), 9);
    let known = leaf(&pair.address, pair.leaf_keys.into_iter().next().unwrap(), 7);
    known.find(joined(Peer::Parent));
    assert_eq!(pair.root.find(joined(Peer::Child(1))), Session(7));
    let heard = stranger.events.try_recv();
    assert!(heard.is_err(), "{heard:?}");
    drop(stranger.link);
    assert!(matches!(
        stranger.events.recv_timeout(PATIENCE),
        Err(RecvTimeoutError::Disconnected)
    ));
}

#[test]
fn many_messages_arrive_in_order_both_ways() {
    const COUNT: u32 = 5000;
    let (root_keys, leaf_keys) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let bound = Bound::new(
        root_keys,
        SocketOptions::default(),
        Some("tcp://127.0.0.1:*"),
    )
    .unwrap();
    let address = ParentAddress {
        uri: bound.endpoint().unwrap().to_owned(),
        key: bound.public_key().clone(),
    };
    let known = HashMap::from([(leaf_keys.public.clone(), Some(1))]);
    let root = start(bound, facts(0, 100), None, known);
    let leaf = leaf(&address, leaf_keys, 7);
    leaf.find(joined(Peer::Parent));
    root.find(joined(Peer::Child(1)));
    for i in 1..=COUNT {
        let msg = |topic| Message::request(topic, 0, i, 0, None);
        leaf.link.send(Peer::Parent, Session(100), msg("up"));
        root.link.send(Peer::Child(1), Session(7), msg("down"));
    }
    for broker in [&root, &leaf] {
        for i in 1..=COUNT {
            let tag = broker.find(|i| match i {
                Incoming::Message(_, msg) => Some(msg.matchtag()),
                _ => None,
            });
            assert_eq!(tag, i);
        }
    }
}
