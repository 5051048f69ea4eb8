//! `flux alloc`: start an instance on resources of its own, and use it interactively.

use std::io::IsTerminal as _;

use clap::Parser;
use client::services::state_machine;
use client::{Handle, Node};
use formats::{Event, JobId};
use serde_json::{Value, json};

use crate::args::Args;
use crate::attach::{self, decode_events, watch_events};
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;
use crate::submit::{Common, Initial, Nested, submitted};

/// Start an instance on newly allocated resources.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    nested: Nested,
    /// Wait for the instance to run, print its job id and leave
    #[arg(long)]
    bg: bool,
    /// The instance's initial program; a shell without it
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let mut options: Options = args.parse_or(2)?;
    if options.bg && options.command.is_empty() {
        options
            .nested
            .broker_opts
            .push("-Sbroker.rc2_none=1".into());
    }
    let pty = if options.bg {
        vec![("pty.capture", json!(1))]
    } else if std::io::stdin().is_terminal() {
        vec![("pty.interactive", json!(1))]
    } else {
        Vec::new()
    };
    // Files for input and output are for batch jobs; here they are the terminal's.
    options.common.input = None;
    options.common.output = None;
    let initial = Initial::Command(&options.command);
    let request = options.nested.request(&options.common, initial, &pty)?;
    if options.common.dry_run {
        outln!("{}", request.text());
        return Ok(0);
    }
    let verbose = options.common.verbose;
    block_on(async {
        let handle = Handle::open(None).await?;
        let id = submitted(request.send(&handle)).await?;
        if options.bg {
            return background(&handle, id, verbose > 0).await;
        }
        if verbose > 0 {
            eprintln!("jobid: {}", crate::jobid::shown(id));
        }
        let how = attach::Options {
            wait_event: "clean".into(),
            ..attach::Options::default()
        };
        attach::attach(&handle, id, &how).await
    })
}

/// Wait until the instance of a job runs, then print the job's id.
async fn background(handle: &Handle, id: JobId, verbose: bool) -> Outcome {
    let name = crate::jobid::shown(id);
    let mut zero = None;
    let mut log = |at: f64, text: &str| {
        let since = at - *zero.get_or_insert(at);
        if verbose {
            eprintln!("{name}: {since:6.3}s: {text}");
        }
    };
    let mut events = watch_events(handle, id, "eventlog");
    let mut signals = attach::signals()?;
    loop {
        tokio::select! {
            answer = events.next() => {
                let Some(answer) = answer else {
                    return Err(Failure::new(format!("{name}: unexpectedly exited")));
                };
                for event in decode_events(&answer?)? {
                    match event.name.as_str() {
                        "submit" => log(event.timestamp, "waiting for resources"),
                        "alloc" => log(event.timestamp, "resources allocated"),
                        "exception" => return Err(ended(&name, &event)),
                        "memo" => {
                            let Some(uri) = event.get("uri").and_then(Value::as_str) else {
                                continue;
                            };
                            log(event.timestamp, "waiting for instance");
                            ready(uri).await.context(&name)?;
                            outln!("{name}");
                            return Ok(0);
                        }
                        _ => {}
                    }
                }
            }
            Some(_) = signals.recv() => {
                eprintln!("{name}: Interrupt: canceling job");
                let request = json!({
                    "id": id, "severity": 0, "type": "cancel", "note": "interrupted",
                });
                handle.rpc("job-manager.raise", Node::Any, &request).await?;
                return Ok(1);
            }
        }
    }
}

fn ended(name: &str, event: &Event) -> Failure {
    let text = |key| event.get(key).and_then(Value::as_str).unwrap_or("");
    Failure::new(format!("{name}: {}: {}", text("type"), text("note")))
}

/// Wait until the instance at `uri` runs.
async fn ready(uri: &str) -> Result<(), Failure> {
    let uri = crate::uri::local_or_remote(uri);
    let child = Handle::open(Some(&uri)).await.context("cannot connect")?;
    let state = child.ask(Node::Any, &state_machine::Wait {}).await;
    state.context("instance startup failed")?;
    Ok(())
}
