//! `flux kvs eventlog`: append, get, wait-event.

use clap::{Args, Subcommand};
use client::{Handle, Node, RpcStream};
use formats::Event;
use kvs::{Txn, flags};
use serde_json::Value;

use super::{COMMIT, Place, data, object};
use crate::error::{Context, Failure, Outcome};
use crate::eventlog::{Printer, Style};
use crate::output;

#[derive(Args)]
pub(super) struct Eventlog {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Append an event
    Append(Append),
    /// Print an eventlog
    Get(Get),
    /// Wait for an event
    WaitEvent(WaitEvent),
}

#[derive(Args)]
struct Append {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Seconds since the epoch (default: now)
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0.)]
    timestamp: f64,
    /// Key of the eventlog
    key: String,
    /// Name of the event
    name: String,
    /// Context, a JSON object
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    context: Vec<String>,
}

/// How events are printed.
#[derive(Args)]
struct Shown {
    /// Print events as they are stored
    #[arg(short, long)]
    unformatted: bool,
    /// Print times for humans
    #[arg(short = 'H', long)]
    human: bool,
    /// Use color: always, never or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_missing_value = "always")]
    color: Option<String>,
}

impl Shown {
    fn printer(&self) -> Result<Printer, Failure> {
        if self.unformatted && (self.human || self.color.as_deref() == Some("always")) {
            return Err(Failure::new(
                "--unformatted goes with neither --human nor --color=always",
            ));
        }
        Printer::new(&Style {
            format: self.unformatted.then_some("json"),
            time: None,
            human: self.human,
            color: self.color.as_deref(),
            offset_width: 0,
        })
    }
}

#[derive(Args)]
struct Get {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    shown: Shown,
    /// Wait for the eventlog to exist
    #[arg(short = 'W', long)]
    waitcreate: bool,
    /// Print new events as they come
    #[arg(short, long)]
    watch: bool,
    /// With --watch, print N events
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: usize,
    /// Get large eventlogs in parts
    #[arg(short = 'S', long)]
    stream: bool,
    /// Key of the eventlog
    key: String,
}

#[derive(Args)]
struct WaitEvent {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    shown: Shown,
    /// Wait for the eventlog to exist
    #[arg(short = 'W', long)]
    waitcreate: bool,
    /// Give up after this long
    #[arg(short, long, value_name = "DURATION", value_parser = formats::fsd::parse)]
    timeout: Option<f64>,
    /// Do not print the event
    #[arg(short, long)]
    quiet: bool,
    /// Print all events before it
    #[arg(short, long)]
    verbose: bool,
    /// Key of the eventlog
    key: String,
    /// Name of the event
    event: String,
}

impl Eventlog {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        match self.command {
            Command::Append(c) => c.run(handle).await,
            Command::Get(c) => c.run(handle).await,
            Command::WaitEvent(c) => c.run(handle).await,
        }
    }
}

impl Append {
    async fn run(self, handle: &Handle) -> Outcome {
        let now = || formats::eventlog::timestamp(std::time::SystemTime::now());
        let time = if self.timestamp == 0. {
            now()
        } else {
            self.timestamp
        };
        let mut event = Event::new(time, self.name);
        if !self.context.is_empty() {
            let text = self.context.join(" ");
            match serde_json::from_str::<Value>(&text) {
                Ok(context @ Value::Object(_)) => event = event.with_context(context),
                Ok(_) => {
                    return Err(Failure::new(format!(
                        "context '{text}' is not a JSON object"
                    )));
                }
                Err(e) => return Err(Failure::new(format!("context '{text}': {e}"))),
            }
        }
        let mut txn = Txn::new();
        txn.append(&self.key, event.encode().as_bytes());
        let commit = kvs::client::commit(handle, self.namespace.as_deref(), &txn);
        commit.await.context(COMMIT)?;
        Ok(0)
    }
}

fn decode(key: &str, bytes: &[u8]) -> Result<Vec<Event>, Failure> {
    let cannot = |e: &dyn std::error::Error| Failure::new(format!("{key}: cannot decode: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| cannot(&e))?;
    formats::eventlog::decode(text).map_err(|e| cannot(&e))
}

/// The next events of a stream of values.
async fn next(stream: &mut RpcStream, key: &str) -> Result<Option<Vec<Event>>, Failure> {
    let Some(answer) = stream.next().await else {
        return Ok(None);
    };
    let object = object(&answer.context(key)?).context(key)?;
    decode(key, &data(&object).context(key)?).map(Some)
}

impl Get {
    async fn run(self, handle: &Handle) -> Outcome {
        let mut printer = self.shown.printer()?;
        let place = Place::new(self.namespace.as_deref(), None)?;
        let set = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = set(self.watch, flags::WATCH | flags::WATCH_APPEND)
            | set(self.waitcreate, flags::WAITCREATE)
            | set(self.stream, flags::STREAM);
        if !self.watch && !self.stream {
            let object = place
                .lookup(handle, &self.key, flags)
                .await
                .context(&self.key)?;
            let events = decode(&self.key, &data(&object).context(&self.key)?)?;
            let text: String = events.iter().map(|e| printer.line(e)).collect();
            output::write(&text);
            return Ok(0);
        }
        let request = place.request(&self.key, flags);
        let mut stream = handle.stream("kvs-watch.lookup", Node::Any, &request);
        let mut count = 0;
        while let Some(events) = next(&mut stream, &self.key).await? {
            for event in events {
                if self.watch && self.count > 0 && count == self.count {
                    break;
                }
                output::write(&printer.line(&event));
                count += 1;
                if self.watch && count == self.count {
                    stream.cancel("kvs-watch.cancel");
                }
            }
        }
        Ok(0)
    }
}

impl WaitEvent {
    async fn wait(&self, handle: &Handle) -> Result<bool, Failure> {
        let mut printer = self.shown.printer()?;
        let place = Place::new(self.namespace.as_deref(), None)?;
        let wait = if self.waitcreate {
            flags::WAITCREATE
        } else {
            0
        };
        let flags = flags::WATCH | flags::WATCH_APPEND | wait;
        let request = place.request(&self.key, flags);
        let mut stream = handle.stream("kvs-watch.lookup", Node::Any, &request);
        while let Some(events) = next(&mut stream, &self.key).await? {
            for event in events {
                let found = event.name == self.event;
                match found && !self.quiet || !found && self.verbose {
                    true => output::write(&printer.line(&event)),
                    false => printer.pass(&event),
                }
                if found {
                    stream.cancel("kvs-watch.cancel");
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn run(self, handle: &Handle) -> Outcome {
        let found = crate::environment::within(self.timeout, self.wait(handle)).await;
        let name = &self.event;
        match found {
            None => Err(Failure::new(format!(
                "wait-event timeout on event '{name}'"
            ))),
            Some(Ok(true)) => Ok(0),
            Some(Ok(false)) => Err(Failure::new(format!("event '{name}' never received"))),
            Some(Err(e)) => Err(e),
        }
    }
}
