//! The graph, what matches cost, and what is said about both. No messages.

mod load;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fluxion::find::Criteria;
use fluxion::graph::Vertex;
use fluxion::plan::{JobId, Time};
use fluxion::queue::{Matcher, Refusal, Reserved};
use fluxion::read::rv1;
use fluxion::request::{self, Request};
use fluxion::{Context, Error, HORIZON, Match, MatchError, Op, write};
use formats::{Idset, Jobspec};
use serde_json::{Map, Value, json};
use wire::RpcError;

pub use load::{Topologies, has_graph};

use crate::perf::Tally;
use crate::r::{moment, term};

/// This second.
pub fn now() -> Time {
    // A clock before 1970 is as good as one that stands there.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs() as Time
}

fn fault(error: Error) -> RpcError {
    let errno = match &error {
        Error::NoJob(_) | Error::NoPath(_) | Error::NoRank(_) => libc::ENOENT,
        Error::NotFree(..) => libc::EBUSY,
        _ => libc::EINVAL,
    };
    RpcError::new(errno, error.to_string())
}

/// How a match that failed is told.
pub fn match_fault(error: &MatchError) -> RpcError {
    let errno = match error {
        MatchError::Busy => libc::EBUSY,
        MatchError::Unsatisfiable => libc::ENODEV,
        MatchError::Exists(_) | MatchError::TooLong(_) => libc::EINVAL,
    };
    RpcError::new(errno, error.to_string())
}

fn invalid(why: impl std::fmt::Display) -> RpcError {
    RpcError::new(libc::EINVAL, why.to_string())
}

/// What a match found, for whoever asked.
pub struct Found {
    /// The resources and when.
    pub found: Match,
    /// The same as text.
    pub r: String,
    /// How long it took, in seconds.
    pub overhead: f64,
}

/// The graph and what is known of it.
pub struct Machine {
    context: Context,
    format: write::Format,
    /// Whether jobs may run for as long as they like.
    endless: bool,
    succeeded: Tally,
    failed: Tally,
    /// What matching took, by job.
    overhead: HashMap<JobId, f64>,
    /// Ranks as they were read, and as they are here.
    ranks: Vec<(i64, i64)>,
    /// Jobs that could not start now but might later: they fit.
    fit: HashSet<JobId>,
    loaded: (Instant, Duration),
    reset: Instant,
}

impl Machine {
    /// The graph itself.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// When the instance's resources end; 0 is never.
    pub fn set_expiration(&mut self, end: f64) {
        self.endless = end <= 0.0;
        self.context
            .set_horizon(if self.endless { HORIZON } else { moment(end) });
    }

    /// Marks ranks as usable or not.
    pub fn mark(&mut self, ranks: &Idset, up: bool) {
        self.context.mark_ranks(ranks, up);
    }

    /// All ranks there are.
    pub fn ranks(&self) -> Idset {
        self.context
            .graph()
            .ranks()
            .filter_map(|r| u32::try_from(r).ok())
            .collect()
    }

    /// Takes ranks away for good, with what jobs have of them.
    pub fn shrink(&mut self, ranks: &Idset) -> Result<(), RpcError> {
        self.fit.clear();
        let tops = self.tops(ranks);
        self.context.shrink(&tops).map_err(fault)
    }

    fn tops(&self, ranks: &Idset) -> Vec<Vertex> {
        let graph = self.context.graph();
        ranks
            .iter()
            .flat_map(|r| graph.of_rank(i64::from(r)).to_vec())
            .collect()
    }

    /// A jobspec in the words of the graph.
    pub fn request(&self, jobspec: &Jobspec) -> Result<Request, RpcError> {
        self.context.request(jobspec).map_err(fault)
    }

    /// A jobspec, in YAML, in the words of the graph.
    pub fn parse(&self, jobspec: &str) -> Result<Request, RpcError> {
        self.request(&request::parse(jobspec).map_err(invalid)?)
    }

    fn submit(
        &mut self,
        op: Op,
        job: JobId,
        request: &Request,
        now: Time,
    ) -> Result<Match, MatchError> {
        let begin = Instant::now();
        let result = self.context.submit(op, job, request, now);
        let took = begin.elapsed().as_secs_f64();
        let visits = self.context.visits().0;
        match &result {
            Ok(_) => self.succeeded.add(took, job, visits),
            Err(_) => self.failed.add(took, job, visits),
        }
        if result.is_ok() && self.context.jobs().contains_key(&job) {
            self.overhead.insert(job, took);
        }
        result
    }

    /// Finds resources.
    pub fn find_for(
        &mut self,
        op: Op,
        job: JobId,
        request: &Request,
        now: Time,
    ) -> Result<Found, MatchError> {
        let begin = Instant::now();
        let found = self.submit(op, job, request, now)?;
        let r = match op {
            Op::Satisfiability => String::new(),
            _ => self.written(&found, request),
        };
        Ok(Found {
            found,
            r,
            overhead: begin.elapsed().as_secs_f64(),
        })
    }

    /// What a request got, as text.
    pub fn written(&self, found: &Match, request: &Request) -> String {
        // In R, 0 is no end.
        let end = if self.endless && request.duration == 0 {
            0
        } else {
            found.end
        };
        let frame = write::Frame {
            start: found.start,
            end,
            queue: request.queue.as_deref(),
        };
        let mut text = self
            .format
            .write(self.context.graph(), &found.selection, frame);
        text.truncate(text.trim_end().len());
        text
    }

    /// Whether a request could be had if nobody else had anything and all nodes were up.
    pub fn is_feasible(&mut self, request: &Request) -> bool {
        let (all, up) = self.context.nodes();
        let node = self.context.graph().words().find("node");
        let need = request
            .demand
            .iter()
            .find(|d| Some(d.0) == node)
            .map_or(0, |d| d.1);
        match self.context.submit(Op::Satisfiability, -1, request, now()) {
            Err(MatchError::Unsatisfiable) => up < need && need <= all,
            Err(MatchError::TooLong(_)) => false,
            _ => true,
        }
    }

    /// Has a job have again what R says.
    pub fn restore(&mut self, job: JobId, r: &Value) -> Result<Found, RpcError> {
        let begin = Instant::now();
        let (start, end) = term(r)?;
        let start = moment(start);
        let end = if end == 0.0 { HORIZON } else { moment(end) };
        let scheduling = r.get("scheduling").filter(|s| s.get("graph").is_some());
        let listed = match scheduling {
            Some(scheduling) => self.context.listed_in_jgf(&scheduling.to_string()),
            None => self.context.listed_in_rv1(&r.to_string()),
        };
        // A graph that is not this one: what its nodes have may be here all the same.
        let listed = match (listed, scheduling) {
            (Err(_), Some(_)) => self.context.listed_in_rv1(&r.to_string()),
            (listed, _) => listed,
        };
        let chosen = listed.map_err(fault)?;
        let result = self.context.restore(job, chosen, start, end - start, false);
        let took = begin.elapsed().as_secs_f64();
        match &result {
            Ok(_) => self.succeeded.add(took, job, 0),
            Err(_) => self.failed.add(took, job, 0),
        }
        let found = result.map_err(fault)?;
        self.overhead.insert(job, took);
        let frame = write::Frame {
            start,
            end: if end == HORIZON { 0 } else { end },
            queue: None,
        };
        let mut text = self
            .format
            .write(self.context.graph(), &found.selection, frame);
        text.truncate(text.trim_end().len());
        Ok(Found {
            found,
            r: text,
            overhead: took,
        })
    }

    /// Whether a job has just what R says.
    pub fn has(&self, job: JobId, r: &Value) -> Result<bool, RpcError> {
        let listed = self.context.listed_in_rv1(&r.to_string()).map_err(fault)?;
        let cores = |v: &Vertex| self.context.graph().is_leaf(*v);
        let mut wanted: Vec<Vertex> = listed.iter().map(|s| s.vertex).filter(cores).collect();
        let graph = self.context.graph();
        let mut held: Vec<Vertex> = Vec::new();
        for hold in self.context.jobs().get(&job).map_or(&[][..], |j| j.holds()) {
            match hold.whole {
                true => held.extend(graph.subtree(hold.vertex).map(Vertex).filter(cores)),
                false => held.extend(Some(hold.vertex).filter(cores)),
            }
        }
        wanted.sort_unstable();
        held.sort_unstable();
        Ok(wanted == held)
    }

    /// Takes from a job all it has; whether it had anything.
    pub fn cancel(&mut self, job: JobId) -> bool {
        self.overhead.remove(&job);
        self.fit.remove(&job);
        self.context.cancel(job).is_ok()
    }

    /// Takes from a job what it has of the ranks of R; whether nothing is left.
    pub fn release(&mut self, job: JobId, r: &Value) -> Result<bool, RpcError> {
        let execution = rv1::Execution::of(r).map_err(invalid)?;
        self.release_ranks(job, &execution.ranks().collect())
    }

    /// Takes from a job what it has of ranks; whether nothing is left.
    pub fn release_ranks(&mut self, job: JobId, ranks: &Idset) -> Result<bool, RpcError> {
        let tops = self.tops(ranks);
        let gone = self.context.release(job, &tops).map_err(fault)?;
        if gone {
            self.overhead.remove(&job);
        }
        Ok(gone)
    }

    /// Has a job end at another time; 0 is when the instance ends.
    pub fn reschedule(&mut self, job: JobId, end: f64) -> Result<(), RpcError> {
        let end = if end == 0.0 { HORIZON } else { moment(end) };
        self.context.reschedule(job, end).map_err(fault)
    }

    /// What `info` says of a job.
    pub fn info(&self, job: JobId) -> Result<Value, RpcError> {
        let known = self.context.jobs().get(&job);
        let known =
            known.ok_or_else(|| RpcError::new(libc::ENOENT, format!("there is no job {job}")))?;
        let status = if known.term.reserved {
            "RESERVED"
        } else {
            "ALLOCATED"
        };
        let overhead = self.overhead.get(&job).copied().unwrap_or_default();
        Ok(json!({ "jobid": job, "status": status, "at": known.term.start, "overhead": overhead }))
    }

    /// A number no job has.
    pub fn next_job(&self) -> Result<JobId, RpcError> {
        match self.context.jobs().last_key_value() {
            None => Ok(0),
            Some((last, _)) => last
                .checked_add(1)
                .ok_or_else(|| RpcError::errno(libc::ERANGE)),
        }
    }

    /// What an expression holds of, in a format; null if of nothing.
    pub fn find(&self, criteria: &str, format: &str) -> Result<Value, RpcError> {
        let format = write::Format::from_name(format)
            .ok_or_else(|| invalid(format!("{format:?} is no format")))?;
        let criteria = Criteria::parse(criteria).map_err(invalid)?;
        let selection = self.context.find(&criteria);
        let graph = self.context.graph();
        let job = criteria.job();
        let now = now();
        let mut extra = |v: Vertex, out: &mut String| {
            if !criteria.shows_usage() {
                return;
            }
            // Of what is held as a whole nothing is counted below.
            let held = job.is_none() && self.is_held(v);
            let shown = self.context.usage(v, job, now).into_iter();
            let mut lines: Vec<(String, String)> = shown
                .map(|(kind, used, all)| {
                    let used = if held { all } else { used };
                    (kind, format!("used:{used}, total:{all}"))
                })
                .collect();
            lines.sort_unstable();
            write::push_map(
                out,
                "agfilter",
                lines.iter().map(|(k, v)| (k.as_str(), v.as_str())),
            );
        };
        let text = format.write_with(graph, &selection, write::Frame::default(), &mut extra);
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Whether a job has all of a vertex and what is below it.
    fn is_held(&self, v: Vertex) -> bool {
        let whole = |v| self.context.ledger().holders(v, false).any(|h| h.1);
        whole(v) || self.context.graph().ancestors(v).any(whole)
    }

    /// What there is, what may not be used, and what jobs have.
    pub fn status(&self) -> Result<Value, RpcError> {
        let find = |criteria: &str| self.find(criteria, "rv1_nosched");
        Ok(json!({
            "all": find("status=up or status=down")?,
            "down": find("status=down")?,
            "allocated": find("sched-now=allocated")?,
        }))
    }

    /// What `ns-info` says: a number as it was read, as it is here.
    pub fn renumbered(&self, kind: &str, id: i64) -> Result<i64, RpcError> {
        if kind != "rank" || self.ranks.is_empty() {
            return Ok(id);
        }
        let found = self.ranks.iter().find(|p| p.0 == id);
        found
            .map(|p| p.1)
            .ok_or_else(|| RpcError::errno(libc::ENOENT))
    }

    /// Figures of the graph and of matches.
    pub fn stats(&self) -> Value {
        let graph = self.context.graph();
        let mut by_size: BTreeMap<usize, Idset> = BTreeMap::new();
        for rank in graph.ranks() {
            if let Ok(id) = u32::try_from(rank) {
                let size = graph
                    .of_rank(rank)
                    .iter()
                    .map(|v| graph.subtree(*v).len())
                    .sum();
                by_size.entry(size).or_default().insert(id);
            }
        }
        let by_rank: Map<String, Value> = by_size
            .into_iter()
            .map(|(size, ranks)| match ranks.len() {
                1 => (ranks.to_string(), json!(size)),
                _ => (format!("[{ranks}]"), json!(size)),
            })
            .collect();
        json!({
            "V": graph.len(),
            "E": graph.edges(),
            "by_rank": by_rank,
            "load-time": self.loaded.1.as_secs_f64(),
            "graph-uptime": self.loaded.0.elapsed().as_secs(),
            "time-since-reset": self.reset.elapsed().as_secs(),
            "match": { "succeeded": self.succeeded.to_value(), "failed": self.failed.to_value() },
        })
    }

    /// Forgets what matches took.
    pub fn clear_stats(&mut self) {
        self.succeeded.clear();
        self.failed.clear();
        self.reset = Instant::now();
    }

    fn at(&self, path: &str) -> Result<Vec<Vertex>, RpcError> {
        let missing = |_| {
            RpcError::new(
                libc::ENOENT,
                format!("Couldn't find '{path}' in resource graph"),
            )
        };
        self.context.at(path).map_err(missing)
    }

    /// Sets a property at paths. Either at all or at none.
    pub fn set_property(
        &mut self,
        paths: &[String],
        name: &str,
        value: &str,
    ) -> Result<(), RpcError> {
        for v in self.all_at(paths)? {
            self.context.set_property(v, name, value);
        }
        Ok(())
    }

    /// Removes a property at paths.
    pub fn remove_property(&mut self, paths: &[String], name: &str) -> Result<(), RpcError> {
        for v in self.all_at(paths)? {
            self.context.remove_property(v, name);
        }
        Ok(())
    }

    fn all_at(&self, paths: &[String]) -> Result<Vec<Vertex>, RpcError> {
        let found: Result<Vec<_>, _> = paths.iter().map(|p| self.at(p)).collect();
        Ok(found?.concat())
    }

    /// The values of a property at a path; at least one.
    pub fn property(&self, path: &str, name: &str) -> Result<Vec<String>, RpcError> {
        let graph = self.context.graph();
        let of = |v: Vertex| graph.properties(v).and_then(|p| p.get(name)).cloned();
        let values: Vec<String> = self.at(path)?.into_iter().filter_map(of).collect();
        if values.is_empty() {
            let why = format!("Property '{name}' was not found for resource {path}");
            return Err(RpcError::new(libc::ENOENT, why));
        }
        Ok(values)
    }

    /// Marks what is at a path.
    pub fn set_status(&mut self, path: &str, up: bool) -> Result<(), RpcError> {
        for v in self.at(path)? {
            self.context.mark(v, up);
        }
        Ok(())
    }

    /// Adds what a JSON graph has more than this one.
    pub fn add(&mut self, graph: &str) -> Result<(), RpcError> {
        self.context.grow(graph).map_err(fault)
    }

    /// Removes what is at a path, and all below.
    pub fn remove(&mut self, path: &str) -> Result<(), RpcError> {
        self.fit.clear();
        let tops = self.at(path)?;
        self.context.shrink(&tops).map_err(fault)
    }
}

impl Matcher for Machine {
    type Request = Request;
    type Grant = Match;

    fn start(&mut self, job: JobId, request: &Request, now: Time) -> Result<Match, Refusal> {
        let result = self.submit(Op::Allocate, job, request, now);
        if !matches!(result, Err(MatchError::Busy)) || self.fit.contains(&job) {
            return result.map_err(Refusal::from);
        }
        if !self.is_feasible(request) {
            return Err(Refusal::Never);
        }
        self.fit.insert(job);
        Err(Refusal::Busy)
    }

    fn reserve(
        &mut self,
        job: JobId,
        request: &Request,
        now: Time,
    ) -> Result<Reserved<Match>, Refusal> {
        match self.submit(Op::AllocateOrElseReserve, job, request, now) {
            Ok(found) => Ok(found.into()),
            Err(MatchError::Busy) if !self.fit.contains(&job) => match self.is_feasible(request) {
                true => {
                    self.fit.insert(job);
                    Err(Refusal::Busy)
                }
                false => Err(Refusal::Never),
            },
            Err(MatchError::Unsatisfiable) if self.is_feasible(request) => Err(Refusal::Busy),
            Err(e) => Err(e.into()),
        }
    }

    fn forget(&mut self, job: JobId) {
        self.overhead.remove(&job);
        // A job that has nothing is what is wanted.
        let _ = self.context.cancel(job);
    }
}

#[cfg(test)]
mod tests;
