//! Plugins of the job shell.

mod abi;
mod author;
#[cfg(feature = "host")]
pub(crate) mod table;

pub use abi::{KIND, Shell as Table};
pub use author::Shell;
#[cfg(feature = "host")]
pub use table::EXTENSION;
