//! `flux content`: blobs and checkpoints of the content store (RFC 10, flux-content(1)).

use std::io::{BufRead as _, Read as _, Write as _};
use std::time::SystemTime;

use bytes::Bytes;
use clap::{Parser, Subcommand};
use client::{Handle, Node};
use formats::eventlog::timestamp;
use kvs::BlobRef;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::output::outln;
use crate::snapshot::{Checkpoint, Content, Way, kvs_is_running};

/// Work with the content store.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print blobs, named by arguments or line by line by standard input
    Load {
        #[command(flatten)]
        bypass: Bypass,
        /// Names of blobs, e.g. sha1-…
        blobrefs: Vec<String>,
    },
    /// Store standard input and print its name
    Store {
        #[command(flatten)]
        bypass: Bypass,
        /// Blobs of this size, each with its name
        #[arg(long, value_name = "BYTES", default_value = "0")]
        chunksize: usize,
    },
    /// Wait until everything is stored
    Flush,
    /// Forget what can be had again
    Dropcache,
    /// Where the KVS starts from
    #[command(subcommand)]
    Checkpoint(Checkpoints),
}

#[derive(clap::Args)]
struct Bypass {
    /// Ask the backing store, past the cache
    #[arg(short, long)]
    bypass_cache: bool,
}

#[derive(Subcommand)]
enum Checkpoints {
    /// All that are kept, the last first
    List {
        /// No line of titles
        #[arg(short, long)]
        no_header: bool,
        /// As JSON, one on a line
        #[arg(short, long)]
        json: bool,
    },
    /// Start from another root; the KVS must not be loaded
    Update {
        /// Name of the root directory
        blobref: String,
    },
}

fn parse(blobref: &str) -> Result<BlobRef, Failure> {
    let name = blobref.trim();
    name.parse()
        .map_err(|e| Failure::new(format!("{name:?}: {e}")))
}

async fn load(content: &Content<'_>, blobrefs: Vec<String>) -> Outcome {
    let blobrefs = match blobrefs.is_empty() {
        false => blobrefs,
        true => std::io::stdin()
            .lock()
            .lines()
            .collect::<Result<_, _>>()
            .context("stdin")?,
    };
    if blobrefs.is_empty() {
        return Err(Failure::new("no blobrefs were specified"));
    }
    let mut out = std::io::stdout().lock();
    for name in blobrefs {
        let raw = Bytes::copy_from_slice(parse(&name)?.raw());
        let blob = content.call("load", raw).await?;
        let data = blob.payload().map_or(&[][..], |data| data);
        out.write_all(data).context("stdout")?;
    }
    out.flush().context("stdout")?;
    Ok(0)
}

async fn store(content: &Content<'_>, chunksize: usize) -> Outcome {
    let mut data = Vec::new();
    std::io::stdin().read_to_end(&mut data).context("stdin")?;
    let data = Bytes::from(data);
    let size = match chunksize {
        0 => data.len().max(1),
        size => size,
    };
    // Nothing is a blob, too.
    for start in (0..data.len().max(1)).step_by(size) {
        let chunk = data.slice(start.min(data.len())..(start + size).min(data.len()));
        let stored = content.store(chunk).await?;
        let raw = stored.payload().map_or(&[][..], |raw| raw);
        let stored = BlobRef::from_raw(content.alg, raw);
        outln!("{}", stored.map_err(|e| Failure::new(e.to_string()))?);
    }
    Ok(0)
}

/// What is shown of a checkpoint; others may have left parts out.
#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    sequence: i64,
    #[serde(default)]
    timestamp: f64,
    rootref: String,
}

async fn list(handle: &Handle, no_header: bool, as_json: bool) -> Outcome {
    #[derive(Deserialize)]
    struct Answer {
        value: Vec<Value>,
    }
    let Answer { value } = handle
        .call("content.checkpoint-get", Node::Rank(0), &json!({}))
        .await?;
    if as_json {
        value.iter().for_each(|checkpoint| outln!("{checkpoint}"));
        return Ok(0);
    }
    if !no_header {
        outln!(
            "{:<10} {:<10} {:<20} rootref",
            "index",
            "sequence",
            "timestamp"
        );
    }
    for (index, checkpoint) in value.into_iter().enumerate() {
        let shown: Shown = serde_json::from_value(checkpoint)
            .map_err(|e| Failure::new(format!("checkpoint {index}: {e}")))?;
        let time = jiff::Timestamp::from_second(shown.timestamp as i64).unwrap_or_default();
        let time = time
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%FT%T");
        let (sequence, rootref) = (shown.sequence, shown.rootref);
        outln!("{index:<10} {sequence:<10} {time:<20} {rootref}");
    }
    Ok(0)
}

async fn update(handle: &Handle, blobref: &str) -> Outcome {
    let blobref = parse(blobref)?;
    if kvs_is_running(handle).await {
        return Err(Failure::new(
            "please unload the kvs module before updating the checkpoint",
        ));
    }
    let now = timestamp(SystemTime::now());
    let store = Content::open(handle, Way::Direct).await?;
    store
        .put_checkpoint(&Checkpoint::new(blobref, 0, now))
        .await?;
    Ok(0)
}

async fn content(options: Options) -> Outcome {
    let handle = Handle::open(None).await?;
    let plain = async |method: &str| -> Outcome {
        let topic = format!("content.{method}");
        let done = handle.rpc(&topic, Node::Any, &json!({})).await;
        done.context(topic).map(|_| 0)
    };
    let reach = async |bypass: &Bypass| {
        let way = Way::new(bypass.bypass_cache);
        Content::open(&handle, way).await
    };
    match options.command {
        Command::Load { bypass, blobrefs } => load(&reach(&bypass).await?, blobrefs).await,
        Command::Store { bypass, chunksize } => store(&reach(&bypass).await?, chunksize).await,
        Command::Flush => plain("flush").await,
        Command::Dropcache => plain("dropcache").await,
        Command::Checkpoint(Checkpoints::List { no_header, json }) => {
            list(&handle, no_header, json).await
        }
        Command::Checkpoint(Checkpoints::Update { blobref }) => update(&handle, &blobref).await,
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(content(options))
}
