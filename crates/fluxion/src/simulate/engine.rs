//! From event to event.

use super::{Job, Placement};
use crate::context::{Context, Error};
use crate::graph::Word;
use crate::job;
use crate::look::{Match, Op};
use crate::plan::{JobId, Time};
use crate::queue::{Change, Matcher, Queue, Refusal, Reserved, Settings};
use crate::request::{Request, RequestError};
use formats::Jobspec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Why a job of a trace is none.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: job {id}: {source}")]
#[allow(missing_docs)] // their messages say it
pub struct SimulationError {
    pub line: usize,
    pub id: u64,
    pub source: Error,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It ran.
    Ran {
        /// Since when.
        start: Time,
        /// Until when.
        end: Time,
    },
    /// The machine can never run it.
    Denied,
    /// It still waits.
    Waits,
}

/// A job and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// The job.
    pub job: &'a Job,
    /// What became of it.
    pub outcome: Outcome,
    /// The start it was promised when it became the first in line.
    pub promised: Option<Time>,
    /// Whether it started before one that had come earlier.
    pub backfilled: bool,
    /// How many units it was given, [`Simulation::capacity`].
    pub amount: i64,
}

/// A context whose use is counted.
struct Machine {
    context: Context,
    decisions: u64,
}

impl Matcher for Machine {
    type Request = Request;
    type Grant = Match;

    fn start(&mut self, job: JobId, request: &Request, now: Time) -> Result<Match, Refusal> {
        self.decisions += 1;
        self.context.start(job, request, now)
    }

    fn reserve(
        &mut self,
        job: JobId,
        request: &Request,
        now: Time,
    ) -> Result<Reserved<Match>, Refusal> {
        self.decisions += 1;
        self.context.reserve(job, request, now)
    }

    fn forget(&mut self, job: JobId) {
        self.context.forget(job);
    }
}

/// A queue, a machine, and the jobs that come and go. Jobs are known to both by their places in
/// order of submission.
pub struct Simulation<'a> {
    machine: Machine,
    queue: Queue<Machine>,
    records: Vec<Record<'a>>,
    requests: Vec<Option<Request>>,
    /// The next job to be submitted.
    next: usize,
    ends: BinaryHeap<Reverse<(Time, usize)>>,
    unit: Option<Word>,
    capacity: i64,
    busy: i64,
    usage: Vec<(Time, i64)>,
    runs: u64,
}

impl<'a> Simulation<'a> {
    /// Sets out; the context has no jobs yet.
    pub fn new(
        context: Context,
        settings: Settings,
        jobs: &'a [Job],
        placement: Placement,
    ) -> Result<Simulation<'a>, SimulationError> {
        let mut sorted: Vec<&Job> = jobs.iter().collect();
        sorted.sort_by_key(|job| job.submit);
        let request = |job: &&Job| {
            let jobspec = Jobspec::from_value(job.jobspec(placement));
            let request = jobspec.map_err(|e| Error::Request(RequestError::Jobspec(e)));
            let request = request.and_then(|jobspec| context.request(&jobspec));
            request.map(Some).map_err(|source| SimulationError {
                line: job.line,
                id: job.id,
                source,
            })
        };
        let requests = sorted.iter().map(request).collect::<Result<_, _>>()?;
        let record = |job| Record {
            job,
            outcome: Outcome::Waits,
            promised: None,
            backfilled: false,
            amount: 0,
        };
        let graph = context.graph();
        let words = graph.words();
        let unit = ["core", "node"].into_iter().find_map(|u| words.find(u));
        let total = |unit| graph.total(graph.root(), unit);
        Ok(Simulation {
            records: sorted.into_iter().map(record).collect(),
            requests,
            next: 0,
            ends: BinaryHeap::new(),
            unit,
            capacity: unit.map_or(0, total),
            busy: 0,
            usage: Vec::new(),
            runs: 0,
            queue: Queue::new(settings),
            machine: Machine {
                context,
                decisions: 0,
            },
        })
    }

    /// Goes to the next moment at which jobs come or end, and has the queue run: when that was, or
    /// nothing if there is none.
    pub fn step(&mut self) -> Option<Time> {
        let submit = self.records.get(self.next).map(|r| r.job.submit);
        let end = self.ends.peek().map(|Reverse((end, _))| *end);
        let now = match (submit, end) {
            (Some(submit), Some(end)) => submit.min(end),
            (submit, end) => submit.or(end)?,
        };
        self.end_jobs(now);
        self.submit_jobs(now);
        self.runs += 1;
        let changes = self.queue.run(&mut self.machine, now);
        let head = self.queue.jobs().next();
        for change in changes {
            match change {
                Change::Start(job, _) => {
                    let passes = head.is_some_and(|(head, _)| head < job);
                    self.start(job as usize, now, passes);
                }
                Change::Deny(job) => self.records[job as usize].outcome = Outcome::Denied,
                Change::Outlook(..) => {}
            }
        }
        if let Some((job, outlook)) = head {
            let promised = &mut self.records[job as usize].promised;
            *promised = promised.or(outlook.and_then(|o| o.estimate));
        }
        if self.usage.last().map_or(0, |u| u.1) != self.busy {
            self.usage.push((now, self.busy));
        }
        Some(now)
    }

    fn end_jobs(&mut self, now: Time) {
        while let Some(Reverse((end, job))) = self.ends.peek().copied()
            && end <= now
        {
            self.ends.pop();
            self.machine.forget(job as JobId);
            self.busy -= self.records[job].amount;
            self.queue.resources_changed();
        }
    }

    fn submit_jobs(&mut self, now: Time) {
        while let Some(record) = self.records.get_mut(self.next)
            && record.job.submit <= now
        {
            let job = self.next as JobId;
            self.next += 1;
            let Some(request) = self.requests[job as usize].take() else {
                continue;
            };
            let context = &mut self.machine.context;
            // First come, first served would wait for it for ever.
            match context.submit(Op::Satisfiability, job, &request, now) {
                Ok(_) => self.queue.enqueue(job, 16, job as u64, request),
                Err(_) => record.outcome = Outcome::Denied,
            }
        }
    }

    fn start(&mut self, job: usize, now: Time, backfilled: bool) {
        let end = now + self.records[job].job.runs();
        let holds = self.machine.context.jobs().get(&(job as JobId));
        let holds = holds.map_or(&[][..], job::Job::holds);
        let graph = self.machine.context.graph();
        let amount = |unit| holds.iter().map(|h| h.amount_of(graph, unit)).sum();
        let record = &mut self.records[job];
        record.amount = self.unit.map_or(0, amount);
        record.backfilled = backfilled;
        record.outcome = Outcome::Ran { start: now, end };
        self.busy += record.amount;
        self.ends.push(Reverse((end, job)));
    }

    /// The jobs in order of submission, and what has become of them.
    pub fn records(&self) -> &[Record<'a>] {
        &self.records
    }

    /// The machine.
    pub fn context(&self) -> &Context {
        &self.machine.context
    }

    /// What usage is counted in: cores if there are any, or else nodes.
    pub fn capacity(&self) -> i64 {
        self.capacity
    }

    /// The moments at which usage changed, and what it was from then on.
    pub fn usage(&self) -> &[(Time, i64)] {
        &self.usage
    }

    /// How many times the queue ran.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How many times it asked for resources.
    pub fn decisions(&self) -> u64 {
        self.machine.decisions
    }
}
