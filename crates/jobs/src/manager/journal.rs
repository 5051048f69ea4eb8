//! `job-manager.events-journal`: all events of all jobs, as they are posted.

use client::Handle;
use formats::eventlog::Event;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::job::Job;

/// Job id of the message that ends the history (upstream's FLUX_JOBID_ANY).
const SENTINEL: u64 = u64::MAX;

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    full: bool,
    allow: Option<Map<String, Value>>,
    deny: Option<Map<String, Value>>,
}

struct Listener {
    request: Message,
    allow: Option<Map<String, Value>>,
    deny: Option<Map<String, Value>>,
}

impl Listener {
    fn wants(&self, name: &str) -> bool {
        self.allow.as_ref().is_none_or(|set| set.contains_key(name))
            && !self.deny.as_ref().is_some_and(|set| set.contains_key(name))
    }

    fn send(&self, handle: &Handle, job: &Job, events: &[Event]) {
        let events: Vec<&Event> = events.iter().filter(|e| self.wants(&e.name)).collect();
        if events.is_empty() {
            return;
        }
        let has = |name: &str| events.iter().any(|e| e.name == name);
        let mut item = json!({ "id": job.id, "events": events });
        if has("submit") {
            item["jobspec"] = Value::clone(&job.jobspec);
        }
        if let Some(r) = job.r.as_ref().filter(|_| has("alloc")) {
            item["R"] = Value::clone(r);
        }
        handle.respond(&self.request, &item);
    }
}

/// Who follows the journal.
#[derive(Default)]
pub(crate) struct Journal {
    listeners: Vec<Listener>,
}

impl Journal {
    /// Start following; with `full`, the events so far of `jobs` come first.
    pub(crate) fn follow<'a>(
        &mut self,
        handle: &Handle,
        msg: &Message,
        jobs: impl Iterator<Item = &'a Job>,
    ) -> Result<(), RpcError> {
        msg.require_owner()?;
        if !msg.is_streaming() {
            return Err(RpcError::proto("events-journal is a streaming method"));
        }
        let Request { full, allow, deny } = msg.json()?;
        let listener = Listener {
            request: msg.clone(),
            allow,
            deny,
        };
        if full {
            jobs.for_each(|job| listener.send(handle, job, &job.events));
        }
        let sentinel = json!({ "id": SENTINEL, "events": [] });
        handle.respond(msg, &sentinel);
        self.listeners.push(listener);
        Ok(())
    }

    pub(crate) fn publish(&self, handle: &Handle, job: &Job, event: &Event) {
        for listener in &self.listeners {
            listener.send(handle, job, std::slice::from_ref(event));
        }
    }

    /// End the stream that `msg` cancels.
    pub(crate) fn cancel(&mut self, handle: &Handle, msg: &Message) {
        #[derive(Deserialize)]
        struct Cancel {
            matchtag: u32,
        }
        let Ok(Cancel { matchtag }) = msg.json() else {
            return;
        };
        self.listeners.retain(|l| {
            let stays = !l.request.is_same_rpc(msg, Some(matchtag));
            if !stays {
                handle.respond_error(&l.request, &RpcError::errno(libc::ENODATA));
            }
            stays
        });
    }

    pub(crate) fn disconnect(&mut self, msg: &Message) {
        self.listeners.retain(|l| !l.request.is_same_rpc(msg, None));
    }

    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }
}
