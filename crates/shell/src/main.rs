//! `flux-shell JOBID`: the job shell; `flux-shell --shared`: the shells of many jobs. job-exec starts them; they are not for users.

use formats::JobId;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (options, ids): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|arg| arg.starts_with('-'));
    let is_shared = options.iter().any(|option| option == "--shared");
    let id: Option<JobId> = match ids.as_slice() {
        [] if is_shared => None,
        [id] if !is_shared => match id.parse() {
            Ok(id) => Some(id),
            Err(e) => {
                eprintln!("flux-shell: FATAL: {e}");
                return ExitCode::FAILURE;
            }
        },
        _ => {
            eprintln!("Usage: flux-shell JOBID | --shared");
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
    let code = tokio::task::LocalSet::new().block_on(&runtime, async {
        match id {
            Some(id) => shell::run::run(id).await,
            None => shell::shared::serve().await,
        }
    });
    // Readers of streams that outlive their task must not hold up the exit.
    runtime.shutdown_background();
    ExitCode::from(code.clamp(0, 255) as u8)
}
