//! Schedulers: what all of them share, and the two simple ones: first come, first served in priority order, and EASY backfill.
//!
//! [`acquire`] and [`manager`] are the two sides every scheduler has, towards resources (RFC 28) and jobs (RFC 27).
//! [`pool`] and `forecast` are the simple schedulers' core, without I/O; [`module`] is their broker module.

pub mod acquire;
mod forecast;
pub mod manager;
pub mod module;
pub mod pool;
mod settings;
