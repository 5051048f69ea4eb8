//! What a scheduler and the job manager say to each other (RFC 27).

use std::time::Duration;

use client::module::ModuleError;
use client::services::job_manager::Presence;
use client::{Handle, Inbox, Node};
use formats::job_schema::JobKey;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

/// Kinds of answers to `sched.alloc`.
pub mod kind {
    /// The job has resources.
    pub const SUCCESS: u32 = 0;
    /// Something new is known of the job.
    pub const ANNOTATE: u32 = 1;
    /// The job can never have resources.
    pub const DENY: u32 = 2;
    /// The job was taken back.
    pub const CANCEL: u32 = 3;
}

/// Wait before a job manager that is not there is asked again.
pub const AGAIN: Duration = Duration::from_millis(100);

/// Answer `sched.alloc`; `key` is left out if `value` is null.
pub fn answer(
    handle: &Handle,
    request: &Message,
    id: JobId,
    kind: u32,
    (key, value): (&str, Value),
) {
    let mut answer = json!({ "id": id, "type": kind });
    if !value.is_null() {
        answer[key] = value;
    }
    handle.respond(request, &answer);
}

/// The job that `sched.cancel` takes back.
pub fn cancelled(msg: &Message) -> Result<JobId, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        id: JobId,
    }
    Ok(msg.json::<Request>()?.id)
}

/// Jobs and their priorities from now on, as `sched.prioritize` tells them.
pub fn prioritized(msg: &Message) -> Result<Vec<(JobId, i64)>, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        jobs: Vec<(JobId, i64)>,
    }
    Ok(msg.json::<Request>()?.jobs)
}

/// A job that holds resources.
pub struct Holder {
    /// The job.
    pub id: JobId,
    /// Its priority.
    pub priority: i64,
    /// The user it belongs to.
    pub userid: u32,
    /// Seconds since the epoch.
    pub t_submit: f64,
    /// What it was given.
    pub r: Value,
    /// Ranks it has given back.
    pub free: Option<String>,
}

/// Learn which jobs hold resources. The manager is looked at before it is spoken to: should it go in between, that is
/// noticed. Jobs that have given back a part are told of if `partial_ok`.
pub async fn hello(
    handle: &Handle,
    partial_ok: bool,
) -> Result<(Presence, Vec<Holder>), ModuleError> {
    #[derive(Deserialize)]
    struct Told {
        id: JobId,
        priority: i64,
        userid: u32,
        t_submit: f64,
        #[serde(rename = "R")]
        r: Option<Value>,
        free: Option<String>,
    }
    let manager = Presence::watch(handle);
    let request = json!({ "partial-ok": partial_ok });
    let mut stream = handle.stream("job-manager.sched-hello", Node::Any, &request);
    let mut holders = Vec::new();
    while let Some(told) = stream.next().await {
        let told: Told = told?.json()?;
        let r = match told.r {
            Some(r) => r,
            None => {
                let key = told.id.key(JobKey::R);
                let bytes = kvs::client::get(handle, Some(kvs::PRIMARY), &key).await?;
                serde_json::from_slice(&bytes).map_err(|e| ModuleError::new(&key, e))?
            }
        };
        holders.push(Holder {
            id: told.id,
            priority: told.priority,
            userid: told.userid,
            t_submit: told.t_submit,
            r,
            free: told.free,
        });
    }
    Ok((manager, holders))
}

/// Say that allocations can be asked for.
pub async fn ready(handle: &Handle, mode: &Value) -> Result<(), ModuleError> {
    handle
        .rpc("job-manager.sched-ready", Node::Any, mode)
        .await?;
    Ok(())
}

/// Whether it is worth to say hello again: there is no manager, or another one than a moment ago.
pub fn is_absence(error: &ModuleError) -> bool {
    matches!(error.errno, libc::ENOSYS | libc::EAGAIN)
}

/// Keep what arrives; returns when the inbox ends.
pub async fn collect(inbox: &mut Inbox, into: &mut Vec<Message>) {
    while let Some(msg) = inbox.recv().await {
        into.push(msg);
    }
}

/// The messages in the inbox that do not come from the job manager. When it has gone, what it asked does not count; all
/// of that is in the inbox by then, since messages keep their order.
pub fn without_managers(inbox: &mut Inbox) -> Vec<Message> {
    let of_manager = |msg: &Message| {
        let method = matches!(msg.method(), "alloc" | "free" | "cancel" | "prioritize");
        msg.service() == "sched" && method
    };
    let mut rest = Vec::new();
    while let Some(msg) = inbox.try_recv() {
        if !of_manager(&msg) {
            rest.push(msg);
        }
    }
    rest
}
