//! Inactive jobs in the store, many in one value, so that a manager and a job-list that come back read few values instead of
//! the record of every job.
//!
//! `job-list` makes a block of jobs that became inactive (`archive`); it is stored as a *segment*: the block for job-list, and
//! beside it what the manager has to know ([`Ended`]). With it, in the same commit, goes the *floor*: every job below it is in
//! a segment, or purged, or named in the list beside. So a new manager reads the segments, the jobs of that list, and those
//! from the floor on. The records of jobs are the truth: an archive that cannot be read is removed, and all records are read.
//!
//! Invariant: a segment is stored with or after the last events of its jobs, since those were in this batch or an earlier one.

use std::collections::BTreeMap;

use formats::idset::Idset;
use formats::jobid::JobId;
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::batch::After;
use super::past::{Ended, Place};
use super::{LOG_ERR, Manager, log};
use crate::list::block::Block;
use crate::record;

const ROOT: &str = "inactive";
const FLOOR: &str = "inactive.floor";
/// Segments of one directory: commits write directories anew.
const WIDTH: u32 = 64;
/// Jobs named beside a new floor for each job that was put away since the last: bounds what is written for a job.
const BESIDE: usize = 10;

/// From which job on records have to be looked at, and which ones below.
#[derive(Debug, Serialize, Deserialize)]
struct Floor {
    floor: JobId,
    beside: Vec<JobId>,
}

/// What is in the store.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    segments: BTreeMap<u32, Segment>,
    next: u32,
    /// Segments below this one can be read.
    stored: u32,
    floor: Option<JobId>,
    /// Jobs put away since there is that floor.
    since: usize,
    /// Jobs whose records cannot be read.
    unreadable: Vec<JobId>,
}

#[derive(Debug, Default)]
struct Segment {
    jobs: usize,
    /// Places of jobs that are gone.
    purged: Idset,
}

/// What a manager finds.
struct Found {
    floor: Floor,
    segments: Vec<Stored>,
}

/// A segment with its number, and its jobs.
type Stored = (u32, Segment, Vec<(JobId, Ended)>);

fn directory(number: u32) -> String {
    format!("{ROOT}.{:04x}.{:02x}", number / WIDTH, number % WIDTH)
}

/// The number of a segment's directory.
fn number(directory: &str) -> Option<u32> {
    let (high, low) = directory
        .strip_prefix(ROOT)?
        .strip_prefix('.')?
        .split_once('.')?;
    let digits = |text| u32::from_str_radix(text, 16).ok();
    Some(digits(high)? * WIDTH + digits(low)?)
}

impl Archive {
    /// Whether a job of this segment can be read there.
    pub(super) fn has(&self, place: Option<Place>) -> bool {
        place.is_some_and(|place| place.segment < self.stored)
    }

    pub(super) fn stored(&mut self, number: u32) {
        self.stored = self.stored.max(number + 1);
    }

    /// Nobody knows what is in the record of this job.
    pub(super) fn keep_unreadable(&mut self, id: JobId) {
        self.unreadable.push(id);
    }

    /// Which segments a listener of the journal has to read by itself.
    pub(super) fn keys(&self) -> Value {
        let stored = self.segments.range(..self.stored);
        let item = |(number, segment): (&u32, &Segment)| {
            let key = format!("{}.jobs", directory(*number));
            json!({ "key": key, "purged": segment.purged })
        };
        stored.map(item).collect()
    }
}

impl Manager {
    /// `archive`: a block of inactive jobs.
    pub(super) fn archive(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        let bytes = msg.payload().cloned().unwrap_or_default();
        let block = Block::decode(bytes.clone()).map_err(|e| RpcError::proto(e.to_string()))?;
        let heads = (0..).map_while(|place| block.head(place));
        let ids: Vec<JobId> = heads.map(|head| JobId(head.id)).collect();
        let is_away = |id: &JobId| self.past.get(*id).is_some_and(|e| e.place.is_some());
        if ids.iter().any(is_away) {
            // Of a job-list that was unloaded meanwhile: the next one has these already.
            return Ok(None);
        }
        let number = self.archive.next;
        self.archive.next += 1;
        let mut segment = Segment {
            jobs: ids.len(),
            purged: Idset::new(),
        };
        let mut past = Vec::new();
        for (place, id) in (0..).zip(&ids) {
            let line = Place {
                segment: number,
                place,
            };
            match self.past.put_away(*id, line) {
                Some(ended) => ended.encode(*id, &mut past),
                None => {
                    segment.purged.insert(place);
                    Ended::nothing().encode(*id, &mut past);
                }
            }
        }
        let directory = directory(number);
        self.batch.set(format!("{directory}.jobs"), bytes);
        self.batch.set(format!("{directory}.past"), past);
        if !segment.purged.is_empty() {
            let purged = segment.purged.to_string();
            self.batch.set(format!("{directory}.purged"), purged);
        }
        self.archive.segments.insert(number, segment);
        self.archive.since += ids.len();
        // An older floor holds as well; only more records are looked at.
        if self.jobs.len() + self.past.fresh().len() <= BESIDE * self.archive.since {
            self.raise_floor();
        } else if self.archive.floor.is_none() {
            self.set_floor(JobId(0), Vec::new());
        }
        self.batch.after(After::Archived(number));
        Ok(None)
    }

    /// Everything this manager knows is in a segment, or named beside the new floor.
    fn raise_floor(&mut self) {
        let floor = JobId(self.max_id + 1);
        let beside = self.jobs.keys().chain(self.past.fresh());
        let beside = beside.chain(&self.archive.unreadable).copied();
        let mut beside: Vec<JobId> = beside.collect();
        beside.sort_unstable();
        self.archive.since = 0;
        self.set_floor(floor, beside);
    }

    fn set_floor(&mut self, floor: JobId, beside: Vec<JobId>) {
        self.archive.floor = Some(floor);
        let floor = json!(Floor { floor, beside });
        self.batch.set(FLOOR, floor.to_string());
    }

    /// Jobs have been taken that a new manager would not look for; whether that was so.
    pub(super) fn keep_above_floor(&mut self, ids: &[JobId]) -> bool {
        let is_below = ids.iter().any(|id| Some(*id) < self.archive.floor);
        if is_below {
            self.raise_floor();
        }
        is_below
    }

    /// A job is purged that was in this place.
    pub(super) fn purge_from_archive(&mut self, place: Place) {
        let Some(segment) = self.archive.segments.get_mut(&place.segment) else {
            return;
        };
        segment.purged.insert(place.place);
        let directory = directory(place.segment);
        if segment.purged.len() == segment.jobs {
            self.archive.segments.remove(&place.segment);
            self.batch.remove(directory);
        } else {
            let purged = segment.purged.to_string();
            self.batch.set(format!("{directory}.purged"), purged);
        }
    }

    /// Take up the archive; the jobs that have to be looked for beside it, and from which one on.
    pub(super) async fn restore_archive(&mut self) -> Result<(Vec<JobId>, JobId), RpcError> {
        let found = match find(&self.handle).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok((Vec::new(), JobId(0))),
            Err(Unusable::Store(e)) => return Err(e),
            Err(Unusable::Content(why)) => {
                let text = format!("the records of all jobs are read: {why}");
                log(&self.handle, LOG_ERR, &text);
                self.batch.remove(ROOT.to_owned());
                return Ok((Vec::new(), JobId(0)));
            }
        };
        for (number, segment, jobs) in found.segments {
            for (place, (id, mut ended)) in (0..).zip(jobs) {
                if segment.purged.contains(place) {
                    continue;
                }
                ended.place = Some(Place {
                    segment: number,
                    place,
                });
                self.max_id = self.max_id.max(id.0);
                self.past.add(id, ended);
            }
            self.archive.segments.insert(number, segment);
            self.archive.next = number + 1;
        }
        self.archive.stored = self.archive.next;
        self.archive.floor = Some(found.floor.floor);
        self.max_id = self.max_id.max(found.floor.floor.0.saturating_sub(1));
        Ok((found.floor.beside, found.floor.floor))
    }
}

/// Why there is no archive to take up.
enum Unusable {
    Store(RpcError),
    Content(String),
}

impl From<record::RecordError> for Unusable {
    fn from(e: record::RecordError) -> Self {
        match e {
            record::RecordError::Lookup { source, .. } if source.errno != libc::ENOENT => {
                Self::Store(source)
            }
            e => Self::Content(e.to_string()),
        }
    }
}

async fn find(handle: &client::Handle) -> Result<Option<Found>, Unusable> {
    let floor = match record::bytes(handle, FLOOR).await {
        Ok(bytes) => bytes,
        Err(record::RecordError::Lookup { source, .. }) if source.errno == libc::ENOENT => {
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
    };
    let floor = serde_json::from_slice(&floor);
    let floor = floor.map_err(|e| Unusable::Content(format!("{FLOOR}: {e}")))?;
    let mut numbers = Vec::new();
    for high in record::names(handle, ROOT.to_owned())
        .await
        .map_err(Unusable::Store)?
    {
        let below = record::names(handle, high).await.map_err(Unusable::Store)?;
        numbers.extend(below.iter().filter_map(|path| number(path)));
    }
    numbers.sort_unstable();
    let segments = stream::iter(numbers).map(|number| async move {
        let directory = directory(number);
        let past = record::bytes(handle, &format!("{directory}.past")).await?;
        let jobs = Ended::decode(&past)
            .ok_or_else(|| Unusable::Content(format!("{directory}.past is cut short")))?;
        let purged = match record::text(handle, &format!("{directory}.purged")).await {
            Ok(text) => text
                .parse()
                .map_err(|e| Unusable::Content(format!("{directory}.purged: {e}")))?,
            Err(e) if e.is_of_store() => return Err(Unusable::from(e)),
            Err(_) => Idset::new(),
        };
        let segment = Segment {
            jobs: jobs.len(),
            purged,
        };
        Ok((number, segment, jobs))
    });
    let mut segments = segments.buffered(record::WINDOW);
    let mut found = Vec::new();
    while let Some(segment) = segments.next().await {
        found.push(segment?);
    }
    Ok(Some(Found {
        floor,
        segments: found,
    }))
}
