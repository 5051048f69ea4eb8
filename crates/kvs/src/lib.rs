//! The key-value store: a hierarchy of keys over content-addressed tree objects (RFC 11).
//!
//! The cores are synchronous and know no messages: [`treeobj`] (the data), [`walk`] (reading a
//! key under a root), [`commit`] (applying transactions to a root), [`mark`] (what roots refer to),
//! [`store`] (decoded objects in memory). A core that meets a reference it does not hold says so and is run again once the
//! reference is loaded. [`client`] has the functions other programs use,
//! [`calls`] the messages they send.
//!
//! With feature `module`: the broker modules `kvs` ([`module`]) and `kvs-watch` ([`kvs_watch`]).

pub mod calls;
pub mod client;
#[cfg(feature = "module")]
pub mod commit;
pub mod flags;
mod key;
#[cfg(feature = "module")]
pub mod kvs_watch;
#[cfg(feature = "module")]
pub mod mark;
#[cfg(feature = "module")]
pub mod module;
#[cfg(feature = "module")]
pub mod namespace;
#[cfg(feature = "module")]
pub mod store;
pub mod treeobj;
mod txn;
#[cfg(feature = "module")]
pub mod walk;

pub use content::{BlobRef, HashAlg, PRIMARY, batch, many};
pub use key::normalize;
pub use treeobj::{Dir, Symlink, TreeObj};
pub use txn::{Op, Txn};
