//! The job shell: one process per node of a job, which runs the job's tasks there.
//!
//! The shell of the job's first node is the *leader*: it alone writes the job's eventlogs
//! (`output`, `input`, `exec.eventlog` in the job's guest KVS namespace) and offers the service
//! `<userid>-shell-<jobid>` to the outside; the others send it their output. Order of business:
//!
//! 1. [`learn`] about the job in one round of pipelined RPCs; [`startup`]: prepare environment,
//!    directory, limits and CPU binding.
//! 2. [`barrier`]: wait until the shells of all nodes are there.
//! 3. [`run`]: start the tasks, then serve events until all tasks of the job have ended.
//!
//! What a task sees is what upstream gives it: environment variables of
//! [`environment`], PMI-1 of [`pmi`], standard streams of [`output`] and [`input`] (RFC 24).

pub mod affinity;
pub mod barrier;
pub mod environment;
pub mod files;
pub mod gather;
pub mod hwloc;
pub mod info;
pub mod initrc;
pub mod input;
pub mod kvslog;
pub mod learn;
pub mod log;
pub mod options;
pub mod output;
pub mod patience;
pub mod plugins;
pub mod pmi;
pub mod pty;
pub mod queue;
pub mod remote;
pub mod rlimit;
pub mod run;
pub mod seat;
pub mod shared;
pub mod stage_in;
pub mod startup;
pub mod task;
pub mod template;

/// An error that ends the shell, and the exit code it ends with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    pub code: i32,
    pub message: String,
    /// The wait status of the task to blame, which the job's exception then carries.
    pub wait_status: Option<i32>,
}

impl Fatal {
    pub fn new(message: impl Into<String>) -> Fatal {
        Fatal {
            code: 1,
            message: message.into(),
            wait_status: None,
        }
    }
}
