//! The local connector: a UNIX socket that lets programs on this host speak to the broker.
//!
//! The kernel tells who connects; those the configuration lets in get their role ([`crate::access`]), others are turned
//! away with EPERM in the one-byte welcome. Messages then flow framed as in [`wire::encode_frame`].
//!
//! What a connection has under way is bounded: each message takes its size from the connection's window and gives it
//! back when it leaves the last inbox or queue on this broker. With an empty window the socket is not read, so a
//! program that asks faster than it is served waits in its own `write`. This cannot deadlock: only programs wait, each
//! for its own messages; the router, modules and responses never do. Modules have no window (one that waited for its
//! own requests to be taken could be what the other one waits for); what they send is bounded by what they are asked.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use wire::{FrameDecoder, FrameQueue};

use crate::access::Door;
use crate::router::{
    ClientMessages, ClientQueue, EndpointId, Input, RouterHandle, Sink, new_id, weight,
};

/// Bytes one connection may have under way. A single message may be larger: it then goes alone.
const WINDOW: usize = 16 << 20;

/// Whether what comes from a stream is bounded.
#[derive(Clone, Copy)]
pub(crate) enum Window {
    /// By [`WINDOW`].
    Bounded,
    /// Not: it is a module's.
    Open,
}

/// How long a broker that ends waits for programs to take what is left for them.
const DRAIN: Duration = Duration::from_secs(1);
/// Descriptors that connections leave to the broker itself: for peers, files and pipes to processes.
const RESERVE: u64 = 128;
/// After this, accepting connections is tried again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);
const READ_CHUNK: usize = 16 * 1024;
const WRITE_BATCH: usize = 64;

/// The connections of one socket.
pub(crate) struct Connections(mpsc::Receiver<()>);

impl Connections {
    /// Wait until what the router left for programs is written. One that does not read is not waited for.
    pub(crate) async fn drained(mut self) {
        let _ = tokio::time::timeout(DRAIN, self.0.recv()).await;
    }
}

/// Listen on `path` and serve connections until the router ends.
pub(crate) fn listen(
    path: &Path,
    door: Door,
    router: RouterHandle,
) -> std::io::Result<Connections> {
    let listener = UnixListener::bind(path)?;
    // Whoever may reach the directory may ask; what is answered depends on who it is.
    std::fs::set_permissions(path, Permissions::from_mode(0o777))?;
    // Nothing is sent; the channel closes with the last connection.
    let (open, connections) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(places()));
    tokio::spawn(async move {
        // Who knocks while there is no place waits in the kernel's queue. The semaphore is never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            let io = tokio::select! {
                io = listener.accept() => io,
                () = router.closed() => return,
            };
            let Ok((io, _)) = io else {
                // For want of descriptors, or the other end has gone already: neither ends the service.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let (router, door, open) = (router.clone(), door.clone(), open.clone());
            tokio::spawn(async move {
                serve(io, &door, router).await;
                drop((place, open));
            });
        }
    });
    Ok(Connections(connections))
}

/// How many connections there may be at once.
fn places() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let places = limit - RESERVE.min(limit / 2);
    usize::try_from(places).map_or(Semaphore::MAX_PERMITS, |n| {
        n.clamp(1, Semaphore::MAX_PERMITS)
    })
}

async fn serve(mut io: UnixStream, door: &Door, router: RouterHandle) {
    let Ok(peer) = io.peer_cred() else { return };
    let cred = match door.admit(peer.uid()) {
        Ok(cred) => cred,
        Err(text) => {
            let entry = crate::log::entry(router.rank(), libc::LOG_ERR, "connector-local", &text);
            router.log(entry);
            let _ = io.write_u8(libc::EPERM as u8).await;
            return;
        }
    };
    if io.write_u8(0).await.is_err() {
        return;
    }
    let id = new_id();
    let (queue, messages) = ClientQueue::new(crate::router::Bounds::default().unread);
    router.send(Input::Attach {
        id: id.clone(),
        cred,
        sink: Sink::Client(queue.clone()),
        services: Vec::new(),
        card: None,
    });
    carry(io, &id, queue, messages, &router, Window::Bounded).await;
    router.send(Input::Detach(id));
}

/// Carry messages both ways until the stream ends or its other end has stopped reading.
pub(crate) async fn carry(
    io: UnixStream,
    id: &EndpointId,
    queue: ClientQueue,
    messages: ClientMessages,
    router: &RouterHandle,
    window: Window,
) {
    let (mut reader, writer) = io.into_split();
    let writing = tokio::spawn(write(writer, messages));
    tokio::select! {
        // Whatever ends reading, the other end is gone.
        _ = read(&mut reader, id, router, window) => {}
        () = router.closed() => {
            // The last that held the queue: its end is that of the messages.
            drop(queue);
            // What cannot be written any more is nobody's.
            let _ = writing.await;
        }
        () = queue.overflow() => {
            let text = format!("{} bytes wait for a program that does not read: cut off", queue.unread());
            let entry = crate::log::entry(router.rank(), libc::LOG_WARNING, "connector-local", &text);
            router.log(entry);
            writing.abort();
        }
    }
}

/// Read messages into the router, no more at a time than the window lets.
async fn read(
    io: &mut OwnedReadHalf,
    id: &EndpointId,
    router: &RouterHandle,
    window: Window,
) -> std::io::Result<()> {
    let room = Arc::new(Semaphore::new(WINDOW));
    let mut decoder = FrameDecoder::default();
    loop {
        while let Some(msg) = decoder.next_message().map_err(std::io::Error::other)? {
            if let Window::Open = window {
                router.send(Input::FromEndpoint(id.clone(), msg));
                continue;
            }
            let share = weight(&msg).min(WINDOW) as u32;
            // The semaphore is never closed.
            let Ok(hold) = room.clone().acquire_many_owned(share).await else {
                return Ok(());
            };
            router.send(Input::FromClient(id.clone(), msg, Arc::new(hold)));
        }
        decoder.buffer().reserve(READ_CHUNK);
        if io.read_buf(decoder.buffer()).await? == 0 {
            return Ok(());
        }
    }
}

/// Write messages, many per system call; what they hold is let go once they are written.
async fn write(mut io: OwnedWriteHalf, mut messages: ClientMessages) -> std::io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    let mut frames = FrameQueue::default();
    while messages.take(&mut batch, WRITE_BATCH).await {
        let mut bytes = 0;
        for (msg, _) in &batch {
            frames.push(msg).map_err(std::io::Error::other)?;
            bytes += weight(msg);
        }
        io.write_all_buf(&mut frames).await?;
        batch.clear();
        messages.written(bytes);
    }
    io.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use client::module::Meter;
    use client::{Handle, Node, OpenOptions, Responder, Service};
    use overlay::Topology;
    use overlay::topology::Shape;
    use serde_json::{Value, json};
    use tokio::sync::mpsc::unbounded_channel;
    use tokio::sync::watch;
    use wire::{Credentials, Message, ROLE_OWNER, ROLE_USER, RpcError};

    /// A router that listens on a socket.
    struct Instance {
        dir: tempfile::TempDir,
        router: RouterHandle,
    }

    impl Instance {
        fn new() -> Self {
            let owner = nix::unistd::getuid().as_raw();
            let dir = tempfile::tempdir().unwrap();
            let (router, _) = crate::router::start(
                0,
                Credentials::owner(owner),
                Topology::new(Shape::Kary(2), 1),
            );
            let door = Door {
                owner,
                access: watch::channel(Access::default()).1,
                meter: Arc::new(Meter::new("connector-local")),
            };
            listen(&dir.path().join("local"), door, router.clone()).unwrap();
            Self { dir, router }
        }

        async fn open(&self, options: OpenOptions) -> Handle {
            let uri = format!("local://{}/local", self.dir.path().display());
            options.open(Some(&uri)).await.unwrap()
        }
    }

    fn echo() -> Service {
        Service::new("echo")
            .method("who", ROLE_USER, async |request: Message| {
                Ok(json!({ "userid": request.userid(), "rolemask": request.rolemask() }))
            })
            .method("secret", ROLE_OWNER, async |_| Ok(json!({})))
            .streaming(
                "count",
                ROLE_USER,
                async |request: Message, out: Responder| {
                    let range: Value = request.json()?;
                    (0..range["n"].as_u64().unwrap_or(0))
                        .for_each(|n| out.send(&json!({ "n": n })));
                    Ok(())
                },
            )
            .streaming("forever", ROLE_USER, async |_, out: Responder| {
                out.send(&json!({}));
                std::future::pending().await
            })
            .cancelled_by("cancel")
    }

    #[tokio::test]
    async fn programs_serve_each_other() {
        let instance = Instance::new();
        let server = instance.open(OpenOptions::new()).await;
        let serving = echo().serve(&server).await.unwrap();
        let client = instance.open(OpenOptions::new()).await;
        let again = echo().serve(&client).await;
        assert_eq!(again.err().unwrap().errno, libc::EEXIST);

        let uid = nix::unistd::getuid().as_raw();
        let who: Value = client
            .call("echo.who", Node::Any, &json!({}))
            .await
            .unwrap();
        assert_eq!(who, json!({ "userid": uid, "rolemask": 5 }));
        let mut stream = client.stream("echo.count", Node::Rank(0), &json!({"n": 1000}));
        let mut count = 0;
        while let Some(item) = stream.next().await {
            assert_eq!(item.unwrap().json::<Value>().unwrap()["n"], count);
            count += 1;
        }
        assert_eq!(count, 1000);
        let mut stream = client.stream("echo.forever", Node::Any, &json!({}));
        stream.next().await.unwrap().unwrap();
        stream.cancel("echo.cancel");
        let end = stream.next().await.unwrap().unwrap_err();
        assert_eq!(end.errno, libc::ECANCELED);

        serving.stop().await;
        let gone = client.rpc("echo.who", Node::Any, &json!({})).await;
        assert_eq!(gone.unwrap_err().errno, libc::ENOSYS);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_what_it_asked_for() {
        let instance = Instance::new();
        let server = instance.open(OpenOptions::new()).await;
        let (told, mut disconnects) = unbounded_channel();
        let service = echo().on_disconnect(move |msg| drop(told.send(msg.topic().to_owned())));
        let _serving = service.serve(&server).await.unwrap();
        let client = instance.open(OpenOptions::new()).await;
        let mut stream = client.stream("echo.forever", Node::Any, &json!({}));
        stream.next().await.unwrap().unwrap();
        drop(stream);
        drop(client);
        assert_eq!(disconnects.recv().await.unwrap(), "echo.disconnect");
    }

    #[tokio::test]
    async fn the_owner_may_claim_to_be_a_guest() {
        let instance = Instance::new();
        let server = instance.open(OpenOptions::new()).await;
        let _serving = echo().serve(&server).await.unwrap();
        let guest = Credentials {
            userid: 77,
            rolemask: ROLE_USER,
        };
        let client = instance.open(OpenOptions::new().claim(guest)).await;
        let who: Value = client
            .call("echo.who", Node::Any, &json!({}))
            .await
            .unwrap();
        assert_eq!(who, json!({ "userid": 77, "rolemask": ROLE_USER }));
        let refused = client.rpc("echo.secret", Node::Any, &json!({})).await;
        assert_eq!(refused.unwrap_err().errno, libc::EPERM);
        let taken = client.register("mine").await;
        assert_eq!(taken.err().unwrap().errno, libc::EPERM);
        assert!(client.register("77-mine").await.is_ok());
    }

    #[tokio::test]
    async fn each_task_has_its_own_events() {
        let instance = Instance::new();
        let handle = instance.open(OpenOptions::new()).await;
        let mut a = handle.events(&["a."]).await.unwrap();
        let mut both = handle.events(&["a.", "b."]).await.unwrap();
        for topic in ["a.1", "b.1", "c.1", "a.2"] {
            handle
                .publish(topic, &json!({ "topic": topic }))
                .await
                .unwrap();
        }
        let next = async |events: &mut client::Events| {
            events.next_json::<Value>().await.unwrap().unwrap()["topic"].clone()
        };
        assert_eq!(
            (next(&mut a).await, next(&mut a).await),
            (json!("a.1"), json!("a.2"))
        );
        for want in ["a.1", "b.1", "a.2"] {
            assert_eq!(next(&mut both).await, want);
        }
        drop(both);
        handle
            .publish("a.3", &json!({"topic": "a.3"}))
            .await
            .unwrap();
        assert_eq!(
            next(&mut a).await,
            "a.3",
            "the other subscription to the same prefix stays"
        );
    }

    #[tokio::test]
    async fn a_program_that_does_not_read_is_cut_off() {
        let instance = Instance::new();
        let (io, deaf) = UnixStream::pair().unwrap();
        let (queue, messages) = ClientQueue::new(64 << 10);
        let (id, router) = (new_id(), instance.router.clone());
        router.send(Input::Attach {
            id: id.clone(),
            cred: Credentials::owner(0),
            sink: Sink::Client(queue.clone()),
            services: Vec::new(),
            card: None,
        });
        let payload = wire::json_payload(&json!({ "topic": "news" })).unwrap();
        let subscribe = Message::request("event.subscribe", 0, 1, 0, Some(payload));
        router.send(Input::FromEndpoint(id.clone(), subscribe));
        let (to, keys) = (router.clone(), id.clone());
        let carried = tokio::spawn(async move {
            carry(io, &keys, queue, messages, &to, Window::Bounded).await;
        });
        let other = instance.open(OpenOptions::new()).await;
        let mut events = other.events(&["news"]).await.unwrap();
        let text = json!({ "text": "x".repeat(16 << 10) });
        for _ in 0..64 {
            other.publish("news", &text).await.unwrap();
            events.next().await.unwrap().unwrap();
        }
        carried.await.unwrap();
        drop(deaf);
    }

    #[tokio::test]
    async fn large_payloads_pass_unchanged() {
        let instance = Instance::new();
        let (_, module) = instance
            .router
            .attach(Credentials::owner(0), vec!["m".into()]);
        let mut inbox = module.inbox().unwrap();
        let client = instance.open(OpenOptions::new()).await;
        let payload: bytes::Bytes = (0..3_000_000u32)
            .map(|n| n as u8)
            .collect::<Vec<_>>()
            .into();
        let call = client.rpc_raw("m.echo", Node::Any, Some(payload.clone()));
        let request = inbox.recv().await.unwrap();
        module.respond_raw(&request, request.payload().cloned());
        assert_eq!(call.await.unwrap().payload(), Some(&payload));
        let call = client.rpc_raw("m.none", Node::Any, None);
        let request = inbox.recv().await.unwrap();
        module.respond_error(&request, &RpcError::errno(libc::ENOENT));
        assert_eq!(
            call.await.unwrap_err().to_string(),
            "No such file or directory"
        );
    }
}
