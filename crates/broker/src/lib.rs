//! The message broker: routing, services of its own, module hosting, boot and shutdown.
//!
//! Purpose: one process per rank that joins the overlay, serves local clients over a UNIX socket
//! and hosts modules as tasks. What the modules do is unknown here; a program links them in by
//! passing a table of [`host::ModuleSpec`] to [`run::run`].
//!
//! Invariants: one task ([`router`]) owns all routing state; another ([`core`]) owns the broker's
//! own services and life cycle; both are driven by messages only. Governing: RFC 3, 5, 6, 12.

mod access;
pub mod attrs;
mod boot;
mod child;
pub mod config;
mod connector;
mod core;
mod directory;
pub mod host;
mod log;
mod program;
mod rc;
mod resident;
mod router;
pub mod run;
mod state;
mod systemd;

pub use router::switch;
