//! The instance's own log of when it started and ended: the KVS eventlog `admin.eventlog`, for `flux startlog`.

use std::time::SystemTime;

use client::Handle;
use formats::eventlog::{Event, timestamp};
use kvs::Txn;
use serde_json::{Value, json};

const KEY: &str = "admin.eventlog";
/// What a reader of these events has to know.
const VERSION: u32 = 1;

pub(crate) async fn started(handle: &Handle) {
    let core = env!("CARGO_PKG_VERSION");
    post(
        handle,
        "start",
        json!({ "version": VERSION, "core_version": core }),
    )
    .await;
}

pub(crate) async fn finished(handle: &Handle) {
    post(handle, "finish", json!({ "version": VERSION })).await;
}

async fn post(handle: &Handle, name: &str, context: Value) {
    let event = Event::new(timestamp(SystemTime::now()), name).with_context(context);
    let mut txn = Txn::new();
    txn.append(KEY, event.encode().as_bytes());
    // An instance without a key-value store has no such log.
    let _ = kvs::client::commit(handle, Some("primary"), &txn).await;
}
