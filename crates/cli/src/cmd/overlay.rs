//! `flux overlay`: the brokers' tree.

use std::time::Duration;

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use formats::hostlist::Hostlist;
use formats::idset::Idset;
use futures::future::{BoxFuture, FutureExt};
use serde::Deserialize;
use serde_json::json;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::launch::parse_duration;
use crate::output::outln;

/// Look at the brokers' tree.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Show the state of the tree
    Status(Status),
    /// Translate between ranks and hosts
    Lookup(Lookup),
    /// Print the parent of a rank
    Parentof(Parentof),
}

#[derive(Parser)]
struct Status {
    /// Root of the part to show
    #[arg(short, long, value_name = "NODEID", default_value_t = 0)]
    rank: u32,
    /// Say since when
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Wait this long for each broker; 0 is for ever
    #[arg(short, long, value_name = "FSD", default_value = "0.5s", value_parser = parse_duration)]
    timeout: f64,
    /// Only the root of the part
    #[arg(long)]
    summary: bool,
    /// Only what is not full
    #[arg(long)]
    down: bool,
    /// No lines that draw the tree
    #[arg(long)]
    no_pretty: bool,
    /// Nothing presumed about brokers that cannot be asked
    #[arg(long)]
    no_ghost: bool,
}

#[derive(Parser)]
struct Lookup {
    /// Ranks or hosts
    target: String,
}

#[derive(Parser)]
struct Parentof {
    rank: u32,
}

#[derive(Deserialize)]
struct Health {
    rank: u32,
    status: String,
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    children: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    rank: u32,
    status: String,
    #[serde(default)]
    duration: f64,
}

#[derive(Deserialize)]
struct Topology {
    rank: u32,
    #[serde(default)]
    children: Vec<Topology>,
}

/// What is shown of one broker.
struct View {
    rank: u32,
    status: String,
    duration: f64,
    children: Vec<View>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let command = args.parse::<Options>()?.command;
    block_on(async {
        let handle = Handle::open(None).await?;
        match command {
            What::Status(o) => status(&handle, &o).await,
            What::Lookup(o) => lookup(&handle, &o.target).await,
            What::Parentof(o) => parentof(&handle, o.rank).await,
        }
    })
}

async fn hosts(handle: &Handle) -> Result<Hostlist, Failure> {
    let text = handle.getattr("hostlist").await.context("hostlist")?;
    text.parse()
        .map_err(|e| Failure::new(format!("attribute hostlist: {e}")))
}

async fn topology(handle: &Handle, rank: u32) -> Result<Topology, Failure> {
    let request = json!({ "rank": rank });
    Ok(handle
        .call("overlay.topology", Node::Rank(0), &request)
        .await?)
}

async fn status(handle: &Handle, options: &Status) -> Outcome {
    let hosts = hosts(handle).await?;
    let topology = topology(handle, options.rank).await?;
    let view = view(handle, topology, None, options).await?;
    print(&view, &hosts, options, "", "");
    Ok(0)
}

/// A broker's own report with those below it, or what its parent says of it.
fn view<'a>(
    handle: &'a Handle,
    topology: Topology,
    said: Option<Child>,
    options: &'a Status,
) -> BoxFuture<'a, Result<View, Failure>> {
    async move {
        let rank = topology.rank;
        if let Some(said) = said.filter(|s| matches!(s.status.as_str(), "offline" | "lost")) {
            return Ok(ghost(topology, &said.status, said.duration, options));
        }
        let nothing = json!({});
        let rpc = handle.call::<Health>("overlay.health", Node::Rank(rank), &nothing);
        let health = match options.timeout {
            t if t > 0. => {
                let limit = Duration::try_from_secs_f64(t).unwrap_or(Duration::MAX);
                tokio::time::timeout(limit, rpc)
                    .await
                    .unwrap_or_else(|_| Err(wire::RpcError::errno(libc::ETIMEDOUT)))
            }
            _ => rpc.await,
        };
        let health = match health {
            Ok(health) => health,
            Err(e) => {
                let text = crate::error::rpc_text(&e);
                return Ok(ghost(topology, &text, 0., options));
            }
        };
        let mut view = View {
            rank: health.rank,
            status: health.status,
            duration: health.duration,
            children: Vec::new(),
        };
        if options.summary {
            return Ok(view);
        }
        let mut below = topology.children;
        for child in health.children {
            if options.down && child.status == "full" {
                continue;
            }
            if let Some(at) = below.iter().position(|t| t.rank == child.rank) {
                let part = below.swap_remove(at);
                view.children
                    .push(self::view(handle, part, Some(child), options).await?);
            }
        }
        Ok(view)
    }
    .boxed()
}

/// A part of the tree that nobody can be asked about.
fn ghost(topology: Topology, status: &str, duration: f64, options: &Status) -> View {
    let children = match options.no_ghost || options.summary {
        true => Vec::new(),
        false => topology.children,
    };
    View {
        rank: topology.rank,
        status: status.to_owned(),
        duration,
        children: children
            .into_iter()
            .map(|t| ghost(t, status, duration, options))
            .collect(),
    }
}

fn print(view: &View, hosts: &Hostlist, options: &Status, first: &str, rest: &str) {
    let host = hosts.nth(view.rank as usize).unwrap_or_default();
    let since = match options.verbose {
        0 => String::new(),
        _ => format!(" for {}", formats::fsd::format(view.duration)),
    };
    outln!("{first}{} {host}: {}{since}", view.rank, view.status);
    for (i, child) in view.children.iter().enumerate() {
        if options.no_pretty {
            print(child, hosts, options, "", "");
        } else if i + 1 == view.children.len() {
            print(
                child,
                hosts,
                options,
                &format!("{rest}└─ "),
                &format!("{rest}   "),
            );
        } else {
            print(
                child,
                hosts,
                options,
                &format!("{rest}├─ "),
                &format!("{rest}│  "),
            );
        }
    }
}

async fn lookup(handle: &Handle, target: &str) -> Outcome {
    let hosts = hosts(handle).await?;
    if let Ok(ranks) = target.parse::<Idset>() {
        let mut found = Hostlist::new();
        for rank in ranks.iter() {
            let host = hosts.nth(rank as usize);
            found.push(&host.ok_or_else(|| Failure::new(format!("no rank {rank}")))?);
        }
        outln!("{found}");
        return Ok(0);
    }
    let names: Hostlist = target.parse().map_err(|e| Failure::new(format!("{e}")))?;
    let mut ranks = Idset::new();
    for name in names.iter() {
        let rank = hosts.find(&name);
        ranks.insert(rank.ok_or_else(|| Failure::new(format!("no host {name}")))? as u32);
    }
    outln!("{ranks}");
    Ok(0)
}

async fn parentof(handle: &Handle, rank: u32) -> Outcome {
    fn find(tree: &Topology, rank: u32) -> Option<u32> {
        if tree.children.iter().any(|c| c.rank == rank) {
            return Some(tree.rank);
        }
        tree.children.iter().find_map(|c| find(c, rank))
    }
    let tree = topology(handle, 0).await?;
    let parent = find(&tree, rank);
    let parent = parent.ok_or_else(|| Failure::new(format!("rank {rank} has no parent")))?;
    outln!("{parent}");
    Ok(0)
}
