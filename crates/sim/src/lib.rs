//! Whole trees of brokers in one thread, under a clock and a network of our own making.
//!
//! Purpose: the overlay's state machine ([`overlay::tree::Tree`]) and the router
//! ([`broker::switch::Switch`]) of up to thousands of brokers exchange frames through simulated
//! connections that are slow, stall, break and lose what they carry, between brokers that crash,
//! freeze, leave, come back and have clocks of their own. Programs on every broker ask, watch and
//! publish; [`check`] has what must be true of it all, by name.
//!
//! [`kvs`] does the same for the key-value store, one floor up, and [`jobs`] for the job services, one more.
//!
//! Invariant: a run is a function of its [`Plan`]; the same plan gives the same run, event by event.

mod agenda;
pub mod boot;
pub mod check;
mod exchange;
mod faults;
pub mod jobs;
pub mod kvs;
mod network;
mod node;
pub mod plan;
mod program;
mod world;

pub use check::Violation;
pub use faults::Fault;
pub use plan::{Outcome, Plan};
pub use world::run;
