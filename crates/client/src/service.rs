//! Services that a program offers over its handle (RFC 6; `service.add` of the broker).
//!
//! Invariants: every request gets exactly one final response, also when its handler panics, is cancelled or the
//! service ends, unless its sender has gone; a handler runs only for senders with a role it is open to (RFC 12).

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use wire::{Message, RpcError, json_payload};

use crate::handle::{Handle, Node, lock};
use crate::services::service::{Add, Remove};

/// Handlers that run at one time; further requests wait for their turn. More would not be served faster, and a
/// flood of requests should not become a flood of whatever handlers do.
const CONCURRENT: usize = 1024;

/// Requests to a service name of this program. Dropping it takes the name back.
///
/// [`Service`] answers requests with handlers; this is for those who want them raw.
pub struct Requests {
    handle: Handle,
    name: String,
    rx: UnboundedReceiver<Message>,
}

impl Requests {
    /// The next request; `None` when the connection is gone for good.
    ///
    /// The queue has no limit of its own: a request is one call of a client, and those are limited.
    pub async fn recv(&mut self) -> Option<Message> {
        self.rx.recv().await
    }

    /// The next request, if it has arrived already.
    pub fn try_recv(&mut self) -> Option<Message> {
        self.rx.try_recv().ok()
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        lock(&self.handle.0.receivers).services.remove(&self.name);
        let service = &self.name;
        self.handle
            .notify("service.remove", Node::Any, &Remove { service });
        // What has arrived already is not forgotten.
        self.rx.close();
        while let Ok(request) = self.rx.try_recv() {
            self.handle.respond_enosys(&request);
        }
    }
}

impl Handle {
    /// Register a service name with the broker and take its requests.
    ///
    /// Guests may use names that start with their user id and a hyphen. Errors: EEXIST if the name is taken.
    pub async fn register(&self, service: &str) -> Result<Requests, RpcError> {
        let (tx, rx) = unbounded_channel();
        {
            let mut receivers = lock(&self.0.receivers);
            if receivers.services.contains_key(service) {
                let text = format!("service {service} is already registered here");
                return Err(RpcError::new(libc::EEXIST, text));
            }
            receivers.services.insert(service.to_owned(), tx);
        }
        if let Err(e) = self.ask(Node::Any, &Add { service }).await {
            lock(&self.0.receivers).services.remove(service);
            return Err(e);
        }
        Ok(Requests {
            handle: self.clone(),
            name: service.to_owned(),
            rx,
        })
    }
}

/// Sends the responses of a streaming request.
pub struct Responder {
    handle: Handle,
    request: Message,
}

impl Responder {
    /// Send one response.
    pub fn send(&self, payload: &(impl Serialize + ?Sized)) {
        self.handle.respond(&self.request, payload);
    }

    /// Send one response with raw bytes.
    pub fn send_raw(&self, payload: Option<Bytes>) {
        self.handle.respond_raw(&self.request, payload);
    }
}

/// What a handler has come to: the last response.
type Last = Result<Option<Bytes>, RpcError>;
type Handler = Arc<dyn Fn(Message, Responder) -> BoxFuture<'static, Last> + Send + Sync>;

type Notice = Box<dyn Fn(&Message) + Send + Sync>;

struct Method {
    allow: u32,
    streaming: bool,
    handler: Handler,
}

/// A service made of handlers.
///
/// ```no_run
/// use client::{Handle, RpcError, Service};
/// use serde_json::{Value, json};
///
/// # async fn example(handle: Handle) -> Result<(), RpcError> {
/// let service = Service::new("echo")
///     // Open to guests, too.
///     .method("say", wire::ROLE_USER, async |request| {
///         let payload: Value = request.json()?;
///         Ok(json!({ "said": payload, "to": request.userid() }))
///     })
///     // For the owner only; ends by itself after three responses.
///     .streaming("count", wire::ROLE_OWNER, async |_request, responder| {
///         (1..=3).for_each(|n| responder.send(&json!({ "n": n })));
///         Ok(())
///     })
///     .cancelled_by("cancel")
///     .serve(&handle)
///     .await?;
/// // Until the connection is gone, or somebody calls `stop`.
/// service.ended().await;
/// # Ok(())
/// # }
/// ```
pub struct Service {
    name: String,
    methods: HashMap<String, Method>,
    cancel: Option<String>,
    on_disconnect: Option<Notice>,
}

impl Service {
    /// A service without methods.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            methods: HashMap::new(),
            cancel: None,
            on_disconnect: None,
        }
    }

    /// Answer NAME.`method` with a JSON object. `allow` are the roles it is open to, besides the owner.
    #[must_use]
    pub fn method<T, F, Fut>(mut self, method: &str, allow: u32, handler: F) -> Self
    where
        T: Serialize,
        F: Fn(Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, RpcError>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request, _| {
            let answer = handler(request);
            Box::pin(async move { Ok(Some(json_payload(&answer.await?)?)) })
        });
        self.insert(method, allow, false, handler);
        self
    }

    /// Answer NAME.`method` with many responses. When the handler returns, the stream ends.
    #[must_use]
    pub fn streaming<F, Fut>(mut self, method: &str, allow: u32, handler: F) -> Self
    where
        F: Fn(Message, Responder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request, responder| {
            let work = handler(request, responder);
            Box::pin(async move {
                work.await?;
                Err(RpcError::errno(libc::ENODATA))
            })
        });
        self.insert(method, allow, true, handler);
        self
    }

    fn insert(&mut self, method: &str, allow: u32, streaming: bool, handler: Handler) {
        let entry = Method {
            allow,
            streaming,
            handler,
        };
        self.methods.insert(method.to_owned(), entry);
    }

    /// Let NAME.`method` with a matchtag cancel a request of the same sender (RFC 6): its handler is stopped and it is
    /// answered ECANCELED.
    #[must_use]
    pub fn cancelled_by(mut self, method: &str) -> Self {
        self.cancel = Some(method.to_owned());
        self
    }

    /// Call this when a client that had sent requests has gone. Its handlers are stopped in any case.
    #[must_use]
    pub fn on_disconnect(mut self, then: impl Fn(&Message) + Send + Sync + 'static) -> Self {
        self.on_disconnect = Some(Box::new(then));
        self
    }

    /// Register the name and start to answer.
    pub async fn serve(self, handle: &Handle) -> Result<Serving, RpcError> {
        let requests = handle.register(&self.name).await?;
        let (stop, stopped) = oneshot::channel();
        let server = Server {
            service: self,
            handle: handle.clone(),
            turns: Arc::new(Semaphore::new(CONCURRENT)),
            tasks: JoinSet::new(),
            open: HashMap::new(),
        };
        let task = tokio::spawn(server.run(requests, stopped));
        Ok(Serving { stop, task })
    }
}

/// A running service. Dropping it ends the service.
pub struct Serving {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Take the name back, stop the handlers that run and answer their requests ENOSYS.
    pub async fn stop(self) {
        let Self { stop, task } = self;
        drop(stop);
        // The task itself does not panic; handlers run in their own.
        let _ = task.await;
    }

    /// Wait until the connection is gone for good.
    pub async fn ended(self) {
        let Self { stop, task } = self;
        let _ = task.await;
        drop(stop);
    }
}

/// A request whose handler runs.
struct Open {
    request: Message,
    abort: AbortHandle,
    /// What to answer when it was stopped.
    stopped: Option<RpcError>,
}

struct Server {
    service: Service,
    handle: Handle,
    turns: Arc<Semaphore>,
    tasks: JoinSet<()>,
    open: HashMap<Id, Open>,
}

impl Server {
    async fn run(mut self, mut requests: Requests, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(done) = self.tasks.join_next_with_id() => self.done(done),
                request = requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => break,
                },
            }
        }
        drop(requests);
        for open in self.open.values_mut() {
            open.stopped = Some(RpcError::new(libc::ENOSYS, "the service has ended"));
            open.abort.abort();
        }
        while let Some(done) = self.tasks.join_next_with_id().await {
            self.done(done);
        }
    }

    fn request(&mut self, request: Message) {
        let name = request.method();
        if name == "disconnect" {
            if let Some(then) = &self.service.on_disconnect {
                then(&request);
            }
            self.stop(|open| open.is_same_rpc(&request, None), None);
            return;
        }
        if self.service.cancel.as_deref() == Some(name) {
            // Nobody hears of a malformed cancellation: it has no response.
            if let Ok(matchtag) = request.cancelled() {
                let why = RpcError::errno(libc::ECANCELED);
                self.stop(|open| open.is_same_rpc(&request, Some(matchtag)), Some(why));
            }
            return;
        }
        let Some(method) = self.service.methods.get(name) else {
            self.handle.respond_enosys(&request);
            return;
        };
        let allowed = request.require_role(method.allow);
        let allowed = match method.streaming {
            true => allowed.and_then(|()| request.require_streaming()),
            false => allowed,
        };
        if let Err(e) = allowed {
            self.handle.respond_error(&request, &e);
            return;
        }
        let (handler, handle, turns) = (
            method.handler.clone(),
            self.handle.clone(),
            self.turns.clone(),
        );
        let asked = request.clone();
        let abort = self.tasks.spawn(async move {
            // Never closed.
            let _turn = turns.acquire().await;
            let responder = Responder {
                handle: handle.clone(),
                request: asked.clone(),
            };
            match handler(asked.clone(), responder).await {
                Ok(payload) => handle.respond_raw(&asked, payload),
                Err(e) => handle.respond_error(&asked, &e),
            }
        });
        let open = Open {
            request,
            abort: abort.clone(),
            stopped: None,
        };
        self.open.insert(abort.id(), open);
    }

    /// Stop handlers; their requests are answered with `why`, if there is anybody to tell.
    fn stop(&mut self, which: impl Fn(&Message) -> bool, why: Option<RpcError>) {
        for open in self.open.values_mut().filter(|o| which(&o.request)) {
            open.stopped = why.clone();
            open.abort.abort();
        }
    }

    /// A handler's task has ended. Unless it ran to its end, nothing has been answered.
    fn done(&mut self, done: Result<(Id, ()), JoinError>) {
        let (id, error) = match done {
            Ok((id, ())) => (id, None),
            Err(e) => (e.id(), Some(e)),
        };
        let Some(open) = self.open.remove(&id) else {
            return;
        };
        match error {
            Some(e) if e.is_panic() => {
                let text = format!("{}: the service failed", open.request.topic());
                let error = RpcError::new(libc::EIO, text);
                self.handle.respond_error(&open.request, &error);
            }
            Some(_) => {
                if let Some(why) = open.stopped {
                    self.handle.respond_error(&open.request, &why);
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Deliver;
    use serde_json::json;
    use wire::{Credentials, Flags};

    /// The broker's side: takes what the program sends, sends it requests.
    struct Broker {
        deliver: Deliver,
        sent: UnboundedReceiver<Message>,
    }

    impl Broker {
        async fn registered(&mut self) {
            let request = self.sent.recv().await.unwrap();
            assert_eq!(request.topic(), "service.add");
            self.deliver.deliver(request.response(0, None));
        }

        fn ask(&self, topic: &str, tag: u32, flags: u8, payload: &serde_json::Value) {
            let payload = json_payload(payload).ok();
            let mut request = Message::request(topic, 0, tag, flags, payload);
            request.set_credentials(Credentials::guest(100));
            request.push_route("client".into());
            self.deliver.deliver(request);
        }

        async fn answer(&mut self) -> (u32, Result<Message, RpcError>) {
            let answer = self.sent.recv().await.unwrap();
            (answer.matchtag(), answer.into_result())
        }

        async fn errno(&mut self) -> (u32, i32) {
            let (tag, result) = self.answer().await;
            (tag, result.unwrap_err().errno)
        }
    }

    async fn serving(service: Service) -> (Serving, Handle, Broker) {
        let (tx, sent) = unbounded_channel();
        let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
        let mut broker = Broker { deliver, sent };
        let (serving, ()) = tokio::join!(service.serve(&handle), broker.registered());
        (serving.unwrap(), handle, broker)
    }

    fn sample() -> Service {
        Service::new("x")
            .method("double", wire::ROLE_USER, async |request: Message| {
                let n: serde_json::Value = request.json()?;
                let n = n["n"]
                    .as_u64()
                    .ok_or_else(|| RpcError::proto("n: must be a number"))?;
                Ok(json!({ "n": 2 * n }))
            })
            .method("secret", wire::ROLE_OWNER, async |_| Ok(json!({})))
            .method("broken", wire::ROLE_USER, async |request: Message| {
                assert!(request.is_event(), "a handler's mistake");
                Ok(json!({}))
            })
            .streaming("count", wire::ROLE_USER, async |_, responder: Responder| {
                (0..2).for_each(|n| responder.send(&json!({ "n": n })));
                Ok(())
            })
            .streaming(
                "forever",
                wire::ROLE_USER,
                async |_, responder: Responder| {
                    responder.send(&json!({}));
                    std::future::pending().await
                },
            )
            .cancelled_by("cancel")
    }

    #[tokio::test]
    async fn requests_are_dispatched_and_checked() {
        let (_serving, _handle, mut broker) = serving(sample()).await;
        broker.ask("x.double", 1, 0, &json!({"n": 4}));
        let (tag, answer) = broker.answer().await;
        assert_eq!(tag, 1);
        assert_eq!(
            answer.unwrap().json::<serde_json::Value>().unwrap(),
            json!({"n": 8})
        );
        broker.ask("x.double", 2, 0, &json!({}));
        assert_eq!(broker.errno().await, (2, libc::EPROTO));
        broker.ask("x.secret", 3, 0, &json!({}));
        assert_eq!(broker.errno().await, (3, libc::EPERM));
        broker.ask("x.nothing", 4, 0, &json!({}));
        assert_eq!(broker.errno().await, (4, libc::ENOSYS));
        broker.ask("x.count", 5, 0, &json!({}));
        assert_eq!(broker.errno().await, (5, libc::EPROTO), "must be streaming");
        broker.ask("x.double", 6, Flags::NORESPONSE, &json!({"n": 1}));
        broker.ask("x.broken", 7, 0, &json!({}));
        assert_eq!(broker.errno().await, (7, libc::EIO));
    }

    #[tokio::test]
    async fn streams_end_are_cancelled_and_disconnected() {
        let gone = Arc::new(Semaphore::new(0));
        let told = gone.clone();
        let service = sample().on_disconnect(move |_| told.add_permits(1));
        let (serving, handle, mut broker) = serving(service).await;
        broker.ask("x.count", 1, Flags::STREAMING, &json!({}));
        assert!(broker.answer().await.1.is_ok() && broker.answer().await.1.is_ok());
        assert_eq!(broker.errno().await, (1, libc::ENODATA));

        for tag in [2, 3, 4] {
            broker.ask("x.forever", tag, Flags::STREAMING, &json!({}));
            assert!(broker.answer().await.1.is_ok());
        }
        broker.ask("x.cancel", 0, Flags::NORESPONSE, &json!({"matchtag": 3}));
        assert_eq!(broker.errno().await, (3, libc::ECANCELED));
        broker.ask("x.disconnect", 0, Flags::NORESPONSE, &json!({}));
        gone.acquire().await.unwrap().forget();
        broker.ask("x.forever", 5, Flags::STREAMING, &json!({}));
        assert_eq!(broker.answer().await.0, 5, "2 and 4 got no response");
        tokio::join!(serving.stop(), async {
            assert_eq!(broker.sent.recv().await.unwrap().topic(), "service.remove");
            assert_eq!(broker.errno().await, (5, libc::ENOSYS));
        });
        drop(handle);
    }

    #[tokio::test]
    async fn a_name_is_taken_once() {
        let (_serving, handle, _broker) = serving(sample()).await;
        let again = handle.register("x").await;
        assert_eq!(again.err().unwrap().errno, libc::EEXIST);
    }
}
