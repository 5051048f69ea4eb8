//! Events: publishing, and streams of them for each part of a program that wants some.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use wire::{Message, RpcError, json_payload};

use crate::handle::{Handle, INBOX, Node, lock};
use crate::services::event::{Publish, Subscribe, Unsubscribe};

/// Events that wait for one reader. Publishers cannot be made to wait for it, so more are dropped and counted;
/// this many are a few megabytes, and hours of a busy instance's job states at the rate of a program that has
/// stopped.
const CAPACITY: usize = 16 * 1024;

/// The writing side of an [`Events`].
pub(crate) struct Queue {
    tx: mpsc::Sender<Message>,
    lost: Arc<AtomicU64>,
}

impl Queue {
    pub(crate) fn push(&self, event: Message) {
        // A closed queue is about to be unregistered.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.tx.try_send(event) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Events were dropped because they were not read in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were not read in time and are lost")]
pub struct EventsLost(pub u64);

/// Events whose topics start with any of some prefixes; each event once.
///
/// Several tasks of a program can have different ones on the same handle. Dropping it ends the subscription.
pub struct Events {
    handle: Handle,
    key: u64,
    prefixes: Vec<String>,
    rx: mpsc::Receiver<Message>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// The next event; `None` when the connection is gone for good.
    ///
    /// An error says that events were dropped before this point, and how many; reading can go on.
    pub async fn next(&mut self) -> Option<Result<Message, EventsLost>> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => self.rx.recv().await.map(Ok),
            lost => Some(Err(EventsLost(lost))),
        }
    }

    /// The next event's payload, decoded, for streams of one kind of event. Lost events are EOVERFLOW.
    pub async fn next_json<T: DeserializeOwned>(&mut self) -> Option<Result<T, RpcError>> {
        Some(match self.next().await? {
            Ok(event) => event.json(),
            Err(lost) => Err(RpcError::new(libc::EOVERFLOW, lost.to_string())),
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut receivers = lock(&self.handle.0.receivers);
        receivers.queues.remove(&self.key);
        receivers.subscriptions.remove_all(&self.key);
        drop(receivers);
        for topic in &self.prefixes {
            self.handle
                .notify("event.unsubscribe", Node::Any, &Unsubscribe { topic });
        }
    }
}

impl Handle {
    /// Subscribe to events whose topics start with any of `prefixes` ("" is all).
    ///
    /// ```no_run
    /// # async fn example(handle: client::Handle) -> Result<(), client::RpcError> {
    /// let mut states = handle.events(&["job-state"]).await?;
    /// while let Some(event) = states.next().await {
    ///     match event {
    ///         Ok(event) => println!("{}: {:?}", event.topic(), event.text()),
    ///         Err(lost) => eprintln!("{lost}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn events(&self, prefixes: &[&str]) -> Result<Events, RpcError> {
        // Its drop undoes what has been done.
        let mut events = self.event_queue();
        for &topic in prefixes {
            lock(&self.0.receivers).subscriptions.add(topic, events.key);
            self.ask(Node::Any, &Subscribe { topic }).await?;
            events.prefixes.push(topic.to_owned());
        }
        Ok(events)
    }

    fn event_queue(&self) -> Events {
        let (tx, rx) = mpsc::channel(CAPACITY);
        let lost = Arc::new(AtomicU64::new(0));
        let queue = Queue {
            tx,
            lost: lost.clone(),
        };
        let mut receivers = lock(&self.0.receivers);
        receivers.last_key += 1;
        let key = receivers.last_key;
        receivers.queues.insert(key, queue);
        Events {
            handle: self.clone(),
            key,
            prefixes: Vec::new(),
            rx,
            lost,
        }
    }

    /// Receive events whose topic starts with `prefix` ("" is all) in the inbox.
    pub async fn subscribe(&self, prefix: &str) -> Result<(), RpcError> {
        lock(&self.0.receivers).subscriptions.add(prefix, INBOX);
        let answer = self.ask(Node::Any, &Subscribe { topic: prefix }).await;
        if answer.is_err() {
            lock(&self.0.receivers).subscriptions.remove(prefix, &INBOX);
        }
        answer.map(drop)
    }

    /// Undo one [`Handle::subscribe`].
    pub async fn unsubscribe(&self, prefix: &str) -> Result<(), RpcError> {
        self.ask(Node::Any, &Unsubscribe { topic: prefix }).await?;
        lock(&self.0.receivers).subscriptions.remove(prefix, &INBOX);
        Ok(())
    }

    /// Publish an event with a JSON payload to all ranks; returns its sequence number.
    pub async fn publish(
        &self,
        topic: &str,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<u32, RpcError> {
        self.publish_raw(topic, Some(json_payload(payload)?), false)
            .await
    }

    /// Publish an event with raw payload; `private` keeps it to the owner and the sender.
    pub async fn publish_raw(
        &self,
        topic: &str,
        payload: Option<Bytes>,
        private: bool,
    ) -> Result<u32, RpcError> {
        let request = Publish::new(topic, payload.as_deref(), private);
        Ok(self.ask(Node::Rank(0), &request).await?.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Deliver;
    use serde_json::json;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn channel() -> (Handle, Deliver, UnboundedReceiver<Message>) {
        let (tx, sent) = unbounded_channel();
        let (handle, deliver) = Handle::with_sink(move |msg| tx.send(msg).is_ok());
        (handle, deliver, sent)
    }

    async fn subscribed(
        handle: &Handle,
        deliver: &Deliver,
        sent: &mut UnboundedReceiver<Message>,
        prefixes: &[&str],
    ) -> Events {
        let subscribe = handle.events(prefixes);
        let answer = async {
            for _ in prefixes {
                let request = sent.recv().await.unwrap();
                assert_eq!(request.topic(), "event.subscribe");
                deliver.deliver(request.response(0, None));
            }
        };
        tokio::join!(subscribe, answer).0.unwrap()
    }

    fn topic_of(event: Option<Result<Message, EventsLost>>) -> String {
        event.unwrap().unwrap().topic().to_owned()
    }

    #[tokio::test]
    async fn each_subscriber_gets_its_own() {
        let (handle, deliver, mut sent) = channel();
        let mut inbox = handle.inbox().unwrap();
        let mut a = subscribed(&handle, &deliver, &mut sent, &["a", "a.b"]).await;
        let mut b = subscribed(&handle, &deliver, &mut sent, &["b"]).await;
        for topic in ["a.b", "b", "a", "c"] {
            deliver.deliver(Message::event(topic, 0, None));
        }
        assert_eq!(
            topic_of(a.next().await),
            "a.b",
            "once, though two prefixes match"
        );
        assert_eq!(topic_of(a.next().await), "a");
        assert_eq!(topic_of(b.next().await), "b");
        assert_eq!(
            inbox.try_recv().unwrap().topic(),
            "c",
            "what no stream asked for"
        );
        assert!(inbox.try_recv().is_none());
        drop(a);
        let gone: Vec<_> = [sent.recv().await, sent.recv().await]
            .map(|m| m.unwrap().json::<serde_json::Value>().unwrap())
            .into();
        assert_eq!(gone, [json!({"topic": "a"}), json!({"topic": "a.b"})]);
        deliver.close();
        assert!(b.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_lost() {
        let (handle, deliver, mut sent) = channel();
        let mut events = subscribed(&handle, &deliver, &mut sent, &["n"]).await;
        for _ in 0..CAPACITY + 3 {
            deliver.deliver(Message::event("n", 0, None));
        }
        assert_eq!(events.next().await.unwrap().unwrap_err(), EventsLost(3));
        assert_eq!(topic_of(events.next().await), "n");
    }

    #[tokio::test]
    async fn a_refused_subscription_leaves_nothing() {
        let (handle, deliver, mut sent) = channel();
        let refuse = async {
            let request = sent.recv().await.unwrap();
            deliver.deliver(request.error_response(&RpcError::errno(libc::EPERM)));
        };
        let (events, ()) = tokio::join!(handle.events(&["x"]), refuse);
        assert_eq!(events.err().unwrap().errno, libc::EPERM);
        assert!(lock(&handle.0.receivers).subscriptions.is_empty());
        assert!(lock(&handle.0.receivers).queues.is_empty());
    }
}
