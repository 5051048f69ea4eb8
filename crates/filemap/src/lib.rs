//! File archives (RFC 37) in an instance: files become entries, entries become files.
//!
//! [`pack`] reads the file system, [`Target`] writes below one directory and nowhere else, whatever an archive says.
//! [`stored`] knows where archives and the blobs of large files are: the KVS and the content service. Every rank reads
//! blobs through the caches on its way to rank 0, so that unpacking everywhere costs each broker its children's reads.

pub mod pack;
mod path;
pub mod stored;
mod target;

use std::io;

use client::RpcError;
use formats::archive::ArchiveError;

pub use path::{NoPathBelow, below};
pub use target::Target;

/// Why files could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {}", system_text(source))]
    Io { path: String, source: io::Error },
    #[error("{0}")]
    Path(#[from] NoPathBelow),
    #[error("{0}: it is none of a regular file, a directory and a symbolic link")]
    Kind(String),
    #[error("{0}: it exists already")]
    Exists(String),
    #[error("{0}: it changed while it was read")]
    Changed(String),
    #[error("{what}: {}", reason(source))]
    Rpc { what: String, source: RpcError },
    #[error("{what}: {reason}")]
    Blob { what: String, reason: String },
    #[error("{key}: {reason}")]
    Stored { key: String, reason: String },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl Error {
    fn io(path: &str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        |source| Error::Io { path, source }
    }

    fn rpc(what: impl Into<String>) -> impl FnOnce(RpcError) -> Error {
        let what = what.into();
        |source| Error::Rpc { what, source }
    }
}

fn system_text(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(errno) => wire::strerror(errno).into_owned(),
        None => e.to_string(),
    }
}

fn reason(e: &RpcError) -> String {
    match &e.message {
        Some(text) => text.clone(),
        None => wire::strerror(e.errno).into_owned(),
    }
}
