//! Why a transaction fails.

use client::RpcError;
use content::BlobRef;

/// Why a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the root directory cannot be replaced")]
    Root,
    #[error("key `{0}` is empty")]
    EmptyKey(String),
    #[error("only a value can be appended: {0}")]
    AppendType(&'static str),
    #[error("`{0}` is a directory and cannot be appended to")]
    AppendDir(String),
    #[error("`{0}` is a symbolic link and cannot be appended to")]
    AppendLink(String),
    #[error("value of `{0}` is not base64")]
    Base64(String),
    #[error("`{0}` leads through a link into another namespace")]
    CrossNamespace(String),
    #[error("`{0}` leads through too many symbolic links")]
    Loop(String),
    #[error("stored object {0} is damaged: it should be a directory")]
    Damaged(BlobRef),
}

impl Error {
    /// The errno a requester sees.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Root | Error::EmptyKey(_) | Error::CrossNamespace(_) => libc::EINVAL,
            Error::AppendType(_) | Error::Base64(_) => libc::EPROTO,
            Error::AppendDir(_) => libc::EISDIR,
            Error::AppendLink(_) => libc::EOPNOTSUPP,
            Error::Loop(_) => libc::ELOOP,
            Error::Damaged(_) => libc::ENOTRECOVERABLE,
        }
    }
}

impl From<Error> for RpcError {
    fn from(e: Error) -> RpcError {
        RpcError::explained(e.errno(), e)
    }
}
