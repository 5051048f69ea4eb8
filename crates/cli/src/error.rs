//! Why a command failed: one line for the user and the exit code.

use wire::RpcError;

/// A command's end without success. An empty message says that all was said already.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: u8,
}

/// A command's end: its exit code, or why it failed.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// Exit code 1 with a message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
        }
    }

    /// Another exit code.
    pub(crate) fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

/// What an RPC error says, without the errno's number.
pub(crate) fn rpc_text(err: &RpcError) -> String {
    match &err.message {
        Some(text) => text.clone(),
        None => strerror(err.errno),
    }
}

/// The system's text for an errno.
pub(crate) fn strerror(errno: i32) -> String {
    wire::strerror(errno).into_owned()
}

impl From<RpcError> for Failure {
    fn from(err: RpcError) -> Self {
        Self::new(rpc_text(&err))
    }
}

impl From<client::OpenError> for Failure {
    fn from(err: client::OpenError) -> Self {
        // Scripts look for the first word.
        Self::new(format!("flux_open: {err}"))
    }
}

impl From<filemap::Error> for Failure {
    fn from(err: filemap::Error) -> Self {
        Self::new(err.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(err: std::io::Error) -> Self {
        Self::new(err.to_string())
    }
}

/// Puts what was being done before an error's own text.
pub(crate) trait Context<T> {
    fn context(self, what: impl std::fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, what: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| {
            let failure: Failure = e.into();
            Failure {
                message: format!("{what}: {}", failure.message),
                code: failure.code,
            }
        })
    }
}
