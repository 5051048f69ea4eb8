//! Ranks that do not have what the set says of them are taken out of service (flux-config-resource(5), `verify`).

use formats::resource_set::verify::{self, Config};
use formats::{Idset, ResourceSet};

use super::Leader;
use crate::drain::Mode;

/// What ranks are compared with.
pub(super) struct Standard {
    config: Config,
    /// Ids do not count, but how many there are.
    by_number: bool,
}

impl Standard {
    /// Brokers of a job may be bound to a part of their node, where they number what they see from 0; they are compared only
    /// if that is configured.
    pub(super) fn new(config: Config, in_job: bool, is_configured: bool) -> Option<Standard> {
        (!in_job || is_configured).then_some(Standard {
            config,
            by_number: in_job,
        })
    }

    /// What is wrong with a rank.
    fn fault(&self, expected: &ResourceSet, found: &ResourceSet, rank: u32) -> Option<String> {
        let target = expected.get(rank)?;
        let numbered;
        let expected = match self.by_number {
            true => {
                let first = |ids: &Idset| (0..ids.len() as u32).collect::<Idset>();
                let (cores, gpus) = (first(target.cores()), first(target.gpus()));
                let mut set = ResourceSet::new();
                set.add(rank, &target.host, &cores, &gpus);
                numbered = set;
                &numbered
            }
            false => expected,
        };
        match verify::verify(expected, &found.on_ranks(&Idset::from(rank)), &self.config) {
            Ok(extra) => extra.map(|extra| extra.to_string()),
            Err(mismatch) => Some(mismatch.to_string()),
        }
    }
}

impl Leader {
    /// Compares what ranks have found with the set. A rank that is out of service already keeps its reason.
    pub(super) fn verify(&mut self, found: &ResourceSet) {
        let (Some(standard), Some((expected, _))) = (&self.verify, &self.inventory.defined) else {
            return;
        };
        let ranks = found.ranks();
        let wrong = ranks
            .iter()
            .filter_map(|rank| Some((rank, standard.fault(expected, found, rank)?)));
        let wrong: Vec<(u32, String)> = wrong.collect();
        for (rank, why) in wrong {
            self.handle.say("resource", libc::LOG_ERR as u8, &why);
            if !self.inventory.drained.ranks().contains(rank) {
                self.drain(Idset::from(rank), Some(why), Mode::Update, None);
            }
        }
    }
}
