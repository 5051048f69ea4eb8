//! `flux shutdown`: end an instance, and wait until it is gone.

use std::io::IsTerminal as _;

use clap::Parser;
use client::services::attr::{RemoveAttr, SetAttr};
use client::{Handle, Node};
use serde_json::{Value, json};

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
    /// Dump the key-value store to this archive, or with "auto" as --gc does
    #[arg(long, value_name = "PATH", conflicts_with = "gc")]
    dump: Option<String>,
    /// Dump the key-value store, and start from the dump next time: what is not referred to any more is gone then
    #[arg(long, conflicts_with = "skip_gc")]
    gc: bool,
    /// No dump, even if one is configured
    #[arg(long)]
    skip_gc: bool,
    /// Answer yes to any question
    #[arg(short, long, conflicts_with = "no")]
    yes: bool,
    /// Answer no to any question
    #[arg(short, long)]
    no: bool,
    /// Job id or URI of the instance (default: the enclosing one)
    target: Option<String>,
}

/// Ask on standard output; an empty line is yes.
fn ask(question: &str) -> Result<bool, Failure> {
    loop {
        crate::output::write(&format!("{question} [Y/n]? "));
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer).context("stdin")? == 0 {
            return Err(Failure::new("no answer: the input has ended"));
        }
        match answer.chars().next() {
            Some('y' | 'Y' | '\n') => return Ok(true),
            Some('n' | 'N') => return Ok(false),
            _ => crate::output::write("Please answer y or n\n"),
        }
    }
}

/// Whether so much has been committed (`kvs.gc-threshold`) that garbage should be collected, if the user agrees.
async fn gc_is_due(handle: &Handle, options: &Options) -> Result<bool, Failure> {
    let config: Value = handle.call("config.get", Node::Any, &json!({})).await?;
    let threshold = config["kvs"]["gc-threshold"].as_i64().unwrap_or(0);
    let version = match kvs::client::getroot(handle, Some(kvs::PRIMARY)).await {
        Ok(root) => root.rootseq,
        Err(e) if e.errno == libc::ENOSYS => 0,
        Err(e) => return Err(e).context("error fetching the KVS version"),
    };
    if threshold <= 0 || version <= threshold {
        return Ok(false);
    }
    if options.yes || options.no {
        return Ok(options.yes);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("gc threshold exceeded, specify -y or -n"));
    }
    ask("gc threshold exceeded, collect garbage")
}

/// Set the attribute that says where to dump to, as the options have it.
async fn configure_dump(handle: &Handle, options: &Options) -> Result<(), Failure> {
    const NAME: &str = "content.dump";
    let present = handle.getattr(NAME).await.ok();
    let wanted = if options.skip_gc {
        if present.is_some() {
            handle
                .ask(Node::Any, &RemoveAttr { name: NAME })
                .await
                .context(NAME)?;
        }
        return Ok(());
    } else if options.dump.is_some() {
        options.dump.clone()
    } else if options.gc || gc_is_due(handle, options).await? {
        Some("auto".to_owned())
    } else {
        None
    };
    let Some(path) = wanted.or(present) else {
        return Ok(());
    };
    let attr = SetAttr {
        name: NAME,
        value: &path,
        force: false,
    };
    handle.ask(Node::Any, &attr).await.context(NAME)?;
    let place = match path.as_str() {
        "auto" => "the directory dump".to_owned(),
        path => path.to_owned(),
    };
    eprintln!("flux-shutdown: shutdown will dump the KVS to {place} (this may take some time)");
    Ok(())
}

async fn shutdown(options: Options) -> Outcome {
    let uri = match &options.target {
        Some(target) => {
            let uri = uri::resolve(target).await;
            Some(uri.context(format!("failed to resolve target {target} to a Flux URI"))?)
        }
        None => None,
    };
    let handle = Handle::open(uri.as_deref()).await;
    let handle = handle.context("error connecting to Flux")?;
    configure_dump(&handle, &options).await?;
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
