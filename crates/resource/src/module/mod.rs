//! The broker module `resource`, on every rank (RFC 28, 44).
//!
//! Each rank announces itself to its parent with `resource.reduce`; ranks in between join what
//! arrives while a message is on its way up. An announcement makes the rank an online target.
//! Rank 0 decides where the resource set comes from: configuration, the KVS of an earlier life,
//! the enclosing job, or what the ranks discover; only then are they asked to look.
//!
//! Arguments: `monitor-force-up` treats all targets of the set as online (for made-up sets).

mod follower;
mod leader;
mod reload;
mod reslog;
mod source;

use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError};
use formats::{Idset, ResourceSet};
use serde::{Deserialize, Serialize};

use crate::discover::{self, Local};

/// Runs the module until its inbox ends.
pub async fn main(ctx: Context) -> Result<(), ModuleError> {
    if ctx.handle.rank() == 0 {
        leader::run(ctx).await
    } else {
        follower::run(ctx).await
    }
}

/// Payload of `resource.reduce`: these ranks are online, and have these resources, if they
/// were asked to look.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Reduce {
    online: Idset,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<ResourceSet>,
}

/// Answer to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ReduceAnswer {
    /// The ranks shall look what they have, and tell.
    discover: bool,
}

impl Reduce {
    fn join(&mut self, other: Reduce) {
        self.online = self.online.union(&other.online);
        if let Some(more) = other.resources {
            self.resources.get_or_insert_default().merge(&more);
        }
    }
}

/// Looks at the node on a thread that may block.
async fn look() -> Result<Local, ModuleError> {
    tokio::task::spawn_blocking(discover::local)
        .await
        .map_err(|e| ModuleError::new("discovering resources", e))?
        .map_err(|e| ModuleError::new("discovering resources", e))
}

/// `resource.topo-get`: the payload is the bare XML text, as upstream's is.
async fn answer_topology(handle: Handle, msg: Message) {
    let text = tokio::task::spawn_blocking(discover::xml).await;
    match text {
        Ok(Ok(text)) => handle.respond_raw(&msg, Some(wire::string_payload(&text))),
        Ok(Err(e)) => handle.respond_error(&msg, &RpcError::new(libc::EIO, e.to_string())),
        Err(e) => handle.respond_error(&msg, &RpcError::new(libc::EIO, e.to_string())),
    }
}

/// Passes a request on and its answer back.
async fn relay(handle: Handle, msg: Message, node: Node) {
    match handle
        .rpc_raw(msg.topic(), node, msg.payload().cloned())
        .await
    {
        Ok(answer) => handle.respond_raw(&msg, answer.payload().cloned()),
        Err(e) => handle.respond_error(&msg, &e),
    }
}
