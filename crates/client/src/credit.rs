//! Credit: how much a sender may send before its receiver has made room (RFC 42 standard input, RFC 27 and others).

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::handle::lock;

/// Credit that a receiver grants and a sender spends.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let credit = client::Credit::new(0);
/// credit.grant(5);
/// assert_eq!(credit.take(3).await, 3);
/// assert_eq!(credit.take(3).await, 2, "what is left");
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Credit {
    left: Mutex<u64>,
    granted: Notify,
}

impl Credit {
    /// Start with this much.
    pub fn new(initial: u64) -> Self {
        Self {
            left: Mutex::new(initial),
            granted: Notify::new(),
        }
    }

    /// The receiver has made room.
    pub fn grant(&self, amount: u64) {
        let mut left = lock(&self.left);
        *left = left.saturating_add(amount);
        drop(left);
        self.granted.notify_waiters();
    }

    /// What can be spent without waiting.
    pub fn available(&self) -> u64 {
        *lock(&self.left)
    }

    fn spend(&self, most: u64) -> u64 {
        let mut left = lock(&self.left);
        let part = most.min(*left);
        *left -= part;
        part
    }

    /// Spend up to `most`, at least 1 (of a `most` that is not 0): waits until there is any.
    pub async fn take(&self, most: u64) -> u64 {
        loop {
            let granted = self.granted.notified();
            tokio::pin!(granted);
            // From here on no grant is missed.
            granted.as_mut().enable();
            let part = self.spend(most);
            if part > 0 || most == 0 {
                return part;
            }
            granted.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_sender_waits_for_credit() {
        let credit = Arc::new(Credit::new(1));
        assert_eq!((credit.take(0).await, credit.take(4).await), (0, 1));
        let other = credit.clone();
        let sender = tokio::spawn(async move { other.take(4).await });
        tokio::task::yield_now().await;
        assert!(!sender.is_finished());
        credit.grant(10);
        assert_eq!(sender.await.unwrap(), 4);
        assert_eq!(credit.available(), 6);
    }
}
