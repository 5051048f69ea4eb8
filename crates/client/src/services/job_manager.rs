//! The module `job-manager`, for services that work for it.

use serde_json::json;

use crate::{Handle, Node, RpcStream};

/// The job manager that is there now.
pub struct Presence(RpcStream);

impl Presence {
    /// Look at it from now on.
    pub fn watch(handle: &Handle) -> Presence {
        // A stream that brings no events, and ends with the manager.
        let request = json!({ "full": false, "allow": {} });
        Presence(handle.stream("job-manager.events-journal", Node::Any, &request))
    }

    /// Resolves when the one there is has gone. Nothing is lost when this is dropped.
    pub async fn gone(manager: &mut Option<Presence>) {
        match manager {
            Some(manager) => while let Some(Ok(_)) = manager.0.next().await {},
            None => std::future::pending().await,
        }
    }
}
