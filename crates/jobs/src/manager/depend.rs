//! What jobs wait for before they may run (RFC 26): how far other jobs have come, a time, or, as `singleton`, the end
//! of all earlier jobs of that user and name.
//!
//! Here is what a jobspec asks for and what the progress of a job means to those that wait for it; who waits for a time
//! or a name is known to [`super::release`] and [`super::singleton`].

use std::collections::HashMap;

use formats::dependency::{Condition, Requirement};
use formats::eventlog::Event;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::Value;

/// One dependency of a job, and the text that identifies it in events.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dependency {
    pub(crate) on: On,
    pub(crate) description: String,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum On {
    Job(Condition, JobId),
    /// Seconds since 1970.
    Time(f64),
    Singleton,
    /// A plugin knows; this is the jobspec's entry, and the scheme the description.
    Foreign(Value),
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It never had resources.
    NeverRan,
    Succeeded,
    Failed,
    /// A fatal exception ended it while it ran.
    Excepted,
}

impl Outcome {
    /// The outcome of an inactive job with these events.
    pub(crate) fn of(events: &[Event]) -> Self {
        let first = |name: &str, fits: fn(&Event) -> bool| {
            events.iter().position(|e| e.name == name && fits(e))
        };
        let number = |event: &Event, key: &str| event.get(key).and_then(Value::as_i64);
        if first("alloc", |_| true).is_none() {
            return Self::NeverRan;
        }
        let fatal = first("exception", |e| {
            e.get("severity").and_then(Value::as_i64) == Some(0)
        });
        let finish = first("finish", |_| true);
        match (fatal, finish) {
            (Some(fatal), Some(finish)) if finish < fatal => Self::Failed,
            (Some(_), _) => Self::Excepted,
            (None, Some(at)) if number(&events[at], "status") == Some(0) => Self::Succeeded,
            (None, _) => Self::Failed,
        }
    }
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Waiting,
    Started,
    Ended(Outcome),
}

/// What a job's progress means for a dependent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wait,
    Satisfied,
    /// It cannot be satisfied any more, and why.
    Never(&'static str),
}

/// Whether `condition` holds with a job that has come so far.
pub(crate) fn judge(condition: Condition, progress: Progress) -> Verdict {
    use Outcome::{Excepted, Failed, NeverRan, Succeeded};
    match (condition, progress) {
        (_, Progress::Waiting) => Verdict::Wait,
        (Condition::After, Progress::Started) => Verdict::Satisfied,
        (_, Progress::Started) => Verdict::Wait,
        (Condition::AfterAny, _)
        | (Condition::AfterOk, Progress::Ended(Succeeded))
        | (Condition::AfterNotOk, Progress::Ended(Failed | Excepted))
        | (Condition::AfterExcept, Progress::Ended(Excepted)) => Verdict::Satisfied,
        (_, Progress::Ended(NeverRan)) => Verdict::Never("job never started"),
        (_, Progress::Ended(_)) => Verdict::Never("can never be satisfied"),
    }
}

fn verb(condition: Condition) -> &'static str {
    match condition {
        Condition::After => "after-start",
        Condition::AfterAny => "after-finish",
        Condition::AfterOk => "after-success",
        Condition::AfterNotOk => "after-failure",
        Condition::AfterExcept => "after-except",
    }
}

/// The dependencies a jobspec names.
pub(crate) fn parse(jobspec: &Value) -> Result<Vec<Dependency>, String> {
    let Some(list) = jobspec.pointer("/attributes/system/dependencies") else {
        return Ok(Vec::new());
    };
    let list = list
        .as_array()
        .ok_or("attributes.system.dependencies: must be an array")?;
    list.iter()
        .enumerate()
        .map(|(i, entry)| {
            let bad = |what: String| format!("attributes.system.dependencies[{i}]: {what}");
            let raw = entry;
            let entry = formats::Dependency::deserialize(raw).map_err(|e| bad(e.to_string()))?;
            let (on, description) = match entry.requirement().map_err(|e| bad(e.to_string()))? {
                Requirement::Job(condition, target) => (
                    On::Job(condition, target),
                    format!("{}={}", verb(condition), entry.value),
                ),
                Requirement::Time(time) => (On::Time(time), format!("begin-time={time:.3}")),
                _ if entry.scheme == "singleton" => (On::Singleton, "singleton".to_owned()),
                _ => (On::Foreign(raw.clone()), entry.scheme.clone()),
            };
            Ok(Dependency { on, description })
        })
        .collect()
}

/// A job that waits for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) job: JobId,
    pub(crate) condition: Condition,
    pub(crate) description: String,
}

/// Who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_target: HashMap<JobId, Vec<Waiter>>,
}

impl Waiting {
    pub(crate) fn add(&mut self, target: JobId, waiter: Waiter) {
        self.by_target.entry(target).or_default().push(waiter);
    }

    /// The dependents that `target`'s progress decides, and how.
    pub(crate) fn decide(&mut self, target: JobId, progress: Progress) -> Vec<(Waiter, Verdict)> {
        let Some(list) = self.by_target.remove(&target) else {
            return Vec::new();
        };
        let mut decided = Vec::new();
        let mut left = Vec::new();
        for waiter in list {
            match judge(waiter.condition, progress) {
                Verdict::Wait => left.push(waiter),
                verdict => decided.push((waiter, verdict)),
            }
        }
        if !left.is_empty() {
            self.by_target.insert(target, left);
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn verdicts() {
        use Condition::*;
        use Outcome::*;
        let never = Verdict::Never("can never be satisfied");
        for (condition, progress, want) in [
            (After, Progress::Waiting, Verdict::Wait),
            (After, Progress::Started, Verdict::Satisfied),
            (After, Progress::Ended(Failed), never),
            (AfterAny, Progress::Started, Verdict::Wait),
            (AfterAny, Progress::Ended(NeverRan), Verdict::Satisfied),
            (AfterOk, Progress::Ended(Succeeded), Verdict::Satisfied),
            (AfterOk, Progress::Ended(Excepted), never),
            (AfterNotOk, Progress::Ended(Failed), Verdict::Satisfied),
            (AfterNotOk, Progress::Ended(Succeeded), never),
            (
                AfterNotOk,
                Progress::Ended(NeverRan),
                Verdict::Never("job never started"),
            ),
            (AfterExcept, Progress::Ended(Excepted), Verdict::Satisfied),
            (AfterExcept, Progress::Ended(Failed), never),
        ] {
            assert_eq!(
                judge(condition, progress),
                want,
                "{condition:?} {progress:?}"
            );
        }
    }

    #[test]
    fn outcomes() {
        let of = |events: &[(&str, Value)]| {
            let event = |(name, context): &(&str, Value)| {
                Event::new(1.0, *name).with_context(context.clone())
            };
            Outcome::of(&events.iter().map(event).collect::<Vec<_>>())
        };
        let alloc = || ("alloc", json!({}));
        let finish = |status: i32| ("finish", json!({ "status": status }));
        let fatal = || ("exception", json!({"type": "cancel", "severity": 0}));
        let mild = ("exception", json!({"type": "x", "severity": 1}));
        assert_eq!(of(&[fatal()]), Outcome::NeverRan);
        assert_eq!(of(&[alloc(), mild, finish(0)]), Outcome::Succeeded);
        assert_eq!(of(&[alloc(), finish(256)]), Outcome::Failed);
        assert_eq!(of(&[alloc(), finish(0), fatal()]), Outcome::Failed);
        assert_eq!(of(&[alloc(), fatal(), finish(15)]), Outcome::Excepted);
    }

    #[test]
    fn parsing() {
        let spec = |deps: Value| json!({"attributes": {"system": {"dependencies": deps}}});
        let of = |scheme: &str, value: &str| {
            let list = parse(&spec(json!([{"scheme": scheme, "value": value}]))).unwrap();
            (list[0].on.clone(), list[0].description.clone())
        };
        assert_eq!(
            of("afterok", "12"),
            (
                On::Job(Condition::AfterOk, JobId(12)),
                "after-success=12".to_owned()
            )
        );
        assert_eq!(
            of("begin-time", "1.5"),
            (On::Time(1.5), "begin-time=1.500".to_owned())
        );
        assert_eq!(of("singleton", ""), (On::Singleton, "singleton".to_owned()));
        let entry = json!({"scheme": "x", "value": "1"});
        assert_eq!(of("x", "1"), (On::Foreign(entry), "x".to_owned()));
        for bad in [
            json!({}),
            json!([{"scheme": "after", "value": "!"}]),
            json!([{"scheme": "begin-time", "value": "soon"}]),
            json!([{"value": "1"}]),
        ] {
            assert!(parse(&spec(bad.clone())).is_err(), "{bad}");
        }
        assert_eq!(parse(&json!({})).unwrap(), []);
    }

    #[test]
    fn waiting_is_decided_once() {
        let mut waiting = Waiting::default();
        let waiter = |job, condition| Waiter {
            job: JobId(job),
            condition,
            description: String::new(),
        };
        waiting.add(JobId(1), waiter(2, Condition::After));
        waiting.add(JobId(1), waiter(3, Condition::AfterOk));
        assert_eq!(waiting.decide(JobId(1), Progress::Started).len(), 1);
        let rest = waiting.decide(JobId(1), Progress::Ended(Outcome::Failed));
        assert_eq!(rest[0].0.job, JobId(3));
        assert!(matches!(rest[0].1, Verdict::Never(_)));
        assert!(
            waiting
                .decide(JobId(1), Progress::Ended(Outcome::Failed))
                .is_empty()
        );
    }
}
