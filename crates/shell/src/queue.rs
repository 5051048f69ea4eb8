//! A queue that is bounded by the bytes in it: writers wait while it is full.
//!
//! Entries differ in size by four orders of magnitude, so a bound on their number would either
//! hold a burst of short lines up or let large chunks fill memory.

use std::sync::Arc;
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// An entry and its share of the bound, which is free again when this is dropped.
pub struct Entry<T> {
    pub item: T,
    _share: Option<OwnedSemaphorePermit>,
}

/// The writing end.
pub struct Sender<T> {
    entries: UnboundedSender<Entry<T>>,
    room: Arc<Semaphore>,
    capacity: u32,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        let (entries, room) = (self.entries.clone(), self.room.clone());
        Sender {
            entries,
            room,
            capacity: self.capacity,
        }
    }
}

/// A queue for `capacity` bytes.
pub fn queue<T>(capacity: u32) -> (Sender<T>, UnboundedReceiver<Entry<T>>) {
    let (entries, receiver) = unbounded_channel();
    let room = Arc::new(Semaphore::new(capacity as usize));
    (
        Sender {
            entries,
            room,
            capacity,
        },
        receiver,
    )
}

impl<T> Sender<T> {
    /// Adds an entry, waiting for room. One larger than the queue waits for all of it.
    pub async fn send(&self, item: T, bytes: usize) {
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity);
        // The semaphore is never closed, so that acquiring cannot fail.
        let share = self.room.clone().acquire_many_owned(share).await.ok();
        // A reader that is gone takes nothing; its users find out when they flush.
        let _ = self.entries.send(Entry {
            item,
            _share: share,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn writers_wait_for_room() {
        let (sender, mut receiver) = queue(10);
        sender.send(1, 6).await;
        assert!(sender.send(2, 6).now_or_never().is_none());
        sender.send(3, 4).await;
        assert!(sender.send(4, 99).now_or_never().is_none());
        let mut seen = Vec::new();
        while let Some(Some(entry)) = receiver.recv().now_or_never() {
            seen.push(entry.item);
        }
        assert_eq!(seen, [1, 3]);
        assert!(sender.send(4, 99).now_or_never().is_some());
    }
}
