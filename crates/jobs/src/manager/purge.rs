//! Removing the records of inactive jobs for good: `purge`, `purge-id`, and by itself above the limits of the
//! configuration (`job-manager.inactive-age-limit`, `inactive-num-limit`).
//!
//! A job is gone for all when its record is: the event `job-purge-inactive` follows the commit.

use std::time::Duration;

use formats::fsd;
use formats::jobid::JobId;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::batch::After;
use super::{Done, Manager};

/// Jobs purged by itself in one commit: bounds the size of a KVS transaction.
const BATCH: usize = 100;

/// How many inactive jobs are kept, and for how many seconds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Limits {
    #[serde(default, rename = "inactive-age-limit", deserialize_with = "age")]
    age: Option<f64>,
    #[serde(default, rename = "inactive-num-limit")]
    count: Option<usize>,
}

fn age<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    let text = String::deserialize(d)?;
    let age = fsd::parse(&text).map_err(serde::de::Error::custom)?;
    Ok(age.is_finite().then_some(age))
}

/// What purging knows beside the inactive jobs.
#[derive(Debug, Default)]
pub(super) struct Purge {
    pub(super) limits: Limits,
    /// A look at the ages is due.
    waits: bool,
}

/// Milliseconds since 1970, `age` seconds ago.
fn before(age: f64) -> u64 {
    ((super::now() - age).max(0.0) * 1000.0) as u64
}

impl Manager {
    pub(super) fn purge_request(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            age_limit: f64,
            num_limit: i64,
            batch: usize,
            force: bool,
        }
        msg.require_owner()?;
        let Request {
            age_limit,
            num_limit,
            batch,
            force,
        } = msg.json()?;
        let invalid = |why| Err(RpcError::new(libc::EINVAL, why));
        if age_limit < 0.0 && age_limit != -1.0 {
            return invalid("if set, age limit must be >= 0");
        }
        if num_limit < -1 {
            return invalid("if set, num limit must be >= 0");
        }
        if batch == 0 {
            return invalid("batch size must be >= 1");
        }
        let age = (age_limit >= 0.0).then(|| before(age_limit));
        let mut ids = self.past.oldest(age, usize::try_from(num_limit).ok());
        if !force {
            return Ok(Some(json!({ "count": ids.len() })));
        }
        ids.truncate(batch);
        Ok(self.purge_then(msg, ids))
    }

    pub(super) fn purge_id(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            force: Value,
        }
        msg.require_owner()?;
        let Request { id, force } = msg.json()?;
        if self.past.get(id).is_none() {
            let what = match self.jobs.contains_key(&id) {
                true => "cannot purge active job",
                false => "id not found",
            };
            let errno = match self.jobs.contains_key(&id) {
                true => libc::EINVAL,
                false => libc::ENOENT,
            };
            return Err(RpcError::new(errno, what));
        }
        // A number or a truth value.
        if matches!(force, Value::Bool(false)) || force == json!(0) {
            return Ok(Some(json!({ "count": 1 })));
        }
        Ok(self.purge_then(msg, vec![id]))
    }

    /// Purge jobs; the request is answered when they are gone.
    fn purge_then(&mut self, msg: &Message, ids: Vec<JobId>) -> Option<Value> {
        let answer = json!({ "count": ids.len() });
        if ids.is_empty() {
            return Some(answer);
        }
        self.purge_jobs(ids);
        self.batch.after(After::Respond(msg.clone(), answer));
        None
    }

    fn purge_jobs(&mut self, ids: Vec<JobId>) {
        for id in &ids {
            if let Some(ended) = self.past.get(*id) {
                let (userid, place) = (ended.userid, ended.place);
                self.history.remove(userid, *id);
                self.tell_purged(*id, userid);
                if let Some(place) = place {
                    self.purge_from_archive(place);
                }
            }
            self.past.remove(*id);
            self.batch.remove(id.kvs_path());
        }
        self.batch.after(After::Purged(ids));
    }

    /// Tell everybody that jobs are gone.
    pub(super) fn purged(&mut self, ids: &[JobId]) {
        self.publish("job-purge-inactive", json!({ "jobs": ids }));
    }

    /// Keep to the limits of the configuration.
    pub(super) fn keep_limits(&mut self) {
        let Limits { age, count } = self.purge.limits;
        let mut ids = self.past.oldest(age.map(before), count);
        ids.truncate(BATCH);
        if !ids.is_empty() {
            self.purge_jobs(ids);
        }
        let oldest = self.past.first_time();
        let (Some(age), Some(oldest), false) = (age, oldest, self.purge.waits) else {
            return;
        };
        self.purge.waits = true;
        let left = oldest.saturating_sub(before(age)) + 1;
        self.work.push(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(left)).await;
            Done::Aged
        }));
    }

    /// The oldest inactive job may have become too old.
    pub(super) fn aged(&mut self) {
        self.purge.waits = false;
        self.keep_limits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let of = |value: Value| Limits::deserialize(value);
        let limits = of(json!({"inactive-age-limit": "1m", "inactive-num-limit": 3})).unwrap();
        assert_eq!((limits.age, limits.count), (Some(60.0), Some(3)));
        assert_eq!(of(json!({})).unwrap(), Limits::default());
        assert!(of(json!({"inactive-age-limit": 5})).is_err());
        assert!(of(json!({"inactive-num-limit": -1})).is_err());
    }
}
