//! Resource limits a job gets: the submitter's soft limits, changed by the rules of `--rlimit`.

use serde_json::{Map, Value, json};

use crate::error::Failure;
use crate::submit::pattern::Pattern;

/// All limits by the names the job shell knows, in the order of their numbers.
const LIMITS: [(&str, libc::__rlimit_resource_t); 16] = [
    ("cpu", libc::RLIMIT_CPU),
    ("fsize", libc::RLIMIT_FSIZE),
    ("data", libc::RLIMIT_DATA),
    ("stack", libc::RLIMIT_STACK),
    ("core", libc::RLIMIT_CORE),
    ("rss", libc::RLIMIT_RSS),
    ("nproc", libc::RLIMIT_NPROC),
    ("nofile", libc::RLIMIT_NOFILE),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("as", libc::RLIMIT_AS),
    ("locks", libc::RLIMIT_LOCKS),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
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
fn current(resource: libc::__rlimit_resource_t) -> i64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: plain system call that fills the struct it is given.
    let failed = unsafe { libc::getrlimit(resource, &mut limit) } != 0;
    if failed || limit.rlim_cur == libc::RLIM_INFINITY {
        return -1;
    }
    i64::try_from(limit.rlim_cur).unwrap_or(-1)
}

/// The limits after applying the rules of all `--rlimit` options.
pub(super) fn filter(options: &[String]) -> Result<Map<String, Value>, Failure> {
    filter_from(options, current)
}

fn filter_from(
    options: &[String],
    current: impl Fn(libc::__rlimit_resource_t) -> i64,
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
            filter_from(&rules, i64::from)
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
