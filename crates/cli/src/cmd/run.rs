//! `flux run`: submit a job and attach to it.

use clap::Parser;
use client::Handle;

use crate::args::Args;
use crate::attach;
use crate::environment::block_on;
use crate::error::Outcome;
use crate::output::outln;
use crate::submit::{Common, Tasks, submitted};

/// Run a job and show its output.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    tasks: Tasks,
    /// Leave at this event of the job
    #[arg(long, value_name = "NAME")]
    wait_event: Option<String>,
    #[arg(long, hide = true)]
    debug_emulate: bool,
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
    if options.debug_emulate {
        attach::debugger::emulate();
    }
    let mut request = options
        .tasks
        .request(&options.common, &options.command, &[])?;
    if attach::debugger::is_there() {
        let option = "system.shell.options.stop-tasks-in-exec";
        request.jobspec.attributes.set(option, 1.into());
    }
    if options.common.dry_run {
        outln!("{}", request.text());
        return Ok(0);
    }
    let how = attach::Options {
        wait_event: options.wait_event.unwrap_or_else(|| "clean".into()),
        label_io: options.common.label_io,
        debug_emulate: options.debug_emulate,
        show_events: options.common.verbose > 1,
        show_exec: options.common.verbose > 2,
        stdin_ranks: options.common.input_ranks(),
        ..attach::Options::default()
    };
    block_on(async {
        let handle = Handle::open(None).await?;
        let id = submitted(request.send(&handle)).await?;
        if options.common.verbose > 0 {
            eprintln!("jobid: {}", crate::jobid::shown(id));
        }
        attach::attach(&handle, id, &how).await
    })
}
