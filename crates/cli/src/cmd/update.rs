//! `flux update`: change attributes of an active job.

use clap::Parser;
use client::{Handle, Node};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::attach;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::format::duration;
use crate::jobid::{JobIdArg, shown};
use crate::output::outln;

/// Change attributes of an active job.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    /// Print what would be asked for
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Say what was changed
    #[arg(short, long)]
    verbose: bool,
    /// Wait for the change to be in the job's eventlog
    #[arg(long)]
    wait: bool,
    /// Job
    jobid: JobIdArg,
    /// Attributes and values
    #[arg(required = true, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    updates: Vec<String>,
}

const DURATION: &str = "attributes.system.duration";

/// The full name of an attribute.
fn key(text: &str) -> String {
    let text = match text {
        "name" => "job.name",
        text => text,
    };
    let is_full = ["attributes.", "resources.", "tasks."]
        .iter()
        .any(|p| text.starts_with(p));
    match is_full {
        true => text.to_owned(),
        false => format!("attributes.system.{text}"),
    }
}

/// A new duration: `+FSD` and `-FSD` change the old one; 0 in jobspec is unlimited.
fn new_duration(text: &str, id: &str, old: Option<f64>) -> Result<f64, Failure> {
    let parse = |text: &str| formats::fsd::parse(text).map_err(|e| Failure::new(e.to_string()));
    let change = text.strip_prefix('+').or_else(|| text.strip_prefix('-'));
    let result = match change {
        None => parse(text)?,
        Some(by) => {
            let by_seconds = parse(by)?;
            let old = old.filter(|d| *d > 0.).ok_or_else(|| {
                Failure::new(format!(
                    "duration for {id} is unlimited, can't update by {text}"
                ))
            })?;
            match text.starts_with('+') {
                true => old + by_seconds,
                false if old > by_seconds => old - by_seconds,
                false => {
                    let old = duration(old);
                    return Err(Failure::new(format!(
                        "current duration for {id} ({old}) cannot be reduced by {by}"
                    )));
                }
            }
        }
    };
    Ok(if result.is_infinite() { 0. } else { result })
}

async fn old_duration(handle: &Handle, id: &JobIdArg) -> Result<Option<f64>, Failure> {
    let text = crate::cmd::job::jobspec(handle, id.id).await?;
    let jobspec: Value =
        serde_json::from_str(&text).map_err(|e| Failure::new(format!("jobspec: {e}")))?;
    Ok(jobspec["attributes"]["system"]["duration"].as_f64())
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
    block_on(update(&options))
}

async fn update(options: &Options) -> Outcome {
    let mut handle = None;
    let mut updates = Map::new();
    for word in &options.updates {
        let (name, text) = word.split_once('=').unwrap_or((word, ""));
        let key = key(name);
        let value = if key == DURATION {
            let id = shown(options.jobid.id);
            let old = match text.starts_with(['+', '-']) {
                true => {
                    let handle = handle.insert(Handle::open(None).await?);
                    old_duration(handle, &options.jobid).await?
                }
                false => None,
            };
            json!(new_duration(text, &id, old)?)
        } else {
            // What is not JSON is text.
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        };
        updates.insert(key, value);
    }
    if options.dry_run {
        outln!("{}", crate::pyjson::dumps(&Value::Object(updates)));
        return Ok(0);
    }
    let handle = match handle {
        Some(handle) => handle,
        None => Handle::open(None).await?,
    };
    let start = formats::eventlog::timestamp(std::time::SystemTime::now());
    let request = json!({"id": options.jobid.id, "updates": updates});
    handle
        .rpc("job-manager.update", Node::Any, &request)
        .await?;
    if options.wait {
        wait(&handle, options, &updates, start).await?;
    }
    if options.verbose {
        for (key, value) in &updates {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            eprintln!("flux-update: updated {key} to {value}");
        }
    }
    Ok(0)
}

/// Wait for the event that has these updates and is not older than the request.
async fn wait(
    handle: &Handle,
    options: &Options,
    updates: &Map<String, Value>,
    start: f64,
) -> Result<(), Failure> {
    let mut stream = attach::watch_events(handle, options.jobid.id, "eventlog");
    while let Some(answer) = stream.next().await {
        for event in attach::decode_events(&answer?)? {
            let mut same = updates
                .iter()
                .map(|(key, value)| event.get(key) == Some(value));
            if event.name == "jobspec-update" && event.timestamp > start && same.all(|s| s) {
                attach::cancel_watch(&stream);
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_durations() {
        assert_eq!(key("duration"), DURATION);
        assert_eq!(key("name"), "attributes.system.job.name");
        assert_eq!(key("attributes.user.x"), "attributes.user.x");
        let change = |text, old| new_duration(text, "f1", old).map_err(|e| e.message);
        assert_eq!(change("1h", None), Ok(3600.));
        assert_eq!(change("inf", None), Ok(0.));
        assert_eq!(change("+1m", Some(60.)), Ok(120.));
        assert_eq!(change("-30s", Some(60.)), Ok(30.));
        assert!(change("-1m", Some(60.)).is_err() && change("+1m", Some(0.)).is_err());
    }
}
