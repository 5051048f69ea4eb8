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
    pub(crate) fn content(key: &str, why: impl ToString) -> Self {
        let (key, why) = (key.to_owned(), why.to_string());
        Self::Content { key, why }
    }

    /// The store itself failed; the record may be in order.
    pub(crate) fn is_of_store(&self) -> bool {
        matches!(self, Self::Lookup { source, .. } if source.errno != libc::ENOENT)
    }
}

/// The ids from `first` on of all jobs that there are records of, in order. Cost: one lookup per directory.
pub(crate) async fn ids(handle: &Handle, first: JobId) -> Result<Vec<JobId>, RpcError> {
    let mut paths = vec!["job".to_owned()];
    for _ in 0..WORDS {
        let below = stream::iter(paths).map(|path| names(handle, path));
        let below: Vec<Vec<String>> = below.buffered(WINDOW).try_collect().await?;
        let below = below.into_iter().flatten();
        paths = below.filter(|path| may_reach(path, first)).collect();
    }
    let mut ids: Vec<JobId> = paths.iter().filter_map(|path| id_of(path)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Whether a directory of records may have one of `first` or later: words of ids have one width.
fn may_reach(path: &str, first: JobId) -> bool {
    let first = first.kvs_path();
    *path >= first[..path.len().min(first.len())]
}

/// The paths one level below; none if there is nothing.
pub(crate) async fn names(handle: &Handle, path: String) -> Result<Vec<String>, RpcError> {
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

/// The value of a key.
pub(crate) async fn bytes(handle: &Handle, key: &str) -> Result<Vec<u8>, RecordError> {
    let lookup = kvs::client::get(handle, Some(PRIMARY), key).await;
    lookup.map_err(|source| RecordError::Lookup {
        key: key.to_owned(),
        source,
    })
}

/// The value of a key that is text.
pub(crate) async fn text(handle: &Handle, key: &str) -> Result<String, RecordError> {
    let bytes = bytes(handle, key).await?;
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
    fn directories_of_later_jobs() {
        let first = JobId(0x1_0002_0003);
        let reaches = |path: &str| may_reach(path, first);
        assert!(reaches("job.0000") && reaches("job.0000.0001") && reaches("job.0001.0000"));
        assert!(reaches("job.0000.0001.0002.0003") && reaches("job.0000.0001.0002.0004"));
        assert!(!reaches("job.0000.0000") && !reaches("job.0000.0001.0002.0002"));
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
