//! What is done when the initial program has ended and before the brokers leave.

use client::Handle;
use futures::future::BoxFuture;

/// End whatever still runs in the instance.
pub(crate) fn cleanup(_handle: Handle) -> BoxFuture<'static, ()> {
    Box::pin(async move {})
}
