//! The router with fake neighbours: where requests, responses and events go.

use std::sync::{Arc, Mutex};

use client::{Handle, Inbox, Node};
use overlay::topology::Shape;
use overlay::{Incoming, Peer, Topology, Transport};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{Credentials, Message};

use super::{Input, RouterHandle, Sink, start};

/// Messages sent to peers.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<(Peer, Message)>>>);

impl Sent {
    fn take(&self) -> Vec<(Peer, Message)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Transport for Sent {
    fn send(&self, peer: Peer, msg: Message) {
        self.0.lock().unwrap().push((peer, msg));
    }

    fn goodbye(&self, _peer: Peer) {}
}

const OWNER: Credentials = Credentials {
    userid: 1000,
    rolemask: 1,
};

/// The router of `rank` in a binary tree of 7, with all children joined.
fn router(rank: u32) -> (RouterHandle, Sent, UnboundedReceiver<Incoming>) {
    let topology = Topology::new(Shape::Kary(2), 7);
    let (router, peers) = start(rank, OWNER, topology);
    let sent = Sent::default();
    router.send(Input::SetTransport(Box::new(sent.clone())));
    for child in topology.children(rank) {
        router.send(Input::FromPeer(Incoming::Joined(Peer::Child(child))));
    }
    (router, sent, peers)
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
    router.send(Input::FromPeer(Incoming::Gone(Peer::Child(1))));
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
    let (queue, _messages) = super::ClientQueue::new();
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
