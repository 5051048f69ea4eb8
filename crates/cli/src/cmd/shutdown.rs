//! `flux shutdown`: end an instance, and wait until it is gone.

use std::io::IsTerminal as _;

use clap::Parser;
use client::{Handle, Node};
use serde_json::json;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::uri;

/// End an instance.
#[derive(Parser)]
struct Options {
    /// Leave once it has begun
    #[arg(long)]
    background: bool,
    /// Only warnings and worse from the instance's log
    #[arg(long)]
    quiet: bool,
    /// Messages of the instance's log: 0 (information and worse) or 1 (all)
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_value = "0", default_missing_value = "1")]
    verbose: u8,
    /// Answer yes to any question
    #[arg(short, long, conflicts_with = "no")]
    yes: bool,
    /// Answer no to any question
    #[arg(short, long)]
    no: bool,
    /// Job id or URI of the instance (default: the enclosing one)
    target: Option<String>,
}

/// Whether to go on although the instance is not only the caller's.
fn confirmed(options: &Options, question: &str) -> Result<bool, Failure> {
    if options.yes || options.no {
        return Ok(options.yes);
    }
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    eprint!("{question} [y/N]? ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("stdin")?;
    Ok(answer.trim_start().starts_with(['y', 'Y']))
}

async fn shutdown(options: Options) -> Outcome {
    let uri = match &options.target {
        Some(target) => Some(uri::resolve(target).await?),
        None => None,
    };
    let handle = Handle::open(uri.as_deref()).await?;
    if !confirmed(&options, "Shut down the instance")? {
        return Err(Failure::new("shutdown aborted"));
    }
    let least = match (options.quiet, options.verbose) {
        (true, _) => 4,
        (false, 0) => 6,
        (false, _) => 7,
    };
    let request = json!({ "loglevel": least });
    if options.background {
        handle
            .call::<client::Empty>("shutdown.start", Node::Any, &request)
            .await?;
        return Ok(0);
    }
    let mut log = handle.stream("shutdown.start", Node::Any, &request);
    while let Some(entry) = log.next().await {
        match entry {
            Ok(msg) => eprint!("{}", msg.json::<Logged>()?.log),
            // Either the end is reported, or the broker is gone before.
            Err(e) if matches!(e.errno, libc::ENODATA | libc::ECONNRESET) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(0)
}

/// What the instance logs while it ends.
#[derive(serde::Deserialize)]
struct Logged {
    log: String,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(shutdown(options))
}
