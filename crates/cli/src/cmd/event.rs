//! `flux event pub`, `flux event sub`: publish and watch events.

use bytes::Bytes;
use clap::{Parser, Subcommand};
use client::Handle;
use serde_json::Value;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::output::{outln, write_bytes};

/// Publish and watch events.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Publish an event
    Pub(Publish),
    /// Print events
    Sub(Watch),
}

#[derive(Parser)]
struct Publish {
    /// The payload is bytes, not JSON
    #[arg(short, long)]
    raw: bool,
    /// Wait for the event's sequence number
    #[arg(short, long)]
    synchronous: bool,
    /// Wait until the event has come back
    #[arg(short, long)]
    loopback: bool,
    /// Only the instance owner and this user see the event
    #[arg(short, long)]
    private: bool,
    topic: String,
    /// The payload; its words are joined by blanks
    #[arg(trailing_var_arg = true)]
    payload: Vec<String>,
}

#[derive(Parser)]
struct Watch {
    /// Leave after N events
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Beginnings of topics; all events without any
    topic: Vec<String>,
}

pub(crate) fn run(args: Args) -> Outcome {
    match args.parse::<Options>()?.command {
        What::Pub(options) => block_on(publish(options)),
        What::Sub(options) => block_on(watch(options)),
    }
}

async fn publish(options: Publish) -> Outcome {
    let text = options.payload.join(" ");
    let payload = match (options.payload.is_empty(), options.raw) {
        (true, _) => None,
        (false, true) => Some(Bytes::from(text)),
        (false, false) => {
            let value: Value = serde_json::from_str(&text)
                .map_err(|e| Failure::new(format!("payload is not JSON: {e}")))?;
            if !value.is_object() {
                return Err(Failure::new("payload is not a JSON object"));
            }
            Some(wire::string_payload(&text))
        }
    };
    let handle = Handle::open(None).await?;
    let topic = &options.topic;
    let inbox = match options.loopback {
        true => {
            handle.subscribe(topic).await.context(topic)?;
            handle.inbox()
        }
        false => None,
    };
    let seq = handle
        .publish_raw(topic, payload, options.private)
        .await
        .context(topic)?;
    if let Some(mut inbox) = inbox {
        while let Some(event) = inbox.recv().await {
            if matches!(event.kind(), wire::Kind::Event { sequence } if sequence == seq) {
                break;
            }
        }
    }
    if options.synchronous {
        outln!("seq={seq}");
    }
    Ok(0)
}

async fn watch(options: Watch) -> Outcome {
    let handle = Handle::open(None).await?;
    // A fresh handle has its inbox.
    let mut inbox = handle.inbox().expect("inbox was not taken yet");
    let mut topics = options.topic;
    if topics.is_empty() {
        topics.push(String::new());
    }
    for topic in &topics {
        handle.subscribe(topic).await.context(topic)?;
    }
    let mut left = options.count;
    while left != Some(0) {
        let Some(event) = inbox.recv().await else {
            return Err(Failure::new("the broker closed the connection"));
        };
        if !event.is_event() {
            continue;
        }
        let mut line = event.topic().as_bytes().to_vec();
        if let Some(payload) = event.payload() {
            let payload = payload.strip_suffix(b"\0").unwrap_or(payload);
            line.push(b'\t');
            line.extend_from_slice(payload);
        }
        line.push(b'\n');
        write_bytes(&line);
        left = left.map(|n| n - 1);
    }
    Ok(0)
}
