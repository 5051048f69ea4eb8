//! `flux ion-resource`: ask the graph scheduler, module `sched-fluxion-resource`.
//!
//! Exit codes: 2 for a jobspec that is not YAML, 3 for something that is not there, 16 for resources that others have,
//! 19 for those there will never be.

use clap::{Parser, Subcommand, ValueEnum};
use client::{Handle, Node};
use formats::{JobId, yaml};
use serde_json::{Value, json};
use wire::RpcError;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome, rpc_text};
use crate::output::outln;
use crate::pyjson;

/// Ask the graph scheduler.
#[derive(Parser)]
struct Options {
    /// Does nothing: for scripts that were written for others
    #[arg(short, long)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find resources for a jobspec
    Match {
        operation: Operation,
        jobspec: String,
    },
    /// Have a job have what an R says
    Update { rv1: String, jobid: JobId },
    /// Show a job
    Info { jobid: JobId },
    /// Show what the graph has, and how long matches take
    Stats,
    /// Forget how long matches took
    #[command(visible_alias = "stats-clear")]
    StatsCancel,
    /// Take from a job what it has
    Cancel { jobid: JobId },
    /// Take from a job what it has of the ranks of an R
    PartialCancel { jobid: JobId, rv1exec: String },
    /// Find what an expression holds of
    Find {
        criteria: String,
        /// How to write it
        #[arg(long)]
        format: Option<String>,
        /// Write nothing else
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show all, down and allocated resources
    Status,
    /// Mark a resource up or down
    SetStatus {
        resource_path: String,
        status: String,
    },
    /// Set a property of resources
    SetProperty {
        #[arg(required = true)]
        resource_path: Vec<String>,
        #[arg(value_name = "KEY=VALUE")]
        property: String,
    },
    /// Remove a property of resources
    RemoveProperty {
        #[arg(required = true)]
        resource_path: Vec<String>,
        key: String,
    },
    /// Show a property of a resource
    GetProperty { resource_path: String, key: String },
    /// Show the number that a resource has here
    NsInfo {
        rank: i64,
        #[arg(value_name = "TYPE")]
        kind: String,
        id: i64,
    },
    /// Show how the module is set up
    Params,
    /// Add a graph
    AddSubgraph { subgraph: String },
    /// Remove a part of the graph
    RemoveSubgraph { subgraph_path: String },
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Operation {
    /// Have the best resources now
    Allocate,
    /// Have them now, or say whether they could ever be had
    AllocateWithSatisfiability,
    /// Have them now or at the earliest moment
    AllocateOrelseReserve,
    /// Show what could be had now
    WithoutAllocating,
    /// Show what could be had at the earliest moment
    WithoutAllocatingFuture,
    /// Say whether they could ever be had
    Satisfiability,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(1)?;
    block_on(ask(options.command)).or_else(|failure| {
        // Scripts read what went wrong on standard output.
        outln!("{}", failure.message);
        Ok(failure.code)
    })
}

fn failed(error: RpcError) -> Failure {
    let code = match error.errno {
        libc::ENOENT => 3,
        libc::EBUSY => 16,
        libc::ENODEV => 19,
        _ => 1,
    };
    let kind = if code == 3 {
        "FileNotFoundError"
    } else {
        "OSError"
    };
    Failure::new(format!(
        "{kind}: error({}): {}",
        error.errno,
        rpc_text(&error)
    ))
    .code(code)
}

fn read(path: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound {
            3
        } else {
            1
        };
        Failure::new(format!("{path}: {e}")).code(code)
    })
}

fn read_json(path: &str) -> Result<String, Failure> {
    let value: Value =
        serde_json::from_str(&read(path)?).map_err(|e| Failure::new(format!("{path}: {e}")))?;
    Ok(pyjson::dumps(&value))
}

/// A jobspec, in YAML, as JSON.
fn read_jobspec(path: &str) -> Result<Value, Failure> {
    let value = yaml::first(&read(path)?);
    let value = value.map_err(|e| Failure::new(format!("{path}: {e}")).code(2))?;
    Ok(value.unwrap_or(Value::Null))
}

const WIDTH: usize = 80;

fn rule() {
    outln!("{}", "=".repeat(WIDTH));
}

/// A line of the table of jobs.
fn show_job(answer: &Value) {
    let at = answer["at"].as_i64().unwrap_or_default();
    let at = jiff::Timestamp::from_second(at).map_or_else(
        |_| at.to_string(),
        |t| t.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
    );
    let text = |key: &str| match &answer[key] {
        Value::String(text) => text.clone(),
        other => pyjson::dumps(other),
    };
    outln!(
        "{:20} {:20} {:20} {:20}",
        "JOBID",
        "STATUS",
        "AT",
        "OVERHEAD (Secs)"
    );
    outln!(
        "{:20} {:20} {:20} {:20}",
        text("jobid"),
        text("status"),
        at,
        text("overhead")
    );
}

fn show_resources(answer: &Value, title: &str) {
    show_job(answer);
    rule();
    outln!("{title}:");
    outln!("{}", answer["R"].as_str().unwrap_or_default());
}

struct Module(Handle);

impl Module {
    async fn call(&self, method: &str, request: Value) -> Result<Value, Failure> {
        let topic = format!("sched-fluxion-resource.{method}");
        let answer = self
            .0
            .rpc(&topic, Node::Any, &request)
            .await
            .map_err(failed)?;
        match answer.payload() {
            Some(_) => answer.json().map_err(failed),
            None => Ok(Value::Null),
        }
    }

    async fn find_for(&self, operation: Operation, path: &str) -> Outcome {
        let jobspec = read_jobspec(path)?;
        if operation == Operation::Satisfiability {
            let request = json!({ "jobspec": jobspec });
            self.0
                .rpc("feasibility.check", Node::Any, &request)
                .await
                .map_err(failed)?;
            rule();
            outln!("Satisfiable request");
            rule();
            return Ok(0);
        }
        let name = operation.to_possible_value();
        let cmd = name.as_ref().map_or("", |name| name.get_name());
        let jobid = self.call("next_jobid", json!({})).await?["jobid"].take();
        let request = json!({ "cmd": cmd, "jobid": jobid, "jobspec": jobspec.to_string() });
        show_resources(&self.call("match", request).await?, "MATCHED RESOURCES");
        Ok(0)
    }
}

async fn ask(command: Command) -> Outcome {
    let module = Module(Handle::open(None).await?);
    match command {
        Command::Match { operation, jobspec } => return module.find_for(operation, &jobspec).await,
        Command::Update { rv1, jobid } => {
            let request = json!({ "jobid": jobid, "R": read_json(&rv1)? });
            show_resources(&module.call("update", request).await?, "UPDATED RESOURCES");
        }
        Command::Info { jobid } => show_job(&module.call("info", json!({ "jobid": jobid })).await?),
        Command::Stats => show_stats(&module.call("stats-get", json!({})).await?),
        Command::StatsCancel => drop(module.call("stats-clear", json!({})).await?),
        Command::Cancel { jobid } => drop(module.call("cancel", json!({ "jobid": jobid })).await?),
        Command::PartialCancel { jobid, rv1exec } => {
            let request = json!({ "jobid": jobid, "R": read_json(&rv1exec)? });
            module.call("partial-cancel", request).await?;
        }
        Command::Find {
            criteria,
            format,
            quiet,
        } => {
            let mut request = json!({ "criteria": criteria });
            if let Some(format) = format {
                request["format"] = format.into();
            }
            let answer = module.call("find", request).await?;
            if !quiet {
                outln!("CRITERIA\n'{criteria}'");
                rule();
                outln!("MATCHED RESOURCES:");
            }
            outln!("{}", pyjson::dumps(&answer["R"]));
        }
        Command::Status => {
            let answer = module.call("status", json!({})).await?;
            outln!("CRITERIA");
            outln!("all: 'status=up or status=down'");
            outln!("down: 'status=down'");
            outln!("allocated: 'sched-now=allocated'");
            rule();
            outln!("MATCHED RESOURCES:\n{}", pyjson::dumps(&answer));
        }
        Command::SetStatus {
            resource_path,
            status,
        } => {
            let request = json!({ "resource_path": resource_path, "status": status });
            module.call("set_status", request).await?;
        }
        Command::SetProperty {
            resource_path,
            property,
        } => {
            let request = json!({ "sp_resource_path": resource_path, "sp_keyval": property });
            module.call("set_property", request).await?;
        }
        Command::RemoveProperty { resource_path, key } => {
            let request = json!({ "resource_path": resource_path, "key": key });
            module.call("remove_property", request).await?;
        }
        Command::GetProperty { resource_path, key } => {
            let request = json!({ "gp_resource_path": resource_path, "gp_key": key });
            let answer = module.call("get_property", request).await?;
            let values: Vec<String> = answer["values"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|v| format!("'{}'", v.as_str().unwrap_or_default()))
                .collect();
            outln!("{key} = [{}]", values.join(", "));
        }
        Command::NsInfo { rank, kind, id } => {
            let request = json!({ "rank": rank, "type-name": kind, "id": id });
            outln!("{}", module.call("ns-info", request).await?["id"]);
        }
        Command::Params => outln!(
            "{}",
            pyjson::dumps(&module.call("params", json!({})).await?)
        ),
        Command::AddSubgraph { subgraph } => {
            let request = json!({ "subgraph": read_json(&subgraph)? });
            module.call("add_subgraph", request).await?;
        }
        Command::RemoveSubgraph { subgraph_path } => {
            let request = json!({ "subgraph_path": subgraph_path });
            module.call("remove_subgraph", request).await?;
        }
    }
    Ok(0)
}

fn show_stats(stats: &Value) {
    outln!("Num. of Vertices:  {}", stats["V"]);
    outln!("Num. of Edges:  {}", stats["E"]);
    outln!(
        "Num. of Vertices by Rank:  {}",
        pyjson::dumps(&stats["by_rank"])
    );
    outln!(
        "Graph Load Time:  {} Secs",
        pyjson::dumps(&stats["load-time"])
    );
    outln!("Graph Upime:  {} Secs", stats["graph-uptime"]);
    outln!(
        "Time Since Stats Reset:  {} Secs",
        stats["time-since-reset"]
    );
    let kinds = [
        (
            "succeeded",
            [
                "Total Jobs Successfully Matched",
                "Jobs Successfully Matched Since Reset",
            ],
            [
                "Min. Successful Match Time",
                "Max. Successful Match Time",
                "Avg. Successful Match Time",
                "Successful Match Variance",
            ],
        ),
        (
            "failed",
            [
                "Jobs with Failed Matches",
                "Jobs with Failed Matches Since Reset",
            ],
            [
                "Min. Match Time of Failed Matches",
                "Max. Match Time of Failed Matches",
                "Avg. Match Time of Failed Matches",
                "Match Variance of Failed Matches",
            ],
        ),
    ];
    for (kind, counts, times) in kinds {
        let of = &stats["match"][kind];
        outln!("Num. of {}:  {}", counts[0], of["njobs"]);
        outln!("Num. of {}:  {}", counts[1], of["njobs-reset"]);
        outln!(
            "Jobid corresponding to max match time:  {}",
            of["max-match-jobid"]
        );
        outln!(
            "Match iterations corresponding to max match time:  {}",
            of["max-match-iters"]
        );
        let units = ["Secs", "Secs", "Secs", "Secs^2"];
        for ((title, key), unit) in times
            .iter()
            .zip(["min", "max", "avg", "variance"])
            .zip(units)
        {
            outln!("{title}:  {} {unit}", pyjson::dumps(&of["stats"][key]));
        }
    }
}
