//! Reading what the store has of all jobs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Handle, Node};
use formats::ResourceSet;
use formats::eventlog;
use formats::job_schema::JobKey;
use formats::jobid::JobId;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::checks::Record;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// A look is under way.
    pub(super) under_way: bool,
    /// Jobs there were, if nobody has taken them.
    pub(super) records: Option<Vec<Record>>,
    /// How many ids were looked at.
    pub(super) looked_at: usize,
    /// Resources that the scheduler has given away, if any.
    pub(super) allocated: Option<Value>,
    last: Vec<String>,
}

/// [`Sight`], for the task that looks and the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Sight>>);

impl Seen {
    pub(super) fn get(&self) -> MutexGuard<'_, Sight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The jobs that have not come to their end, as last seen.
pub(super) fn waiting(sight: &Sight) -> String {
    sight.last.join("; ")
}

/// Ids in an announcement of jobs, or the one for which the manager wants resources.
pub(super) fn ids(msg: &Message) -> Vec<JobId> {
    let request: Value = msg.json().unwrap_or_default();
    let jobs = match msg.topic() {
        "job-manager.submit" => request["jobs"].as_array().cloned().unwrap_or_default(),
        "sched.alloc" => vec![request],
        _ => Vec::new(),
    };
    let id = |job: &Value| job["id"].as_u64().map(JobId);
    jobs.iter().filter_map(id).collect()
}

async fn record(handle: &Handle, id: JobId) -> Result<Option<Record>, RpcError> {
    let get =
        async |key: JobKey<'_>| match kvs::client::get(handle, Some(kvs::PRIMARY), &id.key(key))
            .await
        {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(e) if e.errno == libc::ENOENT => Ok(None),
            Err(e) => Err(e),
        };
    let Some(log) = get(JobKey::Eventlog).await? else {
        return Ok(None);
    };
    let events = eventlog::decode(&log).map_err(|e| RpcError::proto(e.to_string()))?;
    let r = get(JobKey::R).await?;
    let r = r.and_then(|r| serde_json::from_str::<Value>(&r).ok());
    Ok(Some(Record {
        id,
        events,
        resources: r.and_then(|r| ResourceSet::try_from(r).ok()),
    }))
}

/// Reads the records of these jobs; those that wait for somebody to `release` them do so no longer.
pub(super) async fn look(handle: Handle, ids: BTreeSet<JobId>, seen: Seen, release: bool) {
    let mut records = Vec::new();
    let looked_at = ids.len();
    for id in ids {
        match record(&handle, id).await {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            // It is tried again.
            Err(_) => return seen.get().under_way = false,
        }
    }
    let active = records.iter().filter(|record| !record.is_inactive());
    let active: Vec<&Record> = active.collect();
    for record in active.iter().filter(|_| release) {
        let request = json!({ "id": record.id, "urgency": 16 });
        // Not all of them are held.
        let _ = handle.rpc("job-manager.urgency", Node::Any, &request).await;
    }
    let status = handle.rpc("sched.resource-status", Node::Any, &json!({}));
    let status: Value = match status.await.and_then(|msg| msg.json()) {
        Ok(status) => status,
        Err(_) => return seen.get().under_way = false,
    };
    let allocated = ResourceSet::try_from(status["allocated"].clone());
    let is_free = allocated.is_ok_and(|set| set.is_empty());
    let last = active.iter().map(|record| record.shown()).collect();
    let mut seen = seen.get();
    seen.last = last;
    seen.records = Some(records);
    seen.looked_at = looked_at;
    seen.allocated = (!is_free).then(|| status["allocated"].clone());
    seen.under_way = false;
}
