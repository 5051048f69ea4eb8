//! Which job is next: queues over something that finds resources.
//!
//! A [`Queue`] keeps jobs by priority, then by time. [`Queue::run`] goes through them in that order
//! and asks a [`Matcher`] to start them; it returns what has changed. Policies differ in how many
//! jobs that cannot start get a reservation before others may pass them:
//!
//! | policy | reservations | a job passes others if |
//! |---|---|---|
//! | [`Policy::Fcfs`] | none | never |
//! | [`Policy::Easy`] | the first | it does not delay the first |
//! | [`Policy::Hybrid`] | the first so many | it does not delay these |
//! | [`Policy::Conservative`] | all that are looked at | it delays nobody |
//!
//! There is no clock: the moment comes in as an argument, and what was decided about
//! a job stands until resources change or a reservation falls due: what could not start before cannot now. So jobs that
//! come in cost what they and those behind them cost, and running twice without a change does nothing, but for jobs that
//! come up to the depth behind those that left.

mod config;

pub use config::{ConfigError, Depths, Policy, Settings};

use crate::context::Context;
use crate::look::{Match, MatchError, Op};
use crate::plan::{JobId, Time};
use crate::request::Request;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Why a job does not get resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Others have them.
    Busy,
    /// There never will be enough.
    Never,
}

/// What a queue asks to find resources.
pub trait Matcher {
    /// What a job asks for.
    type Request: PartialEq;
    /// What it gets.
    type Grant;

    /// Gives a job what it asks for, now.
    fn start(
        &mut self,
        job: JobId,
        request: &Self::Request,
        now: Time,
    ) -> Result<Self::Grant, Refusal>;

    /// Sets aside what a job asks for, as early as possible: when that is. A grant if that is now.
    fn reserve(
        &mut self,
        job: JobId,
        request: &Self::Request,
        now: Time,
    ) -> Result<Reserved<Self::Grant>, Refusal>;

    /// Gives up what was set aside.
    fn forget(&mut self, job: JobId);
}

/// What came of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved<Grant> {
    /// The job could start at once.
    Started(Grant),
    /// It can start then.
    At(Time),
}

impl From<Match> for Reserved<Match> {
    fn from(found: Match) -> Self {
        match found.reserved {
            true => Self::At(found.start),
            false => Self::Started(found),
        }
    }
}

impl Matcher for Context {
    type Request = Request;
    type Grant = Match;

    fn start(&mut self, job: JobId, request: &Request, now: Time) -> Result<Match, Refusal> {
        self.submit(Op::Allocate, job, request, now)
            .map_err(Refusal::from)
    }

    fn reserve(
        &mut self,
        job: JobId,
        request: &Request,
        now: Time,
    ) -> Result<Reserved<Match>, Refusal> {
        Ok(self
            .submit(Op::AllocateOrElseReserve, job, request, now)?
            .into())
    }

    fn forget(&mut self, job: JobId) {
        // A job that has nothing is what is wanted.
        let _ = self.cancel(job);
    }
}

impl From<MatchError> for Refusal {
    fn from(error: MatchError) -> Refusal {
        match error {
            MatchError::Busy | MatchError::Exists(_) => Refusal::Busy,
            MatchError::Unsatisfiable | MatchError::TooLong(_) => Refusal::Never,
        }
    }
}

/// Why a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There are not enough free resources.
    Resources,
    /// Jobs before it wait, and it may not pass them.
    Priority,
    /// It was not looked at: the queue is longer than its depth.
    Depth,
}

impl Reason {
    /// The reason in a word, for annotations.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Resources => "resources",
            Reason::Priority => "priority",
            Reason::Depth => "queue-depth",
        }
    }
}

/// What is known of a waiting job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// When it is expected to start, if that is known.
    pub estimate: Option<Time>,
    /// Why it waits.
    pub reason: Reason,
}

/// What a run changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<Grant> {
    /// A job has resources and leaves the queue.
    Start(JobId, Grant),
    /// A job can never run and leaves the queue.
    Deny(JobId),
    /// What is known of a waiting job is new.
    Outlook(JobId, Outlook),
}

/// Where a job stands: greater priorities first, then earlier ones.
type Rank = (Reverse<u32>, u64, JobId);

#[derive(Debug)]
struct Waiting<R> {
    request: R,
    outlook: Option<Outlook>,
}

impl<R> Waiting<R> {
    /// Takes note of what is known of a job: the change, if that is new.
    fn tell<G>(&mut self, job: JobId, estimate: Option<Time>, reason: Reason) -> Option<Change<G>> {
        let outlook = Some(Outlook { estimate, reason });
        if self.outlook == outlook {
            return None;
        }
        self.outlook = outlook;
        outlook.map(|outlook| Change::Outlook(job, outlook))
    }
}

/// Jobs that wait.
#[derive(Debug)]
pub struct Queue<M: Matcher> {
    settings: Settings,
    order: BTreeMap<Rank, Waiting<M::Request>>,
    ranks: HashMap<JobId, Rank>,
    reserved: BTreeSet<JobId>,
    /// Since the last run new in their places.
    fresh: BTreeSet<Rank>,
    /// From where on jobs, but for fresh ones, know that they were not looked at, and why.
    passed_over: Option<(Rank, Reason)>,
    /// Whether what was decided does not stand any more.
    stale: bool,
    /// Whether jobs left in the last run, so that others come up that were too far behind.
    advanced: bool,
}

impl<M: Matcher> Queue<M> {
    /// A queue without jobs.
    pub fn new(settings: Settings) -> Queue<M> {
        Queue {
            settings,
            order: BTreeMap::new(),
            ranks: HashMap::new(),
            reserved: BTreeSet::new(),
            fresh: BTreeSet::new(),
            passed_over: None,
            stale: false,
            advanced: false,
        }
    }

    /// The number of jobs that wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The jobs in order.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, Option<Outlook>)> + '_ {
        self.order.iter().map(|(rank, w)| (rank.2, w.outlook))
    }

    /// Adds a job; `order` decides among those of a priority. A job that is there is replaced.
    pub fn enqueue(&mut self, job: JobId, priority: u32, order: u64, request: M::Request) {
        self.stale |= self.take(job).is_some();
        let waiting = Waiting {
            request,
            outlook: None,
        };
        self.put((Reverse(priority), order, job), waiting);
    }

    fn put(&mut self, rank: Rank, waiting: Waiting<M::Request>) {
        self.ranks.insert(rank.2, rank);
        self.order.insert(rank, waiting);
        self.fresh.insert(rank);
    }

    fn take(&mut self, job: JobId) -> Option<Waiting<M::Request>> {
        self.order.remove(&self.ranks.remove(&job)?)
    }

    /// Removes a job that no longer waits; whether it was there.
    pub fn dequeue(&mut self, matcher: &mut M, job: JobId) -> bool {
        let found = self.take(job).is_some();
        if self.reserved.remove(&job) {
            matcher.forget(job);
        }
        self.stale |= found;
        found
    }

    /// Gives a job another priority; whether it was there.
    pub fn prioritize(&mut self, job: JobId, priority: u32) -> bool {
        let Some(old) = self.ranks.get(&job).copied() else {
            return false;
        };
        let Some(waiting) = self.take(job) else {
            return false;
        };
        let new = (Reverse(priority), old.1, job);
        // Others come up to where it was looked at.
        let was_seen = self.passed_over.is_none_or(|(rank, _)| old < rank);
        self.stale |= was_seen && new > old;
        self.put(new, waiting);
        true
    }

    /// Says that resources came back, or changed in another way.
    pub fn resources_changed(&mut self) {
        self.stale = true;
    }

    /// Starts what can start at a moment, sets aside what policy says, and returns what has changed.
    pub fn run(&mut self, matcher: &mut M, now: Time) -> Vec<Change<M::Grant>> {
        let mut changes = Vec::new();
        let Some(begin) = self.undecided(now) else {
            return changes;
        };
        self.stale = false;
        let mut reserved = std::mem::take(&mut self.reserved);
        reserved.retain(|job| {
            let stands = self.ranks.get(job).is_some_and(|rank| *rank < begin);
            if !stands {
                matcher.forget(*job);
            }
            stands
        });
        let plan = self.settings.reservations();
        let depth = self.settings.depths.queue;
        let before = self.order.range(..begin).take(depth).count();
        let mut gone = Vec::new();
        // Requests that could not start in this run: the same again cannot either.
        let mut failed: Vec<&M::Request> = Vec::new();
        // Who was looked at and is still here could not start.
        let mut blocked = plan == 0 && before > 0;
        let known = self.passed_over.filter(|_| blocked);
        let mut passed_over = known;
        for (i, (rank, waiting)) in (before..).zip(self.order.range_mut(begin..)) {
            let job = rank.2;
            if i >= depth || blocked {
                let reason = if blocked {
                    Reason::Priority
                } else {
                    Reason::Depth
                };
                let from = known.map_or(*rank, |known| known.0.min(*rank));
                passed_over = Some((from, reason));
                break;
            }
            let may_reserve = reserved.len() < plan;
            let result = if may_reserve {
                matcher.reserve(job, &waiting.request, now)
            } else if failed.contains(&&waiting.request) {
                Err(Refusal::Busy)
            } else {
                matcher
                    .start(job, &waiting.request, now)
                    .map(Reserved::Started)
            };
            match result {
                Ok(Reserved::Started(grant)) => {
                    changes.push(Change::Start(job, grant));
                    gone.push(job);
                }
                Ok(Reserved::At(time)) => {
                    reserved.insert(job);
                    changes.extend(waiting.tell(job, Some(time), Reason::Resources));
                }
                Err(Refusal::Never) => {
                    changes.push(Change::Deny(job));
                    gone.push(job);
                }
                Err(Refusal::Busy) => {
                    changes.extend(waiting.tell(job, None, Reason::Resources));
                    if failed.len() < FAILED {
                        failed.push(&waiting.request);
                    }
                    blocked = plan == 0;
                }
            }
        }
        self.reserved = reserved;
        self.pass_over(passed_over, &mut changes);
        self.advanced = !gone.is_empty();
        for job in gone {
            self.take(job);
        }
        changes
    }

    /// Where the first job is of which something has to be decided; none if all stands.
    fn undecided(&self, now: Time) -> Option<Rank> {
        let estimate = |job| self.order.get(self.ranks.get(job)?)?.outlook?.estimate;
        let is_due = |job| estimate(job).is_none_or(|at| at <= now);
        if self.stale || self.reserved.iter().any(is_due) {
            return self.order.first_key_value().map(|first| *first.0);
        }
        let fresh = self.fresh.first().copied();
        let deeper = match self.passed_over {
            Some((rank, Reason::Depth)) if self.advanced || fresh.is_some() => Some(rank),
            _ => None,
        };
        fresh.into_iter().chain(deeper).min()
    }

    /// Tells the jobs from a place on why they were not looked at, unless they know.
    fn pass_over(&mut self, from: Option<(Rank, Reason)>, changes: &mut Vec<Change<M::Grant>>) {
        let fresh = std::mem::take(&mut self.fresh);
        let known = std::mem::replace(&mut self.passed_over, from);
        let Some((first, reason)) = from else {
            return;
        };
        let told = known.filter(|k| k.1 == reason).map(|k| k.0.max(first));
        let mut tell = |(rank, waiting): (&Rank, &mut Waiting<M::Request>)| {
            changes.extend(waiting.tell(rank.2, None, reason));
        };
        match told {
            None => self.order.range_mut(first..).for_each(tell),
            Some(told) => {
                self.order.range_mut(first..told).for_each(&mut tell);
                for rank in fresh.range(told..) {
                    self.order.get_mut(rank).map(|w| (rank, w)).map(&mut tell);
                }
            }
        }
    }
}

/// How many requests that failed are remembered in a run.
const FAILED: usize = 16;

#[cfg(test)]
mod tests;
