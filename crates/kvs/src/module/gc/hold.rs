//! `kvs.gc-hold`: who stores blobs now and commits them later keeps garbage from being collected meanwhile.
//!
//! No cycle begins while somebody holds. One that has begun goes on: it condemns only what was there, and out of reach,
//! before the hold was granted, and storing a blob again lifts that.

use client::{Handle, Message, RpcError};
use serde_json::json;
use tokio::sync::watch;

/// Open holds.
#[derive(Default)]
pub(super) struct Holds {
    requests: Vec<Message>,
    count: watch::Sender<usize>,
}

impl Holds {
    /// Grant a hold, until it is cancelled or its client goes.
    pub(super) fn grant(&mut self, handle: &Handle, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        if !msg.is_streaming() {
            return Err(RpcError::proto("gc-hold is a streaming request"));
        }
        self.requests.push(msg.clone());
        self.note();
        handle.respond(msg, &json!({}));
        Ok(())
    }

    /// End the hold that `msg` cancels.
    pub(super) fn cancel(&mut self, handle: &Handle, msg: &Message) {
        let Ok(matchtag) = msg.cancelled() else {
            return;
        };
        let ended = |request: &mut Message| request.is_same_rpc(msg, Some(matchtag));
        for request in self.requests.extract_if(.., ended) {
            handle.respond_error(&request, &RpcError::errno(libc::ENODATA));
        }
        self.note();
    }

    /// A client has gone.
    pub(super) fn disconnect(&mut self, msg: &Message) {
        self.requests
            .retain(|request| !request.is_same_rpc(msg, None));
        self.note();
    }

    fn note(&self) {
        self.count.send_replace(self.requests.len());
    }

    /// Resolves when nobody holds.
    pub(super) fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut count = self.count.subscribe();
        async move {
            // Without the module there is nothing to hold.
            let _ = count.wait_for(|count| *count == 0).await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }
}
