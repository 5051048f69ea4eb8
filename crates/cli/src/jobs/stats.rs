//! Counts of jobs by state and outcome, from `job-list.job-stats`.

use client::{Handle, Node};
use serde::Deserialize;
use serde_json::json;

use crate::error::Failure;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct States {
    depend: i64,
    priority: i64,
    sched: i64,
    run: i64,
    cleanup: i64,
    inactive: i64,
    total: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Counts {
    #[serde(default)]
    name: String,
    job_states: States,
    successful: i64,
    failed: i64,
    timeout: i64,
    canceled: i64,
    inactive_purged: i64,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(flatten)]
    all: Counts,
    #[serde(default)]
    queues: Vec<Counts>,
}

/// Counts of an instance, or of some of its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stats {
    pub(crate) pending: i64,
    pub(crate) running: i64,
    pub(crate) successful: i64,
    /// Every unsuccessful end: non-zero exit, timeout, cancel.
    pub(crate) failed: i64,
    pub(crate) inactive: i64,
    pub(crate) total: i64,
    pub(crate) inactive_purged: i64,
}

impl Stats {
    fn add(&mut self, counts: &Counts) {
        let states = counts.job_states;
        self.pending += states.depend + states.priority + states.sched;
        self.running += states.run + states.cleanup;
        self.successful += counts.successful;
        self.failed += counts.failed + counts.timeout + counts.canceled;
        self.inactive += states.inactive;
        self.total += states.total;
        self.inactive_purged += counts.inactive_purged;
    }

    /// Jobs that are not inactive.
    pub(crate) fn active(&self) -> i64 {
        self.total - self.inactive
    }

    pub(crate) async fn fetch(handle: &Handle, queues: &[String]) -> Result<Stats, Failure> {
        let answer: Answer = handle
            .call("job-list.job-stats", Node::Any, &json!({}))
            .await?;
        Stats::of(&answer, queues)
    }

    /// As [`Stats::fetch`], but nothing where jobs are private and this user may not know.
    pub(crate) async fn fetch_open(handle: &Handle, queues: &[String]) -> Result<Stats, Failure> {
        let request = json!({});
        let answer = handle.call("job-list.job-stats", Node::Any, &request);
        match answer.await {
            Err(e) if e.errno == libc::EPERM => Ok(Stats::default()),
            answer => Stats::of(&answer?, queues),
        }
    }

    fn of(answer: &Answer, queues: &[String]) -> Result<Stats, Failure> {
        let mut stats = Stats::default();
        if queues.is_empty() {
            stats.add(&answer.all);
        }
        for queue in queues {
            let counts = answer.queues.iter().find(|q| q.name == *queue);
            stats
                .add(counts.ok_or_else(|| {
                    Failure::new(format!("no stats available for queue {queue}"))
                })?);
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let states = |n: i64| json!({"depend": n, "priority": 0, "sched": 1, "run": 2, "cleanup": 1, "inactive": 5, "total": n + 9});
        let counts = |name: &str, n| {
            json!({"name": name, "job_states": states(n), "successful": 3, "failed": 1,
                   "timeout": 1, "canceled": 0, "inactive_purged": 7})
        };
        let mut all = counts("all", 1);
        all["queues"] = json!([counts("a", 2), counts("b", 4)]);
        let answer: Answer = serde_json::from_value(all).unwrap();
        let one = Stats::of(&answer, &[]).unwrap();
        assert_eq!(
            (one.pending, one.running, one.failed, one.active()),
            (2, 3, 2, 5)
        );
        let two = Stats::of(&answer, &["a".into(), "b".into()]).unwrap();
        assert_eq!(
            (two.pending, two.successful, two.inactive_purged),
            (8, 6, 14)
        );
        assert!(Stats::of(&answer, &["c".into()]).is_err());
    }
}
