//! One run of a prolog or epilog: what is configured of it, and what it has come to. No I/O.

use std::time::Duration;

use formats::fsd;
use formats::idset::Idset;
use formats::job::WaitStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::crew::{self, Duty, End};

/// What `[job-manager.prolog]` or `[job-manager.epilog]` says (flux-config-job-manager(5)).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Procedure {
    pub(super) command: Vec<String>,
    /// It runs on all ranks of the job, not only on rank 0.
    pub(super) per_rank: bool,
    pub(super) timeout: Option<Duration>,
    /// From SIGTERM until nodes where it still runs are drained.
    pub(super) kill_timeout: Duration,
    pub(super) cancel_on_exception: bool,
}

const PROLOG_TIMEOUT: f64 = 1800.0;
const KILL_TIMEOUT: f64 = 60.0;

impl Procedure {
    /// Read the table of a duty; `imp` runs it if it names no command.
    pub(super) fn parse(duty: Duty, table: &Value, imp: Option<&str>) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        struct Table {
            command: Option<Value>,
            #[serde(default)]
            per_rank: bool,
            timeout: Option<String>,
            kill_timeout: Option<f64>,
            cancel_on_exception: Option<bool>,
            /// For the script that systemd runs.
            #[serde(rename = "exit-on-first-error")]
            _exit_on_first_error: Option<bool>,
        }
        let place = |why: String| format!("job-manager.{duty}: {why}");
        let table = Table::deserialize(table).map_err(|e| place(e.to_string()))?;
        let command = match (&table.command, imp) {
            (Some(command), _) => crew::words(command, duty).map_err(place)?,
            (None, Some(imp)) => [imp, "run", &duty.to_string()].map(str::to_owned).into(),
            (None, None) => {
                let why = "no command specified, and exec.imp is not set";
                return Err(place(why.to_owned()));
            }
        };
        let default = if duty == Duty::Prolog {
            PROLOG_TIMEOUT
        } else {
            0.0
        };
        let timeout = match &table.timeout {
            Some(text) => {
                fsd::parse(text).map_err(|e| place(format!("invalid {duty} timeout: {e}")))?
            }
            None => default,
        };
        let kill = table.kill_timeout.filter(|kill| *kill > 0.0);
        Ok(Self {
            command,
            per_rank: table.per_rank,
            timeout: (timeout > 0.0)
                .then(|| Duration::try_from_secs_f64(timeout).ok())
                .flatten(),
            kill_timeout: Duration::try_from_secs_f64(kill.unwrap_or(KILL_TIMEOUT))
                .map_err(|e| place(format!("kill-timeout: {e}")))?,
            cancel_on_exception: table.cancel_on_exception.unwrap_or(duty == Duty::Prolog),
        })
    }
}

/// Why a run was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// By an exception of its job.
    Cancelled,
    /// By its timeout.
    TimedOut,
}

/// A run on some ranks.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) duty: Duty,
    pub(super) procedure: Procedure,
    pub(super) active: Idset,
    /// On how many ranks it was to run.
    total: usize,
    failed: Idset,
    /// The largest wait status.
    status: i32,
    stop: Option<Stop>,
    /// It went on after SIGTERM for too long.
    overdue: bool,
}

/// What a run has come to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) status: i32,
    /// Ranks that went wrong.
    pub(super) failed: Idset,
    /// How, if the job is to hear of it: `prolog timed out`.
    pub(super) fault: Option<String>,
    /// Why to drain these ranks, if they are to be drained.
    pub(super) drain: Option<String>,
}

impl Procedure {
    /// What is configured, for people; a time of 0 is unlimited.
    pub(super) fn describe(&self) -> Value {
        json!({
            "command": self.command,
            "per_rank": self.per_rank,
            "cancel_on_exception": self.cancel_on_exception,
            "timeout": self.timeout.map_or(0.0, |timeout| timeout.as_secs_f64()),
            "kill-timeout": self.kill_timeout.as_secs_f64(),
        })
    }
}

impl Run {
    pub(super) fn new(duty: Duty, procedure: Procedure, ranks: &Idset) -> Self {
        let active = match procedure.per_rank {
            true => ranks.clone(),
            false => Idset::from_range(0, 0),
        };
        Self {
            duty,
            procedure,
            total: active.len(),
            active,
            failed: Idset::new(),
            status: 0,
            stop: None,
            overdue: false,
        }
    }

    /// What runs where, for people.
    pub(super) fn describe(&self) -> Value {
        json!({
            "name": self.duty.to_string(),
            "active_ranks": self.active.to_string(),
            "active": self.active.len(),
            "total": self.total,
        })
    }

    /// The command has ended on a rank.
    pub(super) fn ended(&mut self, rank: u32, end: &End) {
        self.active.remove(rank);
        let status = match end {
            End::Exited(status) => *status,
            End::Lost(_) => WaitStatus::exited(127).0,
        };
        if status != 0 {
            self.failed.insert(rank);
        }
        self.status = self.status.max(status);
    }

    pub(super) fn is_over(&self) -> bool {
        self.active.is_empty() || self.overdue
    }

    /// The job has a fatal exception; whether the run ends because of it.
    pub(super) fn cancel(&mut self) -> bool {
        let is_first = self.procedure.cancel_on_exception && self.stop.is_none();
        if is_first {
            self.stop = Some(Stop::Cancelled);
        }
        is_first
    }

    /// The timeout is over; whether the run ends because of it.
    pub(super) fn time_out(&mut self) -> bool {
        let is_first = self.stop.is_none();
        if is_first {
            self.stop = Some(Stop::TimedOut);
        }
        is_first
    }

    /// Where it runs after the time to end, it counts as failed.
    pub(super) fn give_up(&mut self) {
        self.overdue = true;
        self.failed = self.active.clone();
        self.status = self.status.max(WaitStatus::killed(libc::SIGKILL).0);
    }

    pub(super) fn verdict(&self) -> Verdict {
        let duty = self.duty;
        let how = match self.stop {
            Some(Stop::Cancelled) => format!("{duty} canceled then timed out"),
            Some(Stop::TimedOut) => format!("{duty} timed out"),
            None => match (WaitStatus(self.status).signal(), self.status >> 8) {
                (Some(signal), _) => format!("{duty} killed by signal {signal}"),
                (None, code) if code > 128 => format!("{duty} killed by signal {}", code - 128),
                (None, code) => format!("{duty} exited with code={code}"),
            },
        };
        let is_cancelled = self.stop == Some(Stop::Cancelled) && !self.overdue;
        let went_wrong = self.status != 0 && !is_cancelled;
        let drained = match self.stop {
            None => format!("{duty} failed"),
            Some(_) => how.clone(),
        };
        let drains = went_wrong && (self.procedure.per_rank || self.overdue);
        Verdict {
            status: self.status,
            failed: self.failed.clone(),
            fault: went_wrong.then_some(how),
            drain: drains.then_some(drained),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn procedure(duty: Duty) -> Procedure {
        let table = json!({"command": ["x"], "per-rank": true});
        Procedure::parse(duty, &table, None).unwrap()
    }

    fn run(duty: Duty) -> Run {
        Run::new(duty, procedure(duty), &Idset::from_range(0, 1))
    }

    #[test]
    fn tables() {
        let prolog = procedure(Duty::Prolog);
        assert_eq!(prolog.timeout, Some(Duration::from_secs(1800)));
        assert!(prolog.cancel_on_exception);
        let epilog = Procedure::parse(Duty::Epilog, &json!({"kill-timeout": 0.5}), Some("imp"));
        let epilog = epilog.unwrap();
        assert_eq!(epilog.command, ["imp", "run", "epilog"]);
        assert_eq!(
            (epilog.timeout, epilog.kill_timeout),
            (None, Duration::from_millis(500))
        );
        assert!(!epilog.cancel_on_exception && !epilog.per_rank);
        let forever = json!({"command": ["x"], "timeout": "infinity"});
        assert_eq!(
            Procedure::parse(Duty::Prolog, &forever, None)
                .unwrap()
                .timeout,
            None
        );
    }

    #[test]
    fn faults_name_their_table() {
        for (table, want) in [
            (
                json!({"command": "x"}),
                "job-manager.prolog: command must be an array",
            ),
            (
                json!({}),
                "job-manager.prolog: no command specified, and exec.imp is not set",
            ),
            (
                json!({"command": ["x"], "timeout": "5x"}),
                "job-manager.prolog: invalid prolog timeout: ",
            ),
            (
                json!({"command": ["x"], "foo": 1}),
                "job-manager.prolog: unknown field `foo`",
            ),
        ] {
            let why = Procedure::parse(Duty::Prolog, &table, None).unwrap_err();
            assert!(why.starts_with(want), "{why}");
        }
    }

    #[test]
    fn a_run_that_fails_somewhere() {
        let mut run = run(Duty::Prolog);
        run.ended(0, &End::Exited(0));
        assert!(!run.is_over());
        run.ended(1, &End::Exited(256));
        assert!(run.is_over());
        assert_eq!(
            run.verdict(),
            Verdict {
                status: 256,
                failed: Idset::from_range(1, 1),
                fault: Some("prolog exited with code=1".to_owned()),
                drain: Some("prolog failed".to_owned()),
            }
        );
    }

    #[test]
    fn a_run_that_is_cancelled() {
        let mut run = run(Duty::Prolog);
        assert!(run.cancel() && !run.cancel() && !run.time_out());
        run.ended(0, &End::Exited(15));
        let mut late = run.clone();
        run.ended(1, &End::Exited(15));
        let verdict = run.verdict();
        assert_eq!((verdict.fault, verdict.drain), (None, None));
        late.give_up();
        let verdict = late.verdict();
        assert!(late.is_over());
        assert_eq!(verdict.failed, Idset::from_range(1, 1));
        let want = Some("prolog canceled then timed out".to_owned());
        assert_eq!((&verdict.fault, &verdict.drain), (&want, &want));
    }

    #[test]
    fn a_run_that_times_out() {
        let mut run = run(Duty::Epilog);
        assert!(!run.cancel() && run.time_out());
        run.ended(0, &End::Exited(0));
        run.ended(1, &End::Exited(15));
        let want = Some("epilog timed out".to_owned());
        let verdict = run.verdict();
        assert_eq!((&verdict.fault, &verdict.drain), (&want, &want));
    }
}
