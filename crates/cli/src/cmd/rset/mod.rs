//! `flux R`: make, combine and read resource sets (RFC 20).

mod encode;
mod local;
mod parse_config;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use formats::resource_set::{RerankError, property_fault, verify};
use formats::{Constraint, Hostlist, Idset, ResourceSet};
use serde_json::json;

use crate::args::Args;
use crate::error::{Failure, Outcome, strerror};
use crate::output::outln;

/// Make, combine and read resource sets; sets are read from standard input.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a set
    Encode(encode::Encode),
    /// Join sets that have nothing in common
    Append,
    /// What is in the first set and not in the others
    Diff,
    /// What is in all sets
    Intersect,
    /// Join sets and number ranks and cores from 0
    Remap,
    /// Join sets and give ranks by the order of hosts
    Rerank {
        /// Hosts in the order of their new ranks
        hosts: String,
    },
    /// Join sets and print them or parts of them
    Decode(Decode),
    /// Whether the second set, of one rank, has what the first says of this rank
    Verify,
    /// Join sets and give ranks properties
    SetProperty {
        /// Properties of ranks (default: of all)
        #[arg(value_name = "NAME[:RANKS]")]
        property: Vec<String>,
    },
    /// Make the set that a configuration file or directory defines
    ParseConfig {
        /// File or directory
        path: PathBuf,
    },
}

#[derive(clap::Args, Default)]
struct Decode {
    /// Print a short form
    #[arg(short, long)]
    short: bool,
    /// Print the hosts
    #[arg(short, long)]
    nodelist: bool,
    /// Print the ranks
    #[arg(short, long)]
    ranks: bool,
    /// Print the number of: node, core, gpu
    #[arg(short, long, value_name = "TYPE")]
    count: Option<String>,
    /// Only these ranks
    #[arg(short, long, value_name = "RANKS")]
    include: Option<String>,
    /// Without these ranks
    #[arg(short = 'x', long, value_name = "RANKS")]
    exclude: Option<String>,
    /// Only ranks with these properties (^NAME: without)
    #[arg(short, long, value_name = "LIST")]
    properties: Option<String>,
}

/// A fault and what it is about.
fn named<T>(what: impl Display, result: Result<T, impl Display>) -> Result<T, Failure> {
    result.map_err(|e| Failure::new(format!("{what}: {e}")))
}

/// The text of a file; `-` is standard input.
fn read(path: &str) -> Result<String, Failure> {
    match path {
        "-" => named("standard input", std::io::read_to_string(std::io::stdin())),
        path => file(path.as_ref()),
    }
}

fn file(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        let why = e.raw_os_error().map_or_else(|| e.to_string(), strerror);
        Failure::new(format!("{}: {why}", path.display()))
    })
}

fn idset(what: &str, text: &str) -> Result<Idset, Failure> {
    text.parse()
        .map_err(|e| Failure::new(format!("Failed to decode {what}='{text}' as idset: {e}")))
}

/// The sets in a text.
fn sets(text: &str) -> Result<Vec<ResourceSet>, Failure> {
    // Values first: a fault in one then names its place.
    let values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    let fault = |e: &dyn Display| Failure::new(format!("Failed to decode R on stdin: {e}"));
    let sets: Vec<ResourceSet> = values
        .map(|value| ResourceSet::try_from(value.map_err(|e| fault(&e))?).map_err(|e| fault(&e)))
        .collect::<Result<_, _>>()?;
    match sets.is_empty() {
        true => Err(Failure::new("Failed to read an R object: stdin is empty")),
        false => Ok(sets),
    }
}

fn stdin() -> Result<Vec<ResourceSet>, Failure> {
    sets(&read("-")?)
}

fn fold(
    sets: Vec<ResourceSet>,
    name: &str,
    least: usize,
    op: fn(&ResourceSet, &ResourceSet) -> ResourceSet,
) -> Result<ResourceSet, Failure> {
    if sets.len() < least {
        return Err(Failure::new(format!(
            "{name} requires at least {least} resource sets"
        )));
    }
    Ok(sets
        .into_iter()
        .reduce(|a, b| op(&a, &b))
        .unwrap_or_default())
}

fn append(sets: Vec<ResourceSet>) -> Result<ResourceSet, Failure> {
    sets.into_iter()
        .try_fold(ResourceSet::new(), |mut all, set| {
            let overlap = |_| Failure::new(format!("R objects '{all}' and '{set}' overlap"));
            let mut sum = all.clone();
            sum.append(&set).map_err(overlap)?;
            all = sum;
            Ok(all)
        })
}

fn rerank(set: &ResourceSet, hosts: &str) -> Result<ResourceSet, Failure> {
    let hosts: Hostlist = hosts
        .parse()
        .map_err(|e| Failure::new(format!("invalid hostlist '{hosts}': {e}")))?;
    set.rerank_by_hosts(&hosts).map_err(|e| {
        Failure::new(match e {
            RerankError::Count { given, expected } => {
                let what = if given > expected { "many" } else { "few" };
                format!("Too {what} hosts specified (expected {expected})")
            }
            RerankError::NotFound(_) => "failed to find one or more provided hosts in R".to_owned(),
        })
    })
}

/// Gives ranks properties. If one is named twice, the last word counts.
fn set_properties(set: &mut ResourceSet, words: &[String]) -> Result<(), Failure> {
    let fault = |why: String| Failure::new(format!("failed to assign properties: {why}"));
    let mut all: Vec<(&str, Idset)> = Vec::new();
    for word in words {
        let (name, ranks) = match word.split_once(':') {
            Some((name, text)) => {
                let ranks = text.parse().map_err(|_| {
                    fault(format!(
                        "invalid idset '{text}' specified for property \"{name}\""
                    ))
                })?;
                (name, ranks)
            }
            None => (word.as_str(), set.ranks()),
        };
        if let Some(c) = property_fault(name) {
            return Err(fault(format!(
                "invalid character '{c}' in property \"{name}\""
            )));
        }
        all.retain(|(other, _)| *other != name);
        all.push((name, ranks));
    }
    for (name, ranks) in all {
        set.set_property(name, &ranks)
            .map_err(|e| fault(e.to_string()))?;
    }
    Ok(())
}

impl Decode {
    /// The part of the set that is asked for.
    fn select(&self, mut set: ResourceSet) -> Result<ResourceSet, Failure> {
        if let Some(list) = &self.properties {
            let names: Vec<&str> = list.split(',').filter(|p| !p.is_empty()).collect();
            let constraint =
                Constraint::from_value(&json!({ "properties": names })).map_err(|e| {
                    let why = e.message;
                    Failure::new(format!("Invalid property constraint: {why}"))
                })?;
            set = set.satisfying(&constraint);
        }
        if let Some(text) = &self.include {
            let fault = |_| Failure::new(format!("Invalid ranks option: '{text}'"));
            set = set.on_ranks(&text.parse().map_err(fault)?);
        }
        if let Some(text) = &self.exclude {
            let fault = |_| Failure::new(format!("Invalid idset in --exclude option: {text}"));
            set.remove_ranks(&text.parse().map_err(fault)?);
        }
        Ok(set)
    }

    /// What is printed of it.
    fn show(&self, set: &ResourceSet) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        if self.short {
            lines.push(set.to_string());
        }
        if self.nodelist {
            if set.targets().iter().any(|t| t.host.is_empty()) {
                return Err(Failure::new("R does not name its hosts"));
            }
            lines.push(set.nodelist().to_string());
        }
        if self.ranks {
            lines.push(set.ranks().to_string());
        }
        if let Some(what) = &self.count {
            lines.push(set.count(what).to_string());
        }
        if lines.is_empty() {
            lines.push(json_line(set));
        }
        Ok(lines)
    }
}

/// Exit code 1 if something is missing; more than expected is only told.
fn verify_sets(sets: &[ResourceSet]) -> Result<Option<verify::Extra>, Failure> {
    let [expected, found] = sets else {
        return Err(Failure::new("verify requires exactly 2 R objects on stdin"));
    };
    verify::verify(expected, found, &verify::Config::default())
        .map_err(|e| Failure::new(e.to_string()))
}

fn json_line(set: &ResourceSet) -> String {
    crate::pyjson::dumps_utf8(&set.to_value())
}

fn print(set: &ResourceSet) {
    outln!("{}", json_line(set));
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse()?;
    let joined = || fold(stdin()?, "union", 1, ResourceSet::union);
    match command {
        Command::Encode(encode) => print(&encode.run()?),
        Command::Append => print(&append(stdin()?)?),
        Command::Diff => print(&fold(stdin()?, "diff", 2, ResourceSet::difference)?),
        Command::Intersect => print(&fold(stdin()?, "intersect", 2, ResourceSet::intersection)?),
        Command::Remap => print(&joined()?.remap()),
        Command::Rerank { hosts } => print(&rerank(&joined()?, &hosts)?),
        Command::Decode(decode) => {
            for line in decode.show(&decode.select(joined()?)?)? {
                outln!("{line}");
            }
        }
        Command::Verify => {
            if let Some(extra) = verify_sets(&stdin()?)? {
                eprintln!("flux-R: {extra}");
            }
        }
        Command::SetProperty { property } => {
            let mut set = joined()?;
            set_properties(&mut set, &property)?;
            print(&set);
        }
        Command::ParseConfig { path } => print(&parse_config::read(&path)?),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranks: &str, cores: &str, hosts: &str) -> ResourceSet {
        let mut set = ResourceSet::new();
        let hosts: Hostlist = hosts.parse().unwrap();
        let ranks = idset("ranks", ranks).unwrap();
        for (rank, host) in ranks.iter().zip(hosts.iter()) {
            set.add(rank, &host, &idset("cores", cores).unwrap(), &Idset::new());
        }
        set
    }

    fn shown(set: Result<ResourceSet, Failure>) -> String {
        set.map_or_else(|e| e.message, |set| set.to_string())
    }

    #[test]
    fn operations() {
        let (a, b) = (set("0-1", "0-3", "a,b"), set("1-2", "2-5", "b,c"));
        insta::assert_snapshot!([
            shown(fold(vec![a.clone(), b.clone()], "diff", 2, ResourceSet::difference)),
            shown(fold(vec![a.clone(), b.clone()], "intersect", 2, ResourceSet::intersection)),
            shown(append(vec![a.clone(), b.clone()])),
            shown(append(vec![a.clone(), set("1", "4-5", "b")])),
            shown(fold(vec![a.clone()], "diff", 2, ResourceSet::difference)),
            shown(rerank(&a, "b")),
            shown(rerank(&a, "b,c")),
            rerank(&a, "b,a").unwrap().nodelist().to_string(),
            shown(sets("{").map(|_| a.clone())),
            shown(sets("").map(|_| a.clone())),
            shown(sets(r#"{"version":1,"execution":{"R_lite":[{"rank":0}]}}"#).map(|_| a.clone())),
        ].join("\n"), @r"
        rank0/core[0-3] rank1/core[0-1]
        rank1/core[2-3]
        R objects 'rank[0-1]/core[0-3]' and 'rank[1-2]/core[2-5]' overlap
        rank0/core[0-3] rank1/core[0-5]
        diff requires at least 2 resource sets
        Too few hosts specified (expected 2)
        failed to find one or more provided hosts in R
        b,a
        Failed to decode R on stdin: EOF while parsing an object at line 1 column 1
        Failed to read an R object: stdin is empty
        Failed to decode R on stdin: R.execution.R_lite[0].rank: must be a string, found an integer
        ");
    }

    #[test]
    fn parts_and_their_views() {
        let mut all = set("0-3", "0-1", "n[0-3]");
        set_properties(&mut all, &["x:0-1".into(), "y:1".into()]).unwrap();
        let ask = |options: Decode| {
            let set = options.select(all.clone());
            set.and_then(|set| options.show(&set))
                .map_or_else(|e| e.message, |l| l.join(" | "))
        };
        let views = || Decode {
            short: true,
            nodelist: true,
            ranks: true,
            count: Some("core".into()),
            ..Decode::default()
        };
        let text = |s: &str| Some(s.to_owned());
        insta::assert_snapshot!([
            ask(views()),
            ask(Decode { include: text("1-5"), ..views() }),
            ask(Decode { exclude: text("1"), ..views() }),
            ask(Decode { properties: text("x,^y"), ..views() }),
            ask(Decode { properties: text("n3"), ..views() }),
            ask(Decode { count: text("disk"), ..Decode::default() }),
            ask(Decode { include: text("1"), ..Decode::default() }),
            ask(Decode { include: text("x"), ..Decode::default() }),
            ask(Decode { properties: text("a|b"), ..Decode::default() }),
        ].join("\n"), @r#"
        rank[0-3]/core[0-1] | n[0-3] | 0-3 | 8
        rank[1-3]/core[0-1] | n[1-3] | 1-3 | 6
        rank[0,2-3]/core[0-1] | n[0,2-3] | 0,2-3 | 6
        rank0/core[0-1] | n0 | 0 | 2
        rank3/core[0-1] | n3 | 3 | 2
        0
        {"version": 1, "execution": {"R_lite": [{"rank": "1", "children": {"core": "0-1"}}], "starttime": 0.0, "expiration": 0.0, "nodelist": ["n1"], "properties": {"x": "1", "y": "1"}}}
        Invalid ranks option: 'x'
        Invalid property constraint: invalid character '|' in property "a|b"
        "#);
    }

    #[test]
    fn properties() {
        let mut s = set("0-1", "0", "a,b");
        let mut give = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            set_properties(&mut s, &words)
                .map_or_else(|e| e.message, |()| json!(s.properties).to_string())
        };
        insta::assert_snapshot!(
            [give(&["x", "y:1"]), give(&["y:0", "z:0", "z:1"]), give(&["x:7"]), give(&["x:7-8"]), give(&["x|y"]), give(&["x:y"])].join("\n"),
            @r#"
        {"x":"0-1","y":"1"}
        {"x":"0-1","y":"0-1","z":"1"}
        failed to assign properties: rank 7 not found in target resource list
        failed to assign properties: ranks 7-8 not found in target resource list
        failed to assign properties: invalid character '|' in property "x|y"
        failed to assign properties: invalid idset 'y' specified for property "x"
        "#);
    }
}
