//! `flux cancel`: cancel jobs.

use clap::Parser;
use client::{Handle, Node};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::json;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome, rpc_text};
use crate::jobid::{JobIdArg, shown};
use crate::jobs::{own_user, parse_user};

/// Cancel pending or running jobs.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    /// All jobs
    #[arg(long)]
    all: bool,
    /// Only say how many jobs would be canceled
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Say nothing when no job matches
    #[arg(short, long)]
    quiet: bool,
    /// Jobs of a user, or all
    #[arg(short, long)]
    user: Option<String>,
    /// Jobs in these states (default: active)
    #[arg(short = 'S', long, alias = "state", value_delimiter = ',')]
    states: Vec<String>,
    /// Note of the exception
    #[arg(short, long, value_name = "NOTE")]
    message: Option<String>,
    /// Jobs
    #[arg(value_name = "JOBID")]
    jobids: Vec<JobIdArg>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let mut options: Options = args.parse_or(2)?;
    options.all |= options.user.is_some() || !options.states.is_empty();
    match (options.all, options.jobids.is_empty()) {
        (true, false) => Err(Failure::new(
            "Do not specify a list of jobids with --all,--user,--states options",
        )),
        (true, true) => many(&options),
        (false, true) => Err(Failure::new("No target jobs were provided")),
        (false, false) => some(&options),
    }
}

/// `1 job`, `2 jobs`.
pub(crate) fn counted(count: i64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn some(options: &Options) -> Outcome {
    if options.dry_run {
        let count = options.jobids.len() as i64;
        eprintln!("flux-cancel: Would cancel {}", counted(count, "job"));
        return Ok(0);
    }
    block_on(async {
        let handle = Handle::open(None).await?;
        let sent = options.jobids.iter().map(|id| {
            let mut request = json!({"id": id.id, "severity": 0, "type": "cancel"});
            if let Some(note) = &options.message {
                request["note"] = json!(note);
            }
            handle.rpc("job-manager.raise", Node::Any, &request)
        });
        let sent: Vec<_> = sent.collect();
        let mut code = 0;
        for (id, answer) in options.jobids.iter().zip(join_all(sent).await) {
            if let Err(e) = answer {
                eprintln!("flux-cancel: {}: {}", shown(id.id), rpc_text(&e));
                code = 1;
            }
        }
        Ok(code)
    })
}

fn states(names: &[String]) -> Result<u32, Failure> {
    const KNOWN: [&str; 7] = [
        "depend", "priority", "sched", "run", "pending", "running", "active",
    ];
    names.iter().try_fold(0, |mask, name| {
        let known = KNOWN.contains(&name.to_ascii_lowercase().as_str());
        match formats::job::state_mask(name) {
            Ok(state) if known => Ok(mask | state),
            _ => Err(Failure::new(format!("Invalid state {name} specified"))),
        }
    })
}

fn many(options: &Options) -> Outcome {
    let userid = match &options.user {
        Some(user) => parse_user(user)?,
        None => own_user(),
    };
    let states = match options.states.is_empty() {
        true => formats::job::ACTIVE,
        false => states(&options.states)?,
    };
    let mut request = json!({
        "dry_run": options.dry_run, "userid": userid, "states": states, "severity": 0,
        "type": "cancel",
    });
    if let Some(note) = &options.message {
        request["note"] = json!(note);
    }
    #[derive(Deserialize)]
    struct Answer {
        count: i64,
        errors: i64,
    }
    block_on(async {
        let handle = Handle::open(None).await?;
        let Answer { count, errors } = handle
            .call("job-manager.raiseall", Node::Any, &request)
            .await?;
        let jobs = counted(count, "job");
        match (count, options.dry_run) {
            (0, _) if options.quiet => {}
            (0, _) => eprintln!("flux-cancel: Matched 0 jobs"),
            (_, true) => eprintln!("flux-cancel: Would cancel {jobs}"),
            (_, false) => eprintln!(
                "flux-cancel: Canceled {jobs} ({})",
                counted(errors, "error")
            ),
        }
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_names() {
        let names =
            |list: &[&str]| states(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["run", "PENDING"]).unwrap(), 30);
        for bad in ["inactive", "cleanup", "r", ""] {
            assert!(names(&[bad]).is_err(), "{bad}");
        }
    }
}
