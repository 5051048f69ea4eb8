//! From the command line to a machine, a trace and policies.

use crate::Args;
use anyhow::{Context as _, Result, bail, ensure};
use fluxion::queue::Settings;
use fluxion::simulate::generate::{Kind, Wish, generate};
use fluxion::simulate::{Placement, Trace, lines, swf};
use fluxion::{Context, Options, read};
use formats::Idset;
use serde_json::{Value, json};

/// A policy's name and parameters.
pub(crate) fn settings(text: &str) -> Result<Settings> {
    let mut words = text.split(',');
    let mut table = json!({"queue-policy": words.next().unwrap_or_default()});
    for word in words {
        let (key, value) = word
            .split_once('=')
            .with_context(|| format!("--policy {text}: '{word}' is not KEY=VALUE"))?;
        let group = match key {
            "queue-depth" | "max-queue-depth" => "queue-params",
            "reservation-depth" | "max-reservation-depth" => "policy-params",
            _ => bail!(
                "--policy {text}: unknown parameter '{key}', must be queue-depth, \
                 max-queue-depth, reservation-depth or max-reservation-depth"
            ),
        };
        table[group][key] = json!(value);
    }
    Settings::from_value(&table).with_context(|| format!("--policy {text}"))
}

/// A machine without anything between it and its nodes.
fn flat(args: &Args) -> Result<Value> {
    ensure!(args.nodes > 0, "--nodes: a machine has at least one");
    ensure!(args.cores > 0, "--cores: a node has at least one");
    let ids = |count: u32| Idset::from_range(0, count - 1).to_string();
    let mut children = json!({"core": ids(args.cores)});
    if args.gpus > 0 {
        children["gpu"] = json!(ids(args.gpus));
    }
    let lite = json!([{"rank": ids(args.nodes), "children": children}]);
    let names = json!([format!("node[{}]", ids(args.nodes))]);
    Ok(
        json!({"version": 1, "execution": {"R_lite": lite, "nodelist": names, "starttime": 0,
        "expiration": 0}}),
    )
}

pub(crate) fn machine(args: &Args) -> Result<Context> {
    let options = Options {
        policy: args.match_policy.clone(),
        prune: "ALL:core,ALL:node".into(),
        // Traces may begin at any moment.
        horizon: i64::MAX / 4,
        ..Options::default()
    };
    let Some(path) = &args.graph else {
        let text = flat(args)?.to_string();
        return Ok(Context::load(&text, read::Format::Rv1, options)?);
    };
    let format = read::Format::from_name(&args.graph_format)
        .with_context(|| format!("unknown format for --graph-format: {}", args.graph_format))?;
    let file = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(file)?;
    Context::load(&text, format, options).with_context(file)
}

fn total(context: &Context, kind: &str) -> u32 {
    let graph = context.graph();
    let kind = graph.words().find(kind);
    let total = kind.map_or(0, |kind| graph.total(graph.root(), kind));
    u32::try_from(total).unwrap_or(u32::MAX)
}

pub(crate) fn trace(args: &Args, context: &Context) -> Result<Trace> {
    if let Some(kind) = &args.generate {
        let wish = Wish {
            kind: Kind::from_name(kind).with_context(|| {
                format!("--generate: must be capacity, mixed or capability, found '{kind}'")
            })?,
            jobs: args.jobs,
            days: args.days,
            load: args.load,
            processors: total(context, "core"),
            seed: args.seed,
        };
        ensure!(wish.processors > 0, "--generate: the machine has no cores");
        ensure!(args.load > 0., "--load: must be greater than 0");
        let jobs = generate(&wish);
        return Ok(Trace { jobs, skipped: 0 });
    }
    let path = args.trace.as_ref().context("a trace is needed")?;
    let file = || path.display().to_string();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("swf");
    let bytes = std::fs::read(path).with_context(file)?;
    // Comments of old traces are in all kinds of encodings.
    let text = String::from_utf8_lossy(&bytes);
    match args.trace_format.as_deref().unwrap_or(extension) {
        "jsonl" | "json" => lines::read(&text).with_context(file),
        other if other == "swf" || args.trace_format.is_none() => {
            swf::read(&text).with_context(file)
        }
        other => bail!("--trace-format: must be swf or jsonl, found '{other}'"),
    }
}

/// The trace in Standard Workload Format.
pub(crate) fn swf(args: &Args, trace: &Trace, context: &Context) -> String {
    let mut comments = vec![
        "Version: 2.2".to_owned(),
        format!("MaxJobs: {}", trace.jobs.len()),
        format!("MaxNodes: {}", total(context, "node")),
        format!("MaxProcs: {}", total(context, "core")),
    ];
    if let Some(kind) = &args.generate {
        let (days, load, seed) = (args.days, args.load, args.seed);
        comments.push(format!(
            "Note: made by fluxion-sim: {kind}, {days} days, load {load}, seed {seed}"
        ));
    }
    swf::write(&trace.jobs, &comments)
}

pub(crate) fn placement(args: &Args, context: &Context) -> Result<Placement> {
    if !args.whole_nodes {
        return Ok(Placement::Cores);
    }
    let (cores, nodes) = (total(context, "core"), total(context, "node"));
    ensure!(nodes > 0, "--whole-nodes: the machine has no nodes");
    Ok(Placement::WholeNodes((cores / nodes).max(1)))
}
