//! Where a job's record is in the key-value store, RFC 16.

use crate::JobId;
use std::fmt;

/// What is stored of a job, below its directory in the primary namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKey<'a> {
    /// The signed request, RFC 15.
    J,
    /// The jobspec, RFC 14.
    Jobspec,
    /// The primary eventlog, RFC 21.
    Eventlog,
    /// The allocated resources, RFC 20.
    R,
    /// The guest namespace while the job runs, afterwards what it held.
    Guest,
    /// A key of the guest namespace, such as [`EXEC_EVENTLOG`].
    InGuest(&'a str),
    /// Data of a service of that name.
    Data(&'a str),
}

/// The execution eventlog (RFC 50), in the guest namespace.
pub const EXEC_EVENTLOG: &str = "exec.eventlog";

impl fmt::Display for JobKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobKey::J => f.write_str("J"),
            JobKey::Jobspec => f.write_str("jobspec"),
            JobKey::Eventlog => f.write_str("eventlog"),
            JobKey::R => f.write_str("R"),
            JobKey::Guest => f.write_str("guest"),
            JobKey::InGuest(key) => write!(f, "guest.{key}"),
            JobKey::Data(service) => write!(f, "data.{service}"),
        }
    }
}

impl JobId {
    /// The key in the primary namespace.
    ///
    /// ```
    /// use formats::{JobId, job_schema::JobKey};
    /// assert_eq!(JobId(1).key(JobKey::R), "job.0000.0000.0000.0001.R");
    /// ```
    pub fn key(self, key: JobKey) -> String {
        format!("{}.{key}", self.kvs_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_rfc() {
        let keys = [
            (JobKey::J, "J"),
            (JobKey::Jobspec, "jobspec"),
            (JobKey::Eventlog, "eventlog"),
            (JobKey::R, "R"),
            (JobKey::Guest, "guest"),
            (JobKey::InGuest(EXEC_EVENTLOG), "guest.exec.eventlog"),
            (JobKey::Data("trace"), "data.trace"),
        ];
        for (key, text) in keys {
            assert_eq!(key.to_string(), text);
            assert!(JobId(7).key(key).ends_with(&format!(".0007.{text}")));
        }
    }
}
