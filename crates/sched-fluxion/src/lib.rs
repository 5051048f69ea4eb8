//! The graph scheduler as modules of the broker.
//!
//! - [`resource`], `sched-fluxion-resource`: has the graph, and everything that is decided with it.
//! - [`qmanager`], `sched-fluxion-qmanager`: the job manager's scheduler (RFC 27).
//! - [`feasibility`], `sched-fluxion-feasibility`: says whether a job could ever run.
//!
//! What decides is where the graph is: the queues ([`waiting`]) live beside the [`machine`]. The queue manager gathers what the job manager
//! tells it and sends it as one request ([`round`]); the answer has everything that came of it. While one is under way the
//! next is gathered, so under load a message carries many jobs, and no match waits for a message. Modules share nothing:
//! each may be reloaded, and what jobs hold is told again by the job manager. Clients may match, too, with one request a
//! match.

pub mod feasibility;
pub mod machine;
pub mod options;
mod perf;
pub mod qmanager;
pub mod queues;
mod r;
pub mod resource;
pub mod round;
mod source;
pub mod waiting;
