//! Content-addressed storage (RFC 10): blobs are stored under the digest of what they hold.
//!
//! [`BlobRef`] names a blob. [`cache`] is the broker module `content`, on every rank; [`backing`] keeps blobs and KVS
//! checkpoints on rank 0, as broker modules around one trait with one contract test suite, and removes what nobody refers
//! to ([`backing::collector`]). [`many`] is how programs load many blobs at once. [`extents`] finds what of a file is worth
//! storing.

#[cfg(feature = "module")]
pub mod backing;
pub mod batch;
mod blobref;
#[cfg(feature = "module")]
pub mod cache;
pub mod extents;
pub mod many;
#[cfg(feature = "module")]
pub mod roots;

/// The key-value namespace every instance has; checkpoints are of its root.
pub const PRIMARY: &str = "primary";

pub use blobref::{BlobRef, HashAlg, ParseBlobRefError};
