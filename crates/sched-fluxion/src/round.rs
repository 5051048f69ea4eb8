//! What the queue manager and the graph say to each other: payloads of `sched-fluxion-resource.schedule`.
//!
//! A [`Round`] is what has happened, an [`Outcome`] what came of it; [`crate::waiting`] is between.

use std::collections::BTreeMap;

use fluxion::plan::Time;
use formats::jobid::JobId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// What has happened since the last round.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Round {
    /// Forget all that was told before, and begin with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
    /// Jobs that wait from now on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Add>,
    /// Jobs that no longer wait.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<JobId>,
    /// Jobs with new priorities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prioritize: Vec<(JobId, i64)>,
    /// What jobs give back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub free: Vec<Free>,
    /// Running jobs with other ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extend: Vec<(JobId, f64)>,
}

/// The beginning of a queue manager's life.
#[derive(Debug, Serialize, Deserialize)]
pub struct Open {
    /// Its queues: tables with `queue-policy`, `queue-params` and `policy-params`.
    pub queues: BTreeMap<String, Value>,
    /// Jobs that hold resources.
    pub running: Vec<Running>,
}

/// A job that holds resources.
#[derive(Debug, Serialize, Deserialize)]
pub struct Running {
    /// The job.
    pub id: JobId,
    /// What it was given.
    pub r: Value,
    /// Ranks it has given back.
    pub free: Option<String>,
}

/// A job that waits.
#[derive(Debug, Serialize, Deserialize)]
pub struct Add {
    /// The job.
    pub id: JobId,
    /// Its queue; one of those that were opened.
    pub queue: String,
    /// Greater ones are first.
    pub priority: i64,
    /// When it was submitted, which decides among those of a priority.
    pub t_submit: f64,
    /// What it asks for.
    pub jobspec: Box<RawValue>,
}

/// Resources that come back.
#[derive(Debug, Serialize, Deserialize)]
pub struct Free {
    /// The job.
    pub id: JobId,
    /// What it gives back.
    pub r: Value,
    /// Whether that is all it still has.
    #[serde(rename = "final")]
    pub last: bool,
}

/// What came of a round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Jobs that have resources now.
    pub started: Vec<Started>,
    /// Jobs that can never run, and why.
    pub denied: Vec<(JobId, String)>,
    /// Jobs that no longer wait, as asked.
    pub dropped: Vec<JobId>,
    /// Waiting jobs of which something new is known.
    pub outlook: Vec<Outlook>,
    /// Jobs that should hold resources which cannot be had, and why.
    pub lost: Vec<(JobId, String)>,
}

/// A job that has resources now.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// The job.
    pub id: JobId,
    /// R.
    pub r: Box<RawValue>,
    /// How it came to be its turn.
    pub turn: Turn,
}

/// How it came to be a job's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// It was first.
    Immediate,
    /// It passed others.
    Backfill,
    /// It had a reservation.
    Reserved,
}

/// What is known of a waiting job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outlook {
    /// The job.
    pub id: JobId,
    /// When it is expected to start.
    pub at: Option<Time>,
    /// Why it waits.
    pub reason: String,
}
