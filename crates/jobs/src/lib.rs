//! The job services: ingest, manager, exec, info, list.
//!
//! A job goes from [`ingest`] (validation, its first record in the KVS) to [`manager`] (states and
//! events, RFC 21) to the scheduler (RFC 27) to [`exec`] (RFC 32), which runs job shells. Its
//! primary eventlog is the truth; [`info`] and [`list`] are views of it.

mod access;
pub mod exec;
pub mod info;
pub mod ingest;
pub mod list;
pub mod manager;
mod record;
mod rexec;

use formats::jobid::JobId;

/// A job id for people: in the locale of the instance.
fn shown(id: JobId) -> String {
    id.f58_in(|name| std::env::var(name).ok())
}
