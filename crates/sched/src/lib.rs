//! Schedulers: what all of them share, and the simple first-come-first-served scheduler.
//!
//! [`acquire`] and [`manager`] are the two sides every scheduler has, towards resources (RFC 28) and jobs (RFC 27).
//! [`pool`] is the simple scheduler's core, without I/O; [`simple`] is the broker module.

pub mod acquire;
pub mod manager;
pub mod pool;
pub mod simple;
