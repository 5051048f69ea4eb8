//! Plugins of the job manager.

mod abi;
mod author;
#[cfg(feature = "host")]
pub(crate) mod table;

pub use abi::{CURRENT, Jobtap, KIND};
pub use author::Job;
#[cfg(feature = "host")]
pub use table::EXTENSION;
