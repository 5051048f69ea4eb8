//! What a broker module is given: a handle, its requests and events, its arguments.

use std::future::Future;
use std::pin::Pin;

use crate::{Handle, Inbox};

/// Everything a module starts with.
pub struct Context {
    /// The module's handle; `rank()` and `size()` are known.
    pub handle: Handle,
    /// Requests to the module's services and subscribed events; ends when it shall shut down.
    pub inbox: Inbox,
    /// Module arguments.
    pub args: Vec<String>,
}

/// Why a module ended early, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ModuleError(pub String);

impl From<wire::RpcError> for ModuleError {
    fn from(e: wire::RpcError) -> Self {
        Self(e.to_string())
    }
}

impl ModuleError {
    /// An error with context: `what: cause`.
    pub fn new(what: &str, cause: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {cause}"))
    }
}

/// What a module's main returns.
pub type ModuleResult = Result<(), ModuleError>;

/// A running module.
pub type ModuleFuture = Pin<Box<dyn Future<Output = ModuleResult> + Send>>;

/// Entry point of a module.
pub type ModuleMain = fn(Context) -> ModuleFuture;
