//! What must be true of every run.

use std::fmt;

/// The names of the invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every request of a program whose broker lives ends exactly once, and nobody is answered who
    /// did not ask.
    OneOutcome,
    /// A program sees events in order, without gap or repeat, for as long as its broker lives.
    EventsInOrder,
    /// After the last fault every parent has joined exactly the living life of each child, and the
    /// root calls the tree full.
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
