//! The `flux-broker` program: the message broker with its built-in modules linked in.
//!
//! This is the only place that knows both the broker and what its modules do.

mod announce;
mod cleanup;
mod modules;
mod startlog;

use std::process::ExitCode;

/// The broker's time goes into small, short-lived pieces of JSON that one thread makes and another drops.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A signal that says the program is broken ends it at once, wherever it comes from.
fn let_crashes_crash() {
    for signum in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(signum, libc::SIG_DFL) };
    }
}

fn main() -> ExitCode {
    let_crashes_crash();
    let options = match broker::run::Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("flux-broker: {e}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("flux-broker: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let hooks = broker::run::Hooks {
        running: |handle| {
            Box::pin(async move {
                startlog::started(&handle).await;
                announce::announce(handle).await;
            })
        },
        running_scripted: announce::announce,
        cleanup: |handle| {
            Box::pin(async move {
                cleanup::cleanup(handle.clone()).await;
                startlog::finished(&handle).await;
            })
        },
    };
    let result = runtime.block_on(broker::run::run(options, modules::table(), hooks));
    // Tasks that still wait for something are of no use once the broker has left the instance.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code.clamp(0, 255) as u8),
        Err(e) => {
            eprintln!("flux-broker: {e:#}");
            ExitCode::FAILURE
        }
    }
}
