//! Futures and streams for RPCs in flight (RFC 6).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use wire::{Message, RpcError};

use crate::handle::{Handle, Node};

fn lost() -> RpcError {
    RpcError::errno(libc::ECONNRESET)
}

/// A call in flight: resolves to the response message, or the error it stands for.
///
/// Dropping it forgets the call; the service still runs it.
#[must_use = "the outcome of a call is lost unless it is awaited"]
pub struct Rpc {
    handle: Handle,
    tag: u32,
    state: State,
}

enum State {
    Waiting(oneshot::Receiver<Message>),
    Failed(RpcError),
    Done,
}

impl Rpc {
    pub(crate) fn new(handle: Handle, tag: u32, rx: oneshot::Receiver<Message>) -> Self {
        Self {
            handle,
            tag,
            state: State::Waiting(rx),
        }
    }

    pub(crate) fn failed(handle: Handle, err: RpcError) -> Self {
        Self {
            handle,
            tag: 0,
            state: State::Failed(err),
        }
    }
}

impl Future for Rpc {
    type Output = Result<Message, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            State::Waiting(rx) => match ready!(Pin::new(rx).poll(cx)) {
                Ok(msg) => msg.into_result(),
                Err(_) => Err(lost()),
            },
            State::Failed(err) => Err(err.clone()),
            State::Done => Err(lost()),
        };
        self.state = State::Done;
        Poll::Ready(result)
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        if matches!(self.state, State::Waiting(_)) {
            self.handle.forget(self.tag);
        }
    }
}

/// A streaming call: responses until ENODATA (end) or another error.
pub struct RpcStream {
    handle: Handle,
    tag: u32,
    node: Node,
    rx: UnboundedReceiver<Message>,
    done: bool,
}

impl RpcStream {
    pub(crate) fn new(
        handle: Handle,
        tag: u32,
        node: Node,
        rx: UnboundedReceiver<Message>,
    ) -> Self {
        Self {
            handle,
            tag,
            node,
            rx,
            done: false,
        }
    }

    /// Next response; `None` after the service ended the stream with ENODATA.
    pub async fn next(&mut self) -> Option<Result<Message, RpcError>> {
        if self.done {
            return None;
        }
        let result = match self.rx.recv().await {
            Some(msg) => msg.into_result(),
            None => Err(lost()),
        };
        if let Err(err) = result {
            self.done = true;
            self.handle.forget(self.tag);
            return (err.errno != libc::ENODATA).then_some(Err(err));
        }
        Some(result)
    }

    /// The matchtag, for services that are cancelled by it.
    pub fn matchtag(&self) -> u32 {
        self.tag
    }

    /// Ask the service to end the stream, through its cancel method `topic` ({"matchtag"}).
    pub fn cancel(&self, topic: &str) {
        self.handle
            .notify(topic, self.node, &json!({ "matchtag": self.tag }));
    }
}

impl Drop for RpcStream {
    fn drop(&mut self) {
        if !self.done {
            self.handle.forget(self.tag);
        }
    }
}
