//! The host's side: loading plugins, shared objects or programs, and calling their handlers.
//!
//! Invariants: a plugin is called by one thread at a time; while it is, [`Services`] stands behind the functions it was
//! given, and at no other time. What it does wrong comes back as an error; a panic of the host does not cross it.

mod library;
mod plugin;
mod program;
mod services;
pub(crate) mod table;

pub use library::{Kind, kind_of};
pub use plugin::{Extension, LoadError, Plugin, Setup};
pub(crate) use plugin::{Kept, keep, lock};
pub use program::{Program, Start};
pub use services::{Failure, Services};
