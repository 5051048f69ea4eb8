//! The resource set and the state of its targets: what a scheduler may use (RFC 28).
//!
//! A target is usable while its broker is online and shows signs of life, and it is neither drained nor excluded. All
//! changes go through this type; [`Inventory::usable`] is computed from it, never kept beside.

use formats::resource_event::Method;
use formats::{Hostlist, Idset, ResourceSet};

use crate::drain::Drained;

/// All there is to know of an instance's resources.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The set and its origin, once it is defined.
    pub defined: Option<(ResourceSet, Method)>,
    pub online: Idset,
    /// Targets whose broker shows no sign of life.
    pub torpid: Idset,
    pub drained: Drained,
    pub excluded: Idset,
    /// Targets that were online and are not any more.
    pub lost: Idset,
    /// Brokers have fixed places and can take them again, whoever may have found the set.
    pub brokers_return: bool,
}

/// How the usable targets changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub up: Idset,
    pub down: Idset,
    /// Targets that will not come back.
    pub shrink: Idset,
}

impl Change {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.up.is_empty() && self.down.is_empty() && self.shrink.is_empty()
    }
}

impl Inventory {
    /// Whether targets that go offline are gone for good: they may come back if the set or the brokers are configured.
    pub fn shrinks(&self) -> bool {
        let configured = |(_, method): &(ResourceSet, Method)| *method == Method::Configuration;
        !self.brokers_return && self.defined.as_ref().is_some_and(|set| !configured(set))
    }

    /// The set a scheduler gets: all but excluded targets.
    pub fn schedulable(&self) -> Option<ResourceSet> {
        let (set, _) = self.defined.as_ref()?;
        let mut set = set.clone();
        set.remove_ranks(&self.excluded);
        Some(set)
    }

    /// Targets of the set that may be used now.
    pub fn usable(&self) -> Idset {
        match &self.defined {
            None => Idset::new(),
            Some((set, _)) => set
                .ranks()
                .intersection(&self.online)
                .difference(&self.torpid)
                .difference(&self.drained.ranks())
                .difference(&self.excluded),
        }
    }

    /// Targets of the set that are not online.
    pub fn offline(&self) -> Idset {
        match &self.defined {
            None => Idset::new(),
            Some((set, _)) => set.ranks().difference(&self.online),
        }
    }

    /// Takes in which brokers are online; returns who came and who left.
    pub fn set_online(&mut self, online: Idset) -> (Idset, Idset) {
        let (came, left) = (
            online.difference(&self.online),
            self.online.difference(&online),
        );
        self.lost = self.lost.union(&left).difference(&came);
        self.online = online;
        (came, left)
    }

    /// What a scheduler that was told `up` and `removed` must be told now.
    pub fn change_since(&self, up: &Idset, removed: &Idset) -> Change {
        let now = self.usable();
        Change {
            up: now.difference(up),
            down: up.difference(&now),
            shrink: if self.shrinks() {
                self.lost.difference(removed)
            } else {
                Idset::new()
            },
        }
    }
}

/// Fits the set of an enclosing job to the brokers of this instance, or `None` if it does not
/// fit: there must be as many targets as brokers.
///
/// Hosts that are all different are matched by name; else (several brokers on a node) the i-th
/// target becomes rank i.
pub fn fit_to_brokers(set: &ResourceSet, hosts: &Hostlist, size: u32) -> Option<ResourceSet> {
    if set.nnodes() != size as usize {
        return None;
    }
    let by_name =
        all_different(hosts) && set.targets().iter().all(|t| hosts.find(&t.host).is_some());
    let mut next = 0;
    let mut fitted = set.rerank(|target| {
        next += 1;
        match hosts.find(&target.host) {
            Some(rank) if by_name => rank as u32,
            _ => next - 1,
        }
    });
    fitted.nslots = None;
    Some(fitted)
}

fn all_different(hosts: &Hostlist) -> bool {
    let mut names: Vec<String> = hosts.iter().collect();
    names.sort_unstable();
    names.dedup();
    names.len() == hosts.len()
}

/// Matches a configured set to the instance's hosts, if each of its targets has one: ranks in
/// the configuration are only its order.
pub fn rerank_configured(set: ResourceSet, hosts: &Hostlist) -> ResourceSet {
    if !all_different(hosts) || set.targets().iter().any(|t| hosts.find(&t.host).is_none()) {
        return set;
    }
    // `find` succeeds for each, as just checked; the old rank stands in for the impossible.
    set.rerank(|t| hosts.find(&t.host).map_or(t.rank, |r| r as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::resource_event::Overwrite;

    fn ids(text: &str) -> Idset {
        text.parse().unwrap()
    }

    fn set(hosts: &[&str]) -> ResourceSet {
        let mut set = ResourceSet::new();
        for (rank, host) in hosts.iter().enumerate() {
            set.add(rank as u32, host, &ids("0-1"), &Idset::new());
        }
        set
    }

    #[test]
    fn usable_targets() {
        let mut inv = Inventory::default();
        assert_eq!(inv.set_online(ids("0-1")), (ids("0-1"), ids("")));
        assert!(inv.usable().is_empty());
        inv.defined = Some((set(&["a", "b", "c", "d"]), Method::DynamicDiscovery));
        inv.excluded = ids("0");
        assert_eq!((inv.usable(), inv.offline()), (ids("1"), ids("2-3")));
        assert_eq!(inv.schedulable().unwrap().ranks(), ids("1-3"));
        let told = inv.usable();
        inv.set_online(ids("0-3"));
        inv.drained.drain(&ids("1"), 1.0, None, Overwrite::Nothing);
        let change = inv.change_since(&told, &ids(""));
        assert_eq!(
            change,
            Change {
                up: ids("2-3"),
                down: ids("1"),
                shrink: ids("")
            }
        );
        let told = inv.usable();
        assert_eq!(inv.set_online(ids("0-2")), (ids(""), ids("3")));
        let change = inv.change_since(&told, &ids(""));
        assert_eq!(
            change,
            Change {
                up: ids(""),
                down: ids("3"),
                shrink: ids("3")
            }
        );
        inv.brokers_return = true;
        let change = inv.change_since(&told, &ids(""));
        assert_eq!((change.down, change.shrink), (ids("3"), ids("")));
        inv.set_online(ids("0-3"));
        assert!(inv.change_since(&told, &ids("")).is_empty());
        inv.torpid = ids("2");
        let change = inv.change_since(&told, &ids(""));
        assert_eq!((change.down, change.shrink), (ids("2"), ids("")));
    }

    #[test]
    fn a_jobs_set_is_fitted_to_brokers() {
        let hosts = |text: &str| text.parse::<Hostlist>().unwrap();
        let job = set(&["x", "a", "b", "c"]).on_ranks(&ids("1-3"));
        let fitted = fit_to_brokers(&job, &hosts("c,b,a"), 3).unwrap();
        assert_eq!(fitted.nodelist().to_string(), "c,b,a");
        // Several brokers on a node.
        let job = set(&["x", "n", "n"]).on_ranks(&ids("1-2"));
        let fitted = fit_to_brokers(&job, &hosts("n,n"), 2).unwrap();
        assert_eq!(fitted.ranks(), ids("0-1"));
        assert!(fit_to_brokers(&job, &hosts("n"), 1).is_none());
        let configured = rerank_configured(set(&["a", "b"]), &hosts("b,a"));
        assert_eq!(configured.nodelist().to_string(), "b,a");
    }
}
