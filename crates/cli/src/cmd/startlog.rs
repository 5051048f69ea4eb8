//! `flux startlog`: when the instance was started and ended, from the KVS eventlog `admin.eventlog`.

use std::fmt::Write as _;
use std::time::SystemTime;

use clap::Parser;
use client::Handle;
use formats::eventlog::{self, Event};
use formats::fsd;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kvs::Txn;
use serde_json::{Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::output;

/// Events of other versions say nothing to us.
const VERSION: u32 = 1;

/// List the times the instance was started and ended.
#[derive(Parser)]
struct Options {
    /// Exit with 1 if the instance had crashed before it was started last
    #[arg(long)]
    check: bool,
    /// Print no list
    #[arg(long)]
    quiet: bool,
    /// Print the version that was started
    #[arg(short = 'v', long)]
    show_version: bool,
    /// Note a start (for start-up scripts)
    #[arg(long, conflicts_with = "post_finish_event")]
    post_start_event: bool,
    /// Note the end (for shutdown scripts)
    #[arg(long)]
    post_finish_event: bool,
    /// Another key, for tests
    #[arg(
        long,
        hide = true,
        value_name = "KEY",
        default_value = "admin.eventlog"
    )]
    test_startlog_key: String,
}

/// One run of the instance.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    start: f64,
    version: String,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Finished(f64),
    /// It was started again without having finished.
    Crashed,
    Running,
}

fn runs(events: &[Event]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let known = |event: &&Event| event.get("version") == Some(&json!(VERSION));
    for event in events.iter().filter(known) {
        let last = runs.last_mut().filter(|run| run.end == End::Running);
        match event.name.as_str() {
            "start" => {
                if let Some(last) = last {
                    last.end = End::Crashed;
                }
                let version = event.get("core_version").and_then(Value::as_str);
                runs.push(Run {
                    start: event.timestamp,
                    version: version.unwrap_or_default().to_owned(),
                    end: End::Running,
                });
            }
            "finish" => {
                if let Some(last) = last {
                    last.end = End::Finished(event.timestamp);
                }
            }
            _ => {}
        }
    }
    runs
}

/// Whether the run before the last had crashed.
fn crashed(runs: &[Run]) -> bool {
    matches!(runs, [.., before, _] if before.end == End::Crashed)
}

fn list(runs: &[Run], versions: bool, now: f64, zone: &TimeZone) -> String {
    let time = |seconds: f64| {
        let stamp = Timestamp::from_second(seconds as i64).unwrap_or_default();
        stamp
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M")
            .to_string()
    };
    let mut text = String::new();
    for run in runs {
        // Writing to a string cannot fail.
        if versions {
            let _ = write!(text, "{:>25}  ", run.version);
        }
        let lasted = |end: f64| fsd::format((end - run.start).max(0.));
        let _ = match run.end {
            End::Finished(end) => {
                writeln!(
                    text,
                    "{} - {} ({})",
                    time(run.start),
                    time(end),
                    lasted(end)
                )
            }
            End::Crashed => writeln!(text, "{} - crashed", time(run.start)),
            End::Running => writeln!(text, "{} - running ({})", time(run.start), lasted(now)),
        };
    }
    text
}

async fn post(handle: &Handle, key: &str, event: Event) -> Outcome {
    if handle.locate().await?.0 > 0 {
        return Err(Failure::new("events can only be posted on rank 0"));
    }
    let mut txn = Txn::new();
    txn.append(key, event.encode().as_bytes());
    let committed = kvs::client::commit(handle, None, &txn).await;
    committed.context(format!("cannot post {}", event.name))?;
    Ok(0)
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    let key = &options.test_startlog_key;
    let now = eventlog::timestamp(SystemTime::now());
    block_on(async {
        let handle = Handle::open(None).await?;
        if options.post_start_event {
            let context = json!({ "version": VERSION, "core_version": env!("CARGO_PKG_VERSION") });
            let start = Event::new(now, "start").with_context(context);
            return post(&handle, key, start).await;
        }
        if options.post_finish_event {
            let finish = Event::new(now, "finish").with_context(json!({ "version": VERSION }));
            return post(&handle, key, finish).await;
        }
        let log = kvs::client::get(&handle, None, key).await.context(key)?;
        let log = String::from_utf8_lossy(&log);
        let events = eventlog::decode(&log).map_err(|e| Failure::new(format!("{key}: {e}")))?;
        let runs = runs(&events);
        if !options.quiet {
            output::write(&list(&runs, options.show_version, now, &TimeZone::system()));
        }
        Ok(u8::from(options.check && crashed(&runs)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: f64, name: &str, version: u32) -> Event {
        let context = json!({ "version": version, "core_version": "1.2.3" });
        Event::new(time, name).with_context(context)
    }

    #[test]
    fn runs_end_crash_and_go_on() {
        let mut events = vec![
            event(0., "start", VERSION),
            event(90., "finish", VERSION),
            event(3600., "start", VERSION),
            event(3700., "finish", 99),
            event(7200., "start", VERSION),
        ];
        insta::assert_snapshot!(list(&runs(&events), false, 7260., &TimeZone::UTC), @r"
        1970-01-01 00:00 - 1970-01-01 00:01 (1.5m)
        1970-01-01 01:00 - crashed
        1970-01-01 02:00 - running (1m)
        ");
        assert!(crashed(&runs(&events)));
        events.push(event(8000., "finish", VERSION));
        events.push(event(9000., "start", VERSION));
        assert!(!crashed(&runs(&events)));
        let text = list(&runs(&events[..2]), true, 0., &TimeZone::UTC);
        assert_eq!(
            text,
            "                    1.2.3  1970-01-01 00:00 - 1970-01-01 00:01 (1.5m)\n"
        );
    }
}
