//! Schedulers: the RFC 27 side shared by all, and the simple first-come-first-served scheduler.
//!
//! [`pool`] is the simple scheduler's core, without I/O; [`simple`] is the broker module.

pub mod pool;
pub mod simple;
