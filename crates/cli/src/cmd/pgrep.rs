//! `flux pgrep`, `flux pkill`: find jobs by name or id range; list or cancel them.

use clap::Parser;
use client::{Handle, Node};
use formats::JobId;
use futures::future::join_all;
use regex::Regex;
use serde_json::json;

use crate::args::Args;
use crate::cmd::cancel::counted;
use crate::cmd::jobs::LISTINGS;
use crate::environment::block_on;
use crate::error::{Failure, Outcome, rpc_text};
use crate::format::Format;
use crate::format::named::{Formats, Named};
use crate::jobid::shown;
use crate::jobs::{ANY_USER, Filter, HEADINGS, Job, Query, parse_user};

const BUILTIN: [Named; 4] = [
    ("default", "Default flux-pgrep format string", "{id.f58}"),
    LISTINGS[0],
    LISTINGS[1],
    LISTINGS[2],
];

/// Which jobs to look at.
#[derive(clap::Args)]
struct Search {
    /// Jobs in all states
    #[arg(short = 'a')]
    all_states: bool,
    /// Jobs of all users
    #[arg(short = 'A')]
    all_users: bool,
    /// Jobs of a user, by name or id ("all" for all users)
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Jobs with these states or results
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Vec<String>,
    /// Jobs of these queues
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    /// At most the first N matches
    #[arg(short, long, value_name = "N", default_value_t = 99999)]
    count: usize,
    /// Look at N jobs at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_entries: i64,
    /// A pattern for names, or a range of ids FIRST..LAST
    #[arg(required = true, value_name = "EXPRESSION")]
    expression: Vec<String>,
}

/// What jobs must match.
#[derive(Debug, Default)]
struct Expression {
    name: Option<Regex>,
    ids: Option<(JobId, JobId)>,
}

fn range(word: &str) -> Option<(JobId, JobId)> {
    if word.contains(':') {
        return None;
    }
    let (first, last) = word.split_once("..")?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

impl Expression {
    fn parse(words: &[String]) -> Result<Expression, Failure> {
        let fault = |why: &str| Failure::new(format!("expression error: {why}")).code(2);
        let mut out = Expression::default();
        for word in words {
            if let Some(ids) = range(word) {
                out.ids = Some(ids);
                continue;
            }
            if out.name.is_some() {
                return Err(fault("Only one pattern can be provided"));
            }
            let pattern = word.strip_prefix("name:").unwrap_or(word);
            let regex = Regex::new(pattern).map_err(|e| {
                let text = e.to_string();
                fault(
                    text.lines()
                        .last()
                        .unwrap_or("bad pattern")
                        .trim_start_matches("error: "),
                )
            })?;
            out.name = Some(regex);
        }
        Ok(out)
    }

    fn matches(&self, job: &Job) -> bool {
        let name = self
            .name
            .as_ref()
            .is_none_or(|r| r.is_match(job.string("name")));
        name && self
            .ids
            .is_none_or(|(first, last)| first <= job.id && job.id <= last)
    }
}

impl Search {
    async fn run(&self, handle: &Handle) -> Result<Vec<Job>, Failure> {
        let expression = Expression::parse(&self.expression)?;
        let mut query = Query::new();
        if let Some(user) = &self.user {
            query.user = parse_user(user)?;
        }
        if self.all_users {
            query.user = ANY_USER;
        }
        let mut filter = Filter::default();
        for words in &self.filter {
            filter.add(words)?;
        }
        query.filter = match (self.all_states, filter.is_empty()) {
            (true, _) => Filter::everything().union(filter),
            (false, true) => Filter::active(),
            (false, false) => filter,
        };
        query.max_entries = self.max_entries;
        query.queues.clone_from(&self.queue);
        let (found, _) = query.fetch(handle).await?;
        let now = formats::eventlog::timestamp(std::time::SystemTime::now());
        let jobs = found.into_iter().map(|attrs| Job::new(attrs, now));
        Ok(jobs
            .filter(|j| expression.matches(j))
            .take(self.count)
            .collect())
    }
}

/// Find jobs by name or id range.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Pgrep {
    #[command(flatten)]
    search: Search,
    /// Do not print the heading
    #[arg(short, long)]
    no_header: bool,
    /// Output format: Python's format syntax, or a name ("help" lists names)
    #[arg(short = 'o', long, default_value = "default")]
    format: String,
}

pub(crate) fn pgrep(args: Args) -> Outcome {
    let options: Pgrep = args.parse_or(2)?;
    let formats = Formats {
        config: "flux-jobs",
        tool: "flux-pgrep",
        subcommand: None,
        builtin: &BUILTIN,
    };
    let Some(text) = formats.resolve(&options.format)? else {
        return Ok(0);
    };
    let format = Format::parse(&text, HEADINGS)?;
    block_on(async {
        let handle = Handle::open(None).await?;
        let mut jobs = options.search.run(&handle).await?;
        if jobs.is_empty() {
            return Ok(1);
        }
        if format.fields().iter().any(|f| f.starts_with("instance.")) {
            crate::cmd::jobs::add_instances(&mut jobs).await;
        }
        // Bare ids are for scripts.
        let is_bare = options.format == "default" && text == BUILTIN[0].2;
        format.print(jobs, options.no_header || is_bare)?;
        Ok(0)
    })
}

/// Cancel jobs by name or id range.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Pkill {
    #[command(flatten)]
    search: Search,
    /// Wait for the jobs to end
    #[arg(long)]
    wait: bool,
}

pub(crate) fn pkill(args: Args) -> Outcome {
    let options: Pkill = args.parse_or(2)?;
    block_on(async {
        let handle = &Handle::open(None).await?;
        let jobs = options.search.run(handle).await?;
        if jobs.is_empty() {
            return Ok(1);
        }
        let sent = jobs.iter().map(|job| {
            let request = json!({"id": job.id, "severity": 0, "type": "cancel"});
            let rpc = handle.rpc("job-manager.raise", Node::Any, &request);
            async move {
                rpc.await?;
                if options.wait {
                    crate::cmd::job::ended(handle, job.id).await?;
                }
                Ok::<_, wire::RpcError>(())
            }
        });
        let mut canceled = 0;
        for (job, answer) in jobs.iter().zip(join_all(sent).await) {
            match answer {
                Ok(()) => canceled += 1,
                Err(e) => eprintln!("flux-pkill: {}: cancel: {}", shown(job.id), rpc_text(&e)),
            }
        }
        eprintln!("flux-pkill: Canceled {}", counted(canceled, "job"));
        Ok(u8::from(canceled < jobs.len() as i64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let expression = match Expression::parse(&words) {
            Ok(expression) => expression,
            Err(e) => return format!("{} ({})", e.message, e.code),
        };
        let job = |(i, name): (usize, &&str)| {
            let attrs = json!({"id": i, "name": name});
            Job::new(attrs.as_object().cloned().unwrap_or_default(), 0.)
        };
        let jobs = ["sleep", "hostname", "sleeper"].iter().enumerate().map(job);
        let found = jobs.filter(|j| expression.matches(j));
        found
            .map(|j| j.string("name").to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn expressions() {
        insta::assert_snapshot!([
            matching(&["sleep"]), matching(&["name:^sleep$"]), matching(&["1..2"]),
            matching(&["1..2", "s"]), matching(&["a..b:"]), matching(&["a", "b"]), matching(&["("]),
        ].join("\n"), @r"
        sleep sleeper
        sleep
        hostname sleeper
        hostname sleeper

        expression error: Only one pattern can be provided (2)
        expression error: unclosed group (2)
        ");
    }
}
