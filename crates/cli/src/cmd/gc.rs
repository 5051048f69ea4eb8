//! `flux gc`: remove what the key-value store does not refer to any more, while it is in use.
//!
//! The modules `kvs` and `content` do it, as they do by themselves when enough is stored; this asks them to, and waits.

use std::time::Duration;

use clap::Parser;
use client::{Handle, Node};
use serde::Deserialize;
use serde_json::{Value, json};

use super::dump::at_least_one;
use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::output::outln;

/// Remove what the key-value store does not refer to any more.
#[derive(Parser)]
struct Options {
    /// Say more; twice: still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Keep what was referred to, or stored, less than FSD ago
    #[arg(long, value_name = "FSD", default_value = "1s", value_parser = duration)]
    grace: Duration,
    /// Print all figures as JSON
    #[arg(short, long)]
    json: bool,
    /// For scripts that were written for others: caches are never used
    #[arg(long)]
    no_cache: bool,
    /// For scripts that were written for others: how much is asked for at once is fixed
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    maxreqs: Option<usize>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = formats::fsd::parse(text).map_err(|e| e.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// What has come of it.
#[derive(Deserialize)]
struct Figures {
    live: u64,
    condemned: u64,
    removed: u64,
    freed: u64,
    used: u64,
    seconds: f64,
    namespaces: u64,
    checkpoints: u64,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(gc(options))
}

async fn gc(options: Options) -> Outcome {
    let handle = Handle::open(None).await?;
    let request = json!({ "grace": options.grace.as_secs_f64() });
    let answer = handle.call::<Value>("kvs.gc", Node::Rank(0), &request);
    let answer = answer.await.context("garbage collection")?;
    if options.json {
        outln!("{answer}");
        return Ok(0);
    }
    let figures: Figures =
        serde_json::from_value(answer).map_err(|e| Failure::new(format!("kvs.gc: {e}")))?;
    let Figures {
        live,
        condemned,
        removed,
        freed,
        used,
        seconds,
        namespaces,
        checkpoints,
    } = figures;
    if options.verbose > 1 {
        eprintln!("flux-gc: enumerated live primary root");
        eprintln!("flux-gc: enumerated {namespaces} private namespace roots");
        eprintln!("flux-gc: enumerated {checkpoints} checkpoint roots");
    }
    if options.verbose > 0 {
        eprintln!(
            "flux-gc: {freed} bytes freed, {used} in use; {condemned} blobs are to go later; {seconds:.3}s"
        );
    }
    outln!("flux-gc: gc complete: marked {live}, reclaimed {removed} blobs");
    Ok(0)
}
