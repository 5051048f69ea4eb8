//! The `flux` command: one program with every sub-command built in.
//!
//! `flux [OPTIONS] COMMAND [ARGS]` looks COMMAND up in [`cmd::TABLE`]; what is not there is searched
//! as a program `flux-COMMAND` in FLUX_EXEC_PATH and PATH, so that sites can add their own.
//!
//! Data goes to standard output, everything else to standard error; errors are one line that
//! starts with the command's name. Start-up is on every user's path many times a day: a command
//! connects once and asks as little as it can.

// What is written in help texts as options are is no link and no markup.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod args;
mod attach;
mod bulk;
mod cmd;
mod datetime;
mod environment;
mod error;
mod eventlog;
mod exec_path;
mod format;
mod input;
mod jobid;
mod jobs;
mod launch;
mod output;
mod pairs;
mod pyjson;
mod resources;
mod snapshot;
mod submit;
mod uri;

use std::process::ExitCode;

use error::Failure;

fn main() -> ExitCode {
    let words = std::env::args().skip(1).collect();
    let (name, outcome) = cmd::driver::run(words);
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Failure { message, code }) => {
            if !message.is_empty() {
                eprintln!("{name}: {message}");
            }
            ExitCode::from(code)
        }
    }
}
