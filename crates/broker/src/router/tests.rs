//! The router with fake neighbours: where requests, responses and events go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use client::{Handle, Inbox, Node};
use overlay::topology::Shape;
use overlay::{Control, Incoming, Peer, Session, Status, Topology, Transport};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{Credentials, Message};

use super::{Input, RouterHandle, Sink, start};

/// Messages sent to peers.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<(Peer, Message)>>>, Arc<AtomicUsize>);

impl Sent {
    fn take(&self) -> Vec<(Peer, Message)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Transport for Sent {
    fn send(&self, peer: Peer, _life: Session, msg: Message) {
        self.0.lock().unwrap().push((peer, msg));
    }

    fn backlog(&self, _peer: Peer) -> usize {
        self.1.load(Ordering::Relaxed)
    }

    fn control(&self, _control: Control) {}
}

const OWNER: Credentials = Credentials {
    userid: 1000,
    rolemask: 1,
};

/// The router of `rank` in a binary tree of 7, with all children joined.
fn router(rank: u32) -> (RouterHandle, Sent, UnboundedReceiver<Incoming>) {
    let topology = Topology::new(Shape::Kary(2), 7);
    let (router, peers) = start(rank, OWNER, topology.clone());
    let sent = Sent::default();
    router.send(Input::SetTransport(Box::new(sent.clone())));
    for child in topology.children(rank) {
        let child = Peer::Child(*child);
        router.send(Input::FromPeer(Incoming::Joined(child, Session(1))));
    }
    if rank > 0 {
        router.send(Input::FromPeer(Incoming::Joined(Peer::Parent, Session(1))));
    }
    (router, sent, peers)
}

fn gone(peer: Peer) -> Input {
    Input::FromPeer(Incoming::Gone {
        peer,
        status: Status::Lost,
        why: "lost connection".into(),
    })
}

fn from_peer(peer: Peer, msg: Message) -> Input {
    Input::FromPeer(Incoming::Message(peer, msg))
}

fn service(router: &RouterHandle, name: &str) -> (Handle, Inbox) {
    let (_, handle) = router.attach(OWNER, vec![name.to_owned()]);
    let inbox = handle.inbox().unwrap();
    (handle, inbox)
}

/// Everything queued so far has been handled once a ping has come back.
async fn settle(handle: &Handle, name: &str) {
    handle
        .call::<Value>(&format!("{name}.ping"), Node::Any, &json!({}))
        .await
        .unwrap();
}

#[tokio::test]
async fn local_requests_are_answered_here() {
    let (router, sent, _peers) = router(1);
    let (server, mut inbox) = service(&router, "echo");
    let (client, _) = service(&router, "other");
    let call = client.rpc("echo.hi", Node::Any, &json!({"x": 1}));
    let request = inbox.recv().await.unwrap();
    assert_eq!((request.topic(), request.userid()), ("echo.hi", 1000));
    server.respond(&request, &json!({"y": 2}));
    assert_eq!(
        call.await.unwrap().json::<Value>().unwrap(),
        json!({"y": 2})
    );
    assert!(sent.take().is_empty());
}

#[tokio::test]
async fn requests_take_the_tree() {
    let (router, sent, _peers) = router(1);
    let (client, _inbox) = service(&router, "me");
    for (node, want) in [
        (Node::Rank(3), Peer::Child(3)),
        (Node::Rank(0), Peer::Parent),
        (Node::Rank(6), Peer::Parent),
        (Node::Upstream, Peer::Parent),
        (Node::Any, Peer::Parent),
    ] {
        let topic = if node == Node::Any {
            "elsewhere.x"
        } else {
            "me.x"
        };
        let call = client.rpc(topic, node, &json!({}));
        settle(&client, "me").await;
        let (peer, msg) = sent.take().pop().unwrap();
        assert_eq!(peer, want, "{node:?}");
        // The answer comes back over the same peer.
        let response = msg.response(0, None);
        router.send(Input::FromPeer(Incoming::Message(peer, response)));
        call.await.unwrap();
    }
}

#[tokio::test]
async fn unroutable_requests_fail_at_once() {
    let (router, _sent, _peers) = router(0);
    let (client, _inbox) = service(&router, "me");
    let errno =
        async |topic: &str, node| client.rpc(topic, node, &json!({})).await.unwrap_err().errno;
    assert_eq!(errno("no.such", Node::Any).await, libc::ENOSYS);
    assert_eq!(errno("no.such", Node::Rank(0)).await, libc::ENOSYS);
    assert_eq!(errno("me.x", Node::Rank(7)).await, libc::EHOSTUNREACH);
    router.send(gone(Peer::Child(1)));
    assert_eq!(errno("me.x", Node::Rank(3)).await, libc::EHOSTUNREACH);
}

#[tokio::test]
async fn requests_of_peers_are_forwarded_with_their_hop() {
    let (router, sent, _peers) = router(1);
    let (client, _inbox) = service(&router, "me");
    let request = Message::request("far.x", 3, 9, 0, None);
    router.send(Input::FromPeer(Incoming::Message(Peer::Parent, request)));
    settle(&client, "me").await;
    let (peer, msg) = sent.take().pop().unwrap();
    assert_eq!(
        (peer, msg.next_hop().map(|h| &**h)),
        (Peer::Child(3), Some("0"))
    );
    router.send(Input::FromPeer(Incoming::Message(
        peer,
        msg.response(0, None),
    )));
    settle(&client, "me").await;
    let (peer, msg) = sent.take().pop().unwrap();
    assert_eq!(
        (peer, msg.matchtag(), msg.routes().len()),
        (Peer::Parent, 9, 0)
    );
}

#[tokio::test]
async fn events_are_numbered_at_the_root_and_reach_all_subscribers() {
    let (router, sent, _peers) = router(0);
    let (client, mut inbox) = service(&router, "me");
    client.subscribe("a.").await.unwrap();
    assert_eq!(client.publish("a.b", &json!({"n": 1})).await.unwrap(), 1);
    assert_eq!(client.publish("other", &json!({})).await.unwrap(), 2);
    client.unsubscribe("a.").await.unwrap();
    assert_eq!(client.publish("a.c", &json!({})).await.unwrap(), 3);
    assert_eq!(inbox.recv().await.unwrap().topic(), "a.b");
    assert!(inbox.try_recv().is_none());
    let to_children = sent.take();
    assert_eq!(to_children.len(), 6, "three events to two children");
    assert_eq!(
        client.unsubscribe("a.").await.unwrap_err().errno,
        libc::ENOENT
    );
}

#[tokio::test]
async fn a_leaving_client_is_announced_to_its_services() {
    let (router, _sent, _peers) = router(0);
    let (_server, mut inbox) = service(&router, "svc");
    let (queue, _messages) = super::ClientQueue::new(super::Bounds::default().unread);
    let id = super::new_id();
    let sink = Sink::Client(queue);
    router.send(Input::Attach {
        id: id.clone(),
        cred: OWNER,
        sink,
        services: Vec::new(),
        card: None,
    });
    router.send(Input::FromEndpoint(
        id.clone(),
        Message::request("svc.watch", u32::MAX, 1, 0, None),
    ));
    router.send(Input::FromEndpoint(
        id.clone(),
        Message::request("svc.watch", u32::MAX, 2, 0, None),
    ));
    router.send(Input::Detach(id.clone()));
    let topics = [inbox.recv().await, inbox.recv().await, inbox.recv().await]
        .map(|msg| msg.unwrap().topic().to_owned());
    assert_eq!(topics, ["svc.watch", "svc.watch", "svc.disconnect"]);
    assert!(inbox.try_recv().is_none(), "one notice for each service");
}

#[tokio::test]
async fn guests_cannot_take_any_service_name() {
    let (router, _sent, _peers) = router(0);
    let guest = Credentials {
        userid: 7,
        rolemask: wire::ROLE_USER,
    };
    let (_, handle) = router.attach(guest, Vec::new());
    let add = |name: &str| handle.rpc("service.add", Node::Any, &json!({ "service": name }));
    assert_eq!(add("kvs").await.unwrap_err().errno, libc::EPERM);
    assert_eq!(add("a.b").await.unwrap_err().errno, libc::EINVAL);
    add("7-shell").await.unwrap();
    assert_eq!(add("7-shell").await.unwrap_err().errno, libc::EEXIST);
}

#[tokio::test]
async fn requests_of_lost_peers_end_at_once() {
    let (router, sent, _peers) = router(1);
    let (client, _inbox) = service(&router, "me");
    let mut calls = Vec::new();
    for (node, peer) in [
        (Node::Rank(3), Peer::Child(3)),
        (Node::Rank(0), Peer::Parent),
    ] {
        let call = client.rpc("far.x", node, &json!({}));
        settle(&client, "me").await;
        let (to, request) = sent.take().pop().unwrap();
        assert_eq!(to, peer);
        calls.push((call, peer, request));
    }
    for (call, peer, request) in calls {
        router.send(gone(peer));
        // What comes after that is nobody's.
        router.send(from_peer(peer, request.response(0, None)));
        let error = call.await.unwrap_err();
        assert_eq!(error.errno, libc::EHOSTUNREACH);
        let told = error.to_string().contains("lost connection");
        assert_eq!(told, peer == Peer::Parent, "{error}");
    }
}

#[tokio::test]
async fn forwarded_requests_of_lost_peers_end_at_once() {
    let (router, sent, _peers) = router(1);
    let (client, _inbox) = service(&router, "me");
    let mut request = Message::request("far.x", 3, 9, 0, None);
    request.push_route("client".into());
    router.send(from_peer(Peer::Parent, request));
    settle(&client, "me").await;
    assert_eq!(sent.take().pop().unwrap().0, Peer::Child(3));
    router.send(gone(Peer::Child(3)));
    settle(&client, "me").await;
    let (peer, answer) = sent.take().pop().unwrap();
    assert_eq!(
        (peer, answer.matchtag(), answer.routes().len()),
        (Peer::Parent, 9, 1)
    );
    assert_eq!(answer.into_result().unwrap_err().errno, libc::EHOSTUNREACH);
}

#[tokio::test]
async fn services_hear_of_clients_below_a_lost_peer() {
    let (router, sent, _peers) = router(0);
    let (server, mut inbox) = service(&router, "svc");
    let mut topics = Vec::new();
    for (client, tag) in [("a", 1), ("a", 2), ("b", 1)] {
        let mut request = Message::request("svc.watch", u32::MAX, tag, 0, None);
        request.set_credentials(OWNER);
        request.push_route(client.into());
        router.send(from_peer(Peer::Child(1), request));
        let request = inbox.recv().await.unwrap();
        if tag == 2 {
            server.respond_ok(&request);
        }
    }
    settle(&server, "svc").await;
    sent.take();
    router.send(gone(Peer::Child(1)));
    for _ in 0..2 {
        let notice = inbox.recv().await.unwrap();
        topics.push((
            notice.topic().to_owned(),
            notice.sender().unwrap().to_string(),
        ));
    }
    let notice = |client: &str| ("svc.disconnect".to_owned(), client.to_owned());
    assert_eq!(topics, [notice("a"), notice("b")]);
    settle(&server, "svc").await;
    assert!(inbox.try_recv().is_none());
}

#[tokio::test]
async fn requests_wait_for_the_parent_or_are_refused() {
    let topology = Topology::new(Shape::Kary(2), 7);
    let (router, _peers) = start(1, OWNER, topology);
    let sent = Sent::default();
    router.send(Input::SetTransport(Box::new(sent.clone())));
    let (module, _inbox) = service(&router, "me");
    let call = module.rpc("far.x", Node::Rank(0), &json!({}));
    let (queue, mut replies) = super::ClientQueue::new(super::Bounds::default().unread);
    let id = super::new_id();
    router.send(Input::Attach {
        id: id.clone(),
        cred: OWNER,
        sink: Sink::Client(queue),
        services: Vec::new(),
        card: None,
    });
    router.send(Input::FromEndpoint(
        id,
        Message::request("far.x", 0, 1, 0, None),
    ));
    let mut batch = Vec::new();
    assert!(replies.take(&mut batch, 1).await);
    let (reply, _) = batch.pop().unwrap();
    let refused = reply.into_result().unwrap_err();
    assert_eq!(refused.errno, libc::EAGAIN);
    assert!(sent.take().is_empty());
    router.send(Input::FromPeer(Incoming::Joined(Peer::Parent, Session(1))));
    settle(&module, "me").await;
    let (_, request) = sent.take().pop().unwrap();
    router.send(from_peer(Peer::Parent, request.response(0, None)));
    call.await.unwrap();
}

#[tokio::test]
async fn peers_may_speak_before_there_is_a_way_to_answer() {
    let (router, _peers) = start(1, OWNER, Topology::new(Shape::Kary(2), 7));
    let (client, _inbox) = service(&router, "me");
    let child = Peer::Child(3);
    router.send(Input::FromPeer(Incoming::Joined(child, Session(1))));
    let mut ping = Message::request("me.ping", 1, 1, 0, Some("{}\0".into()));
    ping.set_credentials(OWNER);
    ping.push_route("asker".into());
    router.send(from_peer(child, ping));
    router.send(Input::FromPeer(Incoming::Joined(Peer::Parent, Session(1))));
    let call = client.rpc("far.x", Node::Upstream, &json!({}));
    let sent = Sent::default();
    router.send(Input::SetTransport(Box::new(sent.clone())));
    settle(&client, "me").await;
    let sent: Vec<_> = sent
        .take()
        .iter()
        .map(|(p, m)| (*p, m.topic().to_owned()))
        .collect();
    let want = [(child, "me.ping"), (Peer::Parent, "far.x")];
    assert_eq!(sent, want.map(|(peer, topic)| (peer, topic.to_owned())));
    drop(call);
}

#[tokio::test]
async fn what_is_not_opened_to_guests_is_refused_them() {
    let (router, sent, _peers) = router(1);
    let (_server, mut inbox) = service(&router, "kvs");
    let guest = Credentials {
        userid: 5,
        rolemask: wire::ROLE_USER,
    };
    for (topic, tag) in [("kvs.dropcache", 1), ("kvs.lookup", 2)] {
        let mut request = Message::request(topic, 1, tag, 0, None);
        request.set_credentials(guest);
        request.push_route("asker".into());
        router.send(from_peer(Peer::Child(3), request));
    }
    let request = inbox.recv().await.unwrap();
    assert_eq!((request.topic(), request.userid()), ("kvs.lookup", 5));
    let (_, answer) = sent.take().pop().unwrap();
    assert_eq!(answer.into_result().unwrap_err().errno, libc::EPERM);
}

#[tokio::test]
async fn peers_that_do_not_keep_up_get_no_requests() {
    let (router, sent, _peers) = router(1);
    let (client, _inbox) = service(&router, "me");
    sent.1.store(
        overlay::backlog::Bounds::default().soft + 1,
        Ordering::Relaxed,
    );
    let call = client.rpc("far.x", Node::Rank(3), &json!({}));
    assert_eq!(call.await.unwrap_err().errno, libc::EAGAIN);
}

#[tokio::test]
async fn events_come_once() {
    let (router, sent, _peers) = router(1);
    let (client, mut inbox) = service(&router, "me");
    client.subscribe("").await.unwrap();
    for sequence in [4, 4, 3, 5] {
        let mut event = Message::event("a", 0, None);
        event.set_sequence(sequence);
        event.set_credentials(OWNER);
        router.send(from_peer(Peer::Parent, event));
    }
    settle(&client, "me").await;
    assert_eq!(sent.take().len(), 4, "two events to two children");
    for want in [4, 5] {
        let event = inbox.recv().await.unwrap();
        assert!(matches!(event.kind(), wire::Kind::Event { sequence } if sequence == want));
    }
    assert!(inbox.try_recv().is_none());
}
