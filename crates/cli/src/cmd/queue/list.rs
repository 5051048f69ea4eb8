//! `flux queue list`.

use clap::Args;
use client::{Handle, Node};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::info::Queue;
use super::status_of;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::format::Format;
use crate::format::named::{Formats, Named};
use crate::resources::Resources;

const BUILTIN: [Named; 3] = [
    (
        "default",
        "Default flux-queue list format string",
        "?:{queuem:<8.8} ?:{parent:<8.8} {color_enabled}{enabled:>2}{color_off} \
         {color_started}{started:>2}{color_off} {defaults.timelimit!F:>8} {limits.timelimit!F:>8} \
         {limits.range.effective.nnodes:>10} {limits.range.effective.ncores:>10} \
         {limits.range.effective.ngpus:>10}",
    ),
    (
        "policy",
        "flux-queue list with policy limits only",
        "?:{queuem:<8.8} ?:{parent:<8.8} {color_enabled}{enabled:>2}{color_off} \
         {color_started}{started:>2}{color_off} {defaults.timelimit!F:>8} {limits.timelimit!F:>8} \
         {limits.range.nnodes:>10} {limits.range.ncores:>10} {limits.range.ngpus:>10}",
    ),
    (
        "nodes",
        "Show queue status plus all/up/allocated/free nodes",
        "?:{queuem:<8.8} ?:{parent:<8.8} {color_enabled}{enabled:>2}{color_off} \
         {color_started}{started:>2}{color_off} {resources.all.nnodes:>6} \
         {resources.up.nnodes:>10} {resources.down.nnodes:>10} {resources.allocated.nnodes:>11} \
         {resources.free.nnodes:>10}",
    ),
];

const HEADINGS: &[(&str, &str)] = &[
    ("queue", "QUEUE"),
    ("queuem", "QUEUE"),
    ("parent", "PARENT"),
    ("submission", "SUBMIT"),
    ("scheduling", "SCHED"),
    ("enabled", "EN"),
    ("started", "ST"),
    ("enabled.ascii", "EN"),
    ("started.ascii", "ST"),
    ("color_enabled", ""),
    ("color_started", ""),
    ("color_off", ""),
    ("defaults.timelimit", "TDEFAULT"),
    ("limits.timelimit", "TLIMIT"),
    ("limits.range.nnodes", "NNODES"),
    ("limits.range.ncores", "NCORES"),
    ("limits.range.ngpus", "NGPUS"),
    ("limits.range.effective.nnodes", "NNODES"),
    ("limits.range.effective.ncores", "NCORES"),
    ("limits.range.effective.ngpus", "NGPUS"),
    ("limits.min.nnodes", "MINNODES"),
    ("limits.max.nnodes", "MAXNODES"),
    ("limits.min.ncores", "MINCORES"),
    ("limits.max.ncores", "MAXCORES"),
    ("limits.min.ngpus", "MINGPUS"),
    ("limits.max.ngpus", "MAXGPUS"),
];

/// Headings, those of `resources.STATE.WHAT` included.
fn heading(field: &str) -> Option<String> {
    if let Some((_, heading)) = HEADINGS.iter().find(|h| h.0 == field) {
        return Some((*heading).to_owned());
    }
    let (state, what) = field.strip_prefix("resources.")?.split_once('.')?;
    if !["nnodes", "ncores", "ngpus"].contains(&what) || !crate::resources::STATES.contains(&state)
    {
        return None;
    }
    let what = what[1..].to_uppercase();
    Some(match state {
        "all" => what,
        state => format!("{what}:{}", state[..state.len().min(5)].to_uppercase()),
    })
}

#[derive(Args)]
pub(super) struct List {
    /// Only these queues
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    /// Output format: Python's format syntax, or a name ("help" lists names)
    #[arg(short = 'o', long, default_value = "default")]
    format: String,
    /// Do not print the heading
    #[arg(short, long)]
    no_header: bool,
}

async fn queues(handle: &Handle, only: &[String]) -> Result<Vec<Queue>, Failure> {
    let empty = json!({});
    let (resources, config) = futures::join!(
        Resources::fetch(handle),
        handle.call::<Value>("config.get", Node::Any, &empty),
    );
    let (resources, config) = (resources?, config?);
    let configured = config["queues"].as_object();
    let mut names: Vec<String> = configured
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    if !only.is_empty() {
        if let Some(unknown) = only.iter().find(|q| !names.contains(q)) {
            return Err(Failure::new(format!("No such queue: {unknown}")));
        }
        names = only.to_vec();
    }
    // Without named queues there is one that has no name.
    if names.is_empty() {
        names.push(String::new());
    }
    let asked = names.iter().map(|name| {
        let name = (!name.is_empty()).then_some(name.as_str());
        status_of(handle, name)
    });
    let statuses = try_join_all(asked).await?;
    let queues = names.iter().zip(statuses);
    queues
        .map(|(name, status)| Queue::new(name, &config, status, &resources))
        .collect()
}

impl List {
    pub(super) fn run(self) -> Outcome {
        let formats = Formats {
            config: "flux-queue",
            tool: "flux-queue",
            subcommand: Some("list"),
            builtin: &BUILTIN,
        };
        let Some(text) = formats.resolve(&self.format)? else {
            return Ok(0);
        };
        let format = Format::parse(&text, &heading)?;
        block_on(async {
            let handle = Handle::open(None).await?;
            let queues = queues(&handle, &self.queue).await?;
            format.print(queues, self.no_header)?;
            Ok(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn status(enable: bool, start: bool) -> Status {
        serde_json::from_value(json!({"enable": enable, "start": start})).unwrap()
    }

    #[test]
    fn limits_are_inherited() {
        let config = json!({
            "policy": {"limits": {"duration": "1h", "job-size": {"max": {"nnodes": 4}}},
                       "jobspec": {"defaults": {"system": {"queue": "batch", "duration": "10m"}}}},
            "queues": {"batch": {"requires": ["b"], "policy": {"limits": {"duration": "8h"}}},
                       "debug": {"policy": {"limits": {"job-size": {"min": {"nnodes": 2}, "max": {"nnodes": -1}}}}}}
        });
        let r = json!({"version": 1, "execution": {"R_lite": [{"rank": "0-9", "children": {"core": "0-3"}}],
            "nodelist": ["n[0-9]"], "properties": {"b": "0-2"}}});
        let resources =
            Resources::from_json(json!({"all": r, "down": null, "allocated": null})).unwrap();
        let queue = |name, status| Queue::new(name, &config, status, &resources).unwrap();
        let queues = || {
            vec![
                queue("batch", status(true, true)),
                queue("debug", status(false, false)),
            ]
        };
        let show = |format: &str| {
            let format = Format::parse(format, &heading).unwrap();
            format.lines(queues(), false).unwrap().join("\n")
        };
        insta::assert_snapshot!(show(&BUILTIN[0].2.replace("{color_off}", "").replace("{color_enabled}", "").replace("{color_started}", "")), @r"
        QUEUE    EN ST TDEFAULT   TLIMIT     NNODES     NCORES      NGPUS
        batch*    ✔  ✔      10m       8h        0-3       0-12        0-0
        debug     ✗  ✗      10m       1h       2-10       0-40        0-0
        ");
        insta::assert_snapshot!(show("{queue} {limits.range.nnodes} {limits.max.nnodes} {resources.free.ncores}"), @r"
        QUEUE NNODES MAXNODES CORES:FREE
        batch 0-4 4 12
        debug 2-inf inf 40
        ");
    }
}
