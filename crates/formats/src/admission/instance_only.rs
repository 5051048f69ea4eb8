//! The validator `require-instance`: jobs from a size on must be instances of their own, so that their work does not
//! load this one.

use crate::jobspec::Jobspec;
use serde::Deserialize;
use serde_json::Value;

/// The size from which jobs are refused that are not instances: in nodes or in cores, unless that is 0; all jobs, if
/// both are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minimum {
    #[serde(default, rename = "minnodes")]
    /// From this many nodes on.
    pub nodes: u32,
    #[serde(default, rename = "mincores")]
    /// From this many cores on.
    pub cores: u32,
}

/// Cores that stand for a node when only nodes are limited: a job that asks for cores alone would not be seen.
const CORES_OF_NODE: u32 = 16;

impl Minimum {
    /// What was configured, complete.
    pub fn complete(self) -> Self {
        let cores = match self {
            Minimum {
                nodes: 1..,
                cores: 0,
            } => self.nodes.saturating_mul(CORES_OF_NODE),
            _ => self.cores,
        };
        Self { cores, ..self }
    }

    /// Why a job is refused, if it is.
    pub fn check(self, jobspec: &Value) -> Result<(), String> {
        if is_instance(jobspec) || !self.applies(jobspec) {
            return Ok(());
        }
        let bounds = [(self.nodes, "nodes"), (self.cores, "cores")];
        let bounds = bounds.iter().filter(|(n, _)| *n > 0);
        let bounds: Vec<_> = bounds.map(|(n, what)| format!("{n} {what}")).collect();
        let which = match bounds.is_empty() {
            true => "for all jobs in this instance".to_owned(),
            false => format!("for jobs >= {}", bounds.join(" or ")),
        };
        Err(format!(
            "Direct job submission disabled {which}. Please use flux-batch(1) or flux-alloc(1)"
        ))
    }

    fn applies(self, jobspec: &Value) -> bool {
        let parsed = Jobspec::from_value(jobspec.clone()).ok();
        let Some(counts) = parsed.and_then(|jobspec| jobspec.resource_counts().ok()) else {
            return true;
        };
        let cores = counts.nslots.saturating_mul(counts.slot_size);
        let reaches = |count, bound| bound > 0 && count >= bound;
        self == Self::default() || reaches(counts.nnodes, self.nodes) || reaches(cores, self.cores)
    }
}

/// Whether a job is an instance: a batch script, or a command that starts one.
fn is_instance(jobspec: &Value) -> bool {
    if jobspec.pointer("/attributes/system/batch").is_some() {
        return true;
    }
    let word = |i: usize| {
        let path = format!("/tasks/0/command/{i}");
        jobspec.pointer(&path).and_then(Value::as_str)
    };
    let is_flux = word(0).is_some_and(|path| path.rsplit('/').next() == Some("flux"));
    is_flux && matches!(word(1), Some("broker" | "start"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobspecBuilder;

    fn job(command: &[&str], nodes: Option<u32>, slots: u32) -> Value {
        let builder = JobspecBuilder::new(command.iter().copied());
        let builder = builder.slots(slots, 1, 0, nodes, false);
        serde_json::to_value(builder.build().unwrap()).unwrap()
    }

    #[test]
    fn instances_are_of_any_size() {
        let all = Minimum::default();
        assert_eq!(
            all.check(&job(&["/usr/bin/flux", "start"], None, 1)),
            Ok(())
        );
        assert_eq!(all.check(&job(&["flux", "broker"], None, 1)), Ok(()));
        let why = all.check(&job(&["flux", "getattr"], None, 1)).unwrap_err();
        assert!(why.contains("for all jobs"), "{why}");
        let mut batch = job(&["sh"], None, 1);
        batch["attributes"]["system"]["batch"] = serde_json::json!({});
        assert_eq!(all.check(&batch), Ok(()));
    }

    #[test]
    fn others_are_small() {
        let minimum = Minimum { nodes: 2, cores: 4 };
        assert_eq!(minimum.check(&job(&["a"], Some(1), 1)), Ok(()));
        assert_eq!(minimum.check(&job(&["a"], None, 2)), Ok(()));
        for big in [job(&["a"], Some(4), 4), job(&["a"], None, 4)] {
            let why = minimum.check(&big).unwrap_err();
            assert!(why.contains("for jobs >= 2 nodes or 4 cores."), "{why}");
        }
        let nodes = Minimum { nodes: 2, cores: 0 }.complete();
        assert_eq!(nodes.check(&job(&["a"], None, 31)), Ok(()));
        assert!(nodes.check(&job(&["a"], None, 32)).is_err());
    }
}
