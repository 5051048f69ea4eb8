//! `flux overlay errors`: why brokers are lost, a line for each reason.

use std::collections::BTreeMap;

use clap::Parser;
use client::Handle;
use formats::idset::Idset;
use futures::stream::{FuturesUnordered, StreamExt};

use super::{Map, health, limit};
use crate::error::{Outcome, rpc_text};
use crate::launch::parse_duration;
use crate::output::outln;

/// Brokers asked at once.
const AT_ONCE: usize = 512;
/// Brokers that answer within the usual time limit; for more it grows in proportion.
const USUAL: u32 = 2048;

#[derive(Parser)]
pub(super) struct Options {
    /// Wait this long for each broker; 0 is for ever
    #[arg(short, long, value_name = "FSD", value_parser = parse_duration)]
    timeout: Option<f64>,
}

/// Reasons with the ranks they are for.
#[derive(Default)]
struct Errors(BTreeMap<String, Idset>);

impl Errors {
    fn add(&mut self, ranks: &Idset, error: &str) {
        if !ranks.is_empty() {
            let known = self.0.entry(error.to_owned()).or_default();
            *known = known.union(ranks);
        }
    }

    /// A broker cannot be reached, nor can those below it.
    fn lost(&mut self, map: &Map, rank: u32, error: &str) {
        let own = Idset::from(rank);
        self.add(&map.subtree(rank).difference(&own), "lost parent");
        self.add(&own, error);
    }
}

pub(super) async fn run(handle: &Handle, map: &Map, options: &Options) -> Outcome {
    let usual = 0.5 * f64::from(map.size.max(USUAL)) / f64::from(USUAL);
    let limit = limit(options.timeout.unwrap_or(usual));
    let ask = |rank| async move { (rank, health(handle, rank, None, limit).await) };
    let mut errors = Errors::default();
    let mut open = vec![0];
    let mut asked = FuturesUnordered::new();
    loop {
        while asked.len() < AT_ONCE
            && let Some(rank) = open.pop()
        {
            asked.push(ask(rank));
        }
        let Some((rank, answer)) = asked.next().await else {
            break;
        };
        let health = match answer {
            Ok(health) => health,
            Err(e) => {
                errors.lost(map, rank, &rpc_text(&e));
                continue;
            }
        };
        for child in health.children {
            match child.status.as_str() {
                "lost" if child.error.is_empty() => errors.lost(map, child.rank, "unknown error"),
                "lost" => errors.lost(map, child.rank, &child.error),
                // A broker that has not come yet is no error, unless it was turned away.
                "offline" if child.error.is_empty() => {}
                "offline" => errors.add(&Idset::from(child.rank), &child.error),
                _ => open.push(child.rank),
            }
        }
    }
    for (error, ranks) in &errors.0 {
        outln!("{}: {error}", map.hosts_of(ranks)?);
    }
    Ok(0)
}
