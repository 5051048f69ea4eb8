//! `flux job info`, `flux job stats`.

use clap::Args;
use client::{Handle, Node};

use super::{CURRENT, lookup};
use crate::error::{Failure, Outcome};
use crate::jobid::JobIdArg;
use crate::output::outln;

#[derive(Args)]
pub(super) struct Info {
    /// Of jobspec: as it was submitted
    #[arg(short, long)]
    original: bool,
    /// Of jobspec and R: without later updates
    #[arg(short, long)]
    base: bool,
    /// Job
    id: JobIdArg,
    /// J, R, eventlog, jobspec, guest.exec.eventlog, guest.input, guest.output…
    key: String,
}

impl Info {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let id = self.id.id;
        let is_updated = matches!(self.key.as_str(), "R" | "jobspec");
        let text = if self.original && self.key == "jobspec" {
            let signed = lookup(handle, id, "J", 0).await?;
            let signed = formats::signed::unwrap(&signed)
                .map_err(|e| Failure::new(format!("cannot read the signed request: {e}")))?;
            String::from_utf8_lossy(&signed.payload).into_owned()
        } else {
            let flags = if is_updated && !self.base { CURRENT } else { 0 };
            lookup(handle, id, &self.key, flags).await?
        };
        outln!("{text}");
        Ok(0)
    }
}

/// Counts of jobs, as the service tells them.
pub(super) async fn stats(handle: &Handle) -> Outcome {
    let answer = handle
        .rpc_raw("job-list.job-stats", Node::Any, None)
        .await?;
    let payload = answer.payload().map(|p| p.to_vec()).unwrap_or_default();
    let text = String::from_utf8_lossy(&payload);
    outln!("{}", text.trim_end_matches('\0'));
    Ok(0)
}
