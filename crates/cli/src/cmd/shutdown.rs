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
    let rank = handle.getattr("rank").await?;
    let leader = rank == "0";
    if !leader && !options.background {
        // Its broker goes before the instance does.
        let text = "shutdown runs on rank 0, or with --background";
        return Err(Failure::new(text));
    }
    if !confirmed(&options, "Shut down the instance")? {
        return Err(Failure::new("shutdown aborted"));
    }
    let least = match (options.quiet, options.verbose) {
        (true, _) => 4,
        (false, 0) => 6,
        (false, _) => 7,
    };
    // What is logged from now on, until the connection ends.
    let mut log = handle.dmesg(&client::services::log::Dmesg {
        follow: true,
        nobacklog: true,
    });
    let request = json!({ "loglevel": least });
    handle
        .call::<client::Empty>("shutdown.start", Node::Rank(0), &request)
        .await?;
    if options.background {
        return Ok(0);
    }
    let mut gone = handle
        .inbox()
        .ok_or_else(|| Failure::new("the handle is in use"))?;
    loop {
        tokio::select! {
            entry = log.next() => match entry {
                Some(Ok(entry)) => show(&entry, least),
                // The broker's end is the command's.
                _ => return Ok(0),
            },
            message = gone.recv() => if message.is_none() {
                return Ok(0);
            },
        }
    }
}

/// Prints an entry that is important enough: `<priority>1 time rank app - - - text`.
fn show(entry: &str, least: u32) {
    let Some((number, rest)) = entry.strip_prefix('<').and_then(|e| e.split_once('>')) else {
        return;
    };
    let severity = number.parse().map_or(7, client::services::log::severity);
    let mut words = rest.splitn(8, ' ');
    let (app, text) = (words.nth(3), words.last());
    if severity <= least
        && let (Some(app), Some(text)) = (app, text)
    {
        eprintln!("{app}: {text}");
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(shutdown(options))
}
