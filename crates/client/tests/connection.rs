//! The local connector's client side against a socket server in the test: handshake, retries, reconnection.

use std::path::PathBuf;
use std::time::Duration;

use client::stream::{read_messages, write_messages};
use client::{Handle, Node, OpenError, OpenOptions, Reconnect, Service, Status};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::{Message, RpcError, json_payload};

/// A directory with a socket in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("local")
    }

    fn uri(&self) -> String {
        format!("local://{}", self.path().display())
    }

    fn listen(&self) -> UnixListener {
        let _ = std::fs::remove_file(self.path());
        UnixListener::bind(self.path()).unwrap()
    }
}

/// The server's end of one connection.
struct Peer {
    received: UnboundedReceiver<Message>,
    send: UnboundedSender<Message>,
    tasks: [tokio::task::AbortHandle; 2],
}

impl Peer {
    fn new(io: UnixStream) -> Self {
        let (mut reader, mut writer) = io.into_split();
        let (tx, received) = unbounded_channel();
        let (send, mut queue) = unbounded_channel();
        let read = tokio::spawn(async move {
            // The test looks at what arrived, not at how it ended.
            let _ = read_messages(&mut reader, |msg| drop(tx.send(msg))).await;
        });
        let write = tokio::spawn(async move {
            let _ = write_messages(&mut writer, &mut queue).await;
        });
        Self {
            received,
            send,
            tasks: [read.abort_handle(), write.abort_handle()],
        }
    }

    async fn accept(listener: &UnixListener) -> Self {
        let (mut io, _) = listener.accept().await.unwrap();
        io.write_u8(0).await.unwrap();
        Self::new(io)
    }

    async fn next(&mut self) -> Message {
        self.received.recv().await.unwrap()
    }

    /// The next request, which must be to `topic`, is answered well.
    async fn grant(&mut self, topic: &str) -> Value {
        let request = self.next().await;
        assert_eq!(request.topic(), topic);
        self.send.send(request.response(0, None)).unwrap();
        request.json().unwrap()
    }

    /// Close the connection without a word, as a broker that is killed.
    fn die(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

fn quick() -> Reconnect {
    Reconnect {
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(5),
        attempts: None,
    }
}

async fn until(handle: &Handle, want: Status) {
    handle
        .status()
        .wait_for(|status| *status == want)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_call_over_a_socket() {
    let place = Place::new();
    let listener = place.listen();
    let uri = place.uri();
    let (handle, mut peer) = tokio::join!(Handle::open(Some(&uri)), Peer::accept(&listener));
    let handle = handle.unwrap();
    let large = "x".repeat(300_000);
    let call = handle.rpc("a.b", Node::Rank(3), &json!({ "large": large }));
    let request = peer.next().await;
    assert_eq!(request.json::<Value>().unwrap()["large"], large);
    let answer = json_payload(&json!({"ok": true})).ok();
    peer.send.send(request.response(0, answer)).unwrap();
    assert_eq!(
        call.await.unwrap().json::<Value>().unwrap(),
        json!({"ok": true})
    );
}

#[tokio::test]
async fn refusals_say_why() {
    let place = Place::new();
    let listener = place.listen();
    let uri = place.uri();
    let (handle, ()) = tokio::join!(Handle::open(Some(&uri)), async {
        let (mut io, _) = listener.accept().await.unwrap();
        io.write_u8(libc::EPERM as u8).await.unwrap();
    });
    let error = handle.err().unwrap();
    assert!(matches!(error, OpenError::Refused(1)));
    assert_eq!(
        error.to_string(),
        "broker refused the connection: Operation not permitted"
    );
}

#[tokio::test]
async fn a_socket_that_is_late_is_waited_for() {
    let place = Place::new();
    let none = OpenOptions::new().retries(0).open(Some(&place.uri())).await;
    assert!(matches!(none, Err(OpenError::NotFound(path)) if path == place.path()));
    let options = OpenOptions::new().retries(20);
    let uri = place.uri();
    let late = async {
        // The first attempt has been made by now: this task is polled after it.
        tokio::task::yield_now().await;
        Peer::accept(&place.listen()).await
    };
    let (handle, _peer) = tokio::join!(options.open(Some(&uri)), late);
    assert!(handle.is_ok());
}

#[tokio::test]
async fn the_last_handle_closes_the_connection_after_its_messages() {
    let place = Place::new();
    let listener = place.listen();
    let uri = place.uri();
    let (handle, mut peer) = tokio::join!(Handle::open(Some(&uri)), Peer::accept(&listener));
    let handle = handle.unwrap();
    for n in 0..100 {
        handle.notify("a.b", Node::Any, &json!({ "n": n }));
    }
    drop(handle.clone());
    drop(handle);
    for n in 0..100 {
        assert_eq!(peer.next().await.json::<Value>().unwrap()["n"], n);
    }
    assert!(peer.received.recv().await.is_none());
}

#[tokio::test]
async fn without_a_policy_a_lost_connection_is_the_end() {
    let place = Place::new();
    let listener = place.listen();
    let uri = place.uri();
    let (handle, mut peer) = tokio::join!(Handle::open(Some(&uri)), Peer::accept(&listener));
    let handle = handle.unwrap();
    let call = handle.rpc("a.b", Node::Any, &json!({}));
    peer.next().await;
    peer.die();
    assert_eq!(call.await.unwrap_err().errno, libc::ECONNRESET);
    until(&handle, Status::Closed).await;
    let after = handle.rpc("a.b", Node::Any, &json!({}));
    assert_eq!(after.await.unwrap_err().errno, libc::ECONNRESET);
}

#[tokio::test]
async fn a_connection_is_made_again_and_everything_restored() {
    let place = Place::new();
    let listener = place.listen();
    let uri = place.uri();
    let options = OpenOptions::new().reconnect(quick());
    let (handle, mut peer) = tokio::join!(options.open(Some(&uri)), Peer::accept(&listener));
    let handle = handle.unwrap();
    let (events, _) = tokio::join!(handle.events(&["job."]), peer.grant("event.subscribe"));
    let mut events = events.unwrap();
    let (subscribed, _) = tokio::join!(handle.subscribe("x"), peer.grant("event.subscribe"));
    subscribed.unwrap();
    let service = Service::new("echo").method("say", wire::ROLE_USER, async |request: Message| {
        request.json::<Value>()
    });
    let (serving, _) = tokio::join!(service.serve(&handle), peer.grant("service.add"));
    let _serving = serving.unwrap();

    let in_flight = handle.rpc("a.b", Node::Any, &json!({}));
    let mut stream = handle.stream("a.c", Node::Any, &json!({}));
    let old = peer.next().await;
    let old_stream = peer.next().await;
    drop(listener);
    peer.die();
    assert_eq!(in_flight.await.unwrap_err().errno, libc::ECONNRESET);
    assert_eq!(
        stream.next().await.unwrap().unwrap_err().errno,
        libc::ECONNRESET
    );
    until(&handle, Status::Lost).await;
    let between = handle.rpc("a.b", Node::Any, &json!({}));
    assert_eq!(between.await.unwrap_err().errno, libc::ECONNRESET);
    handle.notify("a.d", Node::Any, &json!({"for": "nobody"}));

    let listener = place.listen();
    let mut peer = Peer::accept(&listener).await;
    let topics = [
        peer.grant("event.subscribe").await["topic"].clone(),
        peer.grant("event.subscribe").await["topic"].clone(),
    ];
    assert_eq!(topics, ["job.", "x"]);
    assert_eq!(peer.grant("service.add").await["service"], "echo");
    until(&handle, Status::Connected(1)).await;

    // Answers to calls of the former connection, were a broker so confused as to send them, are for nobody.
    let call = handle.rpc("a.e", Node::Any, &json!({}));
    let request = peer.next().await;
    assert_eq!(
        request.topic(),
        "a.e",
        "what was said without a connection is not said now"
    );
    for stale in [old, old_stream] {
        if stale.matchtag() != request.matchtag() {
            peer.send.send(stale.response(0, None)).unwrap();
        }
    }
    peer.send.send(request.response(0, None)).unwrap();
    call.await.unwrap();
    peer.send
        .send(Message::event("job.state", 0, None))
        .unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().topic(), "job.state");
    let mut ask = Message::request("echo.say", 0, 9, 0, json_payload(&json!({"a": 1})).ok());
    ask.set_credentials(wire::Credentials::guest(1));
    peer.send.send(ask).unwrap();
    let answer = peer.next().await;
    assert_eq!(
        (answer.matchtag(), answer.json::<Value>().unwrap()),
        (9, json!({"a": 1}))
    );
}

#[tokio::test]
async fn a_name_taken_meanwhile_ends_its_service() {
    let place = Place::new();
    let listener = place.listen();
    let uri = place.uri();
    let options = OpenOptions::new().reconnect(quick());
    let (handle, mut peer) = tokio::join!(options.open(Some(&uri)), Peer::accept(&listener));
    let handle = handle.unwrap();
    let (requests, _) = tokio::join!(handle.register("echo"), peer.grant("service.add"));
    let mut requests = requests.unwrap();
    peer.die();
    let mut peer = Peer::accept(&listener).await;
    let request = peer.next().await;
    let taken = RpcError::errno(libc::EEXIST);
    peer.send.send(request.error_response(&taken)).unwrap();
    assert!(requests.recv().await.is_none());
    until(&handle, Status::Connected(1)).await;
}

#[tokio::test]
async fn a_policy_may_give_up() {
    let place = Place::new();
    let listener = place.listen();
    let uri = place.uri();
    let policy = Reconnect {
        attempts: Some(3),
        ..quick()
    };
    let options = OpenOptions::new().reconnect(policy);
    let (handle, peer) = tokio::join!(options.open(Some(&uri)), Peer::accept(&listener));
    let handle = handle.unwrap();
    let mut inbox = handle.inbox().unwrap();
    drop(listener);
    std::fs::remove_file(place.path()).unwrap();
    peer.die();
    assert!(inbox.recv().await.is_none());
    until(&handle, Status::Closed).await;
}
