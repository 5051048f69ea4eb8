//! What is done when the initial program has ended and before the brokers leave: nothing new
//! starts, what runs is cancelled, and its end is waited for.

use client::{Handle, Node};
use formats::job::JobState;
use futures::future::BoxFuture;
use serde_json::json;

/// User id that selects the jobs of all users.
const ANY_USER: u32 = u32::MAX;

/// Leaves jobs to the next life of the instance, if it is set.
const DISABLE: &str = "FLUX_DISABLE_JOB_CLEANUP";

/// End whatever still runs in the instance.
pub(crate) fn cleanup(handle: Handle) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        if std::env::var_os(DISABLE).is_some() {
            return;
        }
        let stop = json!({ "start": false, "all": true, "nocheckpoint": true });
        let cancel = json!({
            "dry_run": false,
            "userid": ANY_USER,
            "states": JobState::Run.bit(),
            "severity": 0,
            "type": "cancel",
            "note": "instance is ending",
        });
        // Sent together, handled in this order. An instance without job services answers with
        // ENOSYS, which leaves nothing to do.
        let calls = [
            handle.rpc("job-manager.queue-start", Node::Rank(0), &stop),
            handle.rpc("job-manager.raiseall", Node::Rank(0), &cancel),
            handle.rpc("job-manager.idle", Node::Rank(0), &json!({})),
        ];
        futures::future::join_all(calls).await;
    })
}
