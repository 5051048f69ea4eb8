//! The state machine with frames carried by hand.

use super::*;
use crate::handshake::Verdict;
use crate::topology::Shape;

const T0: Moment = Moment::ZERO;

fn secs(s: u64) -> Moment {
    Moment::from_secs(s)
}

fn tree_of(rank: u32, session: u128) -> Tree {
    let facts = Facts {
        rank,
        topology: Topology::new(Shape::Kary(1), 3),
        hostname: format!("h{rank}"),
        version: "0".into(),
        hosts: HashMap::from([(rank + 1, format!("h{}", rank + 1))]),
        session: Session(session),
    };
    Tree::new(facts, Limits::default())
}

/// Everything the tree wants done, as text.
fn said(tree: &mut Tree) -> Vec<String> {
    let text = |o: &Output| match o {
        Output::ToChild(s, Frame::Message(n, m)) => format!("{s:?} <- {n} {}", m.topic()),
        Output::ToParent(Frame::Message(n, m)) => format!("^ {n} {}", m.topic()),
        Output::ToChild(s, f) => format!("{s:?} <- {f:?}"),
        Output::ToParent(f) => format!("^ {f:?}"),
        Output::Forget(s) => format!("forget {s:?}"),
        Output::Report(Incoming::Message(p, m)) => format!("{p:?}: {}", m.topic()),
        Output::Report(i) => format!("{i:?}"),
    };
    std::iter::from_fn(|| tree.poll())
        .map(|o| text(&o))
        .collect()
}

fn silence(tree: &mut Tree) {
    while tree.poll().is_some() {}
}

fn msg(topic: &str) -> Message {
    Message::request(topic, 0, 1, 0, None)
}

fn life(n: u128) -> Session {
    Session(n << 96)
}

/// A root with rank 1 joined as life 1, and nothing left to say.
fn root_with_child() -> Tree {
    let mut root = tree_of(0, 0xabc << 96);
    let hello = tree_of(1, life(1).0).hello();
    root.from_child(T0, life(1), Some(1), Frame::Hello(hello));
    silence(&mut root);
    root
}

/// A child of rank 1 that has been admitted.
fn child() -> Tree {
    let mut child = tree_of(1, life(1).0);
    child.parent_connected(T0);
    let session = "ab".to_owned();
    let welcome = Verdict::Welcome { minor: 1, session };
    child.from_parent(T0, Frame::Verdict(welcome));
    silence(&mut child);
    child
}

#[test]
fn a_child_joins_talks_and_leaves() {
    let mut root = tree_of(0, 0xabc << 96);
    let mut leaf = tree_of(1, life(1).0);
    assert_eq!(
        (root.status(), leaf.status()),
        (Status::Partial, Status::Partial)
    );
    leaf.parent_connected(T0);
    let Some(Output::ToParent(hello)) = leaf.poll() else {
        panic!("no hello")
    };
    root.from_child(T0, life(1), Some(1), hello);
    let Some(Output::ToChild(to, verdict)) = root.poll() else {
        panic!("no verdict")
    };
    assert_eq!(to, life(1));
    assert_eq!(
        said(&mut root),
        ["Joined(Child(1), 00000001)", "Child(1, Partial)"]
    );
    leaf.from_parent(T0, verdict);
    assert_eq!(
        said(&mut leaf),
        ["Joined(Parent, 00000abc)", "^ Status(Partial)"]
    );

    leaf.send(T0, Peer::Parent, Session(0xabc << 96), msg("a.b"));
    leaf.send(T0, Peer::Parent, Session(7), msg("for.another.life"));
    assert_eq!(said(&mut leaf), ["^ 1 a.b"]);
    root.from_child(T0, life(1), Some(1), Frame::Message(1, msg("a.b")));
    root.send(T0, Peer::Child(1), life(1), msg("c.d"));
    root.send(T0, Peer::Child(1), life(2), msg("for.another.life"));
    assert_eq!(said(&mut root), ["Child(1): a.b", "00000001 <- 1 c.d"]);

    leaf.control(T0, Control::Goodbye);
    assert_eq!(said(&mut leaf), ["^ Goodbye"]);
    leaf.tick(secs(5));
    assert_eq!(said(&mut leaf), ["^ Goodbye"], "the first may be lost");
    root.from_child(T0, life(1), Some(1), Frame::Goodbye);
    assert_eq!(
        said(&mut root),
        [
            "00000001 <- Farewell",
            "forget 00000001",
            "Gone { peer: Child(1), status: Offline, why: \"administrative shutdown\" }"
        ]
    );
    leaf.from_parent(T0, Frame::Farewell);
    assert_eq!(said(&mut leaf), ["Left"]);
}

#[test]
fn status_goes_up_the_tree() {
    let mut middle = child();
    let hello = tree_of(2, life(2).0).hello();
    middle.from_child(T0, life(2), None, Frame::Hello(hello));
    let all = said(&mut middle);
    assert_eq!(
        all[1..],
        [
            "Joined(Child(2), 00000002)",
            "Child(2, Full)",
            "Own(Full)",
            "^ Status(Full)"
        ]
    );
    middle.child_disconnected(T0, life(2));
    assert_eq!(
        said(&mut middle),
        [
            "forget 00000002",
            "Gone { peer: Child(2), status: Lost, why: \"lost connection\" }",
            "Own(Degraded)",
            "^ Status(Degraded)"
        ]
    );
    let mut root = root_with_child();
    root.from_child(T0, life(1), Some(1), Frame::Status(Status::Full));
    assert_eq!(said(&mut root), ["Child(1, Full)", "Own(Full)"]);
}

#[test]
fn gaps_end_the_connection() {
    let mut root = root_with_child();
    root.from_child(T0, life(1), Some(1), Frame::Message(2, msg("late")));
    let lost = "messages from it were lost";
    assert_eq!(
        said(&mut root)[0],
        format!("00000001 <- Disconnect({lost:?})")
    );
    // From now on that life hears nothing else.
    root.from_child(T0, life(1), Some(1), Frame::Message(3, msg("later")));
    assert_eq!(
        said(&mut root),
        [
            "00000001 <- Disconnect(\"it is not joined here (any more)\")",
            "forget 00000001"
        ]
    );
    let mut leaf = child();
    leaf.from_parent(T0, Frame::Keepalive(1));
    let gone = "Gone { peer: Parent, status: Lost, why: \"messages from the parent were lost\" }";
    assert_eq!(said(&mut leaf), [gone]);
    leaf.from_parent(T0, Frame::Message(2, msg("later")));
    assert!(said(&mut leaf).is_empty());
}

#[test]
fn silence_makes_torpid_and_speech_undoes_it() {
    let mut root = root_with_child();
    root.tick(secs(29));
    assert_eq!(said(&mut root), ["00000001 <- Keepalive(0)"]);
    root.tick(secs(30));
    root.tick(secs(31));
    let torpid =
        |torpid, silent| format!("Torpid {{ rank: 1, torpid: {torpid}, silent: {silent}s }}");
    let reports = |tree: &mut Tree| -> Vec<String> {
        said(tree)
            .into_iter()
            .filter(|s| s.starts_with("Torpid"))
            .collect()
    };
    assert_eq!(reports(&mut root), [torpid(true, 30)]);
    root.from_child(secs(40), life(1), Some(1), Frame::Keepalive(0));
    assert_eq!(reports(&mut root), [torpid(false, 40)]);
    root.tick(secs(75));
    assert_eq!(reports(&mut root), [torpid(true, 35)]);
    let limits = Limits {
        torpid_max: Moment::ZERO,
        ..Limits::default()
    };
    root.control(secs(76), Control::Limits(limits));
    assert_eq!(reports(&mut root), [torpid(false, 36)]);
}

#[test]
fn a_silent_broker_keeps_its_parent_informed() {
    let mut leaf = child();
    leaf.tick(secs(4));
    assert!(said(&mut leaf).is_empty());
    leaf.tick(secs(5));
    assert_eq!(said(&mut leaf), ["^ Keepalive(0)", "^ Status(Partial)"]);
    let limits = Limits {
        parent_max: secs(60),
        ..Limits::default()
    };
    leaf.control(secs(6), Control::Limits(limits));
    leaf.from_parent(secs(20), Frame::Keepalive(0));
    leaf.tick(secs(79));
    silence(&mut leaf);
    leaf.tick(secs(80));
    assert_eq!(
        said(&mut leaf),
        ["Gone { peer: Parent, status: Lost, why: \"the parent broker is silent for 60s\" }"]
    );
}

#[test]
fn hello_is_repeated_until_answered() {
    let mut leaf = tree_of(1, life(1).0);
    leaf.tick(secs(9));
    assert!(said(&mut leaf).is_empty(), "nobody to talk to");
    leaf.parent_connected(secs(10));
    silence(&mut leaf);
    leaf.tick(secs(14));
    assert!(said(&mut leaf).is_empty());
    leaf.tick(secs(15));
    assert_eq!(said(&mut leaf).len(), 1);
    leaf.parent_disconnected();
    leaf.tick(secs(60));
    assert!(said(&mut leaf).is_empty());
    leaf.from_parent(secs(61), Frame::Verdict(Verdict::Refused("no".into())));
    assert_eq!(said(&mut leaf), ["Refused(\"no\")"]);
}

#[test]
fn a_repeated_hello_is_welcomed_again() {
    let mut root = root_with_child();
    let hello = || Frame::Hello(tree_of(1, life(1).0).hello());
    root.from_child(T0, life(1), Some(1), hello());
    assert!(said(&mut root)[0].contains("Welcome"));
    root.from_child(T0, life(1), Some(1), Frame::Message(1, msg("a")));
    silence(&mut root);
    root.from_child(T0, life(1), Some(1), hello());
    assert!(said(&mut root).is_empty(), "its welcome has arrived");
}

#[test]
fn a_live_child_is_not_replaced() {
    let mut root = root_with_child();
    let hello = || Frame::Hello(tree_of(1, 0).hello());
    root.from_child(secs(1), life(2), Some(1), hello());
    assert_eq!(said(&mut root), ["00000001 <- Ping"]);
    // Sent before it died, perhaps.
    root.from_child(secs(1), life(1), Some(1), Frame::Keepalive(0));
    assert!(said(&mut root).is_empty());
    root.from_child(secs(1), life(1), Some(1), Frame::Pong);
    assert_eq!(
        said(&mut root),
        [
            "00000002 <- Verdict(Refused(\"rank 1 is already connected\"))",
            "forget 00000002",
            "Rejected { rank: 1, host: \"h1\", why: \"rank 1 is already connected\" }"
        ]
    );
}

#[test]
fn a_dead_child_is_replaced() {
    // Its connection is broken, or it does not answer in time.
    let ends: [fn(&mut Tree); 2] = [
        |root| root.child_disconnected(secs(1), life(1)),
        |root| root.tick(secs(3)),
    ];
    for end in ends {
        let mut root = root_with_child();
        root.from_child(
            secs(1),
            life(2),
            Some(1),
            Frame::Hello(tree_of(1, 0).hello()),
        );
        silence(&mut root);
        root.tick(secs(2));
        assert_eq!(root.joined(1), Some(life(1)));
        end(&mut root);
        assert_eq!(root.joined(1), Some(life(2)));
        let all = said(&mut root).join("\n");
        let gone = all.find("Gone").unwrap();
        assert!(gone < all.find("Joined").unwrap(), "{all}");
    }
}

#[test]
fn a_challenger_that_leaves_is_forgotten() {
    let mut root = root_with_child();
    root.from_child(
        secs(1),
        life(2),
        Some(1),
        Frame::Hello(tree_of(1, 0).hello()),
    );
    root.child_disconnected(secs(1), life(2));
    silence(&mut root);
    root.tick(secs(9));
    assert_eq!(root.joined(1), Some(life(1)));
}

#[test]
fn nobody_joins_an_instance_that_ends() {
    let mut root = root_with_child();
    root.control(T0, Control::Close);
    root.child_disconnected(T0, life(1));
    silence(&mut root);
    root.from_child(T0, life(2), Some(1), Frame::Hello(tree_of(1, 0).hello()));
    assert!(said(&mut root)[0].contains("the instance is shutting down"));
    assert_eq!(root.joined(1), None);
}

#[test]
fn the_broker_may_cut_peers_off() {
    let mut root = root_with_child();
    let why = "administrative disconnect".to_owned();
    root.control(T0, Control::Disconnect { rank: 1, why });
    assert_eq!(
        said(&mut root),
        [
            "00000001 <- Disconnect(\"administrative disconnect\")",
            "forget 00000001",
            "Gone { peer: Child(1), status: Lost, why: \"administrative disconnect\" }",
            "Own(Degraded)"
        ]
    );
    let mut leaf = child();
    leaf.control(T0, Control::Leave("no heartbeat".into()));
    assert_eq!(
        said(&mut leaf),
        ["Gone { peer: Parent, status: Lost, why: \"no heartbeat\" }"]
    );
    let mut root = root_with_child();
    root.child_overrun(T0, life(1), 9);
    assert!(said(&mut root)[0].contains("does not keep up: 9 bytes"));
}

#[test]
fn a_parent_that_takes_nothing_is_given_up() {
    let mut joined = child();
    joined.parent_overrun(9);
    assert!(said(&mut joined)[0].contains("does not keep up: 9 bytes"));
    let mut leaving = child();
    leaving.control(T0, Control::Goodbye);
    silence(&mut leaving);
    leaving.parent_overrun(9);
    assert_eq!(said(&mut leaving), ["Left"]);
}
