//! Plugins of the job manager: flux-jobtap-plugins(7), RFC 21 and 26.
//!
//! The stack is asked at the points of a job's life that have a topic ([`hooks`]), and asks back by name ([`ask`]); both
//! are synchronous. What is loaded, from where, is in [`load`].
//!
//! Invariants: a job that plugins are being asked about does not change meanwhile: events for it are deferred and
//! posted when the call has returned, and what its new state calls for is done once, after all of them. A plugin that
//! fails is a failure of its call, never of the manager.

mod args;
mod ask;
mod call;
mod hooks;
mod load;
mod services;
mod stack;
mod tap;

use std::collections::{HashMap, HashSet, VecDeque};

use formats::eventlog::Event;
use formats::jobid::JobId;
use serde_json::{Map, Value};

pub(super) use hooks::Judged;
pub(super) use load::directives;
pub(super) use services::News;
pub(super) use tap::Builtin;

/// The plugins, and what they have to do with jobs now.
#[derive(Debug, Default)]
pub(super) struct Taps {
    stack: stack::Stack,
    /// Jobs that plugins are being asked about, the innermost last.
    current: Vec<JobId>,
    /// Jobs for which nothing is done yet, since more events are to come.
    held: Vec<JobId>,
    /// Events for jobs that plugins are being asked about.
    deferred: VecDeque<(JobId, Event)>,
    /// Changes of the current job's jobspec that a plugin has asked for.
    updates: Map<String, Value>,
    /// Who wants all events of a job.
    subscribers: HashMap<JobId, HashSet<u64>>,
    services: services::Registry,
    /// Services of plugins that are still being loaded: plugin, method, who may ask.
    pending_services: Vec<(u64, String, u32)>,
    /// In which order plugins want to be told of the jobs there are.
    orders: HashMap<u64, tap::Order>,
    /// The serial number of the last plugin.
    last: u64,
    /// The name of the plugin that is being loaded or removed, which is not in the stack.
    loading: String,
    /// The configuration of the instance, as last taken over.
    config: Value,
    /// The instance's owner, too, keeps to the limits when updating a job's duration.
    is_owner_bound: bool,
    /// Where programs reach this broker.
    uri: Option<String>,
}

impl Taps {
    /// Whether plugins are being asked about a job.
    fn is_busy(&self, id: JobId) -> bool {
        self.current.contains(&id)
    }

    /// Keep an event of a job that plugins are being asked about; gives back any other.
    pub(super) fn defer(&mut self, id: JobId, event: Event) -> Option<Event> {
        if self.current.is_empty() || !self.is_busy(id) {
            return Some(event);
        }
        self.deferred.push_back((id, event));
        None
    }

    /// The next event that was deferred of a job.
    fn due(&mut self, id: JobId) -> Option<Event> {
        let at = self.deferred.iter().position(|(job, _)| *job == id)?;
        self.deferred.remove(at).map(|(_, event)| event)
    }

    /// Whether what a job's state calls for is done by somebody else, later.
    pub(super) fn holds(&self, id: JobId) -> bool {
        self.held.contains(&id)
    }

    /// Whether the manager does this itself.
    pub(super) fn has(&self, builtin: Builtin) -> bool {
        self.stack.has(builtin)
    }

    /// Whether the instance's owner may exceed limits when updating a job's duration.
    pub(super) fn owner_is_free(&self) -> bool {
        !self.is_owner_bound
    }

    pub(super) fn is_plain(&self) -> bool {
        self.stack.is_plain()
    }
}
