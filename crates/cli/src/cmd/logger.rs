//! `flux logger`: put an entry into the broker's log.

use std::io::BufRead as _;

use clap::Parser;
use client::Handle;
use client::services::log::SEVERITIES;
use jiff::Timestamp;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};

/// Add an entry to the broker's log.
#[derive(Parser)]
struct Options {
    /// Severity: emerg, alert, crit, err, warning, notice, info or debug
    #[arg(short, long, value_name = "LEVEL", default_value = "info")]
    severity: String,
    /// Name of the program that says it
    #[arg(short, long, value_name = "NAME", default_value = "logger")]
    appname: String,
    /// The text, words are joined by blanks; without it, the lines of standard input
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    message: Vec<String>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    let named = |s: &&str| **s == options.severity;
    let Some(severity) = SEVERITIES.iter().position(named) else {
        let known = SEVERITIES.join(", ");
        let text = format!(
            "unknown severity '{}': use one of {known}",
            options.severity
        );
        return Err(Failure::new(text));
    };
    if options.appname.is_empty() || options.appname.contains(char::is_whitespace) {
        return Err(Failure::new("--appname must be one word"));
    }
    block_on(async {
        let handle = Handle::open(None).await?;
        let rank = handle.getattr("rank").await?;
        let log = |text: &str| {
            // Each line is an entry; what ends a line is not part of it.
            for line in text.split('\n').map(|l| l.trim_end_matches('\r')) {
                if !line.is_empty() {
                    let time = format!("{:.6}", Timestamp::now());
                    handle.log(severity as u8, time, &rank, &options.appname, line);
                }
            }
        };
        match options.message.is_empty() {
            false => log(&options.message.join(" ")),
            true => {
                for line in std::io::stdin().lock().split(b'\n') {
                    // The log is text: other bytes are shown as replaced.
                    log(String::from_utf8_lossy(&line?).trim_end_matches('\0'));
                }
            }
        }
        // The broker answers in order, so after any answer the entry has arrived.
        handle.getattr("rank").await?;
        Ok(0)
    })
}
