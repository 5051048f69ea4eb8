//! Which vertices satisfy an expression: `status=down and sched-now=allocated`.
//!
//! Terms are joined by `and` and `or`, left to right without precedence; parentheses group. Two
//! terms beside each other are joined by `and`.

use crate::graph::{Graph, Vertex};
use crate::matching::{Selected, Selection};
use crate::plan::{JobId, Ledger};
use formats::{Hostlist, JobId as Id};
use std::collections::BTreeMap;

use crate::job::Job;

/// Something that holds of a vertex or not.
#[derive(Debug, Clone, PartialEq)]
enum Term {
    Up(bool),
    Allocated(bool),
    Reserved(bool),
    Holder {
        job: JobId,
        reserved: bool,
    },
    Counted(JobId),
    Touched(JobId),
    Names(Hostlist),
    Property(String),
    /// Says that usage is to be shown.
    Usage(bool),
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Term(Term),
    Both(Box<Node>, Box<Node>),
    Either(Box<Node>, Box<Node>),
}

/// An expression that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Criteria(Node);

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid criteria, at '{at}': {message}")]
#[allow(missing_docs)] // their messages say it
pub struct CriteriaError {
    pub at: String,
    pub message: &'static str,
}

fn fault(at: &str, message: &'static str) -> CriteriaError {
    CriteriaError {
        at: at.to_owned(),
        message,
    }
}

/// How deep parentheses may be.
const DEPTH: usize = 64;

impl Term {
    fn parse(text: &str) -> Result<Term, CriteriaError> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| fault(text, "must be KEY=VALUE"))?;
        let lower = value.to_ascii_lowercase();
        let wrong = |message| Err(fault(text, message));
        let job = || {
            let id: Result<Id, _> = value.parse();
            id.map(|id| id.0 as JobId)
                .map_err(|_| fault(text, "no job id"))
        };
        Ok(match (key, lower.as_str()) {
            ("status", "up") => Term::Up(true),
            ("status", "down") => Term::Up(false),
            ("sched-now", "allocated") => Term::Allocated(true),
            ("sched-now", "free") => Term::Allocated(false),
            ("sched-future", "reserved") => Term::Reserved(true),
            ("sched-future", "free") => Term::Reserved(false),
            ("agfilter", "true" | "t") => Term::Usage(true),
            ("agfilter", "false" | "f") => Term::Usage(false),
            ("jobid-alloc", _) => Term::Holder {
                job: job()?,
                reserved: false,
            },
            ("jobid-reserved", _) => Term::Holder {
                job: job()?,
                reserved: true,
            },
            ("jobid-span", _) => Term::Counted(job()?),
            ("jobid-tag", _) => Term::Touched(job()?),
            ("names", hosts) => {
                Term::Names(hosts.parse().map_err(|_| fault(text, "no list of names"))?)
            }
            ("property", name) if !name.is_empty() => Term::Property(name.to_owned()),
            ("status" | "sched-now" | "sched-future" | "agfilter" | "property", _) => {
                return wrong("unknown value");
            }
            _ => return wrong("unknown key"),
        })
    }

    fn job(&self) -> Option<JobId> {
        match self {
            Term::Holder { job, .. } | Term::Counted(job) | Term::Touched(job) => Some(*job),
            _ => None,
        }
    }
}

/// Splits into parentheses and words.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(after) = rest.strip_prefix('(') {
            tokens.push("(");
            rest = after;
        }
        let inner = rest.trim_end_matches(')');
        if !inner.is_empty() {
            tokens.push(inner);
        }
        (inner.len()..rest.len()).for_each(|_| tokens.push(")"));
    }
    tokens
}

fn operand(tokens: &mut &[&str], depth: usize) -> Result<Node, CriteriaError> {
    let Some((first, rest)) = tokens.split_first() else {
        return Err(fault("", "ends too early"));
    };
    *tokens = rest;
    match *first {
        "(" if depth == DEPTH => Err(fault("(", "too deep")),
        "(" => {
            let inner = expression(tokens, depth + 1)?;
            match tokens.split_first() {
                Some((&")", rest)) => *tokens = rest,
                _ => return Err(fault("(", "is not closed")),
            }
            Ok(inner)
        }
        term => Ok(Node::Term(Term::parse(term)?)),
    }
}

fn expression(tokens: &mut &[&str], depth: usize) -> Result<Node, CriteriaError> {
    let mut left = operand(tokens, depth)?;
    while let Some((next, rest)) = tokens.split_first() {
        let both = match *next {
            ")" => break,
            "or" => false,
            _ => true,
        };
        if matches!(*next, "and" | "or") {
            *tokens = rest;
        }
        let right = Box::new(operand(tokens, depth)?);
        left = match both {
            true => Node::Both(Box::new(left), right),
            false => Node::Either(Box::new(left), right),
        };
    }
    Ok(left)
}

impl Node {
    fn holds(&self, of: &impl Fn(&Term) -> bool) -> bool {
        match self {
            Node::Term(term) => of(term),
            Node::Both(a, b) => a.holds(of) && b.holds(of),
            Node::Either(a, b) => a.holds(of) || b.holds(of),
        }
    }

    fn last<T>(&self, of: &impl Fn(&Term) -> Option<T>) -> Option<T> {
        match self {
            Node::Term(term) => of(term),
            Node::Both(a, b) | Node::Either(a, b) => b.last(of).or_else(|| a.last(of)),
        }
    }
}

/// What vertices have from those above them.
#[derive(Debug, Clone, Copy, Default)]
struct Above {
    end: u32,
    down: bool,
    allocated: bool,
    reserved: bool,
    /// The job that holds everything here.
    holder: Option<(JobId, bool)>,
}

impl Criteria {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Criteria, CriteriaError> {
        let tokens = tokens(text);
        let mut rest = tokens.as_slice();
        let node = expression(&mut rest, 0)?;
        match rest.first() {
            None => Ok(Criteria(node)),
            Some(more) => Err(fault(more, "nothing may follow")),
        }
    }

    /// Whether usage is to be shown.
    pub fn shows_usage(&self) -> bool {
        let asked = |t: &Term| match t {
            Term::Usage(show) => Some(*show),
            _ => None,
        };
        self.0.last(&asked).unwrap_or(false)
    }

    /// The job it asks about.
    pub fn job(&self) -> Option<JobId> {
        self.0.last(&Term::job)
    }

    /// The vertices it holds of, and all above them. With `counting` only those that count
    /// something.
    pub fn find(
        &self,
        graph: &Graph,
        ledger: &Ledger,
        jobs: &BTreeMap<JobId, Job>,
        counting: bool,
    ) -> Selection {
        let touched = self
            .job()
            .and_then(|job| jobs.get(&job))
            .map(|job| job.touched(graph));
        let mut open: Vec<Above> = Vec::new();
        let mut chosen = Vec::new();
        for v in graph.subtree(graph.root()).map(Vertex) {
            while open.last().is_some_and(|a| a.end <= v.0) {
                open.pop();
            }
            let mut here = open.last().copied().unwrap_or_default();
            here.down |= !graph.is_up(v);
            if graph.is_shared(v) {
                here.down = !graph.is_usable(v);
            }
            let held: [Vec<(JobId, bool)>; 2] = match ledger.is_busy(v) {
                true => [false, true].map(|reserved| ledger.holders(v, reserved).collect()),
                false => Default::default(),
            };
            here.allocated |= !held[0].is_empty();
            here.reserved |= !held[1].is_empty();
            let whole = |reserved: bool| {
                let of = held[usize::from(reserved)].iter();
                of.filter(|h| h.1).map(move |h| (h.0, reserved)).next()
            };
            here.holder = here.holder.or_else(|| whole(false)).or_else(|| whole(true));
            let counts = !ledger.filters().shown(graph.kind(v)).is_empty() && !graph.is_leaf(v);
            let is_touched = || touched.as_ref().is_some_and(|t| t.contains(&v));
            let of = |term: &Term| match term {
                Term::Up(up) => here.down != *up,
                Term::Allocated(yes) => here.allocated == *yes,
                Term::Reserved(yes) => here.reserved == *yes,
                Term::Holder { job, reserved } => {
                    held[usize::from(*reserved)].iter().any(|h| h.0 == *job)
                        || here.holder == Some((*job, *reserved))
                }
                Term::Touched(job) => is_touched() || here.holder.is_some_and(|h| h.0 == *job),
                Term::Counted(job) => {
                    counts && (is_touched() || here.holder.is_some_and(|h| h.0 == *job))
                }
                Term::Names(names) => names.contains(&graph.name(v)),
                Term::Property(name) => graph.properties(v).is_some_and(|p| p.contains_key(name)),
                Term::Usage(yes) => *yes,
            };
            if self.0.holds(&of) && (!counting || counts) {
                chosen.push(Selected {
                    vertex: v,
                    amount: graph.size(v),
                    exclusive: true,
                    whole: false,
                    label: None,
                });
            }
            if !graph.is_leaf(v) {
                here.end = graph.subtree(v).end;
                open.push(here);
            }
        }
        Selection::from_chosen(graph, chosen, &[]).all_exclusive()
    }
}
