//! `flux watch`: the output of jobs, also of those that have ended (flux-watch(1)).

use clap::Parser;
use client::Handle;
use formats::JobId;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::{Map, Value};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::jobid::JobIdArg;
use crate::jobs::{Filter, Query, now};
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
            query.since = crate::datetime::parse(since, now).map_err(|e| {
                Failure::new(format!("--since: invalid value: {}", e.message)).code(2)
            })?;
            if query.since > now {
                let text = format!("--since={since} appears to be in the future");
                return Err(Failure::new(text).code(2));
            }
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

/// A job as it is when watching begins.
struct Watched {
    id: JobId,
    stage: Stage,
    t_submit: f64,
}

impl Watched {
    fn of(job: &Map<String, Value>) -> Option<Watched> {
        use formats::job::{self, JobResult, JobState};
        let number = |key: &str| job.get(key).and_then(Value::as_u64);
        let state = number("state").map(|bits| bits as u32);
        let is = |bits: u32| state.is_some_and(|state| state & bits != 0);
        let stage = match () {
            () if is(JobState::Inactive.bit()) => {
                match number("result") == Some(u64::from(JobResult::Completed.bit())) {
                    true => Stage::Complete,
                    false => Stage::Failed,
                }
            }
            () if is(job::RUNNING) => Stage::Running,
            () => Stage::Pending,
        };
        Some(Watched {
            id: JobId(number("id")?),
            stage,
            t_submit: job.get("t_submit").and_then(Value::as_f64)?,
        })
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
    let mut jobs: Vec<Watched> = jobs.iter().filter_map(Watched::of).collect();
    jobs.sort_by(|a, b| a.t_submit.total_cmp(&b.t_submit).then(a.id.cmp(&b.id)));
    if options.verbose > 0 {
        let s = if jobs.len() == 1 { "" } else { "s" };
        eprintln!("flux-watch: Watching {} job{s}", jobs.len());
    }
    let mut progress = Progress::default();
    if options.progress {
        progress = Progress::new("watch", jobs.len(), options.jps, false);
        if let Some(first) = jobs.first() {
            progress.since(first.t_submit);
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
        progress.moves(None, job.stage);
    }
    let mut followed: FuturesUnordered<_> = jobs
        .iter()
        .map(|job| follow(&handle, job.id, job.stage, &how))
        .collect();
    let mut code = 0;
    while let Some(ended) = followed.next().await {
        code = code.max(ended?);
    }
    Ok(code)
}
