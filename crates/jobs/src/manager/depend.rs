//! Dependencies on other jobs (RFC 26): `after`, `afterany`, `afterok`, `afternotok`.

use std::collections::HashMap;

use formats::dependency::{Condition, Requirement};
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::Value;

/// One dependency of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) condition: Condition,
    pub(crate) target: JobId,
    /// Text that identifies it in events.
    pub(crate) description: String,
}

/// How far a target has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Waiting,
    Started,
    Succeeded,
    Failed,
}

/// What a target's progress means for a dependent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wait,
    Satisfied,
    Never,
}

/// Whether `condition` holds with a target that has come so far.
pub(crate) fn judge(condition: Condition, progress: Progress) -> Verdict {
    use Progress::{Failed, Started, Succeeded, Waiting};
    match (condition, progress) {
        (_, Waiting) => Verdict::Wait,
        (Condition::After, _) => Verdict::Satisfied,
        (_, Started) => Verdict::Wait,
        (Condition::AfterAny, _)
        | (Condition::AfterOk, Succeeded)
        | (Condition::AfterNotOk, Failed) => Verdict::Satisfied,
        (Condition::AfterOk, Failed) | (Condition::AfterNotOk, Succeeded) => Verdict::Never,
    }
}

/// The dependencies a jobspec names.
pub(crate) fn parse(jobspec: &Value) -> Result<Vec<Dependency>, String> {
    let Some(list) = jobspec.pointer("/attributes/system/dependencies") else {
        return Ok(Vec::new());
    };
    let list = list
        .as_array()
        .ok_or("attributes.system.dependencies: must be a list")?;
    list.iter()
        .enumerate()
        .map(|(i, entry)| {
            let bad = |what: String| format!("attributes.system.dependencies[{i}]: {what}");
            let entry = formats::Dependency::deserialize(entry).map_err(|e| bad(e.to_string()))?;
            match entry.requirement().map_err(|e| bad(e.to_string()))? {
                Requirement::Job(condition, target) => Ok(Dependency {
                    condition,
                    target,
                    description: entry.description(),
                }),
                _ => Err(bad(format!(
                    "dependency scheme {:?} is not supported",
                    entry.scheme
                ))),
            }
        })
        .collect()
}

/// Who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_target: HashMap<JobId, Vec<(JobId, Dependency)>>,
}

impl Waiting {
    pub(crate) fn add(&mut self, dependent: JobId, dependency: Dependency) {
        self.by_target
            .entry(dependency.target)
            .or_default()
            .push((dependent, dependency));
    }

    /// The dependents that `target`'s progress decides, and how.
    pub(crate) fn decide(
        &mut self,
        target: JobId,
        progress: Progress,
    ) -> Vec<(JobId, Dependency, Verdict)> {
        let Some(list) = self.by_target.remove(&target) else {
            return Vec::new();
        };
        let mut decided = Vec::new();
        let mut left = Vec::new();
        for (dependent, dependency) in list {
            match judge(dependency.condition, progress) {
                Verdict::Wait => left.push((dependent, dependency)),
                verdict => decided.push((dependent, dependency, verdict)),
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
        use Progress::*;
        for (condition, progress, want) in [
            (After, Waiting, Verdict::Wait),
            (After, Started, Verdict::Satisfied),
            (AfterAny, Started, Verdict::Wait),
            (AfterAny, Failed, Verdict::Satisfied),
            (AfterOk, Succeeded, Verdict::Satisfied),
            (AfterOk, Failed, Verdict::Never),
            (AfterNotOk, Failed, Verdict::Satisfied),
            (AfterNotOk, Succeeded, Verdict::Never),
        ] {
            assert_eq!(
                judge(condition, progress),
                want,
                "{condition:?} {progress:?}"
            );
        }
    }

    #[test]
    fn parsing() {
        let spec = |deps: Value| json!({"attributes": {"system": {"dependencies": deps}}});
        let good = parse(&spec(json!([{"scheme": "afterok", "value": "12"}]))).unwrap();
        assert_eq!(good[0].target, JobId(12));
        assert_eq!(good[0].description, "afterok=12");
        for bad in [
            json!({}),
            json!([{"scheme": "x", "value": "1"}]),
            json!([{"scheme": "after", "value": "!"}]),
            json!([{"value": "1"}]),
        ] {
            assert!(parse(&spec(bad.clone())).is_err(), "{bad}");
        }
        assert_eq!(parse(&json!({})).unwrap(), []);
    }

    #[test]
    fn waiting_is_decided_once() {
        let mut waiting = Waiting::default();
        let dep = |condition| Dependency {
            condition,
            target: JobId(1),
            description: String::new(),
        };
        waiting.add(JobId(2), dep(Condition::After));
        waiting.add(JobId(3), dep(Condition::AfterOk));
        assert_eq!(waiting.decide(JobId(1), Progress::Started).len(), 1);
        let rest = waiting.decide(JobId(1), Progress::Failed);
        assert_eq!((rest[0].0, rest[0].2), (JobId(3), Verdict::Never));
        assert!(waiting.decide(JobId(1), Progress::Failed).is_empty());
    }
}
