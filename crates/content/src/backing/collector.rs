//! Which blobs nobody can want any more: garbage collection without I/O.
//!
//! A cycle begins; whoever knows what is referred to marks it ([`Collector::mark`]); then the store shows all it has
//! ([`Collector::examine`]). What is not marked is *condemned*: since the beginning of that cycle nothing has referred
//! to it. It may be removed in a cycle that begins a grace time later and does not find it marked either. Storing a
//! blob, at any time, lifts its condemnation, and marks it in the cycle under way.
//!
//! So what is removed was neither stored nor marked in a span of at least the grace time. Nothing of this is kept:
//! after a restart every blob is innocent again.
//!
//! Blobs are told apart by eight bytes of their digests. Those that share them are kept or condemned together, which
//! only ever keeps too much.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Removed;
use crate::BlobRef;

/// What a cycle has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Blobs that are referred to, or were stored while it ran.
    pub live: u64,
    /// Blobs that may be removed once the grace time is over.
    pub condemned: u64,
    /// Blobs that were removed.
    pub removed: u64,
    /// Bytes they held.
    pub freed: u64,
}

/// There is no such cycle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("garbage collection cycle {0} is over: another has begun")]
pub struct Over(u64);

struct Cycle {
    start: Instant,
    grace: Duration,
    marked: HashSet<u64>,
    figures: Figures,
}

/// The collector of one store.
#[derive(Default)]
pub struct Collector {
    /// Number of the latest cycle.
    number: u64,
    cycle: Option<Cycle>,
    /// Since when nothing has referred to these.
    condemned: HashMap<u64, Instant>,
    last: Option<Figures>,
}

fn head(blobref: &BlobRef) -> u64 {
    let mut head = [0u8; 8];
    head.copy_from_slice(&blobref.raw()[..8]);
    u64::from_le_bytes(head)
}

impl Collector {
    /// Begins a cycle, and returns its number. One that is under way is given up.
    pub fn begin(&mut self, now: Instant, grace: Duration) -> u64 {
        self.number += 1;
        self.cycle = Some(Cycle {
            start: now,
            grace,
            marked: HashSet::new(),
            figures: Figures::default(),
        });
        self.number
    }

    fn cycle(&mut self, number: u64) -> Result<&mut Cycle, Over> {
        let current = self.number == number;
        self.cycle.as_mut().filter(|_| current).ok_or(Over(number))
    }

    /// Whoever marks has lost track: nothing was condemned before this cycle.
    pub fn forget(&mut self) {
        self.condemned.clear();
    }

    /// These are referred to.
    pub fn mark<'a>(
        &mut self,
        number: u64,
        blobs: impl IntoIterator<Item = &'a BlobRef>,
    ) -> Result<(), Over> {
        self.cycle(number)?
            .marked
            .extend(blobs.into_iter().map(head));
        Ok(())
    }

    /// This is going to be stored.
    pub fn stored(&mut self, blobref: &BlobRef) {
        let head = head(blobref);
        self.condemned.remove(&head);
        if let Some(cycle) = &mut self.cycle {
            cycle.marked.insert(head);
        }
    }

    /// All is marked and the store shows some of what it has: those to remove.
    pub fn examine(&mut self, number: u64, blobs: Vec<BlobRef>) -> Result<Vec<BlobRef>, Over> {
        self.cycle(number)?;
        let Some(cycle) = &mut self.cycle else {
            return Ok(Vec::new());
        };
        let condemned = &mut self.condemned;
        let mut is_doomed = |blobref: &BlobRef| {
            let head = head(blobref);
            if cycle.marked.contains(&head) {
                condemned.remove(&head);
                cycle.figures.live += 1;
                return false;
            }
            let since = match condemned.entry(head) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => *entry.insert(cycle.start),
            };
            cycle.figures.condemned += 1;
            cycle.start.duration_since(since) >= cycle.grace
        };
        Ok(blobs.into_iter().filter(|b| is_doomed(b)).collect())
    }

    /// Whether something that was to be removed still is.
    pub fn is_condemned(&self, blobref: &BlobRef) -> bool {
        self.condemned.contains_key(&head(blobref))
    }

    /// These were to be removed, and are.
    pub fn removed(&mut self, blobs: &[BlobRef], removed: Removed) {
        for blobref in blobs {
            self.condemned.remove(&head(blobref));
        }
        if let Some(Cycle { figures, .. }) = &mut self.cycle {
            figures.condemned = figures.condemned.saturating_sub(removed.count);
            figures.removed += removed.count;
            figures.freed += removed.bytes;
        }
    }

    /// The store has shown everything, and what was to be removed is.
    pub fn finish(&mut self, number: u64) -> Result<Figures, Over> {
        let figures = self.cycle(number)?.figures;
        self.cycle = None;
        self.last = Some(figures);
        Ok(figures)
    }

    /// Ends a cycle that has failed.
    pub fn give_up(&mut self, number: u64) {
        if self.number == number {
            self.cycle = None;
        }
    }

    /// Whether a cycle is under way.
    pub fn is_busy(&self) -> bool {
        self.cycle.is_some()
    }

    /// Blobs that are condemned now.
    pub fn condemned(&self) -> usize {
        self.condemned.len()
    }

    /// What the last cycle came to.
    pub fn last(&self) -> Option<Figures> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashAlg;

    const GRACE: Duration = Duration::from_secs(60);

    fn blob(n: u8) -> BlobRef {
        HashAlg::Sha1.hash(&[n])
    }

    /// A cycle over `there` that finds `live` marked: what it removes.
    fn cycle(c: &mut Collector, now: Instant, live: &[BlobRef], there: &[BlobRef]) -> Vec<BlobRef> {
        let n = c.begin(now, GRACE);
        c.mark(n, live).unwrap();
        let doomed = c.examine(n, there.to_vec()).unwrap();
        let count = doomed.len() as u64;
        c.removed(&doomed, Removed { count, bytes: 0 });
        c.finish(n).unwrap();
        doomed
    }

    #[test]
    fn garbage_goes_a_grace_time_after_it_was_found() {
        let (mut c, t) = (Collector::default(), Instant::now());
        let there = [blob(1), blob(2)];
        assert_eq!(cycle(&mut c, t, &there[..1], &there), []);
        assert_eq!(c.last().unwrap().condemned, 1);
        assert_eq!(cycle(&mut c, t + GRACE / 2, &there[..1], &there), []);
        assert_eq!(cycle(&mut c, t + GRACE, &there[..1], &there), [blob(2)]);
        assert_eq!((c.condemned(), c.last().unwrap().removed), (0, 1));
    }

    #[test]
    fn what_is_marked_or_stored_again_is_innocent() {
        let (mut c, t) = (Collector::default(), Instant::now());
        let there = [blob(1), blob(2)];
        cycle(&mut c, t, &[], &there);
        cycle(&mut c, t + GRACE / 2, &there[..1], &there);
        c.stored(&blob(2));
        assert!(!c.is_condemned(&blob(2)));
        assert_eq!(cycle(&mut c, t + GRACE, &[], &there), []);
        // Stored while a cycle runs, and while it removes.
        let n = c.begin(t + 3 * GRACE, GRACE);
        c.stored(&blob(1));
        assert_eq!(c.examine(n, there.to_vec()), Ok(vec![blob(2)]));
        c.stored(&blob(2));
        assert!(!c.is_condemned(&blob(2)));
    }

    #[test]
    fn a_new_cycle_ends_the_one_before() {
        let mut c = Collector::default();
        let first = c.begin(Instant::now(), GRACE);
        let second = c.begin(Instant::now(), GRACE);
        assert_eq!(c.mark(first, &[blob(1)]), Err(Over(first)));
        assert_eq!(c.examine(first, vec![]), Err(Over(first)));
        c.give_up(first);
        assert!(c.is_busy());
        c.give_up(second);
        assert!(!c.is_busy() && c.finish(second) == Err(Over(second)));
    }
}
