//! `fluxion-sim`: what queue policies would make of a trace of jobs.

mod input;
mod plot;
mod report;

use anyhow::{Context as _, Result};
use clap::Parser;
use fluxion::Context;
use fluxion::queue::Settings;
use fluxion::simulate::{Job, Outcome, Placement, Record, Simulation, Summary};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs a trace of jobs on an imagined machine, once for each policy, and compares the policies.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// The trace: Standard Workload Format, or JSON lines if the name ends in .jsonl or .json
    #[arg(required_unless_present = "generate", conflicts_with = "generate")]
    trace: Option<PathBuf>,
    /// The trace's format if its name does not tell it: swf or jsonl
    #[arg(long)]
    trace_format: Option<String>,
    /// Make a trace: capacity (small jobs), mixed, or capability (large jobs)
    #[arg(long, value_name = "KIND")]
    generate: Option<String>,
    /// How many jobs to make
    #[arg(long, default_value_t = 10_000)]
    jobs: usize,
    /// Over how many days they come
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// What share of the machine they would keep busy
    #[arg(long, default_value_t = 0.85)]
    load: f64,
    /// What the trace's choices follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the trace in Standard Workload Format
    #[arg(long, value_name = "FILE")]
    write_swf: Option<PathBuf>,
    /// The file the graph is read from
    #[arg(long, conflicts_with_all = ["nodes", "cores", "gpus"])]
    graph: Option<PathBuf>,
    /// Its format: grug, hwloc, jgf or rv1exec
    #[arg(long, default_value = "grug", requires = "graph")]
    graph_format: String,
    /// How many nodes the machine has, if it is not read
    #[arg(long, default_value_t = 64)]
    nodes: u32,
    /// How many cores a node has
    #[arg(long, default_value_t = 32)]
    cores: u32,
    /// How many gpus a node has
    #[arg(long, default_value_t = 0)]
    gpus: u32,
    /// Which resources are preferred, as in resource-query
    #[arg(long, default_value = "first")]
    match_policy: String,
    /// A queue policy with its parameters, as in hybrid,reservation-depth=8,queue-depth=100; may be
    /// repeated
    #[arg(long = "policy", default_value = "fcfs")]
    policies: Vec<String>,
    /// Give jobs that ask for processors whole nodes
    #[arg(long)]
    whole_nodes: bool,
    /// Print the summaries as JSON
    #[arg(long)]
    json: bool,
    /// Write a line for each job and policy
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw use over time and how waits are spread
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A policy's simulation at its end, and how long it took.
struct Run<'a> {
    name: &'a str,
    summary: Summary,
    took: Duration,
    slowest: Duration,
    records: Vec<Record<'a>>,
    usage: Vec<(i64, i64)>,
    capacity: i64,
}

impl Run<'_> {
    /// How long the jobs that ran waited.
    fn waits(&self) -> impl Iterator<Item = i64> {
        self.records.iter().filter_map(|r| match r.outcome {
            Outcome::Ran { start, .. } => Some(start - r.job.submit),
            _ => None,
        })
    }
}

fn run<'a>(
    name: &'a str,
    settings: Settings,
    context: Context,
    jobs: &'a [Job],
    placement: Placement,
) -> Result<Run<'a>> {
    let begin = Instant::now();
    let mut simulation = Simulation::new(context, settings, jobs, placement)?;
    let mut slowest = Duration::ZERO;
    let mut before = Instant::now();
    while simulation.step().is_some() {
        let now = Instant::now();
        slowest = slowest.max(now - before);
        before = now;
    }
    Ok(Run {
        name,
        summary: Summary::of(&simulation),
        took: begin.elapsed(),
        slowest,
        records: simulation.records().to_vec(),
        usage: simulation.usage().to_vec(),
        capacity: simulation.capacity(),
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn simulate(args: &Args) -> Result<()> {
    let policies: Vec<Settings> = args
        .policies
        .iter()
        .map(|p| input::settings(p))
        .collect::<Result<_>>()?;
    let context = input::machine(args)?;
    let trace = input::trace(args, &context)?;
    if trace.skipped > 0 {
        let skipped = trace.skipped;
        eprintln!("fluxion-sim: {skipped} jobs of unknown size or run time are left out");
    }
    if let Some(path) = &args.write_swf {
        write(path, &input::swf(args, &trace, &context))?;
    }
    let placement = input::placement(args, &context)?;
    let source = args.trace.as_ref().map(|p| p.display().to_string());
    let mut runs = Vec::new();
    for (name, settings) in args.policies.iter().zip(policies) {
        let done = run(name, settings, context.clone(), &trace.jobs, placement);
        let source = || source.clone().unwrap_or_else(|| "made trace".into());
        runs.push(done.with_context(source)?);
    }
    if let Some(path) = &args.csv {
        write(path, &report::csv(&runs))?;
    }
    if let Some(path) = &args.svg {
        write(path, &plot::svg(&runs))?;
    }
    let text = match args.json {
        true => report::json(&runs),
        false => report::table(&runs),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn main() {
    if let Err(error) = simulate(&Args::parse()) {
        eprintln!("fluxion-sim: {error:#}");
        std::process::exit(1);
    }
}
