//! Inactive jobs in little space: a *block* holds many of them, is written once, and is the same in memory and in the store.
//!
//! It begins with the texts its jobs share, each once; a record begins with what indexes are made of ([`Head`]), so that
//! a block is taken in without reading the rest. Numbers are little endian; those of no fixed width have seven bits a byte.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, TryGetError};
use formats::job::JobState;
use formats::{Idset, JobResult};

use super::job::{Exception, Job, Times};

/// What a block begins with: the form, with its version.
const MAGIC: u32 = u32::from_le_bytes(*b"FJB1");

/// Why bytes are no block of jobs.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("not a block of jobs")]
    Form,
    #[error("a block of jobs is cut short: {0}")]
    Short(#[from] TryGetError),
    #[error("a block of jobs has a text that is none: {0}")]
    Text(#[from] std::str::Utf8Error),
}

/// What is known of a job at once.
#[derive(Clone, Debug)]
pub struct Head {
    pub id: u64,
    pub userid: u32,
    pub inactive: f64,
    pub result: JobResult,
    pub name: Option<Arc<str>>,
    pub queue: Option<Arc<str>>,
}

/// Jobs that do not change any more.
#[derive(Debug)]
pub struct Block {
    bytes: Bytes,
    texts: Vec<Arc<str>>,
    /// Where the records begin.
    records: Vec<u32>,
}

/// Texts of a block, by number; 0 stands for none.
#[derive(Default)]
struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    all: Vec<Arc<str>>,
}

impl Texts {
    fn number(&mut self, text: Option<&str>) -> u32 {
        let Some(text) = text else { return 0 };
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let text: Arc<str> = text.into();
        self.all.push(text.clone());
        let number = self.all.len() as u32;
        self.numbers.insert(text, number);
        number
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn get_number(from: &mut &[u8]) -> Result<u64, TryGetError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Ok(number)
}

/// Small numbers of either sign.
fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn get_signed(from: &mut &[u8]) -> Result<i64, TryGetError> {
    let number = get_number(from)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn get_option<T>(
    from: &mut &[u8],
    get: impl FnOnce(&mut &[u8]) -> Result<T, TryGetError>,
) -> Result<Option<T>, TryGetError> {
    match from.try_get_u8()? {
        0 => Ok(None),
        _ => get(from).map(Some),
    }
}

fn get_u32(from: &mut &[u8]) -> Result<u32, TryGetError> {
    get_number(from).map(|number| number as u32)
}

fn get_f64(from: &mut &[u8]) -> Result<f64, TryGetError> {
    from.try_get_f64_le()
}

fn put_record(out: &mut Vec<u8>, texts: &mut Texts, job: &Job) {
    out.put_u64_le(job.id);
    out.put_f64_le(job.times.inactive);
    out.put_u32_le(job.userid);
    out.put_u8(job.result().bit().trailing_zeros() as u8);
    put_number(out, texts.number(job.name.as_deref()).into());
    put_number(out, texts.number(job.queue.as_deref()).into());
    let mut rest = Vec::with_capacity(96);
    put_rest(&mut rest, texts, job);
    put_number(out, rest.len() as u64);
    out.extend_from_slice(&rest);
}

fn put_rest(out: &mut Vec<u8>, texts: &mut Texts, job: &Job) {
    put_number(out, job.states.into());
    put_signed(out, job.urgency);
    put_signed(out, job.priority);
    let t = &job.times;
    for time in [t.submit, t.depend, t.priority, t.sched, t.run, t.cleanup] {
        out.put_f64_le(time);
    }
    let ranks = job.ranks.as_ref().map(Idset::to_string);
    let annotations = job.annotations.as_ref().map(|a| a.to_string());
    let strings = [
        job.cwd.as_deref(),
        job.project.as_deref(),
        job.bank.as_deref(),
        job.nodelist.as_deref(),
        ranks.as_deref(),
        annotations.as_deref(),
    ];
    for text in strings {
        put_number(out, texts.number(text).into());
    }
    for count in [job.ntasks, job.ncores, job.nnodes] {
        put_option(out, count, |out, n| put_number(out, n.into()));
    }
    for time in [job.duration, job.expiration] {
        put_option(out, time, |out, t| out.put_f64_le(t));
    }
    put_option(out, job.wait_status, put_signed);
    put_option(out, job.exception.as_ref(), |out, e| {
        put_signed(out, e.severity);
        put_number(out, texts.number(Some(&e.kind)).into());
        put_number(out, texts.number(e.note.as_deref()).into());
    });
    put_number(out, job.dependencies.len() as u64);
    for text in &job.dependencies {
        put_number(out, texts.number(Some(text)).into());
    }
}

/// The bytes of a block of these jobs, in this order. They are inactive.
pub fn encode<'a>(jobs: impl Iterator<Item = &'a Job>) -> Bytes {
    let (mut texts, mut records, mut count) = (Texts::default(), Vec::new(), 0);
    for job in jobs {
        put_record(&mut records, &mut texts, job);
        count += 1;
    }
    let mut out = Vec::with_capacity(records.len() + 4096);
    out.put_u32_le(MAGIC);
    out.put_u32_le(count);
    out.put_u32_le(texts.all.len() as u32);
    for text in &texts.all {
        put_number(&mut out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&records);
    out.into()
}

/// Takes `len` bytes off.
fn take<'a>(from: &mut &'a [u8], len: u64) -> Result<&'a [u8], BlockError> {
    let (requested, available) = (len as usize, from.len());
    match from.split_at_checked(requested) {
        Some((head, rest)) => {
            *from = rest;
            Ok(head)
        }
        None => Err(TryGetError {
            requested,
            available,
        }
        .into()),
    }
}

impl Block {
    /// Reads what [`encode`] has made.
    pub fn decode(bytes: Bytes) -> Result<Block, BlockError> {
        let mut from = &bytes[..];
        if from.try_get_u32_le()? != MAGIC {
            return Err(BlockError::Form);
        }
        let (count, ntexts) = (from.try_get_u32_le()?, from.try_get_u32_le()?);
        let mut texts = Vec::new();
        for _ in 0..ntexts {
            let len = get_number(&mut from)?;
            texts.push(std::str::from_utf8(take(&mut from, len)?)?.into());
        }
        let mut block = Block {
            bytes: Bytes::new(),
            texts,
            records: Vec::new(),
        };
        for _ in 0..count {
            block.records.push((bytes.len() - from.len()) as u32);
            block.head_at(&mut from)?;
            let len = get_number(&mut from)?;
            take(&mut from, len)?;
        }
        block.bytes = bytes;
        Ok(block)
    }

    /// Number of jobs.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has no job.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn text(&self, number: u64) -> Option<Arc<str>> {
        let at = (number as usize).checked_sub(1)?;
        self.texts.get(at).cloned()
    }

    fn head_at(&self, from: &mut &[u8]) -> Result<Head, TryGetError> {
        let (id, inactive) = (from.try_get_u64_le()?, from.try_get_f64_le()?);
        let (userid, result) = (from.try_get_u32_le()?, from.try_get_u8()?);
        let results = [
            JobResult::Completed,
            JobResult::Failed,
            JobResult::Canceled,
            JobResult::Timeout,
        ];
        let is_it = |r: &JobResult| r.bit().trailing_zeros() == u32::from(result);
        Ok(Head {
            id,
            userid,
            inactive,
            result: results.into_iter().find(is_it).unwrap_or(JobResult::Failed),
            name: self.text(get_number(from)?),
            queue: self.text(get_number(from)?),
        })
    }

    /// What is known at once of the job of this number.
    pub fn head(&self, number: u32) -> Option<Head> {
        let at = *self.records.get(number as usize)?;
        self.head_at(&mut &self.bytes[at as usize..]).ok()
    }

    /// The job of this number.
    pub fn job(&self, number: u32) -> Option<Job> {
        let at = *self.records.get(number as usize)?;
        self.job_at(&mut &self.bytes[at as usize..]).ok()
    }

    fn job_at(&self, from: &mut &[u8]) -> Result<Job, TryGetError> {
        let head = self.head_at(from)?;
        let _length = get_number(from)?;
        let mut job = Job::new(head.id);
        (job.userid, job.name, job.queue) = (head.userid, head.name, head.queue);
        job.state = JobState::Inactive;
        job.states = get_u32(from)?;
        (job.urgency, job.priority) = (get_signed(from)?, get_signed(from)?);
        job.times = Times {
            submit: get_f64(from)?,
            depend: get_f64(from)?,
            priority: get_f64(from)?,
            sched: get_f64(from)?,
            run: get_f64(from)?,
            cleanup: get_f64(from)?,
            inactive: head.inactive,
        };
        let mut text = || get_number(from).map(|number| self.text(number));
        (job.cwd, job.project, job.bank) = (text()?, text()?, text()?);
        job.nodelist = text()?;
        job.ranks = text()?.and_then(|ranks| ranks.parse().ok());
        job.annotations = text()?.and_then(|json| serde_json::from_str(&json).ok());
        job.ntasks = get_option(from, get_u32)?;
        job.ncores = get_option(from, get_u32)?;
        job.nnodes = get_option(from, get_u32)?;
        job.duration = get_option(from, get_f64)?;
        job.expiration = get_option(from, get_f64)?;
        job.wait_status = get_option(from, get_signed)?;
        job.exception = get_option(from, |from| {
            Ok(Exception {
                severity: get_signed(from)?,
                kind: self.text(get_number(from)?).as_deref().unwrap_or("").into(),
                note: self.text(get_number(from)?).as_deref().map(str::to_owned),
            })
        })?;
        for _ in 0..get_number(from)? {
            let text = self.text(get_number(from)?);
            job.dependencies.extend(text.as_deref().map(str::to_owned));
        }
        Ok(job)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::list::job::tests::{event, jobspec};
    use proptest::prelude::*;
    use serde_json::json;

    /// An inactive job, made of its events.
    pub(crate) fn ended(id: u64, queue: &str, time: f64, rich: bool) -> Job {
        let mut job = Job::new(id);
        job.set_jobspec(jobspec(queue));
        let submit = json!({"userid": id as u32 % 3, "urgency": 16, "flags": 0, "version": 1});
        job.apply(&event(time, "submit", submit));
        job.apply(&event(time, "validate", json!({})));
        if rich {
            job.apply(&event(
                time,
                "dependency-add",
                json!({"description": "afterok:ƒ1"}),
            ));
            job.apply(&event(time, "memo", json!({"note": ["ä", 1.5, null]})));
        }
        job.apply(&event(time, "depend", json!({})));
        job.apply(&event(time, "priority", json!({"priority": 4294967295u64})));
        if rich {
            job.set_resources(json!({"version": 1, "execution": {
                "R_lite": [{"rank": "1-2", "children": {"core": "0-2"}}],
                "starttime": 7.0, "expiration": 97.25, "nodelist": ["n[1-2]"]}}));
            let summary = json!({"sched": {"resource_summary": "rank[1-2]/core[0-2]"}});
            job.apply(&event(time, "alloc", json!({"annotations": summary})));
            job.apply(&event(time, "finish", json!({"status": 15})));
        }
        let cancel = json!({"type": "cancel", "severity": 0, "note": "n", "userid": 1});
        job.apply(&event(time, "exception", cancel));
        job.apply(&event(time + 0.123_456, "clean", json!({})));
        job
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(jobs in prop::collection::vec(
            (any::<u64>(), "[ab]", 0.0..4e9f64, any::<bool>()), 0..20)) {
            let jobs: Vec<Job> = jobs.iter().map(|(id, q, t, rich)| ended(*id, q, *t, *rich)).collect();
            let bytes = encode(jobs.iter());
            let block = Block::decode(bytes.clone()).unwrap();
            let read: Vec<Job> = (0..block.len() as u32).map(|n| block.job(n).unwrap()).collect();
            prop_assert_eq!(&read, &jobs);
            let head = |n| block.head(n).unwrap();
            for (n, job) in (0..).zip(&jobs) {
                prop_assert_eq!((head(n).id, head(n).result), (job.id, job.result()));
            }
            for len in 0..bytes.len() {
                prop_assert!(Block::decode(bytes.slice(..len)).is_err());
            }
        }

        #[test]
        fn no_bytes_do_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            bytes.splice(0..0, MAGIC.to_le_bytes());
            if let Ok(block) = Block::decode(bytes.into()) {
                (0..block.len() as u32).for_each(|n| drop(block.job(n)));
            }
        }
    }

    #[test]
    fn a_job_takes_little_space() {
        let jobs: Vec<Job> = (0..1000)
            .map(|id| ended(id, "q", id as f64, true))
            .collect();
        let size = encode(jobs.iter()).len();
        assert!(size < 1000 * 120, "{size} bytes");
    }
}
