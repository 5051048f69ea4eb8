//! The resource service: which resources an instance has and which of them may be used
//! (RFC 20, 28, 44).
//!
//! [`discover`] looks at the local node. [`drain`], [`inventory`] and [`targets`] are cores
//! without I/O: drained targets, what is usable, and where the resource set comes from.
//! [`module`] is the broker module `resource`.

pub mod config;
pub mod discover;
pub mod drain;
pub mod inventory;
pub mod membership;
pub mod module;
pub mod targets;
