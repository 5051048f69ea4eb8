//! The fields of jobs: their headings, and the attributes they need.

use crate::format::Headings;

/// Field, heading, and the attributes to ask `job-list` for.
#[rustfmt::skip]
const FIELDS: &[(&str, &str, &[&str])] = &[
    ("id", "JOBID", &[]),
    ("id.dec", "JOBID", &[]),
    ("id.hex", "JOBID", &[]),
    ("id.f58", "JOBID", &[]),
    ("id.f58plain", "JOBID", &[]),
    ("id.emoji", "JOBID", &[]),
    ("id.kvs", "JOBID", &[]),
    ("id.words", "JOBID", &[]),
    ("id.dothex", "JOBID", &[]),
    ("userid", "UID", &["userid"]),
    ("username", "USER", &["userid"]),
    ("urgency", "URG", &["urgency"]),
    ("priority", "PRI", &["priority"]),
    ("state", "STATE", &["state"]),
    ("state_single", "S", &["state"]),
    ("state_emoji", "STATE", &["state"]),
    ("name", "NAME", &["name"]),
    ("cwd", "CWD", &["cwd"]),
    ("queue", "QUEUE", &["queue"]),
    ("project", "PROJECT", &["project"]),
    ("bank", "BANK", &["bank"]),
    ("ntasks", "NTASKS", &["ntasks"]),
    ("ncores", "NCORES", &["ncores"]),
    ("duration", "DURATION", &["duration"]),
    ("nnodes", "NNODES", &["nnodes"]),
    ("expiration", "EXPIRATION", &["expiration", "state", "result"]),
    ("t_remaining", "T_REMAINING", &["expiration", "state", "result"]),
    ("ranks", "RANKS", &["ranks"]),
    ("nodelist", "NODELIST", &["nodelist"]),
    ("success", "SUCCESS", &["success"]),
    ("result", "RESULT", &["result"]),
    ("result_abbrev", "RS", &["result"]),
    ("result_emoji", "RESULT", &["result"]),
    ("t_submit", "T_SUBMIT", &["t_submit"]),
    ("t_depend", "T_DEPEND", &["t_depend"]),
    ("t_priority", "T_PRIORITY", &["t_priority"]),
    ("t_sched", "T_SCHED", &["t_sched"]),
    ("t_run", "T_RUN", &["t_run"]),
    ("t_cleanup", "T_CLEANUP", &["t_cleanup"]),
    ("t_inactive", "T_INACTIVE", &["t_inactive"]),
    ("runtime", "RUNTIME", &["t_run", "t_cleanup"]),
    ("status", "STATUS", &["state", "result"]),
    ("status_abbrev", "ST", &["state", "result"]),
    ("status_emoji", "STATUS", &["state", "result"]),
    ("waitstatus", "WSTATUS", &["waitstatus"]),
    ("returncode", "RC", &["waitstatus", "result"]),
    ("exception.occurred", "EXCEPTION-OCCURRED", &["exception_occurred"]),
    ("exception.severity", "EXCEPTION-SEVERITY", &["exception_severity"]),
    ("exception.type", "EXCEPTION-TYPE", &["exception_type"]),
    ("exception.note", "EXCEPTION-NOTE", &["exception_note"]),
    ("annotations", "ANNOTATIONS", &["annotations"]),
    ("dependencies", "DEPENDENCIES", &["dependencies"]),
    ("contextual_info", "INFO", &["state", "dependencies", "annotations", "nodelist", "priority", "urgency"]),
    ("contextual_time", "TIME", &["state", "t_run", "t_cleanup", "duration"]),
    ("inactive_reason", "INACTIVE-REASON", &["state", "result", "waitstatus", "exception_occurred", "exception_severity", "exception_type", "exception_note"]),
    ("annotations.sched.t_estimate", "T_ESTIMATE", &["annotations"]),
    ("annotations.sched.reason_pending", "REASON", &["annotations"]),
    ("annotations.sched.resource_summary", "RESOURCES", &["annotations"]),
    ("sched", "SCHED", &["annotations"]),
    ("sched.t_estimate", "T_ESTIMATE", &["annotations"]),
    ("sched.reason_pending", "REASON", &["annotations"]),
    ("sched.resource_summary", "RESOURCES", &["annotations"]),
    ("user", "USER", &["annotations"]),
    ("uri", "URI", &["annotations"]),
    ("uri.local", "URI", &["annotations"]),
    ("instance.stats.total", "NJOBS", INSTANCE),
    ("instance.utilization", "CORE%", INSTANCE),
    ("instance.gpu_utilization", "GPU%", INSTANCE),
    ("instance.progress", "PROG", INSTANCE),
    ("instance.resources.all.ncores", "CORES", INSTANCE),
    ("instance.resources.all.ngpus", "GPUS", INSTANCE),
    ("instance.resources.all.nnodes", "NODES", INSTANCE),
    ("instance.resources.up.ncores", "UP", INSTANCE),
    ("instance.resources.up.ngpus", "UP", INSTANCE),
    ("instance.resources.up.nnodes", "UP", INSTANCE),
    ("instance.resources.down.ncores", "DOWN", INSTANCE),
    ("instance.resources.down.ngpus", "DOWN", INSTANCE),
    ("instance.resources.down.nnodes", "DOWN", INSTANCE),
    ("instance.resources.allocated.ncores", "USED", INSTANCE),
    ("instance.resources.allocated.ngpus", "USED", INSTANCE),
    ("instance.resources.allocated.nnodes", "USED", INSTANCE),
    ("instance.resources.free.ncores", "FREE", INSTANCE),
    ("instance.resources.free.ngpus", "FREE", INSTANCE),
    ("instance.resources.free.nnodes", "FREE", INSTANCE),
];

const INSTANCE: &[&str] = &["annotations", "state", "result"];

/// The fields of jobs and their headings.
pub(crate) struct JobHeadings;

/// The one [`JobHeadings`].
pub(crate) const HEADINGS: &JobHeadings = &JobHeadings;

impl Headings for JobHeadings {
    fn heading(&self, field: &str) -> Option<String> {
        if let Some((_, heading, _)) = FIELDS.iter().find(|f| f.0 == field) {
            return Some((*heading).to_owned());
        }
        if let Some(rest) = field.strip_prefix("annotations.") {
            return Some(rest.to_uppercase());
        }
        if let Some(rest) = field.strip_prefix("instance.") {
            let rest = rest.strip_prefix("resources.").unwrap_or(rest);
            return Some(rest.to_uppercase());
        }
        let nested = field.starts_with("sched.") || field.starts_with("user.");
        nested.then(|| field.to_uppercase())
    }
}

/// The attributes needed for these fields.
pub(crate) fn attributes(fields: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for field in fields {
        let known = FIELDS.iter().find(|f| f.0 == *field);
        let attrs = match known {
            Some((_, _, attrs)) => attrs,
            None if field.starts_with("instance.") => INSTANCE,
            None => &["annotations"][..],
        };
        for attr in attrs {
            if !out.iter().any(|a| a == attr) {
                out.push((*attr).to_owned());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_and_attributes() {
        assert_eq!(
            HEADINGS.heading("annotations.user.foo").as_deref(),
            Some("USER.FOO")
        );
        assert_eq!(HEADINGS.heading("sched.foo").as_deref(), Some("SCHED.FOO"));
        assert_eq!(HEADINGS.heading("foo"), None);
        assert_eq!(
            attributes(&["status", "state", "user.foo"]),
            ["state", "result", "annotations"]
        );
    }
}
