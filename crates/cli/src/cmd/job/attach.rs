//! `flux job attach`.

use clap::Args;
use client::Handle;
use formats::Idset;

use crate::attach;
use crate::error::{Failure, Outcome};
use crate::jobid::JobIdArg;

#[derive(Args)]
pub(super) struct Attach {
    /// Show the job's events on standard error
    #[arg(short = 'E', long)]
    show_events: bool,
    /// Show the events of the job's execution on standard error
    #[arg(short = 'X', long)]
    show_exec: bool,
    /// Show a status line while the job is pending
    #[arg(long)]
    show_status: bool,
    /// Leave at this event (default: finish)
    #[arg(short, long, value_name = "NAME")]
    wait_event: Option<String>,
    /// Label output with task ranks
    #[arg(short, long)]
    label_io: bool,
    /// Say more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// No warnings
    #[arg(short, long)]
    quiet: bool,
    /// Neither read standard input nor catch signals
    #[arg(short, long)]
    read_only: bool,
    /// Accepted for compatibility: input is never held back
    #[arg(short, long)]
    unbuffered: bool,
    /// Tasks that get standard input
    #[arg(short = 'i', long, value_name = "RANKS")]
    stdin_ranks: Option<String>,
    /// Show only the last lines of what was written before
    #[arg(long, value_name = "NUM", num_args = 0..=1, require_equals = true, default_missing_value = "10")]
    tail: Option<usize>,
    /// Let a parallel debugger attach to the job's processes
    #[arg(long)]
    debug: bool,
    #[arg(long, hide = true)]
    debug_emulate: bool,
    /// Job
    id: JobIdArg,
}

impl Attach {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let stdin_ranks = match self.stdin_ranks.as_deref() {
            None | Some("all") => None,
            Some(text) => Some(text.parse::<Idset>().map_err(|e| {
                Failure::new(format!("Invalid value '{text}' for --stdin-ranks: {e}"))
            })?),
        };
        if self.read_only && self.stdin_ranks.is_some() {
            return Err(Failure::new("Do not use --stdin-ranks with --read-only"));
        }
        if self.debug || self.debug_emulate {
            attach::debugger::emulate();
        }
        let options = attach::Options {
            debug_emulate: self.debug_emulate,
            wait_event: self.wait_event.unwrap_or_default(),
            label_io: self.label_io,
            show_events: self.show_events,
            show_exec: self.show_exec,
            show_status: self.show_status,
            quiet: self.quiet,
            verbose: self.verbose > 0,
            read_only: self.read_only,
            stdin_ranks,
            tail: self.tail,
        };
        attach::attach(handle, self.id.id, &options).await
    }
}
