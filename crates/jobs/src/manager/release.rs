//! Adding dependencies to jobs and taking them away (RFC 26): when other jobs come so far, when it is time, when a
//! singleton's turn has come.

use std::time::Duration;

use formats::dependency::Condition;
use formats::job::JobState;
use formats::jobid::JobId;
use serde_json::json;

use super::depend::{self, Dependency, On, Progress, Verdict, Waiter};
use super::job::Job;
use super::{Done, Manager};

/// Longest sleep at a time: a clock that is set is noticed within it.
const NAP: Duration = Duration::from_secs(60);

/// Sleep until the system's clock says `time`.
async fn until(time: f64) {
    loop {
        let left = time - super::now();
        if left <= 0.0 {
            return;
        }
        let left = Duration::try_from_secs_f64(left).unwrap_or(NAP);
        tokio::time::sleep(left.min(NAP)).await;
    }
}

impl Manager {
    /// Whether a new job of `userid` may have these dependencies.
    pub(super) fn check_dependencies(
        &self,
        job: &Job,
        userid: u32,
        dependencies: &[Dependency],
    ) -> Result<(), String> {
        for dependency in dependencies {
            let what = &dependency.description;
            match dependency.on {
                On::Time(_) | On::Foreign(_) => {}
                On::Singleton if job.name().is_some() => {}
                On::Singleton => {
                    return Err("dependency: singleton jobs require a job name".to_owned());
                }
                On::Job(condition, target) => {
                    let owner = self.jobs.get(&target).map(|job| job.userid);
                    match owner.or_else(|| self.past.get(target).map(|past| past.userid)) {
                        None => return Err(format!("dependency: {what}: job not found")),
                        Some(owner) if owner != userid => {
                            return Err(format!(
                                "dependency: {what}: Permission denied for job {}",
                                crate::shown(target)
                            ));
                        }
                        Some(_) => {}
                    }
                    if let Verdict::Never(why) = self.verdict(condition, target) {
                        return Err(format!("dependency: {what}: {why}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// What is known now of a dependency on another job.
    fn verdict(&self, condition: Condition, target: JobId) -> Verdict {
        let progress = match (self.jobs.get(&target), self.past.get(target)) {
            (Some(job), _) if job.started => Progress::Started,
            (Some(_), _) => Progress::Waiting,
            (None, Some(past)) if past.started && condition == Condition::After => {
                Progress::Started
            }
            (None, Some(past)) => Progress::Ended(past.outcome),
            (None, None) => return Verdict::Never("job not found"),
        };
        depend::judge(condition, progress)
    }

    /// Let a job wait for a dependency; one that is known to have been added is not added again.
    pub(super) fn depend_on(&mut self, id: JobId, dependency: Dependency, known: bool) {
        let Dependency { on, description } = dependency;
        if matches!(on, On::Foreign(_)) {
            return;
        }
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if on == On::Singleton && !known && !self.singletons.must_wait(job) {
            return;
        }
        if !known && job.dependencies.contains(&description) {
            return;
        }
        let member = job.member();
        if !known {
            self.post(id, "dependency-add", json!({ "description": description }));
        }
        match on {
            On::Foreign(_) => {}
            On::Singleton => {
                if let Some(member) = member {
                    self.singletons.wait(member, id);
                }
            }
            On::Time(time) => self.work.push(Box::pin(async move {
                until(time).await;
                Done::Due(id, description)
            })),
            On::Job(condition, target) => match self.verdict(condition, target) {
                Verdict::Wait => {
                    let waiter = Waiter {
                        job: id,
                        condition,
                        description,
                    };
                    self.waiting.add(target, waiter);
                }
                verdict => self.settle(id, &description, verdict),
            },
        }
    }

    /// Tell the dependents of `id` how far it has come.
    pub(super) fn progress(&mut self, id: JobId, progress: Progress) {
        for (waiter, verdict) in self.waiting.decide(id, progress) {
            self.settle(waiter.job, &waiter.description, verdict);
        }
    }

    /// Do to a job that waits what the verdict on one of its dependencies calls for.
    pub(super) fn settle(&mut self, id: JobId, description: &str, verdict: Verdict) {
        let waits = |job: &Job| {
            matches!(job.state, JobState::New | JobState::Depend)
                && job.dependencies.contains(description)
        };
        if !self.jobs.get(&id).is_some_and(waits) {
            return;
        }
        match verdict {
            Verdict::Wait => {}
            Verdict::Satisfied => {
                let context = json!({ "description": description });
                self.post(id, "dependency-remove", context);
                let job = self.jobs.get(&id);
                if job.is_some_and(|job| job.state == JobState::Depend) {
                    self.act(id);
                }
            }
            Verdict::Never(why) => {
                let note = format!("dependency {description} {why}");
                self.raise(id, "dependency", 0, &note, self.owner(id), None);
            }
        }
    }

    /// A job has left; the turn of the next singleton of its name may have come.
    pub(super) fn next_singleton(&mut self, job: &Job) {
        if let Some(next) = self.singletons.leave(job) {
            self.settle(next, "singleton", Verdict::Satisfied);
        }
    }
}
