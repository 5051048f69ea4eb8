//! Snapshots of the key-value store: reading a tree blob by blob, making one, and archives of keys and values.
//!
//! [`Walk`] and [`Tree`] are cores without messages: what they lack they ask for. [`archive`] knows readers and
//! writers only. [`Content`] is where blobs are, [`visit`] a walk through them with many loads under way.
//! Governing: RFC 10, 11; the archives are those of flux-dump(1).

pub(crate) mod archive;
pub(crate) mod compression;
mod content;
mod progress;
mod tree;
mod walk;

pub(crate) use content::{Checkpoint, Content, Way, kvs_is_running, visit};
pub(crate) use progress::{Manner, Progress};
pub(crate) use tree::{Clash, Node, Tree};
pub(crate) use walk::{Fault, Found, Walk, What};

#[cfg(test)]
mod tests;
