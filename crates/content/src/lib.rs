//! Content-addressed storage (RFC 10): blobs are stored under the digest of what they hold.
//!
//! [`BlobRef`] names a blob. [`backing`] keeps blobs and KVS checkpoints on rank 0, behind one
//! trait with one contract test suite. [`cache`] is the bounded in-memory cache each rank has.
//! [`module`] is the broker module `content` that ties them together.

#[cfg(feature = "module")]
pub mod backing;
#[cfg(feature = "module")]
pub mod batch;
mod blobref;
#[cfg(feature = "module")]
pub mod cache;
#[cfg(feature = "module")]
pub mod module;

pub use blobref::{BlobRef, HashAlg, ParseBlobRefError};
