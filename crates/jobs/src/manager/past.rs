//! What the manager remembers of inactive jobs: enough for dependencies and to purge the oldest; all else is in the store.

use std::collections::{BTreeSet, HashMap};

use formats::eventlog::Event;
use formats::jobid::JobId;
use serde_json::Value;

use super::depend::Outcome;

/// An inactive job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ended {
    pub(crate) userid: u32,
    pub(crate) started: bool,
    pub(crate) outcome: Outcome,
    /// Milliseconds since 1970 when it became inactive.
    when: u64,
}

impl Ended {
    /// What the events of an inactive job tell.
    pub(crate) fn of(events: &[Event]) -> Self {
        let find = |name: &str| events.iter().find(|event| event.name == name);
        let userid = find("submit").and_then(|event| event.get("userid").and_then(Value::as_u64));
        let when = find("clean").map_or(0.0, |event| event.timestamp);
        Self {
            userid: userid.unwrap_or(0) as u32,
            started: find("start").is_some(),
            outcome: Outcome::of(events),
            when: (when * 1000.0) as u64,
        }
    }
}

/// All inactive jobs.
#[derive(Debug, Default)]
pub(crate) struct Past {
    jobs: HashMap<JobId, Ended>,
    by_time: BTreeSet<(u64, JobId)>,
}

impl Past {
    pub(crate) fn add(&mut self, id: JobId, ended: Ended) {
        self.jobs.insert(id, ended);
        self.by_time.insert((ended.when, id));
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&Ended> {
        self.jobs.get(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// When the oldest became inactive, in milliseconds since 1970.
    pub(crate) fn first_time(&self) -> Option<u64> {
        self.by_time.first().map(|(when, _)| *when)
    }

    /// Forget a job.
    pub(crate) fn remove(&mut self, id: JobId) {
        if let Some(ended) = self.jobs.remove(&id) {
            self.by_time.remove(&(ended.when, id));
        }
    }

    /// Jobs that became inactive before `limit` (milliseconds since 1970), or that are too many, the oldest first.
    pub(crate) fn oldest(&self, limit: Option<u64>, keep: Option<usize>) -> Vec<JobId> {
        let extra = keep.map_or(0, |keep| self.jobs.len().saturating_sub(keep));
        let is_old = |when: u64| limit.is_some_and(|limit| when < limit);
        let due = self.by_time.iter().enumerate();
        due.take_while(|(i, (when, _))| *i < extra || is_old(*when))
            .map(|(_, (_, id))| *id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(when: f64) -> Ended {
        let submit = Event::new(1.0, "submit").with_context(json!({"userid": 5}));
        Ended::of(&[submit, Event::new(when, "clean")])
    }

    #[test]
    fn the_oldest_come_first() {
        let mut past = Past::default();
        for (id, when) in [(1, 30.0), (2, 10.0), (3, 20.0)] {
            past.add(JobId(id), ended(when));
        }
        assert_eq!(past.get(JobId(1)).unwrap().userid, 5);
        assert_eq!(past.oldest(None, None), []);
        assert_eq!(past.oldest(None, Some(2)), [JobId(2)]);
        assert_eq!(past.oldest(Some(20_001), None), [JobId(2), JobId(3)]);
        assert_eq!(past.oldest(Some(10_001), Some(1)), [JobId(2), JobId(3)]);
        past.remove(JobId(2));
        assert_eq!(
            (past.len(), past.oldest(None, Some(1))),
            (2, vec![JobId(3)])
        );
    }
}
