//! What must be true of every run: the invariants, by name.
//!
//! Those about the whole tree are in [`crate::world`], for they look at all of it; what they find is
//! named here too.

use std::fmt;

use overlay::Topology;

/// The names of the invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every request of a program whose broker lives ends exactly once, and nobody is answered who
    /// did not ask.
    OneOutcome,
    /// A program sees events in order, without gap or repeat, for as long as its broker lives.
    EventsInOrder,
    /// No queue is longer than its bound.
    QueuesBounded,
    /// Brokers and their edges are a tree with rank 0 at its root.
    IsATree,
    /// What is lost, and all below it, is not reported online, and what is above it not full.
    NoLostOnline,
    /// A request to a broker that is not there is answered EHOSTUNREACH, or refused by a full queue.
    LostIsUnreachable,
    /// Some time after the last fault every parent has joined exactly the living life of each child,
    /// and the root calls the tree full.
    Membership,
    /// When every client has gone, no router follows any request and no service has a watcher.
    NothingPending,
    /// No service keeps a watcher whose broker is gone.
    NoOrphans,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// What happened instead.
    pub text: String,
}

impl Check {
    pub(crate) fn violated(self, text: impl Into<String>) -> Violation {
        Violation {
            check: self,
            text: text.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.text)
    }
}

/// The event after `before`.
pub(crate) fn events_in_order(before: Option<u32>, sequence: u32) -> Result<(), Violation> {
    match before.filter(|before| sequence != before + 1) {
        Some(before) => {
            let text = format!("event {sequence} after {before}");
            Err(Check::EventsInOrder.violated(text))
        }
        None => Ok(()),
    }
}

/// A response to what was `asked`, which has perhaps ended before.
pub(crate) fn one_outcome(asked: Option<(&str, bool)>, last: bool) -> Result<(), Violation> {
    match asked {
        None => Err(Check::OneOutcome.violated("a response to nothing asked")),
        Some((what, true)) => {
            let which = if last {
                "another end"
            } else {
                "more after its end"
            };
            Err(Check::OneOutcome.violated(format!("{what} has {which}")))
        }
        Some((_, false)) => Ok(()),
    }
}

/// The answer of a broker that is not there.
pub(crate) fn lost_is_unreachable(what: &str, unreachable: bool) -> Result<(), Violation> {
    match unreachable {
        true => Ok(()),
        false => Err(Check::LostIsUnreachable.violated(format!("{what} was answered otherwise"))),
    }
}

/// The length of a queue.
pub(crate) fn bounded(rank: u32, what: &str, length: usize, bound: usize) -> Result<(), Violation> {
    match length <= bound {
        true => Ok(()),
        false => {
            let text = format!("rank {rank}: {length} {what}, where {bound} are allowed");
            Err(Check::QueuesBounded.violated(text))
        }
    }
}

/// Every rank is the child of exactly its parent, and the way up ends at rank 0.
pub(crate) fn is_a_tree(topology: &Topology) -> Result<(), Violation> {
    let size = topology.size();
    let mut parents = vec![None; size as usize];
    for rank in 0..size {
        for child in topology.children(rank) {
            if parents[*child as usize].replace(rank).is_some() {
                let text = format!("rank {child} has two parents");
                return Err(Check::IsATree.violated(text));
            }
        }
    }
    for rank in 0..size {
        if parents[rank as usize] != topology.parent(rank) {
            let text = format!("rank {rank} is nobody's child, or another's");
            return Err(Check::IsATree.violated(text));
        }
        let mut up = topology.parent(rank);
        let mut steps = 0;
        while let Some(at) = up {
            up = topology.parent(at);
            steps += 1;
            if steps > size {
                let text = format!("the way up from rank {rank} does not end");
                return Err(Check::IsATree.violated(text));
            }
        }
    }
    Ok(())
}
