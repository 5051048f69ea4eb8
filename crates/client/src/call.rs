//! Typed calls: a request type that says where it goes and what comes back.
//!
//! The types for services every client uses are in [`services`](crate::services); a service of one's own needs
//! three lines:
//!
//! ```no_run
//! use client::{Call, Handle, Node, RpcError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize)]
//! struct Weigh { item: String }
//!
//! #[derive(Deserialize)]
//! struct Weight { grams: f64 }
//!
//! impl Call for Weigh {
//!     const TOPIC: &'static str = "scales.weigh";
//!     type Answer = Weight;
//! }
//!
//! # async fn example(handle: Handle) -> Result<(), RpcError> {
//! let weight = handle.ask(Node::Any, &Weigh { item: "feather".into() }).await?;
//! println!("{} g", weight.grams);
//! # Ok(())
//! # }
//! ```

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wire::RpcError;

use crate::rpc::{Rpc, RpcStream};

/// The request of an RPC with one response.
pub trait Call: Serialize {
    /// Service and method.
    const TOPIC: &'static str;
    /// What the service answers; [`Empty`] where there is nothing to tell.
    type Answer: DeserializeOwned;
}

/// The request of a streaming RPC.
pub trait StreamCall: Serialize {
    /// Service and method.
    const TOPIC: &'static str;
    /// Each response.
    type Item: DeserializeOwned;
}

/// An answer that says no more than that it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A typed call in flight: resolves to the decoded answer.
#[must_use = "the outcome of a call is lost unless it is awaited"]
pub struct Answer<T> {
    rpc: Rpc,
    answer: PhantomData<fn() -> T>,
}

impl<T> Answer<T> {
    pub(crate) fn new(rpc: Rpc) -> Self {
        Self {
            rpc,
            answer: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Answer<T> {
    /// The answer, or ETIMEDOUT if it takes longer than `limit`.
    pub async fn timeout(self, limit: Duration) -> Result<T, RpcError> {
        self.rpc.timeout(limit).await?.json()
    }
}

impl<T: DeserializeOwned> Future for Answer<T> {
    type Output = Result<T, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.rpc)
            .poll(cx)
            .map(|result| result.and_then(|msg| msg.json()))
    }
}

/// A typed streaming call.
pub struct Answers<T> {
    stream: RpcStream,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Answers<T> {
    pub(crate) fn new(stream: RpcStream) -> Self {
        Self {
            stream,
            item: PhantomData,
        }
    }

    /// The next response, decoded; `None` after the service ended the stream with ENODATA.
    pub async fn next(&mut self) -> Option<Result<T, RpcError>> {
        let result = self.stream.next().await?;
        Some(result.and_then(|msg| msg.json()))
    }

    /// The stream itself, for its matchtag and to cancel it.
    pub fn stream(&self) -> &RpcStream {
        &self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Handle, Node};
    use serde_json::json;

    #[derive(Serialize)]
    struct Double {
        n: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Doubled {
        n: u32,
    }

    impl Call for Double {
        const TOPIC: &'static str = "math.double";
        type Answer = Doubled;
    }

    impl StreamCall for Double {
        const TOPIC: &'static str = "math.powers";
        type Item = Doubled;
    }

    #[tokio::test]
    async fn typed_calls_go_to_their_topic_and_decode() {
        let (tx, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
        let answer = handle.ask(Node::Any, &Double { n: 2 });
        let request = sent.recv().await.unwrap();
        assert_eq!(request.topic(), "math.double");
        deliver.deliver(request.response(0, wire::json_payload(&json!({"n": 4})).ok()));
        assert_eq!(answer.await.unwrap(), Doubled { n: 4 });

        let bad = handle.ask(Node::Any, &Double { n: 2 });
        let request = sent.recv().await.unwrap();
        deliver.deliver(request.response(0, wire::json_payload(&json!({"m": 4})).ok()));
        let error = bad.await.unwrap_err();
        assert_eq!(error.errno, libc::EPROTO);
        assert!(error.to_string().contains("math.double"), "{error}");

        let mut answers = handle.follow(Node::Any, &Double { n: 2 });
        let request = sent.recv().await.unwrap();
        assert!(request.is_streaming());
        deliver.deliver(request.response(0, wire::json_payload(&json!({"n": 8})).ok()));
        deliver.deliver(request.error_response(&RpcError::errno(libc::ENODATA)));
        assert_eq!(answers.next().await, Some(Ok(Doubled { n: 8 })));
        assert_eq!(answers.next().await, None);
    }

    #[test]
    fn empty_takes_any_object() {
        for text in ["{}", r#"{"more": 1}"#] {
            assert!(serde_json::from_str::<Empty>(text).is_ok());
        }
    }
}
