//! `flux job submit`: a jobspec from a file or standard input.

use clap::Args;
use client::Handle;

use crate::error::{Failure, Outcome};
use crate::output::outln;
use crate::submit::{parse_flags, parse_urgency, send_text, submitted};

#[derive(Args)]
pub(super) struct Submit {
    /// 0 to 31, hold, default or expedite
    #[arg(short, long, value_name = "N", default_value = "default")]
    urgency: String,
    /// debug, waitable, novalidate
    #[arg(short, long, value_name = "FLAGS")]
    flags: Vec<String>,
    /// Jobspec file (default: standard input)
    jobspec: Option<String>,
}

impl Submit {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let text = match self.jobspec.as_deref() {
            None | Some("-") => std::io::read_to_string(std::io::stdin())?,
            Some(path) => std::fs::read_to_string(path).map_err(|e| {
                let why = crate::error::strerror(e.raw_os_error().unwrap_or(libc::EIO));
                Failure::new(format!("{path}: {why}"))
            })?,
        };
        let urgency = parse_urgency(&self.urgency)?;
        let id = submitted(send_text(handle, &text, urgency, parse_flags(&self.flags)?)).await?;
        outln!("{}", crate::jobid::shown(id));
        Ok(0)
    }
}
