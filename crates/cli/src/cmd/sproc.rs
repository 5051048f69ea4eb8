//! `flux sproc`: list, signal and wait for processes that brokers run (RFC 42).

use clap::{Args as ClapArgs, Parser, Subcommand};
use client::{Handle, Node};
use formats::iodata::IoData;
use formats::job::WaitStatus;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome, rpc_text};
use crate::format::{Format, Item, Value};
use crate::output;

/// List, signal and wait for processes that brokers run.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send a signal
    Kill {
        #[command(flatten)]
        place: Place,
        /// Wait for the process to end and exit as it did
        #[arg(short, long)]
        wait: bool,
        /// Number of the signal
        signum: i32,
        /// Process id, or label
        #[arg(value_name = "PID|LABEL")]
        target: String,
    },
    /// Wait for a process to end and exit as it did
    Wait {
        #[command(flatten)]
        place: Place,
        /// Print what was kept of its output
        #[arg(short, long)]
        output: bool,
        /// Process id, or label
        #[arg(value_name = "PID|LABEL")]
        target: String,
    },
    /// List processes
    Ps {
        #[command(flatten)]
        place: Place,
        /// Output format: Python's format syntax
        #[arg(short = 'o', long, default_value = DEFAULT)]
        format: String,
        /// Do not print the heading
        #[arg(short, long)]
        no_header: bool,
    },
}

/// Which service.
#[derive(ClapArgs)]
struct Place {
    /// Rank (default: this broker's)
    #[arg(short, long)]
    rank: Option<u32>,
    /// The service, instead of rexec
    #[arg(short, long, value_name = "NAME", default_value = "rexec")]
    service: String,
}

const DEFAULT: &str = "{pid:>9} {state:<2} {label:<12} {cmd}";

const HEADINGS: &[(&str, &str)] = &[
    ("pid", "PID"),
    ("state", "ST"),
    ("label", "LABEL"),
    ("rank", "RANK"),
    ("cmd", "COMMAND"),
];

#[derive(Deserialize)]
struct Listed {
    pid: i64,
    cmd: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    state: String,
    #[serde(skip)]
    rank: u32,
}

impl Item for Listed {
    fn field(&self, name: &str) -> Value {
        match name {
            "pid" => Value::Int(self.pid),
            "state" => Value::Str(self.state.clone()),
            "label" => Value::Str(self.label.clone()),
            "rank" => Value::Int(self.rank.into()),
            _ => Value::Str(self.cmd.clone()),
        }
    }
}

impl Place {
    fn node(&self) -> Node {
        self.rank.map_or(Node::Any, Node::Rank)
    }

    fn topic(&self, method: &str) -> String {
        format!("{}.{method}", self.service)
    }
}

/// A number is a process id, anything else a label.
pub(crate) fn target(text: &str) -> Json {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => json!({ "pid": pid }),
        _ => json!({ "pid": -1, "label": text }),
    }
}

async fn wait(handle: &Handle, place: &Place, name: &str, show: bool) -> Outcome {
    #[derive(Deserialize)]
    struct Answer {
        status: i32,
        #[serde(default)]
        output: Vec<IoData>,
    }
    let Answer { status, output } = handle
        .call(&place.topic("wait"), place.node(), &target(name))
        .await
        .map_err(|e| Failure::new(format!("{name}: {}", rpc_text(&e))))?;
    if show {
        for io in output {
            output::write_to(&io.stream, &io.data);
        }
    }
    Ok(WaitStatus(status).exit_code() as u8)
}

async fn kill(handle: &Handle, place: &Place, name: &str, signum: i32, then: bool) -> Outcome {
    let mut request = target(name);
    request["signum"] = signum.into();
    let killed = handle
        .rpc(&place.topic("kill"), place.node(), &request)
        .await
        .map_err(|e| Failure::new(format!("{name}: {}", rpc_text(&e))));
    if !then {
        return killed.map(|_| 0);
    }
    // It may have ended before: then its status is what counts.
    let code = wait(handle, place, name, false).await?;
    if let Err(fault) = killed {
        eprintln!("flux-sproc: {}", fault.message);
    }
    Ok(code)
}

async fn ps(handle: &Handle, place: &Place, format: &str, no_header: bool) -> Outcome {
    #[derive(Deserialize)]
    struct Answer {
        rank: u32,
        procs: Vec<Listed>,
    }
    let format = Format::parse(format, HEADINGS)?;
    let answer: Answer = handle
        .call(&place.topic("list"), place.node(), &json!({}))
        .await?;
    let mut procs = answer.procs;
    for listed in &mut procs {
        listed.rank = answer.rank;
    }
    format.print(procs, no_header)?;
    Ok(0)
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(async {
        let handle = Handle::open(None).await?;
        match &options.command {
            Command::Kill {
                place,
                wait,
                signum,
                target,
            } => kill(&handle, place, target, *signum, *wait).await,
            Command::Wait {
                place,
                output,
                target,
            } => wait(&handle, place, target, *output).await,
            Command::Ps {
                place,
                format,
                no_header,
            } => ps(&handle, place, format, *no_header).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pids() {
        assert_eq!(target("12"), json!({"pid": 12}));
        assert_eq!(target("0"), json!({"pid": -1, "label": "0"}));
        assert_eq!(target("x1"), json!({"pid": -1, "label": "x1"}));
    }
}
