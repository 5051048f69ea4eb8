//! What the manager remembers of inactive jobs: enough for dependencies and to purge the oldest; all else is in the store.

use std::collections::{BTreeSet, HashMap};

use bytes::{Buf, BufMut};
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
    /// Where the archive has it.
    pub(crate) place: Option<Place>,
}

/// A place in the archive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) place: u32,
}

const OUTCOMES: [Outcome; 4] = [
    Outcome::NeverRan,
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Excepted,
];

impl Ended {
    /// Add the record of a job to those of others.
    pub(crate) fn encode(&self, id: JobId, out: &mut Vec<u8>) {
        let outcome = OUTCOMES.iter().position(|o| *o == self.outcome);
        out.put_u64_le(id.0);
        out.put_u64_le(self.when);
        out.put_u32_le(self.userid);
        out.put_u8(outcome.unwrap_or(0) as u8 | u8::from(self.started) << 4);
    }

    /// All records; nothing if these are none.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<(JobId, Ended)>> {
        let mut all = Vec::new();
        while bytes.has_remaining() {
            let id = JobId(bytes.try_get_u64_le().ok()?);
            let when = bytes.try_get_u64_le().ok()?;
            let userid = bytes.try_get_u32_le().ok()?;
            let bits = bytes.try_get_u8().ok()?;
            let ended = Ended {
                userid,
                started: bits & 0x10 != 0,
                outcome: *OUTCOMES.get(usize::from(bits & 0xf))?,
                when,
                place: None,
            };
            all.push((id, ended));
        }
        Some(all)
    }

    /// What stands in the archive for a job that was purged before it came there.
    pub(crate) fn nothing() -> Self {
        Self::of(&[])
    }

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
            place: None,
        }
    }
}

/// All inactive jobs.
#[derive(Debug, Default)]
pub(crate) struct Past {
    jobs: HashMap<JobId, Ended>,
    by_time: BTreeSet<(u64, JobId)>,
    /// Those that have no place in the archive.
    fresh: BTreeSet<JobId>,
}

impl Past {
    pub(crate) fn add(&mut self, id: JobId, ended: Ended) {
        if ended.place.is_none() {
            self.fresh.insert(id);
        }
        self.jobs.insert(id, ended);
        self.by_time.insert((ended.when, id));
    }

    /// Give a job its place in the archive; nothing if there is no such job.
    pub(crate) fn put_away(&mut self, id: JobId, place: Place) -> Option<&Ended> {
        let ended = self.jobs.get_mut(&id)?;
        ended.place = Some(place);
        self.fresh.remove(&id);
        Some(ended)
    }

    /// Jobs that have no place in the archive.
    pub(crate) fn fresh(&self) -> impl ExactSizeIterator<Item = &JobId> {
        self.fresh.iter()
    }

    /// All jobs, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&JobId, &Ended)> {
        self.jobs.iter()
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
            self.fresh.remove(&id);
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
    fn records_are_read_as_written() {
        let mut started = ended(30.5);
        (started.started, started.outcome) = (true, Outcome::Excepted);
        let all = [(JobId(1), ended(20.0)), (JobId(1 << 60), started)];
        let mut bytes = Vec::new();
        all.iter()
            .for_each(|(id, ended)| ended.encode(*id, &mut bytes));
        assert_eq!(Ended::decode(&bytes).unwrap(), all);
        assert_eq!(Ended::decode(&bytes[1..]), None);
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
