//! `flux R`: make, combine and read resource sets (RFC 20).

use std::collections::HashMap;
use std::io::Read;

use clap::{Parser, Subcommand};
use formats::{Hostlist, Idset, ResourceSet};

use crate::args::Args;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;
use crate::resources::{rlist, with_properties};

/// Make, combine and read resource sets; sets are read from standard input.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a set
    Encode {
        /// Ranks (default: as many as hosts, or 0)
        #[arg(short, long, value_name = "IDSET")]
        ranks: Option<String>,
        /// Cores of each rank (default: 0)
        #[arg(short, long, value_name = "IDS", default_value = "")]
        cores: String,
        /// Gpus of each rank
        #[arg(short, long, value_name = "IDS", default_value = "")]
        gpus: String,
        /// Hosts (default: this one for all ranks)
        #[arg(short = 'H', long, value_name = "HOSTS")]
        hosts: Option<String>,
        /// Properties of ranks (default: of all)
        #[arg(short, long, value_name = "NAME[:RANKS]")]
        property: Vec<String>,
    },
    /// Join sets that have nothing in common
    Append,
    /// What is in the first set and not in the others
    Diff,
    /// What is in all sets
    Intersect,
    /// Join sets and number ranks and resources from 0
    Remap,
    /// Join sets and give ranks by the order of hosts
    Rerank {
        /// Hosts in the order of their new ranks
        hosts: String,
    },
    /// Join sets and print them or parts of them
    Decode {
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
        #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
        properties: Vec<String>,
    },
    /// Join sets and give ranks properties
    SetProperty {
        /// Properties of ranks (default: of all)
        #[arg(value_name = "NAME[:RANKS]")]
        property: Vec<String>,
    },
}

fn idset(what: &str, text: &str) -> Result<Idset, Failure> {
    text.parse()
        .map_err(|e| Failure::new(format!("Failed to decode {what}='{text}' as idset: {e}")))
}

/// The sets in a text.
fn sets(text: &str) -> Result<Vec<ResourceSet>, Failure> {
    let read = serde_json::Deserializer::from_str(text).into_iter::<ResourceSet>();
    let sets: Vec<ResourceSet> = read
        .collect::<Result<_, _>>()
        .map_err(|e| Failure::new(format!("Failed to decode R on stdin: {e}")))?;
    match sets.is_empty() {
        true => Err(Failure::new("Failed to read an R object: stdin is empty")),
        false => Ok(sets),
    }
}

fn stdin() -> Result<Vec<ResourceSet>, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("stdin")?;
    sets(&text)
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
    sets.into_iter().try_fold(ResourceSet::new(), |all, set| {
        if !all.intersection(&set).is_empty() {
            let (a, b) = (rlist(&all), rlist(&set));
            return Err(Failure::new(format!("R objects '{a}' and '{b}' overlap")));
        }
        Ok(all.union(&set))
    })
}

/// Ids counted from 0.
fn from_zero(ids: &Idset) -> Idset {
    match u32::try_from(ids.len()) {
        Ok(n @ 1..) => Idset::from_range(0, n - 1),
        _ => Idset::new(),
    }
}

fn remap(set: &ResourceSet) -> ResourceSet {
    let mut next = 0;
    let mut out = set.rerank(|_, _| {
        next += 1;
        next - 1
    });
    for target in out.targets.values_mut() {
        target.cores = from_zero(&target.cores);
        target.gpus = from_zero(&target.gpus);
    }
    out
}

fn rerank(set: &ResourceSet, hosts: &str) -> Result<ResourceSet, Failure> {
    let hosts: Hostlist = hosts.parse().map_err(|e| Failure::new(format!("{e}")))?;
    let have = set.targets.len();
    if hosts.len() != have {
        let what = if hosts.len() > have { "many" } else { "few" };
        return Err(Failure::new(format!(
            "Too {what} hosts specified (expected {have})"
        )));
    }
    // Several ranks may be on one host: each takes the next of its places.
    let mut places: HashMap<String, Vec<u32>> = HashMap::new();
    for (rank, host) in (0..).zip(hosts.iter()) {
        places.entry(host).or_default().insert(0, rank);
    }
    let mut missing = false;
    let out = set.rerank(|rank, target| {
        let place = places.get_mut(&*target.host).and_then(Vec::pop);
        missing |= place.is_none();
        place.unwrap_or(rank)
    });
    match missing {
        true => Err(Failure::new(
            "failed to find one or more provided hosts in R",
        )),
        false => Ok(out),
    }
}

fn set_properties(set: &mut ResourceSet, words: &[String]) -> Result<(), Failure> {
    for word in words {
        let (name, ranks) = match word.split_once(':') {
            Some((name, ranks)) => (name, idset(name, ranks)?),
            None => (word.as_str(), set.ranks()),
        };
        let fault = |why: String| Failure::new(format!("failed to assign properties: {why}"));
        if let Some(c) = name.chars().find(|c| "!&'\"^`|()".contains(*c)) {
            return Err(fault(format!(
                "invalid character '{c}' in property \"{name}\""
            )));
        }
        let unknown = ranks.difference(&set.ranks());
        if !unknown.is_empty() {
            return Err(fault(format!(
                "ranks {unknown} not found in target resource set"
            )));
        }
        let on = set.properties.entry(name.to_owned()).or_default();
        *on = on.union(&ranks);
    }
    Ok(())
}

fn encode(
    ranks: Option<&str>,
    cores: &str,
    gpus: &str,
    hosts: Option<&str>,
) -> Result<ResourceSet, Failure> {
    let cores = if cores.is_empty() && gpus.is_empty() {
        "0"
    } else {
        cores
    };
    let (cores, gpus) = (idset("cores", cores)?, idset("gpus", gpus)?);
    let hosts = match hosts {
        None => None,
        Some(text) => Some(
            text.parse::<Hostlist>()
                .map_err(|e| Failure::new(format!("invalid hostlist '{text}': {e}")))?,
        ),
    };
    let ranks: Idset = match (ranks, &hosts) {
        (Some(text), _) => idset("ranks", text)?,
        (None, Some(hosts)) => (0..hosts.len() as u32).collect(),
        (None, None) => Idset::from_range(0, 0),
    };
    if let Some(hosts) = hosts.as_ref().filter(|h| h.len() != ranks.len()) {
        return Err(Failure::new(format!(
            "hostname count in '{hosts}' does not match nranks ({})",
            ranks.len()
        )));
    }
    let here = crate::uri::hostname();
    let mut set = ResourceSet::new();
    for (i, rank) in ranks.iter().enumerate() {
        let host = hosts.as_ref().and_then(|h| h.nth(i));
        set.add(rank, host.as_deref().unwrap_or(&here), &cores, &gpus);
    }
    Ok(set)
}

fn print(set: &ResourceSet) {
    outln!("{}", crate::pyjson::dumps_utf8(&set.to_value()));
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse()?;
    let joined = || fold(stdin()?, "union", 1, ResourceSet::union);
    match command {
        Command::Encode {
            ranks,
            cores,
            gpus,
            hosts,
            property,
        } => {
            let mut set = encode(ranks.as_deref(), &cores, &gpus, hosts.as_deref())?;
            set_properties(&mut set, &property)?;
            print(&set);
        }
        Command::Append => print(&append(stdin()?)?),
        Command::Diff => print(&fold(stdin()?, "diff", 2, ResourceSet::difference)?),
        Command::Intersect => print(&fold(stdin()?, "intersect", 2, ResourceSet::intersection)?),
        Command::Remap => print(&remap(&joined()?)),
        Command::Rerank { hosts } => print(&rerank(&joined()?, &hosts)?),
        Command::SetProperty { property } => {
            let mut set = joined()?;
            set_properties(&mut set, &property)?;
            print(&set);
        }
        Command::Decode {
            short,
            nodelist,
            ranks,
            count,
            include,
            exclude,
            properties,
        } => {
            let mut set = with_properties(&joined()?, &properties);
            if let Some(text) = &include {
                set = set.on_ranks(&idset("include", text)?);
            }
            if let Some(text) = &exclude {
                set.remove_ranks(&idset("exclude", text)?);
            }
            if short {
                outln!("{}", rlist(&set));
            }
            if nodelist {
                outln!("{}", set.nodelist());
            }
            if ranks {
                outln!("{}", set.ranks());
            }
            if let Some(what) = &count {
                outln!(
                    "{}",
                    match what.as_str() {
                        "node" => set.nnodes(),
                        "core" => set.ncores(),
                        "gpu" => set.ngpus(),
                        _ => 0,
                    }
                );
            }
            if !(short || nodelist || ranks || count.is_some()) {
                print(&set);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranks: &str, cores: &str, hosts: &str) -> ResourceSet {
        encode(Some(ranks), cores, "", Some(hosts)).unwrap()
    }

    #[test]
    fn operations() {
        let (a, b) = (set("0-1", "0-3", "a,b"), set("1-2", "2-5", "b,c"));
        let shown =
            |set: Result<ResourceSet, Failure>| set.map_or_else(|e| e.message, |s| rlist(&s));
        insta::assert_snapshot!([
            shown(fold(vec![a.clone(), b.clone()], "diff", 2, ResourceSet::difference)),
            shown(fold(vec![a.clone(), b.clone()], "intersect", 2, ResourceSet::intersection)),
            shown(append(vec![a.clone(), b.clone()])),
            shown(Ok(remap(&b))),
            shown(fold(vec![a.clone()], "diff", 2, ResourceSet::difference)),
            shown(rerank(&a, "b")),
            shown(rerank(&a, "b,c")),
            rerank(&a, "b,a").unwrap().nodelist().to_string(),
        ].join("\n"), @r"
        rank0/core[0-3] rank1/core[0-1]
        rank1/core[2-3]
        R objects 'rank[0-1]/core[0-3]' and 'rank[1-2]/core[2-5]' overlap
        rank[0-1]/core[0-3]
        diff requires at least 2 resource sets
        Too few hosts specified (expected 2)
        failed to find one or more provided hosts in R
        b,a
        ");
    }

    #[test]
    fn properties() {
        let mut s = set("0-1", "0", "a,b");
        set_properties(&mut s, &["x".into(), "y:1".into()]).unwrap();
        assert_eq!(s.properties["y"].to_string(), "1");
        assert!(set_properties(&mut s, &["x:7".into()]).is_err());
        assert!(set_properties(&mut s, &["x|y".into()]).is_err());
    }
}
