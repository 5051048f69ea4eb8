//! The error a remote procedure call can end with (RFC 6): a POSIX errno and, often, a text.

use std::ffi::CStr;
use std::fmt;

/// Failure of an RPC: the errno of the response and the human-readable text it carried, if any.
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

    /// The payload did not have the shape the method asks for.
    pub fn proto(message: impl Into<String>) -> Self {
        Self::new(libc::EPROTO, message)
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

/// The C library's text for `errno`, e.g. `No such file or directory`.
pub fn strerror(errno: i32) -> String {
    let mut buf = [0 as libc::c_char; 128];
    // SAFETY: buf is writable for its stated length and NUL-terminated on success.
    let rc = unsafe { libc::strerror_r(errno, buf.as_mut_ptr(), buf.len()) };
    if rc != 0 {
        return format!("Unknown error {errno}");
    }
    // SAFETY: strerror_r succeeded, so buf holds a NUL-terminated string.
    unsafe { CStr::from_ptr(buf.as_ptr()) }
        .to_string_lossy()
        .into_owned()
}

/// Symbolic name of the errno values our services answer with, for logs.
pub fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ENOSYS => "ENOSYS",
        libc::EINVAL => "EINVAL",
        libc::EPROTO => "EPROTO",
        libc::EEXIST => "EEXIST",
        libc::ENODATA => "ENODATA",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNRESET => "ECONNRESET",
        libc::EOVERFLOW => "EOVERFLOW",
        _ => "errno",
    }
}
