//! The resources of an instance as its scheduler sees them: `resource.sched-status`.

use client::{Handle, Node};
use formats::{Hostlist, Idset, ResourceSet};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::RpcError;

use crate::error::Failure;

/// All resources, and those that cannot be or are used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources {
    pub(crate) all: ResourceSet,
    pub(crate) down: ResourceSet,
    pub(crate) allocated: ResourceSet,
}

/// States [`Resources::state`] knows.
pub(crate) const STATES: [&str; 5] = ["up", "down", "allocated", "free", "all"];

impl Resources {
    pub(crate) async fn fetch(handle: &Handle) -> Result<Resources, RpcError> {
        let topic = std::env::var("FLUX_RESOURCE_LIST_RPC")
            .ok()
            .filter(|t| !t.is_empty());
        let topic = topic.as_deref().unwrap_or("resource.sched-status");
        let ask = async |topic| handle.call(topic, Node::Rank(0), &json!({})).await;
        let value: Value = match ask(topic).await {
            // An instance may be older than the service, or have none of that name.
            Err(e) if e.errno == libc::ENOSYS => ask("sched.resource-status").await?,
            answer => answer?,
        };
        Resources::from_json(value)
            .map_err(|e| RpcError::new(libc::EPROTO, format!("{topic}: {e}")))
    }

    pub(crate) fn from_json(value: Value) -> Result<Resources, serde_json::Error> {
        #[derive(Deserialize)]
        struct Answer {
            all: Option<ResourceSet>,
            down: Option<ResourceSet>,
            allocated: Option<ResourceSet>,
        }
        let Answer {
            all,
            down,
            allocated,
        } = serde_json::from_value(value)?;
        let all = all.unwrap_or_default();
        // Properties are told once, with the whole set.
        let known = |set: Option<ResourceSet>| {
            let mut set = set.unwrap_or_default();
            let ranks = set.ranks();
            for (name, on) in &all.properties {
                let on = on.intersection(&ranks);
                if !on.is_empty() {
                    set.properties.entry(name.clone()).or_insert(on);
                }
            }
            set
        };
        let (down, allocated) = (known(down), known(allocated));
        Ok(Resources {
            all,
            down,
            allocated,
        })
    }

    /// The resources in a state.
    pub(crate) fn state(&self, name: &str) -> Option<ResourceSet> {
        Some(match name {
            "all" => self.all.clone(),
            "down" => self.down.clone(),
            "allocated" => self.allocated.clone(),
            "up" => self.all.difference(&self.down),
            "free" => self.all.difference(&self.down).difference(&self.allocated),
            _ => return None,
        })
    }

    /// Only what is on these ranks.
    pub(crate) fn keep(&mut self, ranks: &Idset) {
        for set in [&mut self.all, &mut self.down, &mut self.allocated] {
            *set = set.on_ranks(ranks);
        }
    }

    /// Nodes, cores and gpus of each state.
    pub(crate) fn counts(&self) -> Counts {
        let count =
            |set: ResourceSet| [set.nnodes() as i64, set.ncores() as i64, set.ngpus() as i64];
        Counts(STATES.map(|state| self.state(state).map_or([0; 3], count)))
    }
}

/// Nodes, cores and gpus of each of [`STATES`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts([[i64; 3]; 5]);

impl Counts {
    pub(crate) fn get(&self, state: &str, what: &str) -> Option<i64> {
        let state = STATES.iter().position(|s| *s == state)?;
        let what = ["nnodes", "ncores", "ngpus"]
            .iter()
            .position(|w| *w == what)?;
        Some(self.0[state][what])
    }
}

/// The ranks that targets name: an idset of ranks, or hosts of `set` (unknown ones count not).
pub(crate) fn targets(set: &ResourceSet, text: &str) -> Result<Idset, Failure> {
    if let Ok(ranks) = text.parse() {
        return Ok(ranks);
    }
    let hosts: Hostlist = text
        .parse()
        .map_err(|e| Failure::new(format!("'{text}' is neither ranks nor hosts: {e}")))?;
    let targets = set.targets().iter();
    Ok(targets
        .filter(|t| hosts.contains(&t.host))
        .map(|t| t.rank)
        .collect())
}

/// Nodes with all these properties; `^name` is "without".
pub(crate) fn with_properties(set: &ResourceSet, properties: &[String]) -> ResourceSet {
    set.filter(|target| {
        properties.iter().all(|p| {
            let (name, wanted) = p.strip_prefix('^').map_or((&**p, true), |p| (p, false));
            set.has_property(target.rank, name) == wanted
        })
    })
}
