//! Looking for what a request may have, and when.

use crate::matching::{Field, Lack, Selection, Visits};
use crate::plan::{JobId, Time, Window};
use crate::request::Request;

/// What is done with a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Have it now.
    Allocate,
    /// Have it now, and if that fails say whether it could ever be had.
    AllocateWithSatisfiability,
    /// Have it now or as soon as it can be had.
    AllocateOrElseReserve,
    /// Say whether it could ever be had.
    Satisfiability,
    /// Say what could be had now.
    WithoutAllocating,
    /// Say what could be had as soon as possible.
    WithoutAllocatingFuture,
}

impl Op {
    /// The operation of a name that commands and requests use.
    pub fn from_name(name: &str) -> Option<Op> {
        Some(match name {
            "allocate" => Op::Allocate,
            "allocate_with_satisfiability" => Op::AllocateWithSatisfiability,
            "allocate_orelse_reserve" => Op::AllocateOrElseReserve,
            "satisfiability" => Op::Satisfiability,
            "without_allocating" => Op::WithoutAllocating,
            "without_allocating_extend" | "without_allocating_future" => {
                Op::WithoutAllocatingFuture
            }
            _ => return None,
        })
    }
}

/// What a request may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The resources.
    pub selection: Selection,
    /// Since when.
    pub start: Time,
    /// Until when.
    pub end: Time,
    /// Whether that is later than was asked for.
    pub reserved: bool,
}

/// Why a request has nothing.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum MatchError {
    #[error("there are not enough free resources")]
    Busy,
    #[error("there will never be enough resources")]
    Unsatisfiable,
    #[error("job {0} has resources already")]
    Exists(JobId),
    #[error("a job may not last longer than {0} s")]
    TooLong(Time),
}

/// One look for resources.
pub(crate) struct Look<'a> {
    pub(crate) field: Field<'a>,
    pub(crate) request: &'a Request,
    pub(crate) duration: i64,
    pub(crate) horizon: Time,
}

impl Look<'_> {
    pub(crate) fn run(&self, op: Op, now: Time, visits: &mut Visits) -> Result<Match, MatchError> {
        if op == Op::Satisfiability {
            let selection = self.ever(visits)?;
            let end = now.saturating_add(self.duration);
            return Ok(Match {
                selection,
                start: now,
                end,
                reserved: false,
            });
        }
        if let Ok(selection) = self.at(now, true, visits) {
            return self.made(selection, now, false);
        }
        match op {
            Op::AllocateWithSatisfiability => self.ever(visits).and(Err(MatchError::Busy)),
            Op::AllocateOrElseReserve | Op::WithoutAllocatingFuture => self.later(now, visits),
            _ => Err(MatchError::Busy),
        }
    }

    fn at(&self, start: Time, now: bool, visits: &mut Visits) -> Result<Selection, Lack> {
        let window = Window {
            start,
            end: start.saturating_add(self.duration),
            now,
        };
        self.field.find(self.request, window, visits)
    }

    fn ever(&self, visits: &mut Visits) -> Result<Selection, MatchError> {
        self.field
            .find_ever(self.request, visits)
            .ok_or(MatchError::Unsatisfiable)
    }

    /// Tries the moments at which jobs end, one after the other.
    fn later(&self, now: Time, visits: &mut Visits) -> Result<Match, MatchError> {
        let Field { graph, ledger, .. } = self.field;
        let mut from = now + 1;
        while let Some(start) = ledger.first_fit(graph, from, self.duration, &self.request.demand) {
            // What is missing has to come from jobs that end: a vertex that does not do is held in
            // the window, and goes on being in the way until that hold ends.
            let lack = match self.at(start, false, visits) {
                Ok(selection) => return self.made(selection, start, true),
                Err(lack) => lack,
            };
            match ledger.next_end(start, lack.nodes) {
                Some(next) if lack.until < Time::MAX => from = next.max(lack.until),
                _ => break,
            }
        }
        self.ever(visits).and(Err(MatchError::Busy))
    }

    fn made(&self, selection: Selection, start: Time, reserved: bool) -> Result<Match, MatchError> {
        if start >= self.horizon {
            return Err(MatchError::Busy);
        }
        let end = start.saturating_add(self.duration).min(self.horizon);
        Ok(Match {
            selection,
            start,
            end,
            reserved,
        })
    }
}
