//! The error a remote procedure call can end with (RFC 6): a POSIX errno and, often, a text.

use std::fmt;

use crate::errno::strerror;

/// Failure of an RPC: the errno of the response and the human-readable text it carried, if any.
///
/// ```
/// use wire::RpcError;
///
/// let error = RpcError::new(libc::EPERM, "only the owner may do this");
/// assert_eq!((error.errno, error.to_string().as_str()), (1, "only the owner may do this"));
/// assert_eq!(RpcError::errno(libc::ENOSYS).to_string(), "Function not implemented");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// POSIX error number, never 0.
    pub errno: i32,
    /// Text that says what was wrong; without it the errno's own text is shown.
    pub message: Option<String>,
}

impl RpcError {
    /// An error with `errno` and a text for people.
    pub fn new(errno: i32, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: Some(message.into()),
        }
    }

    /// An error that has no more to say than its number.
    pub fn errno(errno: i32) -> Self {
        Self {
            errno,
            message: None,
        }
    }

    /// An error whose text starts with the system's words for `errno`, which those look for who know other programs'
    /// output, and goes on with the reason.
    ///
    /// ```
    /// let error = wire::RpcError::explained(libc::EPERM, "guests may not do this");
    /// assert_eq!(error.to_string(), "Operation not permitted: guests may not do this");
    /// ```
    pub fn explained(errno: i32, reason: impl fmt::Display) -> Self {
        Self::new(errno, format!("{}: {reason}", strerror(errno)))
    }

    /// The payload did not have the shape the method asks for.
    pub fn proto(message: impl Into<String>) -> Self {
        Self::new(libc::EPROTO, message)
    }

    /// The payload of a request for `topic` is not what it has to be. Clients know the first words.
    pub fn malformed(topic: &str, why: impl fmt::Display) -> Self {
        Self::explained(libc::EPROTO, format!("{topic}: payload: {why}"))
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(text) => f.write_str(text),
            None => f.write_str(&strerror(self.errno)),
        }
    }
}

impl std::error::Error for RpcError {}

impl From<serde_json::Error> for RpcError {
    fn from(e: serde_json::Error) -> Self {
        Self::proto(format!("payload: {e}"))
    }
}

impl From<std::io::Error> for RpcError {
    fn from(e: std::io::Error) -> Self {
        Self {
            errno: e.raw_os_error().unwrap_or(libc::EIO),
            message: Some(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_its_text_or_that_of_its_number() {
        assert_eq!(RpcError::new(1, "no way").to_string(), "no way");
        assert_eq!(RpcError::errno(1).to_string(), "Operation not permitted");
        let io = std::io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(RpcError::from(io).errno, libc::ENOENT);
        let json = serde_json::from_str::<u8>("x").unwrap_err();
        assert_eq!(RpcError::from(json).errno, libc::EPROTO);
    }
}
