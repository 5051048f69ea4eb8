//! What a request goes through before it becomes a job: frobnicators change it, validators may refuse it.
//!
//! Steps that are built in do not wait, except `feasibility`, which asks the scheduler; the others ask a [`Worker`].

use std::sync::atomic::{AtomicU64, Ordering};

use client::{Handle, Node};
use formats::Urgency;
use formats::admission::{Minimum, check_jobspec, policy};
use formats::queues::Queues;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wire::{Message, RpcError};

use super::FLAG_NOVALIDATE;
use super::config::{Settings, Stage};
use super::plugins::{Kind, Part};
use super::worker::Worker;
use crate::access;

const FROBNICATOR: Kind = Kind {
    name: "frobnicator",
    command: "job-frobnicator",
    built_in: &["defaults", "constraints"],
    default: &["defaults", "constraints"],
};

const VALIDATOR: Kind = Kind {
    name: "validator",
    command: "job-validator",
    built_in: &["jobspec", "schema", "feasibility", "require-instance"],
    default: &["jobspec"],
};

/// A request on its way.
pub(super) struct Candidate {
    pub(super) request: Message,
    pub(super) signed: String,
    pub(super) jobspec: Value,
    pub(super) urgency: Urgency,
    pub(super) flags: i32,
}

/// A frobnicator.
#[derive(Debug)]
enum Change {
    Defaults,
    Constraints,
    External(Worker),
}

/// A validator.
#[derive(Debug)]
enum Check {
    Jobspec { any_version: bool },
    Feasibility,
    RequireInstance(Minimum),
    External(Worker),
}

/// How many requests a stage was given, and has refused.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
}

/// Of both stages, over all configurations.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    frobnicator: Tally,
    validator: Tally,
}

/// The stages as they are configured.
#[derive(Debug)]
pub(super) struct Pipeline {
    queues: Queues,
    changes: Vec<Change>,
    checks: Vec<Check>,
}

fn invalid(why: impl Into<String>) -> RpcError {
    RpcError::new(libc::EINVAL, why)
}

/// What the arguments say to validators that are built in.
#[derive(Debug, Default, PartialEq)]
struct Arguments {
    any_version: bool,
    minimum: Minimum,
    /// For others.
    rest: Vec<String>,
}

impl Arguments {
    fn parse(stage: &Stage) -> Result<Self, String> {
        let mut found = Self::default();
        if let Some(table) = stage.tables.get("require-instance") {
            found.minimum = Minimum::deserialize(table)
                .map_err(|e| format!("ingest.validator.require-instance: {e}"))?;
        }
        for arg in &stage.args {
            let invalid = |why: &str| format!("ingest.validator.args: {arg}: {why}");
            let number = |text: &str| text.parse().map_err(|_| invalid("is no number"));
            match arg.split_once('=') {
                Some(("--require-version", "any")) => found.any_version = true,
                Some(("--require-version", "1")) => found.any_version = false,
                Some(("--require-version", _)) => return Err(invalid("a version is 1 or any")),
                Some(("--require-instance-minnodes", n)) => found.minimum.nodes = number(n)?,
                Some(("--require-instance-mincores", n)) => found.minimum.cores = number(n)?,
                _ => found.rest.push(arg.clone()),
            }
        }
        found.minimum = found.minimum.complete();
        Ok(found)
    }
}

impl Pipeline {
    /// The pipeline of a configuration. The tasks of its workers end when it is dropped.
    pub(super) fn new(
        settings: &Settings,
        queues: Queues,
        handle: &Handle,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, String> {
        let size = settings.buffer_size;
        let (mut changes, mut checks) = (Vec::new(), Vec::new());
        // Parsed as a whole before the first worker is made.
        let frobnicators = match &settings.frobnicator {
            Some(stage) => FROBNICATOR.parts(stage, &stage.args, size)?,
            None => Vec::new(),
        };
        let (arguments, validators) = match &settings.validator {
            Some(stage) => {
                let arguments = Arguments::parse(stage)?;
                let parts = VALIDATOR.parts(stage, &arguments.rest, size)?;
                (arguments, parts)
            }
            None => (Arguments::default(), Vec::new()),
        };
        for part in frobnicators {
            changes.push(match part {
                Part::BuiltIn("defaults") => Change::Defaults,
                Part::BuiltIn(_) => Change::Constraints,
                Part::External(program) => {
                    Change::External(Worker::new(program, handle, &mut *tasks))
                }
            });
        }
        for part in validators {
            checks.push(match part {
                Part::BuiltIn("feasibility") => Check::Feasibility,
                Part::BuiltIn("require-instance") => Check::RequireInstance(arguments.minimum),
                Part::BuiltIn(_) => Check::Jobspec {
                    any_version: arguments.any_version,
                },
                Part::External(program) => Check::External(Worker::new(program, handle, tasks)),
            });
        }
        Ok(Self {
            queues,
            changes,
            checks,
        })
    }

    /// Take a request through both stages.
    pub(super) async fn process(
        &self,
        handle: &Handle,
        tallies: &Tallies,
        job: &mut Candidate,
    ) -> Result<(), RpcError> {
        if self.has_changes() {
            tallies.frobnicator.count(self.change(job).await)?;
        }
        if job.flags & FLAG_NOVALIDATE != 0 {
            return Ok(());
        }
        self.check_access(job).await?;
        if self.checks.is_empty() {
            return Ok(());
        }
        tallies.validator.count(self.check(handle, job).await)
    }

    /// Whether there is anything that frobnicators could do.
    fn has_changes(&self) -> bool {
        let is_external = |change: &Change| matches!(change, Change::External(_));
        self.changes.iter().any(is_external) || !policy::is_empty(&self.queues)
    }

    async fn change(&self, job: &mut Candidate) -> Result<(), RpcError> {
        for change in &self.changes {
            match change {
                Change::Defaults => {
                    policy::set_defaults(&self.queues, &mut job.jobspec).map_err(invalid)?;
                }
                Change::Constraints => {
                    policy::set_constraints(&self.queues, &mut job.jobspec).map_err(invalid)?;
                }
                Change::External(worker) => {
                    if let Some(jobspec) = worker.ask(&job.describe()).await? {
                        job.jobspec = jobspec;
                    }
                }
            }
        }
        Ok(())
    }

    async fn check_access(&self, job: &Candidate) -> Result<(), RpcError> {
        let queue = job.jobspec.pointer("/attributes/system/queue");
        let queue = queue.and_then(Value::as_str);
        access::check(&self.queues, queue, job.request.userid()).await
    }

    async fn check(&self, handle: &Handle, job: &Candidate) -> Result<(), RpcError> {
        for check in &self.checks {
            match check {
                Check::Jobspec { any_version } => {
                    check_jobspec(&job.jobspec, *any_version).map_err(invalid)?;
                }
                Check::RequireInstance(minimum) => {
                    minimum.check(&job.jobspec).map_err(invalid)?;
                }
                Check::Feasibility => {
                    let asked = handle.rpc("feasibility.check", Node::Any, &job.describe());
                    match asked.await {
                        // Without a scheduler that knows, there is no objection.
                        Err(e) if e.errno != libc::ENOSYS => return Err(e),
                        _ => {}
                    }
                }
                Check::External(worker) => {
                    worker.ask(&job.describe()).await?;
                }
            }
        }
        Ok(())
    }

    /// What runs and what was done, for people.
    pub(super) fn describe(&self, tallies: &Tallies) -> Value {
        let changes = self.changes.iter().filter_map(|change| match change {
            Change::External(worker) => worker.pid(),
            _ => None,
        });
        let checks = self.checks.iter().filter_map(|check| match check {
            Check::External(worker) => worker.pid(),
            _ => None,
        });
        json!({
            "frobnicator": tallies.frobnicator.describe(changes.collect()),
            "validator": tallies.validator.describe(checks.collect()),
        })
    }
}

impl Candidate {
    /// What plugins are told.
    fn describe(&self) -> Value {
        json!({
            "jobspec": self.jobspec,
            "userid": self.request.userid(),
            "rolemask": self.request.rolemask(),
            "urgency": self.urgency,
            "flags": self.flags,
        })
    }
}

impl Tally {
    fn count(&self, result: Result<(), RpcError>) -> Result<(), RpcError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let errors = u64::from(result.is_err());
        self.errors.fetch_add(errors, Ordering::Relaxed);
        result
    }

    fn describe(&self, pids: Vec<u32>) -> Value {
        json!({
            "running": pids.len(),
            "requests": self.requests.load(Ordering::Relaxed),
            "errors": self.errors.load(Ordering::Relaxed),
            "pids": pids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], table: Value) -> Result<Arguments, String> {
        let mut stage = Stage {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..Stage::default()
        };
        stage.tables.insert("require-instance".to_owned(), table);
        Arguments::parse(&stage)
    }

    #[test]
    fn arguments_say_more_than_tables() {
        let args = [
            "--require-instance-minnodes=2",
            "--require-version=any",
            "--else",
        ];
        let found = parse(&args, json!({"minnodes": 4, "mincores": 8})).unwrap();
        let want = Arguments {
            any_version: true,
            minimum: Minimum { nodes: 2, cores: 8 },
            rest: vec!["--else".to_owned()],
        };
        assert_eq!(found, want);
        for bad in ["--require-version=2", "--require-instance-mincores=x"] {
            assert!(parse(&[bad], json!({})).unwrap_err().contains(bad));
        }
        assert!(
            parse(&[], json!({"x": 1}))
                .unwrap_err()
                .contains("require-instance")
        );
    }
}
