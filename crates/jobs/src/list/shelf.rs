//! The jobs that do not change any more, in blocks, with indexes of what listings ask for: who, which queue, which name, how
//! it ended.
//!
//! Jobs have numbers in the order in which they became inactive; an index is a list of numbers in that order. A job that is
//! purged leaves a hole, and holes are closed when they are more than the jobs.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use formats::Idset;

use super::block::{Block, Head};
use super::constraint::Needs;
use super::job::Job;
use super::table::{TimeKey, time_key};

/// A job in its block.
#[derive(Clone, Copy, Debug)]
struct Entry {
    time: TimeKey,
    id: u64,
    block: u32,
    /// Its number in the block; [`HOLE`] if it is gone.
    place: u32,
}

const HOLE: u32 = u32::MAX;

impl Entry {
    fn is_hole(&self) -> bool {
        self.place == HOLE
    }

    /// Where it stands in a listing.
    fn key(&self) -> (Reverse<TimeKey>, Reverse<u64>) {
        (Reverse(self.time), Reverse(self.id))
    }
}

/// The shelf.
#[derive(Debug, Default)]
pub struct Shelf {
    blocks: Vec<Block>,
    entries: Vec<Entry>,
    holes: usize,
    by_id: HashMap<u64, u32>,
    by_user: HashMap<u32, Vec<u32>>,
    by_queue: HashMap<Arc<str>, Vec<u32>>,
    by_name: HashMap<Arc<str>, Vec<u32>>,
    by_result: HashMap<u32, Vec<u32>>,
}

impl Shelf {
    /// Number of jobs.
    pub fn len(&self) -> usize {
        self.entries.len() - self.holes
    }

    /// Whether it has no job.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a block in, but for some of its jobs; `told` hears of each.
    pub fn add(&mut self, block: Block, except: &Idset, mut told: impl FnMut(&Head)) {
        let number = self.blocks.len() as u32;
        self.blocks.push(block);
        let mut is_sorted = true;
        for place in 0..self.blocks[number as usize].len() as u32 {
            if except.contains(place) {
                continue;
            }
            let Some(head) = self.blocks[number as usize].head(place) else {
                continue;
            };
            if self.by_id.contains_key(&head.id) {
                continue;
            }
            told(&head);
            let entry = Entry {
                time: time_key(head.inactive),
                id: head.id,
                block: number,
                place,
            };
            is_sorted &= self.entries.last().is_none_or(|e| e.key() >= entry.key());
            self.index(entry, head);
        }
        // Clocks are set back at times.
        if !is_sorted {
            self.sort();
        }
    }

    fn index(&mut self, entry: Entry, head: Head) {
        let number = self.entries.len() as u32;
        self.entries.push(entry);
        self.by_id.insert(head.id, number);
        self.by_user.entry(head.userid).or_default().push(number);
        let result = self.by_result.entry(head.result.bit()).or_default();
        result.push(number);
        if let Some(queue) = head.queue {
            self.by_queue.entry(queue).or_default().push(number);
        }
        if let Some(name) = head.name {
            self.by_name.entry(name).or_default().push(number);
        }
    }

    /// Gives all jobs new numbers, in order and without holes.
    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        let blocks = std::mem::take(&mut self.blocks);
        *self = Shelf {
            blocks,
            ..Shelf::default()
        };
        entries.retain(|entry| !entry.is_hole());
        entries.sort_unstable_by_key(|entry| Reverse(entry.key()));
        for entry in entries {
            if let Some(head) = self.blocks[entry.block as usize].head(entry.place) {
                self.index(entry, head);
            }
        }
    }

    fn read(&self, number: u32) -> Option<Job> {
        let entry = self.entries.get(number as usize)?;
        self.blocks.get(entry.block as usize)?.job(entry.place)
    }

    /// The job of this id.
    pub fn get(&self, id: u64) -> Option<Job> {
        self.read(*self.by_id.get(&id)?)
    }

    /// Whether it has this job.
    pub fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Takes a job off.
    pub fn remove(&mut self, id: u64) -> Option<Job> {
        let number = self.by_id.remove(&id)?;
        let job = self.read(number);
        self.entries[number as usize].place = HOLE;
        self.holes += 1;
        if self.holes > self.entries.len() / 2 {
            self.sort();
            self.drop_blocks();
        }
        job
    }

    /// Gives back the space of blocks that no job is in any more.
    fn drop_blocks(&mut self) {
        let mut is_used = vec![false; self.blocks.len()];
        for entry in &self.entries {
            is_used[entry.block as usize] = true;
        }
        let mut numbers = vec![0; is_used.len()];
        let mut kept = 0;
        for (number, is_used) in numbers.iter_mut().zip(&is_used) {
            *number = kept;
            kept += u32::from(*is_used);
        }
        for entry in &mut self.entries {
            entry.block = numbers[entry.block as usize];
        }
        let mut is_used = is_used.into_iter();
        self.blocks.retain(|_| is_used.next() == Some(true));
    }

    /// Numbers of jobs that may be wanted, in their order: of the indexes that serve, the shortest.
    fn candidates(&self, needs: &Needs) -> Option<Vec<u32>> {
        let of_users = needs.users.as_ref().map(|users| {
            let lists = users.iter().filter_map(|user| self.by_user.get(user));
            lists.collect::<Vec<_>>()
        });
        let of_queues = needs.queues.as_ref().map(|queues| {
            let lists = queues
                .iter()
                .filter_map(|queue| self.by_queue.get(&**queue));
            lists.collect::<Vec<_>>()
        });
        let of_names = needs.names.as_ref().map(|names| {
            let lists = names.iter().filter_map(|name| self.by_name.get(&**name));
            lists.collect::<Vec<_>>()
        });
        let of_results = needs.results.map(|mask| {
            let bits = (0..u32::BITS).map(|bit| mask & (1 << bit));
            let lists = bits.filter_map(|bit| self.by_result.get(&bit));
            lists.collect::<Vec<_>>()
        });
        let lists = [of_users, of_queues, of_names, of_results];
        let length =
            |lists: &Vec<&Vec<u32>>| -> usize { lists.iter().map(|list| list.len()).sum() };
        let shortest = lists.into_iter().flatten().min_by_key(length)?;
        if length(&shortest) > self.entries.len() / 2 {
            return None;
        }
        let mut numbers: Vec<u32> = shortest
            .iter()
            .flat_map(|list| list.iter().copied())
            .collect();
        if shortest.len() > 1 {
            numbers.sort_unstable();
            numbers.dedup();
        }
        Some(numbers)
    }

    /// Jobs that may be wanted and became inactive after `since`, the latest first, with their places in a listing.
    pub fn list(
        &self,
        needs: &Needs,
        since: TimeKey,
    ) -> impl Iterator<Item = ((Reverse<TimeKey>, Reverse<u64>), Job)> + use<'_> {
        let first = self.entries.partition_point(|entry| entry.time <= since) as u32;
        let (some, all) = match self.candidates(needs) {
            Some(numbers) => (numbers, 0..0),
            None => (Vec::new(), first..self.entries.len() as u32),
        };
        let some = some
            .into_iter()
            .rev()
            .take_while(move |number| *number >= first);
        some.chain(all.rev()).filter_map(|number| {
            let entry = &self.entries[number as usize];
            Some((entry.key(), self.read(number)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{encode, tests::ended};
    use super::super::constraint::Constraint;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn constraint(n: usize) -> Constraint {
        let all: [Value; 6] = [
            json!({}),
            json!({"userid": [1]}),
            json!({"and": [{"userid": [1, 2]}, {"queue": ["a"]}]}),
            json!({"or": [{"results": ["canceled"]}]}),
            json!({"not": [{"queue": ["a"]}]}),
            json!({"or": [{"queue": ["b"]}, {"userid": [0]}]}),
        ];
        Constraint::parse(&all[n]).unwrap()
    }

    proptest! {
        /// Listings through indexes are those of a look at every job.
        #[test]
        fn indexes_hide_nothing(
            blocks in prop::collection::vec(prop::collection::vec((0..50u64, "[ab]", 0..40u32), 1..8), 0..6),
            gone in prop::collection::vec(0..50u64, 0..30),
            (which, since) in (0..6usize, 0..40u32),
        ) {
            let mut shelf = Shelf::default();
            let mut model: HashMap<u64, Job> = HashMap::new();
            for jobs in blocks {
                let jobs: Vec<Job> = jobs.iter().map(|(id, q, t)| ended(*id, q, f64::from(*t), id % 2 == 0)).collect();
                let block = Block::decode(encode(jobs.iter())).unwrap();
                shelf.add(block, &Idset::from_range(5, 5), |_| {});
                for (place, job) in jobs.into_iter().enumerate() {
                    if place != 5 {
                        model.entry(job.id).or_insert(job);
                    }
                }
            }
            for id in gone {
                prop_assert_eq!(shelf.remove(id), model.remove(&id));
            }
            prop_assert_eq!(shelf.len(), model.len());
            let (constraint, since) = (constraint(which), time_key(since.into()));
            let listed = shelf.list(&constraint.needs(), since);
            let listed: Vec<Job> = listed.map(|(_, job)| job).filter(|job| constraint.matches(job)).collect();
            let is_late = |job: &&Job| time_key(job.times.inactive) > since;
            let mut wanted: Vec<Job> = model.values().filter(is_late).filter(|j| constraint.matches(j)).cloned().collect();
            wanted.sort_by_key(|job| Reverse((time_key(job.times.inactive), job.id)));
            prop_assert_eq!(listed, wanted);
        }
    }
}
