//! States of a broker's life (flux-broker(1)): join, init, quorum, run, cleanup, shutdown, …

use std::fmt;

/// Where a broker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Connecting to the parent.
    Join,
    /// Loading modules.
    Init,
    /// Waiting for enough brokers.
    Quorum,
    /// Running the initial program (rank 0).
    Run,
    /// Ending what runs in the instance.
    Cleanup,
    /// Waiting for the brokers below.
    Shutdown,
    /// Unloading modules.
    Finalize,
    /// Leaving the tree.
    Goodbye,
}

impl State {
    /// Name in lower case, as tools show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Init => "init",
            Self::Quorum => "quorum",
            Self::Run => "run",
            Self::Cleanup => "cleanup",
            Self::Shutdown => "shutdown",
            Self::Finalize => "finalize",
            Self::Goodbye => "goodbye",
        }
    }

    /// Number in `state-machine.monitor` answers.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Join => 1,
            Self::Init => 2,
            Self::Quorum => 3,
            Self::Run => 4,
            Self::Cleanup => 5,
            Self::Shutdown => 6,
            Self::Finalize => 7,
            Self::Goodbye => 8,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
