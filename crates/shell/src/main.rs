//! `flux-shell JOBID`: the job shell. job-exec starts it; it is not for users.

use formats::JobId;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let (Some(id), None) = (args.next(), args.next()) else {
        eprintln!("Usage: flux-shell JOBID");
        return ExitCode::FAILURE;
    };
    let id: JobId = match id.parse() {
        Ok(id) => id,
        Err(e) => {
            eprintln!("flux-shell: FATAL: {e}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("flux-shell: FATAL: starting the event loop: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = tokio::task::LocalSet::new().block_on(&runtime, shell::run::run(id));
    // Readers of streams that outlive their task must not hold up the exit.
    runtime.shutdown_background();
    ExitCode::from(code.clamp(0, 255) as u8)
}
