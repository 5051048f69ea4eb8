//! What a jobspec may say of how its shells are started.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::config::Config;

/// What a jobspec says of how it is to be started: `attributes.system.exec.bulkexec`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkExec {
    /// Seconds; 0 is for ever.
    #[serde(rename = "barrier-timeout")]
    barrier_timeout: Option<f64>,
    /// For tests: `init` or `starting`.
    pub(super) mock_exception: Option<String>,
}

impl BulkExec {
    pub(super) fn read(jobspec: &Value) -> Result<Self, String> {
        match jobspec.pointer("/attributes/system/exec/bulkexec") {
            Some(table) => Self::deserialize(table)
                .map_err(|e| format!("failed to unpack system.exec.bulkexec: {e}")),
            None => Ok(Self::default()),
        }
    }

    /// For how long the job's first barrier may be waited for: as the jobspec says, or the configuration.
    pub(super) fn barrier_timeout(&self, config: &Config) -> Option<Duration> {
        match self.barrier_timeout {
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|t| !t.is_zero()),
            None => config.barrier_timeout,
        }
    }
}
