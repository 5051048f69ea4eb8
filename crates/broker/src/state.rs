//! A broker's life as a table: which event leads from which state to which (flux-broker(1)).
//!
//! Without I/O: what is done in a state is in [`crate::core`]. Names and numbers are upstream's, for
//! tools show the names and clients compare the numbers.

use std::fmt;

/// Where a broker is in its life; the number is that of `state-machine.monitor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Loading what every broker needs.
    LoadBuiltins,
    /// Waiting for the parent.
    Join,
    /// Taking over the parent's configuration.
    ConfigSync,
    /// Running rc1.
    Init,
    /// Waiting for enough brokers.
    Quorum,
    /// Running the initial program (rank 0), or being there.
    Run,
    /// Ending what runs in the instance.
    Cleanup,
    /// Waiting for the brokers below.
    Shutdown,
    /// Running rc3 and unloading modules.
    Finalize,
    /// Leaving the tree.
    Goodbye,
    /// Unloading the rest.
    UnloadBuiltins,
    /// Nothing is left to do.
    Exit,
}

use State::{
    Cleanup, ConfigSync, Exit, Finalize, Goodbye, Init, Join, LoadBuiltins, Quorum, Run, Shutdown,
    UnloadBuiltins,
};

impl State {
    const ALL: [Self; 12] = [
        LoadBuiltins,
        Join,
        ConfigSync,
        Init,
        Quorum,
        Run,
        Cleanup,
        Shutdown,
        Finalize,
        Goodbye,
        UnloadBuiltins,
        Exit,
    ];

    /// Name in lower case, as tools show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LoadBuiltins => "load-builtins",
            Join => "join",
            ConfigSync => "config-sync",
            Init => "init",
            Quorum => "quorum",
            Run => "run",
            Cleanup => "cleanup",
            Shutdown => "shutdown",
            Finalize => "finalize",
            Goodbye => "goodbye",
            UnloadBuiltins => "unload-builtins",
            Exit => "exit",
        }
    }

    /// Number in `state-machine.monitor` answers.
    pub(crate) fn number(self) -> i32 {
        self as i32
    }

    /// The state after an event; none if it means nothing in this one.
    pub(crate) fn after(self, event: Event) -> Option<Self> {
        let found = TABLE
            .iter()
            .find(|(e, from, _)| (*e, *from) == (event, self));
        found.map(|(_, _, to)| *to)
    }
}

impl TryFrom<i32> for State {
    type Error = i32;

    fn try_from(number: i32) -> Result<Self, i32> {
        let found = Self::ALL.into_iter().find(|s| s.number() == number);
        found.ok_or(number)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What moves a broker on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    BuiltinsSuccess,
    BuiltinsFail,
    ParentNone,
    ParentReady,
    ParentFail,
    SyncNone,
    SyncSuccess,
    SyncFail,
    Rc1None,
    Rc1Success,
    /// It failed, and the instance is there to be mended.
    Rc1IgnoreFail,
    Rc1Fail,
    /// A module is gone without which there is no going on.
    Panic,
    QuorumFull,
    QuorumFail,
    Rc2Success,
    Rc2Fail,
    /// Somebody wants the end.
    Shutdown,
    CleanupNone,
    CleanupSuccess,
    CleanupFail,
    ChildrenNone,
    ChildrenComplete,
    Rc3None,
    Rc3Success,
    Rc3Fail,
    /// The parent has seen us go.
    Goodbye,
    BuiltinsDone,
    BuiltinsUnloadFail,
}

impl Event {
    /// Name, as the log shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BuiltinsSuccess => "builtins-success",
            Self::BuiltinsFail => "builtins-fail",
            Self::ParentNone => "parent-none",
            Self::ParentReady => "parent-ready",
            Self::ParentFail => "parent-fail",
            Self::SyncNone => "sync-none",
            Self::SyncSuccess => "sync-success",
            Self::SyncFail => "sync-fail",
            Self::Rc1None => "rc1-none",
            Self::Rc1Success => "rc1-success",
            Self::Rc1IgnoreFail => "rc1-ignorefail",
            Self::Rc1Fail => "rc1-fail",
            Self::Panic => "panic",
            Self::QuorumFull => "quorum-full",
            Self::QuorumFail => "quorum-fail",
            Self::Rc2Success => "rc2-success",
            Self::Rc2Fail => "rc2-fail",
            Self::Shutdown => "shutdown",
            Self::CleanupNone => "cleanup-none",
            Self::CleanupSuccess => "cleanup-success",
            Self::CleanupFail => "cleanup-fail",
            Self::ChildrenNone => "children-none",
            Self::ChildrenComplete => "children-complete",
            Self::Rc3None => "rc3-none",
            Self::Rc3Success => "rc3-success",
            Self::Rc3Fail => "rc3-fail",
            Self::Goodbye => "goodbye",
            Self::BuiltinsDone => "builtins-done",
            Self::BuiltinsUnloadFail => "builtins-unload-fail",
        }
    }
}

#[rustfmt::skip]
const TABLE: &[(Event, State, State)] = &[
    (Event::BuiltinsSuccess,    LoadBuiltins,   Join),
    (Event::BuiltinsFail,       LoadBuiltins,   UnloadBuiltins),
    (Event::ParentNone,         Join,           ConfigSync),
    (Event::ParentReady,        Join,           ConfigSync),
    (Event::ParentFail,         Join,           Shutdown),
    (Event::Panic,              Join,           Shutdown),
    (Event::SyncNone,           ConfigSync,     Init),
    (Event::SyncSuccess,        ConfigSync,     Init),
    (Event::SyncFail,           ConfigSync,     Shutdown),
    (Event::Panic,              ConfigSync,     Shutdown),
    (Event::Rc1None,            Init,           Quorum),
    (Event::Rc1Success,         Init,           Quorum),
    (Event::Rc1IgnoreFail,      Init,           Quorum),
    (Event::Rc1Fail,            Init,           Shutdown),
    (Event::Panic,              Init,           Shutdown),
    (Event::QuorumFull,         Quorum,         Run),
    (Event::QuorumFail,         Quorum,         Shutdown),
    (Event::Panic,              Quorum,         Shutdown),
    (Event::Rc2Success,         Run,            Cleanup),
    (Event::Rc2Fail,            Run,            Cleanup),
    (Event::Shutdown,           Run,            Cleanup),
    (Event::ParentFail,         Run,            Cleanup),
    (Event::Panic,              Run,            Shutdown),
    (Event::CleanupNone,        Cleanup,        Shutdown),
    (Event::CleanupSuccess,     Cleanup,        Shutdown),
    (Event::CleanupFail,        Cleanup,        Shutdown),
    (Event::ChildrenNone,       Shutdown,       Finalize),
    (Event::ChildrenComplete,   Shutdown,       Finalize),
    (Event::Rc3None,            Finalize,       Goodbye),
    (Event::Rc3Success,         Finalize,       Goodbye),
    (Event::Rc3Fail,            Finalize,       Goodbye),
    (Event::Goodbye,            Goodbye,        UnloadBuiltins),
    (Event::BuiltinsDone,       UnloadBuiltins, Exit),
    (Event::BuiltinsUnloadFail, UnloadBuiltins, Exit),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_life() {
        let events = [
            Event::BuiltinsSuccess,
            Event::ParentNone,
            Event::SyncNone,
            Event::Rc1Success,
            Event::QuorumFull,
            Event::Rc2Fail,
            Event::CleanupNone,
            Event::ChildrenNone,
            Event::Rc3None,
            Event::Goodbye,
            Event::BuiltinsDone,
        ];
        let step = |state: State, event| state.after(event).unwrap();
        assert_eq!(events.into_iter().fold(LoadBuiltins, step), Exit);
    }

    #[test]
    fn every_event_leads_on_and_every_state_to_the_end() {
        for (event, from, to) in TABLE {
            assert!(from < to, "{}: {from} -> {to}", event.name());
        }
        for state in State::ALL.into_iter().filter(|s| *s != Exit) {
            assert!(TABLE.iter().any(|(_, from, _)| *from == state), "{state}");
        }
    }

    #[test]
    fn what_means_nothing_changes_nothing() {
        assert_eq!(Init.after(Event::Rc2Success), None);
        assert_eq!(Shutdown.after(Event::Panic), None);
        assert_eq!(Cleanup.after(Event::ParentFail), None);
    }

    #[test]
    fn numbers() {
        assert_eq!(
            [Init, Run, Cleanup, Finalize].map(State::number),
            [3, 5, 6, 8]
        );
        for state in State::ALL {
            assert_eq!(State::try_from(state.number()), Ok(state));
        }
        assert_eq!(State::try_from(12), Err(12));
    }
}
