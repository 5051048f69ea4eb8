//! `flux housekeeping`: what runs on the nodes of jobs that are over, and signals to it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand};
use client::{Handle, Node};
use formats::{Hostlist, Idset, JobId, eventlog};
use serde::Deserialize;
use serde_json::json;

use super::job::signal;
use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::format::named::{Formats, Named};
use crate::format::{Format, Item, Value};
use crate::jobid::JobIdArg;

/// Housekeeping on the nodes of jobs.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List jobs whose nodes are in housekeeping
    List(List),
    /// Send a signal to housekeeping
    Kill(Kill),
}

#[derive(ClapArgs)]
struct List {
    /// Only these nodes: ranks, or hosts
    #[arg(short, long, value_name = "TARGETS")]
    include: Option<String>,
    /// Output format: Python's format syntax, or a name ("help" lists names)
    #[arg(short = 'o', long, default_value = "default")]
    format: String,
    /// Do not print the heading
    #[arg(short, long)]
    no_header: bool,
}

#[derive(ClapArgs)]
#[command(group(ArgGroup::new("which").required(true).multiple(true)))]
struct Kill {
    /// Signal
    #[arg(short, long, default_value = "SIGTERM", value_name = "SIGNAL")]
    signal: String,
    /// On these nodes: ranks, or hosts
    #[arg(short, long, value_name = "TARGETS", group = "which")]
    targets: Option<String>,
    /// Of this job
    #[arg(short, long, group = "which")]
    jobid: Option<JobIdArg>,
    /// Of all jobs
    #[arg(long, group = "which", conflicts_with = "jobid")]
    all: bool,
}

const BUILTIN: [Named; 2] = [
    (
        "default",
        "Default flux-housekeeping format string",
        "{id.f58:>12} {nnodes:>6} {pending.nnodes:>7} {runtime!F:>8} {nodelist}",
    ),
    (
        "pending",
        "flux-housekeeping format string including active nodes only",
        "{id.f58:>12} {pending.nnodes:>7} {runtime!F:>8} {pending.nodelist}",
    ),
];

const HEADINGS: &[(&str, &str)] = &[
    ("id", "JOBID"),
    ("id.dec", "JOBID"),
    ("id.hex", "JOBID"),
    ("id.f58", "JOBID"),
    ("id.f58plain", "JOBID"),
    ("id.emoji", "JOBID"),
    ("id.kvs", "JOBID"),
    ("id.words", "JOBID"),
    ("id.dothex", "JOBID"),
    ("t_start", "T_START"),
    ("runtime", "RUNTIME"),
    ("ranks", "RANKS"),
    ("nodelist", "NODELIST"),
    ("nnodes", "NNODES"),
    ("allocated.ranks", "RANKS"),
    ("allocated.nodelist", "NODELIST"),
    ("allocated.nnodes", "NNODES"),
    ("pending.ranks", "ACTIVE_RANKS"),
    ("pending.nodelist", "ACTIVE_NODES"),
    ("pending.nnodes", "#ACTIVE"),
];

/// `housekeeping` in the answer to `job-manager.stats-get`.
#[derive(Deserialize)]
struct Stats {
    housekeeping: Running,
}

#[derive(Deserialize)]
struct Running {
    /// By job id, in base 58.
    running: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    t_start: f64,
    pending: Idset,
    allocated: Idset,
}

/// One line.
#[derive(Debug, Clone)]
struct Job<'a> {
    id: JobId,
    t_start: f64,
    now: f64,
    pending: Idset,
    allocated: Idset,
    hosts: &'a Hostlist,
}

impl Job<'_> {
    fn set(&self, which: &Idset, what: &str) -> Value {
        match what {
            "ranks" => Value::from(which.to_string()),
            "nnodes" => Value::from(which.len()),
            _ => {
                let names = which
                    .iter()
                    .filter_map(|rank| self.hosts.nth(rank as usize));
                Value::from(names.collect::<Hostlist>().to_string())
            }
        }
    }
}

impl Item for Job<'_> {
    fn field(&self, name: &str) -> Value {
        let form = |text: String| Value::from(text);
        match name {
            "id" => Value::Id(self.id),
            "id.dec" => form(self.id.dec()),
            "id.hex" => form(self.id.hex()),
            "id.f58" => form(crate::jobid::shown(self.id)),
            "id.f58plain" => form(self.id.f58_ascii()),
            "id.emoji" => form(self.id.emoji()),
            "id.kvs" => form(self.id.kvs_path()),
            "id.words" => form(self.id.words()),
            "id.dothex" => form(self.id.dothex()),
            "t_start" => Value::from(self.t_start),
            "runtime" => Value::from((self.now - self.t_start).max(0.)),
            other => match other.split_once('.') {
                Some(("pending", what)) => self.set(&self.pending, what),
                Some((_, what)) => self.set(&self.allocated, what),
                None => self.set(&self.allocated, other),
            },
        }
    }
}

/// Lines that a format cannot tell apart become one.
fn merge<'a>(format: &Format, jobs: Vec<Job<'a>>) -> Vec<Job<'a>> {
    let tells = |field: &&str| field.starts_with("id") || matches!(*field, "t_start" | "runtime");
    if format.fields().iter().any(tells) {
        return jobs;
    }
    let all = jobs.into_iter().reduce(|mut all, job| {
        all.pending = all.pending.union(&job.pending);
        all.allocated = all.allocated.union(&job.allocated);
        all
    });
    all.into_iter().collect()
}

/// The ranks of nodes given as ranks or as hosts.
fn targets(text: &str, hosts: &Hostlist) -> Result<Idset, Failure> {
    if let Ok(ranks) = text.parse() {
        return Ok(ranks);
    }
    let list: Hostlist = text
        .parse()
        .map_err(|e| Failure::new(format!("'{text}' is neither an idset nor a host list: {e}")))?;
    let mut ranks = Idset::new();
    for host in list.iter() {
        // Ranks are 32 bits wide.
        let all = hosts.iter().zip(0u32..);
        let found: Idset = all
            .filter(|(name, _)| *name == host)
            .map(|(_, rank)| rank)
            .collect();
        if found.is_empty() {
            return Err(Failure::new(format!("host {host} is not in this instance")));
        }
        ranks = ranks.union(&found);
    }
    Ok(ranks)
}

async fn hostlist(handle: &Handle) -> Result<Hostlist, Failure> {
    let text = handle.getattr("hostlist").await.context("hostlist")?;
    text.parse()
        .map_err(|e| Failure::new(format!("hostlist: {e}")))
}

impl List {
    async fn run(self) -> Outcome {
        let formats = Formats {
            config: "flux-housekeeping",
            tool: "flux-housekeeping",
            subcommand: None,
            builtin: &BUILTIN,
        };
        let Some(text) = formats.resolve(&self.format)? else {
            return Ok(0);
        };
        let format = Format::parse(&text, HEADINGS)?;
        let handle = Handle::open(None).await?;
        let hosts = hostlist(&handle).await?;
        let only = self
            .include
            .map(|text| targets(&text, &hosts))
            .transpose()?;
        let stats: Stats = handle
            .call("job-manager.stats-get", Node::Rank(0), &json!({}))
            .await?;
        let now = eventlog::timestamp(SystemTime::now());
        let shown = |set: Idset| {
            only.as_ref()
                .map_or(set.clone(), |only| set.intersection(only))
        };
        let running = stats.housekeeping.running.into_iter();
        let running = running.map(|(id, entry)| Ok((crate::jobid::parse(&id)?, entry)));
        let running = running.collect::<Result<BTreeMap<JobId, Entry>, Failure>>()?;
        let jobs = running.into_iter().map(|(id, entry)| Job {
            id,
            t_start: entry.t_start,
            now,
            pending: shown(entry.pending),
            allocated: shown(entry.allocated),
            hosts: &hosts,
        });
        let jobs = jobs.filter(|job| !job.allocated.is_empty()).collect();
        format.print(merge(&format, jobs), self.no_header)?;
        Ok(0)
    }
}

impl Kill {
    async fn run(self) -> Outcome {
        let handle = Handle::open(None).await?;
        let mut request = json!({ "signum": signal(&self.signal)? });
        if let Some(job) = self.jobid {
            request["jobid"] = json!(job.id);
        }
        if let Some(text) = self.targets {
            let ranks = targets(&text, &hostlist(&handle).await?)?;
            request["ranks"] = ranks.to_string().into();
        }
        let topic = "job-manager.housekeeping-kill";
        handle.rpc(topic, Node::Rank(0), &request).await?;
        Ok(0)
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse()?;
    block_on(async {
        match command {
            Command::List(list) => list.run().await,
            Command::Kill(kill) => kill.run().await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(hosts: &Hostlist) -> Vec<Job<'_>> {
        let job = |id, allocated: &str, pending: &str| Job {
            id: JobId(id),
            t_start: 100.,
            now: 160.,
            pending: pending.parse().unwrap(),
            allocated: allocated.parse().unwrap(),
            hosts,
        };
        vec![job(1, "0-2", "2"), job(2, "3", "3")]
    }

    #[test]
    fn formats() {
        let hosts: Hostlist = "n[0-3]".parse().unwrap();
        let show = |text: &str| {
            let format = Format::parse(text, HEADINGS).unwrap();
            let jobs = merge(&format, jobs(&hosts));
            format.lines(jobs, false).unwrap().join("\n")
        };
        insta::assert_snapshot!(show(&BUILTIN[0].2.replace(".f58:", ".dec:")), @r"
               JOBID NNODES #ACTIVE  RUNTIME NODELIST
                   1      3       1       1m n[0-2]
                   2      1       1       1m n3
        ");
        insta::assert_snapshot!(show("{ranks} {pending.nodelist}"), @r"
        RANKS ACTIVE_NODES
        0-3 n[2-3]
        ");
    }

    #[test]
    fn targets_are_ranks_or_hosts() {
        let hosts: Hostlist = "a,b,a".parse().unwrap();
        let of = |text| targets(text, &hosts).map(|ranks| ranks.to_string());
        assert_eq!(of("0,2").ok().as_deref(), Some("0,2"));
        assert_eq!(of("a").ok().as_deref(), Some("0,2"));
        assert!(of("c").is_err() && of("foo[").is_err());
    }
}
