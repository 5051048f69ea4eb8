//! `flux job urgency`, `memo`, `purge`, `timeleft`.

use clap::Args;
use client::{Handle, Node};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Context, Failure, Outcome};
use crate::jobid::JobIdArg;
use crate::output::outln;
use crate::pairs::tree;

#[derive(Args)]
pub(super) struct Urgency {
    /// Say what the urgency was
    #[arg(short, long)]
    verbose: bool,
    /// Job
    id: JobIdArg,
    /// 0 to 31, hold, expedite or default
    urgency: String,
}

impl Urgency {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let urgency: formats::Urgency = self
            .urgency
            .parse()
            .map_err(|e| Failure::new(format!("error parsing urgency: {e}")))?;
        #[derive(Deserialize)]
        struct Answer {
            old_urgency: formats::Urgency,
        }
        let request = json!({"id": self.id.id, "urgency": urgency});
        let call = handle.call("job-manager.urgency", Node::Any, &request);
        let Answer { old_urgency } = call.await.context(&self.id)?;
        if self.verbose {
            match old_urgency {
                formats::Urgency::HOLD => eprintln!("old urgency: job held"),
                formats::Urgency::EXPEDITE => eprintln!("old urgency: job expedited"),
                n => eprintln!("old urgency: {n}"),
            }
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Memo {
    /// Keep the memo out of the eventlog (it is lost when the instance restarts)
    #[arg(long)]
    volatile: bool,
    /// Job
    id: JobIdArg,
    /// Data; dots in keys nest, values may be JSON, - reads standard input
    #[arg(required = true, value_name = "KEY=VALUE")]
    pairs: Vec<String>,
}

impl Memo {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let memo = tree("memo", &self.pairs)?;
        let request = json!({"id": self.id.id, "volatile": self.volatile, "memo": memo});
        let rpc = handle.rpc("job-manager.memo", Node::Any, &request);
        rpc.await.context("memo")?;
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Purge {
    /// Jobs that became inactive longer ago than this
    #[arg(long, value_name = "FSD", value_parser = formats::fsd::parse)]
    age_limit: Option<f64>,
    /// The oldest jobs, until COUNT are left
    #[arg(long, value_name = "COUNT")]
    num_limit: Option<i64>,
    /// Do it, rather than say what would be done
    #[arg(short, long)]
    force: bool,
    /// Jobs per request
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    batch: i64,
    /// Jobs
    id: Vec<JobIdArg>,
}

#[derive(Deserialize)]
struct Purged {
    count: i64,
}

impl Purge {
    async fn by_id(&self, handle: &Handle) -> Result<i64, Failure> {
        let calls = self.id.iter().map(|id| {
            let request = json!({"id": id.id, "force": i32::from(self.force)});
            async move {
                let topic = "job-manager.purge-id";
                handle.call::<Purged>(topic, Node::Rank(0), &request).await
            }
        });
        let mut total = 0;
        for answer in join_all(calls).await {
            total += answer.context("purge")?.count;
        }
        Ok(total)
    }

    async fn by_limit(&self, handle: &Handle) -> Result<i64, Failure> {
        let request = json!({
            "age_limit": self.age_limit.unwrap_or(-1.),
            "num_limit": self.num_limit.unwrap_or(-1),
            "batch": self.batch,
            "force": self.force,
        });
        let mut total = 0;
        loop {
            let call = handle.call("job-manager.purge", Node::Rank(0), &request);
            let Purged { count } = call.await.context("purge")?;
            total += count;
            if !self.force || count != self.batch {
                return Ok(total);
            }
        }
    }

    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let total = match self.id.is_empty() {
            true => self.by_limit(handle).await?,
            false => self.by_id(handle).await?,
        };
        let rpc = handle.rpc_raw("job-manager.stats-get", Node::Rank(0), None);
        let stats: Value = rpc.await.context("purge: inactive jobs")?.json()?;
        let inactive = stats["inactive_jobs"].as_i64().unwrap_or(0);
        match self.force {
            true => outln!("purged {total} inactive jobs, {inactive} remaining"),
            false => outln!("use --force to purge {total} of {inactive} inactive jobs"),
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Timeleft {
    /// Print a duration instead of seconds
    #[arg(short = 'H', long)]
    human: bool,
    /// Job (default: FLUX_JOB_ID, or the instance itself)
    id: Option<String>,
}

/// When the time of a job or the instance ends; 0 is never.
async fn expiration(handle: &Handle, job: Option<&str>) -> Result<f64, Failure> {
    let Some(text) = job else {
        let rpc = handle.rpc("resource.status", Node::Rank(0), &json!({}));
        let status: Value = rpc.await.context("instance expiration")?.json()?;
        return Ok(status["R"]["execution"]["expiration"]
            .as_f64()
            .unwrap_or(0.));
    };
    let id = crate::jobid::parse(text)?;
    let attrs = ["expiration", "state"].map(str::to_owned);
    let job = match crate::jobs::list_id(handle, id, &attrs).await {
        Err(e) if e.errno == libc::ENOENT => {
            return Err(Failure::new(format!("{text}: no such jobid")));
        }
        job => job.context(text)?,
    };
    let state = job.get("state").and_then(Value::as_u64).unwrap_or(0) as u32;
    if state & formats::job::PENDING != 0 {
        return Err(Failure::new(format!("job {text} has not started")));
    }
    if state != formats::JobState::Run.bit() {
        // Long over.
        return Ok(1.);
    }
    let expiration = job.get("expiration").and_then(Value::as_f64);
    expiration.ok_or_else(|| Failure::new(format!("job {text}: no expiration is known")))
}

impl Timeleft {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let job = self.id.or_else(|| std::env::var("FLUX_JOB_ID").ok());
        let left = match expiration(handle, job.as_deref()).await? {
            0. => f64::INFINITY,
            t => (t - formats::eventlog::timestamp(std::time::SystemTime::now())).max(0.),
        };
        if self.human {
            outln!("{}", formats::fsd::format(left));
        } else if left.is_infinite() {
            outln!("{}", u32::MAX);
        } else {
            // A job with time left never shows 0.
            let floor = left.floor().max(if left > 0. { 1. } else { 0. });
            outln!("{floor:.0}");
        }
        Ok(0)
    }
}
