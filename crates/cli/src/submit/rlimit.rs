//! Resource limits a job gets: the submitter's soft limits, changed by the rules of `--rlimit`.

use nix::libc::RLIM_INFINITY;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Map, Value, json};

use crate::error::Failure;
use crate::submit::pattern::Pattern;

/// All limits by the names the job shell knows, in the order of their numbers.
const LIMITS: [(&str, Resource); 16] = [
    ("cpu", Resource::RLIMIT_CPU),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("data", Resource::RLIMIT_DATA),
    ("stack", Resource::RLIMIT_STACK),
    ("core", Resource::RLIMIT_CORE),
    ("rss", Resource::RLIMIT_RSS),
    ("nproc", Resource::RLIMIT_NPROC),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("as", Resource::RLIMIT_AS),
    ("locks", Resource::RLIMIT_LOCKS),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
];

/// Limits that are not passed on unless asked for: they belong to a host, not to a user's wish.
const LOCAL: [&str; 7] = [
    "memlock",
    "locks",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
    "sigpending",
];

/// A soft limit of this process; -1 is unlimited.
fn current(resource: Resource) -> i64 {
    match getrlimit(resource) {
        Ok((soft, _)) if soft != RLIM_INFINITY => i64::try_from(soft).unwrap_or(-1),
        _ => -1,
    }
}

/// The limits after applying the rules of all `--rlimit` options.
pub(super) fn filter(options: &[String]) -> Result<Map<String, Value>, Failure> {
    filter_from(options, current)
}

fn filter_from(
    options: &[String],
    current: impl Fn(Resource) -> i64,
) -> Result<Map<String, Value>, Failure> {
    let mut limits = Map::new();
    for (name, resource) in LIMITS {
        if !LOCAL.contains(&name) {
            limits.insert(name.to_owned(), json!(current(resource)));
        }
    }
    for rule in options.iter().flat_map(|o| o.split(',')) {
        if let Some(pattern) = rule.strip_prefix('-') {
            let pattern = Pattern::new(&pattern.to_lowercase())?;
            limits.retain(|name, _| !pattern.matches(name));
            continue;
        }
        let Some((name, value)) = rule.split_once('=') else {
            let pattern = Pattern::new(&rule.to_lowercase())?;
            let mut known = LIMITS
                .iter()
                .filter(|(name, _)| pattern.matches(name))
                .peekable();
            if known.peek().is_none() {
                return Err(Failure::new(format!(
                    "No corresponding rlimit matching \"{rule}\""
                )));
            }
            for (name, resource) in known {
                limits.insert((*name).to_owned(), json!(current(*resource)));
            }
            continue;
        };
        let name = name.to_lowercase();
        if !LIMITS.iter().any(|(known, _)| *known == name) {
            return Err(Failure::new(format!("Invalid rlimit \"{name}\"")));
        }
        let number = match value {
            "unlimited" | "infinity" | "inf" => -1,
            text => text
                .parse()
                .map_err(|_| Failure::new(format!("Invalid value in {name}={value}")))?,
        };
        limits.insert(name, json!(number));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let run = |rules: &[&str]| {
            let rules: Vec<String> = rules.iter().map(|r| (*r).to_owned()).collect();
            filter_from(&rules, |resource| resource as i64)
                .map(Value::Object)
                .map_err(|e| e.message)
        };
        let names = |value: Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(run(&[]).unwrap()),
            [
                "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "as"
            ]
        );
        assert_eq!(
            run(&["-*,core=16", "nice"]),
            Ok(json!({"core": 16, "nice": 13}))
        );
        assert_eq!(run(&["-*", "core=inf"]), Ok(json!({"core": -1})));
        assert_eq!(
            run(&["x"]).unwrap_err(),
            "No corresponding rlimit matching \"x\""
        );
        assert_eq!(run(&["x=1"]).unwrap_err(), "Invalid rlimit \"x\"");
        assert_eq!(run(&["core=y"]).unwrap_err(), "Invalid value in core=y");
    }
}
