//! `resource-query`: a graph of resources, asked on standard input.

mod change;
mod dump;
mod matching;
mod session;
mod show;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use fluxion::{Context, Options, read, write};
use session::Session;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

/// Finds the resources that jobspecs ask for, in a graph of resources.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// The file the graph is read from
    #[arg(short = 'L', long, default_value = "conf/default")]
    load_file: PathBuf,
    /// Its format: grug, hwloc, jgf, rv1exec or rv1exec_force
    #[arg(short = 'f', long, default_value = "grug")]
    load_format: String,
    /// Types to read, with commas; others are left out (hwloc)
    #[arg(short = 'W', long)]
    load_allowlist: Option<String>,
    /// The subsystems to match on, such as CA (containment) or PA (power)
    #[arg(short = 'S', long, default_value = "CA")]
    match_subsystems: String,
    /// Which resources are preferred: first, firstnodex, low, high, lonode, hinode, lonodex,
    /// hinodex, locality, variation
    #[arg(short = 'P', long, default_value = "first")]
    match_policy: String,
    /// How matches are written: simple, pretty_simple, jgf, jgf_shorthand, rlite, rv1,
    /// rv1_shorthand, rv1_nosched
    #[arg(short = 'F', long, default_value = "simple")]
    match_format: String,
    /// simple, or flexible: sibling slots are alternatives
    #[arg(short = 'T', long, default_value = "simple")]
    traverser_policy: String,
    /// What is counted where, such as ALL:core,rack:node
    #[arg(short = 'p', long)]
    prune_filters: Vec<String>,
    /// The format of the graph written at the end: dot or graphml
    #[arg(short = 'g', long, default_value = "dot")]
    graph_format: String,
    /// Accepted for compatibility: room is made as it is needed
    #[arg(short = 'r', long, hide = true)]
    reserve_vtx_vec: Option<String>,
    /// Show what operations take
    #[arg(short = 'e', long)]
    elapse_time: bool,
    /// Print no prompt
    #[arg(short = 'd', long)]
    disable_prompt: bool,
    /// Write the graph to this file at the end, with an extension
    #[arg(short = 'o', long)]
    graph_output: Option<PathBuf>,
    /// Write what is found to this file
    #[arg(short = 't', long)]
    test_output: Option<PathBuf>,
}

/// The subsystem a set of subsystems is searched by.
fn dominant(name: &str) -> Result<&'static str> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "CA" | "C+IBA" | "C+IBBA" | "C+PA" | "C+PFS1BA" | "C+P+IBA" | "ALL" => "containment",
        "IBA" | "IB+IBBA" => "ibnet",
        "IBBA" => "ibnetbw",
        "PA" => "power",
        "PFS1BA" => "pfs1bw",
        "VA" | "V+PFS1BA" => "virtual1",
        _ => bail!("unknown subsystems for --match-subsystems: {name}"),
    })
}

fn load(args: &Args) -> Result<Context> {
    let file = args.load_file.display();
    let text =
        std::fs::read_to_string(&args.load_file).with_context(|| format!("--load-file: {file}"))?;
    let options = Options {
        policy: args.match_policy.clone(),
        prune: match args.prune_filters.is_empty() {
            true => "ALL:core,ALL:node".into(),
            false => args.prune_filters.join(","),
        },
        subsystem: dominant(&args.match_subsystems)?.into(),
        flexible: match args.traverser_policy.as_str() {
            "simple" => false,
            "flexible" => true,
            other => bail!("unknown policy for --traverser-policy: {other}"),
        },
        ..Options::default()
    };
    let format = read::Format::from_name(&args.load_format);
    let format = format
        .with_context(|| format!("unknown format for --load-format: {}", args.load_format))?;
    let allowed: Vec<&str> = args
        .load_allowlist
        .iter()
        .flat_map(|l| l.split(','))
        .collect();
    let builder = format
        .read_allowed(&text, &allowed)
        .with_context(|| file.to_string())?;
    let (graph, _) = builder
        .finish(&options.subsystem)
        .with_context(|| file.to_string())?;
    Ok(Context::new(graph, options)?)
}

fn run(args: &Args) -> Result<()> {
    let format = write::Format::from_name(&args.match_format);
    let format = format
        .with_context(|| format!("unknown format for --match-format: {}", args.match_format))?;
    let dump = dump::Format::from_name(&args.graph_format);
    let dump =
        dump.with_context(|| format!("unknown format for --graph-format: {}", args.graph_format))?;
    let begin = Instant::now();
    let context = load(args)?;
    let took = begin.elapsed();
    let out: Box<dyn Write> = match &args.test_output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path)
                .with_context(|| format!("--test-output: {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    let mut session = Session::new(context, format, out, args.elapse_time);
    if args.elapse_time {
        session.show_load(took)?;
    }
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    loop {
        if !args.disable_prompt {
            print!("resource-query> ");
            std::io::stdout().flush()?;
        }
        line.clear();
        if input.read_line(&mut line)? == 0 || !session.command(line.trim())? {
            break;
        }
    }
    if let Some(base) = &args.graph_output {
        println!("INFO: Write the target graph of the matcher...");
        dump.write(session.context.graph(), base)?;
    }
    Ok(())
}

fn main() {
    if let Err(error) = run(&Args::parse()) {
        eprintln!("resource-query: {error:#}");
        std::process::exit(1);
    }
}
