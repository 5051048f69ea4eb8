//! `flux resource status`: nodes by administrative state.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use client::{Handle, Node};
use formats::{Hostlist, Idset, ResourceSet};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{queue_ranks, read_json};
use crate::error::{Context, Failure, Outcome};
use crate::format::named::{Formats, Named};
use crate::format::{Format, Item, Value};
use crate::resources::{Resources, targets};

const BUILTIN: [Named; 2] = [
    (
        "default",
        "Default flux-resource status format string",
        "{state:>12} {color_up}{up:>2}{color_off} {nnodes:>6} {nodelist}",
    ),
    (
        "long",
        "Long flux-resource status format string",
        "{state:>12} {color_up}{up:>2}{color_off} {nnodes:>6} +:{reason:<30.30} {nodelist}",
    ),
];

const HEADINGS: &[(&str, &str)] = &[
    ("state", "STATE"),
    ("statex", "STATE"),
    ("nnodes", "NNODES"),
    ("ranks", "RANKS"),
    ("nodelist", "NODELIST"),
    ("reason", "REASON"),
    ("timestamp", "TIME"),
    ("status", "STATUS"),
    ("up", "UP"),
    ("up.ascii", "UP"),
    ("color_up", ""),
    ("color_off", ""),
];

const VALID: [&str; 11] = [
    "all",
    "online",
    "avail",
    "offline",
    "exclude",
    "drain",
    "draining",
    "drained",
    "torpid",
    "allocated",
    "housekeeping",
];

const DEFAULT: &str = "avail,exclude,draining,drained,torpid,housekeeping";

/// What is shown, and how.
#[derive(Args)]
pub(super) struct Status {
    /// Output format: Python's format syntax, or a name ("help" lists names)
    #[arg(short = 'o', long, default_value = "default")]
    format: String,
    /// Nodes in these states ("help" lists them)
    #[arg(short, long, alias = "state", value_name = "STATE,...")]
    states: Option<String>,
    #[command(flatten)]
    pub(super) view: View,
    #[arg(long, hide = true)]
    from_stdin: bool,
    #[arg(long, hide = true, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// No lines without nodes, even with --states
    #[arg(long)]
    skip_empty: bool,
}

/// Options shared with the list of drained nodes.
#[derive(Args)]
pub(super) struct View {
    /// Only these ranks or hosts
    #[arg(short, long, value_name = "TARGETS")]
    include: Option<String>,
    /// Only these queues
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    /// Do not print the heading
    #[arg(short, long)]
    no_header: bool,
    /// Use color: never, always or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "always",
          require_equals = true, value_parser = ["never", "always", "auto"])]
    color: Option<String>,
}

impl View {
    fn has_color(&self) -> bool {
        match self.color.as_deref() {
            Some("always") => true,
            Some("never") => false,
            None if std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) => false,
            _ => std::io::IsTerminal::is_terminal(&std::io::stdout()),
        }
    }
}

/// The answer of `resource.status`.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(rename = "R")]
    r: Option<ResourceSet>,
    #[serde(default)]
    drain: BTreeMap<String, Drained>,
    #[serde(default)]
    online: Idset,
    #[serde(default)]
    offline: Idset,
    #[serde(default)]
    exclude: Idset,
    #[serde(default)]
    torpid: Idset,
}

#[derive(Debug, Clone, Deserialize)]
struct Drained {
    timestamp: f64,
    #[serde(default)]
    reason: Option<String>,
}

/// Who is in which state.
#[derive(Debug, Default)]
struct Nodes {
    set: ResourceSet,
    online: Idset,
    states: BTreeMap<&'static str, Idset>,
    drains: BTreeMap<u32, Drained>,
    offline: Idset,
}

impl Nodes {
    fn new(
        answer: Answer,
        allocated: Idset,
        housekeeping: Idset,
        keep: Option<&Idset>,
    ) -> Result<Nodes, Failure> {
        let kept = |ids: Idset| keep.map_or(ids.clone(), |k| ids.intersection(k));
        let set = answer.r.unwrap_or_default();
        let all = kept(set.ranks());
        let (allocated, exclude) = (kept(allocated), kept(answer.exclude));
        let torpid = kept(answer.torpid);
        let mut drains = BTreeMap::new();
        for (ranks, drained) in answer.drain {
            let ranks: Idset = ranks
                .parse()
                .map_err(|e| Failure::new(format!("drained ranks '{ranks}': {e}")))?;
            drains.extend(kept(ranks).iter().map(|rank| (rank, drained.clone())));
        }
        let drained: Idset = drains.keys().copied().collect();
        let draining = drained.intersection(&allocated);
        let unavailable = exclude.union(&drained).union(&torpid);
        let states = [
            ("avail", all.difference(&unavailable)),
            ("exclude", exclude),
            ("drained", drained.difference(&draining)),
            ("draining", draining),
            ("allocated", allocated),
            ("torpid", torpid),
            ("housekeeping", housekeeping),
        ];
        Ok(Nodes {
            set,
            online: kept(answer.online),
            offline: kept(answer.offline),
            states: states.into(),
            drains,
        })
    }

    fn state(&self, name: &str) -> Idset {
        self.states.get(name).cloned().unwrap_or_default()
    }

    fn hosts(&self, ranks: &Idset) -> Hostlist {
        let found = ranks.iter().filter_map(|rank| self.set.get(rank));
        found.map(|target| target.host.to_string()).collect()
    }
}

/// A line of the listing.
#[derive(Debug, Clone)]
struct Line {
    state: &'static str,
    online: bool,
    ranks: Idset,
    hosts: Hostlist,
    drained: Option<Drained>,
}

impl Item for Line {
    fn field(&self, name: &str) -> Value {
        let choose = |yes: &str, no: &str| Value::from(if self.online { yes } else { no });
        match name {
            "state" if !self.online => Value::Str(format!("{}*", self.state)),
            "state" | "statex" => Value::from(self.state),
            "nnodes" => Value::from(self.hosts.len()),
            "ranks" => Value::Str(self.ranks.to_string()),
            "nodelist" => Value::Str(self.hosts.to_string()),
            "reason" => match &self.drained {
                Some(drained) => Value::from(drained.reason.as_deref().unwrap_or("")),
                None => Value::from(""),
            },
            "timestamp" => self
                .drained
                .as_ref()
                .map_or(Value::from(""), |d| Value::Float(d.timestamp)),
            "status" => choose("online", "offline"),
            "up" => choose("✔", "✗"),
            "up.ascii" => choose("y", "n"),
            "color_up" => choose("\x1b[01;32m", "\x1b[01;31m"),
            "color_off" => Value::from("\x1b[0;0m"),
            _ => Value::Empty,
        }
    }
}

/// Which lines there are.
struct Shown {
    states: Vec<String>,
    include: [bool; 2],
    skip_empty: bool,
    skip_empty_offline: bool,
}

impl Shown {
    fn new(states: Option<&str>, skip_empty: bool) -> Result<Shown, Failure> {
        let mut list: Vec<String> = states
            .unwrap_or(DEFAULT)
            .split(',')
            .map(str::to_owned)
            .collect();
        if let Some(bad) = list.iter().find(|s| !VALID.contains(&s.as_str())) {
            return Err(Failure::new(format!(
                "Invalid resource state {bad} specified (valid states: {})",
                VALID.join(",")
            )));
        }
        let has = |list: &[String], name: &str| list.iter().any(|s| s == name);
        // Online and offline alone say which nodes of the other states are meant.
        if list.iter().all(|s| s == "online" || s == "offline") {
            list.extend(DEFAULT.split(',').map(str::to_owned));
        }
        if has(&list, "drain") {
            list.retain(|s| s != "drain");
            list.extend(["draining", "drained"].map(str::to_owned));
        }
        let (online, offline) = (has(&list, "online"), has(&list, "offline"));
        Ok(Shown {
            include: [online || !offline, offline || !online],
            skip_empty: skip_empty || states.is_none(),
            skip_empty_offline: !offline,
            states: list,
        })
    }

    fn has(&self, state: &str) -> bool {
        self.states.iter().any(|s| s == state || s == "all")
    }

    fn includes(&self, online: bool) -> bool {
        self.include[usize::from(!online)]
    }

    /// Lines, those alike but for their nodes joined.
    fn lines(&self, nodes: &mut Nodes, format: &Format) -> Result<Vec<Line>, Failure> {
        for state in ["draining", "drained"] {
            if self.has(state) {
                let torpid = nodes.state("torpid").difference(&nodes.state(state));
                nodes.states.insert("torpid", torpid);
            }
        }
        let mut all = Vec::new();
        for state in ["avail", "exclude", "allocated", "torpid", "housekeeping"] {
            for online in [true, false] {
                if self.has(state) && self.includes(online) {
                    let side = if online {
                        &nodes.online
                    } else {
                        &nodes.offline
                    };
                    let ranks = nodes.state(state).intersection(side);
                    let hosts = nodes.hosts(&ranks);
                    all.push(Line {
                        state,
                        online,
                        ranks,
                        hosts,
                        drained: None,
                    });
                }
            }
        }
        for state in ["draining", "drained"] {
            if !self.has(state) {
                continue;
            }
            let ranks = nodes.state(state);
            if ranks.is_empty() && self.includes(true) {
                all.push(Line {
                    state,
                    online: true,
                    ranks: Idset::new(),
                    hosts: Hostlist::new(),
                    drained: None,
                });
            }
            for rank in ranks.iter() {
                let online = nodes.online.contains(rank);
                if self.includes(online) {
                    let ranks = Idset::from_range(rank, rank);
                    let hosts = nodes.hosts(&ranks);
                    let drained = nodes.drains.get(&rank).cloned();
                    all.push(Line {
                        state,
                        online,
                        ranks,
                        hosts,
                        drained,
                    });
                }
            }
        }
        let content = format.without(&["nodelist", "ranks", "nnodes"], true);
        let mut lines: Vec<(String, Line)> = Vec::new();
        for line in all {
            let key = content.line(&line)?;
            match lines.iter_mut().find(|(k, _)| *k == key) {
                Some((_, old)) => {
                    old.ranks = old.ranks.union(&line.ranks);
                    old.hosts.append(&line.hosts);
                    old.hosts.sort();
                }
                None => lines.push((key, line)),
            }
        }
        let is_shown = |line: &Line| {
            !line.hosts.is_empty()
                || !(self.skip_empty || (!line.online && self.skip_empty_offline))
        };
        Ok(lines
            .into_iter()
            .map(|(_, line)| line)
            .filter(is_shown)
            .collect())
    }
}

/// The ranks that are up and not drained, excluded or torpid.
pub(super) async fn available(handle: &Handle) -> Result<Idset, Failure> {
    let answer: Answer = handle
        .call("resource.status", Node::Rank(0), &json!({}))
        .await?;
    let nodes = Nodes::new(answer, Idset::new(), Idset::new(), None)?;
    Ok(nodes.state("avail").difference(&nodes.offline))
}

/// Ask for everything a listing needs.
async fn fetch(handle: &Handle) -> Result<(Json, Idset, Idset), Failure> {
    let empty = json!({});
    let (status, resources, stats) = futures::join!(
        handle.call::<Json>("resource.status", Node::Rank(0), &empty),
        Resources::fetch(handle),
        handle.call::<Json>("job-manager.stats-get", Node::Rank(0), &empty),
    );
    // Without a scheduler or job manager nothing is allocated or in housekeeping.
    let allocated = resources.map(|r| r.allocated.ranks()).unwrap_or_default();
    let mut housekeeping = Idset::new();
    if let Ok(stats) = stats {
        let running = stats["housekeeping"]["running"].as_object();
        for (_, job) in running.into_iter().flatten() {
            let ranks = job["allocated"]
                .as_str()
                .and_then(|s| s.parse::<Idset>().ok());
            housekeeping = housekeeping.union(&ranks.unwrap_or_default());
        }
    }
    Ok((status?, allocated, housekeeping))
}

impl Status {
    /// The list `flux resource drain` prints.
    pub(super) fn drained(format: String, view: View) -> Status {
        Status {
            format,
            states: Some("drain".to_owned()),
            view,
            from_stdin: false,
            config_file: None,
            skip_empty: true,
        }
    }

    pub(super) async fn run(self) -> Outcome {
        if self.states.as_deref() == Some("help") {
            eprintln!("flux-resource: valid states: {}", VALID.join(","));
            return Ok(0);
        }
        let shown = Shown::new(self.states.as_deref(), self.skip_empty)?;
        let formats = Formats {
            config: "flux-resource",
            tool: "flux-resource",
            subcommand: Some("status"),
            builtin: &BUILTIN,
        };
        let Some(text) = formats.resolve(&self.format)? else {
            return Ok(0);
        };
        let mut format = Format::parse(&text, HEADINGS)?;
        if !self.view.has_color() {
            format = format.without(&["color_up", "color_off"], false);
        }
        let (status, allocated, housekeeping, handle) = match self.from_stdin {
            true => (read_json(None)?, Idset::new(), Idset::new(), None),
            false => {
                let handle = Handle::open(None).await?;
                let (status, allocated, housekeeping) = fetch(&handle).await?;
                (status, allocated, housekeeping, Some(handle))
            }
        };
        let answer: Answer = match status {
            Json::Null => Answer::default(),
            status => serde_json::from_value(status)
                .map_err(|e| Failure::new(format!("resource.status: {e}")))?,
        };
        let empty = ResourceSet::new();
        let set = answer.r.as_ref().unwrap_or(&empty);
        let mut keep: Option<Idset> = None;
        if !self.view.queue.is_empty() {
            let config = match (&self.config_file, &handle) {
                (Some(path), _) => read_json(Some(path))?,
                (None, Some(handle)) => handle.call("config.get", Node::Any, &json!({})).await?,
                (None, None) => Json::Null,
            };
            keep = Some(queue_ranks(set, &config, &self.view.queue)?);
        }
        if let Some(include) = &self.view.include {
            let ranks = targets(set, include).context("--include")?;
            keep = Some(keep.map_or(ranks.clone(), |k| k.intersection(&ranks)));
        }
        let mut nodes = Nodes::new(answer, allocated, housekeeping, keep.as_ref())?;
        let lines = shown.lines(&mut nodes, &format)?;
        format.print(lines, self.view.no_header)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(states: Option<&str>, format: &str) -> String {
        let answer = json!({
            "R": {"version": 1, "execution": {"R_lite": [{"rank": "0-7", "children": {"core": "0"}}],
                  "nodelist": ["n[0-7]"]}},
            "online": "0-5", "offline": "6-7", "exclude": "0", "torpid": "4",
            "drain": {"1-2,7": {"timestamp": 1.0, "reason": "bad"}, "3": {"timestamp": 2.0, "reason": ""}},
        });
        let answer = serde_json::from_value(answer).unwrap();
        let mut nodes = Nodes::new(answer, "2".parse().unwrap(), Idset::new(), None).unwrap();
        let shown = match Shown::new(states, false) {
            Ok(shown) => shown,
            Err(e) => return e.message,
        };
        let format = Format::parse(format, HEADINGS).unwrap();
        let lines = shown.lines(&mut nodes, &format).unwrap();
        format.lines(lines, false).unwrap().join("\n")
    }

    #[test]
    fn states() {
        insta::assert_snapshot!(show(None, "{state:>12} {nnodes:>6} {nodelist}"), @r"
               STATE NNODES NODELIST
               avail      1 n5
              avail*      1 n6
             exclude      1 n0
              torpid      1 n4
            draining      1 n2
             drained      2 n[1,3]
            drained*      1 n7
        ");
        insta::assert_snapshot!(show(Some("drain"), "{state:>12} {reason:<6} {ranks}"), @r"
               STATE REASON RANKS
            draining bad    2
             drained bad    1
             drained        3
            drained* bad    7
        ");
        insta::assert_snapshot!(show(Some("offline"), "{state:>12} {up.ascii} {nnodes}"), @r"
               STATE UP NNODES
              avail* n 1
            exclude* n 0
             torpid* n 0
        housekeeping* n 0
            drained* n 1
        ");
        assert!(show(Some("foo"), "{state}").starts_with("Invalid resource state foo"));
    }
}
