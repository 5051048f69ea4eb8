//! A sub-instance tells its parent where it can be reached: the job memo `uri` (RFC 16, 21).

use std::env;

use client::{Handle, Node};
use formats::jobid::JobId;
use futures::future::BoxFuture;
use serde_json::json;
use wire::RpcError;

/// Leave the instance's URI in the enclosing job's record, if there is one.
pub(crate) fn announce(handle: Handle) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        if env::var_os("FLUX_JOB_ID").is_none() {
            return;
        }
        if let Err(e) = tell_parent(&handle).await {
            eprintln!("flux-broker: cannot tell the parent instance how to reach this one: {e}");
        }
    })
}

async fn tell_parent(handle: &Handle) -> Result<(), RpcError> {
    let (parent_uri, jobid) =
        futures::try_join!(handle.getattr("parent-uri"), handle.getattr("jobid"))?;
    let (local, host) =
        futures::try_join!(handle.getattr("local-uri"), handle.getattr("hostname"))?;
    let path = local.strip_prefix("local://").unwrap_or(&local);
    let invalid = |e: &dyn std::fmt::Display| RpcError::new(libc::EINVAL, e.to_string());
    let id: JobId = jobid.parse().map_err(|e| invalid(&e))?;
    let parent = Handle::open(Some(&parent_uri))
        .await
        .map_err(|e| invalid(&e))?;
    let memo = json!({ "id": id, "memo": { "uri": format!("ssh://{host}{path}") } });
    parent
        .rpc("job-manager.memo", Node::Any, &memo)
        .await
        .map(drop)
}
