//! Who may see a job: the instance owner, and the user who submitted it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use client::{Message, RpcError};
use formats::{Event, JobId};
use serde_json::Value;

use super::Shared;

/// Jobs whose owner is remembered.
const REMEMBERED: usize = 4096;

#[derive(Default)]
struct Cache {
    owners: HashMap<JobId, u32>,
    order: VecDeque<JobId>,
}

/// Owners of jobs seen lately. All requests of the module share it; the lock is held for one
/// table operation.
#[derive(Clone, Default)]
pub(super) struct Owners(Arc<Mutex<Cache>>);

impl Owners {
    fn get(&self, id: JobId) -> Option<u32> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.owners.get(&id).copied()
    }

    fn put(&self, id: JobId, userid: u32) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.owners.insert(id, userid).is_none() {
            cache.order.push_back(id);
            if cache.order.len() > REMEMBERED
                && let Some(oldest) = cache.order.pop_front()
            {
                cache.owners.remove(&oldest);
            }
        }
    }
}

impl Shared {
    /// The value of a job's key in the primary namespace.
    pub(super) async fn get(&self, id: JobId, key: &str) -> Result<String, RpcError> {
        let path = format!("{}.{key}", id.kvs_path());
        let primary = || kvs::client::get(&self.handle, Some(kvs::PRIMARY), &path);
        let data = match (primary().await, key.strip_prefix("guest.")) {
            (Err(e), Some(rest)) if e.errno == libc::ENOENT => {
                // Its namespace may not have been asked for yet, or have ended meanwhile.
                let name = id.namespace();
                match kvs::client::get(&self.handle, Some(&name), rest).await {
                    Err(e) if e.errno == libc::ENOTSUP => primary().await?,
                    found => found?,
                }
            }
            (found, _) => found?,
        };
        String::from_utf8(data)
            .map_err(|_| RpcError::proto(format!("{key}: value is not valid UTF-8")))
    }

    /// The job's eventlog, whether or not the requester may see it.
    pub(super) async fn eventlog(&self, id: JobId) -> Result<String, RpcError> {
        self.get(id, "eventlog").await.map_err(|e| match e.errno {
            libc::ENOENT => RpcError::new(libc::ENOENT, "invalid job id"),
            _ => e,
        })
    }

    /// Checks that the sender of `msg` may see the job, reading its eventlog if need be.
    pub(super) async fn check(&self, msg: &Message, id: JobId) -> Result<(), RpcError> {
        if msg.is_owner() {
            return Ok(());
        }
        let userid = match self.owners.get(id) {
            Some(userid) => userid,
            None => {
                let log = self.eventlog(id).await?;
                let userid =
                    submitter(&log).ok_or_else(|| RpcError::proto("error parsing eventlog"))?;
                self.owners.put(id, userid);
                userid
            }
        };
        msg.require_user(userid)
            .map_err(|_| RpcError::new(libc::EPERM, "access is restricted to job/instance owner"))
    }
}

/// The user named by the first event, `submit`.
fn submitter(log: &str) -> Option<u32> {
    let event = Event::decode(log.lines().next()?).ok()?;
    let userid = event.get("userid").and_then(Value::as_i64)?;
    (event.name == "submit").then_some(userid as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_submit_event_names_the_owner() {
        let log = "{\"timestamp\":1.0,\"name\":\"submit\",\"context\":{\"userid\":42}}\n\
                   {\"timestamp\":1.0,\"name\":\"validate\"}\n";
        assert_eq!(submitter(log), Some(42));
        assert_eq!(submitter("{\"timestamp\":1.0,\"name\":\"x\"}\n"), None);
        assert_eq!(submitter(""), None);
    }

    #[test]
    fn memory_of_owners_is_bounded() {
        let owners = Owners::default();
        for i in 0..REMEMBERED as u64 + 10 {
            owners.put(JobId(i), i as u32);
        }
        assert_eq!(owners.get(JobId(5)), None);
        assert_eq!(owners.get(JobId(4000)), Some(4000));
    }
}
