//! The RFC data formats of Ferroflux as plain types.
//!
//! Everything here is a value: no I/O, no clock, no async. Each module parses one format into a
//! validated type and writes it back, so the rest of the tree never handles the raw text twice.

#![warn(missing_docs)]

pub mod admission;
pub mod archive;
pub mod batch_directives;
pub mod constraint;
pub mod count;
pub mod dependency;
mod event_enum;
pub mod eventlog;
pub mod exec_event;
pub mod fsd;
pub mod hostlist;
pub mod idset;
pub mod iodata;
pub mod job;
pub mod job_event;
pub mod job_schema;
pub mod jobid;
pub mod jobspec;
pub mod proctable;
pub mod queues;
pub mod resource_event;
pub mod resource_set;
pub mod shape;
pub mod shared_shell;
pub mod signals;
pub mod signed;
pub mod size;
pub mod subprocess;
pub mod survivor;
pub mod taskmap;
pub mod urgency;
pub mod yaml;

pub use constraint::Constraint;
pub use count::Count;
pub use dependency::Dependency;
pub use eventlog::Event;
pub use hostlist::Hostlist;
pub use idset::Idset;
pub use iodata::IoData;
pub use job::{JobResult, JobState};
pub use jobid::JobId;
pub use jobspec::{Jobspec, JobspecBuilder};
pub use resource_set::ResourceSet;
pub use taskmap::Taskmap;
pub use urgency::Urgency;
