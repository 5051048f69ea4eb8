//! Traces of jobs, run through a [`Queue`](crate::queue::Queue) on a machine that is only imagined.
//!
//! A [`Trace`] comes from a text ([`swf`], [`lines`]) or is made up ([`generate`]). A [`Simulation`]
//! goes from event to event, as its caller says, and has no clock but that of its events;
//! [`Summary`] says in numbers what came of it.

mod engine;
pub mod generate;
pub mod lines;
mod summary;
pub mod swf;
mod trace;

pub use engine::{Outcome, Record, Simulation, SimulationError};
pub use summary::{Spread, Summary, bounded_slowdown};
pub use trace::{Fault, Job, Placement, Shape, Trace};
