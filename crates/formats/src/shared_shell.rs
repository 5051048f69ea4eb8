//! Requests to a process that has the shells of many jobs.
//!
//! On each node there is at most one such process. Its service answers as a subprocess server (RFC 42) does, with
//! [`crate::subprocess::ExecResponse`], but a shell is named by its job.
//!
//! | method | payload | answer |
//! |---|---|---|
//! | `exec` | [`Exec`] | stream: started, output, finished; EEXIST if the job has a shell there, ENOTSUP if it needs a process |
//! | `attach` | [`Of`] | stream: attached, output, finished; ENOENT if the job has no shell there |
//! | `kill` | [`Kill`] | nothing |
//! | `retire` | nothing | empty: the process ends, having no shells; EBUSY if it has some |
//! | `wait` | [`Of`] | nothing: how the shell ended need not be kept any longer |

//!
//! A shell that ends before it had to store what it says ([`HOLD`]) hands it over: before it is finished there is output of a
//! stream for each key of the job's namespace ([`stream_of`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jobid::JobId;

/// What the service is called, and the process in `rexec`.
pub const NAME: &str = "shells";

/// What the process writes when its service is there.
pub const READY: &str = "ready\n";

/// For so long a shell keeps what it has to store, for the case that its job ends meanwhile.
pub const HOLD: Duration = Duration::from_millis(100);

const KEY: &str = "guest.";

/// The stream with what is left to append to a key of the job's namespace.
pub fn stream_of(key: &str) -> String {
    format!("{KEY}{key}")
}

/// The key that a stream is for.
pub fn key_of(stream: &str) -> Option<&str> {
    stream.strip_prefix(KEY)
}

/// Request of `exec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The job.
    pub id: JobId,
    /// What it was allocated (RFC 20).
    #[serde(rename = "R")]
    pub r: Value,
}

/// About the shell of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    /// The job.
    pub id: JobId,
}

/// Request of `kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// The job.
    pub id: JobId,
    /// Signal number.
    pub signum: i32,
}
