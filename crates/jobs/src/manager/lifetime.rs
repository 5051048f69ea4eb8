//! The end of the instance: no job may be longer than what is left, and jobs without a duration of their own end with it.
//!
//! The key `resource.R` says when that is, and is watched: the instance's own allocation may get another end.

use formats::fsd;
use formats::job::JobState;
use formats::jobid::JobId;
use kvs::client::Watch;
use kvs::flags;
use serde_json::Value;

use super::job::Job;
use super::{Done, LOG_INFO, Manager, log};

const KEY: &str = "resource.R";

/// Why a job is too long for an instance that ends at `end` (0: never).
pub(super) fn check(end: f64, now: f64, jobspec: &Value) -> Result<(), String> {
    let duration = jobspec.pointer("/attributes/system/duration");
    let duration = duration.and_then(Value::as_f64).unwrap_or(0.0);
    let left = end - now;
    if end <= 0.0 || duration <= left {
        return Ok(());
    }
    Err(format!(
        "job duration ({}) exceeds remaining instance lifetime ({})",
        fsd::format(duration),
        fsd::format(left.max(0.0))
    ))
}

/// Whether a job's end is that of the instance, since it has none of its own.
fn follows_instance(job: &Job) -> bool {
    let duration = job.jobspec.pointer("/attributes/system/duration");
    let has_end = job
        .r
        .as_deref()
        .and_then(|r| r.pointer("/execution/expiration"));
    job.state == JobState::Run
        && duration.and_then(Value::as_f64).unwrap_or(0.0) == 0.0
        && has_end.is_some()
}

/// Wait for the next R.
async fn next(mut watch: Watch) -> Done {
    match watch.next().await {
        Some(Ok(text)) => Done::Resources(Box::new(watch), text),
        // Without the key nothing is known of an end.
        _ => Done::Nothing,
    }
}

impl Manager {
    /// Follow the end of the instance from now on.
    pub(super) fn watch_lifetime(&mut self) {
        let watch = kvs::client::watch(&self.handle, Some(kvs::PRIMARY), KEY, flags::WAITCREATE);
        self.work.push(Box::pin(next(watch)));
    }

    /// Whether a job fits into what is left of the instance's life.
    pub(super) fn check_lifetime(&self, jobspec: &Value) -> Result<(), String> {
        check(self.expiration.unwrap_or(0.0), super::now(), jobspec)
    }

    /// There is a new R.
    pub(super) fn resources(&mut self, watch: Watch, text: &[u8]) {
        self.work.push(Box::pin(next(watch)));
        let r: Value = serde_json::from_slice(text).unwrap_or_default();
        let new = r.pointer("/execution/expiration").and_then(Value::as_f64);
        let new = new.unwrap_or(0.0);
        let Some(old) = self.expiration.replace(new) else {
            return;
        };
        if (new - old).abs() < 1e-5 {
            return;
        }
        let change = |old: f64| match (old, new) {
            (0.0, _) => f64::NEG_INFINITY,
            (_, 0.0) => f64::INFINITY,
            _ => new - old,
        };
        let text = format!(
            "resource expiration updated from {old:.2} to {new:.2} ({:+})",
            change(old)
        );
        log(&self.handle, LOG_INFO, &text);
        let jobs = self.jobs.values().filter(|job| follows_instance(job));
        let ids: Vec<JobId> = jobs.map(|job| job.id).collect();
        for id in ids {
            let text = format!(
                "updated expiration of {} from {old:.2} to {new:.2} ({:+})",
                crate::shown(id),
                change(old)
            );
            log(&self.handle, LOG_INFO, &text);
            self.expire(id, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_is_not_longer_than_the_instance() {
        let job = |duration: f64| json!({"attributes": {"system": {"duration": duration}}});
        assert_eq!(check(0.0, 100.0, &job(1e9)), Ok(()));
        assert_eq!(check(160.0, 100.0, &job(60.0)), Ok(()));
        assert_eq!(check(160.0, 100.0, &job(0.0)), Ok(()));
        assert_eq!(
            check(160.0, 100.0, &job(120.0)).unwrap_err(),
            "job duration (2m) exceeds remaining instance lifetime (1m)"
        );
    }
}
