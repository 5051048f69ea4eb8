//! What a scheduler hears of resources: the answers of `resource.acquire` (RFC 28).

use client::module::ModuleError;
use formats::idset::Idset;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One answer. The first has the resources.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Update {
    /// R of everything there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// Ranks that may be used from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<String>,
    /// Ranks that may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// Ranks that are gone for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrink: Option<String>,
    /// When the instance's own resources end; 0 is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<f64>,
}

/// Ranks in a message; "all" means `all`.
pub fn ranks(text: &str, all: impl FnOnce() -> Idset) -> Result<Idset, ModuleError> {
    if text == "all" {
        return Ok(all());
    }
    text.parse()
        .map_err(|e| ModuleError::new("resource.acquire: ranks", e))
}
