//! `flux module-exec PATH`: runs a module that was built for upstream as a shared object, in this process.
//!
//! The broker starts it with a socket that FLUX_MODULE_URI names. Without that it connects to the instance like any
//! program, so that a module can be tried out or run in a debugger. All that the module calls is in the libflux-core it
//! was linked with, which has the functions of a module's process, too.

mod args;
mod library;
mod session;

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use args::{Args, Refusal, USAGE};
use library::Library;
use session::Session;

const URI_VARIABLE: &str = "FLUX_MODULE_URI";

/// What Rust's runtime does at signals is not what a module expects: one that is sent SIGSEGV would live on.
fn default_signals() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGPIPE] {
        // SAFETY: the default action runs no code of this process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn c_string(word: std::ffi::OsString) -> Result<CString, String> {
    CString::new(word.into_vec()).map_err(|e| e.to_string())
}

/// As a broker has it.
fn serve(args: Args, uri: &str) -> Result<(), String> {
    let extra = match (&args.name, args.args.is_empty()) {
        (Some(_), _) => Some("--name"),
        (None, false) => Some("free arguments"),
        (None, true) => None,
    };
    if let Some(extra) = extra {
        return Err(format!("{URI_VARIABLE} and {extra} are incompatible"));
    }
    let library = Library::open(&c_string(args.path)?)?;
    let mut session = Session::started(library, uri)?;
    let ended = session.run()?;
    session.finish(&ended)
}

/// By hand.
fn attempt(args: Args) -> Result<(), String> {
    let name = args.module_name();
    let words: Result<Vec<CString>, String> = args.args.into_iter().map(c_string).collect();
    let library = Library::open(&c_string(args.path)?)?;
    let ended = Session::tried(library, &name, words?)?.run()?;
    ended.map_err(|e| format!("module failed: {e}"))
}

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(Refusal::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(refusal) => {
            eprintln!("flux-module-exec: {refusal}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    default_signals();
    let done = match std::env::var(URI_VARIABLE) {
        Ok(uri) => serve(args, &uri),
        Err(_) => attempt(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("flux-module-exec: {why}");
            ExitCode::FAILURE
        }
    }
}
