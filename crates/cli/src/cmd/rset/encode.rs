//! `flux R encode`: a set made of options, of a topology in XML, or of what this node has.

use formats::resource_set::hwloc::Node;
use formats::{Hostlist, Idset, ResourceSet};

use super::{idset, local, named, read, set_properties};
use crate::error::Failure;

#[derive(clap::Args, Default)]
pub(super) struct Encode {
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
    /// Resources of this node for each rank
    #[arg(short, long)]
    local: bool,
    /// Resources of a topology in hwloc's XML for each rank ("-": standard input)
    #[arg(short = 'f', long, value_name = "FILE")]
    xml: Option<String>,
}

/// What each rank gets.
fn resources(node: &Node) -> (Idset, Idset) {
    let ids = |n: usize| (0..n as u32).collect();
    (ids(node.cores.len()), ids(node.gpus as usize))
}

impl Encode {
    pub(super) fn run(&self) -> Result<ResourceSet, Failure> {
        let given = !(self.cores.is_empty() && self.gpus.is_empty());
        if given && (self.local || self.xml.is_some()) {
            return Err(Failure::new(
                "do not specify --cores or --gpus with --local or --xml",
            ));
        }
        let (cores, gpus) = match &self.xml {
            Some(path) => resources(&named(path, Node::parse(&read(path)?))?),
            None if self.local => resources(&local::node()?),
            None => {
                let cores = if given { &self.cores } else { "0" };
                (idset("cores", cores)?, idset("gpus", &self.gpus)?)
            }
        };
        let mut set = self.targets(&cores, &gpus)?;
        set_properties(&mut set, &self.property)?;
        Ok(set)
    }

    fn targets(&self, cores: &Idset, gpus: &Idset) -> Result<ResourceSet, Failure> {
        let hosts = match &self.hosts {
            None => None,
            Some(text) => Some(
                text.parse::<Hostlist>()
                    .map_err(|e| Failure::new(format!("invalid hostlist '{text}': {e}")))?,
            ),
        };
        let ranks: Idset = match (&self.ranks, &hosts) {
            (Some(text), _) => idset("ranks", text)?,
            (None, Some(hosts)) => (0..hosts.len() as u32).collect(),
            (None, None) => Idset::from(0),
        };
        let mut names = Vec::new();
        if let Some(hosts) = &hosts {
            if hosts.len() != ranks.len() && !ranks.is_empty() {
                return Err(Failure::new(format!(
                    "hostname count in '{hosts}' does not match nranks ({})",
                    ranks.len()
                )));
            }
            names.extend(hosts.iter().map(|host| host.to_string()));
        }
        let here = crate::uri::hostname();
        let mut set = ResourceSet::new();
        for (i, rank) in ranks.iter().enumerate() {
            set.add(rank, names.get(i).unwrap_or(&here), cores, gpus);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let text = |s: &str| Some(s.to_owned());
        let none = Encode::default;
        let shown = |e: Encode| match e.run() {
            Ok(set) => format!("{set} on {}", set.nodelist()),
            Err(e) => e.message,
        };
        let dir = tempfile::tempdir().unwrap();
        let xml = dir.path().join("node.xml");
        std::fs::write(
            &xml,
            "<topology><object type='Core'/><object type='Core'/></topology>",
        )
        .unwrap();
        insta::assert_snapshot!([
            shown(Encode { hosts: text("n[1-3]"), ..none() }),
            shown(Encode { hosts: text("a,b"), ranks: text("4,7"), cores: "0-3".into(), gpus: "0".into(), ..none() }),
            shown(Encode { hosts: text("a"), gpus: "0-1".into(), ..none() }),
            shown(Encode { hosts: text("a,b"), ranks: text("4"), ..none() }),
            shown(Encode { hosts: text("a["), ..none() }),
            shown(Encode { hosts: text("a"), cores: "x".into(), ..none() }),
            shown(Encode { hosts: text("a"), xml: text(xml.to_str().unwrap()), ..none() }),
            shown(Encode { local: true, cores: "0".into(), ..none() }),
        ].join("\n"), @r"
        rank[0-2]/core0 on n[1-3]
        rank[4,7]/core[0-3],gpu0 on a,b
        rank0/gpu[0-1] on a
        hostname count in 'a,b' does not match nranks (1)
        invalid hostlist 'a[': hostlist 'a[': brackets do not match
        Failed to decode cores='x' as idset: idset 'x': 'x' is not an id or a range such as 2-5
        rank0/core[0-1] on a
        do not specify --cores or --gpus with --local or --xml
        ");
        let local = Encode {
            local: true,
            ..none()
        }
        .run()
        .unwrap();
        assert!(local.ncores() > 0 && local.nnodes() == 1);
    }
}
