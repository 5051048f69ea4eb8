//! Jobs of which one at a time runs: dependency `singleton`.
//!
//! A singleton waits until all active jobs of its user and name wait as singletons, too; then the first of them goes on.

use std::collections::{HashMap, VecDeque};

use formats::jobid::JobId;

use super::job::Job;

/// A user and a job name.
pub(crate) type Member = (u32, String);

#[derive(Debug, Default)]
struct Group {
    active: usize,
    waiting: VecDeque<JobId>,
}

impl Group {
    /// The first that waits, if all do.
    fn next(&mut self) -> Option<JobId> {
        let all_wait = self.active == self.waiting.len();
        all_wait.then(|| self.waiting.pop_front()).flatten()
    }
}

/// All active jobs that have names.
#[derive(Debug, Default)]
pub(crate) struct Singletons {
    groups: HashMap<Member, Group>,
}

impl Singletons {
    /// Whether a new singleton has to wait; it is not counted yet.
    pub(crate) fn must_wait(&self, job: &Job) -> bool {
        let others = job.member().and_then(|member| self.groups.get(&member));
        others.is_some_and(|group| group.active > 0)
    }

    /// A job has become active.
    pub(crate) fn enter(&mut self, job: &Job) {
        if let Some(member) = job.member() {
            self.groups.entry(member).or_default().active += 1;
        }
    }

    /// A singleton waits for its turn.
    pub(crate) fn wait(&mut self, member: Member, id: JobId) {
        let waiting = &mut self.groups.entry(member).or_default().waiting;
        if !waiting.contains(&id) {
            waiting.push_back(id);
        }
    }

    /// A job is not active any more; the singleton whose turn has come.
    pub(crate) fn leave(&mut self, job: &Job) -> Option<JobId> {
        let member = job.member()?;
        let group = self.groups.get_mut(&member)?;
        group.active = group.active.saturating_sub(1);
        group.waiting.retain(|id| *id != job.id);
        if group.active == 0 {
            self.groups.remove(&member);
            return None;
        }
        group.next()
    }

    /// The singletons whose turn it is, after a restart.
    pub(crate) fn due(&mut self) -> Vec<JobId> {
        self.groups.values_mut().filter_map(Group::next).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn job(id: u64, name: &str) -> Job {
        let jobspec = json!({"attributes": {"system": {"job": {"name": name}}}});
        Job::new(JobId(id), 0, Arc::new(jobspec))
    }

    #[test]
    fn one_after_the_other() {
        let mut singletons = Singletons::default();
        let jobs: Vec<Job> = (1..4).map(|id| job(id, "x")).collect();
        assert!(!singletons.must_wait(&jobs[0]));
        for job in &jobs {
            if singletons.must_wait(job) {
                singletons.wait(job.member().unwrap(), job.id);
            }
            singletons.enter(job);
        }
        assert!(!singletons.must_wait(&job(9, "y")));
        assert_eq!(singletons.leave(&jobs[0]), Some(JobId(2)));
        assert_eq!(singletons.leave(&jobs[1]), Some(JobId(3)));
        assert_eq!(singletons.leave(&jobs[2]), None);
        assert!(!singletons.must_wait(&jobs[0]));
    }

    #[test]
    fn a_singleton_that_is_cancelled_has_no_turn() {
        let mut singletons = Singletons::default();
        let jobs: Vec<Job> = (1..4).map(|id| job(id, "x")).collect();
        for job in &jobs {
            if singletons.must_wait(job) {
                singletons.wait(job.member().unwrap(), job.id);
            }
            singletons.enter(job);
        }
        assert_eq!(singletons.leave(&jobs[1]), None);
        assert!(singletons.due().is_empty());
        assert_eq!(singletons.leave(&jobs[0]), Some(JobId(3)));
    }
}
