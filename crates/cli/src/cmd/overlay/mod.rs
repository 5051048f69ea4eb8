//! `flux overlay`: the brokers' tree.

mod errors;
mod status;
mod trace;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use formats::hostlist::Hostlist;
use formats::idset::Idset;
use serde::Deserialize;
use serde_json::json;
use wire::RpcError;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome, rpc_text};
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
    Status(status::Options),
    /// Say why brokers are lost, a line for each reason
    Errors(errors::Options),
    /// Translate between ranks and hosts
    Lookup(Lookup),
    /// Print the parent of a rank
    Parentof(Parentof),
    /// Cut a broker and all below it off
    Disconnect(Disconnect),
    /// Show the messages between a broker and its peers
    Trace(trace::Options),
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

#[derive(Parser)]
struct Disconnect {
    /// Rank of the parent that is to do it
    #[arg(short = 'r', long, value_name = "NODEID")]
    parent: Option<u32>,
    /// Rank or host
    target: String,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    Always,
    Never,
    Auto,
}

impl When {
    pub(crate) fn is_on(self) -> bool {
        use std::io::IsTerminal as _;
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => std::io::stdout().is_terminal(),
        }
    }
}

/// A broker's account of itself and its children.
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
    #[serde(default)]
    error: String,
}

impl Child {
    fn is_gone(&self) -> bool {
        matches!(self.status.as_str(), "offline" | "lost")
    }
}

#[derive(Deserialize)]
struct Topology {
    rank: u32,
    size: u32,
    #[serde(default)]
    children: Vec<Topology>,
}

/// The whole tree, with its hosts.
struct Map {
    hosts: Hostlist,
    children: BTreeMap<u32, Vec<u32>>,
    size: u32,
}

impl Map {
    async fn load(handle: &Handle) -> Result<Self, Failure> {
        let text = handle.getattr("hostlist").await.context("hostlist")?;
        let hosts = text.parse();
        let hosts = hosts.map_err(|e| Failure::new(format!("attribute hostlist: {e}")))?;
        let request = json!({ "rank": 0 });
        let tree: Topology = handle
            .call("overlay.topology", Node::Rank(0), &request)
            .await
            .context("error fetching overlay topology")?;
        Ok(Self::new(hosts, tree))
    }

    fn new(hosts: Hostlist, tree: Topology) -> Self {
        let size = tree.size;
        let mut children = BTreeMap::new();
        let mut open = vec![tree];
        while let Some(at) = open.pop() {
            children.insert(at.rank, at.children.iter().map(|c| c.rank).collect());
            open.extend(at.children);
        }
        Self {
            hosts,
            children,
            size,
        }
    }

    fn host(&self, rank: u32) -> String {
        self.hosts.nth(rank as usize).unwrap_or_default()
    }

    fn below(&self, rank: u32) -> &[u32] {
        self.children.get(&rank).map_or(&[], Vec::as_slice)
    }

    fn subtree(&self, rank: u32) -> Idset {
        let mut ranks = vec![rank];
        let mut at = 0;
        while at < ranks.len() {
            ranks.extend_from_slice(self.below(ranks[at]));
            at += 1;
        }
        ranks.into_iter().collect()
    }

    fn parent(&self, rank: u32) -> Result<u32, Failure> {
        if rank >= self.size {
            let text = format!("{rank} is not a valid rank in this instance");
            return Err(Failure::new(text));
        }
        let mut parents = self.children.iter();
        let parent = parents.find(|(_, below)| below.contains(&rank));
        let parent = parent.ok_or_else(|| Failure::new(format!("{rank} has no parent")))?;
        Ok(*parent.0)
    }

    /// Hosts of ranks, or ranks of hosts.
    fn lookup(&self, target: &str) -> Result<String, Failure> {
        if let Ok(ranks) = target.parse::<Idset>() {
            return Ok(self.hosts_of(&ranks)?.to_string());
        }
        Ok(self.ranks_of(target)?.to_string())
    }

    fn hosts_of(&self, ranks: &Idset) -> Result<Hostlist, Failure> {
        let mut found = Hostlist::new();
        for rank in ranks.iter() {
            let host = self.hosts.nth(rank as usize);
            let lacks = || Failure::new(format!("rank {rank} is not in host map"));
            found.push(&host.ok_or_else(lacks)?);
        }
        Ok(found)
    }

    fn ranks_of(&self, target: &str) -> Result<Idset, Failure> {
        let names: Hostlist = target.parse().map_err(|e| Failure::new(format!("{e}")))?;
        let mut ranks = Idset::new();
        for name in names.iter() {
            let rank = self.hosts.find(&name);
            let lacks = || Failure::new(format!("host {name} not found in host map"));
            ranks.insert(rank.ok_or_else(lacks)? as u32);
        }
        Ok(ranks)
    }
}

/// A time limit: none if it is zero.
fn limit(seconds: f64) -> Option<Duration> {
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    (!limit.is_zero()).then_some(limit)
}

/// A broker's health, once it is `wait` if that is given.
async fn health(
    handle: &Handle,
    rank: u32,
    wait: Option<&str>,
    limit: Option<Duration>,
) -> Result<Health, RpcError> {
    let ask = async {
        let nothing = json!({});
        let node = Node::Rank(rank);
        let Some(wait) = wait else {
            return handle
                .call::<Health>("overlay.health", node, &nothing)
                .await;
        };
        let mut answers = handle.stream("overlay.health", node, &nothing);
        while let Some(answer) = answers.next().await {
            let health: Health = answer?.json()?;
            if health.status == wait {
                return Ok(health);
            }
        }
        Err(RpcError::errno(libc::ENODATA))
    };
    match limit {
        Some(limit) => tokio::time::timeout(limit, ask)
            .await
            .unwrap_or_else(|_| Err(RpcError::errno(libc::ETIMEDOUT))),
        None => ask.await,
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let command = args.parse::<Options>()?.command;
    match &command {
        What::Status(o) => o.check()?,
        What::Trace(o) => o.check()?,
        _ => {}
    }
    block_on(async {
        let handle = Handle::open(None).await?;
        if let What::Trace(o) = command {
            return trace::run(&handle, o).await;
        }
        let map = Map::load(&handle).await?;
        match command {
            What::Status(o) => status::run(&handle, &map, &o).await,
            What::Errors(o) => errors::run(&handle, &map, &o).await,
            What::Lookup(o) => {
                outln!("{}", map.lookup(&o.target)?);
                Ok(0)
            }
            What::Parentof(o) => {
                outln!("{}", map.parent(o.rank)?);
                Ok(0)
            }
            What::Disconnect(o) => disconnect(&handle, &map, &o).await,
            // Done above.
            What::Trace(_) => Ok(0),
        }
    })
}

async fn disconnect(handle: &Handle, map: &Map, options: &Disconnect) -> Outcome {
    let target = &options.target;
    let rank = match target.parse::<u32>() {
        Ok(rank) => rank,
        Err(_) => map
            .hosts
            .find(target)
            .ok_or_else(|| Failure::new("TARGET must be a valid rank or hostname"))?
            as u32,
    };
    let parent = match options.parent {
        Some(parent) => parent,
        None => map.parent(rank)?,
    };
    eprintln!(
        "flux-overlay: asking {} (rank {parent}) to disconnect child {} (rank {rank})",
        map.host(parent),
        map.host(rank)
    );
    let request = json!({ "rank": rank });
    let rpc = handle.rpc("overlay.disconnect-subtree", Node::Rank(parent), &request);
    rpc.await
        .map_err(|e| Failure::new(format!("overlay.disconnect-subtree: {}", rpc_text(&e))))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map() {
        let tree = r#"{"rank":0,"size":4,"children":[
            {"rank":1,"size":2,"children":[{"rank":3,"size":1,"children":[]}]},
            {"rank":2,"size":1,"children":[]}]}"#;
        let map = Map::new(
            "a[0-3]".parse().unwrap(),
            serde_json::from_str(tree).unwrap(),
        );
        assert_eq!(
            (map.parent(3).unwrap(), map.subtree(1).to_string()),
            (1, "1,3".into())
        );
        assert!(map.parent(0).is_err() && map.parent(9).is_err());
        assert_eq!(map.lookup("1-2").unwrap(), "a[1-2]");
        assert_eq!(map.lookup("a[0,3]").unwrap(), "0,3");
        assert!(map.lookup("zz").is_err() && map.lookup("7").is_err());
    }
}
