//! Jobs as the listing commands show them: what is asked of `job-list`, and what the answers say.

mod fields;
mod info;
mod query;
mod reason;
mod stats;

pub(crate) use fields::{HEADINGS, attributes};
pub(crate) use info::{Instance, Job, now};
pub(crate) use query::{Filter, Query, parse_user};
pub(crate) use stats::Stats;

use formats::JobId;
use wire::RpcError;

/// The "any user" of constraints and requests.
pub(crate) const ANY_USER: u32 = u32::MAX;

/// Who runs this command.
pub(crate) fn own_user() -> u32 {
    nix::unistd::getuid().as_raw()
}

/// `job-list.list-id`, for one id.
pub(crate) async fn list_id(
    handle: &client::Handle,
    id: JobId,
    attrs: &[String],
) -> Result<serde_json::Map<String, serde_json::Value>, RpcError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        job: serde_json::Map<String, serde_json::Value>,
    }
    let request = serde_json::json!({"id": id, "attrs": attrs});
    let answer: Answer = handle
        .call("job-list.list-id", client::Node::Any, &request)
        .await?;
    Ok(answer.job)
}
