//! Job states and results (RFC 21) and the meaning of wait statuses.

use std::{fmt, str::FromStr};

/// Environment variables that describe an enclosing job or parallel launcher. What starts anew, an
/// instance or a job shell, must not inherit them.
pub const VARIABLES: &[&str] = &[
    "FLUX_JOB_ID",
    "FLUX_JOB_ID_PATH",
    "FLUX_JOB_SIZE",
    "FLUX_JOB_NNODES",
    "FLUX_JOB_TMPDIR",
    "FLUX_TASK_RANK",
    "FLUX_TASK_LOCAL_ID",
    "FLUX_KVS_NAMESPACE",
    "FLUX_PROXY_REMOTE",
    "FLUX_TERMINUS_SESSION",
    "PMI_FD",
    "PMI_RANK",
    "PMI_SIZE",
    "PMI_SPAWNED",
    "PMI_PORT",
    "PMI_ID",
];

/// A state of a job. The numbers are bits, so that a set of states is a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum JobState {
    /// Submitted, not validated yet.
    New = 1,
    /// Waiting for dependencies.
    Depend = 2,
    /// Waiting for a priority.
    Priority = 4,
    /// Waiting for resources.
    Sched = 8,
    /// With resources: about to run, or running.
    Run = 16,
    /// Ended, or stopped by an exception; resources are given back.
    Cleanup = 32,
    /// Nothing changes any more.
    Inactive = 64,
}

/// DEPEND, PRIORITY and SCHED.
pub const PENDING: u32 = 2 | 4 | 8;
/// RUN and CLEANUP.
pub const RUNNING: u32 = 16 | 32;
/// PENDING and RUNNING.
pub const ACTIVE: u32 = PENDING | RUNNING;

/// How an inactive job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum JobResult {
    /// All went well.
    Completed = 1,
    /// It ended with a status that is not 0, or an exception.
    Failed = 2,
    /// Somebody cancelled it.
    Canceled = 4,
    /// It reached its time limit.
    Timeout = 8,
}

/// The name or number of a state or result is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown job {what} '{text}'")]
pub struct UnknownName {
    /// `state` or `result`.
    pub what: &'static str,
    /// What was given.
    pub text: String,
}

impl JobState {
    /// In the order jobs go through them.
    pub const ALL: [JobState; 7] = [
        JobState::New,
        JobState::Depend,
        JobState::Priority,
        JobState::Sched,
        JobState::Run,
        JobState::Cleanup,
        JobState::Inactive,
    ];

    /// The bit in a mask.
    pub fn bit(self) -> u32 {
        self as u32
    }

    /// The state of one bit.
    pub fn from_bit(bit: u32) -> Option<JobState> {
        JobState::ALL.into_iter().find(|s| s.bit() == bit)
    }

    /// The long name in capitals.
    pub fn name(self) -> &'static str {
        match self {
            JobState::New => "NEW",
            JobState::Depend => "DEPEND",
            JobState::Priority => "PRIORITY",
            JobState::Sched => "SCHED",
            JobState::Run => "RUN",
            JobState::Cleanup => "CLEANUP",
            JobState::Inactive => "INACTIVE",
        }
    }

    /// The one-letter name.
    pub fn abbrev(self) -> &'static str {
        &self.name()[..1]
    }
}

/// The mask of a state name, virtual states included (`pending`, `running`, `active`), long or
/// short, in any case.
pub fn state_mask(text: &str) -> Result<u32, UnknownName> {
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "PENDING" | "PD" => Ok(PENDING),
        "RUNNING" | "RU" => Ok(RUNNING),
        "ACTIVE" | "A" => Ok(ACTIVE),
        name => JobState::ALL
            .into_iter()
            .find(|s| s.name() == name || s.abbrev() == name)
            .map(JobState::bit)
            .ok_or_else(|| UnknownName {
                what: "state",
                text: text.to_owned(),
            }),
    }
}

impl FromStr for JobState {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<JobState, UnknownName> {
        let bit = state_mask(text)?;
        JobState::from_bit(bit).ok_or_else(|| UnknownName {
            what: "state",
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl JobResult {
    /// Every result.
    pub const ALL: [JobResult; 4] = [
        JobResult::Completed,
        JobResult::Failed,
        JobResult::Canceled,
        JobResult::Timeout,
    ];

    /// The bit in a mask.
    pub fn bit(self) -> u32 {
        self as u32
    }

    /// The result of one bit.
    pub fn from_bit(bit: u32) -> Option<JobResult> {
        JobResult::ALL.into_iter().find(|r| r.bit() == bit)
    }

    /// The long name in capitals.
    pub fn name(self) -> &'static str {
        match self {
            JobResult::Completed => "COMPLETED",
            JobResult::Failed => "FAILED",
            JobResult::Canceled => "CANCELED",
            JobResult::Timeout => "TIMEOUT",
        }
    }

    /// One or two letters.
    pub fn abbrev(self) -> &'static str {
        match self {
            JobResult::Completed => "CD",
            JobResult::Failed => "F",
            JobResult::Canceled => "CA",
            JobResult::Timeout => "TO",
        }
    }

    /// The result of a job that ran or not (`started`), with the wait status of its `finish`
    /// event and the type of its most severe exception.
    pub fn of(started: bool, status: Option<i32>, exception: Option<&str>) -> JobResult {
        match (started && status == Some(0), exception) {
            (true, _) => JobResult::Completed,
            (false, Some("cancel")) => JobResult::Canceled,
            (false, Some("timeout")) => JobResult::Timeout,
            (false, _) => JobResult::Failed,
        }
    }
}

impl FromStr for JobResult {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<JobResult, UnknownName> {
        let upper = text.to_ascii_uppercase();
        JobResult::ALL
            .into_iter()
            .find(|r| r.name() == upper || r.abbrev() == upper)
            .ok_or_else(|| UnknownName {
                what: "result",
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for JobResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A status as `wait(2)` reports it and eventlogs carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitStatus(pub i32);

impl WaitStatus {
    /// The status of a process that exits with `code`.
    pub fn exited(code: i32) -> WaitStatus {
        WaitStatus((code & 0xff) << 8)
    }

    /// The status of a process that `signal` kills.
    pub fn killed(signal: i32) -> WaitStatus {
        WaitStatus(signal & 0x7f)
    }

    /// The signal that killed the process.
    pub fn signal(self) -> Option<i32> {
        let signal = self.0 & 0x7f;
        (signal != 0 && signal != 0x7f).then_some(signal)
    }

    /// Whether a signal killed the process and left a core dump.
    pub fn core_dumped(self) -> bool {
        self.signal().is_some() && self.0 & 0x80 != 0
    }

    /// The code the process exited with.
    pub fn code(self) -> Option<i32> {
        (self.0 & 0x7f == 0).then_some((self.0 >> 8) & 0xff)
    }

    /// The exit code a shell reports: the code itself, or 128 plus the signal.
    pub fn exit_code(self) -> i32 {
        match self.signal() {
            Some(signal) => 128 + signal,
            None => self.code().unwrap_or(0),
        }
    }
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.signal(), self.code()) {
            (Some(signal), _) => write!(f, "killed by signal {signal}"),
            (None, Some(code)) => write!(f, "exited with exit code {code}"),
            (None, None) => write!(f, "stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits() {
        for state in JobState::ALL {
            assert_eq!(state.name().to_lowercase().parse(), Ok(state));
            assert_eq!(state.abbrev().parse(), Ok(state));
            assert_eq!(JobState::from_bit(state.bit()), Some(state));
        }
        assert_eq!((PENDING, RUNNING, ACTIVE), (14, 48, 62));
        assert_eq!(state_mask("pd"), Ok(PENDING));
        assert!("pending".parse::<JobState>().is_err());
        assert_eq!(
            state_mask("x").unwrap_err().to_string(),
            "unknown job state 'x'"
        );
        for result in JobResult::ALL {
            assert_eq!(result.abbrev().to_lowercase().parse(), Ok(result));
            assert_eq!(result.name().parse(), Ok(result));
        }
    }

    #[test]
    fn results() {
        assert_eq!(JobResult::of(true, Some(0), None), JobResult::Completed);
        assert_eq!(JobResult::of(true, Some(256), None), JobResult::Failed);
        assert_eq!(
            JobResult::of(false, None, Some("cancel")),
            JobResult::Canceled
        );
        assert_eq!(
            JobResult::of(true, Some(15), Some("timeout")),
            JobResult::Timeout
        );
        assert_eq!(
            JobResult::of(true, Some(15), Some("exec")),
            JobResult::Failed
        );
    }

    #[test]
    fn wait_statuses() {
        assert_eq!(WaitStatus(768).exit_code(), 3);
        assert_eq!(WaitStatus(768).to_string(), "exited with exit code 3");
        assert_eq!(WaitStatus(9).exit_code(), 137);
        assert_eq!(WaitStatus(139).to_string(), "killed by signal 11");
        assert!(WaitStatus(139).core_dumped());
        assert_eq!(WaitStatus::exited(3), WaitStatus(768));
    }
}
