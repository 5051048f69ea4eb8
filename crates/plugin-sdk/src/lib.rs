//! Plugins: shared objects that a host, such as the job manager, loads and calls.
//!
//! The interface is one of C, so that it stays the same while compilers come and go: `include/ferroflux/plugin.h` for all
//! plugins, and [`abi`], its twin; `include/ferroflux/jobtap.h` and [`jobtap`] for those of the job manager, `include/ferroflux/shell.h` and [`shell`] for those
//! of the job shell. On it stand the
//! wrapper for plugins in Rust ([`Plugin`], [`declare_plugin!`]), `include/compat` for C plugins that were written for
//! upstream, and the host's side ([`host`], feature `host`, which
//! plugins turn off).

pub mod abi;
mod args;
mod author;
#[cfg(feature = "host")]
pub mod host;
pub mod jobtap;
pub mod shell;

pub use args::Args;
pub use author::{Call, Error, Plugin, enter};
#[doc(hidden)]
pub use serde_json;
