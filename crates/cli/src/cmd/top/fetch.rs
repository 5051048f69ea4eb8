//! Asking an instance for what is shown of it.

use client::services::attr::GetAttr;
use client::{Handle, Node};
use serde_json::{Value, json};

use super::screen::{Amount, Identity, Row, Snapshot};
use crate::cmd::jobs::reachable;
use crate::cmd::resource::queue_ranks;
use crate::error::{Context as _, Failure};
use crate::format::Format;
use crate::jobs::{ANY_USER, Filter, HEADINGS, Job, Query, Stats, attributes, now, own_user};
use crate::resources::Resources;

/// A job's line; the second one is for instances with queues.
const PLAIN: &str = "{id.f58:>12} {username:<8.8} {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6} \
     {runtime!F:>8h} {name}";
const QUEUED: &str = "{id.f58:>12} {queue:<8.8} {username:<8.8} {status_abbrev:>2.2} {ntasks:>6} \
     {nnodes:>6} {runtime!F:>8h} {name}";

/// More running jobs than any screen has lines for.
const MOST: i64 = 1000;

/// An instance that can be asked.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) handle: Handle,
    pub(super) identity: Identity,
    /// The job it is in the instance above it, if it is one.
    pub(super) jobid: Option<String>,
    start: f64,
}

impl Instance {
    pub(super) async fn open(uri: Option<&str>) -> Result<Instance, Failure> {
        let uri = uri.map(reachable);
        let handle = Handle::open(uri.as_deref())
            .await
            .context("error connecting to Flux")?;
        let number = async |name| {
            let text = handle.getattr(name).await.context(name)?;
            text.parse::<u32>()
                .map_err(|_| Failure::new(format!("attribute {name} is {text:?}, not a number")))
        };
        let identity = Identity {
            size: number("size").await?,
            level: number("instance-level").await?,
            version: handle.getattr("version").await.context("version")?,
            is_owner: number("security.owner").await? == own_user(),
        };
        let name = "broker.starttime";
        let start = handle.ask(Node::Rank(0), &GetAttr { name }).await?;
        let start = start.value.parse().unwrap_or_else(|_| now());
        let jobid = handle.getattr("jobid").await.ok();
        Ok(Instance {
            jobid: jobid.map(|id| crate::jobid::parse(&id).map_or(id, crate::jobid::shown)),
            handle,
            identity,
            start,
        })
    }

    /// What there is now, of all queues or of one.
    pub(super) async fn look(self, queue: Option<String>) -> Result<Snapshot, Failure> {
        let only: Vec<String> = queue.into_iter().collect();
        let mut query = Query::new();
        query.user = ANY_USER;
        query.max_entries = MOST;
        query.filter = Filter::default();
        query.filter.add("running")?;
        query.queues.clone_from(&only);
        query.attrs = attributes(&["id", "userid", "state", "annotations", "runtime"]);
        query
            .attrs
            .extend(attributes(&Format::parse(QUEUED, HEADINGS)?.fields()));
        let (resources, config, stats, jobs) = futures::join!(
            Resources::fetch(&self.handle),
            self.config(),
            Stats::fetch_open(&self.handle, &only),
            query.fetch(&self.handle),
        );
        let mut resources = resources.context("resources")?;
        let expiration = resources.all.expiration;
        if !only.is_empty() {
            let ranks = queue_ranks(&resources.all, &config, &only)?;
            resources.keep(&ranks);
        }
        let format = match config["queues"].is_object() {
            true => QUEUED,
            false => PLAIN,
        };
        let format = Format::parse(format, HEADINGS)?;
        let counts = resources.counts();
        let amount = |what| {
            let count = |state| usize::try_from(counts.get(state, what).unwrap_or(0)).unwrap_or(0);
            Amount {
                used: count("allocated"),
                down: count("down"),
                all: count("all"),
            }
        };
        let now = now();
        let (jobs, _) = jobs.context("jobs")?;
        let mut jobs: Vec<Job> = jobs.into_iter().map(|job| Job::new(job, now)).collect();
        // The newest come first.
        jobs.sort_by(|a, b| b.time("t_run").total_cmp(&a.time("t_run")));
        Ok(Snapshot {
            nodes: amount("nnodes"),
            cores: amount("ncores"),
            gpus: amount("ngpus"),
            stats: stats.context("job statistics")?,
            remaining: (expiration > 0.).then_some(expiration - now),
            uptime: now - self.start,
            heading: format.header(),
            rows: jobs
                .iter()
                .map(|job| row(job, &format))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The configuration; who may not see it sees none, and no queues.
    async fn config(&self) -> Value {
        let empty = json!({});
        let config = self.handle.call("config.get", Node::Any, &empty);
        config.await.unwrap_or_default()
    }

    /// The names of its queues.
    pub(super) async fn queues(&self) -> Vec<String> {
        let config = self.config().await;
        let names = config["queues"].as_object().into_iter().flatten();
        names.map(|(name, _)| name.clone()).collect()
    }
}

fn row(job: &Job, format: &Format) -> Result<Row, Failure> {
    let may_enter = job.is_running() && job.userid() == Some(own_user());
    Ok(Row {
        id: job.id,
        text: format.line(job)?,
        uri: job.uri().filter(|_| may_enter),
    })
}
