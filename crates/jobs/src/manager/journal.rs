//! `job-manager.events-journal`: all events of all jobs, as they are posted.
//!
//! With `full` the past comes first (without what is in the archive, and where that is, for who asks for that with `archived`
//! false): inactive jobs are read from the store and sent while the manager goes on; a job that
//! becomes inactive meanwhile is kept until then, so that each job is told of once.

use std::collections::HashSet;
use std::sync::Arc;

use client::Handle;
use formats::eventlog::Event;
use formats::jobid::JobId;
use futures::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::batch::After;
use super::job::Job;
use super::past::Ended;
use super::{Done, Manager};
use crate::record::{self, Record, RecordError};

/// Job id of the message that ends the history (upstream's FLUX_JOBID_ANY, as a signed number).
const SENTINEL: i64 = -1;

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    full: bool,
    #[serde(default = "yes")]
    archived: bool,
    allow: Option<Map<String, Value>>,
    deny: Option<Map<String, Value>>,
}

fn yes() -> bool {
    true
}

/// Somebody who follows the journal.
#[derive(Debug)]
pub(super) struct Listener {
    request: Message,
    allow: Option<Map<String, Value>>,
    deny: Option<Map<String, Value>>,
}

impl Listener {
    fn wants(&self, name: &str) -> bool {
        self.allow.as_ref().is_none_or(|set| set.contains_key(name))
            && !self.deny.as_ref().is_some_and(|set| set.contains_key(name))
    }

    fn send(&self, handle: &Handle, told: &Told<'_>) {
        let events: Vec<&Event> = told.events.iter().filter(|e| self.wants(&e.name)).collect();
        if events.is_empty() {
            return;
        }
        let has = |name: &str| events.iter().any(|e| e.name == name);
        let mut item = json!({ "id": told.id, "events": events });
        if has("submit") {
            item["jobspec"] = told.jobspec.clone();
        }
        if let Some(r) = told.r.filter(|_| has("alloc")) {
            item["R"] = r.clone();
        }
        handle.respond(&self.request, &item);
    }

    fn send_job(&self, handle: &Handle, job: &Job) {
        self.send(handle, &Told::of(job, &job.events));
    }
}

/// What a listener is told of a job at once.
struct Told<'a> {
    id: JobId,
    events: &'a [Event],
    jobspec: &'a Value,
    r: Option<&'a Value>,
}

impl<'a> Told<'a> {
    fn of(job: &'a Job, events: &'a [Event]) -> Self {
        Told {
            id: job.id,
            events,
            jobspec: &job.jobspec,
            r: job.r.as_deref(),
        }
    }
}

impl<'a> From<&'a Record> for Told<'a> {
    fn from(record: &'a Record) -> Self {
        Told {
            id: record.id,
            events: &record.events,
            jobspec: &record.jobspec,
            r: record.r.as_ref(),
        }
    }
}

/// Send these inactive jobs, in this order; those that were sent.
async fn tell_past(handle: &Handle, listener: &Listener, ids: Vec<JobId>) -> HashSet<JobId> {
    let records = stream::iter(ids).map(|id| past(handle, id));
    let mut records = records.buffered(record::WINDOW);
    let mut told = HashSet::new();
    while let Some(record) = records.next().await {
        match record {
            Ok(Some(record)) => {
                listener.send(handle, &Told::from(&record));
                told.insert(record.id);
            }
            Ok(None) => {}
            // Those who list jobs have to do without.
            Err(e) => super::log(handle, super::LOG_ERR, &format!("journal: {e}")),
        }
    }
    told
}

/// The record of a job, if it is inactive.
async fn past(handle: &Handle, id: JobId) -> Result<Option<Record>, RecordError> {
    let events = record::events(handle, id).await?;
    match record::is_inactive(&events) {
        true => record::load(handle, id, events).await.map(Some),
        false => Ok(None),
    }
}

/// Events of one job, one after the other, that listeners are still to be told of.
struct News {
    id: JobId,
    events: Vec<Event>,
    jobspec: Arc<Value>,
    r: Option<Arc<Value>>,
}

impl<'a> From<&'a News> for Told<'a> {
    fn from(news: &'a News) -> Self {
        Told {
            id: news.id,
            events: &news.events,
            jobspec: &news.jobspec,
            r: news.r.as_deref(),
        }
    }
}

/// Who follows the journal.
#[derive(Default)]
pub(crate) struct Journal {
    listeners: Vec<Listener>,
    news: Vec<News>,
    /// Requests of listeners that are being told of the past.
    reading: Vec<Message>,
    /// Jobs that have become inactive since the first of these began.
    retired: Vec<Job>,
}

impl Journal {
    /// Something has happened to a job. Listeners hear of it with the next [`Journal::flush`].
    pub(crate) fn publish(&mut self, job: &Job, event: &Event) {
        if self.listeners.is_empty() {
            return;
        }
        match self.news.last_mut().filter(|news| news.id == job.id) {
            Some(news) => {
                news.events.push(event.clone());
                // What it was allocated may be new.
                news.r.clone_from(&job.r);
            }
            None => self.news.push(News {
                id: job.id,
                events: vec![event.clone()],
                jobspec: job.jobspec.clone(),
                r: job.r.clone(),
            }),
        }
    }

    /// Tell listeners what has happened.
    pub(crate) fn flush(&mut self, handle: &Handle) {
        for news in self.news.drain(..) {
            let told = Told::from(&news);
            for listener in &self.listeners {
                listener.send(handle, &told);
            }
        }
    }

    /// A job has become inactive.
    pub(crate) fn retired(&mut self, job: Job) {
        if !self.reading.is_empty() {
            self.retired.push(job);
        }
    }

    /// End the stream that `msg` cancels.
    pub(crate) fn cancel(&mut self, handle: &Handle, msg: &Message) {
        let Ok(matchtag) = msg.cancelled() else {
            return;
        };
        self.flush(handle);
        let is_it = |request: &Message| request.is_same_rpc(msg, Some(matchtag));
        let followed = self.listeners.extract_if(.., |l| is_it(&l.request));
        let followed: Vec<Message> = followed.map(|l| l.request).collect();
        let reading = self.reading.extract_if(.., |request| is_it(request));
        for request in followed.into_iter().chain(reading) {
            handle.respond_error(&request, &RpcError::errno(libc::ENODATA));
        }
        self.forget();
    }

    /// What nobody reads up to any more need not be kept.
    fn forget(&mut self) {
        if self.reading.is_empty() {
            self.retired.clear();
        }
    }

    pub(crate) fn disconnect(&mut self, msg: &Message) {
        self.listeners.retain(|l| !l.request.is_same_rpc(msg, None));
        self.reading
            .retain(|request| !request.is_same_rpc(msg, None));
        self.forget();
    }

    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }
}

impl Manager {
    /// Let somebody follow the journal.
    pub(super) fn follow_journal(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        if !msg.is_streaming() {
            return Err(RpcError::proto("events-journal is a streaming method"));
        }
        let Request {
            full,
            archived,
            allow,
            deny,
        } = msg.json()?;
        let request = msg.clone();
        let listener = Listener {
            request,
            allow,
            deny,
        };
        if !full {
            self.live(listener);
            return Ok(());
        }
        self.journal.reading.push(msg.clone());
        let is_told = |ended: &Ended| archived || !self.archive.has(ended.place);
        let past = self.past.iter().filter(|(_, ended)| is_told(ended));
        let mut ids: Vec<JobId> = past.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        if !archived {
            let item = json!({ "id": SENTINEL, "events": [], "archived": self.archive.keys() });
            self.handle.respond(msg, &item);
        }
        // What these have come to is stored by then.
        self.batch.after(After::Tell(Box::new(listener), ids));
        Ok(())
    }

    /// Send a listener these inactive jobs.
    pub(super) fn tell_listener(&mut self, listener: Box<Listener>, ids: Vec<JobId>) {
        let handle = self.handle.clone();
        self.work.push(Box::pin(async move {
            let told = tell_past(&handle, &listener, ids).await;
            Done::Told(listener, told)
        }));
    }

    /// A listener knows the past: the present follows.
    pub(super) fn told(&mut self, listener: Listener, past: &HashSet<JobId>) {
        let reading = &mut self.journal.reading;
        let Some(place) = reading.iter().position(|request| {
            request.is_same_rpc(&listener.request, Some(listener.request.matchtag()))
        }) else {
            // It has gone meanwhile.
            return;
        };
        reading.swap_remove(place);
        let since = self.journal.retired.iter();
        for job in since.filter(|job| !past.contains(&job.id)) {
            listener.send_job(&self.handle, job);
        }
        self.journal.forget();
        let mut active: Vec<&Job> = self.jobs.values().collect();
        active.sort_unstable_by_key(|job| job.id);
        for job in active {
            listener.send_job(&self.handle, job);
        }
        self.live(listener);
    }

    /// A listener knows all that was; from now on it hears what is.
    fn live(&mut self, listener: Listener) {
        // These are told to those who listened then.
        self.journal.flush(&self.handle);
        let sentinel = json!({ "id": SENTINEL, "events": [] });
        self.handle.respond(&listener.request, &sentinel);
        self.journal.listeners.push(listener);
    }
}
