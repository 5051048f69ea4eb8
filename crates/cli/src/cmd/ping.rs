//! `flux ping TARGET`: measure the round trip to a service and show the way it took.
//!
//! TARGET is a rank, a host, `RANK!SERVICE` or a service; the service alone is looked for from
//! this broker towards rank 0.

use std::time::{Duration, Instant};

use clap::Parser;
use client::{Handle, Node};
use formats::hostlist::Hostlist;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

/// Measure round trips to a Flux service.
#[derive(Parser)]
struct Options {
    /// Rank or host to ask
    #[arg(short, long, value_name = "RANK")]
    rank: Option<String>,
    /// Add N bytes to the request
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pad: usize,
    /// Seconds between requests
    #[arg(short, long, value_name = "N", default_value = "1.0", value_parser = crate::launch::parse_duration)]
    interval: f64,
    /// Stop after N requests
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Send all requests before reading responses
    #[arg(short, long)]
    batch: bool,
    /// Show user id and roles of the request
    #[arg(short, long)]
    userid: bool,
    /// Rank, host or service
    target: String,
}

#[derive(Deserialize)]
struct Answer {
    seq: u64,
    pad: String,
    route: String,
    userid: u32,
    rolemask: u32,
    #[serde(default)]
    rank: Option<u32>,
}

/// Where a ping goes, and how that is shown.
#[derive(Debug, PartialEq)]
struct Target {
    node: Node,
    service: String,
    shown: String,
    suffix: String,
}

/// A node by name, if it is one.
fn node(text: &str, hosts: &Hostlist) -> Option<(Node, String)> {
    match text {
        "any" => return Some((Node::Any, String::new())),
        "upstream" => return Some((Node::Upstream, String::new())),
        _ => {}
    }
    if let Some(rank) = hosts.find(text) {
        return Some((Node::Rank(rank as u32), format!(" (rank {rank})")));
    }
    let rank = text.parse().ok()?;
    Some((Node::Rank(rank), String::new()))
}

fn target(text: &str, hosts: &Hostlist) -> Result<Target, Failure> {
    let (name, service) = match text.split_once('!') {
        Some((name, service)) => {
            let found = node(name, hosts)
                .ok_or_else(|| Failure::new(format!("invalid nodeid/host: '{name}'")))?;
            ((name, found), service)
        }
        None => match node(text, hosts) {
            Some(found) => ((text, found), "broker"),
            None => (("any", (Node::Any, String::new())), text),
        },
    };
    let (shown, (node, suffix)) = name;
    Ok(Target {
        node,
        service: service.to_owned(),
        shown: shown.to_owned(),
        suffix,
    })
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    if options.interval < 0. {
        return Err(Failure::new("--interval must not be negative"));
    }
    if options.batch && options.count.is_none() {
        return Err(Failure::new("--batch needs --count"));
    }
    if options.rank.is_some() && options.target.contains('!') {
        return Err(Failure::new("--rank and TARGET both name a node"));
    }
    block_on(ping(options))
}

async fn ping(options: Options) -> Outcome {
    let handle = Handle::open(None).await?;
    let hosts = handle.getattr("hostlist").await.ok();
    let hosts = hosts.and_then(|text| text.parse().ok()).unwrap_or_default();
    let text = match &options.rank {
        Some(rank) => format!("{rank}!{}", options.target),
        None => options.target.clone(),
    };
    let target = target(&text, &hosts)?;
    let topic = format!("{}.ping", target.service);
    let pad = "p".repeat(options.pad);
    let what = match target.node {
        Node::Any => topic.clone(),
        Node::Upstream => format!("upstream!{topic}"),
        Node::Rank(rank) => format!("{rank}!{topic}"),
    };
    outln!(
        "flux-ping {}!{}{}",
        target.shown,
        target.service,
        target.suffix
    );
    let start = Instant::now();
    let send = |seq: u64| {
        let since = start.elapsed();
        let request = json!({
            "seq": seq,
            "time.tv_sec": since.as_secs(),
            "time.tv_nsec": since.subsec_nanos(),
            "pad": pad,
        });
        (Instant::now(), handle.rpc(&topic, target.node, &request))
    };
    let show = |answer: &Answer, took: Duration| -> Result<(), Failure> {
        if answer.pad != pad {
            return Err(Failure::new(format!("{what}: padding contents invalid")));
        }
        let user = match options.userid {
            true => format!(" userid={} rolemask={:#x}", answer.userid, answer.rolemask),
            false => String::new(),
        };
        let place = answer.rank.map_or_else(String::new, |r| format!("{r}!"));
        outln!(
            "{place}{topic} pad={}{user} seq={} time={:.3} ms ({})",
            pad.len(),
            answer.seq,
            took.as_secs_f64() * 1000.,
            answer.route
        );
        Ok(())
    };
    if options.batch {
        let sent: Vec<_> = (0..options.count.unwrap_or(0)).map(send).collect();
        for (at, rpc) in sent {
            let answer = rpc.await.context(&what)?.json().context(&what)?;
            show(&answer, at.elapsed())?;
        }
        return Ok(0);
    }
    let mut seq = 0;
    loop {
        let (at, rpc) = send(seq);
        let answer: Value = rpc.await.context(&what)?.json().context(&what)?;
        let took = at.elapsed();
        let answer = serde_json::from_value(answer)
            .map_err(|e| Failure::new(format!("{what}: response: {e}")))?;
        show(&answer, took)?;
        seq += 1;
        if options.count == Some(seq) {
            return Ok(0);
        }
        let pause = Duration::try_from_secs_f64(options.interval).unwrap_or(Duration::MAX);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let hosts: Hostlist = "n[0-2]".parse().unwrap();
        let show = |text| {
            let t = target(text, &hosts).unwrap();
            format!("{:?} {} {}{}", t.node, t.service, t.shown, t.suffix)
        };
        assert_eq!(show("0"), "Rank(0) broker 0");
        assert_eq!(show("kvs"), "Any kvs any");
        assert_eq!(show("n1!kvs"), "Rank(1) kvs n1 (rank 1)");
        assert_eq!(show("upstream!kvs"), "Upstream kvs upstream");
        assert!(target("x!kvs", &hosts).is_err());
    }
}
