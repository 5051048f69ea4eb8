//! `flux watch`: the output of jobs, also of those that have ended (flux-watch(1)).

use clap::Parser;
use client::Handle;
use formats::{JobResult, JobState};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::jobid::JobIdArg;
use crate::jobs::{Filter, Job, Query, now};
use crate::submit::progress::{Progress, Stage};
use crate::submit::watch::{Follow, Sink, follow};

/// Show the output of jobs until all have ended.
#[derive(Parser)]
struct Options {
    /// Watch all active jobs
    #[arg(short, long)]
    active: bool,
    /// Watch all jobs
    #[arg(short = 'A', long)]
    all: bool,
    /// Watch N jobs at most; 0 is no limit
    #[arg(short, long, value_name = "N", default_value_t = 1000)]
    count: i64,
    /// Watch jobs that were active after WHEN (of all states, unless --filter is given)
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<String>,
    /// Watch jobs with these states or results
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Vec<String>,
    /// Show progress on a terminal
    #[arg(long)]
    progress: bool,
    /// With --progress: show jobs per second
    #[arg(long)]
    jps: bool,
    /// Put the job and the rank of its task before each line
    #[arg(short, long)]
    label_io: bool,
    /// Say how many jobs there are and how they end; twice: show their events
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The jobs
    #[arg(value_name = "JOBID")]
    jobids: Vec<JobIdArg>,
}

impl Options {
    fn query(&self, now: f64) -> Result<Query, Failure> {
        let mut query = Query::new();
        query.ids.clone_from(&self.jobids);
        query.attrs = ["state", "result", "t_submit"].map(str::to_owned).to_vec();
        query.max_entries = self.count;
        let mut filter = Filter::default();
        if self.active {
            filter = Filter::active();
        }
        if self.all {
            filter = Filter::everything();
        }
        for words in &self.filter {
            filter.add(words).map_err(|e| e.code(2))?;
        }
        if let Some(since) = &self.since {
            crate::datetime::parse(since, now)
                .context("--since: invalid value")
                .and_then(|time| query.active_since(since, time, now))
                .map_err(|e| e.code(2))?;
            if filter.is_empty() {
                filter = Filter::everything();
            }
        }
        if filter.is_empty() && self.jobids.is_empty() {
            return Err(Failure::new(
                "At least one job selection option is required",
            ));
        }
        if !filter.is_empty() && !self.jobids.is_empty() {
            eprintln!("flux-watch: WARNING: Filtering options ignored with jobid list");
        }
        query.filter = filter;
        Ok(query)
    }
}

/// How a job counts when watching begins.
fn stage(job: &Job) -> Stage {
    match (job.state(), job.result()) {
        (Some(JobState::Inactive), Some(JobResult::Completed)) => Stage::Complete,
        (Some(JobState::Inactive), _) => Stage::Failed,
        (Some(JobState::Run | JobState::Cleanup), _) => Stage::Running,
        _ => Stage::Pending,
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
    let query = options.query(now())?;
    block_on(watch(&options, &query))
}

async fn watch(options: &Options, query: &Query) -> Outcome {
    let handle = Handle::open(None).await?;
    let (jobs, faults) = query.fetch(&handle).await?;
    for fault in faults {
        eprintln!("flux-watch: {fault}");
    }
    let now = now();
    let mut jobs: Vec<Job> = jobs.into_iter().map(|job| Job::new(job, now)).collect();
    let submitted = |job: &Job| job.time("t_submit");
    jobs.sort_by(|a, b| {
        let order = submitted(a).total_cmp(&submitted(b));
        order.then(a.id.cmp(&b.id))
    });
    if options.verbose > 0 {
        let s = if jobs.len() == 1 { "" } else { "s" };
        eprintln!("flux-watch: Watching {} job{s}", jobs.len());
    }
    let mut progress = Progress::default();
    if options.progress {
        progress = Progress::new("watch", jobs.len(), options.jps, false);
        if let Some(first) = jobs.first() {
            progress.since(submitted(first));
        }
    }
    let how = Follow {
        wait: "clean".to_owned(),
        watch: true,
        label: options.label_io,
        log_status: options.verbose > 0,
        log_events: options.verbose > 1,
        stdout: Sink::Stdout,
        stderr: Sink::Stderr,
        progress: progress.clone(),
    };
    for job in &jobs {
        progress.moves(None, stage(job));
    }
    let mut followed: FuturesUnordered<_> = jobs
        .iter()
        .map(|job| follow(&handle, job.id, stage(job), &how))
        .collect();
    let mut code = 0;
    while let Some(ended) = followed.next().await {
        code = code.max(ended?);
    }
    Ok(code)
}
