//! Futures and streams for RPCs in flight (RFC 6).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use wire::{Message, RpcError};

use crate::handle::{Handle, Node};
use crate::tags::Tag;

fn lost() -> RpcError {
    RpcError::errno(libc::ECONNRESET)
}

/// A call in flight: resolves to the response message, or the error it stands for.
///
/// Dropping it forgets the call; the service still runs it, and its late response reaches nobody.
#[must_use = "the outcome of a call is lost unless it is awaited"]
pub struct Rpc {
    handle: Handle,
    state: State,
}

enum State {
    Waiting(Tag, oneshot::Receiver<Message>),
    Failed(RpcError),
    Done,
}

impl Rpc {
    pub(crate) fn new(handle: Handle, tag: Tag, rx: oneshot::Receiver<Message>) -> Self {
        Self {
            handle,
            state: State::Waiting(tag, rx),
        }
    }

    pub(crate) fn failed(handle: Handle, err: RpcError) -> Self {
        Self {
            handle,
            state: State::Failed(err),
        }
    }

    /// The response, or ETIMEDOUT if it takes longer than `limit`.
    ///
    /// ```no_run
    /// # async fn example(handle: client::Handle) -> Result<(), client::RpcError> {
    /// use client::Node;
    /// use std::time::Duration;
    ///
    /// let ping = handle.rpc("kvs.ping", Node::Rank(3), &serde_json::json!({}));
    /// ping.timeout(Duration::from_secs(5)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn timeout(self, limit: Duration) -> Result<Message, RpcError> {
        let text = || format!("no response within {limit:?}");
        let late = |_| Err(RpcError::new(libc::ETIMEDOUT, text()));
        tokio::time::timeout(limit, self).await.unwrap_or_else(late)
    }

    /// The matchtag, for services that are cancelled by it; 0 if the request was not sent.
    pub fn matchtag(&self) -> u32 {
        match &self.state {
            State::Waiting(tag, _) => tag.number,
            _ => 0,
        }
    }
}

impl Future for Rpc {
    type Output = Result<Message, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            State::Waiting(_, rx) => match ready!(Pin::new(rx).poll(cx)) {
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
        if let State::Waiting(tag, _) = self.state {
            self.handle.retire(tag);
        }
    }
}

/// A streaming call: responses until ENODATA (end) or another error.
///
/// What has arrived and is not read yet is kept without a limit: a limit here could only lose responses, or hold up
/// others on the same connection. Services that send much have credit in their protocol (see
/// [`Credit`](crate::Credit)).
pub struct RpcStream {
    handle: Handle,
    node: Node,
    tag: Option<Tag>,
    rx: UnboundedReceiver<Message>,
    /// Why the request could not be sent, until that is read.
    failed: Option<RpcError>,
    done: bool,
}

impl RpcStream {
    pub(crate) fn new(
        handle: Handle,
        node: Node,
        started: Result<Tag, RpcError>,
        rx: UnboundedReceiver<Message>,
    ) -> Self {
        let (tag, failed) = match started {
            Ok(tag) => (Some(tag), None),
            Err(e) => (None, Some(e)),
        };
        Self {
            handle,
            node,
            tag,
            rx,
            failed,
            done: false,
        }
    }

    /// Next response; `None` after the service ended the stream with ENODATA.
    pub async fn next(&mut self) -> Option<Result<Message, RpcError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`RpcStream::next`], for those who poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, RpcError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let result = match self.failed.take() {
            Some(e) => Err(e),
            None => match ready!(self.rx.poll_recv(cx)) {
                Some(msg) => msg.into_result(),
                None => Err(lost()),
            },
        };
        Poll::Ready(match result {
            Ok(msg) => Some(Ok(msg)),
            Err(e) => {
                self.done = true;
                (e.errno != libc::ENODATA).then_some(Err(e))
            }
        })
    }

    /// The matchtag, for services that are cancelled by it; 0 if the request was not sent.
    pub fn matchtag(&self) -> u32 {
        self.tag.map_or(0, |tag| tag.number)
    }

    /// Ask the service to end the stream, through its cancel method `topic` ({"matchtag"}).
    ///
    /// The stream goes on until the service has ended it, by RFC 6 with ECANCELED.
    pub fn cancel(&self, topic: &str) {
        if let Some(tag) = self.tag {
            self.handle.notify_about(tag, topic, self.node);
        }
    }
}

impl futures::Stream for RpcStream {
    type Item = Result<Message, RpcError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next(cx)
    }
}

impl Drop for RpcStream {
    fn drop(&mut self) {
        if let Some(tag) = self.tag
            && !self.done
        {
            self.handle.retire(tag);
        }
    }
}
