//! Errors that carry both what scripts look for and what people need.

use std::fmt::Display;

use client::RpcError;

/// An error whose text starts with the system's words for `errno`, as they stand in the output of programs that know
/// the errno alone, and goes on with the reason.
pub(crate) fn explained(errno: i32, reason: impl Display) -> RpcError {
    RpcError::new(errno, format!("{}: {reason}", wire::strerror(errno)))
}
