//! `flux job kill`, `killall`, `raise`, `raiseall`.

use clap::Args;
use client::{Handle, Node};
use formats::JobId;
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Failure, Outcome, rpc_text};
use crate::jobs::{own_user, parse_user};

/// A signal's number, from its name with or without `SIG`, or its number.
pub(crate) fn signal(text: &str) -> Result<i32, Failure> {
    if let Ok(number) = text.parse::<i32>()
        && number > 0
    {
        return Ok(number);
    }
    let name = match text.starts_with("SIG") {
        true => text.to_owned(),
        false => format!("SIG{text}"),
    };
    name.parse::<nix::sys::signal::Signal>()
        .map(|s| s as i32)
        .map_err(|_| Failure::new(format!("Invalid signal {text}")))
}

/// The leading words that are job ids, and the rest.
fn ids_and_rest(words: &[String]) -> (Vec<(&str, JobId)>, &[String]) {
    let ids = words
        .iter()
        .map_while(|w| Some((w.as_str(), w.parse().ok()?)));
    let ids: Vec<_> = ids.collect();
    let rest = &words[ids.len()..];
    (ids, rest)
}

/// Send a request for each job; tell which failed.
async fn for_each(
    handle: &Handle,
    topic: &str,
    ids: &[(&str, JobId)],
    what: &str,
    request: impl Fn(JobId) -> Value,
) -> Outcome {
    let sent: Vec<_> = ids
        .iter()
        .map(|(_, id)| handle.rpc(topic, Node::Any, &request(*id)))
        .collect();
    let mut code = 0;
    for ((word, _), answer) in ids.iter().zip(join_all(sent).await) {
        if let Err(e) = answer {
            eprintln!("flux-job: {what} {word}: {}", rpc_text(&e));
            code = 1;
        }
    }
    Ok(code)
}

#[derive(Args)]
pub(super) struct Kill {
    /// Signal to send
    #[arg(short, long, value_name = "SIG", default_value = "SIGTERM")]
    signal: String,
    /// Jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Kill {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let (ids, rest) = ids_and_rest(&self.ids);
        if let Some(word) = rest.first() {
            return Err(Failure::new(format!("invalid jobid: {word}")));
        }
        let signum = signal(&self.signal)?;
        let request = |id| json!({"id": id, "signum": signum});
        for_each(handle, "job-manager.kill", &ids, "kill", request).await
    }
}

#[derive(Args)]
pub(super) struct Raise {
    /// Severity, 0 to 7; 0 ends the job
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    severity: i64,
    /// Type
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        default_value = "cancel"
    )]
    kind: String,
    /// Note
    #[arg(short, long, value_name = "NOTE")]
    message: Option<String>,
    /// Jobs, then the note
    #[arg(required = true, value_name = "ID")]
    words: Vec<String>,
    /// The note
    #[arg(last = true)]
    note: Vec<String>,
}

impl Raise {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let (ids, rest) = ids_and_rest(&self.words);
        let words: Vec<&str> = rest.iter().chain(&self.note).map(String::as_str).collect();
        let note = match (words.is_empty(), &self.message) {
            (true, message) => message.clone(),
            (false, None) => Some(words.join(" ")),
            (false, Some(_)) => {
                return Err(Failure::new(
                    "give the note either as words or as --message",
                ));
            }
        };
        let request = |id| {
            let mut request = json!({"id": id, "severity": self.severity, "type": self.kind});
            if let Some(note) = &note {
                request["note"] = json!(note);
            }
            request
        };
        for_each(handle, "job-manager.raise", &ids, "raise", request).await
    }
}

/// What a request on many jobs came to.
#[derive(Deserialize)]
struct Many {
    count: i64,
    errors: i64,
}

fn report(many: &Many, force: bool, done: &str) -> Outcome {
    let Many { count, errors } = many;
    match (count, force) {
        (0, _) => eprintln!("flux-job: Command matched 0 jobs"),
        (_, false) => eprintln!("flux-job: Command matched {count} jobs (-f to confirm)"),
        (_, true) => eprintln!("flux-job: {done} {count} jobs ({errors} errors)"),
    }
    Ok(0)
}

fn target(user: Option<&str>) -> Result<u32, Failure> {
    user.map_or_else(|| Ok(own_user()), parse_user)
}

#[derive(Args)]
pub(super) struct Killall {
    /// Signal to send
    #[arg(short, long, value_name = "SIG", default_value = "SIGTERM")]
    signal: String,
    /// Jobs of this user, or all
    #[arg(short, long)]
    user: Option<String>,
    /// Do it, rather than say what would be done
    #[arg(short, long)]
    force: bool,
}

impl Killall {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let signum = signal(&self.signal)?;
        let userid = target(self.user.as_deref())?;
        let request = json!({"dry_run": !self.force, "userid": userid, "signum": signum});
        let many: Many = handle
            .call("job-manager.killall", Node::Any, &request)
            .await?;
        report(&many, self.force, &formats::signals::describe(signum))
    }
}

#[derive(Args)]
pub(super) struct Raiseall {
    /// Severity, 0 to 7; 0 ends jobs
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 7,
        allow_negative_numbers = true
    )]
    severity: i64,
    /// Jobs of this user, or all
    #[arg(short, long)]
    user: Option<String>,
    /// Jobs in these states (default: active)
    #[arg(short = 'S', long, value_name = "STATES", value_delimiter = ',')]
    states: Vec<String>,
    /// Do it, rather than say what would be done
    #[arg(short, long)]
    force: bool,
    /// Type
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Note
    #[arg(trailing_var_arg = true)]
    message: Vec<String>,
}

/// A mask of states named on the command line.
pub(super) fn states(names: &[String]) -> Result<u32, Failure> {
    names.iter().try_fold(0, |mask, name| {
        let state = formats::job::state_mask(name);
        let state = state
            .map_err(|_| Failure::new(format!("error parsing --states: {name} is unknown")))?;
        Ok(mask | state)
    })
}

impl Raiseall {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let states = match self.states.is_empty() {
            true => formats::job::ACTIVE,
            false => states(&self.states)?,
        };
        if states & formats::JobState::Inactive.bit() != 0 {
            return Err(Failure::new("Exceptions cannot be raised on inactive jobs"));
        }
        let request = json!({
            "dry_run": !self.force,
            "userid": target(self.user.as_deref())?,
            "states": states,
            "severity": self.severity,
            "type": self.kind,
            "note": self.message.join(" "),
        });
        let many: Many = handle
            .call("job-manager.raiseall", Node::Any, &request)
            .await?;
        report(&many, self.force, "Raised exception on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        assert_eq!(signal("TERM").unwrap(), 15);
        assert_eq!(signal("SIGKILL").unwrap(), 9);
        assert_eq!(signal("10").unwrap(), 10);
        for bad in ["", "0", "-1", "FOO", "sigterm"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_come_before_the_note() {
        let words = ["f1", "2", "went", "f3"].map(str::to_owned);
        let (ids, rest) = ids_and_rest(&words);
        assert_eq!(ids.len(), 2);
        assert_eq!(rest, ["went", "f3"]);
    }
}
