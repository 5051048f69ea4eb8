//! The queues (RFC 33): whether jobs may be submitted to them, and whether those there are scheduled.
//!
//! Without named queues there is one that has no name. [`Queues`] is a table without I/O; the
//! requests `queue-list`, `queue-status`, `queue-enable` and `queue-start` are below it.

use std::collections::BTreeMap;

use formats::job::JobState;
use formats::jobid::JobId;
use formats::queues::{self, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::Manager;
use super::job::Alloc;

/// What has been said about a queue, as the checkpoint has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    #[serde(rename = "enable")]
    enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disable_reason: Option<String>,
    #[serde(rename = "start")]
    started: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_reason: Option<String>,
}

/// A queue: its state, and the one it has after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    now: State,
    kept: State,
}

impl Entry {
    /// A new queue takes jobs; only the one without name also schedules them.
    fn new(name: Option<&String>) -> Self {
        let state = State {
            enabled: true,
            disable_reason: None,
            started: name.is_none(),
            stop_reason: None,
        };
        let kept = state.clone();
        Self { now: state, kept }
    }

    fn enable(&mut self, enabled: bool, reason: Option<&str>) {
        for state in [&mut self.now, &mut self.kept] {
            state.enabled = enabled;
            state.disable_reason = reason.filter(|_| !enabled).map(str::to_owned);
        }
    }

    fn start(&mut self, started: bool, reason: Option<&str>, keep: bool) {
        let kept = keep.then_some(&mut self.kept);
        for state in [Some(&mut self.now), kept].into_iter().flatten() {
            state.started = started;
            state.stop_reason = reason.filter(|_| !started).map(str::to_owned);
        }
    }
}

/// A queue in the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    state: State,
}

/// Why a queue that was started does not schedule after a restart (flux-config-job-manager(5)).
const STOPPED_BY_RESTART: &str = "Automatically stopped due to restart";

/// What a queue means for the jobs that wait in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// They are scheduled.
    Started,
    /// They are not.
    Stopped,
    /// It is not there any more, which neither holds back those of its jobs that the scheduler is or will be asked for nor
    /// lets the others go.
    Gone,
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Queues {
    config: queues::Queues,
    entries: BTreeMap<Option<String>, Entry>,
}

impl Queues {
    pub(super) fn new(config: queues::Queues) -> Self {
        let entries = BTreeMap::new();
        let mut queues = Self { config, entries };
        queues.fill();
        queues
    }

    /// Take over a new configuration; queues that stay keep their state.
    pub(super) fn configure(&mut self, config: queues::Queues) {
        self.config = config;
        self.fill();
    }

    fn fill(&mut self) {
        let named = &self.config.named;
        self.entries.retain(|name, _| match name {
            Some(name) => named.contains_key(name),
            None => named.is_empty(),
        });
        let mut names: Vec<Option<String>> = named.keys().cloned().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        for name in names {
            let fresh = Entry::new(name.as_ref());
            self.entries.entry(name).or_insert(fresh);
        }
    }

    pub(super) fn config(&self) -> &queues::Queues {
        &self.config
    }

    fn is_named(&self) -> bool {
        !self.config.named.is_empty()
    }

    fn get(&self, name: Option<&str>) -> Result<&Entry, String> {
        let entry = self.entries.get(&name.map(str::to_owned));
        entry.ok_or_else(|| unknown(name))
    }

    fn parent(&self, name: Option<&str>) -> Option<&str> {
        self.config.named.get(name?)?.parent.as_deref()
    }

    /// Why no job can be submitted to a queue, if none can.
    pub(super) fn refusal(&self, name: Option<&str>) -> Option<String> {
        let state = match self.get(name) {
            Ok(entry) => &entry.now,
            Err(why) => return Some(why),
        };
        if state.enabled {
            return None;
        }
        let to = name.map_or_else(String::new, |name| format!(" to {name}"));
        let reason = state.disable_reason.as_deref().unwrap_or("no reason given");
        Some(format!("job submission{to} is disabled: {reason}"))
    }

    /// Whether a job may move to a queue.
    pub(super) fn check_open(&self, name: &str) -> Result<(), String> {
        match self.get(Some(name))?.now.enabled {
            true => Ok(()),
            false => Err(format!("queue {name} is currently disabled")),
        }
    }

    /// What a queue means for the jobs that wait in it.
    pub(super) fn standing(&self, name: Option<&str>) -> Standing {
        let Ok(entry) = self.get(name) else {
            return Standing::Gone;
        };
        let parent = self.parent(name).map(|parent| self.get(Some(parent)));
        let is_started = |entry: &Entry| entry.now.started;
        match is_started(entry) && parent.is_none_or(|parent| parent.is_ok_and(is_started)) {
            true => Standing::Started,
            false => Standing::Stopped,
        }
    }

    fn status(&self, name: Option<&str>, has_scheduler: bool) -> Result<Status, String> {
        let state = &self.get(name)?.now;
        let parent = self.parent(name);
        let start = has_scheduler && self.standing(name) == Standing::Started;
        let (blocked, stop_reason) = match (has_scheduler, parent) {
            _ if start => (None, None),
            (false, _) => (
                state.started.then(|| "scheduler".to_owned()),
                Some("Scheduler is offline".to_owned()),
            ),
            (true, Some(parent)) if state.started => (
                Some("parent".to_owned()),
                Some(format!("parent queue '{parent}' is stopped")),
            ),
            (true, _) => (None, state.stop_reason.clone()),
        };
        Ok(Status {
            enable: state.enabled,
            disable_reason: state.disable_reason.clone(),
            start,
            stop_reason,
            blocked,
            parent: parent.map(str::to_owned),
            extra: Map::new(),
        })
    }

    /// The queue of that name, or all.
    fn select(
        &mut self,
        name: Option<&str>,
        all: bool,
    ) -> Result<impl Iterator<Item = &mut Entry>, String> {
        match name {
            Some(name) => drop(self.get(Some(name))?),
            None if self.is_named() && !all => {
                return Err("queues have names: give one, or --all".to_owned());
            }
            None => {}
        }
        let is_meant =
            move |key: &Option<String>| name.is_none_or(|name| key.as_deref() == Some(name));
        let entries = self.entries.iter_mut();
        Ok(entries
            .filter(move |(key, _)| is_meant(key))
            .map(|(_, entry)| entry))
    }

    /// What the checkpoint has of them.
    pub(super) fn save(&self) -> Vec<Saved> {
        let saved = |(name, entry): (&Option<String>, &Entry)| Saved {
            name: name.clone(),
            state: entry.kept.clone(),
        };
        self.entries.iter().map(saved).collect()
    }

    /// Take over what a checkpoint says of the queues that there are.
    pub(super) fn restore(&mut self, saved: Vec<Saved>, stop: bool) {
        for Saved { name, state } in saved {
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            (entry.now, entry.kept) = (state.clone(), state);
            if stop && entry.now.started {
                entry.start(false, Some(STOPPED_BY_RESTART), true);
            }
        }
    }
}

fn unknown(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("'{name}' is not a valid queue"),
        None => "a named queue is required".to_owned(),
    }
}

fn invalid(why: String) -> RpcError {
    RpcError::new(libc::EINVAL, why)
}

impl Manager {
    pub(super) fn queue_list(&self) -> Value {
        let names: Vec<&String> = self.queues.config.named.keys().collect();
        json!({ "queues": names })
    }

    pub(super) fn queue_status(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: Option<String>,
        }
        let Request { name } = msg.json()?;
        let status = self.queues.status(name.as_deref(), self.has_scheduler());
        Ok(json!(status.map_err(invalid)?))
    }

    pub(super) fn queue_enable(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: Option<String>,
            enable: bool,
            reason: Option<String>,
            #[serde(default)]
            all: bool,
        }
        msg.require_owner()?;
        let Request {
            name,
            enable,
            reason,
            all,
        } = msg.json()?;
        if !enable && reason.is_none() {
            return Err(invalid(
                "a reason is required to disable submission".to_owned(),
            ));
        }
        let meant = self.queues.select(name.as_deref(), all).map_err(invalid)?;
        meant.for_each(|entry| entry.enable(enable, reason.as_deref()));
        self.save_queues();
        Ok(Value::Null)
    }

    pub(super) fn queue_start(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: Option<String>,
            start: bool,
            reason: Option<String>,
            #[serde(default)]
            all: bool,
            #[serde(default)]
            nocheckpoint: bool,
        }
        msg.require_owner()?;
        let Request {
            name,
            start,
            reason,
            all,
            nocheckpoint,
        } = msg.json()?;
        let meant = self.queues.select(name.as_deref(), all).map_err(invalid)?;
        meant.for_each(|entry| entry.start(start, reason.as_deref(), !nocheckpoint));
        self.save_queues();
        self.follow_queues();
        Ok(Value::Null)
    }

    /// Queue the jobs of queues that were started, and withdraw those of queues that were stopped.
    pub(super) fn follow_queues(&mut self) {
        let waiting = |state| state == JobState::Sched;
        let jobs = self.jobs.values().filter(|job| waiting(job.state));
        let ids: Vec<JobId> = jobs.map(|job| job.id).collect();
        for id in ids {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            match (self.queues.standing(job.queue()), job.alloc) {
                (Standing::Started, Alloc::None) => self.wait_for_turn(id),
                (Standing::Stopped, Alloc::Queued) => {
                    job.alloc = Alloc::None;
                    self.pending.remove(&job.queue_key());
                }
                (Standing::Stopped, Alloc::Requested) => self.cancel_alloc(id),
                _ => {}
            }
        }
        // All of them are in the queue: the first by priority come first.
        self.schedule();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: Value) -> queues::Queues {
        queues::Queues::from_config(&value).unwrap()
    }

    fn named() -> queues::Queues {
        config(json!({"queues": {"batch": {}, "late": {"parent": "batch"}}}))
    }

    fn start(queues: &mut Queues, name: Option<&str>, started: bool) {
        let meant = queues.select(name, true).unwrap();
        meant.for_each(|entry| entry.start(started, Some("why"), true));
    }

    fn schedules(queues: &Queues, name: Option<&str>) -> bool {
        queues.standing(name) == Standing::Started
    }

    #[test]
    fn one_queue_without_name() {
        let mut queues = Queues::new(queues::Queues::default());
        assert!(schedules(&queues, None) && queues.refusal(None).is_none());
        assert_eq!(queues.standing(Some("batch")), Standing::Gone);
        let why = queues.refusal(Some("batch")).unwrap();
        assert_eq!(why, "'batch' is not a valid queue");
        let meant = queues.select(None, false).unwrap();
        meant.for_each(|entry| entry.enable(false, Some("full")));
        assert_eq!(
            queues.refusal(None).unwrap(),
            "job submission is disabled: full"
        );
    }

    #[test]
    fn named_queues_are_started_one_by_one() {
        let mut queues = Queues::new(named());
        assert_eq!(queues.standing(Some("batch")), Standing::Stopped);
        assert_eq!(queues.standing(None), Standing::Gone);
        assert!(queues.select(None, false).is_err() && queues.select(Some("x"), true).is_err());
        start(&mut queues, Some("batch"), true);
        assert!(schedules(&queues, Some("batch")) && !schedules(&queues, Some("late")));
        assert_eq!(queues.refusal(None).unwrap(), "a named queue is required");
    }

    #[test]
    fn a_virtual_queue_waits_for_its_parent() {
        let mut queues = Queues::new(named());
        start(&mut queues, Some("late"), true);
        assert!(!schedules(&queues, Some("late")));
        let status = queues.status(Some("late"), true).unwrap();
        assert_eq!(
            (status.blocked.as_deref(), status.stop_reason.as_deref()),
            (Some("parent"), Some("parent queue 'batch' is stopped"))
        );
        start(&mut queues, None, true);
        assert!(schedules(&queues, Some("late")));
        let offline = queues.status(Some("late"), false).unwrap();
        assert_eq!(
            (offline.start, offline.blocked.as_deref()),
            (false, Some("scheduler"))
        );
    }

    #[test]
    fn a_reload_keeps_the_state_of_queues_that_stay() {
        let mut queues = Queues::new(named());
        start(&mut queues, Some("batch"), true);
        queues.configure(config(json!({"queues": {"batch": {}, "new": {}}})));
        assert!(schedules(&queues, Some("batch")) && !schedules(&queues, Some("new")));
        assert!(queues.get(Some("late")).is_err());
        queues.configure(queues::Queues::default());
        assert!(schedules(&queues, None) && !schedules(&queues, Some("batch")));
    }

    #[test]
    fn a_restart_finds_what_was_kept() {
        let mut queues = Queues::new(named());
        start(&mut queues, None, true);
        let meant = queues.select(Some("late"), false).unwrap();
        meant.for_each(|entry| entry.start(false, None, false));
        assert!(!schedules(&queues, Some("late")));
        let saved = queues.save();
        assert_eq!(
            json!(saved[0]),
            json!({"name": "batch", "enable": true, "start": true})
        );
        let mut again = Queues::new(named());
        again.restore(saved.clone(), false);
        assert!(schedules(&again, Some("late")));
        let mut stopped = Queues::new(named());
        stopped.restore(saved, true);
        let status = stopped.status(Some("batch"), true).unwrap();
        assert_eq!(status.stop_reason.as_deref(), Some(STOPPED_BY_RESTART));
    }
}
