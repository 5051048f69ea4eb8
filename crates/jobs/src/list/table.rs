//! The job table: all jobs by id, and in listing order by the part of life they are in.
//!
//! Invariant: every job past NEW is in exactly one of the three orders, under the key its
//! present attributes make; so a listing walks only jobs that may match, in order. Jobs that became
//! inactive long ago are on the [`Shelf`] instead.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use formats::job::{PENDING, RUNNING};
use formats::{Event, Idset, JobResult, JobState};
use serde_json::{Value, json};

use super::block::{self, Block};
use super::constraint::Constraint;
use super::job::{Effect, Job};
use super::shelf::Shelf;

/// A time as a key that sorts. Times are never negative, so their bits sort as they do.
pub(super) type TimeKey = u64;

pub(super) fn time_key(t: f64) -> TimeKey {
    t.max(0.0).to_bits()
}

/// Where a job stands in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    None,
    Pending(Reverse<i64>, u64),
    Running(Reverse<TimeKey>, Reverse<u64>),
    Inactive(Reverse<TimeKey>, Reverse<u64>),
}

fn place(job: &Job) -> Place {
    match job.state {
        JobState::New => Place::None,
        JobState::Depend | JobState::Priority | JobState::Sched => {
            Place::Pending(Reverse(job.priority), job.id)
        }
        JobState::Run | JobState::Cleanup => {
            Place::Running(Reverse(time_key(job.times.run)), Reverse(job.id))
        }
        JobState::Inactive => {
            Place::Inactive(Reverse(time_key(job.times.inactive)), Reverse(job.id))
        }
    }
}

/// Numbers of jobs by state and by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    states: [i64; 7],
    results: [i64; 4],
    purged: i64,
}

impl Counts {
    fn add(&mut self, job: &Job, n: i64) {
        match job.state {
            JobState::New => {}
            JobState::Inactive => self.add_ended(job.result(), n),
            state => self.states[state.bit().trailing_zeros() as usize] += n,
        }
    }

    fn add_ended(&mut self, result: JobResult, n: i64) {
        self.states[JobState::Inactive.bit().trailing_zeros() as usize] += n;
        self.results[result.bit().trailing_zeros() as usize] += n;
    }

    fn to_value(&self) -> Value {
        let states = JobState::ALL.iter().skip(1);
        let mut map: serde_json::Map<String, Value> = states
            .map(|s| {
                let n = self.states[s.bit().trailing_zeros() as usize];
                (s.name().to_ascii_lowercase(), json!(n))
            })
            .collect();
        map.insert("total".into(), json!(self.states.iter().sum::<i64>()));
        let ended = |r: JobResult| self.results[r.bit().trailing_zeros() as usize];
        json!({
            "job_states": map,
            "successful": ended(JobResult::Completed),
            "failed": ended(JobResult::Failed),
            "canceled": ended(JobResult::Canceled),
            "timeout": ended(JobResult::Timeout),
            "inactive_purged": self.purged,
        })
    }
}

/// The table.
#[derive(Default)]
pub struct Table {
    jobs: HashMap<u64, Job>,
    pending: BTreeSet<(Reverse<i64>, u64)>,
    running: BTreeSet<(Reverse<TimeKey>, Reverse<u64>)>,
    inactive: BTreeSet<(Reverse<TimeKey>, Reverse<u64>)>,
    shelf: Shelf,
    counts: Counts,
    queues: BTreeMap<Arc<str>, Counts>,
}

impl Table {
    /// The job of this id.
    pub fn get(&self, id: u64) -> Option<Cow<'_, Job>> {
        let job = self.jobs.get(&id).map(Cow::Borrowed);
        job.or_else(|| self.shelf.get(id).map(Cow::Owned))
    }

    /// Number of jobs.
    pub fn len(&self) -> usize {
        self.jobs.len() + self.shelf.len()
    }

    /// Whether there is no job.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in jobs that became inactive long ago, but for some of the block.
    pub fn shelve(&mut self, block: Block, except: &Idset) {
        let (counts, queues) = (&mut self.counts, &mut self.queues);
        self.shelf.add(block, except, |head| {
            counts.add_ended(head.result, 1);
            if let Some(queue) = &head.queue {
                let counts = queues.entry(queue.clone()).or_default();
                counts.add_ended(head.result, 1);
            }
        });
    }

    /// With twice as many inactive jobs as `count` or more, puts the `count` oldest on the shelf; the block they make.
    pub fn pack(&mut self, count: usize) -> Option<Bytes> {
        if self.inactive.len() < 2 * count.max(1) {
            return None;
        }
        let oldest = self.inactive.iter().rev().take(count);
        let oldest: Vec<u64> = oldest.map(|(_, id)| id.0).collect();
        let jobs = oldest.iter().filter_map(|id| self.jobs.get(id));
        let bytes = block::encode(jobs);
        let block = Block::decode(bytes.clone()).ok()?;
        for id in oldest {
            if let Some(job) = self.jobs.remove(&id) {
                self.take_out(&job);
            }
        }
        self.shelve(block, &Idset::new());
        Some(bytes)
    }

    /// Takes in events of one job, with the jobspec and R that came with them.
    pub fn apply(
        &mut self,
        id: u64,
        events: &[Event],
        jobspec: Option<Value>,
        resources: Option<Value>,
    ) {
        let mut job = match self.jobs.remove(&id) {
            Some(job) => {
                self.take_out(&job);
                job
            }
            // A job is known from its first event on; later events of others are not ours.
            None if self.shelf.contains(id) => return,
            None if events.first().is_some_and(|e| e.name == "submit") => Job::new(id),
            None => return,
        };
        if let Some(jobspec) = jobspec {
            job.set_jobspec(jobspec);
        }
        if let Some(resources) = resources {
            job.set_resources(resources);
        }
        for event in events {
            if job.apply(event) == Effect::Dropped {
                return;
            }
        }
        self.put_in(&job);
        self.jobs.insert(id, job);
    }

    fn take_out(&mut self, job: &Job) {
        match place(job) {
            Place::None => false,
            Place::Pending(a, b) => self.pending.remove(&(a, b)),
            Place::Running(a, b) => self.running.remove(&(a, b)),
            Place::Inactive(a, b) => self.inactive.remove(&(a, b)),
        };
        self.count(job, -1);
    }

    fn put_in(&mut self, job: &Job) {
        match place(job) {
            Place::None => false,
            Place::Pending(a, b) => self.pending.insert((a, b)),
            Place::Running(a, b) => self.running.insert((a, b)),
            Place::Inactive(a, b) => self.inactive.insert((a, b)),
        };
        self.count(job, 1);
    }

    fn count(&mut self, job: &Job, n: i64) {
        self.counts.add(job, n);
        if let Some(queue) = &job.queue {
            self.queues.entry(queue.clone()).or_default().add(job, n);
        }
    }

    /// Forgets inactive jobs; they still count as purged.
    pub fn purge(&mut self, ids: &[u64]) {
        for id in ids {
            let job = match self.jobs.remove(id) {
                Some(job) => {
                    self.take_out(&job);
                    job
                }
                None => match self.shelf.remove(*id) {
                    Some(job) => {
                        self.count(&job, -1);
                        job
                    }
                    None => continue,
                },
            };
            self.counts.purged += 1;
            if let Some(queue) = &job.queue {
                self.queues.entry(queue.clone()).or_default().purged += 1;
            }
        }
    }

    /// Jobs that match, pending before running before inactive, at most `max` of them (0 is no
    /// limit). Inactive jobs that ended at `since` or before are left out.
    pub fn list<'a>(
        &'a self,
        constraint: &'a Constraint,
        since: f64,
        max: usize,
    ) -> impl Iterator<Item = Cow<'a, Job>> {
        let states = constraint.possible_states();
        let want = move |mask: u32| states & mask != 0;
        let pending = self
            .pending
            .iter()
            .map(|(_, id)| *id)
            .take_while(move |_| want(PENDING));
        let running = self
            .running
            .iter()
            .map(|(_, id)| id.0)
            .take_while(move |_| want(RUNNING));
        let active = pending.chain(running);
        active
            .filter_map(|id| self.jobs.get(&id).map(Cow::Borrowed))
            .chain(
                want(JobState::Inactive.bit())
                    .then(|| self.ended(constraint, time_key(since)))
                    .into_iter()
                    .flatten(),
            )
            .filter(|job| constraint.matches(job))
            .take(if max == 0 { usize::MAX } else { max })
    }

    /// Inactive jobs that may match, the latest first.
    fn ended<'a>(
        &'a self,
        constraint: &Constraint,
        since: TimeKey,
    ) -> impl Iterator<Item = Cow<'a, Job>> {
        let recent = self.inactive.iter();
        let recent = recent.take_while(move |(time, _)| time.0 > since);
        let recent = recent.filter_map(|key| Some((*key, Cow::Borrowed(self.jobs.get(&key.1.0)?))));
        let shelved = self.shelf.list(&constraint.needs(), since);
        let shelved = shelved.map(|(key, job)| (key, Cow::Owned(job)));
        let (mut recent, mut shelved) = (recent.peekable(), shelved.peekable());
        std::iter::from_fn(move || match (recent.peek(), shelved.peek()) {
            (Some((a, _)), Some((b, _))) if b < a => shelved.next(),
            (Some(_), _) => recent.next(),
            _ => shelved.next(),
        })
        .map(|(_, job)| job)
    }

    /// Statistics as `job-list.job-stats` reports them.
    pub fn stats(&self) -> Value {
        let mut value = self.counts.to_value();
        let queues = self.queues.iter().map(|(name, counts)| {
            let mut value = counts.to_value();
            value["name"] = json!(name);
            value
        });
        value["queues"] = queues.collect();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::{event, jobspec};
    use super::*;
    use proptest::prelude::*;

    fn events(names: &[&str], t: f64) -> Vec<Event> {
        names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let context = match *name {
                    "submit" => json!({"userid": 1, "urgency": 16, "flags": 0}),
                    "finish" => json!({"status": 0}),
                    n if n.starts_with("priority") => {
                        json!({"priority": n[8..].parse().unwrap_or(0)})
                    }
                    _ => json!({}),
                };
                let name = if name.starts_with("priority") {
                    "priority"
                } else {
                    name
                };
                event(t + i as f64, name, context)
            })
            .collect()
    }

    fn ids<'a>(jobs: impl Iterator<Item = Cow<'a, Job>>) -> Vec<u64> {
        jobs.map(|j| j.id).collect()
    }

    #[test]
    fn listing_order_and_stats() {
        let mut t = Table::default();
        let pend = |p: &'static str| ["submit", "validate", "depend", p];
        for (id, p) in [(1, "priority16"), (2, "priority31"), (3, "priority16")] {
            t.apply(id, &events(&pend(p), 1.0), Some(jobspec("a")), None);
        }
        for (id, time) in [(4, 10.0), (5, 20.0)] {
            let mut names = pend("priority1").to_vec();
            names.push("alloc");
            t.apply(id, &events(&names, time), Some(jobspec("b")), None);
        }
        for (id, time) in [(6, 30.0), (7, 40.0)] {
            let mut names = pend("priority1").to_vec();
            names.extend(["alloc", "finish", "clean"]);
            t.apply(id, &events(&names, time), Some(jobspec("b")), None);
        }
        t.apply(8, &events(&["submit"], 1.0), None, None);
        t.apply(9, &events(&["clean"], 1.0), None, None);
        let all = Constraint::True;
        assert_eq!(ids(t.list(&all, 0.0, 0)), [2, 1, 3, 5, 4, 7, 6]);
        assert_eq!(ids(t.list(&all, 37.0, 6)), [2, 1, 3, 5, 4, 7]);
        assert!(t.pack(2).is_none() && t.pack(1).is_some());
        assert_eq!(ids(t.list(&all, 0.0, 0)), [2, 1, 3, 5, 4, 7, 6]);
        assert_eq!(ids(t.list(&all, 37.0, 6)), [2, 1, 3, 5, 4, 7]);
        t.apply(6, &events(&["submit"], 1.0), None, None);
        assert_eq!(t.get(6).unwrap().state, JobState::Inactive);
        let running = Constraint::parse(&json!({"states": ["running", "inactive"]})).unwrap();
        assert_eq!(ids(t.list(&running, 0.0, 3)), [5, 4, 7]);
        t.purge(&[6]);
        let stats = t.stats();
        assert_eq!(stats["job_states"]["sched"], 3);
        assert_eq!(stats["job_states"]["total"], 6);
        assert_eq!(
            (&stats["successful"], &stats["inactive_purged"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(stats["queues"][1]["name"], "b");
        assert_eq!(stats["queues"][1]["job_states"]["run"], 2);
        t.apply(
            1,
            &[event(
                99.0,
                "jobspec-update",
                json!({"attributes.system.queue": "b"}),
            )],
            None,
            None,
        );
        assert_eq!(t.stats()["queues"][1]["job_states"]["priority"], 1);
        t.apply(8, &events(&["invalidate"], 2.0), None, None);
        assert!(t.get(8).is_none());
    }

    proptest! {
        /// However events come, each job is in the order its state says, and counted once.
        #[test]
        fn orders_agree_with_jobs(steps in prop::collection::vec((0..6u64, 0..10usize), 0..80)) {
            let names = ["submit", "validate", "depend", "priority7", "priority3", "alloc",
                "finish", "clean", "urgency", "exception"];
            let mut t = Table::default();
            for (i, (id, n)) in steps.into_iter().enumerate() {
                t.apply(id, &events(&[names[n]], i as f64), None, None);
            }
            let listed = ids(t.list(&Constraint::True, -1.0, 0));
            let past_new = t.jobs.values().filter(|j| j.state != JobState::New).count();
            prop_assert_eq!(listed.len(), past_new);
            prop_assert_eq!(t.counts.states.iter().sum::<i64>(), past_new as i64);
            prop_assert!(t.counts.states.iter().all(|n| *n >= 0));
        }
    }
}
