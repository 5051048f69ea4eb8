//! The same call to many ranks at once.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use wire::{Message, RpcError, json_payload};

use crate::handle::{Handle, Node};

/// A call to many ranks: responses in the order in which they arrive.
pub struct Group(FuturesUnordered<BoxFuture<'static, (u32, Result<Message, RpcError>)>>);

impl Handle {
    /// Send the same request to each of `ranks`.
    ///
    /// ```no_run
    /// # async fn example(handle: client::Handle) -> Result<(), client::RpcError> {
    /// let (_, size) = handle.locate().await?;
    /// let mut group = handle.rpc_group("broker.ping", 0..size, &serde_json::json!({}));
    /// while let Some((rank, result)) = group.next().await {
    ///     println!("rank {rank}: {}", if result.is_ok() { "up" } else { "down" });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn rpc_group(
        &self,
        topic: &str,
        ranks: impl IntoIterator<Item = u32>,
        payload: &(impl Serialize + ?Sized),
    ) -> Group {
        let payload =
            json_payload(payload).map_err(|e| RpcError::proto(format!("{topic}: request: {e}")));
        let start = |rank| {
            // All requests share the payload.
            let rpc = payload
                .clone()
                .map(|bytes: Bytes| self.rpc_raw(topic, Node::Rank(rank), Some(bytes)));
            let answer: BoxFuture<'static, _> = Box::pin(async move {
                match rpc {
                    Ok(rpc) => (rank, rpc.await),
                    Err(e) => (rank, Err(e)),
                }
            });
            answer
        };
        Group(ranks.into_iter().map(start).collect())
    }
}

impl Group {
    /// The next rank's answer; `None` when all have answered.
    pub async fn next(&mut self) -> Option<(u32, Result<Message, RpcError>)> {
        self.0.next().await
    }

    /// Ranks that have not answered yet.
    pub fn pending(&self) -> usize {
        self.0.len()
    }

    /// Wait for all; the first error ends it, with the rank it came from.
    pub async fn all(mut self) -> Result<Vec<(u32, Message)>, (u32, RpcError)> {
        let mut out = Vec::with_capacity(self.pending());
        while let Some((rank, result)) = self.next().await {
            out.push((rank, result.map_err(|e| (rank, e))?));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn answers_come_as_they_arrive() {
        let (tx, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
        let mut group = handle.rpc_group("a.b", [4, 5, 6], &json!({}));
        let mut requests = Vec::new();
        sent.recv_many(&mut requests, 3).await;
        deliver.deliver(requests[2].response(0, None));
        assert_eq!(group.next().await.unwrap().0, 6);
        deliver.deliver(requests[0].error_response(&RpcError::errno(libc::EPERM)));
        let (rank, result) = group.next().await.unwrap();
        assert_eq!((rank, result.unwrap_err().errno), (4, libc::EPERM));
        assert_eq!(group.pending(), 1);
        deliver.deliver(requests[1].response(0, None));
        assert_eq!(group.all().await.unwrap()[0].0, 5);
    }
}
