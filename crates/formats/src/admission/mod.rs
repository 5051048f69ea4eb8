//! What an instance makes of a jobspec before it becomes a job, as far as nobody has to be asked: the plugins of
//! flux-config-ingest(5) that are built in. No I/O.
//!
//! [`policy`] has the frobnicators `defaults` and `constraints`, [`Minimum`] is the validator `require-instance`,
//! [`check_jobspec`] the validator `jobspec`. Errors are for the user who submits.

mod instance_only;
pub mod policy;

pub use instance_only::Minimum;

use serde_json::Value;

use crate::Jobspec;

/// The validator `jobspec`: RFC 14, and RFC 25 unless any version will do.
pub fn check_jobspec(jobspec: &Value, any_version: bool) -> Result<(), String> {
    let jobspec = Jobspec::from_value(jobspec.clone()).map_err(|e| e.to_string())?;
    if any_version {
        return Ok(());
    }
    if jobspec.version != 1 {
        return Err(format!(
            "jobspec: version must be 1, found {}",
            jobspec.version
        ));
    }
    jobspec.resource_counts().map_err(|e| e.to_string())?;
    Ok(())
}
