//! The job modules of the broker.
//!
//! [`info`]: what the KVS has of one job; [`list`]: which jobs there are.

pub mod info;
pub mod list;
