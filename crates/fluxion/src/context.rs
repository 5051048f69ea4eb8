//! The library's door: resources, who has them, and what may be done with both.

use crate::find::{Criteria, CriteriaError};
use crate::graph::{Graph, GraphError, Vertex};
use crate::job::{Job, without, without_listed};
use crate::look::{Look, Match, MatchError, Op};
use crate::matching::{
    Field, Index, NodeIndex, NodeSet, Policy, PolicyError, Selected, Selection, Visits,
    wanted_index,
};
use crate::plan::{FilterError, Filters, Hold, JobId, Ledger, Term, Time, Window};
use crate::read::{Format, ReadError, jgf, rv1};
use crate::request::{Request, RequestError};
use formats::{Idset, Jobspec};
use std::collections::{BTreeMap, HashSet};

/// How long a graph lasts, in seconds: a hundred years.
pub const HORIZON: Time = 3_153_600_000;

/// How a context is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The match policy, [`Policy::parse`].
    pub policy: String,
    /// What is counted where, [`Filters::new`].
    pub prune: String,
    /// The subsystem that is searched.
    pub subsystem: String,
    /// Whether sibling slots are alternatives of each other.
    pub flexible: bool,
    /// Until when resources may be had.
    pub horizon: Time,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: "first".into(),
            prune: "ALL:core".into(),
            subsystem: "containment".into(),
            flexible: false,
            horizon: HORIZON,
        }
    }
}

/// Why something else was not done. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum Error {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Criteria(#[from] CriteriaError),
    #[error("there is no job {0}")]
    NoJob(JobId),
    #[error("job {0} exists already")]
    JobExists(JobId),
    #[error("job {0} has a reservation: only allocations are given back in parts")]
    Reserved(JobId),
    #[error("there is no {0}")]
    NoPath(String),
    #[error("there is no rank {0}")]
    NoRank(i64),
    #[error("{0} is not free from {1} to {2}")]
    NotFree(String, Time, Time),
    #[error("nothing exclusive is listed")]
    Nothing,
    #[error("the root cannot be removed")]
    Root,
}

/// Resources and who has them.
#[derive(Debug, Clone)]
pub struct Context {
    options: Options,
    policy: Policy,
    graph: Graph,
    ledger: Ledger,
    jobs: BTreeMap<JobId, Job>,
    index: Option<NodeIndex>,
    /// The orders in which types were searched.
    indices: Vec<Index>,
    /// How many nodes are up.
    nodes_up: i64,
    visits: Visits,
}

impl Context {
    /// Reads a graph.
    pub fn load(text: &str, format: Format, options: Options) -> Result<Context, Error> {
        let builder = format.read(text)?;
        Context::new(builder.finish(&options.subsystem)?.0, options)
    }

    /// Takes a graph.
    pub fn new(graph: Graph, options: Options) -> Result<Context, Error> {
        let filters = Filters::new(&options.prune, &graph)?;
        let mut context = Context {
            policy: Policy::parse(&options.policy)?,
            ledger: Ledger::new(&graph, filters),
            graph,
            jobs: BTreeMap::new(),
            index: None,
            indices: Vec::new(),
            nodes_up: 0,
            visits: (0, 0),
            options,
        };
        context.count_nodes_up();
        Ok(context)
    }

    /// The resources.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Who holds what.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The jobs that have something.
    pub fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.jobs
    }

    /// Changes until when resources may be had. What jobs have already stays.
    pub fn set_horizon(&mut self, horizon: Time) {
        self.options.horizon = horizon;
    }

    /// How many nodes there are, and how many of them may be used.
    pub fn nodes(&self) -> (i64, i64) {
        let node = self.graph.words().find("node");
        let all = node.map_or(0, |node| self.graph.of_kind(node).len());
        (all as i64, self.nodes_up)
    }

    /// How many vertices the last operation looked at, and how many of them would do.
    pub fn visits(&self) -> Visits {
        self.visits
    }

    /// A jobspec as a request to this context.
    pub fn request(&self, jobspec: &Jobspec) -> Result<Request, Error> {
        Ok(Request::new(jobspec, &self.graph, self.options.flexible)?)
    }

    /// Finds resources, and has `job` have them if the operation says so.
    pub fn submit(
        &mut self,
        op: Op,
        job: JobId,
        request: &Request,
        now: Time,
    ) -> Result<Match, MatchError> {
        let keeps = matches!(
            op,
            Op::Allocate | Op::AllocateWithSatisfiability | Op::AllocateOrElseReserve
        );
        if keeps && self.jobs.contains_key(&job) {
            return Err(MatchError::Exists(job));
        }
        let found = self.look(op, request, now)?;
        if keeps {
            let term = Term {
                job,
                start: found.start,
                end: found.end,
                reserved: found.reserved,
            };
            self.keep(term, found.selection.holds(&self.graph));
        }
        Ok(found)
    }

    fn keep(&mut self, term: Term, holds: Vec<Hold>) {
        self.ledger.enter(&self.graph, term, &holds);
        self.refresh(term, &holds);
        self.jobs.insert(term.job, Job { term, holds });
    }

    fn refresh(&mut self, term: Term, holds: &[Hold]) {
        for index in self.indices.iter_mut().filter(|_| !term.reserved) {
            index.refresh(&self.graph, &self.ledger, holds);
        }
    }

    pub(crate) fn field<'a>(&'a self, allowed: Option<&'a NodeSet>) -> Field<'a> {
        Field {
            graph: &self.graph,
            ledger: &self.ledger,
            policy: self.policy,
            flexible: self.options.flexible,
            allowed,
            indices: &self.indices,
        }
    }

    /// Makes the order a search for a request would follow, unless it is there.
    fn prepare(&mut self, request: &Request) {
        let Some(kind) = wanted_index(request, &self.graph, self.policy) else {
            return;
        };
        if self.indices.iter().all(|i| i.kind() != kind) {
            let index = Index::new(&self.graph, &self.ledger, self.policy, kind);
            self.indices.extend(index);
        }
    }

    fn look(&mut self, op: Op, request: &Request, now: Time) -> Result<Match, MatchError> {
        self.visits = (0, 0);
        let duration = match request.duration {
            0 => self.options.horizon,
            d if d > self.options.horizon => return Err(MatchError::TooLong(self.options.horizon)),
            d => d,
        };
        let allowed = request.constraint.as_ref().map(|constraint| {
            let index = self
                .index
                .get_or_insert_with(|| NodeIndex::new(&self.graph));
            index.satisfying(&self.graph, constraint)
        });
        self.check_nodes(op, request, allowed.as_ref())?;
        self.prepare(request);
        let look = Look {
            field: self.field(allowed.as_ref()),
            request,
            duration,
            horizon: self.options.horizon,
        };
        let mut visits = (0, 0);
        let found = look.run(op, now, &mut visits);
        self.visits = visits;
        found
    }

    /// Whether so many nodes are up, and so many fit the constraint.
    fn check_nodes(
        &self,
        op: Op,
        request: &Request,
        allowed: Option<&NodeSet>,
    ) -> Result<(), MatchError> {
        let Some(node) = self.graph.words().find("node") else {
            return Ok(());
        };
        let need = request
            .demand
            .iter()
            .find(|d| d.0 == node)
            .map_or(0, |d| d.1);
        let fit = allowed.map_or(i64::MAX, |set| set.count(node) as i64);
        // What there is at all is asked for without regard to what is up.
        let up = if op == Op::Satisfiability {
            i64::MAX
        } else {
            self.nodes_up
        };
        if need <= up && need <= fit {
            return Ok(());
        }
        match op {
            Op::AllocateWithSatisfiability | Op::Satisfiability => Err(MatchError::Unsatisfiable),
            _ => Err(MatchError::Busy),
        }
    }

    fn count_nodes_up(&mut self) {
        let graph = &self.graph;
        let nodes = graph
            .words()
            .find("node")
            .map_or(&[][..], |node| graph.of_kind(node));
        self.nodes_up = match graph.all_up() {
            true => nodes.len() as i64,
            false => nodes
                .iter()
                .filter(|v| graph.is_usable(Vertex(**v)))
                .count() as i64,
        };
    }

    /// Has a job have what a JSON graph or an R lists, as when it is taken up again.
    pub fn restore(
        &mut self,
        job: JobId,
        chosen: Vec<Selected>,
        start: Time,
        duration: i64,
        reserved: bool,
    ) -> Result<Match, Error> {
        if self.jobs.contains_key(&job) {
            return Err(Error::JobExists(job));
        }
        let end = start.saturating_add(duration);
        let window = Window {
            start,
            end,
            now: false,
        };
        let listed: Vec<Vertex> = chosen.iter().map(|s| s.vertex).collect();
        let selection = Selection::from_chosen(&self.graph, chosen, &[]);
        let holds = selection.holds(&self.graph);
        for v in listed.into_iter().chain(holds.iter().map(|h| h.vertex)) {
            if self.ledger.free(&self.graph, v, window) < self.graph.size(v) {
                return Err(Error::NotFree(self.graph.path(v), start, end));
            }
        }
        if selection.is_empty() {
            return Err(Error::Nothing);
        }
        self.keep(
            Term {
                job,
                start,
                end,
                reserved,
            },
            holds,
        );
        Ok(Match {
            selection,
            start,
            end,
            reserved,
        })
    }

    /// What a JSON graph lists.
    pub fn listed_in_jgf(&self, text: &str) -> Result<Vec<Selected>, Error> {
        Ok(jgf::Document::new(text).chosen(&self.graph)?)
    }

    /// What the execution section of an R lists.
    pub fn listed_in_rv1(&self, text: &str) -> Result<Vec<Selected>, Error> {
        Ok(rv1::Execution::parse(text)?.chosen(&self.graph)?)
    }

    /// Takes from a job all it has.
    pub fn cancel(&mut self, job: JobId) -> Result<Job, Error> {
        let known = self.jobs.remove(&job).ok_or(Error::NoJob(job))?;
        self.ledger.leave(&self.graph, known.term, &known.holds);
        self.ledger.forget(known.term);
        self.refresh(known.term, &known.holds);
        Ok(known)
    }

    /// Has a job have what it has until another time. Nothing else may be promised for that time: reservations are
    /// given up before, and made again after.
    pub fn reschedule(&mut self, job: JobId, end: Time) -> Result<(), Error> {
        let Job { term, holds } = self.cancel(job)?;
        self.keep(Term { end, ..term }, holds);
        Ok(())
    }

    /// Takes from a job what it has of ranks; whether nothing is left.
    pub fn release_ranks(&mut self, job: JobId, ranks: &Idset) -> Result<bool, Error> {
        let mut tops = Vec::new();
        for rank in ranks.iter().map(i64::from) {
            let of = self.graph.of_rank(rank);
            if of.is_empty() {
                return Err(Error::NoRank(rank));
            }
            tops.extend_from_slice(of);
        }
        self.release(job, &tops)
    }

    /// Takes from a job what it has of vertices and below them; whether nothing is left. A hold on
    /// more than that becomes holds on the rest.
    pub fn release(&mut self, job: JobId, tops: &[Vertex]) -> Result<bool, Error> {
        let known = self.jobs.get(&job).ok_or(Error::NoJob(job))?;
        let left = without(&self.graph, &known.holds, tops);
        self.leave_with(job, left)
    }

    /// Has a job have less than before; whether nothing is left.
    fn leave_with(&mut self, job: JobId, left: Vec<Hold>) -> Result<bool, Error> {
        if self.jobs.get(&job).is_some_and(|known| known.term.reserved) {
            return Err(Error::Reserved(job));
        }
        let term = self.cancel(job)?.term;
        if left.is_empty() {
            return Ok(true);
        }
        self.keep(term, left);
        Ok(false)
    }

    /// Takes from a job the holds on listed vertices; whether nothing is left. Of a hold on more
    /// than is listed the rest remains.
    pub fn release_listed(&mut self, job: JobId, listed: &[Vertex]) -> Result<bool, Error> {
        let known = self.jobs.get(&job).ok_or(Error::NoJob(job))?;
        let listed: HashSet<u32> = listed.iter().map(|v| v.0).collect();
        let left = without_listed(&self.graph, &known.holds, &listed);
        self.leave_with(job, left)
    }

    /// The vertices at a path; there is at least one.
    pub fn at(&self, path: &str) -> Result<Vec<Vertex>, Error> {
        let found = self.graph.find_paths(path);
        match found.is_empty() {
            true => Err(Error::NoPath(path.to_owned())),
            false => Ok(found),
        }
    }

    /// Marks a vertex, and so what is below it, up or down.
    pub fn mark(&mut self, v: Vertex, up: bool) {
        self.graph.set_up(v, up);
        self.count_nodes_up();
    }

    /// Marks ranks up or down; ranks that do not exist are left out.
    pub fn mark_ranks(&mut self, ranks: &Idset, up: bool) {
        for rank in ranks.iter().map(i64::from) {
            for v in self.graph.of_rank(rank).to_vec() {
                self.graph.set_up(v, up);
            }
        }
        self.count_nodes_up();
    }

    /// Sets a property of a vertex.
    pub fn set_property(&mut self, v: Vertex, name: &str, value: &str) {
        self.graph.set_property(v, name, value);
        self.index = None;
    }

    /// Takes a property from a vertex; whether it had it.
    pub fn remove_property(&mut self, v: Vertex, name: &str) -> bool {
        self.index = None;
        self.graph.remove_property(v, name)
    }

    /// The vertices an expression holds of.
    pub fn find(&self, criteria: &Criteria) -> Selection {
        criteria.find(
            &self.graph,
            &self.ledger,
            &self.jobs,
            criteria.shows_usage(),
        )
    }

    /// What is in use below a vertex at a moment, by anybody or by a job: (type, used, total) of what it was
    /// asked to count.
    pub fn usage(&self, v: Vertex, job: Option<JobId>, at: Time) -> Vec<(String, i64, i64)> {
        let all = self.ledger.usage(&self.graph, v, at);
        let name = |kind| self.graph.words().text(kind).to_owned();
        let Some(job) = job else {
            return all
                .into_iter()
                .map(|(k, used, total)| (name(k), used, total))
                .collect();
        };
        let holds = self.jobs.get(&job).map_or(&[][..], Job::holds);
        let below = |h: &&Hold| h.vertex != v && self.graph.contains(v, h.vertex);
        let of = |kind| {
            let below = holds.iter().filter(below);
            below.map(|h| h.amount_of(&self.graph, kind)).sum()
        };
        all.into_iter()
            .map(|(k, _, total)| (name(k), of(k), total))
            .collect()
    }

    /// Adds what a JSON graph lists and this graph has not. Jobs keep what they have.
    pub fn grow(&mut self, text: &str) -> Result<(), Error> {
        let document = jgf::Document::new(text);
        let graph = &self.graph;
        let mut failed = None;
        let edited = graph.edit(
            |_| true,
            |builder, old| {
                let known = |(path, rank): (&str, i64)| {
                    let there = graph.find_path(path).filter(|v| graph.rank(*v) == rank);
                    Ok(there.and_then(|v| old[v.0 as usize]))
                };
                failed = document.add_to(builder, known).err();
                Ok(())
            },
        );
        if let Some(error) = failed {
            return Err(error.into());
        }
        self.replace(edited?)
    }

    /// Removes vertices with all that is reached through them alone. Jobs lose what they have there.
    pub fn shrink(&mut self, tops: &[Vertex]) -> Result<(), Error> {
        if tops.contains(&self.graph.root()) {
            return Err(Error::Root);
        }
        let gone = self.graph.lost_without(tops);
        let edited = self.graph.edit(|v| !gone.contains(&v.0), |_, _| Ok(()))?;
        for job in self.jobs.values_mut() {
            job.holds = without_listed(&self.graph, &job.holds, &gone);
        }
        self.replace(edited)
    }

    fn replace(&mut self, (graph, places): (Graph, Vec<Option<Vertex>>)) -> Result<(), Error> {
        let filters = Filters::new(&self.options.prune, &graph)?;
        self.ledger = Ledger::new(&graph, filters);
        self.graph = graph;
        self.index = None;
        self.indices.clear();
        self.count_nodes_up();
        for (_, mut job) in std::mem::take(&mut self.jobs) {
            let moved = |hold: &Hold| {
                let vertex = places[hold.vertex.0 as usize]?;
                Some(Hold { vertex, ..*hold })
            };
            let mut holds: Vec<Hold> = job.holds.iter().filter_map(moved).collect();
            holds.sort_by_key(|h| h.vertex);
            job.holds.clear();
            if !holds.is_empty() {
                self.keep(job.term, holds);
            }
        }
        Ok(())
    }
}
