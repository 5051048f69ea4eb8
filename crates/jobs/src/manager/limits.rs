//! How large and how long jobs may be: `policy.limits` of all queues and of one (RFC 33).

use formats::fsd;
use formats::jobspec::Jobspec;
use formats::queues::{Bound, Limits, Queues};
use serde_json::Value;

use super::Manager;
use super::jobtap::Builtin;

impl Manager {
    /// Why a job is not allowed, if it is not: by the limits, and by the end of the instance. Checks whose plugins were removed
    /// are not made.
    pub(super) fn check_limits(&self, jobspec: &Value) -> Result<(), String> {
        let has = |builtin| self.taps.has(builtin);
        let which = Which {
            sizes: has(Builtin::LimitJobSize),
            duration: has(Builtin::LimitDuration),
        };
        check(self.queues.config(), jobspec, which)?;
        match has(Builtin::ValidateDuration) {
            true => self.check_lifetime(jobspec),
            false => Ok(()),
        }
    }
}

/// Which limits count.
#[derive(Clone, Copy)]
struct Which {
    sizes: bool,
    duration: bool,
}

/// Why a job is not allowed, if it is not.
fn check(queues: &Queues, jobspec: &Value, which: Which) -> Result<(), String> {
    let system = |key| {
        jobspec
            .pointer("/attributes/system")
            .and_then(|s| s.get(key))
    };
    let queue = system("queue").and_then(Value::as_str);
    let mut limits = queues.policy(queue).limits;
    if !which.sizes {
        (limits.max, limits.min) = Default::default();
    }
    if !which.duration {
        limits.duration = None;
    }
    if limits == Limits::default() {
        return Ok(());
    }
    let of = queue.map_or_else(String::new, |name| format!(" for queue {name}"));
    let duration = system("duration").and_then(Value::as_f64).unwrap_or(0.);
    let jobspec = Jobspec::from_value(jobspec.clone()).map_err(|e| e.to_string())?;
    let counts = jobspec.resource_counts().map_err(|e| e.to_string())?;
    let (max, min) = (limits.max, limits.min);
    let sizes = [
        ("nnodes", counts.nnodes, max.nnodes, min.nnodes),
        (
            "ncores",
            counts.nslots.saturating_mul(counts.slot_size),
            max.ncores,
            min.ncores,
        ),
        (
            "ngpus",
            counts.nslots.saturating_mul(counts.slot_gpus),
            max.ngpus,
            min.ngpus,
        ),
    ];
    for (what, asked, max, min) in sizes {
        match (max, min) {
            (Some(Bound::At(max)), _) if asked > max => {
                return Err(format!(
                    "requested {what} ({asked}) exceeds policy limit of {max}{of}"
                ));
            }
            (_, Some(Bound::At(min))) if asked < min => {
                return Err(format!(
                    "requested {what} ({asked}) is under policy limit of {min}{of}"
                ));
            }
            _ => {}
        }
    }
    check_duration(limits.duration, duration, &of)
}

/// A duration of 0, of a job or as limit, is unlimited.
fn check_duration(limit: Option<f64>, asked: f64, of: &str) -> Result<(), String> {
    let Some(limit) = limit.filter(|limit| *limit > 0. && limit.is_finite()) else {
        return Ok(());
    };
    let shown = match asked {
        0. => "unlimited".to_owned(),
        asked if asked > limit => fsd::format(asked),
        _ => return Ok(()),
    };
    let limit = fsd::format(limit);
    Err(format!(
        "requested duration ({shown}) exceeds policy limit of {limit}{of}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ALL: Which = Which {
        sizes: true,
        duration: true,
    };

    fn jobspec(nodes: u32, cores: u32, gpus: u32, system: Value) -> Value {
        let slot = json!({"type": "slot", "count": 1, "label": "task", "with": [
            {"type": "core", "count": cores}, {"type": "gpu", "count": gpus}]});
        json!({"version": 1,
            "resources": [{"type": "node", "count": nodes, "with": [slot]}],
            "tasks": [{"command": ["x"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": system}})
    }

    fn refusal(jobspec: &Value) -> Option<String> {
        let config = json!({
            "policy": {"limits": {"duration": "1h", "job-size": {
                "max": {"nnodes": 4, "ngpus": 2}, "min": {"ncores": 2}}}},
            "queues": {"debug": {"policy": {"limits": {"duration": "1m", "job-size": {
                "max": {"ngpus": -1}, "min": {"ncores": 0}}}}}, "long": {"policy": {"limits": {"duration": "0"}}}},
        });
        check(&Queues::from_config(&config).unwrap(), jobspec, ALL).err()
    }

    #[test]
    fn sizes() {
        let any = || json!({"duration": 1.});
        let debug = || json!({"duration": 1., "queue": "debug"});
        for (jobspec, want) in [
            (jobspec(4, 2, 0, any()), None),
            (
                jobspec(5, 2, 0, any()),
                Some("requested nnodes (5) exceeds policy limit of 4"),
            ),
            (
                jobspec(1, 2, 3, any()),
                Some("requested ngpus (3) exceeds policy limit of 2"),
            ),
            (
                jobspec(1, 1, 0, any()),
                Some("requested ncores (1) is under policy limit of 2"),
            ),
            (jobspec(1, 1, 9, debug()), None),
            (
                jobspec(5, 1, 9, debug()),
                Some("requested nnodes (5) exceeds policy limit of 4 for queue debug"),
            ),
        ] {
            assert_eq!(refusal(&jobspec).as_deref(), want);
        }
    }

    #[test]
    fn durations() {
        let of = |duration: f64, queue: Option<&str>| {
            let mut system = json!({ "duration": duration });
            if let Some(queue) = queue {
                system["queue"] = queue.into();
            }
            refusal(&jobspec(1, 2, 0, system))
        };
        assert_eq!(of(3600., None), None);
        assert_eq!(
            of(7200., None).unwrap(),
            "requested duration (2h) exceeds policy limit of 1h"
        );
        assert_eq!(
            of(0., Some("debug")).unwrap(),
            "requested duration (unlimited) exceeds policy limit of 1m for queue debug"
        );
        assert_eq!(of(0., Some("long")), None);
    }

    #[test]
    fn without_limits_nothing_is_read() {
        assert_eq!(check(&Queues::default(), &Value::Null, ALL), Ok(()));
    }
}
