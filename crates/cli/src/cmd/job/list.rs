//! `flux job list`, `list-inactive`, `list-ids`, `last`: for scripts and tests.

use clap::Args;
use client::{Handle, Node};
use formats::{JobId, JobState};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::kill::states;
use crate::error::{Failure, Outcome};
use crate::jobid::{JobIdArg, shown};
use crate::jobs::{ANY_USER, own_user, parse_user};
use crate::output::outln;

#[derive(Args)]
pub(super) struct List {
    /// At most N jobs
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: i64,
    /// Jobs in these states
    #[arg(short, long, value_delimiter = ',')]
    states: Vec<String>,
    /// Jobs of a user, or all
    #[arg(short, long)]
    user: Option<String>,
    /// My jobs in any state
    #[arg(short = 'a', long = "all-user")]
    all_user: bool,
    /// All jobs of all users
    #[arg(short = 'A', long)]
    all: bool,
}

/// Print the jobs a request lists, one JSON object a line.
async fn list(handle: &Handle, request: &Value) -> Outcome {
    #[derive(Deserialize)]
    struct Answer {
        jobs: Vec<Value>,
        #[serde(default)]
        version: i64,
    }
    let mut stream = handle.stream("job-list.list", Node::Any, request);
    let mut is_first = true;
    while let Some(answer) = stream.next().await {
        let answer: Answer = answer?.json()?;
        for job in &answer.jobs {
            outln!("{}", crate::pyjson::dumps_utf8(job));
        }
        // Version 0 of the protocol, told in the first answer, has no other.
        if std::mem::take(&mut is_first) && answer.version == 0 {
            break;
        }
    }
    Ok(0)
}

impl List {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let everything = formats::job::ACTIVE | JobState::Inactive.bit();
        let states = match (self.all || self.all_user, self.states.is_empty()) {
            (true, _) => everything,
            (false, true) => formats::job::ACTIVE,
            (false, false) => states(&self.states)?,
        };
        let user = match (self.all, &self.user) {
            (true, _) => ANY_USER,
            (false, Some(user)) => parse_user(user)?,
            (false, None) => own_user(),
        };
        let mut all = vec![json!({"states": [states]})];
        if user != ANY_USER {
            all.insert(0, json!({"userid": [user]}));
        }
        let request = json!({
            "max_entries": self.count, "attrs": ["all"], "constraint": {"and": all}
        });
        list(handle, &request).await
    }
}

#[derive(Args)]
pub(super) struct ListInactive {
    /// At most N jobs
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: i64,
    /// Jobs that became inactive since this time
    #[arg(short, long, value_name = "T", default_value_t = 0.)]
    since: f64,
}

impl ListInactive {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let request = json!({
            "max_entries": self.count, "since": self.since, "attrs": ["all"],
            "constraint": {"states": [JobState::Inactive.bit()]}
        });
        list(handle, &request).await
    }
}

#[derive(Args)]
pub(super) struct ListIds {
    /// Wait until jobs have reached a state
    #[arg(short = 'W', long, value_name = "STATE", default_value = "depend")]
    wait_state: String,
    /// Jobs
    #[arg(required = true)]
    id: Vec<JobIdArg>,
}

impl ListIds {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let state: JobState = self.wait_state.parse().map_err(|_| {
            Failure::new(format!("invalid job state '{}' specified", self.wait_state))
        })?;
        let sent = self.id.iter().map(|id| {
            let request = json!({"id": id.id, "attrs": ["all"], "state": state.bit()});
            handle.rpc("job-list.list-id", Node::Any, &request)
        });
        // Jobs are printed as they reach the state.
        let mut answers: FuturesUnordered<_> = sent.collect();
        while let Some(answer) = answers.next().await {
            let answer: Value = answer?.json()?;
            outln!("{}", crate::pyjson::dumps_utf8(&answer["job"]));
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Last {
    /// How many, or a range [START:STOP:STEP] counted from the newest
    #[arg(value_name = "N|SLICE", allow_negative_numbers = true)]
    slice: Option<String>,
}

impl Last {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let slice = match self.slice {
            None => "[:1]".to_owned(),
            Some(slice) if slice.contains('[') => slice,
            Some(count) => match count.parse::<i64>() {
                Ok(count) => format!("[:{count}]"),
                Err(_) => {
                    return Err(Failure::new(format!(
                        "'{count}' is neither a number nor a range [START:STOP:STEP]"
                    )));
                }
            },
        };
        #[derive(Deserialize)]
        struct Answer {
            jobs: Vec<JobId>,
        }
        let request = json!({ "slice": slice });
        let Answer { jobs } = handle
            .call("job-manager.history.get", Node::Any, &request)
            .await?;
        if jobs.is_empty() {
            return Err(Failure::new("job history is empty"));
        }
        for id in jobs {
            outln!("{}", shown(id));
        }
        Ok(0)
    }
}
