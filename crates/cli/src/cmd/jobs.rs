//! `flux jobs`: list jobs.

use clap::Parser;
use client::Handle;
use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::format::named::{Formats, Named};
use crate::format::{Format, Item, cut};
use crate::jobid::JobIdArg;
use crate::jobs::{
    ANY_USER, Filter, HEADINGS, Instance, Job, Query, Stats, attributes, own_user, parse_user,
};
use crate::output::{self, outln};
use crate::resources::Resources;

/// Formats all listings of jobs know.
pub(crate) const LISTINGS: [Named; 3] = [
    (
        "long",
        "Extended flux-jobs format string",
        "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status:>9.9} {ntasks:>6} \
         {nnodes:>6h} {t_submit!d:%b%d %R::>12} {t_remaining!F:>12h} {contextual_time!F:>8h} \
         {contextual_info}",
    ),
    (
        "deps",
        "Show job urgency, priority, and dependencies",
        "{id.f58:>12} ?:{queue:<8.8} {name:<10.10+} {urgency:<3} {priority:<12} {state:<8.8} \
         {dependencies}",
    ),
    ("full", "The columns flux-jobs shows", DEFAULT),
];

const DEFAULT: &str = "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} \
     {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} {contextual_time!F:>8h} {contextual_info}";

const BUILTIN: [Named; 5] = [
    ("default", "Default flux-jobs format string", DEFAULT),
    (
        "cute",
        "Cute flux-jobs format string (default with emojis)",
        "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status_emoji:>5.5} \
         {ntasks:>6} {nnodes:>6h} {contextual_time!F:>8h} {contextual_info}",
    ),
    LISTINGS[0],
    LISTINGS[1],
    (
        "endreason",
        "Show why each job ended",
        "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status_abbrev:>2.2} \
         {t_inactive!d:%b%d %R::>12h} {inactive_reason}",
    ),
];

/// List jobs.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    /// List jobs in all states
    #[arg(short = 'a')]
    all_states: bool,
    /// List all jobs of all users
    #[arg(short = 'A')]
    all_users: bool,
    /// Limit output to N jobs
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 1000,
        allow_negative_numbers = true
    )]
    count: i64,
    /// List jobs with specific job states or results
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Vec<String>,
    /// Include jobs that have become inactive since WHEN (implies -a unless --filter is given)
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Do not print the heading
    #[arg(short, long, alias = "suppress-header")]
    no_header: bool,
    /// Limit output to a user, by name or id ("all" for all users)
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Limit output to jobs of a name
    #[arg(long, value_name = "JOB-NAME")]
    name: Option<String>,
    /// Limit output to queues
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    /// Limit output to jobs that were allocated these hosts or ranks
    #[arg(short, long, value_name = "HOSTS|RANKS")]
    include: Option<String>,
    /// Output format: Python's format syntax, or a name ("help" lists names)
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "default")]
    format: String,
    /// Sort by these fields; -KEY reverses
    #[arg(long, value_name = "KEY,...", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Cut lines at width N; 0 or none is the terminal's width
    #[arg(short, long, value_name = "N", num_args = 0..=1, default_missing_value = "0", allow_negative_numbers = true)]
    width: Option<i64>,
    /// Print jobs as JSON
    #[arg(long)]
    json: bool,
    /// Use color: never, always or auto
    #[arg(long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "always",
          value_parser = ["never", "always", "auto"])]
    color: Option<String>,
    /// List jobs of instances recursively
    #[arg(short = 'R', long)]
    recursive: bool,
    /// With --recursive, descend only N levels
    #[arg(short = 'L', long, value_name = "N", default_value_t = 9999)]
    level: u32,
    /// With --recursive, also try the instances of other users
    #[arg(long)]
    recurse_all: bool,
    /// Accepted for compatibility; instances are always asked at once
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Print counts of jobs before the list
    #[arg(long)]
    stats: bool,
    /// Print counts of jobs only; fails if no job is active
    #[arg(long)]
    stats_only: bool,
    /// Limit output to these jobs
    #[arg(value_name = "JOBID")]
    jobids: Vec<JobIdArg>,
    /// List the jobs on standard input, one JSON object a line
    #[arg(long, hide = true)]
    from_stdin: bool,
}

impl Options {
    fn is_filtered(&self) -> bool {
        self.all_states
            || self.all_users
            || !self.filter.is_empty()
            || self.since.is_some()
            || self.user.is_some()
            || self.name.is_some()
            || !self.queue.is_empty()
    }

    fn query(&self, fields: &[&str], now: f64) -> Result<Query, Failure> {
        let mut query = Query::new();
        query.ids = self.jobids.clone();
        query.attrs = attributes(fields);
        let mut more: Vec<&str> = Vec::new();
        if self.recursive {
            more.extend(["annotations", "status", "userid"]);
        }
        if self.has_color() {
            more.extend(["result", "annotations"]);
        }
        query.attrs.extend(attributes(&more));
        if self.json {
            query.attrs.push("all".to_owned());
        }
        query.filter = Filter::default();
        for words in &self.filter {
            query.filter.add(words)?;
        }
        let mut all = self.all_states;
        if let Some(since) = &self.since {
            all |= query.filter.is_empty();
            query.active_since(since, crate::datetime::parse(since, now)?, now)?;
        }
        if all && !query.filter.is_empty() {
            eprintln!("flux-jobs: WARNING: Both -a and --filter specified, ignoring -a");
        } else if all {
            query.filter = Filter::everything();
        }
        if query.filter.is_empty() {
            query.filter = Filter::active();
        }
        query.user = match (&self.user, self.all_users, &self.include) {
            (_, true, _) | (None, _, Some(_)) => ANY_USER,
            (Some(user), ..) => parse_user(user)?,
            (None, ..) => own_user(),
        };
        query.name.clone_from(&self.name);
        query.queues.clone_from(&self.queue);
        query.include.clone_from(&self.include);
        // One more than asked, to see that there are more.
        query.max_entries = if self.count > 0 {
            self.count + 1
        } else {
            self.count
        };
        Ok(query)
    }

    fn has_color(&self) -> bool {
        match self.color.as_deref() {
            Some("always") => true,
            Some("never") => false,
            None if std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) => false,
            _ => std::io::IsTerminal::is_terminal(&std::io::stdout()),
        }
    }

    fn width(&self) -> Option<usize> {
        match self.width {
            Some(0) => crate::output::terminal_width(),
            Some(n) => usize::try_from(n).ok(),
            None => None,
        }
    }
}

/// Fetched jobs, and whether there are more than were asked for.
struct Listing {
    jobs: Vec<Job>,
    truncated: bool,
}

async fn fetch(
    handle: &Handle,
    query: &Query,
    options: &Options,
    with_instance: bool,
) -> Result<Listing, Failure> {
    let (found, errors) = query.fetch(handle).await?;
    let now = crate::jobs::now();
    let mut jobs: Vec<Job> = found.into_iter().map(|j| Job::new(j, now)).collect();
    let truncated = options.count > 0 && jobs.len() as i64 > options.count;
    if truncated {
        jobs.pop();
    }
    if with_instance {
        add_instances(&mut jobs).await;
    }
    for error in errors {
        eprintln!("{error}");
    }
    Ok(Listing { jobs, truncated })
}

/// Ask running instances for their own resources and jobs. Those that do not answer are left out.
pub(crate) async fn add_instances(jobs: &mut [Job]) {
    let asked = jobs.iter_mut().map(|job| async move {
        let uri = job.uri().filter(|_| job.is_running());
        if let Some(uri) = uri {
            job.instance = instance(&uri).await;
        }
    });
    join_all(asked).await;
}

/// What an instance says of itself.
pub(crate) async fn instance(uri: &str) -> Option<Instance> {
    let handle = Handle::open(Some(&reachable(uri))).await.ok()?;
    let (resources, stats) = futures::join!(Resources::fetch(&handle), Stats::fetch(&handle, &[]));
    Some(Instance {
        stats: stats.ok()?,
        resources: resources.ok()?.counts(),
    })
}

/// An instance on this host is reached directly.
pub(crate) fn reachable(uri: &str) -> String {
    let host = uri.strip_prefix("ssh://").and_then(|r| r.split_once('/'));
    let here = nix::unistd::gethostname().unwrap_or_default();
    match host {
        Some((host, path)) if here.to_str() == Some(host) => format!("local:///{path}"),
        _ => uri.to_owned(),
    }
}

/// The color of a job's line.
fn color(job: &Job) -> Option<&'static str> {
    Some(match job.field("result").text().as_str() {
        "COMPLETED" => "\x1b[01;32m",
        "FAILED" | "TIMEOUT" => "\x1b[01;31m",
        "CANCELED" => "\x1b[37m",
        _ if job.uri().is_some() => "\x1b[01;34m",
        _ => return None,
    })
}

/// The lines of a list and, with --recursive, of the instances in it.
struct Printer<'a> {
    options: &'a Options,
    format: Format,
    query: Query,
}

impl Printer<'_> {
    fn enters(&self, job: &Job) -> Option<String> {
        let mine = self.options.recurse_all || job.userid() == Some(own_user());
        let recursive = self.options.recursive || self.options.recurse_all;
        job.uri().filter(|_| recursive && mine && job.is_running())
    }

    fn print_lines(&self, jobs: &mut [Job]) -> Result<(), Failure> {
        self.format.sort(jobs);
        let mut text = String::new();
        for job in jobs.iter() {
            let line = self.format.line(job)?;
            if line.trim().is_empty() {
                continue;
            }
            let line = cut(line, self.options.width());
            match color(job).filter(|_| self.options.has_color()) {
                Some(color) => text.push_str(&format!("{color}{line}\n\x1b[0;0m")),
                None => text.push_str(&format!("{line}\n")),
            }
        }
        output::write(&text);
        Ok(())
    }

    async fn children(&self, job: &Job, uri: &str) -> (String, Vec<Job>, Option<Stats>) {
        let id = crate::jobid::shown(job.id);
        let fetched = async {
            let handle = Handle::open(Some(&reachable(uri))).await?;
            let with_instance = needs_instance(&self.format);
            let listing = fetch(&handle, &self.query, self.options, with_instance).await?;
            let stats = match self.options.stats {
                true => Some(Stats::fetch(&handle, &[]).await?),
                false => None,
            };
            Ok::<_, Failure>((listing.jobs, stats))
        };
        // An instance may be starting, ending, or someone else's: it is shown without jobs.
        let (jobs, stats) = fetched.await.unwrap_or_default();
        (id, jobs, stats)
    }

    fn print<'b>(
        &'b self,
        mut jobs: Vec<Job>,
        path: String,
        level: u32,
    ) -> BoxFuture<'b, Result<(), Failure>> {
        async move {
            self.print_lines(&mut jobs)?;
            if level == self.options.level {
                return Ok(());
            }
            let entered = jobs.iter().filter_map(|job| Some((job, self.enters(job)?)));
            let entered: Vec<(&Job, String)> = entered.collect();
            let fetched = join_all(entered.iter().map(|(job, uri)| self.children(job, uri))).await;
            for (id, children, stats) in fetched {
                let path = if path.is_empty() {
                    id
                } else {
                    format!("{path}/{id}")
                };
                outln!("\n{path}:");
                if let Some(stats) = stats {
                    outln!("{}", counts(&stats));
                }
                self.print(children, path, level + 1).await?;
            }
            Ok(())
        }
        .boxed()
    }

    async fn json(&self, jobs: &[Job]) -> Vec<Value> {
        let mut out: Vec<Map<String, Value>> = jobs.iter().map(Job::to_json).collect();
        if self.options.level > 0 {
            for (object, job) in out.iter_mut().zip(jobs) {
                if let Some(uri) = self.enters(job) {
                    let (_, children, _) = self.children(job, &uri).await;
                    let children: Vec<Value> =
                        children.iter().map(|c| c.to_json().into()).collect();
                    object.insert("jobs".into(), children.into());
                }
            }
        }
        out.into_iter().map(Value::Object).collect()
    }
}

fn needs_instance(format: &Format) -> bool {
    format.fields().iter().any(|f| f.starts_with("instance."))
}

fn counts(stats: &Stats) -> String {
    format!(
        "{} running, {} completed, {} failed, {} pending",
        stats.running, stats.successful, stats.failed, stats.pending
    )
}

fn from_stdin() -> Result<Listing, Failure> {
    let mut jobs = Vec::new();
    for (i, line) in std::io::stdin().lines().enumerate() {
        let attrs = serde_json::from_str(&line?)
            .map_err(|e| Failure::new(format!("JSON input error: line {}: {e}", i + 1)))?;
        jobs.push(Job::new(attrs, crate::jobs::now()));
    }
    Ok(Listing {
        jobs,
        truncated: false,
    })
}

pub(crate) fn run(args: Args) -> Outcome {
    let mut options: Options = args.parse_or(2)?;
    if options.json && (options.stats || options.stats_only) {
        return Err(Failure::new(
            "--json incompatible with --stats or --stats-only",
        ));
    }
    options.recursive |= options.recurse_all;
    if !options.jobids.is_empty() && options.is_filtered() && !options.recursive {
        eprintln!("flux-jobs: WARNING: Filtering options ignored with jobid list");
    }
    let formats = Formats {
        config: "flux-jobs",
        tool: "flux-jobs",
        subcommand: None,
        builtin: &BUILTIN,
    };
    let Some(text) = formats.resolve(&options.format)? else {
        return Ok(0);
    };
    let mut format = Format::parse(&text, HEADINGS)?;
    if let Some(keys) = &options.sort {
        format.sort_by(keys, HEADINGS)?;
    }
    block_on(list(&options, format))
}

async fn list(options: &Options, format: Format) -> Outcome {
    let mut query = options.query(&format.fields(), crate::jobs::now())?;
    let handle = match options.from_stdin && !options.stats && !options.stats_only {
        true => None,
        false => Some(Handle::open(None).await?),
    };
    if options.stats || options.stats_only {
        let Some(handle) = &handle else { return Ok(1) };
        let stats = Stats::fetch(handle, &options.queue)
            .await
            .map_err(|e| Failure::new(format!("error retrieving job stats: {}", e.message)))?;
        outln!(
            "{}, {} inactive purged",
            counts(&stats),
            stats.inactive_purged
        );
        if options.stats_only {
            return Ok(u8::from(stats.active() == 0));
        }
    }
    let listing = match &handle {
        Some(handle) => fetch(handle, &query, options, needs_instance(&format)).await?,
        None => from_stdin()?,
    };
    if !options.jobids.is_empty() && listing.jobs.is_empty() {
        // Why was said for each id.
        return Ok(1);
    }
    query.ids.clear();
    let no_header = options.no_header || options.json;
    let format = format.fit(&listing.jobs, no_header)?;
    if !no_header {
        outln!("{}", cut(format.header(), options.width()));
    }
    let printer = Printer {
        options,
        format,
        query,
    };
    if options.json {
        let mut jobs = printer.json(&listing.jobs).await;
        // One job that was asked for is an object of its own.
        let shown = match options.jobids.len() {
            1 => jobs.pop().unwrap_or_default(),
            _ => json!({ "jobs": jobs }),
        };
        outln!("{}", crate::pyjson::dumps(&shown));
    } else {
        printer.print(listing.jobs, String::new(), 0).await?;
    }
    if !no_header && listing.truncated {
        eprintln!("warning: output truncated at {} jobs.", options.count);
        eprintln!("Use --count for more jobs, or filters for others.");
    }
    Ok(0)
}
