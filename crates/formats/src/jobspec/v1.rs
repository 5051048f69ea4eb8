//! What RFC 25 allows in a jobspec of version 1, to the letter.
//!
//! Parsing a jobspec of version 1 asks only that its resources can be counted, since schedulers
//! that match graphs take more; [`Jobspec::check_v1`] is for those that take what the RFC says.

use super::{Count, Jobspec, JobspecError, Resource, TaskCount};

/// The version of jobspecs that RFC 25 does not describe.
pub(super) const CANONICAL: u32 = 9999;

impl Jobspec {
    /// Checks that the request is slots of cores and gpus, on nodes or not, for one task list.
    pub fn check_v1(&self) -> Result<(), JobspecError> {
        let [top] = &self.resources[..] else {
            return Err(fault("resources", "version 1 takes one, a node or a slot"));
        };
        match top.kind.as_str() {
            "node" => {
                vertex(top, "resources[0]")?;
                let place = "resources[0].with";
                let [below] = &top.with[..] else {
                    return Err(fault(place, "version 1 takes one slot in a node"));
                };
                if below.kind != "slot" {
                    return Err(fault(place, "version 1 takes a slot in a node"));
                }
                slot(below, "resources[0].with[0]")?;
            }
            "slot" => slot(top, "resources[0]")?,
            _ => {
                return Err(fault(
                    "resources[0].type",
                    "must be node or slot in version 1",
                ));
            }
        }
        let [task] = &self.tasks[..] else {
            return Err(fault("tasks", "version 1 takes one"));
        };
        match task.count {
            TaskCount::PerSlot(1) | TaskCount::Total(_) => Ok(()),
            TaskCount::PerSlot(_) => {
                Err(fault("tasks[0].count.per_slot", "must be 1 in version 1"))
            }
            TaskCount::PerResource { .. } => {
                Err(fault("tasks[0].count", "version 1 takes per_slot or total"))
            }
        }
    }
}

fn fault(place: &str, message: &str) -> JobspecError {
    JobspecError::new(place, message)
}

fn vertex(resource: &Resource, place: &str) -> Result<(), JobspecError> {
    let fault = |key: &str, message: &str| Err(fault(&format!("{place}{key}"), message));
    match &resource.count {
        Count::Fixed(0) => return fault(".count", "must be positive, found 0"),
        Count::Fixed(_) => {}
        _ => return fault(".count", "must be an integer in version 1"),
    }
    if resource.id.is_some() {
        return fault(".id", "has no place in version 1");
    }
    if let Some(key) = resource.extra.keys().next() {
        return fault("", &format!("unknown key '{key}'"));
    }
    if resource.exclusive.is_some() && resource.kind != "node" {
        return fault(".exclusive", "is for nodes in version 1");
    }
    Ok(())
}

fn slot(resource: &Resource, place: &str) -> Result<(), JobspecError> {
    vertex(resource, place)?;
    let with = format!("{place}.with");
    let mut seen: Vec<&str> = Vec::new();
    for (i, child) in resource.with.iter().enumerate() {
        let place = format!("{with}[{i}]");
        let kind = child.kind.as_str();
        if !["core", "gpu"].contains(&kind) || seen.contains(&kind) {
            let message = "a slot holds cores and gpus in version 1, each named once";
            return Err(fault(&format!("{place}.type"), message));
        }
        seen.push(kind);
        if kind == "gpu" && child.count == Count::Fixed(0) {
            continue;
        }
        vertex(child, &place)?;
        if !child.with.is_empty() {
            return Err(fault(&format!("{place}.with"), "has no place in version 1"));
        }
    }
    if !seen.contains(&"core") {
        return Err(fault(&with, "a slot must hold cores in version 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobspec::BuildError;
    use crate::{JobspecBuilder, shape};

    fn check(text: &str) -> String {
        let mut spec = JobspecBuilder::new(["a"]).build().unwrap();
        spec.resources = shape::parse(text, "task").unwrap();
        spec.check_v1()
            .map_or_else(|e| e.to_string(), |()| "ok".into())
    }

    #[test]
    fn versions_of_built_requests() {
        let build = |text: &str| {
            let resources = shape::parse(text, "task").unwrap();
            JobspecBuilder::new(["a"]).resources(resources).build()
        };
        let spec = build("node=2/slot{mine}/core").unwrap();
        assert_eq!((spec.version, spec.tasks[0].slot.as_str()), (1, "mine"));
        assert_eq!(build("slot/socket/core").unwrap().version, CANONICAL);
        assert_eq!(build("node/core"), Err(BuildError::NoSlot));
    }

    #[test]
    fn the_graphs_of_the_rfc() {
        for (text, want) in [
            ("slot/core", "ok"),
            ("node=2{x}/slot=4/core=2", "ok"),
            ("slot/[core=2;gpu]", "ok"),
            ("node/slot/[gpu;core]", "ok"),
            (
                "[slot{a}/core;slot{b}/core]",
                "jobspec.resources: version 1 takes one, a node or a slot",
            ),
            (
                "core",
                "jobspec.resources[0].type: must be node or slot in version 1",
            ),
            (
                "node/core",
                "jobspec.resources[0].with: version 1 takes a slot in a node",
            ),
            (
                "node",
                "jobspec.resources[0].with: version 1 takes one slot in a node",
            ),
            (
                "slot/gpu",
                "jobspec.resources[0].with: a slot must hold cores in version 1",
            ),
            (
                "slot/[core;core]",
                "jobspec.resources[0].with[1].type: a slot holds cores and gpus in version 1, each named once",
            ),
            (
                "slot/core=2-4",
                "jobspec.resources[0].with[0].count: must be an integer in version 1",
            ),
            (
                "slot/core{x}",
                "jobspec.resources[0].with[0].exclusive: is for nodes in version 1",
            ),
            (
                "slot/core/gpu",
                "jobspec.resources[0].with[0].with: has no place in version 1",
            ),
            (
                "node{k:1}/slot/core",
                "jobspec.resources[0]: unknown key 'k'",
            ),
        ] {
            assert_eq!(check(text), want, "{text}");
        }
    }
}
