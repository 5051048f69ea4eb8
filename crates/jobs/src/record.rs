//! The records of jobs, as the key-value store has them (RFC 16).

use client::{Handle, RpcError};
use formats::eventlog::{self, Event};
use formats::job_schema::JobKey;
use formats::jobid::JobId;
use futures::stream::{self, StreamExt, TryStreamExt};
use kvs::{PRIMARY, TreeObj, flags};
use serde_json::Value;

/// Lookups under way at one time: enough to hide the way to the store, few enough to leave room for others.
pub(crate) const WINDOW: usize = 64;

/// Words of a job id in a key.
const WORDS: usize = 4;

/// What is stored of a job.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: JobId,
    pub(crate) events: Vec<Event>,
    pub(crate) jobspec: Value,
    pub(crate) r: Option<Value>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("{key}: {source}")]
    Lookup { key: String, source: RpcError },
    #[error("{key}: {why}")]
    Content { key: String, why: String },
}

impl RecordError {
    fn content(key: &str, why: impl ToString) -> Self {
        let (key, why) = (key.to_owned(), why.to_string());
        Self::Content { key, why }
    }

    /// The store itself failed; the record may be in order.
    pub(crate) fn is_of_store(&self) -> bool {
        matches!(self, Self::Lookup { source, .. } if source.errno != libc::ENOENT)
    }
}

/// The ids of all jobs that there are records of, in order. Cost: one lookup per directory.
pub(crate) async fn ids(handle: &Handle) -> Result<Vec<JobId>, RpcError> {
    let mut paths = vec!["job".to_owned()];
    for _ in 0..WORDS {
        let below = stream::iter(paths).map(|path| names(handle, path));
        let below: Vec<Vec<String>> = below.buffered(WINDOW).try_collect().await?;
        paths = below.into_iter().flatten().collect();
    }
    let mut ids: Vec<JobId> = paths.iter().filter_map(|path| id_of(path)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The paths one level below; none if there is nothing.
async fn names(handle: &Handle, path: String) -> Result<Vec<String>, RpcError> {
    match kvs::client::lookup(handle, Some(PRIMARY), &path, flags::READDIR).await {
        Ok(TreeObj::Dir(dir)) => Ok(dir
            .iter()
            .map(|(name, _)| format!("{path}.{name}"))
            .collect()),
        Ok(_) => Ok(Vec::new()),
        // What is no directory is no job.
        Err(e) if matches!(e.errno, libc::ENOENT | libc::ENOTDIR) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn id_of(path: &str) -> Option<JobId> {
    path.strip_prefix("job.")?.parse().ok()
}

async fn text(handle: &Handle, key: &str) -> Result<String, RecordError> {
    let lookup = kvs::client::get(handle, Some(PRIMARY), key).await;
    let bytes = lookup.map_err(|source| RecordError::Lookup {
        key: key.to_owned(),
        source,
    })?;
    String::from_utf8(bytes).map_err(|e| RecordError::content(key, e))
}

async fn object(handle: &Handle, key: &str) -> Result<Value, RecordError> {
    let text = text(handle, key).await?;
    serde_json::from_str(&text).map_err(|e| RecordError::content(key, e))
}

/// A job's primary eventlog.
pub(crate) async fn events(handle: &Handle, id: JobId) -> Result<Vec<Event>, RecordError> {
    let key = id.key(JobKey::Eventlog);
    let text = text(handle, &key).await?;
    eventlog::decode(&text).map_err(|e| RecordError::content(&key, e))
}

/// The whole record of a job with these events.
pub(crate) async fn load(
    handle: &Handle,
    id: JobId,
    events: Vec<Event>,
) -> Result<Record, RecordError> {
    let jobspec = object(handle, &id.key(JobKey::Jobspec)).await?;
    let r = match is_allocated(&events) {
        true => Some(object(handle, &id.key(JobKey::R)).await?),
        false => None,
    };
    Ok(Record {
        id,
        events,
        jobspec,
        r,
    })
}

fn is_allocated(events: &[Event]) -> bool {
    events.iter().any(|event| event.name == "alloc")
}

/// Whether nothing changes any more for a job with these events.
pub(crate) fn is_inactive(events: &[Event]) -> bool {
    events.iter().any(|event| event.name == "clean")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_paths() {
        assert_eq!(id_of("job.0000.0000.0000.0001"), Some(JobId(1)));
        assert_eq!(id_of("job.0000.0000"), None);
        assert_eq!(id_of("other"), None);
    }

    #[test]
    fn inactivity() {
        let log = |names: &[&str]| -> Vec<Event> {
            names.iter().map(|name| Event::new(1.0, *name)).collect()
        };
        assert!(is_inactive(&log(&["submit", "clean", "memo"])));
        assert!(!is_inactive(&log(&["submit", "alloc"])));
        assert!(is_allocated(&log(&["submit", "alloc"])));
    }
}
