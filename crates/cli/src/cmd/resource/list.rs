//! `flux resource list`, `info`, `R`: resources by scheduling state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use client::{Handle, Node};
use formats::{Idset, ResourceSet};
use serde_json::{Value as Json, json};

use super::{queue_ranks, queue_table, read_json, requires};
use crate::error::{Context, Failure, Outcome};
use crate::format::named::{Formats, Named};
use crate::format::{Format, Item, Value};
use crate::output::outln;
use crate::resources::{Resources, STATES, targets};

const BUILTIN: [Named; 2] = [
    (
        "default",
        "Default flux-resource list format string",
        "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} +:{ncores:>6} ?+:{ngpus:>5} \
         {nodelist}",
    ),
    (
        "rlist",
        "Format including resource list details",
        "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} +:{ncores:>6} ?:+{ngpus:>5} \
         {rlist}",
    ),
];

const HEADINGS: &[(&str, &str)] = &[
    ("state", "STATE"),
    ("queue", "QUEUE"),
    ("properties", "PROPERTIES"),
    ("propertiesx", "PROPERTIES"),
    ("nnodes", "NNODES"),
    ("ncores", "NCORES"),
    ("ngpus", "NGPUS"),
    ("ranks", "RANKS"),
    ("nodelist", "NODELIST"),
    ("rlist", "LIST"),
];

/// Which resources are shown.
#[derive(Args)]
struct Selection {
    /// Only these ranks or hosts
    #[arg(short, long, value_name = "TARGETS")]
    include: Option<String>,
    /// Only these queues
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    #[arg(long, hide = true)]
    from_stdin: bool,
    #[arg(long, hide = true, value_name = "FILE")]
    config_file: Option<PathBuf>,
}

impl Selection {
    async fn fetch(&self) -> Result<(Resources, Json), Failure> {
        let (mut resources, config) = match self.from_stdin {
            true => {
                let resources = Resources::from_json(read_json(None)?)
                    .map_err(|e| Failure::new(format!("stdin: {e}")))?;
                let config = self.config_file.as_deref().map(|p| read_json(Some(p)));
                (resources, config.transpose()?.unwrap_or(Json::Null))
            }
            false => {
                let handle = Handle::open(None).await?;
                let empty = json!({});
                let (resources, config) = futures::join!(
                    Resources::fetch(&handle),
                    handle.call::<Json>("config.get", Node::Any, &empty),
                );
                let config = config.unwrap_or_else(|e| {
                    let why = crate::error::rpc_text(&e);
                    eprintln!("flux-resource: WARNING: Could not get flux config: {why}");
                    Json::Null
                });
                (resources?, config)
            }
        };
        if !self.queue.is_empty() {
            let ranks = queue_ranks(&resources.all, &config, &self.queue)?;
            resources.keep(&ranks);
        }
        if let Some(include) = &self.include {
            let ranks = targets(&resources.all, include).context("--include")?;
            resources.keep(&ranks);
        }
        Ok((resources, config))
    }
}

fn parse_states(text: &str) -> Result<Vec<String>, Failure> {
    let states: Vec<String> = text.split(',').map(str::to_owned).collect();
    match states.iter().find(|s| !STATES.contains(&s.as_str())) {
        Some(bad) => Err(Failure::new(format!(
            "Invalid resource state {bad} specified"
        ))),
        None => Ok(states),
    }
}

/// Queues as far as a listing shows them.
#[derive(Debug, Default)]
struct Queues {
    /// Name, the properties its nodes have, whether it is a virtual queue.
    all: Vec<(String, BTreeSet<String>, bool)>,
    only: Vec<String>,
    hidden: Vec<String>,
}

impl Queues {
    fn new(config: &Json, only: &[String], hidden: Vec<String>) -> Result<Queues, Failure> {
        let mut all = Vec::new();
        for (name, table) in config["queues"].as_object().into_iter().flatten() {
            let requires = requires(queue_table(config, name)?);
            let is_virtual = table.get("parent").is_some();
            all.push((name.clone(), requires.into_iter().collect(), is_virtual));
        }
        Ok(Queues {
            all,
            only: only.to_vec(),
            hidden,
        })
    }

    /// Queues that are shown: those asked for, or all that are neither hidden nor virtual.
    fn shown(&self) -> impl Iterator<Item = &(String, BTreeSet<String>, bool)> {
        self.all
            .iter()
            .filter(|(name, _, is_virtual)| match self.only.is_empty() {
                true => !self.hidden.contains(name) && !is_virtual,
                false => self.only.contains(name),
            })
    }
}

/// A line of a listing.
#[derive(Debug)]
struct Line<'a> {
    state: &'a str,
    set: ResourceSet,
    /// The queue of a line without resources.
    queue: Option<String>,
    queues: &'a Queues,
}

impl Line<'_> {
    fn queue(&self) -> String {
        if let Some(queue) = &self.queue {
            return queue.clone();
        }
        if self.set.is_empty() {
            return String::new();
        }
        let has = |p: &String| self.set.properties.contains_key(p);
        let mine = self
            .queues
            .shown()
            .filter(|(_, requires, _)| requires.iter().all(has));
        let mine: Vec<&str> = mine.map(|(name, ..)| name.as_str()).collect();
        mine.join(",")
    }
}

impl Item for Line<'_> {
    fn field(&self, name: &str) -> Value {
        let set = &self.set;
        let joined = |keep: &dyn Fn(&str) -> bool| {
            let names = set.properties.keys().map(String::as_str);
            Value::Str(names.filter(|p| keep(p)).collect::<Vec<_>>().join(","))
        };
        match name {
            "state" => Value::from(self.state),
            "queue" => Value::Str(self.queue()),
            "properties" => joined(&|_| true),
            // What only says which queue a node is in is not said twice.
            "propertiesx" => joined(&|p| !self.queues.all.iter().any(|q| q.0 == p)),
            "nnodes" => Value::from(set.nnodes()),
            "ncores" => Value::from(set.ncores()),
            "ngpus" => Value::from(set.ngpus()),
            "ranks" => Value::Str(set.ranks().to_string()),
            "nodelist" => Value::Str(set.nodelist().to_string()),
            "rlist" => Value::Str(set.to_string()),
            _ => Value::Empty,
        }
    }
}

/// The parts of a set whose nodes have the same properties.
fn by_properties(set: &ResourceSet) -> Vec<ResourceSet> {
    let mut groups: BTreeMap<Vec<&str>, Vec<u32>> = BTreeMap::new();
    for rank in set.ranks().iter() {
        groups
            .entry(set.properties_of(rank).collect())
            .or_default()
            .push(rank);
    }
    let ranks = groups
        .into_values()
        .map(|ranks| ranks.into_iter().collect());
    ranks.map(|ranks: Idset| set.on_ranks(&ranks)).collect()
}

/// Lines that differ in state, queue or properties, as far as these are shown.
fn lines<'a>(
    resources: &Resources,
    states: &'a [String],
    format: &Format,
    queues: &'a Queues,
) -> Vec<Line<'a>> {
    let fields = format.fields();
    let mut key_fields: Vec<&str> = vec!["state", "properties", "propertiesx", "queue"];
    key_fields.retain(|f| fields.contains(f));
    if fields.len() <= 1 && !fields.contains(&"state") {
        key_fields.clear();
    }
    let mut lines: Vec<(Vec<String>, Line<'a>)> = Vec::new();
    let mut add = |line: Line<'a>| {
        let key: Vec<String> = key_fields.iter().map(|f| line.field(f).text()).collect();
        match lines.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => old.set.merge(&line.set),
            None => lines.push((key, line)),
        }
    };
    for state in states {
        let set = resources.state(state).unwrap_or_default();
        if set.is_empty() {
            let names: Vec<_> = queues.shown().map(|q| Some(q.0.clone())).collect();
            let names = if names.is_empty() { vec![None] } else { names };
            for queue in names {
                add(Line {
                    state,
                    set: ResourceSet::new(),
                    queue,
                    queues,
                });
            }
            continue;
        }
        for set in by_properties(&set) {
            add(Line {
                state,
                set,
                queue: None,
                queues,
            });
        }
    }
    let mut lines: Vec<Line<'a>> = lines.into_iter().map(|(_, line)| line).collect();
    lines.sort_by_key(|line| {
        let state = states.iter().rposition(|s| s == line.state);
        (state, line.set.ranks().first())
    });
    lines
}

#[derive(Args)]
pub(super) struct List {
    /// Output format: Python's format syntax, or a name ("help" lists names)
    #[arg(short = 'o', long, default_value = "default")]
    format: String,
    /// Show resources in these states: up, down, allocated, free, all
    #[arg(
        short,
        long,
        alias = "state",
        value_name = "STATE,...",
        default_value = "free,allocated,down"
    )]
    states: String,
    #[command(flatten)]
    selection: Selection,
    /// No lines without resources (the default with --include)
    #[arg(long)]
    skip_empty: bool,
    /// Also lines without resources
    #[arg(long)]
    no_skip_empty: bool,
    /// Do not print the heading
    #[arg(short, long)]
    no_header: bool,
}

impl List {
    pub(super) async fn run(self) -> Outcome {
        let states = parse_states(&self.states)?;
        let formats = Formats {
            config: "flux-resource",
            tool: "flux-resource",
            subcommand: Some("list"),
            builtin: &BUILTIN,
        };
        let Some(text) = formats.resolve(&self.format)? else {
            return Ok(0);
        };
        let format = Format::parse(&text, HEADINGS)?;
        let mut hidden = Vec::new();
        for table in formats.configured()? {
            if let Some(names) = table.get("hidden-queues") {
                let names: Vec<String> = serde_json::from_value(names.clone()).map_err(|_| {
                    Failure::new("flux-resource.toml: list.hidden-queues must be a list of strings")
                })?;
                hidden.extend(names);
            }
        }
        let (resources, config) = self.selection.fetch().await?;
        let queues = Queues::new(&config, &self.selection.queue, hidden)?;
        let mut lines = lines(&resources, &states, &format, &queues);
        if self.skip_empty || (self.selection.include.is_some() && !self.no_skip_empty) {
            lines.retain(|line| !line.set.is_empty());
        }
        format.print(lines, self.no_header)?;
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Info {
    /// Count resources in these states
    #[arg(
        short,
        long,
        alias = "state",
        value_name = "STATE,...",
        default_value = "all"
    )]
    states: String,
    #[command(flatten)]
    selection: Selection,
    /// Also when nothing is left, which is not shown with --include otherwise
    #[arg(long, hide = true)]
    no_skip_empty: bool,
}

impl Info {
    pub(super) async fn run(self) -> Outcome {
        let list = List {
            format: "{nnodes} Nodes, {ncores} Cores, {ngpus} GPUs".to_owned(),
            states: self.states,
            selection: self.selection,
            skip_empty: false,
            no_skip_empty: self.no_skip_empty,
            no_header: true,
        };
        list.run().await
    }
}

#[derive(Args)]
pub(super) struct EmitR {
    /// Resources in these states
    #[arg(
        short,
        long,
        alias = "state",
        value_name = "STATE,...",
        default_value = "all"
    )]
    states: String,
    #[command(flatten)]
    selection: Selection,
}

impl EmitR {
    pub(super) async fn run(self) -> Outcome {
        let states = parse_states(&self.states)?;
        let (resources, _) = self.selection.fetch().await?;
        let mut set = ResourceSet::new();
        (set.starttime, set.expiration) = (resources.all.starttime, resources.all.expiration);
        for state in &states {
            set.merge(&resources.state(state).unwrap_or_default());
        }
        outln!("{}", crate::pyjson::dumps(&set.to_value()));
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Resources {
        let r = |ranks: &str, hosts: &str| {
            json!({"version": 1, "execution": {
                "R_lite": [{"rank": ranks, "children": {"core": "0-3", "gpu": "0"}}],
                "nodelist": [hosts]}})
        };
        let mut all = r("0-7", "n[0-7]");
        all["execution"]["properties"] = json!({"batch": "0-5", "debug": "6-7", "big": "4-5"});
        let value = json!({"all": all, "down": r("3", "n3"), "allocated": r("0-1", "n[0-1]")});
        Resources::from_json(value).unwrap()
    }

    fn show(format: &str, config: Json) -> String {
        let states = ["free", "allocated", "down"].map(str::to_owned);
        let format = Format::parse(format, HEADINGS).unwrap();
        let queues = Queues::new(&config, &[], Vec::new()).unwrap();
        let lines = lines(&resources(), &states, &format, &queues);
        format.lines(lines, false).unwrap().join("\n")
    }

    #[test]
    fn by_state_queue_and_property() {
        let queues =
            json!({"queues": {"batch": {"requires": ["batch"]}, "debug": {"requires": ["debug"]}}});
        insta::assert_snapshot!(show(BUILTIN[0].2, queues), @r"
             STATE QUEUE PROPERTIES NNODES NCORES NGPUS NODELIST
              free batch                 1      4     1 n2
              free batch big             2      8     2 n[4-5]
              free debug                 2      8     2 n[6-7]
         allocated batch                 2      8     2 n[0-1]
              down batch                 1      4     1 n3
        ");
        insta::assert_snapshot!(show("{state:>10} {nnodes:>6} {rlist}", Json::Null), @r"
             STATE NNODES LIST
              free      5 rank[2,4-7]/core[0-3],gpu0
         allocated      2 rank[0-1]/core[0-3],gpu0
              down      1 rank3/core[0-3],gpu0
        ");
    }
}
