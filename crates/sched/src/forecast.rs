//! When jobs that wait will begin, if those that run use all their time.

use std::collections::HashMap;

use formats::constraint::Constraint;
use formats::jobid::JobId;
use formats::jobspec::ResourceCounts;
use formats::resource_set::ResourceSet;

use crate::pool::{NoFit, Pool};

/// What a job asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) counts: ResourceCounts,
    pub(crate) constraint: Option<Constraint>,
    /// Seconds; 0 is without end.
    pub(crate) duration: f64,
}

impl Claim {
    /// Whether it asks for the same resources, for however long.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.counts == other.counts && self.constraint == other.constraint
    }
}

/// What jobs hold, and until when.
#[derive(Debug, Default)]
pub(crate) struct Running(HashMap<JobId, Held>);

#[derive(Debug)]
struct Held {
    set: ResourceSet,
    /// Seconds since the epoch; 0 is never.
    end: f64,
}

impl Running {
    pub(crate) fn add(&mut self, id: JobId, set: ResourceSet) {
        let end = set.expiration;
        self.0.insert(id, Held { set, end });
    }

    /// The job has given back a part, or with `is_final` what it still had.
    pub(crate) fn free(&mut self, id: JobId, part: &ResourceSet, is_final: bool) {
        let Some(held) = self.0.get_mut(&id) else {
            return;
        };
        if !is_final {
            held.set = held.set.difference(part);
        }
        if is_final || held.set.is_empty() {
            self.0.remove(&id);
        }
    }

    pub(crate) fn set_end(&mut self, id: JobId, end: f64) {
        if let Some(held) = self.0.get_mut(&id) {
            held.end = end;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A look ahead: jobs are placed one after the other, none before the one placed before it.
///
/// At most [`Forecast::TRIES`] allocations are tried; what comes later is unknown.
#[derive(Debug)]
pub(crate) struct Forecast {
    pool: Pool,
    /// What comes back, the latest first.
    ends: Vec<(f64, ResourceSet)>,
    time: f64,
    tries: usize,
}

impl Forecast {
    /// Allocations that are tried in all.
    pub(crate) const TRIES: usize = 1000;

    /// Begins at `now`, in seconds since the epoch. O(running · log running).
    pub(crate) fn new(pool: &Pool, running: &Running, now: f64) -> Self {
        let ends = running.0.values().filter(|held| held.end > 0.0);
        let mut ends: Vec<_> = ends.map(|held| (held.end, held.set.clone())).collect();
        ends.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self {
            pool: pool.clone(),
            ends,
            time: now,
            tries: Self::TRIES,
        }
    }

    /// When a job begins that is next in line; nothing if that cannot be known.
    ///
    /// # Errors
    /// It never can: the job takes nothing, and those behind it do not wait for it.
    pub(crate) fn place(&mut self, claim: &Claim) -> Result<Option<f64>, NoFit> {
        loop {
            match self.tries.checked_sub(1) {
                Some(left) => self.tries = left,
                None => return Ok(None),
            }
            match self.pool.alloc(&claim.counts, claim.constraint.as_ref()) {
                Ok(set) => {
                    if claim.duration > 0.0 {
                        let end = self.time + claim.duration;
                        let at = self.ends.partition_point(|(other, _)| *other > end);
                        self.ends.insert(at, (end, set));
                    }
                    return Ok(Some(self.time));
                }
                Err(NoFit::Busy) if !self.advance() => return Ok(None),
                Err(NoFit::Busy) => {}
                Err(never) => return Err(never),
            }
        }
    }

    /// Goes on to the next time at which something comes back; false if nothing does.
    fn advance(&mut self) -> bool {
        let Some((end, set)) = self.ends.pop() else {
            return false;
        };
        self.pool.release(&set);
        self.time = self.time.max(end);
        while let Some((_, set)) = self.ends.pop_if(|(end, _)| *end <= self.time) {
            self.pool.release(&set);
        }
        true
    }

    /// When each of `claims` begins, as far as that can be known: a job without end, or one of which nothing is known, hides
    /// all behind it.
    pub(crate) fn starts<'a>(
        mut self,
        claims: impl IntoIterator<Item = &'a Claim>,
    ) -> Vec<Option<f64>> {
        let mut is_known = true;
        let start = |claim: &Claim| {
            let start = match is_known {
                true => self.place(claim),
                false => Ok(None),
            };
            // What can never begin keeps nobody waiting.
            is_known &= start
                .as_ref()
                .map_or(true, |at| at.is_some() && claim.duration > 0.0);
            start.ok().flatten()
        };
        claims.into_iter().map(start).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::idset::Idset;
    use proptest::prelude::*;

    const NOW: f64 = 1000.0;

    fn pool(nodes: u32, cores: u32) -> Pool {
        let mut all = ResourceSet::new();
        for rank in 0..nodes {
            let cores = Idset::from_range(0, cores - 1);
            all.add(rank, &format!("n{rank}"), &cores, &Idset::new());
        }
        Pool::new(all, Idset::from_range(0, nodes - 1))
    }

    fn claim(slots: u32, duration: f64) -> Claim {
        Claim {
            counts: ResourceCounts {
                nnodes: 0,
                nslots: slots,
                slot_size: 1,
                slot_gpus: 0,
                exclusive: false,
            },
            constraint: None,
            duration,
        }
    }

    fn run(pool: &mut Pool, running: &mut Running, id: u64, slots: u32, end: f64) {
        let mut set = pool.alloc(&claim(slots, 0.0).counts, None).unwrap();
        set.expiration = end;
        running.add(JobId(id), set);
    }

    #[test]
    fn jobs_wait_for_those_before_them() {
        let (mut pool, mut running) = (pool(2, 2), Running::default());
        run(&mut pool, &mut running, 1, 3, NOW + 60.0);
        let starts =
            |claims: &[Claim], running: &Running| Forecast::new(&pool, running, NOW).starts(claims);
        let jobs = [
            claim(4, 10.0),
            claim(1, 5.0),
            claim(9, 1.0),
            claim(4, 0.0),
            claim(1, 1.0),
        ];
        let want = [
            Some(NOW + 60.0),
            Some(NOW + 70.0),
            None,
            Some(NOW + 75.0),
            None,
        ];
        assert_eq!(starts(&jobs, &running), want);
        running.set_end(JobId(1), NOW + 30.0);
        assert_eq!(starts(&jobs[..1], &running), [Some(NOW + 30.0)]);
        running.set_end(JobId(1), 0.0);
        assert_eq!(starts(&jobs[..2], &running), [None, None]);
        assert_eq!(starts(&[claim(1, 1.0)], &running), [Some(NOW)]);
    }

    #[test]
    fn parts_come_back_at_once() {
        let (mut pool, mut running) = (pool(1, 4), Running::default());
        run(&mut pool, &mut running, 1, 4, NOW + 60.0);
        let mut part = ResourceSet::new();
        part.add(0, "n0", &Idset::from_range(0, 1), &Idset::new());
        pool.release(&part);
        running.free(JobId(1), &part, false);
        let starts =
            |n, running: &Running| Forecast::new(&pool, running, NOW).starts(&[claim(n, 1.0)]);
        assert_eq!(starts(2, &running), [Some(NOW)]);
        assert_eq!(starts(3, &running), [Some(NOW + 60.0)]);
        running.free(JobId(1), &ResourceSet::new(), true);
        assert_eq!(starts(3, &running), [None], "nobody gives the rest back");
    }

    proptest! {
        /// What a scheduler that runs the jobs in order would see, second by second.
        #[test]
        fn as_time_goes_by(
            held in proptest::collection::vec((1u32..3, 1u32..9), 0..4),
            jobs in proptest::collection::vec((1u32..6, 1u32..9), 1..6),
        ) {
            let (mut pool, mut running) = (pool(2, 3), Running::default());
            for (id, (slots, end)) in held.iter().enumerate() {
                if pool.alloc(&claim(*slots, 0.0).counts, None).is_ok_and(|set| {
                    pool.release(&set);
                    true
                }) {
                    run(&mut pool, &mut running, id as u64, *slots, NOW + f64::from(*end));
                }
            }
            let claims: Vec<Claim> = jobs.iter().map(|(n, d)| claim(*n, f64::from(*d))).collect();
            let starts = Forecast::new(&pool, &running, NOW).starts(&claims);

            let mut live: Vec<(f64, ResourceSet)> =
                running.0.values().map(|h| (h.end, h.set.clone())).collect();
            let (mut time, mut want) = (NOW, Vec::new());
            for claim in &claims {
                let set = loop {
                    live.retain(|(end, set)| {
                        if *end <= time { pool.release(set) }
                        *end > time
                    });
                    match pool.alloc(&claim.counts, None) {
                        Ok(set) => break set,
                        Err(_) => time += 1.0,
                    }
                };
                live.push((time + claim.duration, set));
                want.push(Some(time));
            }
            prop_assert_eq!(starts, want);
        }
    }
}
