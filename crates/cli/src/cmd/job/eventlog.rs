//! `flux job eventlog`, `flux job wait-event`: a job's eventlogs.

use clap::Args;
use client::{Handle, Node};
use formats::JobId;
use serde_json::json;

use super::lookup;
use crate::attach;
use crate::error::{Failure, Outcome};
use crate::eventlog::{Printer, Style, context_matches};
use crate::jobid::JobIdArg;
use crate::output;

/// Short names of eventlogs, their paths, and the event that ends them.
const LOGS: [(&str, &str, Option<&str>); 4] = [
    ("eventlog", "eventlog", Some("clean")),
    ("exec", "guest.exec.eventlog", Some("done")),
    ("output", "guest.output", None),
    ("input", "guest.input", None),
];

/// An eventlog's path, and its last event.
fn path(name: &str) -> (&str, Option<&'static str>) {
    match LOGS.iter().find(|l| l.0 == name || l.1 == name) {
        Some((_, path, end)) => (path, *end),
        None => (name, None),
    }
}

#[derive(Args)]
struct Shown {
    /// text or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// raw, iso, offset or human
    #[arg(short = 'T', long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// Print times for humans
    #[arg(short = 'H', long)]
    human: bool,
    /// Use color: always, never or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_missing_value = "always")]
    color: Option<String>,
    /// The eventlog: exec, output, input, or a path
    #[arg(short, long, default_value = "eventlog")]
    path: String,
}

impl Shown {
    fn printer(&self) -> Result<Printer, Failure> {
        Printer::new(&Style {
            format: self.format.as_deref(),
            time: self.time_format.as_deref(),
            human: self.human,
            color: self.color.as_deref(),
            offset_width: 0,
        })
    }
}

#[derive(Args)]
pub(super) struct Eventlog {
    #[command(flatten)]
    shown: Shown,
    /// Print new events until the last one
    #[arg(short = 'F', long)]
    follow: bool,
    /// Job
    id: JobIdArg,
}

fn not_found(path: &str, id: &JobIdArg) -> Failure {
    match path {
        "eventlog" => Failure::new(format!("job {id} not found")),
        path => Failure::new(format!("eventlog path {path} not found")),
    }
}

impl Eventlog {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let (path, end) = path(&self.shown.path);
        let mut printer = self.shown.printer()?;
        if self.follow {
            let wait = Wait {
                event: end,
                context: None,
                count: 1,
                waitcreate: true,
                verbose: true,
                quiet: false,
            };
            return wait.run(handle, &self.id, path, &mut printer).await;
        }
        let log = match lookup(handle, self.id.id, path, 0).await {
            Err(e) if e.errno == libc::ENOENT => return Err(not_found(path, &self.id)),
            log => log?,
        };
        let events = formats::eventlog::decode(&log).map_err(|e| Failure::new(e.to_string()))?;
        let text: String = events.iter().map(|e| printer.line(e)).collect();
        output::write(&text);
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct WaitEvent {
    #[command(flatten)]
    shown: Shown,
    /// Give up after this long
    #[arg(short, long, value_name = "DURATION", value_parser = formats::fsd::parse)]
    timeout: Option<f64>,
    /// Only events with this in their context
    #[arg(short, long, value_name = "KEY=VAL")]
    match_context: Option<String>,
    /// Wait for this many events
    #[arg(
        short,
        long,
        value_name = "COUNT",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    count: i64,
    /// Do not print the event
    #[arg(short, long)]
    quiet: bool,
    /// Print all events before it
    #[arg(short, long)]
    verbose: bool,
    /// Wait for the eventlog to exist
    #[arg(short = 'W', long)]
    waitcreate: bool,
    /// Job
    id: JobIdArg,
    /// Name of the event
    event: String,
}

/// What is waited for, and what is printed meanwhile.
struct Wait<'a> {
    /// `None`: wait for the log to end.
    event: Option<&'a str>,
    context: Option<(&'a str, &'a str)>,
    count: i64,
    waitcreate: bool,
    verbose: bool,
    quiet: bool,
}

impl Wait<'_> {
    async fn run(
        &self,
        handle: &Handle,
        id: &JobIdArg,
        path: &str,
        printer: &mut Printer,
    ) -> Outcome {
        let mut stream = watch(handle, id.id, path, self.waitcreate);
        let mut matches = 0;
        while let Some(answer) = stream.next().await {
            let answer = match answer {
                Err(e) if e.errno == libc::ENOENT => return Err(not_found(path, id)),
                answer => answer?,
            };
            for event in attach::decode_events(&answer)? {
                let mut found = Some(event.name.as_str()) == self.event;
                if let Some((key, value)) = self.context {
                    found &= context_matches(&event, key, value);
                }
                matches += i64::from(found);
                let is_last = found && matches == self.count;
                match is_last && !self.quiet || !is_last && self.verbose {
                    true => output::write(&printer.line(&event)),
                    false => printer.pass(&event),
                }
                if is_last {
                    attach::cancel_watch(&stream);
                    return Ok(0);
                }
            }
        }
        match self.event {
            Some(event) => Err(Failure::new(format!("event '{event}' never received"))),
            None => Ok(0),
        }
    }
}

fn watch(handle: &Handle, id: JobId, path: &str, waitcreate: bool) -> client::RpcStream {
    let request = json!({"id": id, "path": path, "flags": u32::from(waitcreate)});
    handle.stream("job-info.eventlog-watch", Node::Any, &request)
}

impl WaitEvent {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let mut printer = self.shown.printer()?;
        if self.count <= 0 {
            return Err(Failure::new("count must be > 0"));
        }
        let context = match &self.match_context {
            None => None,
            Some(text) => Some(text.split_once('=').ok_or_else(|| {
                Failure::new(format!(
                    "--match-context: '{text}' is not of the form key=value"
                ))
            })?),
        };
        let wait = Wait {
            event: Some(&self.event),
            context,
            count: self.count,
            waitcreate: self.waitcreate,
            verbose: self.verbose,
            quiet: self.quiet,
        };
        let (path, _) = path(&self.shown.path);
        let run = wait.run(handle, &self.id, path, &mut printer);
        match crate::environment::within(self.timeout, run).await {
            Some(outcome) => outcome,
            None => Err(Failure::new(format!(
                "wait-event timeout on event '{}'",
                self.event
            ))),
        }
    }
}
