//! `flux uptime`: how long the instance has been running, in the manner of uptime(1).

use std::collections::BTreeMap;

use clap::Parser;
use client::services::attr::GetAttr;
use client::services::state_machine;
use client::{Handle, Node};
use formats::idset::Idset;
use jiff::Zoned;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

/// Show how long this Flux instance has been running.
#[derive(Parser)]
struct Options {}

async fn number(handle: &Handle, name: &str) -> Result<u32, Failure> {
    let text = handle.getattr(name).await.context(name)?;
    text.parse()
        .map_err(|_| Failure::new(format!("attribute {name} is {text:?}, not a number")))
}

/// Nodes that are drained.
async fn drained(handle: &Handle) -> Result<usize, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        drain: BTreeMap<String, Value>,
    }
    let answer: Answer = handle
        .call("resource.status", Node::Rank(0), &json!({}))
        .await
        .context("resource status")?;
    let sets = answer.drain.keys().map(|ids| ids.parse::<Idset>());
    Ok(sets.flatten().map(|ids| ids.len()).sum())
}

async fn online(handle: &Handle) -> Result<usize, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        members: Idset,
    }
    let request = json!({ "name": "broker.online" });
    let answer: Answer = handle.call("groups.get", Node::Rank(0), &request).await?;
    Ok(answer.members.len())
}

/// Whether any queue takes jobs, and whether any starts them.
async fn queues(handle: &Handle) -> Result<(bool, bool), Failure> {
    #[derive(Deserialize)]
    struct Queues {
        queues: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Status {
        enable: bool,
        start: bool,
    }
    let list: Queues = handle
        .call("job-manager.queue-list", Node::Rank(0), &json!({}))
        .await?;
    let requests = match list.queues.is_empty() {
        true => vec![json!({})],
        false => list
            .queues
            .iter()
            .map(|name| json!({ "name": name }))
            .collect(),
    };
    let mut any = (false, false);
    for request in requests {
        let status: Status = handle
            .call("job-manager.queue-status", Node::Rank(0), &request)
            .await?;
        any = (any.0 || status.enable, any.1 || status.start);
    }
    Ok(any)
}

/// A duration in the largest unit that suits it, with two digits.
pub(crate) fn short_duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 60. => (s, "s"),
        s if s < 3600. => (s / 60., "m"),
        s if s < 86400. => (s / 3600., "h"),
        s => (s / 86400., "d"),
    };
    // As C's %.2g: two significant digits, without an exponent for the values that occur.
    let digits = if value >= 10. || value == 0. { 0 } else { 1 };
    let text = format!("{value:.digits$}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    format!("{text}{unit}")
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options {} = args.parse()?;
    block_on(async {
        let handle = Handle::open(None).await?;
        let owner = number(&handle, "security.owner").await?;
        let size = number(&handle, "size").await?;
        let level = number(&handle, "instance-level").await?;
        let state = handle.ask(Node::Any, &state_machine::Get {}).await?;
        let mut duration = state.duration;
        let mut extra = String::new();
        let mut notes = Vec::new();
        if state.state == "run" {
            let name = "broker.starttime";
            let start = handle.ask(Node::Rank(0), &GetAttr { name }).await?;
            let start: f64 = start.value.parse().unwrap_or(0.);
            duration = jiff::Timestamp::now().as_duration().as_secs_f64() - start;
            let drained = drained(&handle).await?;
            let offline = (size as usize).saturating_sub(online(&handle).await?);
            for (count, name) in [(drained, "drained"), (offline, "offline")] {
                if count > 0 {
                    extra += &format!(",  {count} {name}");
                }
            }
            // An instance without the job manager has no queues to report on.
            if let Ok((enabled, started)) = queues(&handle).await {
                notes.extend((!enabled).then_some("submit disabled"));
                notes.extend((!started).then_some("scheduler stopped"));
            }
        }
        let user = nix::unistd::User::from_uid(owner.into()).ok().flatten();
        outln!(
            " {} {} {},  owner {},  depth {level},  size {size}{extra}",
            Zoned::now().strftime("%H:%M:%S"),
            state.state,
            short_duration(duration.max(0.)),
            user.map_or_else(|| owner.to_string(), |u| u.name),
        );
        if !notes.is_empty() {
            outln!("  {}", notes.join(",  "));
        }
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let shown = [0., 5.2, 42.1, 61., 5400., 90000.].map(short_duration);
        assert_eq!(shown, ["0s", "5.2s", "42s", "1m", "1.5h", "1d"]);
    }
}
